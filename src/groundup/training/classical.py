"""A scikit-learn style estimator, fitted on the arrays, and what it answers in the form that metrics take."""

from __future__ import annotations

import statistics
import time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from groundup import metrics
from groundup.errors import ModelError
from groundup.training.arrays import Arrays

DOUBLE = 1 << 30
"""Bytes of float32 features up to which estimators are given float64: solvers converge better, and trees convert anyway."""


def flat(X: NDArray[Any]) -> NDArray[Any]:
    """Features (N, n_features): images in a row, in float64 where that is affordable."""
    X = X.reshape(len(X), -1)
    return X.astype(np.float64) if X.nbytes <= DOUBLE else X


def fitted(recipe: Any, arrays: Arrays, seed: int) -> tuple[Any, float]:
    """The estimator, fitted on the training split, and the seconds that took.

    Raises:
        ModelError: the estimator refuses the data or its parameters, or cannot be fitted.
    """
    estimator = recipe.build((int(np.prod(arrays.feature_shape)),), arrays.n_outputs, seed)
    name = type(estimator).__name__
    began = time.perf_counter()
    try:
        estimator.fit(flat(arrays.X), arrays.y)
    except (ValueError, TypeError) as e:
        raise ModelError(f"{name} could not be fitted on {arrays.X.shape[0]} rows of {arrays.X[0].size} features: {e}") from e
    return estimator, time.perf_counter() - began


def answers(estimator: Any, X: NDArray[Any], arrays: Arrays) -> NDArray[Any]:
    """Probabilities (N, n_outputs), a class that training never saw having 0; or values (N,).

    A classifier without probabilities gives its vote, one-hot, as its exported graph does.
    """
    if arrays.regression:
        return np.asarray(estimator.predict(flat(X)), np.float64).reshape(len(X))
    p = np.zeros((len(X), arrays.n_outputs))
    if hasattr(estimator, "predict_proba"):
        p[:, np.asarray(estimator.classes_, np.int64)] = estimator.predict_proba(flat(X))
    else:
        p[np.arange(len(X)), np.asarray(estimator.predict(flat(X)), np.int64)] = 1
    return p


def scores(estimator: Any, arrays: Arrays) -> dict[str, float]:
    """Metrics of the validation split; undefined ones are left out.

    Raises:
        ModelError: the fitted estimator cannot answer (more neighbours than rows, and the like).
    """
    if len(arrays.y_val) == 0:
        return {}
    try:
        given = answers(estimator, arrays.X_val, arrays)
    except (ValueError, TypeError) as e:
        raise ModelError(f"{type(estimator).__name__} was fitted, but cannot answer for the validation split: {e}") from e
    found = metrics.compute(arrays.task, arrays.y_val, given)
    return {name: value for name, value in found.items() if np.isfinite(value)}


def latency(estimator: Any, arrays: Arrays, repeats: int = 20) -> float:
    """Median milliseconds to answer for one sample, after warm-up."""
    X = arrays.X[:1]
    times = []
    for i in range(repeats + 2):
        began = time.perf_counter()
        answers(estimator, X, arrays)
        if i >= 2:
            times.append(time.perf_counter() - began)
    return statistics.median(times) * 1000

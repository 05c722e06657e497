"""The simple model that every model must beat, trained on the same split.

Two are tried: one that ignores the inputs (the majority class, or the mean) and a linear one on the same features
(logistic or ridge regression, standardized).  The better on the validation split is "the baseline": a model that does
not beat it has not earned its complexity (Zinkevich, "Rules of Machine Learning", rule 4).
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from groundup import metrics

Array = NDArray[Any]
_CELLS = 8_000_000  # feature values that the linear model is fitted on: some seconds on one core


class Splits(Protocol):
    """What a baseline needs of :class:`groundup.lifecycle.prepare.Prepared`."""

    def features(self, split: str) -> Array:
        """float32 (N, *feature_shape)."""
        ...

    def targets(self, split: str) -> Array:
        """(N,) class indices or values."""
        ...


@dataclass(frozen=True)
class Baseline:
    """The better of the two.

    Attributes:
        which: "majority class", "logistic regression", "mean" or "ridge regression".
        answers: on the test split, probabilities (N, K) or values (N,).
        validation: name of each candidate -> its headline metric on the validation split.
        rows: how many training rows it was fitted on.
        note: says so where these were a sample; else empty.
    """

    which: str
    answers: Array
    validation: dict[str, float]
    rows: int
    note: str


def baseline(task: str, splits: Splits, n_outputs: int, seed: int) -> Baseline:
    """Fit both candidates on the training split, choose on validation, answer on test."""
    features = splits.features("train")
    y = np.asarray(splits.targets("train"))
    rows, note = _sample(features, seed)
    X, sampled = _flat(features[rows]), y[rows]
    if rows.shape[0] < len(y):
        note = f"the linear baseline was fitted on {len(rows):,} of {len(y):,} training rows, to stay within seconds"
    names = ("mean", "ridge regression") if task.endswith("regression") else ("majority class", "logistic regression")
    models: dict[str, Any] = {names[0]: _constant(task, y, n_outputs)}
    linear = _linear(task, X, sampled, n_outputs)
    if linear is not None:
        models[names[1]] = linear
    headline = metrics.headline(task)
    held = _flat(splits.features("validation"))
    truth = np.asarray(splits.targets("validation"))
    scores = {name: metrics.compute(task, truth, model(held), (headline,))[headline] for name, model in models.items()}
    which = max(scores, key=lambda name: scores[name] if np.isfinite(scores[name]) else -np.inf)
    answers = models[which](_flat(splits.features("test")))
    return Baseline(which, answers, scores, len(rows) if which == names[1] else len(y), note if which == names[1] else "")


def _sample(features: Array, seed: int) -> tuple[Array, str]:
    n, width = features.shape[0], int(np.prod(features.shape[1:]))
    limit = max(1000, _CELLS // max(width, 1))
    if n <= limit:
        return np.arange(n), ""
    return np.sort(np.random.default_rng(seed).choice(n, limit, replace=False)), "sampled"


def _flat(features: Array) -> Array:
    X = np.asarray(features, np.float32).reshape(len(features), -1)
    return np.nan_to_num(X, nan=0.0, posinf=0.0, neginf=0.0)


def _constant(task: str, y: Array, n_outputs: int) -> Any:
    if task.endswith("regression"):
        value = float(np.mean(y))
        return lambda X: np.full(len(X), value)
    prior = np.bincount(y.astype(np.int64), minlength=n_outputs) / len(y)
    return lambda X: np.tile(prior, (len(X), 1))


def _linear(task: str, X: Array, y: Array, n_outputs: int) -> Any:
    """A fitted linear model as a function X -> answers, or None where the sample has a single class."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression, Ridge
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    if task.endswith("regression"):
        return make_pipeline(StandardScaler(), Ridge()).fit(X, y).predict
    present = np.unique(y.astype(np.int64))
    if len(present) < 2:
        return None
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=100))
    with warnings.catch_warnings():
        # A baseline stopped at 100 iterations is still one: what counts is what it scores on validation.
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(X, y.astype(np.int64))

    def answer(features: Array) -> Array:
        p = np.zeros((len(features), n_outputs))
        p[:, present] = model.predict_proba(features)
        return p

    return answer

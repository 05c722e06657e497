"""linear beside scikit-learn's LinearRegression (l2 = 0) and Ridge (l2 = alpha)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from sklearn.linear_model import LinearRegression as Reference
from sklearn.linear_model import Ridge

from groundup.bundle import Proof
from groundup.estimators.linear import LinearRegression
from groundup.proof.fitted import prove_estimator


def prove(seeds: Sequence[int]) -> list[Proof]:
    """With and without penalty, intercept, weights; several targets; more columns than rows; a column that repeats."""
    return prove_estimator("linear", _cases, seeds, tolerance=1e-10)


def _cases(seed: int) -> Iterator[dict[str, tuple[Any, Any]]]:
    rng = np.random.default_rng(seed)
    for n, p, q, l2, intercept, weighted in (
        (101, 7, 1, 0.0, True, False),
        (101, 7, 1, 0.0, False, True),
        (53, 11, 3, 2.5, True, True),
        (53, 11, 1, 0.3, False, False),
        (13, 29, 1, 0.0, True, False),
        (13, 29, 1, 1.7, True, True),
    ):
        X = rng.normal(3, 2, (n, p))
        if n > p:
            X[:, 5] = X[:, 2]  # rank p - 1: the coefficients of least norm are asked for
        y = (X @ rng.normal(size=(p, q)) + rng.normal(size=(n, q)) - 5).squeeze()
        s = rng.uniform(0.1, 3, n) if weighted else None
        ours = LinearRegression(l2=l2, fit_intercept=intercept).fit(X, y, s)
        reference = Ridge(alpha=l2, fit_intercept=intercept, solver="svd") if l2 else Reference(fit_intercept=intercept)
        theirs = reference.fit(X, y, s)
        new = rng.normal(size=(31, p))
        yield {
            "coef_": (ours.coef_, theirs.coef_),
            "intercept_": (ours.intercept_, np.broadcast_to(theirs.intercept_, np.shape(ours.intercept_))),
            "predict": (ours.predict(new), theirs.predict(new)),
            "the objective reached": (_objective(ours, X, y, s, l2), _objective(theirs, X, y, s, l2)),
        }


def _objective(model: Any, X: Any, y: Any, s: Any, l2: float) -> float:
    squares = np.square(y - model.predict(X))
    s = np.ones(len(X)) if s is None else s
    return float(np.sum(s * squares.reshape(len(X), -1).sum(1)) + l2 * np.square(model.coef_).sum())

"""logistic beside scikit-learn's LogisticRegression, both driven to the optimum that their common objective has."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from scipy.special import log_softmax
from sklearn.linear_model import LogisticRegression as Reference

from groundup.bundle import Proof
from groundup.estimators.logistic import LogisticRegression
from groundup.proof.fitted import prove_estimator


def prove(seeds: Sequence[int]) -> list[Proof]:
    """Two classes and five, weak and strong penalty, with and without intercept and weights, both linear solvers.

    1e-8 is what the reference's stopping rule leaves: at a gradient of 1e-12 of the mean objective, coefficients under
    the weakest penalty here are determined to about that.
    """
    return prove_estimator("logistic", _cases, seeds, tolerance=1e-8)


def _cases(seed: int) -> Iterator[dict[str, tuple[Any, Any]]]:
    rng = np.random.default_rng(seed)
    for n, p, k, C, intercept, weighted in (
        (211, 7, 2, 1.0, True, False),
        (211, 7, 2, 10.0, False, True),
        (307, 11, 5, 0.1, True, True),
        (307, 11, 5, 3.0, False, False),
        (131, 71, 5, 0.3, True, False),  # 360 unknowns: conjugate gradients
    ):
        X = rng.normal(0.5, 1, (n, p))
        y = (X @ rng.normal(size=(p, k)) + rng.gumbel(size=(n, k)) * 2).argmax(1)
        y[:k] = range(k)
        s = rng.uniform(0.1, 3, n) if weighted else None
        ours = LogisticRegression(C=C, fit_intercept=intercept, tol=1e-12).fit(X, y, s)
        theirs = Reference(C=C, fit_intercept=intercept, solver="newton-cholesky", tol=1e-12, max_iter=200).fit(X, y, s)
        b = theirs.intercept_ - (theirs.intercept_.mean() if k > 2 else 0)  # a number common to all classes changes nothing
        new = rng.normal(size=(31, p))
        yield {
            "coef_": (ours.coef_, theirs.coef_),
            "intercept_": (ours.intercept_, b),
            "predict_proba": (ours.predict_proba(new), theirs.predict_proba(new)),
            "the objective reached": (_objective(ours, X, y, s, C), _objective(theirs, X, y, s, C)),
        }


def _objective(model: Any, X: Any, y: Any, s: Any, C: float) -> float:
    z = X @ model.coef_.T + model.intercept_
    z = np.concatenate([np.zeros_like(z), z], axis=1) if z.shape[1] == 1 else z
    loss = -log_softmax(z, axis=1)[np.arange(len(y)), y]
    return float(C * np.sum(loss * (1 if s is None else s)) + 0.5 * np.square(model.coef_).sum())

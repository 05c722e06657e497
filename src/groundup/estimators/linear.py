"""Linear regression: least squares, with an optional ridge, solved by an orthogonal decomposition.

Paper: Gauss 1809, "Theoria motus", book II, section III; ridge after Hoerl & Kennard 1970, Technometrics 12(1);
the numerics after Golub & Van Loan 2013, "Matrix Computations", sections 5.3 and 6.1.

Objective, with weights s_i (1 by default):

    minimize over w, b:   Σ_i s_i (y_i - x_iᵀw - b)² + l2 · ‖w‖²

1. The intercept is not penalized and drops out by centring: with x̄ = Σ s_i x_i / Σ s_i and ȳ alike, the minimizer has
   b = ȳ - x̄ᵀw, and w solves the same problem on x_i - x̄, y_i - ȳ.
2. Weights drop out by scaling each row with √s_i.
3. The penalty drops out by appending √l2 · I to X and zeros to y: rows that ask each coefficient to be 0.
4. What is left is plain least squares, min ‖Aw - c‖², solved with the singular value decomposition A = UΣVᵀ:
   w = V Σ⁺ Uᵀ c.

What is unusual: the normal equations AᵀA w = Aᵀc are not formed, since they square the condition number of A; directions
with σ_j ≤ ε · max(n, p) · σ_1 are left out, which gives the w of least norm where columns repeat (scikit-learn's
LinearRegression answers the same).  ``l2`` is scikit-learn's ``Ridge(alpha)``: a sum over rows, not a mean.

Complexity: O(n p²) for n ≥ p, in O(n p) memory.
Pitfalls: a coefficient is no importance unless columns share a scale; collinear columns make single coefficients
arbitrary while predictions stay good; one far outlier moves everything (errors are squared).
"""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import NonNegativeFloat
from scipy.linalg import lstsq
from sklearn.base import BaseEstimator, MultiOutputMixin, RegressorMixin
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data

TASKS = ("tabular-regression",)


class LinearRegression(MultiOutputMixin, RegressorMixin, BaseEstimator):  # type: ignore[misc]
    """Least squares with an optional ridge penalty.

    Args:
        l2: weight of the penalty ‖w‖²; 0 is ordinary least squares.
        fit_intercept: whether b is learned; without it the plane goes through the origin.

    Attributes:
        coef_: w, (n_features,), or (n_targets, n_features) where y has several columns.
        intercept_: b, a number or (n_targets,).
        rank_: numerical rank of the centred, weighted X (with the penalty's rows).
        singular_: its singular values, largest first.
        n_features_in_: number of features seen in fit.

    >>> from sklearn.datasets import load_diabetes
    >>> X, y = load_diabetes(return_X_y=True)
    >>> round(LinearRegression().fit(X, y).score(X, y), 4)  # R²
    0.5177
    """

    def __init__(self, l2: NonNegativeFloat = 0.0, fit_intercept: bool = True) -> None:
        self.l2 = l2
        self.fit_intercept = fit_intercept

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Solve for w and b.

        Args:
            X: (n_samples, n_features).
            y: (n_samples,) or (n_samples, n_targets).
            sample_weight: s, (n_samples,), not negative; s_i = 2 counts row i twice.

        Raises:
            ValueError: NaN, infinity, shapes that do not match, or a negative ``l2``.
        """
        if not self.l2 >= 0:
            raise ValueError(f"l2: expected a number >= 0, got {self.l2!r}")
        X, y = validate_data(self, X, y, dtype=[np.float64, np.float32], multi_output=True, y_numeric=True)
        s = _check_sample_weight(sample_weight, X, dtype=X.dtype, ensure_non_negative=True)
        y = y.astype(X.dtype, copy=False)
        p = X.shape[1]
        Y = y.reshape(len(y), -1)  # (n, q)
        x_mean, y_mean = np.zeros(p, X.dtype), np.zeros(Y.shape[1], X.dtype)
        if self.fit_intercept:
            x_mean, y_mean = np.average(X, axis=0, weights=s), np.average(Y, axis=0, weights=s)
        A = (X - x_mean) * np.sqrt(s)[:, None]  # (n, p)
        C = (Y - y_mean) * np.sqrt(s)[:, None]  # (n, q)
        if self.l2 > 0:
            A = np.concatenate([A, np.sqrt(self.l2) * np.eye(p, dtype=A.dtype)])  # (n + p, p)
            C = np.concatenate([C, np.zeros((p, C.shape[1]), C.dtype)])
        cutoff = np.finfo(A.dtype).eps * max(A.shape)
        W, _, self.rank_, self.singular_ = lstsq(A, C, cond=cutoff)  # W: (p, q)
        b = y_mean - x_mean @ W
        self.coef_ = W.T if y.ndim > 1 else W[:, 0]
        self.intercept_ = b if y.ndim > 1 else b[0]
        return self

    def predict(self, X: Any) -> NDArray[Any]:
        """xᵀw + b for every row: (n_samples,) or (n_samples, n_targets)."""
        check_is_fitted(self)
        X = validate_data(self, X, dtype=[np.float64, np.float32], reset=False)
        return np.asarray(X @ self.coef_.T + self.intercept_)

"""Multinomial logistic regression with a ridge penalty, by Newton's method.

Paper: Cox 1958, "The Regression Analysis of Binary Sequences", JRSS B 20(2); multinomial form and Newton step after
Böhning 1992, "Multinomial logistic regression algorithm", Ann. Inst. Statist. Math. 44(1); truncated Newton after
Nocedal & Wright 2006, "Numerical Optimization", algorithm 7.1.

With P(y = k | x) = exp(z_k) / Σ_j exp(z_j),  z = Wx + b,  weights s_i (1 by default), the objective is

    J(W, b) = C · Σ_i s_i (log Σ_j exp(z_ij) - z_i,y_i) + ½ ‖W‖²

and, with residuals R_ik = P_ik - [y_i = k] and x̃ = (x, 1) (the penalty leaves b alone):

    ∂J/∂W_k = C Σ_i s_i R_ik x̃_i + W_k
    ∂²J/∂W_k ∂W_l = C Σ_i s_i P_ik ([k = l] - P_il) x̃_i x̃_iᵀ + [k = l] I

Two classes are one linear function: z_1 = wᵀx + b, z_0 = 0, as the logistic curve is usually written; its ‖w‖² is that
one vector's.  With K ≥ 3 classes all K vectors are kept.  Adding a vector to every (W_k, b_k) leaves P unchanged; the
penalty decides it for W, and b is centred (Σ_k b_k = 0) since nothing else decides it.

What is unusual: ``C`` multiplies the loss, so that *large* C means *little* regularization (Fan et al. 2008, LIBLINEAR);
that is scikit-learn's parameter of the same name and the same objective, so coefficients agree to the tolerance.
Newton needs about 8 steps where L-BFGS needs 100 or more.  The linear system in each is solved by Cholesky while the
Hessian is small, and by conjugate gradients, which only multiply with it, where it is large.

Complexity: O(n (K p)²) a step with Cholesky; O(n K p) a conjugate-gradient iteration, tens of them a step.
Pitfalls: with separable classes and no penalty w has no finite optimum (here C keeps it finite); features of different
scale are penalized differently: standardize first; probabilities are calibrated only if log-odds are near linear.
"""

from __future__ import annotations

import warnings
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import PositiveFloat, PositiveInt
from scipy.linalg import LinAlgError, cho_factor, cho_solve
from scipy.special import logsumexp, softmax
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data

TASKS = ("tabular-classification", "image-classification")

Array = NDArray[Any]
_CHOLESKY_UP_TO = 300
"""Largest number of unknowns (K' · (p + 1)) whose Hessian is formed and factored."""


class LogisticRegression(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """Linear log-odds, fitted by penalized maximum likelihood.

    Args:
        C: weight of the loss against the penalty ½‖W‖²; larger fits closer.
        fit_intercept: whether b is learned.
        tol: stop when no element of the gradient of J / (C · Σ s_i) exceeds this.
        max_iter: most Newton steps; a warning says when they did not suffice.

    Attributes:
        classes_: the class labels, sorted.
        coef_: W, (1, n_features) for two classes, else (n_classes, n_features).
        intercept_: b, (1,) or (n_classes,).
        n_iter_: steps made.
        n_features_in_: number of features seen in fit.

    >>> from sklearn.datasets import load_breast_cancer
    >>> from sklearn.preprocessing import scale
    >>> X, y = load_breast_cancer(return_X_y=True)
    >>> round(LogisticRegression().fit(scale(X), y).score(scale(X), y), 4)  # accuracy
    0.9877
    """

    def __init__(self, C: PositiveFloat = 1.0, fit_intercept: bool = True, tol: PositiveFloat = 1e-6, max_iter: PositiveInt = 200) -> None:
        self.C = C
        self.fit_intercept = fit_intercept
        self.tol = tol
        self.max_iter = max_iter

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Minimize J.

        Args:
            X: (n_samples, n_features).
            y: (n_samples,) labels of at least two classes.
            sample_weight: s, (n_samples,), not negative; s_i = 2 counts row i twice.

        Raises:
            ValueError: NaN, infinity, shapes that do not match, one class only, C that is not positive.
        """
        for name in ("C", "tol", "max_iter"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name}: expected a number > 0, got {getattr(self, name)!r}")
        X, y = validate_data(self, X, y, dtype=[np.float64, np.float32])
        check_classification_targets(y)
        s = _check_sample_weight(sample_weight, X, dtype=np.float64, ensure_non_negative=True)
        self.classes_, k = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(f"logistic regression needs at least two classes, got only one class: {self.classes_[0]!r}")
        problem = _Problem(X.astype(np.float64), k, s, self.C, len(self.classes_), self.fit_intercept)
        θ, self.n_iter_ = problem.newton(self.tol, self.max_iter)
        if (steepest := problem.steepest(θ)) > self.tol:
            warnings.warn(
                f"logistic regression stopped after {self.n_iter_} steps with a gradient of {steepest:.1e} > {self.tol:.1e};"
                " standardize the features or raise max_iter",
                ConvergenceWarning,
                stacklevel=2,
            )
        W = problem.matrix(θ)  # (K', p + 1)
        self.coef_ = W[:, : X.shape[1]].astype(X.dtype)
        b = W[:, X.shape[1]] if self.fit_intercept else np.zeros(len(W))
        self.intercept_ = (b - b.mean() if len(b) > 1 else b).astype(X.dtype)
        return self

    def decision_function(self, X: Any) -> Array:
        """The linear scores z: (n_samples,) of the second class for two classes, else (n_samples, n_classes)."""
        check_is_fitted(self)
        X = validate_data(self, X, dtype=[np.float64, np.float32], reset=False)
        z = np.asarray(X @ self.coef_.T + self.intercept_)
        return z[:, 0] if len(self.classes_) == 2 else z

    def predict_log_proba(self, X: Any) -> Array:
        """Natural logarithms of the class probabilities, (n_samples, n_classes)."""
        z = self.decision_function(X)
        z = np.stack([np.zeros_like(z), z], axis=1) if z.ndim == 1 else z
        return np.asarray(z - logsumexp(z, axis=1, keepdims=True))

    def predict_proba(self, X: Any) -> Array:
        """Class probabilities, (n_samples, n_classes), columns in the order of ``classes_``."""
        return np.asarray(np.exp(self.predict_log_proba(X)))

    def predict(self, X: Any) -> Array:
        """The most probable label of each row, (n_samples,)."""
        z = self.decision_function(X)
        return np.asarray(self.classes_[(z > 0).astype(int) if z.ndim == 1 else z.argmax(axis=1)])


class _Problem:
    """J, its gradient and its Hessian for unknowns θ = (W, b) flattened, one block of p + 1 numbers a linear function."""

    def __init__(self, X: Array, k: Array, s: Array, C: float, n_classes: int, fit_intercept: bool) -> None:
        n, p = X.shape
        self.X = np.concatenate([X, np.ones((n, 1))], axis=1) if fit_intercept else X  # x̃
        self.s, self.C, self.k = s, C, k
        self.K = n_classes
        self.free = slice(1, None) if n_classes == 2 else slice(None)  # which classes have a linear function of their own
        self.rows = 1 if n_classes == 2 else n_classes
        self.penalty = np.ones(self.X.shape[1])
        if fit_intercept:
            self.penalty[p] = 0
        self.size = self.rows * self.X.shape[1]
        self.scale = C * s.sum()

    def matrix(self, θ: Array) -> Array:
        return θ.reshape(self.rows, -1)

    def scores(self, θ: Array) -> Array:
        z = self.X @ self.matrix(θ).T
        return z if self.rows > 1 else np.concatenate([np.zeros_like(z), z], axis=1)  # (n, K)

    def objective(self, θ: Array) -> float:
        z = self.scores(θ)
        loss = self.s @ (logsumexp(z, axis=1) - z[np.arange(len(z)), self.k])
        return float(self.C * loss + 0.5 * np.sum(self.matrix(θ) ** 2 * self.penalty))

    def gradient(self, θ: Array) -> Array:
        R = softmax(self.scores(θ), axis=1)
        R[np.arange(len(R)), self.k] -= 1
        return np.asarray((self.C * (self.s[:, None] * R[:, self.free]).T @ self.X + self.matrix(θ) * self.penalty).ravel())

    def hessian(self, θ: Array) -> Array:
        P = softmax(self.scores(θ), axis=1)[:, self.free]  # (n, K')
        d = self.X.shape[1]
        H = np.empty((self.rows, d, self.rows, d))
        for k in range(self.rows):
            for j in range(k + 1):
                h = self.C * self.s * P[:, k] * ((k == j) - P[:, j])
                H[k, :, j, :] = H[j, :, k, :] = (self.X * h[:, None]).T @ self.X
            H[k, range(d), k, range(d)] += self.penalty
        return H.reshape(self.size, self.size)

    def steepest(self, θ: Array) -> float:
        """Largest element of the gradient of the mean objective: what ``tol`` is about."""
        return float(np.abs(self.gradient(θ)).max() / self.scale)

    def newton(self, tol: float, max_iter: int) -> tuple[Array, int]:
        """θ ← θ - t H⁻¹ g, with t halved until J falls enough (Boyd & Vandenberghe 2004, algorithm 9.5).

        Close to the optimum J no longer falls by more than it is rounded by, while g still shrinks with every full
        step: a step may therefore raise J by a few units in its last place.
        """
        solve = self.cholesky if self.size <= _CHOLESKY_UP_TO else self.conjugate_gradients
        θ = np.zeros(self.size)
        for step in range(max_iter):
            g = self.gradient(θ)
            if np.abs(g).max() / self.scale <= tol:
                return θ, max(step, 1)
            direction = solve(θ, -g)
            J, slope, t = self.objective(θ), float(g @ direction), 1.0
            slack = 8 * np.finfo(float).eps * abs(J)
            while t > 1e-10 and self.objective(θ + t * direction) > J + 1e-4 * t * slope + slack:
                t /= 2
            θ = θ + t * direction
        return θ, max_iter

    def cholesky(self, θ: Array, r: Array) -> Array:
        """H⁻¹ r.  H is singular along "the same number added to every b_k"; a multiple of the identity too small to slow
        the other directions makes it regular."""
        H = self.hessian(θ)
        ridge = 1e-12 * np.trace(H) / self.size
        while True:
            try:
                return np.asarray(cho_solve(cho_factor(H + ridge * np.eye(self.size)), r))
            except LinAlgError:
                ridge *= 100

    def conjugate_gradients(self, θ: Array, r: Array) -> Array:
        """H⁻¹ r up to a residual of min(½, √‖r‖) ‖r‖, loose far from the optimum and tight near it."""
        P = softmax(self.scores(θ), axis=1)[:, self.free]  # (n, K')
        weight = self.C * self.s[:, None] * P

        def times(v: Array) -> Array:
            V = self.matrix(v)
            Z = self.X @ V.T  # (n, K')
            Q = weight * (Z - np.sum(P * Z, axis=1, keepdims=True))
            return np.asarray((Q.T @ self.X + V * self.penalty).ravel())

        size = float(np.linalg.norm(r))
        enough = min(0.5, np.sqrt(size / self.scale)) * size
        d, p, rr = np.zeros_like(r), r, float(r @ r)
        for _ in range(10 * self.size):
            Hp = times(p)
            α = rr / float(p @ Hp)
            d, r = d + α * p, r - α * Hp
            rr, before = float(r @ r), rr
            if np.sqrt(rr) <= enough:
                break
            p = r + (rr / before) * p
        return d

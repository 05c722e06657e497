"""The usual metrics of each task, and which way is better.

Scores are what a model answers: probabilities (N, K) for classification, values (N,) for regression.

Every metric is written once, as a function of the rows' weights W (B, N): weights of one give the metric itself, the
counts of a resample give its value on that resample, so that B bootstrap resamples cost B matrix rows and no Python loop.

Sources: scikit-learn's definitions (accuracy, balanced accuracy, macro F1, Matthews correlation, one-vs-rest ROC AUC
and average precision, log loss, R²); expected calibration error with 15 equal-width bins as in Guo et al. 2017, "On
Calibration of Modern Neural Networks", section 2.  With two classes, ROC AUC and average precision are the second
class's, as in scikit-learn; with more, the mean over the classes that are present.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Direction = Literal["maximize", "minimize"]
Array = NDArray[Any]
Weighted = Callable[[Array], dict[str, Array]]  # W (B, N) -> name -> (B,)

DIRECTIONS: dict[str, Direction] = {
    "accuracy": "maximize",
    "balanced_accuracy": "maximize",
    "f1": "maximize",
    "mcc": "maximize",
    "roc_auc": "maximize",
    "average_precision": "maximize",
    "log_loss": "minimize",
    "ece": "minimize",
    "r2": "maximize",
    "mae": "minimize",
    "rmse": "minimize",
    "median_ae": "minimize",
}
CLASSIFICATION = ("accuracy", "balanced_accuracy", "f1", "mcc", "roc_auc", "average_precision", "log_loss", "ece")
REGRESSION = ("r2", "mae", "rmse", "median_ae")
RANKED = frozenset({"roc_auc", "average_precision"})  # cost N log N a class, not N
ECE_BINS = 15


def names(task: str) -> tuple[str, ...]:
    """The metrics of a task, its headline first."""
    return REGRESSION if task.endswith("regression") else CLASSIFICATION


def headline(task: str) -> str:
    """The one metric that tables lead with: accuracy, or R²."""
    return names(task)[0]


def compute(task: str, y: Array, scores: Array, only: tuple[str, ...] | None = None) -> dict[str, float]:
    """Metrics of one split.

    Args:
        y: class indices (N,) int, or targets (N,) float.
        scores: probabilities (N, K), or predictions (N,).
        only: restrict to these names; all of the task's by default.

    A metric that the sample does not define (ROC AUC with one class present, anything of no rows) is NaN.
    """
    if len(y) == 0:
        return dict.fromkeys(only or names(task), float("nan"))
    values = weighted(task, y, scores, only)(np.ones((1, len(y))))
    return {name: float(value[0]) for name, value in values.items()}


def weighted(task: str, y: Array, scores: Array, only: tuple[str, ...] | None = None) -> Weighted:
    """The metrics as a function of row weights: W (B, N) float64, not negative -> {name: (B,)}.

    What does not depend on the weights (sorting, the errors) is computed here, once.
    """
    wanted = only or names(task)
    if unknown := [name for name in wanted if name not in names(task)]:
        raise ValueError(f"{unknown[0]!r} is no metric of {task}; it has {', '.join(names(task))}")
    parts = (
        _regression(np.asarray(y, np.float64), np.asarray(scores, np.float64), wanted)
        if task.endswith("regression")
        else _classification(np.asarray(y, np.int64), np.asarray(scores, np.float64), wanted)
    )

    def of(W: Array) -> dict[str, Array]:
        found = {name: value for part in parts for name, value in part(W).items()}
        return {name: found[name] for name in wanted}

    return of


def per_row_loss(task: str, y: Array, scores: Array) -> Array:
    """How wrong each row is, (N,): −log of the true class's probability, or the absolute error."""
    if task.endswith("regression"):
        return np.asarray(np.abs(np.asarray(y, np.float64) - np.asarray(scores, np.float64)))
    p = np.asarray(scores, np.float64)[np.arange(len(y)), np.asarray(y, np.int64)]
    eps = np.finfo(np.float64).eps  # scikit-learn's clipping
    return np.asarray(-np.log(np.clip(p, eps, 1 - eps)))


def _classification(y: Array, p: Array, wanted: tuple[str, ...]) -> list[Weighted]:
    parts: list[Weighted] = []
    if {"accuracy", "balanced_accuracy", "f1", "mcc"} & set(wanted):
        parts.append(_counted(y, p))
    if RANKED & set(wanted):
        parts.append(_ranked(y, p))
    if "log_loss" in wanted:
        loss = per_row_loss("classification", y, p)
        parts.append(lambda W: {"log_loss": W @ loss / W.sum(1)})
    if "ece" in wanted:
        confidence, right = p.max(1), p.argmax(1) == y
        gaps = _by_group(np.minimum((confidence * ECE_BINS).astype(np.int64), ECE_BINS - 1), ECE_BINS, confidence - right)
        parts.append(lambda W: {"ece": np.abs(gaps(W)).sum(1) / W.sum(1)})
    return parts


def _counted(y: Array, p: Array) -> Weighted:
    """What follows from three counts a class: how often it is true, how often guessed, how often both."""
    K, guess = p.shape[1], p.argmax(1)
    true, guessed, both = _by_group(y, K), _by_group(guess, K), _by_group(y, K, (guess == y).astype(np.float64))

    def of(W: Array) -> dict[str, Array]:
        n, t, g, tp = W.sum(1), true(W), guessed(W), both(W)
        right = tp.sum(1)
        # Gorodkin 2004, "Comparing two K-category assignments by a K-category correlation coefficient"; 0 where undefined, as scikit-learn.
        spread = (n**2 - (g**2).sum(1)) * (n**2 - (t**2).sum(1))
        covariance = right * n - (t * g).sum(1)
        return {
            "accuracy": right / n,
            "balanced_accuracy": _mean_where(_ratio(tp, t), t > 0),
            "f1": _mean_where(_ratio(2 * tp, t + g), t + g > 0),
            "mcc": np.where(spread > 0, covariance / np.sqrt(np.where(spread > 0, spread, 1.0)), 0.0),
        }

    return of


def _ranked(y: Array, p: Array) -> Weighted:
    """One-vs-rest area under the ROC curve (Mann-Whitney, ties half) and average precision, over the classes present."""
    columns = [1] if p.shape[1] == 2 else range(p.shape[1])
    sorted_by: list[tuple[Array, Array, Array | None]] = []
    for c in columns:
        order = np.argsort(-p[:, c], kind="stable")
        s = p[order, c]
        starts = np.flatnonzero(np.r_[True, s[1:] != s[:-1]])
        sorted_by.append((order, (y[order] == c).astype(np.float64), starts if len(starts) < len(s) else None))

    def of(W: Array) -> dict[str, Array]:
        areas, precisions, defined, present = [], [], [], []
        for order, positive, starts in sorted_by:
            w = W[:, order]
            pos = w * positive
            neg = w - pos
            if starts is not None:
                pos, neg = np.add.reduceat(pos, starts, axis=1), np.add.reduceat(neg, starts, axis=1)
            tp, fp = pos.cumsum(1), neg.cumsum(1)  # at each threshold, from the highest score down
            n1, n0 = tp[:, -1], fp[:, -1]
            below = n0[:, None] - fp + neg / 2
            areas.append(_ratio((pos * below).sum(1), n1 * n0))
            precisions.append(_ratio((pos * _ratio(tp, tp + fp)).sum(1), n1))
            defined.append((n1 > 0) & (n0 > 0))
            present.append(n1 > 0)
        return {
            "roc_auc": _mean_where(np.stack(areas, 1), np.stack(defined, 1)),
            "average_precision": _mean_where(np.stack(precisions, 1), np.stack(present, 1)),
        }

    return of


def _regression(y: Array, f: Array, wanted: tuple[str, ...]) -> list[Weighted]:
    e = f - y
    parts: list[Weighted] = [lambda W: {"mae": W @ np.abs(e) / W.sum(1), "rmse": np.sqrt(W @ e**2 / W.sum(1))}]
    if "r2" in wanted:
        centred = y - y.mean()  # so that the variance below does not cancel

        def r2(W: Array) -> dict[str, Array]:
            n = W.sum(1)
            spread = W @ centred**2 - (W @ centred) ** 2 / n
            defined = spread > 1e-12 * np.maximum(W @ centred**2, np.finfo(np.float64).tiny)
            return {"r2": np.where(defined, 1 - W @ e**2 / np.where(defined, spread, 1.0), np.nan)}

        parts.append(r2)
    if "median_ae" in wanted:
        order = np.argsort(np.abs(e), kind="stable")
        sizes = np.abs(e)[order]

        def median_ae(W: Array) -> dict[str, Array]:
            # The value where half of the weight lies below; halfway between two where it lies exactly between them.
            cumulative = W[:, order].cumsum(1)
            half = cumulative[:, -1:] / 2
            low = (cumulative < half).sum(1).clip(max=len(sizes) - 1)
            high = (cumulative <= half).sum(1).clip(max=len(sizes) - 1)
            return {"median_ae": (sizes[low] + sizes[high]) / 2}

        parts.append(median_ae)
    return parts


def _by_group(groups: Array, K: int, values: Array | None = None) -> Callable[[Array], Array]:
    """Sums of weight × value by group: W (B, N) -> (B, K)."""
    order = np.argsort(groups, kind="stable")
    if values is not None:
        order = order[values[order] != 0]  # rows that add nothing need not be read
    ordered = groups[order]
    starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]]) if len(ordered) else np.zeros(0, np.int64)
    present, v = ordered[starts], None if values is None else values[order]

    def of(W: Array) -> Array:
        sums = np.zeros((len(W), K))
        if len(starts):
            w = W[:, order]
            sums[:, present] = np.add.reduceat(w if v is None else w * v, starts, axis=1)
        return sums

    return of


def _ratio(a: Array, b: Array) -> Array:
    """a / b, and 0 where b is 0."""
    return np.divide(a, b, out=np.zeros(np.broadcast(a, b).shape), where=b != 0)


def _mean_where(values: Array, mask: Array) -> Array:
    """Mean over axis 1 where ``mask``, NaN where nothing is."""
    n = mask.sum(1)
    return np.where(n > 0, np.where(mask, values, 0.0).sum(1) / np.maximum(n, 1), np.nan)

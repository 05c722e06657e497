"""Whether the model's confidence means what it says, and where its answers go.

Reliability curve and expected calibration error: Guo et al. 2017, "On Calibration of Modern Neural Networks", section 2,
for the probability of the answer that is given.  For regression: mean prediction beside mean target by tenths of the
predictions, and the distribution of the errors.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from groundup.evaluation.bootstrap import none_if_nan, wilson
from groundup.metrics import ECE_BINS

Array = NDArray[Any]
MAX_CONFUSION = 60  # classes; beyond, only the most confused pairs are kept


def reliability(y: Array, p: Array, confidence: float = 0.95) -> list[dict[str, float]]:
    """One entry a bin that holds rows: from, to, n, mean ``confidence``, ``accuracy`` with its Wilson interval ``low``, ``high``."""
    top, right = p.max(1), p.argmax(1) == y
    bins = np.minimum((top * ECE_BINS).astype(np.int64), ECE_BINS - 1)
    curve = []
    for b in range(ECE_BINS):
        inside = bins == b
        if n := int(inside.sum()):
            low, high = wilson(int(right[inside].sum()), n, confidence)
            curve.append(
                {
                    "from": b / ECE_BINS,
                    "to": (b + 1) / ECE_BINS,
                    "n": n,
                    "confidence": float(top[inside].mean()),
                    "accuracy": float(right[inside].mean()),
                    "low": low,
                    "high": high,
                }
            )
    return curve


def confusion(y: Array, p: Array, n_classes: int) -> list[list[int]]:
    """Counts (K, K): row = true class, column = answer."""
    cells = np.bincount(y.astype(np.int64) * n_classes + p.argmax(1), minlength=n_classes**2)
    return [[int(c) for c in row] for row in cells.reshape(n_classes, n_classes)]


def per_class(y: Array, p: Array, classes: list[str]) -> list[dict[str, Any]]:
    """class, n (rows that are it), answered (rows called it), precision, recall, f1; None where there is nothing to divide by."""
    k, guess = len(classes), p.argmax(1)
    y = y.astype(np.int64)
    n, answered, both = np.bincount(y, minlength=k), np.bincount(guess, minlength=k), np.bincount(y[guess == y], minlength=k)
    return [
        {
            "class": name,
            "n": int(n[c]),
            "answered": int(answered[c]),
            "precision": float(both[c] / answered[c]) if answered[c] else None,
            "recall": float(both[c] / n[c]) if n[c] else None,
            "f1": float(2 * both[c] / (n[c] + answered[c])) if n[c] + answered[c] else None,
        }
        for c, name in enumerate(classes)
    ]


def confused_pairs(y: Array, p: Array, classes: list[str], most: int = 10) -> list[dict[str, Any]]:
    """The pairs most often confused: truth, answer, n, share of the true class."""
    guess, k = p.argmax(1), len(classes)
    wrong = guess != y
    cells, counts = np.unique(y[wrong].astype(np.int64) * k + guess[wrong], return_counts=True)
    support = np.bincount(y.astype(np.int64), minlength=k)
    order = np.argsort(-counts, kind="stable")[:most]
    return [
        {
            "truth": classes[cells[i] // k],
            "answer": classes[cells[i] % k],
            "n": int(counts[i]),
            "share": float(counts[i] / support[cells[i] // k]),
        }
        for i in order
    ]


def residuals(y: Array, f: Array) -> dict[str, Any]:
    """``tenths``: mean ``prediction``, mean ``target`` and n by tenths of the predictions; ``errors``: a histogram of
    prediction − target between its 1st and 99th percentiles (``edges``, ``counts``); ``points``: up to 400 (target, prediction)."""
    y, f = np.asarray(y, np.float64), np.asarray(f, np.float64)
    order = np.argsort(f, kind="stable")
    tenths = [
        {"prediction": float(f[part].mean()), "target": float(y[part].mean()), "n": len(part)}
        for part in np.array_split(order, min(10, len(order)))
        if len(part)
    ]
    error = f - y
    low, high = np.quantile(error, [0.01, 0.99])
    counts, edges = np.histogram(error.clip(low, high), bins=30, range=(low, high) if high > low else None)
    step = max(1, len(y) // 400)
    return {
        "tenths": tenths,
        "errors": {"edges": [float(e) for e in edges], "counts": [int(c) for c in counts]},
        "points": [[none_if_nan(a), none_if_nan(b)] for a, b in zip(y[::step], f[::step], strict=True)],
    }

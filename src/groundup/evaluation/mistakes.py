"""The worst mistakes, to be looked at: the rows where the model was most wrong, as pictures or records."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from groundup import metrics

Array = NDArray[Any]


def worst(task: str, y: Array, scores: Array, most: int) -> Array:
    """Indices of the worst mistakes, worst first: wrong answers by their loss, or the largest absolute errors."""
    loss = metrics.per_row_loss(task, y, scores)
    if task.endswith("regression"):
        return np.argsort(-loss, kind="stable")[:most]
    wrong = np.flatnonzero(scores.argmax(1) != y)
    return np.asarray(wrong[np.argsort(-loss[wrong], kind="stable")][:most])


def describe(task: str, y: Array, scores: Array, index: int, classes: list[str] | None) -> dict[str, Any]:
    """truth, answer and how wrong: ``loss``, and for classification the ``confidence`` in the answer and the ``truth_probability``."""
    if task.endswith("regression"):
        truth, answer = float(y[index]), float(scores[index])
        return {"truth": truth, "answer": answer, "loss": abs(answer - truth)}
    assert classes is not None
    p, t = scores[index], int(y[index])
    return {
        "truth": classes[t],
        "answer": classes[int(p.argmax())],
        "confidence": float(p.max()),
        "truth_probability": float(p[t]),
        "loss": float(metrics.per_row_loss(task, y[index : index + 1], scores[index : index + 1])[0]),
    }


def record(row: dict[str, Any]) -> dict[str, str | float | bool | None]:
    """One table row with JSON values: missing becomes null, dates ISO 8601, anything else its text."""
    return {str(name): _plain(value) for name, value in row.items()}


def _plain(value: Any) -> str | float | bool | None:
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return None
    if isinstance(value, (bool, int, float)):
        return value
    if hasattr(value, "isoformat"):
        return None if str(value) == "NaT" else str(value.isoformat())
    text = str(value)
    return None if text == "<NA>" else text

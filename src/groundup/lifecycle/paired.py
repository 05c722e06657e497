"""Two models on the same rows: the difference of their metrics, with an interval in which what they share has cancelled."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel

from groundup import metrics
from groundup.bundle import Bundle
from groundup.lifecycle.prepare import Prepared

RESAMPLES = 1000


class Difference(BaseModel):
    """One metric of two models; ``difference`` is second − first.

    Attributes:
        low, high: 95 % interval of the difference, from resamples that are the same for both.
        better: "first", "second", or "" where the interval holds zero.
    """

    metric: str
    first: float
    second: float
    difference: float
    low: float | None
    high: float | None
    better: str
    rows: int

    @property
    def worse_by(self) -> float:
        """By how much the second is worse, in the metric's unit; negative where it is better."""
        return -self.difference if metrics.DIRECTIONS[self.metric] == "maximize" else self.difference

    def __str__(self) -> str:
        around = "" if self.low is None else f" [{self.low:+.4g}, {self.high:+.4g}]"
        return f"{self.metric} {self.first:.4g} → {self.second:.4g}, difference {self.difference:+.4g}{around} on {self.rows:,} rows"


def differences(task: str, y: NDArray[Any], first: NDArray[Any], second: NDArray[Any], seed: int = 0) -> list[Difference]:
    """Every metric of the task for two models' answers on the same rows, the headline first; undefined ones are left out.

    Args:
        y: class indices (N,) or targets (N,).
        first, second: probabilities (N, K), or predictions (N,).
    """
    from groundup.evaluation import bootstrap

    drawn = [bootstrap.replicates(task, y, scores, RESAMPLES, seed) for scores in (first, second)]
    each = [bootstrap.intervals(task, y, scores, d, count=RESAMPLES) for scores, d in zip((first, second), drawn, strict=True)]
    found = []
    for name in metrics.names(task):
        a, b = each[0][name], each[1][name]
        if not (np.isfinite(a.value) and np.isfinite(b.value)):
            continue
        d = bootstrap.difference(b, a, drawn[1][name], drawn[0][name], RESAMPLES)
        sign = 1 if metrics.DIRECTIONS[name] == "maximize" else -1
        better = "second" if sign * d.low > 0 and sign * d.high > 0 else "first" if sign * d.low < 0 and sign * d.high < 0 else ""
        found.append(
            Difference(
                metric=name,
                first=a.value,
                second=b.value,
                difference=d.value,
                low=bootstrap.none_if_nan(d.low),
                high=bootstrap.none_if_nan(d.high),
                better=better,
                rows=len(y),
            )
        )
    return found


def answers(bundle: Bundle, prepared: Prepared, split: str = "test") -> NDArray[np.float64]:
    """What the bundle answers on a split, as served: probabilities (N, K) or predictions (N,)."""
    from groundup.serving.engine import Engine

    engine, raw = Engine(bundle), prepared.raw(split)
    n = prepared.rows(split).shape[0]
    parts = []
    for start in range(0, n, 1024):
        out = engine.run({k: v[start : start + 1024] for k, v in raw.items()})
        parts.append(out["probabilities"] if "probabilities" in out else out["prediction"])
    return np.concatenate(parts).astype(np.float64)


def comparable(first: Bundle, second: Bundle) -> str:
    """Why two bundles cannot be compared on the same rows, or "" where they can."""
    if first.task != second.task:
        return f"the tasks differ: {first.task} and {second.task}"
    kinds = [{f.name: (f.kind, f.shape) for f in b.signature.inputs} for b in (first, second)]
    if kinds[0] != kinds[1]:
        differ = sorted(n for n in kinds[0].keys() | kinds[1].keys() if kinds[0].get(n) != kinds[1].get(n))
        return f"the inputs differ: {', '.join(differ)}"
    classes = [next((f.categories for f in b.signature.outputs if f.name == "label"), None) for b in (first, second)]
    if classes[0] != classes[1]:
        return "the classes differ"
    return ""

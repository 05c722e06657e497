"""The measuring that the comparisons of estimators share: fit both on the same data, compare what they learned and answer."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import sklearn
from numpy.typing import NDArray

from groundup.bundle import Proof

Array = NDArray[np.float64]


def difference(ours: Any, theirs: Any) -> float:
    """max|ours - theirs| / max(1, max|theirs|); infinity where the shapes differ."""
    a, b = np.asarray(ours, np.float64), np.asarray(theirs, np.float64)
    if a.shape != b.shape:
        return float("inf")
    return float(np.max(np.abs(a - b)) / max(1.0, np.max(np.abs(b))))


def prove_estimator(
    name: str, pairs: Callable[[int], Iterator[dict[str, tuple[Any, Any]]]], seeds: Sequence[int], tolerance: float
) -> list[Proof]:
    """One proof a quantity; the worst over all seeds and cases.

    Args:
        pairs: seed -> for each case, quantity -> (ours, scikit-learn's).
    """
    worst: dict[str, float] = {}
    samples: dict[str, int] = {}
    for seed in seeds:
        for case in pairs(seed):
            for quantity, (ours, theirs) in case.items():
                gap = difference(ours, theirs)
                seen = worst.get(quantity, 0.0)
                worst[quantity] = gap if gap != gap or gap > seen else seen  # a NaN stays
                samples[quantity] = samples.get(quantity, 0) + int(np.size(theirs))
    return [
        Proof(
            link=1,
            claim=f"{name}: {quantity} equals scikit-learn's",
            reference=f"scikit-learn {sklearn.__version__}",
            quantity="largest difference, relative to the largest value",
            measured=measured,
            tolerance=tolerance,
            samples=samples[quantity],
        )
        for quantity, measured in worst.items()
    ]

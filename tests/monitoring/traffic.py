"""Traffic of every shape of column for the tests of monitoring: 50 columns, and their training profile."""

from __future__ import annotations

from typing import Any

import numpy as np

from groundup.bundle.signature import Field
from groundup.monitoring.drift import compare, judge
from groundup.monitoring.profile import Profile
from groundup.monitoring.settings import DriftSettings

N_COLUMNS = 50
CATEGORIES = np.array([f"v{i}" for i in range(200)], object)
ZIPF = 1 / np.arange(1, 201)
ZIPF /= ZIPF.sum()
FIELDS = [Field(f"c{i}", "category" if i % 10 in (6, 7, 8) else "number", nullable=True) for i in range(N_COLUMNS)]


def draw(rng: np.random.Generator, n: int) -> dict[str, Any]:
    """n rows of all 50 columns, independent of each other."""
    shapes = [
        lambda: rng.normal(size=n),
        lambda: rng.standard_cauchy(n),
        lambda: rng.exponential(size=n),
        lambda: rng.poisson(3, n).astype(float),
        lambda: (rng.random(n) < 0.3).astype(float),
        lambda: np.where(rng.random(n) < 0.05, np.nan, rng.normal(size=n)),
        lambda: CATEGORIES[rng.choice(200, n, p=ZIPF)],
        lambda: CATEGORIES[(rng.random(n) < 0.002).astype(int)],  # a category seen once in 500 rows
        lambda: CATEGORIES[rng.integers(0, 5, n)],
        lambda: np.where(rng.random(n) < 0.8, 0.0, rng.exponential(size=n)),  # a spike at zero
    ]
    return {field.name: shapes[i % 10]() for i, field in enumerate(FIELDS)}


def false_alarms(n: int, windows: int, *, m: int, references: int, exact: bool = True) -> tuple[int, int]:
    """(windows with a shifted or drifted column, with a drifted one) of ``windows`` windows of n unchanged rows.

    Args:
        m: rows of each training sample; ``references`` of them are drawn.
        exact: whether the profile counts in a second pass.
    """
    settings = DriftSettings()
    shifted = drifted = 0
    for reference in range(references):
        rng = np.random.default_rng([n, m, reference])
        training = draw(rng, m)
        profile = Profile.start(FIELDS)
        profile.update(training)
        profile.freeze()
        if exact:
            profile.count(training)
        assert profile.bins is not None
        for _ in range(windows // references):
            batch = draw(rng, n)
            scores = judge({k: compare(b, b.count(batch[k])) for k, b in profile.bins.items()}, settings)
            states = {s.state for s in scores.values()}
            shifted += states != {"same"}
            drifted += "drifted" in states
    return shifted, drifted

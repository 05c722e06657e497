"""Which samples a step sees: a shuffle that is a function of (seed, epoch), so that resuming needs no state.

Philox (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3") is counter-based: its key is (seed, epoch),
and epoch 1000 costs no more than epoch 1.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def generator(seed: int, epoch: int, purpose: int = 0) -> np.random.Generator:
    """The random numbers of one epoch.  ``purpose`` tells independent streams apart: 0 the order, 1 the augmentation."""
    return np.random.Generator(np.random.Philox(key=np.array([seed, (purpose << 48) | epoch], dtype=np.uint64)))


def order(seed: int, epoch: int, n: int) -> NDArray[np.int64]:
    """A permutation of ``range(n)`` for one epoch."""
    return generator(seed, epoch).permutation(n)


def steps(n: int, per_step: int, drop_last: bool = False) -> list[tuple[int, int]]:
    """Cut ``n`` samples into the [start, stop) of each step.

    ``drop_last`` leaves out a last step that would be smaller (unless it is the only one).  A last step of one sample is
    joined to the step before it: batch norm has no variance of one sample, and leaving it out would never train on it.
    """
    cuts = [(start, min(start + per_step, n)) for start in range(0, n, per_step)]
    start, stop = cuts[-1]
    if len(cuts) > 1 and stop - start < per_step:
        if drop_last:
            cuts.pop()
        elif stop - start == 1:
            cuts[-2:] = [(cuts[-2][0], stop)]
    return cuts

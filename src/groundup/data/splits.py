"""Dividing rows into training, validation and test.  Every function is deterministic in its seed.

All return int8 (N,): 0 training, 1 validation, 2 test (index into ``SPLITS``).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from groundup.errors import DataError

TRAIN, VALIDATION, TEST = 0, 1, 2


def sizes(n: int, validation: float, test: float) -> tuple[int, int, int]:
    """How many rows each split gets: shares rounded to the nearest, at least one row each.

    Raises:
        DataError: fewer than three rows.
    """
    if n < 3:
        raise DataError(f"{n} usable rows cannot be divided into training, validation and test; expected at least 3")
    n_test = min(max(1, round(n * test)), n - 2)
    n_validation = min(max(1, round(n * validation)), n - 1 - n_test)
    return n - n_validation - n_test, n_validation, n_test


def random(n: int, validation: float, test: float, seed: int) -> NDArray[np.int8]:
    """Every row has the same chance; sizes are exact."""
    _, n_validation, n_test = sizes(n, validation, test)
    order = np.random.default_rng(seed).permutation(n)
    split = np.zeros(n, np.int8)
    split[order[:n_test]] = TEST
    split[order[n_test : n_test + n_validation]] = VALIDATION
    return split


def stratified(y: NDArray[np.int64], validation: float, test: float, seed: int) -> NDArray[np.int8]:
    """Class shares are kept: rows are shuffled, sorted by class, and dealt out evenly along that order.

    Total sizes are those of :func:`sizes`; a class of m rows gets its share of each split to within 2 rows.  A class keeps
    at least one row in training, so a class of one row stands there alone.
    """
    n = len(y)
    _, n_validation, n_test = sizes(n, validation, test)
    rng = np.random.default_rng(seed)
    shuffled = rng.permutation(n)
    order = shuffled[np.argsort(y[shuffled], kind="stable")]
    split = np.zeros(n, np.int8)
    split[order[_evenly(n, n_test)]] = TEST
    rest = order[split[order] == TRAIN]
    split[rest[_evenly(len(rest), n_validation)]] = VALIDATION
    return _keep_in_training(split, y, rng)


def _evenly(n: int, k: int) -> NDArray[np.int64]:
    """k positions among n, as evenly spaced as integers go, in the middle of their shares."""
    return ((np.arange(k) + 0.5) * n / k).astype(np.int64)


def _keep_in_training(split: NDArray[np.int8], y: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int8]:
    """Give training one row of each class that has none there, in exchange for one of a class that has several."""
    k = int(y.max()) + 1
    in_training = np.bincount(y[split == TRAIN], minlength=k)
    for c in np.flatnonzero((in_training == 0) & (np.bincount(y, minlength=k) > 0)):
        row = rng.choice(np.flatnonzero(y == c))
        largest = int(in_training.argmax())
        if in_training[largest] > 1:
            other = rng.choice(np.flatnonzero((y == largest) & (split == TRAIN)))
            split[other] = split[row]
            in_training[largest] -= 1
        split[row] = TRAIN
        in_training[c] += 1
    return split


def grouped(groups: NDArray[Any], validation: float, test: float, seed: int) -> NDArray[np.int8]:
    """No group stands in two splits.  Groups are shuffled; each goes to the split that lacks the most rows.

    Raises:
        DataError: fewer than three groups.
    """
    names, group = np.unique(groups, return_inverse=True)
    n_rows = np.bincount(group)
    if len(names) < 3:
        raise DataError(f"{len(names)} groups cannot be divided into training, validation and test; expected at least 3")
    wanted = np.array(sizes(len(group), validation, test), dtype=np.float64)
    order = np.random.default_rng(seed).permutation(len(names))
    order = order[np.argsort(-n_rows[order], kind="stable")]  # large groups first: small ones fill the gaps
    of_group = np.zeros(len(names), np.int8)
    lacking = wanted.copy()
    empty = [TRAIN, TEST, VALIDATION]
    for position, g in enumerate(order):
        left = len(order) - position
        choice = empty[0] if left <= len(empty) else int(lacking.argmax())
        if choice in empty:
            empty.remove(choice)
        of_group[g] = choice
        lacking[choice] -= n_rows[g]
    return np.asarray(of_group[group])


def ordered(time: NDArray[np.int64], validation: float, test: float) -> NDArray[np.int8]:
    """Training is the past, then validation, test is the latest.  Rows of one moment stay together, in the earlier split.

    Raises:
        DataError: fewer than three moments, or so few that a split would be empty.
    """
    n = len(time)
    n_train, n_validation, _ = sizes(n, validation, test)
    inorder = np.sort(time)
    moments = np.unique(inorder)
    if len(moments) < 3:
        raise DataError(f"{len(moments)} different times cannot be divided into past, present and future; expected at least 3")
    last_train = min(inorder[n_train - 1], moments[-3])
    last_validation = min(max(inorder[n_train + n_validation - 1], moments[np.searchsorted(moments, last_train) + 1]), moments[-2])
    split: NDArray[np.int8] = ((time > last_train).astype(np.int8) + (time > last_validation)).astype(np.int8)
    return split

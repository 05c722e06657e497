"""Leaks: rows that stand in two splits, and single features that give the target away.

Identical rows.  A validation or test row whose features also stand in training is moved into training, so that the
figures are about unseen rows; the note says how many.  Where more than half of a split would go, the data was most likely
joined to itself, and that is reported as ``leaks`` says.  Rows can also be equal by chance, in tables without a column of
kind number, or where more than one in a hundred of such pairs have different targets; that is only noted.  So it is where
a group or a date ties rows to their split.

Give-aways.  A small decision tree sees one feature at a time, on one half of up to 20,000 training rows, and answers on
the other half.  Balanced accuracy (for regression R², or the share of ranks explained) of at least 0.999 from a single
feature is hardly ever honest.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from groundup.data.splits import TEST, TRAIN, VALIDATION

GIVEAWAY = 0.999
_CHANCE = 0.01  # of the pairs with different targets: more, and equal features are no copies
_ROWS = 20_000
_FEWEST = 50  # rows in the sample: with fewer a single feature may be perfect by luck
_NAMES = {VALIDATION: "validation", TEST: "test"}


def repeated(split: NDArray[np.int8], hashes: NDArray[np.uint64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Positions of validation and test rows whose features also stand in training, and of one such training row each.

    Rows with split < 0 are left out.
    """
    training = np.flatnonzero(split == TRAIN)
    training = training[np.argsort(hashes[training], kind="stable")]
    candidates = np.flatnonzero(split > TRAIN)
    nearest = training[np.minimum(np.searchsorted(hashes[training], hashes[candidates]), len(training) - 1)]
    found = hashes[nearest] == hashes[candidates]
    return candidates[found], nearest[found]


def settle_repeated(
    split: NDArray[np.int8], hashes: NDArray[np.uint64], rows: NDArray[np.int64], y: NDArray[Any], *, movable: bool, by_chance: bool
) -> tuple[NDArray[np.int8], list[str], list[str]]:
    """The split without repeated rows where they can be moved; notes; complaints (for ``leaks: error``).

    Args:
        rows: where each row stands in the source, for messages.
        y: targets.
        movable: no group or date ties rows to their split.
        by_chance: the table has no column that makes equal rows unlikely.
    """
    found, twins = repeated(split, hashes)
    if not len(found):
        return split, [], []
    shares = {which: float(np.sum(split[found] == which) / np.sum(split == which)) for which in (VALIDATION, TEST)}
    told = " and ".join(f"{share:.1%} of the {_NAMES[which]} rows" for which, share in shares.items() if share)
    told += f" have the same features as a training row (such as rows {rows[found[0]]} and {rows[twins[0]]})"
    if by_chance or np.mean(y[found] != y[twins]) > _CHANCE:
        return split, [f"{told}; by chance, it seems"], []
    if max(shares.values()) > 0.5:
        return split, [], [f"{told}; remove the repeats, or keep them together with data.group"]
    if not movable:
        return split, [f"{told}; group and time splits are left as they are"], []
    moved = split.copy()
    moved[found] = TRAIN
    return moved, [f"{told}; they were moved into training"], []


def giveaways(names: list[str], column: Any, y: NDArray[Any], *, classification: bool, seed: int) -> list[str]:
    """Complaints about features that predict the target alone.

    Args:
        column: name -> float64 (n,) values (NaN missing; categories as codes), aligned with ``y``; a sample is enough.
        y: class index or value (n,).
    """
    from sklearn.metrics import balanced_accuracy_score, r2_score
    from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

    n = len(y)
    if n < _FEWEST or len(np.unique(y)) < 2:
        return []
    order = np.random.default_rng(seed).permutation(n)[:_ROWS]
    half = len(order) // 2
    fit, held = order[:half], order[half:]
    leaves = min(max(2, 4 * len(np.unique(y))), 64) if classification else 256
    if classification and len(np.intersect1d(np.unique(y[fit]), np.unique(y[held]))) < 2:
        return []
    found = []
    for name in names:
        x = np.asarray(column(name), np.float64)[:, None]
        x = np.where(np.isfinite(x), np.clip(x, -3e38, 3e38), np.nan)
        if classification:
            model = DecisionTreeClassifier(max_leaf_nodes=leaves, random_state=0).fit(x[fit], y[fit])
            score, measure = _balanced(balanced_accuracy_score, y[held], model.predict(x[held])), "balanced accuracy"
        else:
            model = DecisionTreeRegressor(max_leaf_nodes=leaves, min_samples_leaf=2, random_state=0).fit(x[fit], y[fit])
            score, measure = max(float(r2_score(y[held], model.predict(x[held]))), _monotone(x[held, 0], y[held])), "R²"
        if score >= GIVEAWAY:
            found.append(
                f"{name!r} alone predicts the target on unseen rows ({measure} {score:.4f}): it is probably made "
                "from the target or known only after it; put it under data.drop"
            )
    return found


def _monotone(x: NDArray[np.float64], y: NDArray[Any]) -> float:
    """Share of the target's ranks that the feature's ranks explain (Spearman's ρ²); 0 where the feature is missing or constant."""
    from scipy.stats import rankdata

    if np.isnan(x).any() or x.min() == x.max() or y.min() == y.max():
        return 0.0
    return float(np.corrcoef(rankdata(x), rankdata(y))[0, 1] ** 2)


def _balanced(score: Any, y: NDArray[Any], guess: NDArray[Any]) -> float:
    known = np.isin(guess, np.unique(y))  # a class that only the first half has counts as a mistake
    return float(score(y, np.where(known, guess, y[0]))) * float(known.mean())


def unordered(method: str, dates: list[str]) -> list[str]:
    """A note where a table with dates is divided without regard to them."""
    if method == "time" or not dates:
        return []
    return [f"{', '.join(map(repr, dates))} holds dates and rows are divided without regard to them; to predict the future set data.time"]

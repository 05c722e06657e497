from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from groundup.data import splits
from groundup.errors import DataError

shares = st.tuples(st.floats(0.01, 0.45), st.floats(0.01, 0.45))


@settings(deadline=None)
@given(st.integers(3, 500), shares, st.integers(0, 99))
def test_random_split_has_the_promised_sizes(n: int, share: tuple[float, float], seed: int) -> None:
    split = splits.random(n, *share, seed)
    assert tuple(np.bincount(split, minlength=3)) == splits.sizes(n, *share)
    assert min(splits.sizes(n, *share)) >= 1
    for k, s in zip((1, 2), share, strict=True):
        assert abs((split == k).sum() - n * s) <= 1 or n * s < 1 or n < 5 / min(share)


@settings(deadline=None)
@given(st.lists(st.integers(0, 6), min_size=3, max_size=400), shares, st.integers(0, 99))
def test_stratified_split_keeps_sizes_and_class_shares(labels: list[int], share: tuple[float, float], seed: int) -> None:
    y = np.array(labels)
    split = splits.stratified(y, *share, seed)
    n_train, n_validation, n_test = splits.sizes(len(y), *share)
    present = np.unique(y)
    assert abs((split == 0).sum() - n_train) <= len(present)  # only classes brought back to training may change a size
    assert set(y[split == 0]) == set(present)
    for c in present:
        m = (y == c).sum()
        assert abs(((y == c) & (split == 2)).sum() - m * n_test / len(y)) <= 2.0
        assert abs(((y == c) & (split == 1)).sum() - m * n_validation / len(y)) <= 3.0


def test_stratified_split_is_exact_on_large_classes() -> None:
    y = np.repeat([0, 1, 2], [7000, 2000, 1000])
    split = splits.stratified(y, 0.1, 0.2, 0)
    for c, m in enumerate((7000, 2000, 1000)):
        assert abs(((y == c) & (split == 2)).sum() - 0.2 * m) <= 1
        assert abs(((y == c) & (split == 1)).sum() - 0.1 * m) <= 1


def test_a_class_of_one_row_stands_in_training(seed: int) -> None:
    y = np.array([0] * 50 + [1] * 50 + [2])
    assert splits.stratified(y, 0.1, 0.2, seed)[-1] == 0


@settings(deadline=None)
@given(st.lists(st.integers(0, 30), min_size=3, max_size=300), shares, st.integers(0, 99))
def test_no_group_stands_in_two_splits(groups: list[int], share: tuple[float, float], seed: int) -> None:
    g = np.array(groups)
    if len(np.unique(g)) < 3:
        with pytest.raises(DataError, match="at least 3"):
            splits.grouped(g, *share, seed)
        return
    split = splits.grouped(g, *share, seed)
    assert all(len(np.unique(split[g == name])) == 1 for name in np.unique(g))
    assert set(split) == {0, 1, 2}
    largest = np.bincount(g).max()
    wanted = splits.sizes(len(g), *share)
    assert (split == 0).sum() <= wanted[0] + largest


@settings(deadline=None)
@given(st.lists(st.integers(-50, 50), min_size=3, max_size=300), shares)
def test_time_split_never_looks_ahead(times: list[int], share: tuple[float, float]) -> None:
    t = np.array(times)
    if len(np.unique(t)) < 3:
        with pytest.raises(DataError, match="different times"):
            splits.ordered(t, *share)
        return
    split = splits.ordered(t, *share)
    assert set(split) == {0, 1, 2}
    assert t[split == 0].max() < t[split == 1].min()
    assert t[split == 1].max() < t[split == 2].min()


@settings(deadline=None)
@given(st.integers(10, 500), shares)
def test_time_split_of_different_times_has_the_promised_sizes(n: int, share: tuple[float, float]) -> None:
    t = np.random.default_rng(n).permutation(n)
    assert tuple(np.bincount(splits.ordered(t, *share), minlength=3)) == splits.sizes(n, *share)


def test_splits_are_deterministic_in_the_seed(seed: int) -> None:
    y = np.arange(200) % 3
    assert (splits.stratified(y, 0.1, 0.2, seed) == splits.stratified(y, 0.1, 0.2, seed)).all()
    assert (splits.random(200, 0.1, 0.2, seed) == splits.random(200, 0.1, 0.2, seed)).all()
    assert (splits.random(200, 0.1, 0.2, seed) != splits.random(200, 0.1, 0.2, seed + 1)).any()


def test_too_few_rows() -> None:
    with pytest.raises(DataError, match="at least 3"):
        splits.random(2, 0.1, 0.2, 0)

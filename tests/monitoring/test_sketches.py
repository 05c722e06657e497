import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from groundup.monitoring.sketches import MAX_VALUES, Categories, Distinct, Numbers, Quantiles, hash_numbers

floats = st.floats(allow_nan=True, allow_infinity=True, width=64)
ordinary = st.one_of(st.just(float("nan")), st.floats(-1e6, 1e6), st.integers(-3, 3).map(float))


def numbers(*parts: np.ndarray) -> Numbers:
    s = Numbers()
    for x in parts:
        s.update(np.asarray(x, np.float64))
    return s


def rank_error(q: Quantiles, x: np.ndarray) -> float:
    points = np.unique(x)[:: max(1, len(np.unique(x)) // 500)]
    return float(np.abs(q.cdf(points) - np.searchsorted(np.sort(x), points, side="right") / len(x)).max())


@pytest.mark.parametrize("order", ["random", "sorted", "reversed", "zigzag"])
def test_quantiles_stay_within_half_a_percent_of_ranks(order: str) -> None:
    x = np.random.default_rng(0).normal(size=200_000)
    x = {"random": x, "sorted": np.sort(x), "reversed": np.sort(x)[::-1], "zigzag": np.sort(x).reshape(2, -1).T.ravel()}[order]
    s = numbers(x)
    assert rank_error(s.sample, x) <= 0.005
    assert sum(map(len, s.sample.levels)) * 8 < 16_000  # and in constant memory


def test_quantiles_of_few_values_are_exact() -> None:
    x = np.random.default_rng(1).normal(size=501)
    np.testing.assert_array_equal(numbers(x).sample.quantiles(np.array([0, 0.5, 1])), [x.min(), np.median(x), x.max()])


def test_quantiles_weigh_every_value_once() -> None:
    q = Quantiles(k=32)
    for i in range(1, 200):
        q.add(np.arange(i, dtype=float))
    assert q._weighted()[1][-1] == sum(range(1, 200))


@given(st.lists(floats, max_size=200), st.lists(floats, max_size=200))
def test_numbers_never_raise_and_merging_is_one_pass(a: list[float], b: list[float]) -> None:
    merged, single = numbers(a), numbers(a, b)
    merged.merge(numbers(b))
    for name in ("n", "nulls", "infinite", "zeros", "count", "minimum", "maximum", "values"):
        assert getattr(merged, name) == getattr(single, name), name
    assert merged.distinct.estimate() == single.distinct.estimate()
    np.testing.assert_array_equal(merged.sample._weighted()[0], single.sample._weighted()[0])  # fewer than k: exact
    json.dumps(merged.to_dict(), allow_nan=False)


@given(st.lists(ordinary, min_size=2, max_size=300), st.integers(0, 300))
def test_moments_are_numpys(values: list[float], cut: int) -> None:
    x = np.array(values)
    s = numbers(x[:cut])
    s.merge(numbers(x[cut:]))
    known = x[~np.isnan(x)]
    assert s.n == len(known)
    if len(known) > 1:
        assert s.mean == pytest.approx(known.mean(), rel=1e-9, abs=1e-9)
        assert s.std == pytest.approx(known.std(ddof=1), rel=1e-6, abs=1e-6)


def test_moments_of_a_shifted_column_do_not_cancel() -> None:
    x = 1e9 + np.random.default_rng(0).normal(size=100_000)
    assert numbers(x).std == pytest.approx(x.std(ddof=1), rel=1e-6)


def test_values_are_counted_while_there_are_few() -> None:
    assert dict(numbers([0.0, -0.0, 1, 1, np.nan]).values or {}) == {0.0: 2, 1.0: 2}
    assert numbers(np.arange(MAX_VALUES)).values is not None
    assert numbers(np.arange(MAX_VALUES + 1)).values is None


@pytest.mark.parametrize("true", [100, 512, 5_000, 300_000])
def test_distinct_values(true: int) -> None:
    d = Distinct()
    x = np.repeat(np.random.default_rng(true).normal(size=true), 3)
    for part in np.array_split(np.random.default_rng(0).permutation(x), 7):
        d.add(hash_numbers(part))
    assert d.estimate() == (true if true < 512 else pytest.approx(true, rel=4 / np.sqrt(512)))


@given(st.lists(st.text(max_size=6)), st.lists(st.text(max_size=6)))
def test_categories_merge_as_one_pass(a: list[str], b: list[str]) -> None:
    merged, single, other = Categories(), Categories(), Categories()
    for s, x in ((merged, a), (single, a + b), (other, b)):
        s.update(np.array([*x, ""], object)[:-1])
    merged.merge(other)
    assert (merged.n, merged.nulls, merged.top(1000)) == (single.n, single.nulls, single.top(1000))
    assert merged.distinct.estimate() == single.distinct.estimate()
    assert merged.nulls == (a + b).count("")


def test_categories_hold_whatever_comes() -> None:
    s = Categories()
    odd = ["\ud800", "nul\0", "x" * 500, "x" * 499 + "y", None, float("nan"), 3, b"\xff", ["list"], "", "ä"]
    s.update(np.array([*odd, None], object)[:-1])
    assert s.nulls == 3  # None, NaN and ""
    assert s.n == 8
    assert len({name for name, _ in s.top(100)}) == 8  # the two long ones are told apart
    assert all(len(name) <= 128 for name, _ in s.top(100))
    assert Categories.from_dict(json.loads(json.dumps(s.to_dict()))).top(100) == s.top(100)


def test_memory_is_bounded_for_many_categories() -> None:
    s = Categories()
    for start in range(0, 60_000, 10_000):
        s.update(np.array([f"user-{i}" for i in range(start, start + 10_000)] + ["often"] * 2_000, object))
    assert s.top(1) == [("often", s.top(1)[0][1])]
    assert s.top(1)[0][1] >= 0.99 * 12_000
    assert len(json.dumps(s.to_dict())) < 200_000
    assert s.distinct.estimate() == pytest.approx(60_001, rel=0.2)


@settings(max_examples=20)
@given(st.integers(0, 2**32))
def test_the_same_data_gives_the_same_bytes(seed: int) -> None:
    x = np.random.default_rng(seed).normal(size=40_000)
    assert json.dumps(numbers(x).to_dict()) == json.dumps(numbers(x).to_dict())

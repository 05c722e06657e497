import json
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from groundup.bundle.signature import MISSING_DATETIME, Field
from groundup.errors import BundleError
from groundup.monitoring.columns import derive
from groundup.monitoring.profile import Bins, Profile

FIELDS = [
    Field("age", "number", nullable=True),
    Field("flag", "boolean", nullable=True),
    Field("city", "category", nullable=True),
    Field("when", "datetime", nullable=True),
    Field("picture", "image", (5, 7, 3)),
    Field("wave", "tensor", (41,)),
    Field("point", "tensor", (3,)),
    Field("probabilities", "tensor", (4,)),
]


def batch(n: int, seed: int = 0) -> dict[str, np.ndarray]:
    r = np.random.default_rng(seed)
    return {
        "age": np.where(r.random(n) < 0.1, np.nan, r.normal(40, 9, n)),
        "flag": np.where(r.random(n) < 0.2, np.nan, r.integers(0, 2, n)),
        "city": r.choice(["", "Bonn", "Köln"], n).astype(object),
        "when": np.where(r.random(n) < 0.1, MISSING_DATETIME, r.integers(0, 2**50, n)),
        "picture": r.integers(0, 256, (n, 5, 7, 3)).astype(np.uint8),
        "wave": r.normal(size=(n, 41)).astype(np.float32),
        "point": r.normal(size=(n, 3)).astype(np.float32),
        "probabilities": r.dirichlet(np.ones(4), n).astype(np.float32),
    }


def test_round_trip_through_json_is_exact_and_can_be_merged() -> None:
    profile = Profile.start(FIELDS)
    profile.update(batch(3000))
    again = Profile.from_dict(json.loads(json.dumps(profile.to_dict(), allow_nan=False)))
    assert again.to_dict() == profile.to_dict()
    again.merge(Profile.from_dict(profile.to_dict()))
    assert again.rows == 6000
    frozen = Profile.of(FIELDS, batch(3000))
    assert Profile.from_dict(json.loads(json.dumps(frozen.to_dict(), allow_nan=False))).to_dict() == frozen.to_dict()


def test_shards_merged_are_the_single_pass() -> None:
    single, merged = Profile.start(FIELDS), Profile.start(FIELDS)
    for seed in range(3):
        single.update(batch(400, seed))
        shard = Profile.start(FIELDS)
        shard.update(batch(400, seed))
        merged.merge(shard)
    assert merged.rows == single.rows == 1200
    for name, a in single.summaries.items():
        b = merged.summaries[name]
        assert (a.count, a.nulls, a.distinct.estimate()) == (b.count, b.nulls, b.distinct.estimate())
    assert {k: v.counts.tolist() for k, v in (single.freeze().bins or {}).items() if k in ("flag", "city", "when.missing")} == {
        k: v.counts.tolist() for k, v in (merged.freeze().bins or {}).items() if k in ("flag", "city", "when.missing")
    }


def test_second_pass_counts_exactly() -> None:
    x = batch(5000)
    profile = Profile.of(FIELDS, x)
    assert profile.bins is not None
    assert "when" not in profile.bins  # time always moves on
    for name, column in derive(FIELDS, x).items():
        if name not in profile.bins:
            continue
        bins = profile.bins[name]
        assert bins.counts.sum() == bins.rows == 5000
        if bins.edges is not None:
            known = column[~np.isnan(column)]
            by_hand = np.bincount(np.searchsorted(bins.edges, known, side="left"), minlength=len(bins.edges) + 1)
            np.testing.assert_array_equal(bins.counts, [*by_hand, np.isnan(column).sum()])


def test_counts_without_a_second_pass_are_near_and_say_what_they_are_worth() -> None:
    x = {"age": np.random.default_rng(0).normal(size=100_000)}
    once, twice = Profile.start(FIELDS[:1]), Profile.of(FIELDS[:1], x)
    once.update(x)
    once.freeze()
    assert once.bins is not None
    assert twice.bins is not None
    assert np.abs(once.bins["age"].counts - twice.bins["age"].counts).max() < 0.01 * 100_000
    assert once.bins["age"].rows == pytest.approx(10_000)
    assert twice.bins["age"].rows == 100_000


def test_bins_single_out_values_that_carry_mass() -> None:
    constant = Profile.of([Field("x", "number")], {"x": np.full(500, 3.0)}).bins
    assert constant is not None
    assert constant["x"].names() == ["< 3", "= 3", "> 3", "(missing)"]
    np.testing.assert_array_equal(constant["x"].count(np.array([2.9, 3.0, 3.0, 3.1, np.nan, np.inf, -np.inf])), [2, 2, 2, 1])
    spike = np.where(np.arange(1000) % 5 == 0, np.random.default_rng(0).exponential(size=1000), 0.0)
    bins = Profile.of([Field("x", "number")], {"x": spike}).bins
    assert bins is not None
    assert "= 0" in bins["x"].names()


def test_a_frozen_profile_takes_no_more_data() -> None:
    profile = Profile.of(FIELDS, batch(100))
    with pytest.raises(ValueError, match="frozen"):
        profile.update(batch(10))
    with pytest.raises(ValueError, match="merge first"):
        profile.merge(profile)
    with pytest.raises(ValueError, match="freeze"):
        Profile.start(FIELDS).count(batch(10))
    with pytest.raises(ValueError, match="different columns"):
        Profile.start(FIELDS).merge(Profile.start(FIELDS[:2]))


@pytest.mark.parametrize(
    "damage",
    [lambda d: d.update(format=99), lambda d: d["columns"].pop("age"), lambda d: d["columns"]["city"]["sketch"].update(frequent="AAAA")],
)
def test_a_damaged_profile_is_refused(damage) -> None:
    data = json.loads(json.dumps(Profile.of(FIELDS, batch(50)).to_dict()))
    damage(data)
    with pytest.raises(BundleError, match="package the model again"):
        Profile.from_dict(data)


@given(
    st.lists(st.floats(allow_nan=True, allow_infinity=True), max_size=120),
    st.lists(st.floats(allow_nan=True, allow_infinity=True), max_size=60),
)
def test_any_numbers_can_be_profiled_and_counted(train: list[float], live: list[float]) -> None:
    bins = Profile.of([Field("x", "number", nullable=True)], {"x": np.array(train, np.float64)}).bins
    assert bins is not None
    assert bins["x"].count(np.array(live, np.float64)).sum() == len(live)
    assert bins["x"].counts.sum() == len(train)
    assert len(bins["x"].names()) == len(bins["x"].counts)
    json.dumps(bins["x"].to_dict(), allow_nan=False)


def test_the_columns_of_an_image_move_with_what_is_done_to_it() -> None:
    fields, r = [Field("i", "image", (16, 16, 1))], np.random.default_rng(0)
    image = np.zeros((1, 16, 16, 1), np.uint8)
    image[0, 4:9, 4:9] = 200
    before = {k: float(v[0]) for k, v in derive(fields, {"i": image}).items()}
    changes = {
        "i.mean": np.minimum(image + 40, 255).astype(np.uint8),
        "i.row": np.roll(image, 4, axis=1),
        "i.column": np.roll(image, 4, axis=2),
        "i.edges": np.clip(image + r.normal(0, 60, image.shape), 0, 255).astype(np.uint8),
        "i.ink": 255 - image,
        "i.std": (image // 3).astype(np.uint8),
    }
    for name, changed in changes.items():
        assert abs(float(derive(fields, {"i": changed})[name][0]) - before[name]) > 0.05, name
    assert np.isnan(derive(fields, {"i": np.zeros((2, 16, 16, 1), np.uint8)})["i.row"]).all()


def test_dates_are_described_and_only_their_absence_is_compared() -> None:
    t = np.array([2**50, MISSING_DATETIME])
    columns = derive([Field("t", "datetime")], {"t": t})
    np.testing.assert_array_equal(columns["t"], [2.0**50, np.nan])
    np.testing.assert_array_equal(columns["t.missing"], [0, 1])


def test_two_processes_write_the_same_profile() -> None:
    code = (
        "import json, sys, hashlib; sys.path.insert(0, 'tests/monitoring'); from test_profile import *; "
        "print(hashlib.sha256(json.dumps(Profile.of(FIELDS, batch(2000)).to_dict()).encode()).hexdigest())"
    )
    outputs = {subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout for _ in range(2)}
    assert len(outputs) == 1


def test_bins_from_dict_keeps_the_order_of_categories() -> None:
    bins = Bins(None, ["b", "a"], np.array([3.0, 2, 1, 0]), 6.0)
    again = Bins.from_dict(json.loads(json.dumps(bins.to_dict())))
    np.testing.assert_array_equal(again.count(np.array(["a", "b", "b", "c", ""], object)), [2, 1, 1, 1])

"""Slices: who is in them, and that the flag for a bad one is neither deaf nor nervous."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from groundup.errors import RecipeError
from groundup.evaluation import slices

TASK = "tabular-classification"


def field(name, kind):
    return {"name": name, "kind": kind}


def names(found):
    return {(s.column, s.value): s.n for s in found}


FRAME = pd.DataFrame(
    {
        "port": ["S", "C", None, "S", "Q", "S"],
        "age": [20.0, np.nan, 31.5, 44.0, 52.0, 18.0],
        "deck": pd.array([1, 2, 1, 2, None, 1], dtype="Int64"),
        "when": pd.to_datetime(["2024-01-01", "2024-02-01", None, "2024-04-01", "2024-05-01", "2024-06-01"]),
        "alive": pd.array([True, False, True, None, True, False], dtype="boolean"),
    }
)
INPUTS = [field("port", "category"), field("age", "number"), field("deck", "integer"), field("when", "datetime"), field("alive", "boolean")]


def test_automatic_slices_are_categories_and_missing():
    found = names(slices.automatic(FRAME, INPUTS))
    assert found == {
        ("port", "S"): 3, ("port", "C"): 1, ("port", "Q"): 1, ("port", "(missing)"): 1,
        ("age", "18"): 1, ("age", "20"): 1, ("age", "31.5"): 1, ("age", "44"): 1, ("age", "52"): 1, ("age", "(missing)"): 1,
        ("deck", "1"): 3, ("deck", "2"): 2, ("deck", "(missing)"): 1,
        ("when", "(missing)"): 1, ("when", "(present)"): 5,
        ("alive", "True"): 3, ("alive", "False"): 2, ("alive", "(missing)"): 1,
    }  # fmt: skip


def test_columns_with_many_categories_only_give_missing():
    frame = pd.DataFrame({"name": [f"n{i}" for i in range(30)] + [None], "x": np.arange(31.0)})
    found = names(slices.automatic(frame, [field("name", "category"), field("x", "number")]))
    assert found == {("name", "(missing)"): 1, ("name", "(present)"): 30}


def test_declared_slices_quarters_edges_and_crossings():
    frame = pd.DataFrame({"age": np.arange(100.0), "sex": ["f", "m"] * 50})
    assert [s.n for s in slices.declared(frame, "age")] == [25, 25, 25, 25]
    found = names(slices.declared(frame, {"age": [18, 65]}))
    assert found == {("age", "below 18"): 18, ("age", "18 to 65"): 47, ("age", "from 65"): 35}
    crossed = slices.declared(frame, "sex & age")
    assert len(crossed) == 8
    assert sum(s.n for s in crossed) == 100
    assert crossed[0].column == "sex & age"


def test_a_missing_value_is_in_no_range():
    assert sum(s.n for s in slices.declared(FRAME, {"age": [30]})) == 5


def test_unknown_column_names_the_nearest():
    with pytest.raises(RecipeError, match="no column 'aeg'; did you mean 'age'"):
        slices.declared(FRAME, "aeg")


def answers(y, wrong):
    p = np.full((len(y), 2), 0.1)
    p[np.arange(len(y)), np.where(wrong, 1 - y, y)] = 0.9
    return p


def test_a_bad_slice_is_flagged_and_its_numbers_are_right():
    rng = np.random.default_rng(0)
    group = np.repeat(np.arange(5), 100)
    y = rng.integers(0, 2, 500)
    wrong = rng.random(500) < np.where(group == 3, 0.4, 0.05)
    parts = [slices.Slice("g", str(k), "category", group == k) for k in range(5)]
    found = slices.judge(TASK, y, answers(y, wrong), parts)
    assert [s["value"] for s in found if s["worse"]] == ["3"]
    bad = found[0]
    assert bad["measured"] == pytest.approx(1 - wrong[group == 3].mean())
    assert bad["rest"] == pytest.approx(1 - wrong[group != 3].mean())
    assert bad["low"] < bad["measured"] < bad["high"]
    table = [[wrong[group == 3].sum(), (~wrong)[group == 3].sum()], [wrong[group != 3].sum(), (~wrong)[group != 3].sum()]]
    assert bad["p"] == pytest.approx(min(1.0, 5 * stats.fisher_exact(table, "greater").pvalue), rel=1e-9)


@pytest.mark.parametrize(("task", "runs"), [(TASK, 100), ("tabular-regression", 40)])
def test_false_alarms_stay_rare_when_nothing_is_wrong(task, runs):
    """30 slices of a model that is equally good everywhere: a run with any flag at all at most as often as stated (5 %), 3.5 SE."""
    alarms = 0
    for seed in range(runs):
        rng = np.random.default_rng(seed)
        y, group = rng.integers(0, 2, 600), rng.integers(0, 30, 600)
        parts = [slices.Slice("g", str(k), "category", group == k) for k in range(30)]
        scores = answers(y, rng.random(600) < 0.1) if task == TASK else y + rng.normal(size=600)
        alarms += any(s["worse"] for s in slices.judge(task, y, scores, parts, count=100))
    assert alarms / runs <= 0.05 + 3.5 * np.sqrt(0.05 * 0.95 / runs)


def test_regression_slices_use_the_absolute_error():
    rng = np.random.default_rng(0)
    y, group = rng.normal(size=300), np.repeat([0, 1, 2], 100)
    f = y + rng.normal(size=300) * np.where(group == 1, 3.0, 1.0)
    found = slices.judge("tabular-regression", y, f, [slices.Slice("g", str(k), "category", group == k) for k in range(3)])
    assert found[0]["value"] == "1"
    assert found[0]["worse"]
    assert found[0]["measured"] == pytest.approx(np.abs(y - f)[group == 1].mean())
    assert not any(s["worse"] for s in found[1:])


def test_small_slices_and_the_whole_are_left_out():
    y = np.zeros(50, int)
    parts = [slices.Slice("g", "few", "category", np.arange(50) < 9), slices.Slice("g", "all", "category", np.ones(50, bool))]
    assert slices.judge(TASK, y, answers(y, y > 0), parts) == []


def test_benjamini_hochberg_equals_scipy():
    p = np.random.default_rng(0).random(40) ** 3
    np.testing.assert_allclose(slices.benjamini_hochberg(p), stats.false_discovery_control(p))

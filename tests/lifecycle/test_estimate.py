"""What a plan says a run would cost: nothing where nobody knows, a measured figure where a few steps can tell."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from groundup.lifecycle import estimate as module
from groundup.lifecycle.estimate import Estimate, estimate
from groundup.lifecycle.run import run
from groundup.recipe import Recipe


def recipe(root: Path, **changes: Any) -> Recipe:
    sections = {"name": "a", "task": "tabular-classification", "data": {"source": "breast_cancer"}, "model": {"name": "mlp"}}
    return Recipe.of(root, **{**sections, **changes})


def by_stage(made: Recipe) -> dict[str, Estimate]:
    return {e.planned.name: e for e in estimate(made)}


def seconds(made: Recipe) -> int:
    found = re.fullmatch(r"([\d,]+) s of steps, tried now", by_stage(made)["train"].time)
    assert found, by_stage(made)["train"]
    return int(found[1].replace(",", ""))


def test_before_the_first_run_times_are_left_empty(tmp_path: Path) -> None:
    lines = by_stage(recipe(tmp_path))
    assert {e.time for e in lines.values()} == {""}
    assert lines["train"].memory == "at least 600 MB"
    assert not (tmp_path / ".groundup").exists()


def test_a_networks_training_is_timed_by_a_few_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(recipe(tmp_path), until="prepare")
    few, many = (seconds(recipe(tmp_path, train={"epochs": n})) for n in (2_000, 20_000))
    assert 2 * few < many < 50 * few  # ten times as much, on a machine that others use too
    assert by_stage(recipe(tmp_path))["prepare"].time == "0 s"
    monkeypatch.setattr(module, "_AFFORDABLE", 10)
    assert by_stage(recipe(tmp_path))["train"].time == ""  # trying it would take too long


def test_what_was_made_before_takes_as_long_again(tmp_path: Path) -> None:
    estimator = {"class": "sklearn.linear_model:LogisticRegression", "max_iter": 2000}
    run(recipe(tmp_path, model=estimator), until="train")
    lines = by_stage(recipe(tmp_path, model={**estimator, "C": 0.5}))
    assert re.fullmatch(r"\d+ s, as last time", lines["train"].time)
    assert lines["evaluate"].time == ""


def test_memory_counts_data_model_and_workers(tmp_path: Path) -> None:
    def megabytes(stage: str, **changes: Any) -> int:
        return int(by_stage(recipe(tmp_path, **changes))[stage].memory.removesuffix(" MB").replace(",", ""))

    run(recipe(tmp_path), until="prepare")
    assert megabytes("train", model={"name": "mlp", "width": 4000}) > megabytes("train") + 100
    one, three = (megabytes("tune", tune={"workers": n}) for n in (1, 3))
    assert three - one == pytest.approx(2 * module._WORKER_MB, abs=30)


def test_a_model_that_cannot_be_built_does_not_stop_the_plan(tmp_path: Path) -> None:
    run(recipe(tmp_path), until="prepare")
    lines = by_stage(recipe(tmp_path, model={"class": "nowhere:Net"}))
    assert lines["train"].time == ""
    assert lines["train"].memory.endswith("MB")

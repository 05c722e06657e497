"""compare: two runs side by side, paired where the rows are the same."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from served_table import HeldOut, graph, make_bundle

from groundup.errors import DataError
from groundup.lifecycle import compare as module
from groundup.lifecycle.compare import compare, find_run
from groundup.lifecycle.paired import differences


def run(folder: Path, name: str, tilt: float, epochs: int, p50: float) -> Path:
    made = folder / "runs" / name
    stages = {}
    for stage, output in {
        "evaluate": {"metrics": {"accuracy": {"value": 0.9, "low": 0.85, "high": 0.95}}},
        "rehearse": {"loads": [{"connections": 1, "p50_ms": p50, "p99_ms": 2 * p50, "requests_per_second": 1000 / p50}]},
    }.items():
        path = folder / "cache" / stage / name
        path.mkdir(parents=True)
        (path / "output.json").write_text(json.dumps(output))
        stages[stage] = {"key": "k", "path": str(path), "seconds": 1.5, "cached": stage == "evaluate"}
    make_bundle(Path(stages["rehearse"]["path"]) / "bundle", graph(tilt))  # type: ignore[arg-type]
    made.mkdir(parents=True)
    recipe = {"name": "t", "train": {"epochs": epochs, "optimizer": {"lr": 0.1}}, **({"tune": {"trials": 3}} if epochs == 5 else {})}
    (made / "run.json").write_text(json.dumps({"id": name, "recipe": recipe, "stages": stages}))
    return made


@pytest.fixture
def runs(tmp_path: Path) -> tuple[Path, Path]:
    return run(tmp_path, "20260101-a", 0.0, 3, 0.5), run(tmp_path, "20260102-b", -1.5, 5, 0.25)


def test_settings_metrics_and_measures(runs: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_prepared", lambda manifest: HeldOut())
    found = compare(*runs)
    assert found.settings == [("train.epochs", "3", "5"), ("tune.trials", "", "3")]
    accuracy = found.metrics[0]
    assert (accuracy.metric, accuracy.first, accuracy.better, accuracy.rows) == ("accuracy", 1.0, "first", HeldOut.n)
    assert accuracy.low is not None
    assert accuracy.low <= accuracy.difference <= accuracy.high < 0  # type: ignore[operator]
    assert ("p50 ms, 1 caller", 0.5, 0.25) in found.measures
    assert ("seconds of rehearse", 1.5, 1.5) in found.measures
    assert not any("evaluate" in name for name, _, _ in found.measures)  # it came from the cache
    for part in ("20260101-a", "train.epochs", "first is better", "× 0.50", f"on the same {HeldOut.n} test rows"):
        assert part in found.text
    assert found.notes == []


def test_other_rows_are_not_paired(runs: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    splits = [HeldOut(), HeldOut(first=1)]
    monkeypatch.setattr(module, "_prepared", lambda manifest: splits.pop())
    found = compare(*runs)
    assert found.metrics == []
    assert found.notes == ["no paired difference: the test rows are not the same"]
    assert "0.9000 [0.8500, 0.9500]" in found.text


def test_a_run_with_itself_differs_in_nothing(runs: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_prepared", lambda manifest: HeldOut())
    found = compare(runs[0], runs[0])
    assert found.settings == []
    assert all(d.difference == 0 and d.better == "" for d in found.metrics)


def test_runs_are_found(runs: tuple[Path, Path], tmp_path: Path) -> None:
    assert find_run("20260101-a", tmp_path) == runs[0]
    assert find_run("20260102", tmp_path) == runs[1]
    assert find_run(str(runs[0]), tmp_path) == runs[0]
    assert find_run("latest", tmp_path) == runs[1]
    (tmp_path / "runs" / "latest").write_text("20260101-a")
    assert find_run("latest", tmp_path) == runs[0]
    with pytest.raises(DataError, match=r"2 runs begin with '2026'.*20260101-a, 20260102-b"):
        find_run("2026", tmp_path)
    with pytest.raises(DataError, match=r"no run 'x'.*none yet"):
        find_run("x", tmp_path / "empty")


def test_a_damaged_manifest_is_named(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text("[")
    with pytest.raises(DataError, match=r"run\.json: not JSON"):
        compare(tmp_path, tmp_path)


def test_the_interval_of_a_difference_is_narrower_than_of_two_samples() -> None:
    rng = np.random.default_rng(0)
    y = rng.normal(size=400)
    first = y + rng.normal(size=400)
    second = first + rng.normal(size=400) * 0.05
    found = {d.metric: d for d in differences("tabular-regression", y, first, second)}
    rmse = found["rmse"]
    assert rmse.high is not None
    assert rmse.low is not None
    assert rmse.high - rmse.low < 0.03  # two independent intervals would be about 0.14 wide
    assert rmse.worse_by == rmse.difference

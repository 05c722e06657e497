"""Link 6: quiet on clean rows, loud on changed ones; and a monitor that is deaf or nervous is found out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from served_table import SIGNATURE, make_bundle, rows

from groundup.bundle import Bundle, Field, Signature
from groundup.monitoring.drift import Drift
from groundup.monitoring.settings import DriftSettings
from groundup.rehearsal import drift
from groundup.rehearsal.server import Server
from groundup.rehearsal.shifts import applicable
from groundup.serving.engine import Engine

CLEAN = rows(800, 5)


def test_offline(bundle: Bundle) -> None:
    shifts = applicable(SIGNATURE, CLEAN, 1.0)
    measured, proofs = drift.offline(bundle, Engine(bundle), CLEAN, 600, shifts, windows=50, seed=0)
    assert all(p.passed and p.link == 6 for p in proofs), [str(p) for p in proofs]
    assert measured["clean_windows"] == 50
    assert measured["window_rows"] == 200
    assert measured["detected"] == dict.fromkeys(shifts, 1.0)
    assert len(shifts) == 3


def test_small_splits_make_small_windows_and_no_false_alarms(bundle: Bundle) -> None:
    few = rows(120, 7)
    measured, proofs = drift.offline(bundle, Engine(bundle), few, 80, {}, windows=100, seed=0)
    assert measured["window_rows"] == 40
    assert proofs[0].passed, str(proofs[0])


def test_a_nervous_monitor_is_found_out(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    class Nervous(Drift):
        def __init__(self, profile: dict[str, Any], settings: DriftSettings) -> None:
            super().__init__(profile, settings.model_copy(update={"threshold": 1e-9, "false_alarm_rate": 0.49}))

    monkeypatch.setattr(drift, "Drift", Nervous)
    measured, proofs = drift.offline(bundle, Engine(bundle), CLEAN, 600, {}, windows=60, seed=0)
    assert measured["false_alarms"] > 5
    assert not proofs[0].passed


def test_a_profile_of_other_data_is_found_out(bundle: Bundle, tmp_path: Path) -> None:
    moved = {**CLEAN, "a": CLEAN["a"] + 1.0}
    name, shift = next(iter(applicable(SIGNATURE, CLEAN, 1.0).items()))
    with Server(bundle.path, log=tmp_path / "log") as server:
        _, proofs = drift.live(server, bundle, moved, shift, name, seed=0)
    assert not proofs[0].passed


def test_a_deaf_monitor_is_found_out(tmp_path: Path) -> None:
    deaf = make_bundle(tmp_path / "deaf", monitor={"drift": {"window": 200, "min-rows": 100, "threshold": 1000}})
    shifts = applicable(SIGNATURE, CLEAN, 1.0)
    _, proofs = drift.offline(deaf, Engine(deaf), CLEAN, 600, shifts, windows=20, seed=0)
    assert [p.passed for p in proofs] == [True, False, False, False]


def test_live(bundle: Bundle, tmp_path: Path) -> None:
    name, shift = next(iter(applicable(SIGNATURE, CLEAN, 1.0).items()))
    with Server(bundle.path, log=tmp_path / "log") as server:
        measured, proofs = drift.live(server, bundle, CLEAN, shift, name, seed=0)
        assert drift.state(server)["rows"] > 600
    assert all(p.passed for p in proofs), [str(p) for p in proofs]
    assert measured["rows_until_alarm"] == 200
    assert measured["clean_windows"] == 2
    assert measured["gauge_while_drifting"] == 1.0


def test_live_without_a_change_raises_nothing(bundle: Bundle, tmp_path: Path) -> None:
    with Server(bundle.path, log=tmp_path / "log") as server:
        measured, proofs = drift.live(server, bundle, CLEAN, lambda x, rng: dict(x), "nothing", seed=0)
    assert measured["rows_until_alarm"] is None
    assert [p.passed for p in proofs] == [True, False, True]


def test_shifts_of_images() -> None:
    signature = Signature((Field("image", "image", (4, 4, 1)),), ())
    clean = {"image": np.full((10, 4, 4, 1), 100, np.uint8)}
    shifts = applicable(signature, clean, 1.0)
    assert set(shifts) == {"images inverted", "images at half brightness", "images with noise"}
    rng = np.random.default_rng(0)
    changed = {name: shift(clean, rng)["image"] for name, shift in shifts.items()}
    assert all(x.dtype == np.uint8 for x in changed.values())
    assert changed["images inverted"].max() == 155
    assert changed["images at half brightness"].max() == 50
    assert changed["images with noise"].std() > 30
    assert (clean["image"] == 100).all()


def test_shifts_of_columns() -> None:
    shifts = applicable(SIGNATURE, CLEAN, 2.0)
    rng = np.random.default_rng(0)
    moved = shifts["numbers moved by 2 standard deviations"](CLEAN, rng)
    assert moved["a"].mean() - CLEAN["a"].mean() == pytest.approx(2 * CLEAN["a"].std())
    assert (moved["n"] == np.round(moved["n"])).all()
    assert set(shifts["categories replaced by an unseen one"](CLEAN, rng)["c"]) == {"never seen before"}
    missing = shifts["half of the optional values missing"](CLEAN, rng)
    assert 0.4 < (missing["c"] == "").mean() < 0.7
    assert not np.isnan(missing["a"]).any()


def test_binomial_bound() -> None:
    assert drift._upper(200, 0.01) == 8
    assert drift._upper(20, 0.01) == 3
    assert drift._upper(1, 0.5) == 1


def test_the_bundle_tells_its_monitor(bundle: Bundle) -> None:
    assert drift.monitor_of(bundle).drift.window == json.loads(json.dumps(dict(bundle.monitor)))["drift"]["window"]

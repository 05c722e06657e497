import json
import logging
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from prometheus_client import CollectorRegistry, generate_latest

from groundup.bundle.signature import Field, Signature
from groundup.monitoring.live import Live
from groundup.monitoring.log import log_files
from groundup.monitoring.profile import Profile
from groundup.monitoring.settings import LogSettings, Monitor
from groundup.serving.logs import JsonLines

SIGNATURE = Signature((Field("x", "number"),), (Field("label", "category"),))


def traffic(n: int, seed: int, shift: float = 0.0) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    x = np.random.default_rng(seed).normal(size=n) + shift
    return {"x": x}, {"label": np.where(x > 0, "up", "down").astype(object)}


@pytest.fixture
def profile() -> dict:
    inputs, outputs = traffic(5000, 0)
    return {"inputs": Profile.of(SIGNATURE.inputs, inputs).to_dict(), "outputs": Profile.of(SIGNATURE.outputs, outputs).to_dict()}


def gauges(live: Live) -> dict[str, float]:
    registry = CollectorRegistry()
    registry.register(live)
    lines = generate_latest(registry).decode().splitlines()
    return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))}


def test_every_row_is_counted_logged_and_the_alarm_rises(profile: dict, tmp_path: Path) -> None:
    events: list[dict] = []
    live = Live(profile, SIGNATURE, Monitor(log=LogSettings(path=tmp_path)), version="7", alert=events.append)
    for seed in range(100):
        assert live.observe(*traffic(20, seed, 0.0 if seed < 50 else 2.0), ids=[f"{seed}-{i}" for i in range(20)])
    assert live.flush()
    seen = gauges(live)
    assert live.close()
    assert seen["groundup_drift_windows_total"] == 2
    assert seen["groundup_drift_alarm"] == 1
    assert seen['groundup_drift_columns{state="drifted"}'] == 2
    assert seen['groundup_feature_drift_score{feature="x",stat="psi"}'] > 1
    assert 0.5 < seen['groundup_feature_drift_score{feature="x",stat="ks"}'] < 1
    assert seen["groundup_monitor_rows_total"] == 2000
    (event,) = events
    assert event["event"] == "drift"
    assert set(event["columns"]) == {"x", "output:label"}
    json.dumps(event, allow_nan=False)
    state = live.state()
    json.dumps(state, allow_nan=False)
    assert (state["alarm"], state["rows"], state["dropped_batches"], state["errors"]) == (True, 2000, 0, 0)
    assert state["log"]["rows"] == 2000
    assert len(log_files(tmp_path)) == 1


def test_an_alarm_that_lasts_is_not_repeated_and_its_end_is_told(profile: dict) -> None:
    events: list[dict] = []
    live = Live(profile, SIGNATURE, alert=events.append)
    for shift in (0, 0, 2, 2, 2, 0, 0, 2):
        live.observe(*traffic(1000, 3, shift))
    live.close()
    assert [e["event"] for e in events] == ["drift", "drift over", "drift"]
    assert events[0]["drifted"] == 2


def test_ignore_measures_but_raises_nothing(profile: dict) -> None:
    events: list[dict] = []
    live = Live(profile, SIGNATURE, Monitor(on_drift="ignore"), alert=events.append)
    live.observe(*traffic(1000, 1, 2.0))
    live.close()
    assert not live.alarm
    assert gauges(live)["groundup_drift_alarm"] == 0
    assert gauges(live)['groundup_drift_columns{state="drifted"}'] == 2
    assert not events


def test_the_default_alert_is_one_json_line(profile: dict, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "groundup.monitoring"):
        live = Live(profile, SIGNATURE)
        live.observe(*traffic(1000, 1, 2.0))
        live.close()
    (record,) = caplog.records
    line = json.loads(JsonLines().format(record))
    assert (line["message"], line["event"], line["level"]) == ("drift", "drift", "warning")
    assert set(line["columns"]) == {"x", "output:label"}


def test_too_much_is_dropped_and_counted_not_waited_for(profile: dict) -> None:
    live = Live(profile, SIGNATURE, Monitor(queue_mb=0.1))
    gate = threading.Event()
    real = live.drift.update
    live.drift.update = lambda *a, **k: (gate.wait(10), real(*a, **k))[1]  # type: ignore[method-assign]
    taken = [live.observe(*traffic(100, 0)) for _ in range(300)]
    began = time.perf_counter()
    assert not live.observe(*traffic(100, 0))
    assert time.perf_counter() - began < 0.05
    gate.set()
    assert live.close()
    assert live.dropped_batches == 301 - sum(taken)
    assert live.rows == 100 * sum(taken)
    assert not live.observe(*traffic(1, 0))  # closed


def test_a_fault_in_watching_is_counted_and_watching_goes_on(profile: dict, caplog: pytest.LogCaptureFixture) -> None:
    live = Live(profile, SIGNATURE)
    real = live.drift.update
    live.drift.update = lambda *a, **k: (_ for _ in ()).throw(RuntimeError("boom"))  # type: ignore[method-assign]
    live.observe(*traffic(10, 0))
    live.flush()
    live.drift.update = real  # type: ignore[method-assign]
    live.observe(*traffic(10, 0))
    live.close()
    assert live.errors == 1
    assert live.last_error == "RuntimeError: boom"
    assert live.drift.scores()["open"]["rows"] == 10
    assert "serving goes on" in caplog.text


def test_a_broken_log_does_not_stop_drift(profile: dict, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    live = Live(profile, SIGNATURE, Monitor(log=LogSettings(path=tmp_path / "file" / "log", rotate_rows=1)))
    live.observe(*traffic(1000, 1, 2.0))
    live.flush()
    assert gauges(live)["groundup_prediction_log_degraded"] == 1
    live.close()
    assert live.alarm
    assert live.state()["log"]["lost_rows"] == 1000


def test_batches_of_different_columns_are_kept_apart(profile: dict) -> None:
    live = Live(profile, SIGNATURE)
    for i in range(40):
        inputs, outputs = traffic(5, i)
        live.observe(inputs, outputs if i % 2 else {})
    live.close()
    assert (live.rows, live.errors) == (200, 0)


def test_the_monitor_needs_nothing_of_the_training_side() -> None:
    code = "import sys, groundup.monitoring.live; print(sorted({m.split('.')[0] for m in sys.modules}))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    for heavy in ("torch", "pandas", "sklearn", "scipy", "pyarrow", "duckdb", "mlflow", "onnx", "matplotlib"):
        assert f"'{heavy}'" not in loaded, heavy


def test_settings_are_read_with_hyphens_and_underscores() -> None:
    a = Monitor.model_validate({"drift": {"threshold": 0.3, "false-alarm-rate": 0.05, "min-rows": 50}, "on-drift": "ignore", "queue-mb": 3})
    b = Monitor.model_validate({"drift": {"threshold": 0.3, "false_alarm_rate": 0.05, "min_rows": 50}, "on_drift": "ignore", "queue_mb": 3})
    assert a == b
    with pytest.raises(ValueError, match="must not exceed window"):
        Monitor.model_validate({"drift": {"window": 60, "min-rows": 100}})
    with pytest.raises(ValueError, match="Extra inputs"):
        Monitor.model_validate({"drift": {"treshold": 0.3}})

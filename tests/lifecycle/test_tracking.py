"""tracking: every number that was handed over is in MLflow, and nothing that MLflow does reaches the loop."""

from __future__ import annotations

import os
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlflow_store
import pytest

from groundup.errors import StorageError
from groundup.lifecycle.mlflow_store import active_store, connect, experiment_id, tracking_uri
from groundup.lifecycle.tracking import Tracker, end_killed

pytestmark = mlflow_store.QUIET


def until(happened: Callable[[], Any]) -> None:
    deadline = time.monotonic() + 30
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_run_is_recorded(home: Path) -> None:
    tracker = Tracker(home, experiment="digits").start("run 1", {"train.epochs": 3, "model.name": "cnn"})
    for step in range(2500):
        tracker.log_metrics({"loss": 1 / (step + 1)}, step)
    tracker.log_metrics({"accuracy": 0.9, "broken": float("nan")}, 3)
    run_id = tracker.finish()
    client = connect(home)
    run = client.get_run(run_id)
    assert (run.info.run_name, run.info.status) == ("run 1", "FINISHED")
    assert run.data.params == {"train.epochs": "3", "model.name": "cnn"}
    assert run.data.metrics["accuracy"] == 0.9
    history = client.get_metric_history(run_id, "loss")
    assert sorted((m.step, m.value) for m in history) == [(s, 1 / (s + 1)) for s in range(2500)]
    assert tracker.lost == 0


def test_the_store_is_a_write_ahead_log(home: Path) -> None:
    with sqlite3.connect(home / "mlflow.db") as db:
        assert db.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_telemetry_is_off() -> None:
    assert os.environ["MLFLOW_DISABLE_TELEMETRY"] == "true"
    from mlflow.telemetry.utils import is_telemetry_disabled

    assert is_telemetry_disabled()


def test_the_loop_never_waits(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import groundup.lifecycle.tracking as module

    def slow(home: Path) -> Any:
        time.sleep(1.0)
        return connect(home)

    monkeypatch.setattr(module, "connect", slow)
    began = time.perf_counter()
    tracker = Tracker(home, experiment="slow").start("run", {})
    for step in range(2000):
        tracker.log_metrics({"loss": 0.5}, step)
    assert time.perf_counter() - began < 0.9
    run_id = tracker.finish()
    assert len(connect(home).get_metric_history(run_id, "loss")) == 2000


def test_a_store_that_comes_back_loses_nothing(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mlflow import MlflowClient

    real, failures, notes = MlflowClient.log_batch, [OSError("store is away")] * 1, []

    def flaky(self: Any, *args: Any, **kwargs: Any) -> Any:
        if failures and kwargs.get("metrics"):
            raise failures.pop()
        return real(self, *args, **kwargs)

    monkeypatch.setattr(MlflowClient, "log_batch", flaky)
    tracker = Tracker(home, experiment="flaky", note=notes.append).start("run", {"a": 1})
    for step in range(10):
        tracker.log_metrics({"loss": step}, step)
    run_id = tracker.finish()
    assert [m.value for m in sorted(connect(home).get_metric_history(run_id, "loss"), key=lambda m: m.step)] == list(range(10))
    assert tracker.lost == 0
    assert notes == [f"tracking: {tracking_uri(home)} failed (OSError: store is away); trying again while the run goes on"]


def nobody() -> str:
    with socket.create_server(("127.0.0.1", 0)) as s:
        return f"http://127.0.0.1:{s.getsockname()[1]}"


def test_a_store_that_is_away_is_noted_and_stops_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", nobody())
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    notes: list[str] = []
    tracker = Tracker(tmp_path, experiment="x", note=notes.append).start("run", {})
    tracker.log_metrics({"loss": 1.0, "accuracy": 0.5}, 1)
    assert tracker.finish(timeout=20) is None
    assert tracker.lost == 2
    assert "2 numbers were not written" in notes[-1]


def test_what_the_store_refuses_is_counted_and_the_rest_goes_on(home: Path) -> None:
    notes: list[str] = []
    tracker = Tracker(home, experiment="x", note=notes.append).start("run", {})
    tracker.log_metrics({"no\x00name": 1.0}, 1)
    until(lambda: notes)
    tracker.log_metrics({"after": 2.0}, 2)
    run_id = tracker.finish()
    assert tracker.lost == 1
    assert "refused by the store" in notes[0]
    assert connect(home).get_run(run_id).data.metrics == {"after": 2.0}


def test_runs_of_processes_that_died_are_ended_by_the_next_one(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    alive, dead = (Tracker(home, experiment="x").start(name, {}) for name in ("alive", "dead"))
    until(lambda: alive.run_id and dead.run_id)
    assert dead._alive is not None
    os.close(dead._alive._fd)  # as the system does when a process dies
    client, notes = connect(home), []
    with monkeypatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", nobody())
        assert end_killed(home) == 0
    with monkeypatch.context() as patch:
        patch.setattr("groundup.lifecycle.tracking.connect", raising(StorageError("full")))
        assert end_killed(home, notes.append) == 0
    assert notes == [f"a killed run is still RUNNING in {tracking_uri(home)} (StorageError: full); a later run here will mark it"]
    assert len(list((home / "running").iterdir())) == 2
    assert end_killed(home) == 1
    assert [client.get_run(t.run_id).info.status for t in (alive, dead)] == ["RUNNING", "KILLED"]
    (home / "running" / "cut short").touch()  # killed before it had a run
    assert end_killed(home) == 0
    assert alive.finish() == alive.run_id
    assert client.get_run(alive.run_id).info.status == "FINISHED"
    assert not list((home / "running").iterdir())
    dead._alive._fd = os.open(os.devnull, os.O_RDONLY)
    dead.finish()


def raising(error: Exception) -> Any:
    def fail(*args: Any) -> None:
        raise error

    return fail


def test_the_environment_is_put_back(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with active_store(home) as mlflow:
        assert mlflow.get_tracking_uri() == tracking_uri(home)
    assert "MLFLOW_TRACKING_URI" not in os.environ
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://elsewhere")
    with pytest.raises(ValueError, match="inside"), active_store(home):
        raise ValueError("inside")
    assert os.environ["MLFLOW_TRACKING_URI"] == "http://elsewhere"


def test_an_experiment_is_made_once_and_taken_out_of_the_bin(home: Path) -> None:
    client = connect(home)
    first = experiment_id(client, "again", home)
    client.delete_experiment(first)
    assert experiment_id(client, "again", home) == first


@pytest.mark.slow
def test_two_processes_make_one_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    code = (
        "import sys; from pathlib import Path; from groundup.lifecycle.tracking import Tracker\n"
        "t = Tracker(Path(sys.argv[1]), experiment='both').start(sys.argv[2], {})\n"
        "[t.log_metrics({'loss': i}, i) for i in range(500)]; t.finish(timeout=120)"
    )
    both = [subprocess.Popen([sys.executable, "-c", code, str(tmp_path), str(i)]) for i in range(3)]
    assert [p.wait(180) for p in both] == [0, 0, 0]
    client = connect(tmp_path)
    runs = client.search_runs([experiment_id(client, "both", tmp_path)])
    assert sorted(r.info.run_name for r in runs) == ["0", "1", "2"]
    assert all(len(client.get_metric_history(r.info.run_id, "loss")) == 500 for r in runs)


@pytest.mark.slow
def test_a_real_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as s:
        port = s.getsockname()[1]
    store = ["--backend-store-uri", f"sqlite:///{tmp_path / 'server.db'}", "--artifacts-destination", str(tmp_path / "artifacts")]
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1", *store]
    with open(tmp_path / "log", "wb") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
    try:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{port}")
        deadline = time.monotonic() + 120
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                assert time.monotonic() < deadline, (tmp_path / "log").read_text()[-2000:]
                time.sleep(0.2)
        tracker = Tracker(tmp_path / "home", experiment="remote").start("run", {"a": 1})
        for step in range(300):
            tracker.log_metrics({"loss": step}, step)
        run_id = tracker.finish("FAILED", timeout=120)
        run = connect(tmp_path / "home").get_run(run_id)
        assert (run.info.status, run.data.metrics["loss"]) == ("FAILED", 299)
        assert tracker.lost == 0
        assert not (tmp_path / "home" / "mlflow.db").exists()
    finally:
        os.killpg(server.pid, 9)
        server.wait()

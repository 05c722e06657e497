"""tracking: what a run was given and what it measured, recorded in MLflow without ever holding the run up.

The loop hands its numbers to a queue; one thread imports MLflow (seconds), opens the store and writes in batches.
A store that fails is noted and tried again until the run ends; it stops nothing.  A process that is killed leaves its
MLflow run RUNNING; :func:`end_killed`, called by the next run in the same home, marks it KILLED.
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

from groundup.bundle.files import explaining_storage
from groundup.errors import MissingExtraError
from groundup.lifecycle.mlflow_store import away, connect, experiment_id, tracking_uri

Status = Literal["FINISHED", "FAILED", "KILLED"]
Number = tuple[str, float, int, int]
"""Name, value, milliseconds since 1970, step."""
MAX_BATCH = 1000  # MLflow's limit on metrics in one call
MAX_WAITING = 100_000  # steps' numbers kept in memory while a store does not answer; the oldest go first
PROCESS = "groundup.process"
"""Tag of an MLflow run: the name of its file in ``<home>/running``, locked by the process that writes the run as long as it lives."""


class Tracker:
    """One MLflow run, written by a thread of its own.

        tracker = Tracker(home, experiment="digits").start("run 12", {"train.epochs": 20})
        tracker.log_metrics({"train_loss": 0.3}, step=1)      # microseconds; never blocks, never raises
        tracker.finish("FINISHED")

    Args:
        home: groundup's folder; holds the embedded store.
        experiment: MLflow experiment, the recipe's name.
        note: told in one line about a store that fails.

    Attributes:
        run_id: MLflow's id of the run, once the thread has made it.
        lost: numbers that could not be written.
    """

    def __init__(self, home: Path, *, experiment: str, note: Callable[[str], Any] = lambda text: None) -> None:
        self.home, self.experiment, self.note = home, experiment, note
        self.run_id: str | None = None
        self.lost = 0
        self._waiting: deque[list[Number]] = deque()
        self._wake = threading.Event()
        self._ending = threading.Event()
        self._status: Status = "FINISHED"
        self._failure: Exception | None = None
        self._thread: threading.Thread | None = None
        self._alive: _Alive | None = None

    def start(self, run_name: str, params: Mapping[str, Any]) -> Tracker:
        """Begin the run; returns at once."""
        if self._thread is not None:
            raise ValueError("this tracker has started already; make another one for another run")
        self._thread = threading.Thread(target=self._write, args=(run_name, dict(params)), name="tracking", daemon=True)
        self._thread.start()
        return self

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        """Queue numbers of one step."""
        if self._ending.is_set():
            return
        now = int(time.time() * 1000)
        self._waiting.append([(name, float(value), now, int(step)) for name, value in metrics.items()])
        while len(self._waiting) > MAX_WAITING:
            self.lost += len(self._waiting.popleft())
        self._wake.set()

    def finish(self, status: Status = "FINISHED", timeout: float = 30.0) -> str | None:
        """Write what waits, end the run, and return its id (None if the store never answered within ``timeout`` seconds)."""
        if self._thread is None:
            return None
        self._status = status
        self._ending.set()
        self._wake.set()
        self._thread.join(timeout)
        if self._thread.is_alive():
            self._failure = self._failure or TimeoutError(f"no answer within {timeout:g} s")
        self.lost += sum(map(len, self._waiting))
        if self._failure is not None and (self.lost or self.run_id is None or self._thread.is_alive()):
            self.note(f"tracking: {self.lost} numbers were not written to {tracking_uri(self.home)}: {_line(self._failure)}")
        return self.run_id

    def _write(self, run_name: str, params: dict[str, Any]) -> None:
        client, delay = None, 1.0
        while True:
            ending = self._ending.is_set()
            try:
                if client is None:
                    client = self._begin(run_name, params)
                self._flush(client)
                if ending:
                    client.set_terminated(self.run_id, self._status)
                    if self._alive:
                        self._alive.over()
                    return
                delay = 1.0
                self._wake.wait()
                self._wake.clear()
                self._ending.wait(0.2)  # let a batch gather
            except Exception as e:  # noqa: BLE001 - whatever a store throws, training goes on; it is noted, kept and reported
                if self._failure is None:
                    self.note(f"tracking: {tracking_uri(self.home)} failed ({_line(e)}); trying again while the run goes on")
                self._failure = e
                if ending or isinstance(e, MissingExtraError):
                    return
                self._ending.wait(delay)
                delay = min(delay * 2, 30.0)

    def _begin(self, run_name: str, params: dict[str, Any]) -> Any:
        client = connect(self.home)
        from mlflow.entities import Param

        if self.run_id is None:
            self._alive = self._alive or _Alive(self.home, self.experiment)
            tags = {PROCESS: self._alive.path.name}
            run = client.create_run(experiment_id(client, self.experiment, self.home), run_name=run_name, tags=tags)
            self.run_id = str(run.info.run_id)
        items = [Param(name, str(value)[:6000]) for name, value in params.items()]
        for start in range(0, len(items), 100):  # MLflow's limit on parameters in one call
            client.log_batch(self.run_id, params=items[start : start + 100])
        return client

    def _flush(self, client: Any) -> None:
        """Write all that waits; what could not be written is back in the queue, in order, when this raises."""
        from mlflow.entities import Metric

        while self._waiting:
            taken = [self._waiting.popleft()]
            while self._waiting and sum(map(len, taken)) + len(self._waiting[0]) <= MAX_BATCH:
                taken.append(self._waiting.popleft())
            entries = [Metric(*number) for numbers in taken for number in numbers]
            try:
                for start in range(0, len(entries), MAX_BATCH):
                    client.log_batch(self.run_id, metrics=entries[start : start + MAX_BATCH])
            except Exception as e:
                if getattr(e, "error_code", "") == "INVALID_PARAMETER_VALUE":  # trying again cannot help
                    self.lost += len(entries)
                    self.note(f"tracking: refused by the store: {_line(e)}")
                    continue
                self._waiting.extendleft(reversed(taken))
                raise


def _line(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0][:300]


# ── runs of killed processes ────────────────────────────────────────────────────────────────────────


class _Alive:
    """A locked file that says into which store and experiment this process writes a run; the system unlocks it when the process dies."""

    def __init__(self, home: Path, experiment: str) -> None:
        folder = home / "running"
        with explaining_storage(folder):
            folder.mkdir(parents=True, exist_ok=True)
            self.path = folder / secrets.token_hex(8)
            self._fd = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
            fcntl.flock(self._fd, fcntl.LOCK_EX)
            os.write(self._fd, json.dumps([tracking_uri(home), experiment]).encode())

    def over(self) -> None:
        """The run has ended in the store as well."""
        self.path.unlink(missing_ok=True)
        os.close(self._fd)


def end_killed(home: Path, note: Callable[[str], Any] = lambda text: None) -> int:
    """Mark KILLED the MLflow runs that processes of this home left RUNNING when they died.  Gives how many.

    MLflow is not even imported where no process died.  Runs in a store that is away, or is not the present one, wait for a later call.
    """
    ended = 0
    for path in sorted((home / "running").glob("*")):
        with open(path, "rb") as f:
            try:
                fcntl.flock(f, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:  # its process is alive
                continue
            written = f.read()
            store, experiment = json.loads(written) if written else ("", "")  # nothing written: killed before it had a run
            if store == tracking_uri(home):
                try:
                    ended += _end(home, experiment, path.name)
                except away() as e:
                    note(f"a killed run is still RUNNING in {store} ({_line(e)}); a later run here will mark it")
                    continue
            elif store:
                continue
            path.unlink(missing_ok=True)
    return ended


def _end(home: Path, experiment: str, process: str) -> int:
    """End what a dead process left RUNNING."""
    client = connect(home)
    found = client.get_experiment_by_name(experiment)
    if found is None:  # killed before it was made
        return 0
    runs = client.search_runs([found.experiment_id], filter_string=f"tags.`{PROCESS}` = '{process}'")
    left = [run for run in runs if run.info.status == "RUNNING"]
    for run in left:
        client.set_terminated(run.info.run_id, "KILLED")
    return len(left)

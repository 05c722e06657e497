"""tracking: what a run was given and what it measured, recorded in MLflow without ever holding the run up.

The loop hands its numbers to a queue; one thread imports MLflow (seconds), opens the store and writes in batches.
Without ``MLFLOW_TRACKING_URI`` the store is embedded: ``<home>/mlflow.db`` (SQLite, write-ahead log) with artifacts in
``<home>/mlartifacts``; with it, the server it names.  A store that fails is noted and tried again until the run ends;
it stops nothing unless ``required``.  MLflow's own usage reporting is switched off.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import secrets
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Literal

from groundup.errors import GroundupError, MissingExtraError, StorageError

Status = Literal["FINISHED", "FAILED", "KILLED"]
MAX_BATCH = 1000  # MLflow's limit on metrics in one call
MAX_WAITING = 100_000  # numbers kept in memory while a store does not answer; the oldest go first


class TrackingError(GroundupError):
    """The tracking store failed and tracking was required."""


def import_mlflow() -> Any:
    """MLflow, without its usage reporting and its notes about making tables.

    Raises:
        MissingExtraError: MLflow is not installed.
    """
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("DO_NOT_TRACK", "true")
    # A server that is down answers after 7 tries and minutes by default; the queue tries again anyway.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
    try:
        import mlflow
    except ImportError as e:
        raise MissingExtraError("mlflow", "train", "recording runs") from e
    for name in ("mlflow", "alembic"):
        if logging.getLogger(name).getEffectiveLevel() < logging.WARNING:
            logging.getLogger(name).setLevel(logging.WARNING)
    return mlflow


def tracking_uri(home: Path) -> str:
    """``MLFLOW_TRACKING_URI``, or the embedded store below ``home``."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{home.resolve() / 'mlflow.db'}"


def registry_uri(home: Path) -> str:
    """``MLFLOW_REGISTRY_URI``, or where runs are tracked."""
    return os.environ.get("MLFLOW_REGISTRY_URI") or tracking_uri(home)


def connect(home: Path) -> Any:
    """An ``MlflowClient`` on the store of ``home``, which is made if it is not there.

    Making the tables is serialised by a lock, since two processes that make them at once break MLflow's migrations.
    """
    mlflow = import_mlflow()
    uri = tracking_uri(home)
    if not uri.startswith(f"sqlite:///{home.resolve()}"):
        return mlflow.MlflowClient(tracking_uri=uri, registry_uri=registry_uri(home))
    try:
        home.mkdir(parents=True, exist_ok=True)
        with open(home / ".mlflow.lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not (home / "mlflow.db").exists():
                _make_tables(mlflow, home)
            with closing(sqlite3.connect(home / "mlflow.db", timeout=30)) as database:
                database.execute("PRAGMA journal_mode=WAL")
            client = mlflow.MlflowClient(tracking_uri=uri, registry_uri=registry_uri(home))
            client.search_experiments(max_results=1)
            return client
    except (OSError, sqlite3.Error) as e:
        raise StorageError(f"cannot open {home / 'mlflow.db'}: {e}; free the disk or choose another folder with GROUNDUP_HOME") from e


def _make_tables(mlflow: Any, home: Path) -> None:
    """Make ``mlflow.db`` under another name first: MLflow never recovers from tables that a kill or a full disk left half made."""
    _sweep(home)
    unfinished = home / f".mlflow.db.{secrets.token_hex(4)}.making"  # MLflow keeps what it opened under this name
    uri = f"sqlite:///{unfinished.resolve()}"
    try:
        mlflow.MlflowClient(tracking_uri=uri, registry_uri=uri).search_experiments(max_results=1)
        os.replace(unfinished, home / "mlflow.db")
    finally:
        _sweep(home)


def _sweep(home: Path) -> None:
    for leftover in home.glob(".mlflow.db.*.making*"):
        leftover.unlink(missing_ok=True)


def forget_unfinished(home: Path) -> None:
    """Remove a database that a killed run left half made, unless another process is making one."""
    if (home / ".mlflow.lock").exists():
        with open(home / ".mlflow.lock") as lock, contextlib.suppress(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _sweep(home)


def experiment_id(client: Any, name: str, home: Path) -> str:
    """Id of the experiment ``name``, made (or taken out of the bin) where needed."""
    from mlflow.exceptions import MlflowException

    found = client.get_experiment_by_name(name)
    if found is None:
        embedded = tracking_uri(home).startswith("sqlite:")
        place = (home.resolve() / "mlartifacts" / name).as_uri() if embedded else None
        try:
            return str(client.create_experiment(name, artifact_location=place))
        except MlflowException:
            found = client.get_experiment_by_name(name)  # another process was quicker
            if found is None:
                raise
    if found.lifecycle_stage == "deleted":
        client.restore_experiment(found.experiment_id)
    return str(found.experiment_id)


@contextmanager
def active_store(home: Path) -> Iterator[Any]:
    """MLflow's module functions (``log_model``, ``load_model``) on the store of ``home``; put back afterwards.

    Through the environment, which they read, because ``mlflow.set_tracking_uri`` writes it and cannot be taken back.
    """
    mlflow = import_mlflow()
    before = os.environ.get("MLFLOW_TRACKING_URI")
    os.environ["MLFLOW_TRACKING_URI"] = tracking_uri(home)
    try:
        yield mlflow
    finally:
        if before is None:
            del os.environ["MLFLOW_TRACKING_URI"]
        else:
            os.environ["MLFLOW_TRACKING_URI"] = before


class Tracker:
    """One MLflow run, written by a thread of its own.

        tracker = Tracker(home, experiment="digits").start("run 12", {"train.epochs": 20})
        tracker.log_metrics({"train_loss": 0.3}, step=1)      # microseconds; never blocks, never raises
        tracker.finish("FINISHED")

    Args:
        home: groundup's folder; holds the embedded store.
        experiment: MLflow experiment, the recipe's name.
        note: told in one line about a store that fails.
        required: a store that failed raises :class:`TrackingError` from :meth:`finish`.

    Attributes:
        run_id: MLflow's id of the run, once the thread has made it.
        lost: numbers that could not be written.
    """

    def __init__(self, home: Path, *, experiment: str, note: Callable[[str], Any] = lambda text: None, required: bool = False) -> None:
        self.home, self.experiment, self.note, self.required = home, experiment, note, required
        self.run_id: str | None = None
        self.lost = 0
        self._waiting: deque[tuple[str, Any]] = deque()
        self._wake = threading.Event()
        self._ending = threading.Event()
        self._status: Status = "FINISHED"
        self._failure: Exception | None = None
        self._thread: threading.Thread | None = None

    def start(self, run_name: str, params: Mapping[str, Any], tags: Mapping[str, str] | None = None) -> Tracker:
        """Begin the run; returns at once."""
        if self._thread is not None:
            raise ValueError("this tracker has started already; make another one for another run")
        self._thread = threading.Thread(target=self._write, args=(run_name, dict(params), dict(tags or {})), name="tracking", daemon=True)
        self._thread.start()
        return self

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        """Queue numbers of one step."""
        now = int(time.time() * 1000)
        self._put("metrics", [(name, float(value), now, int(step)) for name, value in metrics.items()])

    def log_artifacts(self, path: Path, name: str | None = None) -> None:
        """Queue a file, or a folder's files, to be stored under ``name``; it must stay until :meth:`finish`."""
        self._put("artifacts", (Path(path), name))

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Queue tags of the run."""
        self._put("tags", dict(tags))

    def finish(self, status: Status = "FINISHED", timeout: float = 30.0) -> str | None:
        """Write what waits, end the run, and return its id (None if the store never answered within ``timeout`` seconds).

        Raises:
            TrackingError: something could not be written and tracking is ``required``.
        """
        if self._thread is None:
            return None
        self._status = status
        self._ending.set()
        self._wake.set()
        self._thread.join(timeout)
        if self._thread.is_alive():
            self._failure = self._failure or TimeoutError(f"no answer within {timeout:g} s")
        self.lost += sum(_size(item) for item in self._waiting)
        if self._failure is not None and (self.lost or self.run_id is None or self._thread.is_alive()):
            text = f"tracking: {self.lost} numbers were not written to {tracking_uri(self.home)}: {_line(self._failure)}"
            if self.required:
                raise TrackingError(f"{text}; start the store and run again, or do not require tracking") from self._failure
            self.note(text)
        return self.run_id

    def _put(self, kind: str, value: Any) -> None:
        if self._ending.is_set():
            return
        self._waiting.append((kind, value))
        while len(self._waiting) > MAX_WAITING:
            self.lost += _size(self._waiting.popleft())
        self._wake.set()

    def _write(self, run_name: str, params: dict[str, Any], tags: dict[str, str]) -> None:
        client, delay = None, 1.0
        while True:
            ending = self._ending.is_set()
            try:
                if client is None:
                    client = self._begin(run_name, params, tags)
                self._flush(client)
                if ending:
                    client.set_terminated(self.run_id, self._status)
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

    def _begin(self, run_name: str, params: dict[str, Any], tags: dict[str, str]) -> Any:
        client = connect(self.home)
        from mlflow.entities import Param

        if self.run_id is None:
            run = client.create_run(experiment_id(client, self.experiment, self.home), run_name=run_name, tags=tags)
            self.run_id = str(run.info.run_id)
        items = [Param(name, str(value)[:6000]) for name, value in params.items()]
        for start in range(0, len(items), 100):  # MLflow's limit on parameters in one call
            client.log_batch(self.run_id, params=items[start : start + 100])
        return client

    def _flush(self, client: Any) -> None:
        """Write all that waits; what could not be written is back in the queue, in order, when this raises."""
        from mlflow.entities import Metric, RunTag

        while self._waiting:
            taken: list[tuple[str, Any]] = [self._waiting.popleft()]
            try:
                kind, value = taken[0]
                if kind == "metrics":
                    while self._waiting and self._waiting[0][0] == kind and sum(map(_size, taken)) + _size(self._waiting[0]) <= MAX_BATCH:
                        taken.append(self._waiting.popleft())
                    entries = [Metric(*entry) for _, entries in taken for entry in entries]
                    for start in range(0, len(entries), MAX_BATCH):
                        client.log_batch(self.run_id, metrics=entries[start : start + MAX_BATCH])
                elif kind == "tags":
                    client.log_batch(self.run_id, tags=[RunTag(name, text) for name, text in value.items()])
                else:
                    path, name = value
                    (client.log_artifacts if path.is_dir() else client.log_artifact)(self.run_id, str(path), name)
            except Exception as e:
                if getattr(e, "error_code", "") == "INVALID_PARAMETER_VALUE":  # trying again cannot help
                    self.lost += sum(map(_size, taken))
                    self.note(f"tracking: refused by the store: {_line(e)}")
                    continue
                self._waiting.extendleft(reversed(taken))
                raise


def _size(item: tuple[str, Any]) -> int:
    return len(item[1]) if item[0] == "metrics" else 1


def _line(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0][:300]

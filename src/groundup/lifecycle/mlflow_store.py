"""The MLflow store of a home: where it is, made whole or not at all, and opened without MLflow's own noise.

Without ``MLFLOW_TRACKING_URI`` the store is embedded: ``<home>/mlflow.db`` (SQLite, write-ahead log) with artifacts in
``<home>/mlartifacts``; with it, the server it names.  MLflow's own usage reporting is switched off.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import secrets
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from groundup.errors import MissingExtraError, StorageError


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
        raise StorageError(f"cannot open {home / 'mlflow.db'}: {e}; free the disk or choose another folder with --home") from e


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


def away() -> tuple[type[Exception], ...]:
    """What a store that is down, full, foreign or not installed raises."""
    try:
        from mlflow.exceptions import MlflowException
        from requests import RequestException
    except ImportError:
        return (MissingExtraError, StorageError)
    return (MissingExtraError, StorageError, MlflowException, RequestException)

"""An empty MLflow store, made once: importing MLflow and making its tables takes seconds, copying a file does not."""

from __future__ import annotations

import sqlite3
import warnings
from pathlib import Path

import pytest

QUIET = pytest.mark.filterwarnings(
    "ignore:::mlflow", "ignore:::sqlalchemy", "ignore:::alembic", "ignore:::pydantic", "ignore::ResourceWarning"
)


def make(home: Path) -> Path:
    """``home`` with an empty store in it."""
    with warnings.catch_warnings(), pytest.MonkeyPatch.context() as patch:
        warnings.simplefilter("ignore")  # MLflow and what it imports warn about themselves
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        from groundup.lifecycle.mlflow_store import connect

        connect(home)
    with sqlite3.connect(home / "mlflow.db") as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return home

"""An empty MLflow store, made once and copied for each test."""

from __future__ import annotations

import shutil
from pathlib import Path

import mlflow_store
import pytest


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return mlflow_store.make(tmp_path_factory.mktemp("store"))


@pytest.fixture
def home(empty_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home with an empty store in it, which is the one that is used."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    shutil.copytree(empty_store, tmp_path / "home")
    return tmp_path / "home"

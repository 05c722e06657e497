"""A preparation in a folder of its own, with a cache of its own."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from groundup.lifecycle.prepare import Data, Prepared, prepare
from groundup.lifecycle.stage import Context


@pytest.fixture(scope="session", autouse=True)
def _home(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GROUNDUP_HOME", str(tmp_path_factory.mktemp("home")))
        yield


@pytest.fixture
def prepared(tmp_path: Path) -> Callable[..., Prepared]:
    """prepared(root=..., task=..., seed=..., clean=..., **data) -> Prepared, saved and loaded again."""
    numbers = itertools.count()

    def make(task: str = "tabular-classification", *, root: Path | None = None, seed: int = 0, clean: Any = None, **data: Any) -> Prepared:
        folder = tmp_path / f"run{next(numbers)}"
        out, work = folder / "out", folder / "work"
        out.mkdir(parents=True)
        work.mkdir()
        context = Context(root=root or tmp_path, work=work, seed=seed)
        prepare(Data(**data), task=task, out=out, context=context, clean=clean).save(out)  # type: ignore[arg-type]
        return Prepared.load(out)

    return make

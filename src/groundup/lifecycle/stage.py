"""What every stage is: a function from typed inputs to a typed output, written into a directory of its own.

    def train(section: Train, prepared: Prepared, *, out: Path, context: Context) -> Trained

``out`` exists, is empty, and becomes the cached directory when the function returns; whatever it raises, ``out`` is
thrown away.  ``context.work`` outlives an interruption: a stage that can go on where it stood keeps its state there.
The output object is saved as ``output.json`` by the caller and loaded again from it: it holds facts, and paths inside
its directory are asked for by method.  No stage imports another stage's function; types may be imported.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, PrivateAttr

from groundup.bundle.files import write_json
from groundup.errors import Interrupted
from groundup.progress import Progress, Silent


class Output(BaseModel):
    """What a stage leaves.  ``path`` is its directory."""

    model_config = ConfigDict(extra="forbid")
    _path: Path | None = PrivateAttr(default=None)

    @property
    def path(self) -> Path:
        if self._path is None:
            raise ValueError(f"{type(self).__name__} has no directory yet; call at(path) first")
        return self._path

    def at(self, path: Path) -> Self:
        """The same output, living in the directory ``path``."""
        self._path = Path(path)
        return self

    def save(self, path: Path) -> Self:
        """Write ``output.json`` into ``path`` and live there."""
        write_json(path / "output.json", self.model_dump(mode="json"))
        return self.at(path)

    @classmethod
    def load(cls, path: Path) -> Self:
        """Inverse of :meth:`save`."""
        return cls.model_validate_json((path / "output.json").read_bytes()).at(path)

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        from groundup.reporting.fragments import output_summary

        return output_summary(type(self).__name__, self.model_dump(mode="json"))


@dataclass(frozen=True)
class Context:
    """What a stage may use besides its inputs.

    Attributes:
        root: the recipe's folder; relative paths in the recipe start here, user modules are imported from here.
        work: a folder that outlives an interruption of this stage and is removed once it has succeeded.
        progress: where to say what is going on.
        seed: the recipe's seed; all randomness of the stage comes from it.
        stopping: set when SIGINT or SIGTERM has arrived; long loops look at it through :meth:`check`.
        log_metrics: called with ({"name": value}, step) for MLflow; does nothing by default.
    """

    root: Path
    work: Path
    progress: Progress = field(default_factory=Silent)
    seed: int = 0
    stopping: threading.Event = field(default_factory=threading.Event)
    log_metrics: Callable[[dict[str, float], int], Any] = lambda metrics, step: None

    def check(self) -> None:
        """Raise :class:`Interrupted` if the run was asked to stop.  Save state first."""
        if self.stopping.is_set():
            raise Interrupted("stopped as asked; run the same command again to go on from here")

"""What every preparation is told, and where it says what it found."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from groundup.data.settings import Data
from groundup.errors import DataError
from groundup.progress import Progress, Silent


@dataclass
class Job:
    """One preparation.

    Attributes:
        root: relative paths start here.
        work: for files that are needed only meanwhile.
        out: where the prepared files go; exists and is empty.
        check: raises when the run was asked to stop.
        notes: decisions that people should know of.
    """

    section: Data
    task: str
    root: Path
    work: Path
    out: Path
    seed: int
    progress: Progress | Silent
    check: Callable[[], None]
    notes: list[str] = field(default_factory=list)

    @property
    def classification(self) -> bool:
        return self.task.endswith("classification")

    @property
    def schema_path(self) -> Path:
        """Where the schema file stands."""
        return schema_path(self.section, self.root)

    def note(self, text: str) -> None:
        self.notes.append(text)
        self.progress.note(text)

    def complain(self, complaints: list[str]) -> None:
        """Stop or note, as ``data.leaks`` says."""
        if complaints and self.section.leaks == "error":
            raise DataError("; ".join(complaints) + "; or accept it with data.leaks: warn")
        for complaint in complaints:
            self.note(f"leak: {complaint}")


def schema_path(section: Data, root: Path) -> Path:
    """Where the schema file stands."""
    return root / (section.schema_ or "schema.yaml")

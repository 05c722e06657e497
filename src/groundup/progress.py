"""How long work tells that it is alive: a task has a total, a rate, an ETA and a few live numbers.

Stages write to a :class:`Progress`; who watches decides how it looks.  :class:`Silent` shows nothing (the
default from Python), ``groundup.cli`` draws live bars on a terminal and plain lines into a file.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol


class Task:
    """One piece of long work.  ``done`` of ``total`` units; ``numbers`` are shown beside it.

    Attributes:
        total: number of units, or None when nobody knows.
        unit: what is counted, in the plural: "rows", "batches".
    """

    def __init__(self, name: str, total: float | None, unit: str) -> None:
        self.name, self.total, self.unit = name, total, unit
        self.done = 0.0
        self.numbers: dict[str, float | str] = {}
        self.started = time.monotonic()

    def advance(self, amount: float = 1, **numbers: float | str) -> None:
        """Say that ``amount`` more units are done; ``numbers`` (loss=0.1) replace those shown before."""
        self.done += amount
        self.numbers.update(numbers)
        self.changed()

    def changed(self) -> None:
        """Called after each change; a viewer overrides it."""

    @property
    def rate(self) -> float:
        """Units a second since the start."""
        return self.done / max(time.monotonic() - self.started, 1e-9)

    @property
    def eta(self) -> float | None:
        """Seconds left at the present rate, or None when that cannot be known yet."""
        if self.total is None or self.done <= 0:
            return None
        return max(self.total - self.done, 0.0) / self.rate


class Progress(Protocol):
    """What a stage writes its progress to."""

    def task(self, name: str, total: float | None = None, unit: str = "") -> AbstractContextManager[Task]:
        """Open a task; use it as ``with progress.task("epochs", 20) as task: task.advance()``."""
        ...

    def note(self, text: str) -> None:
        """One line that stays: a decision, a warning, a count."""
        ...

    def stage_started(self, name: str) -> None:
        """A stage of the lifecycle begins."""
        ...

    def stage_finished(self, name: str, seconds: float, cached: bool) -> None:
        """A stage is done, or came from its cache."""
        ...


class Silent:
    """Shows nothing."""

    @contextmanager
    def task(self, name: str, total: float | None = None, unit: str = "") -> Iterator[Task]:
        yield Task(name, total, unit)

    def note(self, text: str) -> None:
        pass

    def stage_started(self, name: str) -> None:
        pass

    def stage_finished(self, name: str, seconds: float, cached: bool) -> None:
        pass

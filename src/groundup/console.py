"""What a run looks like on a terminal: a live bar per task, a line per stage; plain lines where there is no terminal."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.padding import Padding
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bars

from groundup.progress import Task

_EVERY = 10.0  # seconds between lines about the same task where there is no terminal

out = Console(highlight=False)
err = Console(stderr=True, highlight=False)


def number(value: float | str) -> str:
    """A live number in few characters."""
    return value if isinstance(value, str) else f"{value:.4g}"


def seconds(value: float) -> str:
    """A duration as people say it: 0.42 s, 12.3 s, 2 min 5 s."""
    if value < 1:
        return f"{value:.2f} s"
    if value < 60:
        return f"{value:.1f} s"
    return f"{int(value // 60)} min {int(value % 60)} s"


def size(value: float) -> str:
    """Bytes with a decimal unit."""
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000 or unit == "GB":
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return ""


def _describe(task: Task) -> str:
    rate = f"{task.rate:,.0f} {task.unit}/s" if task.unit and task.done and task.rate >= 1 else ""
    return "  ".join([rate, *(f"{k} {number(v)}" for k, v in task.numbers.items())]).strip()


class _BarTask(Task):
    """A task drawn as a live bar; redrawn at most 10 times a second by rich."""

    def __init__(self, name: str, total: float | None, unit: str, bars: Bars) -> None:
        super().__init__(name, total, unit)
        self._bars = bars
        self._id = bars.add_task(name, total=total, numbers="")
        self._next = 0.0

    def changed(self) -> None:
        now = time.monotonic()
        if now >= self._next or (self.total is not None and self.done >= self.total):
            self._next = now + 0.1
            self._bars.update(self._id, completed=self.done, total=self.total, numbers=_describe(self))

    def close(self) -> None:
        self._bars.remove_task(self._id)


class _LineTask(Task):
    """A task told in plain lines, one every ten seconds."""

    _next: float

    def __init__(self, name: str, total: float | None, unit: str) -> None:
        super().__init__(name, total, unit)
        self._next = time.monotonic() + _EVERY

    def changed(self) -> None:
        now = time.monotonic()
        if now >= self._next:
            self._next = now + _EVERY
            of = f" of {self.total:g}" if self.total else ""
            eta = f", {seconds(self.eta)} left" if self.eta else ""
            err.print(f"    {self.name}: {self.done:g}{of} {self.unit}{eta}  {_describe(self)}", markup=False)


class Watch:
    """The :class:`groundup.progress.Progress` of the command line.  Use it as a context manager around a run."""

    def __init__(self) -> None:
        self.live = err.is_terminal
        self._bars = Bars(
            TextColumn("    {task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[numbers]}", style="dim"),
            console=err,
            transient=True,
        )

    def __enter__(self) -> Watch:
        if self.live:
            self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.live:
            self._bars.stop()

    @contextmanager
    def task(self, name: str, total: float | None = None, unit: str = "") -> Iterator[Task]:
        if self.live:
            bar = _BarTask(name, total, unit, self._bars)
            try:
                yield bar
            finally:
                bar.close()
        else:
            yield _LineTask(name, total, unit)

    def note(self, text: str) -> None:
        err.print(Padding(_plain(text), (0, 0, 0, 4)), style="dim")

    def stage_started(self, name: str) -> None:
        err.print(f"● {name}", style="bold", markup=False)

    def stage_finished(self, name: str, seconds_taken: float, cached: bool) -> None:
        err.print(f"  ✓ {'from cache' if cached else seconds(seconds_taken)}", style="green", markup=False)


def fail(message: str) -> None:
    """Print an error's message, without markup surprises from user data."""
    err.print("error: ", style="bold red", end="")
    err.print(message, markup=False, soft_wrap=True)


def table(rows: Iterable[tuple[Any, ...]], header: tuple[str, ...], title: str | None = None) -> None:
    """Print a plain table; numbers are right-aligned by the caller's formatting."""
    from rich.table import Table

    grid = Table(title=title, title_justify="left", box=None, header_style="bold", padding=(0, 2, 0, 0))
    for i, name in enumerate(header):
        grid.add_column(name, no_wrap=i == 0, overflow="fold")  # what a person would type stands whole
    for row in rows:
        grid.add_row(*(cell if not isinstance(cell, str) else _plain(cell) for cell in row))
    out.print(grid)


def _plain(text: str) -> Any:
    from rich.text import Text

    return Text(text)


def interactive() -> bool:
    """Whether a person is at the other end of standard output."""
    return sys.stdout.isatty()

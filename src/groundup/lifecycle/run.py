"""run: wires the stages.  What a stage depends on is what its key hashes; what is cached is not made again.

prepare ─► tune ─► train ─► evaluate ─► compress ─► package ─► rehearse ─► register ─► report
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from groundup.bundle.files import explaining_storage, make_folder, write_json
from groundup.errors import Interrupted, RecipeError, explaining_imports
from groundup.lifecycle import cache as caching
from groundup.lifecycle.record import Run, StageRun, home_of
from groundup.lifecycle.stage import Context
from groundup.lifecycle.wires import Wires, output_type, stages_of
from groundup.progress import Progress, Silent
from groundup.recipe import Recipe

if TYPE_CHECKING:
    from groundup.lifecycle.tracking import Tracker


@dataclass(frozen=True)
class Planned:
    """One line of a plan.

    Attributes:
        cached: True, False, or None where it depends on a stage that has yet to run.
        why: why it is not cached.
        last_seconds: how long the stage took when it was last made here.
    """

    name: str
    cached: bool | None
    why: str
    last_seconds: float | None


def run(
    recipe: Recipe | str | os.PathLike[str],
    *,
    home: Path | None = None,
    until: str = "report",
    start: str | None = None,
    progress: Progress | None = None,
    handle_signals: bool = False,
) -> Run:
    """Carry a recipe from data to report, taking from the cache what is there.

    Args:
        recipe: a :class:`Recipe`, or the path of one.
        until: the last stage to run.
        start: make this stage and all after it again, cached or not.
        handle_signals: let SIGINT and SIGTERM save and stop (only in the main thread; the command line sets it).

    Raises:
        GroundupError: one of the tree in :mod:`groundup.errors`; what was finished stays cached.
    """
    if not isinstance(recipe, Recipe):
        recipe = Recipe.load(recipe)
    runner = _Runner(recipe, home_of(recipe, home), progress or Silent())
    with _signals(runner.stopping) if handle_signals else contextlib.nullcontext(), explaining_imports("running a recipe"):
        return runner.run(until=until, start=start)


def plan(recipe: Recipe | str | os.PathLike[str], *, home: Path | None = None) -> list[Planned]:
    """What :func:`run` would do: each stage, whether it is cached, and why not.  Nothing is run or written."""
    if not isinstance(recipe, Recipe):
        recipe = Recipe.load(recipe)
    runner = _Runner(recipe, home_of(recipe, home), Silent())
    lines: list[Planned] = []
    known = True
    for name in stages_of(recipe):
        seconds = runner.last_seconds(name)
        if not known:
            lines.append(Planned(name, None, "needs a stage above", seconds))
            continue
        inputs = runner.wires.inputs(name)
        key = caching.key_of(inputs)
        if runner.cache.has(name, key):
            runner.adopt(name, key)
            lines.append(Planned(name, True, "", seconds))
        else:
            known = False
            lines.append(Planned(name, False, runner.cache.why_not(name, inputs), seconds))
    return lines


class _Runner:
    """One run: stage after stage, from the cache or made, recorded and published."""

    def __init__(self, recipe: Recipe, home: Path, progress: Progress) -> None:
        self.recipe, self.home, self.progress = recipe, home, progress
        self.cache = caching.Cache(home)
        self.stopping = threading.Event()
        self.wires = Wires(recipe, home)
        self.tracker: Tracker | None = None
        now = datetime.now(UTC)
        self.record = Run(f"{now:%Y%m%d-%H%M%S}-{secrets.token_hex(2)}", recipe, home, started=now.isoformat(timespec="seconds"))

    def run(self, *, until: str, start: str | None) -> Run:
        names = stages_of(self.recipe)
        for asked, option in ((until, "--to"), (start, "--from")):
            if asked is not None and asked not in names:
                raise RecipeError(f"{option} {asked}: this recipe has the stages {', '.join(names)}")
        began = time.monotonic()
        again = False
        try:
            for name in names:
                again = again or name == start
                self._stage(name, again)
                self._gate(name)
                if name == until:
                    break
            self._finish_tracking("FINISHED")
            self.record.seconds = time.monotonic() - began
            self.record.publish()
            self.record.write("finished")
            self._tidy()
        except BaseException as e:
            stopped = isinstance(e, Interrupted | KeyboardInterrupt)
            self._finish_tracking("KILLED" if stopped else "FAILED", 1.0 if isinstance(e, KeyboardInterrupt) else 30.0)
            self.record.seconds = time.monotonic() - began
            if self.record.stages and not isinstance(e, OSError):
                self.record.write("interrupted" if stopped else "failed", str(e))
            raise
        return self.record

    def _check(self) -> None:
        if self.stopping.is_set():
            raise Interrupted("stopped as asked; run the same command again to go on from here")

    def _stage(self, name: str, again: bool) -> None:
        self._check()
        began = time.monotonic()
        self.progress.stage_started(name)
        inputs = self.wires.inputs(name)
        key = caching.key_of(inputs)
        cached = not again and self.cache.has(name, key)
        if not cached:
            waiting = lambda pid: self.progress.note(f"{name}: process {pid} is making this; waiting for it")  # noqa: E731
            with self.cache.lock(name, key, waiting, self._check):
                cached = not again and self.cache.has(name, key)
                if not cached:
                    key = self._make(name, key)
        self.adopt(name, key)
        seconds = time.monotonic() - began
        self.record.stages[name] = StageRun(name, key, self.cache.directory(name, key), cached, seconds)
        self.progress.stage_finished(name, seconds, cached)

    def _make(self, name: str, key: str) -> str:
        began = time.monotonic()
        work = self.cache.work(name, key)
        final = self.cache.directory(name, key)
        with explaining_storage(self.home):
            make_folder(work)
            out = final.with_name(f".{key}.{os.getpid()}.making")
            make_folder(out)
            context = Context(
                root=self.recipe.root,
                work=work,
                progress=self.progress,
                seed=self.recipe.seed,
                stopping=self.stopping,
                **self._tracking(name),
            )
            try:
                self.wires.run_id = self.tracker.run_id if self.tracker else None
                result = self.wires.call(name, out, context)
                result.save(out)
                inputs = self.wires.inputs(name)  # prepare may have written the schema that it is keyed by
                key = caching.key_of(inputs)
                final = self.cache.directory(name, key)
                self.cache.record(out, inputs)
                write_json(out / "took.json", {"seconds": time.monotonic() - began})
                _commit(out, final)
            finally:
                shutil.rmtree(out, ignore_errors=True)
        shutil.rmtree(work, ignore_errors=True)
        return key

    def adopt(self, name: str, key: str) -> None:
        """Take a stage's output from the cache."""
        self.wires.keys[name] = key
        self.wires.outputs[name] = self.record.outputs[name] = output_type(name).load(self.cache.directory(name, key))

    def _gate(self, name: str) -> None:
        if name == "evaluate":
            self.record.outputs["evaluate"].require_gates()

    def last_seconds(self, name: str) -> float | None:
        """How long the stage took when it was last made in this home."""
        import json

        made = list((self.home / "cache" / name).glob("*/took.json"))
        if not made:
            return None
        return float(json.loads(max(made, key=lambda p: p.stat().st_mtime).read_text())["seconds"])

    def _tidy(self) -> None:
        """Put right in the tracking store what killed runs left there."""
        from groundup.lifecycle.mlflow_store import forget_unfinished
        from groundup.lifecycle.tracking import end_killed

        if self.tracker is None:
            forget_unfinished(self.home)
        end_killed(self.home, self.progress.note)

    def _tracking(self, name: str) -> dict[str, Any]:
        """Metrics go to MLflow from the stages that make curves; others need no run there."""
        if name not in ("tune", "train"):
            return {}
        if self.tracker is None:
            from groundup.lifecycle.tracking import Tracker

            tracker = Tracker(self.home, experiment=self.recipe.name, note=self.progress.note)
            self.tracker = tracker.start(self.record.id, _flat(self.recipe.dump()))
        return {"log_metrics": self.tracker.log_metrics}

    def _finish_tracking(self, status: Literal["FINISHED", "FAILED", "KILLED"], timeout: float = 30.0) -> None:
        if self.tracker is not None:
            self.tracker.finish(status, timeout)


def _flat(value: Any, path: str = "") -> dict[str, Any]:
    """Nested keys as dotted ones, for MLflow's flat parameters."""
    if isinstance(value, dict) and value:
        return {k: v for key, inner in value.items() for k, v in _flat(inner, f"{path}.{key}" if path else key).items()}
    return {path: value}


def _commit(out: Path, final: Path) -> None:
    """Make a finished output durable and give it its name in one rename."""
    from groundup.bundle.files import fsync_dir

    for root, _, names in os.walk(out):
        for name in names:
            fd = os.open(os.path.join(root, name), os.O_RDONLY)
            try:
                os.fsync(fd)
            finally:
                os.close(fd)
        fsync_dir(Path(root))
    if final.exists():
        shutil.rmtree(final)
    os.replace(out, final)
    fsync_dir(final.parent)


@contextlib.contextmanager
def _signals(stopping: threading.Event) -> Iterator[None]:
    """The first SIGINT or SIGTERM asks the stage to save and stop, the second stops at once."""

    def handle(number: int, _frame: object) -> None:
        if stopping.is_set():
            raise KeyboardInterrupt
        stopping.set()

    before = {s: signal.signal(s, handle) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    except KeyboardInterrupt:
        raise Interrupted("stopped at once; run the same command again to go on from what was saved before") from None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

"""tune: a search over settings of ``model`` and ``train``; the best found flows into train."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, Field

from groundup.bundle.files import write_json
from groundup.catalogue import Model
from groundup.errors import ModelError
from groundup.lifecycle.overrides import apply, check_space
from groundup.lifecycle.prepare import Prepared
from groundup.lifecycle.stage import Context, Output
from groundup.lifecycle.trials import Job, in_processes
from groundup.metrics import DIRECTIONS
from groundup.training.settings import Train
from groundup.training.space import Choices, Float, Int, Tune

if TYPE_CHECKING:
    from groundup.training.search import Search

__all__ = ["Choices", "Float", "Int", "TrialRecord", "Tune", "Tuned", "apply", "check_space", "tune"]


class TrialRecord(BaseModel):
    """One trial, as it ended."""

    number: int
    state: str
    """"complete", "pruned" or "failed"."""
    params: dict[str, Any]
    values: dict[str, float] = Field(default_factory=dict)
    """Objective -> value; {} unless complete."""
    epochs: int = 0
    seconds: float = 0.0
    error: str = ""


class Tuned(Output):
    """The search and what it found.

    Files: ``tune.json`` (the same facts for other tools), ``history.svg``, ``importance.svg`` (where there is something to show).
    """

    overrides: dict[str, Any]
    """Dotted key -> value of the best trial: {"train.optimizer.lr": 0.002, "model.width": 64}."""
    objectives: dict[str, str]
    """Objective -> "maximize" or "minimize"; the first is the one that trials are pruned by."""
    best: dict[str, float]
    """Objective -> the best trial's value."""
    best_trial: int
    trials: list[TrialRecord]
    importance: dict[str, float] = Field(default_factory=dict)
    """Setting -> its share of the first objective's variance (fANOVA)."""
    workers: int = 1
    seconds: float = 0.0


def tune(section: Tune, model: Model, train: Train, prepared: Prepared, *, out: Path, context: Context) -> Tuned:
    """Search, in parallel processes where asked; a search that was killed goes on with the trials that it had.

    Raises:
        RecipeError: the space does not fit the sections.
        ModelError: no trial was completed.
        Interrupted: asked to stop; the same command goes on from ``context.work``.
    """
    check_space(section, model, train)
    job = Job(section, model, train, prepared, context)
    search = job.search()
    began, ended = time.monotonic(), search.begin(job.own_setting())
    workers = min(section.workers or min(len(os.sched_getaffinity(0)), 4), max(search.total - ended, 1))
    if ended:
        context.progress.note(f"resumed: {ended} of {search.total} trials were made before")
    with context.progress.task("tuning", search.total, "trials") as task:
        watch = _Watch(search, task)
        if workers == 1:
            job.work(search, watch.look)
        else:
            in_processes(job, workers, watch.look)
        watch.look()
    best = search.best()
    if best is None:
        errors = {t.user_attrs.get("error", "") for t in search.ended()} - {""}
        raise ModelError(
            f"none of {len(search.ended())} trials was completed; the first error: {next(iter(sorted(errors)), 'all were pruned')}"
        )
    tuned = Tuned(
        overrides=dict(best.params),
        objectives=dict(search.objectives),
        best=dict(zip(search.objectives, best.values, strict=True)),
        best_trial=best.number,
        trials=[_record(t, search) for t in search.ended()],
        importance=search.importance(),
        workers=workers,
        seconds=time.monotonic() - began,
    )
    write_json(out / "tune.json", tuned.model_dump(mode="json"))
    _draw(tuned, search.metric, out)
    return tuned


@dataclass
class _Watch:
    """Shows the trials that ended and the best so far."""

    search: Search
    task: Any

    def look(self) -> None:
        ended, best = len(self.search.ended()), self.search.best()
        numbers = {} if best is None else dict(zip(self.search.objectives, best.values, strict=True))
        if ended > self.task.done:
            self.task.advance(ended - self.task.done, **{f"best {k}": v for k, v in numbers.items()})


def _record(trial: Any, search: Search) -> TrialRecord:
    facts = trial.user_attrs
    state = {"COMPLETE": "complete", "PRUNED": "pruned", "FAIL": "failed"}[trial.state.name]
    return TrialRecord(
        number=trial.number,
        state=state,
        params=dict(trial.params),
        values=dict(zip(search.objectives, trial.values, strict=True)) if state == "complete" else {},
        epochs=int(facts.get("epochs", 0)),
        seconds=float(facts.get("seconds", 0.0)),
        error=str(facts.get("error", "")),
    )


def _draw(tuned: Tuned, metric: str, out: Path) -> None:
    from groundup.training import figures

    trials = [{"number": t.number, "value": t.values.get(metric)} for t in tuned.trials]
    figures.history(trials, metric, DIRECTIONS[metric] == "maximize", out / "history.svg")
    if tuned.importance:
        figures.importance(tuned.importance, out / "importance.svg")

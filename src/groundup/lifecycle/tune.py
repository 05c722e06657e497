"""tune: a search over settings of ``model`` and ``train``; the best found flows into train."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, Field, ValidationError

from groundup.bundle.files import write_json
from groundup.catalogue import Model, entries
from groundup.errors import GroundupError, Interrupted, ModelError, RecipeError
from groundup.lifecycle.prepare import Prepared
from groundup.lifecycle.stage import Context, Output
from groundup.metrics import DIRECTIONS
from groundup.progress import Silent
from groundup.training.settings import Checkpoint, Train
from groundup.training.space import LEARNING, Choices, Dimension, Float, Int, Tune, Value, placed, probes

if TYPE_CHECKING:
    from groundup.training.arrays import Arrays
    from groundup.training.search import Search, Trial

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


def apply(overrides: Mapping[str, Any], model: Model, train: Train) -> tuple[Model, Train]:
    """``model`` and ``train`` with the settings of a trial in them.

    Raises:
        RecipeError: a section refuses a value.
    """
    plain = {"model": model.model_dump(mode="json", by_alias=True), "train": train.model_dump(mode="json")}
    for key, value in overrides.items():
        section, _, path = key.partition(".")
        if section == "model":
            plain["model"][path] = value
        else:
            plain["train"] = placed(plain["train"], path, value)
    try:
        return Model.model_validate(plain["model"]), Train.model_validate(plain["train"])
    except ValidationError as e:
        error = e.errors()[0]
        raise RecipeError(f"tune.space: {', '.join(map(str, error['loc']))}: {error['msg']}") from e


def space_of(section: Tune, model: Model) -> dict[str, Dimension]:
    """What is searched: the recipe's space, or a network's learning rate and weight decay."""
    if section.space:
        return section.space
    if model.name is not None and entries()[model.name].kind == "estimator":
        raise RecipeError(
            f"tune.space is empty: name what to search for {model.name}, as in space: {{model.PARAMETER: {{choices: [...]}}}}"
        )
    return LEARNING


def check_space(section: Tune, model: Model, train: Train) -> None:
    """Try both ends and every choice of each dimension on the sections; cheap, and done before anything runs.

    Raises:
        RecipeError: a key or a value that ``model`` or ``train`` refuses.
    """
    for key, dimension in space_of(section, model).items():
        for value in probes(dimension):
            apply({key: value}, model, train)


def tune(section: Tune, model: Model, train: Train, prepared: Prepared, *, out: Path, context: Context) -> Tuned:
    """Search, in parallel processes where asked; a search that was killed goes on with the trials that it had.

    Raises:
        RecipeError: the space does not fit the sections.
        ModelError: no trial was completed.
        Interrupted: asked to stop; the same command goes on from ``context.work``.
    """
    check_space(section, model, train)
    job = _Job(section, model, train, prepared, context)
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
            _in_processes(job, workers, watch)
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


@dataclass
class _Job:
    """Everything that a worker needs to make trials."""

    section: Tune
    model: Model
    train: Train
    prepared: Prepared
    context: Context

    def search(self) -> Search:
        from groundup.training.search import Search

        return Search(
            self.context.work,
            self.section,
            self.section.objectives(str(self.prepared.task)),
            space_of(self.section, self.model),
            self.context.seed,
            self.section.trial_epochs(self.train),
        )

    def own_setting(self) -> dict[str, Value]:
        """The recipe's own values of what is searched, as far as it has them."""
        plain = {"model": self.model.model_dump(mode="json"), "train": self.train.model_dump(mode="json")}
        if self.model.name is not None:
            plain["model"] = {p.name: p.default for p in entries()[self.model.name].parameters} | plain["model"]
        found: dict[str, Value] = {}
        for key in space_of(self.section, self.model):
            value: Any = plain
            for part in key.split("."):
                value = value.get(part.replace("-", "_")) if isinstance(value, dict) else None
            found[key] = value
        return found

    def work(self, search: Search, after_each: Any = lambda: None) -> None:
        """Make trials until there are enough."""
        from groundup.training.arrays import Arrays

        arrays = Arrays.of(self.prepared)
        deadline = time.monotonic() + self.section.timeout if self.section.timeout else None
        while deadline is None or time.monotonic() < deadline:
            self.context.check()
            trial = search.ask()
            if trial is None:
                return
            self.run(trial, arrays, search)
            after_each()

    def run(self, trial: Trial, arrays: Arrays, search: Search) -> None:
        """One trial, to its end; what is wrong with its setting is recorded, what is wrong with the machine is raised."""
        from optuna.trial import TrialState

        began, epochs = time.monotonic(), 0
        state, values, error = TrialState.COMPLETE, None, ""

        def on_epoch(done: int, scores: dict[str, float]) -> None:
            nonlocal epochs
            epochs = done
            if search.metric in scores and trial.report(done, scores[search.metric]):
                raise _Pruned

        try:
            values = self.measure(trial.params, arrays, list(search.objectives), on_epoch)
        except _Pruned:
            state = TrialState.PRUNED
        except (ModelError, RecipeError) as e:
            state, error = TrialState.FAIL, str(e)
        trial.finish(values, state, epochs=epochs, seconds=time.monotonic() - began, error=error)

    def measure(self, params: Mapping[str, Any], arrays: Arrays, objectives: list[str], on_epoch: Any) -> list[float]:
        """Fit with a setting and measure each objective on the validation split."""
        import tempfile

        from groundup.catalogue import resolve
        from groundup.training import classical, networks

        model, train = apply(params, self.model, self.train)
        resolved = resolve(model, self.context.root)
        found: dict[str, float]
        if resolved.kind == "network":
            epochs = self.section.trial_epochs(train)
            train = train.model_copy(update={"epochs": epochs, "checkpoint": Checkpoint(seconds=1e9)})
            with tempfile.TemporaryDirectory(dir=self.context.work) as folder:
                around = replace(self.context, work=Path(folder), progress=Silent(), log_metrics=lambda metrics, step: None)
                watch = tuple(name for name in objectives if name in DIRECTIONS)
                module, fitted = networks.fitted(resolved, arrays, train, around, on_epoch=on_epoch, watch=watch)
            found = {**fitted.best, "parameters": float(networks.parameters(module))}
            found["latency"] = networks.latency(module, arrays) if "latency" in objectives else 0.0
        else:
            estimator, _ = classical.fitted(resolved, arrays, self.context.seed)
            found = {**classical.scores(estimator, arrays)}
            found["latency"] = classical.latency(estimator, arrays) if "latency" in objectives else 0.0
        missing = [name for name in objectives if name not in found]
        if missing:
            raise ModelError(
                f"{', '.join(missing)} cannot be measured for {resolved.name} on the validation split; choose another objective"
            )
        return [found[name] for name in objectives]


class _Pruned(Exception):  # noqa: N818 - ends a trial, is no error
    """The trial fell behind."""


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


# ── processes ───────────────────────────────────────────────────────────────────────────────────────


def _in_processes(job: _Job, workers: int, watch: _Watch) -> None:
    """Run workers until all trials are made; whatever happens, none is left behind."""
    context = job.context
    threads = str(max(1, len(os.sched_getaffinity(0)) // workers))
    write_json(
        context.work / "job.json",
        {
            "tune": job.section.model_dump(mode="json"),
            "model": job.model.model_dump(mode="json", by_alias=True),
            "train": job.train.model_dump(mode="json"),
            "prepared": str(job.prepared.path.resolve()),
            "root": str(context.root.resolve()),
            "work": str(context.work.resolve()),
            "seed": context.seed,
        },
    )
    limits = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), threads)
    command = [sys.executable, "-c", "import sys; from groundup.lifecycle.tune import worker; sys.exit(worker(sys.argv[1]))"]
    running: list[subprocess.Popen[bytes]] = []
    try:
        for number in range(workers):
            with open(context.work / f"worker-{number}.log", "wb") as log:
                process = subprocess.Popen(
                    [*command, str(context.work / "job.json")],
                    env={**os.environ, **limits},
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                )
                running.append(process)
        while any(p.poll() is None for p in running):
            context.check()
            watch.look()
            if any(p.returncode for p in running):
                break
            time.sleep(0.2)
        for number, process in enumerate(running):
            if process.poll():
                said = (context.work / f"worker-{number}.log").read_text(errors="replace").strip().splitlines()
                raise ModelError(f"a tuning process ended with status {process.returncode}: {said[-1] if said else 'it said nothing'}")
    finally:
        for process in running:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
        for process in running:
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


class _Orphaned(threading.Event):
    """Set by a signal, and by the death of the process that started this one."""

    def __init__(self) -> None:
        super().__init__()
        self.parent = os.getppid()

    def is_set(self) -> bool:
        return super().is_set() or os.getppid() != self.parent


def worker(job: str) -> int:
    """One tuning process: makes trials of the job in the file ``job`` until there are enough.  Gives the exit status."""
    stopping = _Orphaned()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopping.set())
    facts = json.loads(Path(job).read_text())
    context = Context(root=Path(facts["root"]), work=Path(facts["work"]), seed=facts["seed"], stopping=stopping)
    made = _Job(
        Tune.model_validate(facts["tune"]),
        Model.model_validate(facts["model"]),
        Train.model_validate(facts["train"]),
        Prepared.load(Path(facts["prepared"])),
        context,
    )
    try:
        made.work(made.search())
    except Interrupted:
        return 0
    except GroundupError as e:
        print(e, file=sys.stderr)
        return e.exit_code
    return 0

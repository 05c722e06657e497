"""The trials of a search: made here, or in processes of their own that go when this one does."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from groundup.bundle.files import write_json
from groundup.catalogue import Model, entries
from groundup.errors import GroundupError, Interrupted, ModelError, RecipeError
from groundup.lifecycle.overrides import apply, space_of
from groundup.lifecycle.prepare import Prepared
from groundup.lifecycle.stage import Context
from groundup.metrics import DIRECTIONS
from groundup.progress import Silent
from groundup.training.settings import Checkpoint, Train
from groundup.training.space import Tune, Value

if TYPE_CHECKING:
    from groundup.training.arrays import Arrays
    from groundup.training.search import Search, Trial


@dataclass
class Job:
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


def in_processes(job: Job, workers: int, look: Callable[[], None]) -> None:
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
    command = [sys.executable, "-c", "import sys; from groundup.lifecycle.trials import worker; sys.exit(worker(sys.argv[1]))"]
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
            look()
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
    made = Job(
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

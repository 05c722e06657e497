"""The search for settings: an Optuna study in a journal file, that any number of processes work on and a kill leaves whole.

The sampler is made anew for each trial, seeded by (seed, number of trials that ended), so that a search that was stopped
and resumed makes the same trials as one that was not.  Optuna prunes only with one objective (optuna issue 3450): with
several, a shadow study of the same trials in the same journal holds the metric alone, and the pruner looks at that.
"""

from __future__ import annotations

import fcntl
import itertools
import math
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import BaseJournalBackend, JournalFileBackend
from optuna.trial import FrozenTrial, TrialState

from groundup.bundle.files import explaining_storage
from groundup.metrics import DIRECTIONS, Direction
from groundup.training.space import Choices, Dimension, Float, Tune, Value, grid_points

LOST = "lost"
"""Mark on trials that a kill ended; they are made again and do not count."""


class FileLock:
    """A lock that the system releases when its holder dies, unlike a lock file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.fd = -1

    def acquire(self) -> bool:
        self.fd = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o644)
        fcntl.flock(self.fd, fcntl.LOCK_EX)
        return True

    def release(self) -> None:
        os.close(self.fd)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock at ``path``."""
    lock = FileLock(path)
    lock.acquire()
    try:
        yield
    finally:
        lock.release()


class Search:
    """One study, seen from one process.

    Args:
        folder: holds ``journal.log``; any number of processes may open it.
        objectives: name -> direction, the metric that prunes first.
        space: key -> dimension.
    """

    def __init__(
        self, folder: Path, section: Tune, objectives: dict[str, Direction], space: dict[str, Dimension], seed: int, epochs: int
    ) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.folder, self.section, self.objectives, self.space, self.seed = folder, section, objectives, space, seed
        self.metric = next(name for name in objectives if name in DIRECTIONS)
        with explaining_storage(folder):
            folder.mkdir(parents=True, exist_ok=True)
            self.storage = JournalStorage(_journal(folder))
        self.pruner = _pruner(section, epochs)
        self.study = self._open("search", list(objectives.values()))
        self.shadow = self._open("pruning", [objectives[self.metric]]) if len(objectives) > 1 else None

    def _open(self, name: str, directions: list[Direction]) -> optuna.Study:
        return optuna.create_study(
            study_name=name,
            directions=directions,
            storage=self.storage,
            pruner=self.pruner,
            load_if_exists=True,
            sampler=optuna.samplers.RandomSampler(),
        )

    @property
    def total(self) -> int:
        """Trials of the whole search; a grid has no more than its points."""
        if self.section.sampler != "grid":
            return self.section.trials
        return min(self.section.trials, math.prod(len(grid_points(k, d)) for k, d in self.space.items()))

    def begin(self, first: dict[str, Value]) -> int:
        """Prepare to go on, before any worker runs: fail and requeue what a kill left running.  Gives how many trials have ended.

        Args:
            first: the recipe's own setting, tried first in a new study.
        """
        for study in [s for s in (self.study, self.shadow) if s is not None]:
            for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
                self.storage.set_trial_user_attr(trial._trial_id, LOST, True)
                study.tell(trial.number, state=TrialState.FAIL)
                if study is self.study:
                    study.enqueue_trial(trial.params)
        if not self.study.get_trials(deepcopy=False):
            if self.section.sampler == "grid":
                axes = [grid_points(k, d) for k, d in self.space.items()]
                for point in itertools.islice(itertools.product(*axes), self.total):
                    self.study.enqueue_trial(dict(zip(self.space, point, strict=True)))
            elif all(_inside(d, first.get(k)) for k, d in self.space.items()):
                self.study.enqueue_trial(first)
        return len(self.ended())

    def ended(self) -> list[FrozenTrial]:
        """Trials that are over, without those that a kill ended."""
        return [t for t in self.study.get_trials(deepcopy=False) if t.state.is_finished() and LOST not in t.user_attrs]

    def ask(self) -> Trial | None:
        """The next trial with its setting, or None when there are enough."""
        with locked(self.folder / "ask.lock"):
            ended = len(self.ended())
            running = len(self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)))
            if ended + running >= self.total:
                return None
            self.study.sampler = _sampler(self.section, self.seed + ended + running, parallel=running > 0)
            trial = self.study.ask()
            params = {key: _suggest(trial, key, dimension) for key, dimension in self.space.items()}
            trial.set_user_attr("began", time.time())
        shadow = None
        if self.shadow is not None:
            shadow = self.shadow.ask()
        return Trial(self, trial, shadow, params)

    def best(self) -> FrozenTrial | None:
        """The best trial, or None if none was completed.

        With several objectives: among the trials on the Pareto front whose first metric is within ``tolerance`` of the best,
        the one that is best in the second objective (then the third, ...).
        """
        done = self.study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        if not done:
            return None
        if len(self.objectives) == 1:
            return self.study.best_trial
        signs = [1.0 if d == "minimize" else -1.0 for d in self.objectives.values()]

        def costs(trial: FrozenTrial) -> list[float]:
            return [s * v for s, v in zip(signs, trial.values, strict=True)]

        front = self.study.best_trials
        limit = min(costs(t)[0] for t in front) + self.section.tolerance
        return min((t for t in front if costs(t)[0] <= limit), key=lambda t: [*costs(t)[1:], costs(t)[0], t.number])

    def importance(self) -> dict[str, float]:
        """Share of the metric's variance that each setting explains (fANOVA, Hutter et al. 2014); {} with fewer than 4 trials."""
        done = self.study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        varied = [k for k in self.space if len({str(t.params.get(k)) for t in done}) > 1]
        index = list(self.objectives).index(self.metric)
        if len(done) < 4 or not varied or len({t.values[index] for t in done}) < 2:
            return {}
        from optuna.importance import FanovaImportanceEvaluator, get_param_importances

        target = None if len(self.objectives) == 1 else lambda t: t.values[index]
        found = get_param_importances(self.study, evaluator=FanovaImportanceEvaluator(seed=self.seed), params=varied, target=target)
        return {key: float(value) for key, value in found.items()}


class Trial:
    """One trial of a search: its setting, and how it goes."""

    def __init__(self, search: Search, trial: optuna.Trial, shadow: optuna.Trial | None, params: dict[str, Value]) -> None:
        self.search, self.trial, self.shadow, self.params = search, trial, shadow, params

    def report(self, epoch: int, value: float) -> bool:
        """Tell the metric after ``epoch`` epochs; True if the trial should end here."""
        trial = self.shadow or self.trial
        trial.report(value, epoch)
        return trial.should_prune()

    def finish(self, values: list[float] | None, state: TrialState, **facts: Any) -> None:
        """Record how the trial ended."""
        for key, value in facts.items():
            self.trial.set_user_attr(key, value)
        self.search.study.tell(self.trial, values if state == TrialState.COMPLETE else None, state=state)
        if self.shadow is not None and self.search.shadow is not None:
            self.search.shadow.tell(self.shadow, values[0] if values and state == TrialState.COMPLETE else None, state=state)


def _journal(folder: Path) -> BaseJournalBackend:
    """The journal's backend, once a line that a kill tore is cut off."""
    path = folder / "journal.log"
    lock = FileLock(folder / "journal.lock")
    lock.acquire()
    try:
        if path.exists() and (size := path.stat().st_size):
            with open(path, "r+b") as f:
                data = f.read()
                whole = data.rfind(b"\n") + 1
                if whole < size:
                    f.truncate(whole)
    finally:
        lock.release()
    return JournalFileBackend(str(path), lock_obj=FileLock(folder / "journal.lock"))  # type: ignore[arg-type]


def _sampler(section: Tune, seed: int, parallel: bool) -> optuna.samplers.BaseSampler:
    startup = max(4, section.trials // 4)
    match section.sampler:
        case "tpe":
            return optuna.samplers.TPESampler(seed=seed, n_startup_trials=startup, constant_liar=parallel)
        case "gp":
            return optuna.samplers.GPSampler(seed=seed, n_startup_trials=startup)
        case "random" | "grid":
            return optuna.samplers.RandomSampler(seed=seed)


def _pruner(section: Tune, epochs: int) -> optuna.pruners.BasePruner:
    match section.pruner:
        case "median":
            return optuna.pruners.MedianPruner(n_startup_trials=4, n_warmup_steps=max(1, epochs // 5))
        case "hyperband":
            return optuna.pruners.HyperbandPruner(min_resource=1, max_resource=epochs)
        case "asha":
            return optuna.pruners.SuccessiveHalvingPruner(min_resource=1)
        case "none":
            return optuna.pruners.NopPruner()


def _suggest(trial: optuna.Trial, key: str, dimension: Any) -> Value:
    if isinstance(dimension, Choices):
        chosen: Value = trial.suggest_categorical(key, dimension.choices)
        return chosen
    if isinstance(dimension, Float):
        return trial.suggest_float(key, dimension.low, dimension.high, log=dimension.log, step=dimension.step)
    return trial.suggest_int(key, dimension.low, dimension.high, log=dimension.log, step=dimension.step or 1)


def _inside(dimension: Any, value: Value) -> bool:
    if isinstance(dimension, Choices):
        return value in dimension.choices
    return isinstance(value, int | float) and not isinstance(value, bool) and dimension.low <= value <= dimension.high

"""The training loop: minibatch gradient descent with everything that keeps it honest and resumable.

    for epoch:                       shuffle (a function of seed and epoch)
        for step:                    η ← schedule(step)
            for batch in step:       g ← g + ∇ Σ w_i ℓ(f(x_i; θ), y_i) / Σ w_i        the step's mean, not the batches'
            g ← clip(g);  θ ← update(θ, g, η);  θ̄ ← average(θ̄, θ)
        validate θ̄;  keep the best;  stop if it has not improved for long

All that the next step depends on is in :class:`State` and the checkpoint, so a training that was killed goes on to the
same weights, bit for bit (same machine, same number of threads).
"""

from __future__ import annotations

import math
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from groundup import metrics
from groundup.errors import ModelError
from groundup.progress import Progress, Task
from groundup.training import checkpoint, ema, losses, optimizers, precision, sampler, schedules
from groundup.training.arrays import Arrays
from groundup.training.augment import Augmenter, wanted
from groundup.training.settings import Train

TICK = 0.2
"""Seconds between looks at the progress display and at the losses for NaN."""


class Surroundings(Protocol):
    """What a training asks of its caller (``lifecycle.stage.Context`` is this)."""

    @property
    def work(self) -> Path: ...
    @property
    def progress(self) -> Progress: ...
    @property
    def seed(self) -> int: ...
    @property
    def stopping(self) -> threading.Event: ...
    @property
    def log_metrics(self) -> Callable[[dict[str, float], int], Any]: ...
    def check(self) -> None: ...


@dataclass
class State:
    """Where a training stands, beside its tensors.

    Attributes:
        step: optimizer steps done.
        epoch: epochs done.
        best: epoch and validation metrics of the best weights so far.
        stale: epochs since the monitored metric last improved.
        seconds: time spent, over all interruptions.
    """

    step: int = 0
    epoch: int = 0
    best: dict[str, float] = field(default_factory=dict)
    stale: int = 0
    history: list[dict[str, float]] = field(default_factory=list)
    seconds: float = 0.0
    precision: precision.Precision = "fp32"
    threads: int = 0


@dataclass(frozen=True)
class Fitted:
    """What :func:`fit` leaves: the best weights are in the module, ``last`` holds those after the last step."""

    best: dict[str, float]
    history: list[dict[str, float]]
    seconds: float
    steps: int
    precision: precision.Precision
    last: dict[str, Tensor]


def fit(
    model: nn.Module,
    arrays: Arrays,
    settings: Train,
    surroundings: Surroundings,
    *,
    fingerprint: str = "",
    on_epoch: Callable[[int, dict[str, float]], None] | None = None,
) -> Fitted:
    """Train ``model`` in place and leave the best weights in it.

    Args:
        fingerprint: of everything that the weights depend on; a checkpoint with another one is not resumed from.
        on_epoch: called with (epochs done, validation metrics); what it raises ends the training (pruning).

    Raises:
        ModelError: the loss is no longer finite.
        Interrupted: asked to stop; a checkpoint was written first.
        StorageError: a checkpoint cannot be written.
    """
    with _isolated(settings, surroundings.seed):
        return _Fit(model, arrays, settings, surroundings, fingerprint, on_epoch).run()


class _Fit:
    """One training: the loop's variables."""

    def __init__(
        self,
        model: nn.Module,
        arrays: Arrays,
        settings: Train,
        surroundings: Surroundings,
        fingerprint: str,
        on_epoch: Callable[[int, dict[str, float]], None] | None,
    ) -> None:
        self.model, self.arrays, self.settings, self.around, self.on_epoch = model, arrays, settings, surroundings, on_epoch
        self.fingerprint = fingerprint
        self.X, self.y = torch.from_numpy(arrays.X), arrays.targets()
        weights = losses.balanced_weights(self.y, arrays.n_outputs) if settings.class_weights == "balanced" and not arrays.regression else None
        self.loss = losses.Loss(arrays.regression, settings.label_smoothing, weights)
        self.cuts = sampler.steps(len(self.y), settings.batch_size * settings.accumulate, settings.drop_last)
        self.augmented = wanted(settings.augment, arrays.feature_shape)
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        self.optimizer = optimizers.build(settings.optimizer, model)
        self.ema = ema.Ema(model, settings.ema) if settings.ema else None
        self.losses = torch.zeros(len(self.cuts))  # of this epoch's steps; looked at now and then, so that no step waits for it
        self.state = State(threads=torch.get_num_threads())
        self.best_weights: dict[str, Tensor] = {}
        monitored = settings.early_stopping.metric if settings.early_stopping else None
        self.metric = _metric_of(monitored, arrays.task)
        self.began = self.saved_at = self.ticked_at = time.monotonic()
        self.save_seconds = 0.0
        self.pending = 0

    # ── the algorithm ───────────────────────────────────────────────────────────────────────────────

    def run(self) -> Fitted:
        settings, state = self.settings, self.state
        if not self.resume():
            state.precision = precision.decide(settings, self.total, self.rehearse_step, self.around.progress.note)
        with self.around.progress.task("training", settings.epochs * self.per_epoch, "samples") as task:
            self.task = task
            task.started -= state.seconds
            self.show(state.epoch * self.per_epoch + self.cuts[state.step % len(self.cuts)][0], force=True)
            while state.epoch < settings.epochs and not self.patience_is_over():
                self.epoch()
        last = checkpoint.weights(self.model) if self.ema is None else {k: v.clone() for k, v in self.ema.average.items()}
        self.model.load_state_dict(self.best_weights or last)
        self.model.eval()
        return Fitted(state.best, state.history, self.elapsed(), state.step, state.precision, last)

    def epoch(self) -> None:
        """Steps until the epoch's end, from wherever in it the state stands."""
        state, settings = self.state, self.settings
        epoch, began, first = state.epoch, time.monotonic(), state.step - state.epoch * len(self.cuts)
        self.order = torch.from_numpy(sampler.order(self.around.seed, epoch, len(self.y)))
        self.augment = Augmenter(settings.augment, self.around.seed, epoch, len(self.y)) if self.augmented else None
        self.model.train()
        if self.ema:
            self.ema.follow(self.model)
        for i in range(first, len(self.cuts)):
            start, stop = self.cuts[i]
            optimizers.set_lr(self.optimizer, settings.optimizer.lr * schedules.factor(settings.schedule, state.step + 1, self.total))
            self.losses[i] = self.gradient(self.order[start:stop])
            if settings.clip_norm is not None:
                nn.utils.clip_grad_norm_(self.parameters, settings.clip_norm, foreach=True)
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)
            state.step += 1
            if self.ema:
                self.ema.update(state.step)
            if i + 1 < len(self.cuts):
                self.show(stop - start)
                self.between_steps()
        self.end_of_epoch(time.monotonic() - began, sum(stop - start for start, stop in self.cuts[first:]))

    def gradient(self, samples: Tensor) -> Tensor:
        """Add the gradient of the mean loss over ``samples`` to the parameters; the loss, detached."""
        B = self.settings.batch_size
        if len(samples) <= B + 1:  # one more than a batch: the lone last sample that joined it
            return self.batch_gradient(samples, 1.0)
        mass = self.loss.mass(self.y[samples])
        total = torch.zeros(())
        for start, stop in sampler.steps(len(samples), B):
            batch = samples[start:stop]
            total += self.batch_gradient(batch, self.loss.mass(self.y[batch]) / mass)
        return total

    def batch_gradient(self, batch: Tensor, share: float) -> Tensor:
        X, y = self.X.index_select(0, batch), self.y.index_select(0, batch)
        if self.augment is not None:
            X = self.augment(X, batch)
        with precision.autocast(self.state.precision):
            loss = self.loss(self.model(X), y)
        if share != 1.0:
            loss = loss * share
        loss.backward()  # type: ignore[no-untyped-call]
        return loss.detach()

    def end_of_epoch(self, seconds: float, samples: int) -> None:
        """Validate, keep the best, record, and say so."""
        state = self.state
        self.require_finite(len(self.cuts))
        sizes = torch.tensor([stop - start for start, stop in self.cuts], dtype=torch.float64)
        row = {
            "epoch": float(state.epoch + 1),
            "train_loss": float((self.losses.double() * sizes).sum() / sizes.sum()),
            "lr": self.optimizer.param_groups[0]["lr"],
        }
        scores = self.validate()
        state.epoch += 1
        self.losses.zero_()
        if scores:
            self.judge(scores)
        else:
            state.best = {"epoch": float(state.epoch)}
        row |= scores | {"seconds": seconds, "samples_per_second": samples / max(seconds, 1e-9)}
        state.history.append(row)
        self.around.log_metrics({k: v for k, v in row.items() if k != "epoch"}, state.epoch)
        self.show(self.cuts[-1][1] - self.cuts[-1][0], force=True)
        if self.on_epoch is not None:
            self.on_epoch(state.epoch, scores)
        every = self.settings.checkpoint.epochs
        if every and state.epoch % every == 0:
            self.save()
        self.between_steps()

    # ── validation ──────────────────────────────────────────────────────────────────────────────────

    def validate(self) -> dict[str, float]:
        """Metrics of the validation split, of the averaged weights where there are any; undefined ones are left out."""
        if len(self.arrays.y_val) == 0:
            return {}
        average = self.ema.average if self.ema else None
        scores = predict(self.model, self.arrays.X_val, self.settings.batch_size, self.state.precision, average)
        if not torch.isfinite(scores).all():
            raise self.diverged("the validation scores became", float("nan"), self.state.step)
        found = metrics.compute(self.arrays.task, self.arrays.y_val, self.arrays.answers(scores))
        return {name: value for name, value in found.items() if math.isfinite(value)}

    def judge(self, scores: dict[str, float]) -> None:
        """Keep the weights if they are the best so far: by the monitored metric, ties by the validation loss."""
        state, tie = self.state, "rmse" if self.arrays.regression else "log_loss"
        value, before = scores.get(self.metric), state.best.get(self.metric)
        state.stale += 1
        if before is not None and value is None:
            return
        gain = math.inf if before is None or value is None else _gain(self.metric, value, before)
        min_delta = self.settings.early_stopping.min_delta if self.settings.early_stopping else 0.0
        if gain > min_delta:
            state.stale = 0
        if gain > 0 or (gain == 0 and scores[tie] < state.best[tie]):
            state.best = {"epoch": float(state.epoch), **scores}
            source = self.ema.average if self.ema else self.model.state_dict()
            self.best_weights = {k: v.detach().clone() for k, v in source.items()}

    def patience_is_over(self) -> bool:
        stopping = self.settings.early_stopping
        over = stopping is not None and self.state.stale >= stopping.patience
        if over:
            self.around.progress.note(f"stopped early after epoch {self.state.epoch}: {self.metric} was best in epoch {self.state.best['epoch']:.0f}")
        return over

    # ── staying alive ───────────────────────────────────────────────────────────────────────────────

    def between_steps(self) -> None:
        """Save when it is time, and stop when asked; the state is whole here."""
        if self.around.stopping.is_set():
            self.save()
            self.around.check()
        now = time.monotonic()
        if now - self.saved_at >= max(self.settings.checkpoint.seconds, 50 * self.save_seconds):
            self.save()

    def save(self) -> None:
        """Make the state durable.  Weights that are not finite are never saved."""
        began = time.monotonic()
        self.require_finite(self.state.step - self.state.epoch * len(self.cuts))
        model = self.model.state_dict()
        if not all(bool(torch.isfinite(v).all()) for v in model.values() if v.is_floating_point()):
            raise self.diverged("the weights became", float("nan"), self.state.step)
        optimizer, scalars = checkpoint.pack_optimizer(self.optimizer)
        generators, generator_facts = checkpoint.pack_random()
        tensors = {
            **checkpoint.with_prefix("model", model),
            **checkpoint.with_prefix("ema", self.ema.average if self.ema else {}),
            **checkpoint.with_prefix("best", self.best_weights),
            **checkpoint.with_prefix("optimizer", optimizer),
            **checkpoint.with_prefix("random", generators),
            "losses": self.losses,
        }
        facts = {"fingerprint": self.fingerprint, "optimizer": scalars, "random": generator_facts, "state": asdict(self.state)}
        facts["state"]["seconds"] = self.elapsed()
        checkpoint.write(self.around.work, self.state.step, tensors, facts)
        self.saved_at = time.monotonic()
        self.save_seconds = self.saved_at - began

    def resume(self) -> bool:
        """Take up the newest usable checkpoint; False where there is none."""
        note = self.around.progress.note
        found = checkpoint.newest(self.around.work, note)
        if found is None:
            return False
        tensors, facts = found
        if facts["fingerprint"] != self.fingerprint:
            note("the checkpoint here is of another model, data or setting; training starts anew")
            return False
        self.state = State(**facts["state"])
        self.model.load_state_dict(checkpoint.under("model", tensors))
        if self.ema:
            self.ema.average = checkpoint.under("ema", tensors)
        self.best_weights = checkpoint.under("best", tensors)
        checkpoint.unpack_optimizer(self.optimizer, checkpoint.under("optimizer", tensors), facts["optimizer"])
        checkpoint.unpack_random(checkpoint.under("random", tensors), facts["random"])
        self.losses = tensors["losses"]
        if self.state.threads != torch.get_num_threads():
            torch.set_num_threads(self.state.threads)  # sums are split among threads: another number rounds differently
        note(f"resumed at step {self.state.step} of {self.total} (epoch {self.state.epoch + 1})")
        return True

    def require_finite(self, done: int) -> None:
        """Raise at the first step of this epoch whose loss is not finite, looking at the first ``done``."""
        bad = torch.nonzero(~torch.isfinite(self.losses[:done]))
        if len(bad):
            i = int(bad[0])
            raise self.diverged("the loss became", float(self.losses[i]), self.state.epoch * len(self.cuts) + i + 1)

    def diverged(self, what: str, value: float, step: int) -> ModelError:
        lr, best = self.settings.optimizer.lr, self.state.best
        kept = f"the last good checkpoint is of epoch {best['epoch']:.0f} ({self.metric} {best.get(self.metric, math.nan):.4g}); " if best else ""
        path = ""
        if self.best_weights:
            tensors = checkpoint.with_prefix("best", self.best_weights)
            path = f"its weights: {checkpoint.write(self.around.work / 'good', self.state.epoch, tensors, {'best': best})}; "
        hints = [f"train.optimizer.lr={lr / 10:g}"]
        hints += ["train.clip-norm=1"] if self.settings.clip_norm is None else []
        hints += ["train.schedule.warmup=0.1"] if self.settings.schedule.warmup < 0.1 else []
        hints += ["train.precision=fp32"] if self.state.precision == "bf16" else []
        return ModelError(
            f"{what} {value} in epoch {(step - 1) // len(self.cuts) + 1}, step {step} of {self.total}; {kept}{path}"
            f"try {', '.join(hints)} (--set KEY=VALUE)"
        )

    def show(self, samples: int, force: bool = False) -> None:
        """Tell the display about more samples done, a few times a second; look for NaN as often."""
        self.pending += samples
        now = time.monotonic()
        if not force and now - self.ticked_at < TICK:
            return
        self.ticked_at = now
        done = self.state.step - self.state.epoch * len(self.cuts)
        self.require_finite(done)
        task: Task = self.task
        numbers: dict[str, float | str] = {"epoch": f"{min(self.state.epoch + 1, self.settings.epochs)}/{self.settings.epochs}"}
        if done:
            numbers["loss"] = float(self.losses[max(0, done - 20) : done].mean())
        if self.metric in self.state.best:
            numbers[f"best {self.metric}"] = self.state.best[self.metric]
        task.advance(self.pending, **numbers)
        self.pending = 0

    # ── small things ────────────────────────────────────────────────────────────────────────────────

    @property
    def total(self) -> int:
        """Steps of the whole training."""
        return self.settings.epochs * len(self.cuts)

    @property
    def per_epoch(self) -> int:
        """Samples that an epoch trains on."""
        return self.cuts[-1][1]

    def elapsed(self) -> float:
        return self.state.seconds + time.monotonic() - self.began

    def rehearse_step(self, chosen: precision.Precision) -> None:
        """A forward and backward pass that leaves weights, buffers, gradients and random numbers as they were."""
        before, generator, kept = checkpoint.weights(self.model), torch.get_rng_state(), self.state.precision
        self.state.precision, self.augment = chosen, None
        self.model.train()
        start, stop = self.cuts[0]
        self.gradient(torch.arange(start, stop))
        self.optimizer.zero_grad(set_to_none=True)
        self.model.load_state_dict(before)
        torch.set_rng_state(generator)
        self.state.precision = kept


@torch.inference_mode()
def predict(
    model: nn.Module,
    X: Any,
    batch_size: int = 256,
    chosen: precision.Precision = "fp32",
    weights: dict[str, Tensor] | None = None,
) -> Tensor:
    """Scores (N, n_outputs) float32 of features (N, *feature_shape), in evaluation mode; the module's mode is given back.

    Args:
        weights: a ``state_dict`` to use in place of the module's own.
    """
    was_training = model.training
    model.eval()
    parts = []
    features = X if isinstance(X, Tensor) else torch.from_numpy(X)
    with precision.autocast(chosen):
        for batch in features.split(max(batch_size, 256)):
            scores = model(batch) if weights is None else torch.func.functional_call(model, weights, (batch,))
            parts.append(scores.float())
    model.train(was_training)
    return torch.cat(parts) if parts else torch.zeros(0)


def _metric_of(name: str | None, task: str) -> str:
    """The monitored metric: the one asked for ("loss" is the task's), or the headline."""
    if name is None:
        return metrics.headline(task)
    if name == "loss":
        return "rmse" if task.endswith("regression") else "log_loss"
    if name not in metrics.names(task):
        raise ModelError(f"train.early-stopping.metric {name!r} is no metric of {task}; expected one of loss, {', '.join(metrics.names(task))}")
    return name


def _gain(metric: str, value: float, before: float) -> float:
    """How much better ``value`` is; positive is better."""
    return value - before if metrics.DIRECTIONS[metric] == "maximize" else before - value


@contextmanager
def _isolated(settings: Train, seed: int) -> Iterator[None]:
    """Seed everything that may draw, set threads and determinism, and put all of it back."""
    threads, deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    python, legacy = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=[]):
        try:
            torch.manual_seed(seed)
            random.seed(seed)
            np.random.seed(seed % 2**32)
            if settings.threads:
                torch.set_num_threads(settings.threads)
            if settings.deterministic:
                torch.use_deterministic_algorithms(True)
            yield
        finally:
            torch.set_num_threads(threads)
            torch.use_deterministic_algorithms(deterministic)
            random.setstate(python)
            np.random.set_state(legacy)

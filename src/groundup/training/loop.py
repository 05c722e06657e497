"""The training loop: minibatch gradient descent with everything that keeps it honest and resumable.

    for epoch:                       shuffle (a function of seed and epoch)
        for step:                    η ← schedule(step)
            for batch in step:       g ← g + ∇ Σ w_i ℓ(f(x_i; θ), y_i) / Σ w_i        the step's mean, not the batches'
            g ← clip(g);  θ ← update(θ, g, η);  θ̄ ← average(θ̄, θ)
        validate θ̄;  keep the best;  stop if it has not improved for long

All that the next step depends on is in :class:`~groundup.training.state.State`, so a training that was killed goes on
from its checkpoint to the same weights, bit for bit (on the same machine).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from groundup import metrics
from groundup.errors import ModelError
from groundup.progress import Task
from groundup.training import checkpoint, losses, optimizers, precision, sampler, schedules
from groundup.training.arrays import Arrays
from groundup.training.augment import Augmenter, wanted
from groundup.training.ema import Ema
from groundup.training.selection import Selection
from groundup.training.settings import Train
from groundup.training.state import Facts, State
from groundup.training.surroundings import Surroundings, isolated

TICK = 0.2
"""Seconds between looks at the progress display and at the losses for NaN."""


OnEpoch = Callable[[int, dict[str, float]], None]


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
    around: Surroundings,
    *,
    fingerprint: str = "",
    on_epoch: OnEpoch | None = None,
    watch: tuple[str, ...] = (),
) -> Fitted:
    """Train ``model`` in place and leave the best weights in it.

    Args:
        fingerprint: of everything that the weights depend on; a checkpoint with another one is not resumed from.
        on_epoch: called with (epochs done, validation metrics); what it raises ends the training (pruning).
        watch: metrics to compute after each epoch, beside the headline, the monitored one and the loss.

    Raises:
        ModelError: the loss is no longer finite.
        Interrupted: asked to stop; a checkpoint was written first.
        StorageError: a checkpoint cannot be written.
    """
    with isolated(settings, around.seed):
        return _Fit(model, arrays, settings, around, fingerprint, on_epoch, watch).run()


class _Fit:
    """One training: the loop and its variables."""

    def __init__(
        self,
        model: nn.Module,
        arrays: Arrays,
        settings: Train,
        around: Surroundings,
        fingerprint: str,
        on_epoch: OnEpoch | None,
        watch: tuple[str, ...],
    ) -> None:
        self.model, self.arrays, self.settings, self.around, self.on_epoch = model, arrays, settings, around, on_epoch
        self.X, self.y = torch.from_numpy(arrays.X), arrays.targets()
        weights = (
            losses.balanced_weights(self.y, arrays.n_outputs) if settings.class_weights == "balanced" and not arrays.regression else None
        )
        self.loss = losses.Loss(arrays.regression, settings.label_smoothing, weights)
        self.cuts = sampler.steps(len(self.y), settings.batch_size * settings.accumulate, settings.drop_last)
        self.total = settings.epochs * len(self.cuts)
        self.augmented = wanted(settings.augment, arrays.feature_shape)
        self.augment: Augmenter | None = None
        self.selection = Selection(settings.early_stopping, arrays.task)
        self.watched = tuple(dict.fromkeys((metrics.headline(arrays.task), self.selection.metric, self.selection.loss, *watch)))
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        self.optimizer = optimizers.build(settings.optimizer, model)
        self.state = State(
            model, self.optimizer, Ema(model, settings.ema) if settings.ema else None, torch.zeros(len(self.cuts)), fingerprint
        )
        self.began = self.saved_at = self.shown_at = time.monotonic()
        self.save_seconds, self.unshown = 0.0, 0

    # ── the algorithm ───────────────────────────────────────────────────────────────────────────────

    def run(self) -> Fitted:
        """Epochs until there are enough or patience is over."""
        self.start()
        facts, settings = self.state.facts, self.settings
        with self.around.progress.task("training", settings.epochs * self.cuts[-1][1], "samples") as self.task:
            self.task.started -= facts.seconds
            self.show(facts.epoch * self.cuts[-1][1] + (self.cuts[self.done_in_epoch()][0] if self.done_in_epoch() else 0), force=True)
            while facts.epoch < settings.epochs and facts.stale < self.selection.patience:
                self.epoch()
        if facts.stale >= self.selection.patience:
            self.around.progress.note(
                f"stopped early after epoch {facts.epoch}: {self.selection.metric} was best in epoch {facts.best['epoch']:.0f}"
            )
        last = {k: v.detach().clone() for k, v in self.state.current().items()}
        self.model.load_state_dict(self.state.best or last)
        self.model.eval()
        self.state.ema = None
        facts.best |= self.validate(metrics.names(self.arrays.task))
        return Fitted(facts.best, facts.history, self.elapsed(), facts.step, facts.precision, last)

    def epoch(self) -> None:
        """Steps until the epoch's end, from wherever in it the state stands, and a look at the validation split."""
        facts, settings, first, began = self.state.facts, self.settings, self.done_in_epoch(), time.monotonic()
        order = torch.from_numpy(sampler.order(self.around.seed, facts.epoch, len(self.y)))
        self.augment = Augmenter(settings.augment, self.around.seed, facts.epoch, len(self.y)) if self.augmented else None
        self.model.train()
        if self.state.ema:
            self.state.ema.follow(self.model)
        for i in range(first, len(self.cuts)):
            start, stop = self.cuts[i]
            if i > first:
                self.between_steps()
            optimizers.set_lr(self.optimizer, settings.optimizer.lr * schedules.factor(settings.schedule, facts.step + 1, self.total))
            self.state.losses[i] = self.gradient(order[start:stop])
            if settings.clip_norm is not None:
                nn.utils.clip_grad_norm_(self.parameters, settings.clip_norm, foreach=True)
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)
            facts.step += 1
            if self.state.ema:
                self.state.ema.update(facts.step)
            self.show(stop - start)
        self.end_of_epoch(time.monotonic() - began, self.cuts[-1][1] - self.cuts[first][0])

    def gradient(self, samples: Tensor) -> Tensor:
        """Add the gradient of the mean loss over ``samples`` to the parameters; gives the loss, detached."""
        B = self.settings.batch_size
        if len(samples) <= B + 1:  # one more than a batch: the lone last sample that joined it
            return self.batch_gradient(samples)
        mass = self.loss.mass(self.y[samples])
        total = torch.zeros(())
        for start, stop in sampler.steps(len(samples), B):
            batch = samples[start:stop]
            total += self.batch_gradient(batch, self.loss.mass(self.y[batch]) / mass)
        return total

    def batch_gradient(self, batch: Tensor, share: float = 1.0) -> Tensor:
        """The same for samples that go forward together, ``share`` of the step's mean."""
        X, y = self.X.index_select(0, batch), self.y.index_select(0, batch)
        if self.augment is not None:
            X = self.augment(X, batch)
        with precision.autocast(self.state.facts.precision):
            loss = self.loss(self.model(X), y)
        if share != 1.0:
            loss = loss * share
        loss.backward()  # type: ignore[no-untyped-call]
        return loss.detach()

    def end_of_epoch(self, seconds: float, samples: int) -> None:
        """Validate, keep the best, record, and say so."""
        facts = self.state.facts
        self.require_finite()
        sizes = torch.tensor([stop - start for start, stop in self.cuts], dtype=torch.float64)
        train_loss = float((self.state.losses.double() * sizes).sum() / sizes.sum())
        scores = self.validate(self.watched)
        facts.epoch += 1
        self.state.losses.zero_()
        if scores:
            verdict = self.selection.judge(scores, facts.best)
            facts.stale = 0 if verdict == "improved" else facts.stale + 1
            if verdict != "worse":
                facts.best = {"epoch": float(facts.epoch), **scores}
                self.state.best = {k: v.detach().clone() for k, v in self.state.current().items()}
        else:
            facts.best = {"epoch": float(facts.epoch)}
        row = {"epoch": float(facts.epoch), "train_loss": train_loss, **scores, "lr": float(self.optimizer.param_groups[0]["lr"])}
        row |= {"seconds": seconds, "samples_per_second": samples / max(seconds, 1e-9)}
        facts.history.append(row)
        self.around.log_metrics({k: v for k, v in row.items() if k != "epoch"}, facts.epoch)
        self.show(0, force=True)
        if self.on_epoch is not None:
            self.on_epoch(facts.epoch, scores)
        self.between_steps(epoch_ended=True)

    def validate(self, names: tuple[str, ...]) -> dict[str, float]:
        """Metrics of the validation split; undefined ones (ROC AUC of one class) are left out."""
        arrays = self.arrays
        if len(arrays.y_val) == 0:
            return {}
        average = self.state.ema.average if self.state.ema else None
        scores = predict(self.model, arrays.X_val, self.settings.batch_size, self.state.facts.precision, average)
        if not torch.isfinite(scores).all():
            raise self.diverged("the validation scores are not finite", self.state.facts.step)
        found = metrics.compute(arrays.task, arrays.y_val, arrays.answers(scores), names)
        return {name: value for name, value in found.items() if math.isfinite(value)}

    # ── staying alive ───────────────────────────────────────────────────────────────────────────────

    def start(self) -> None:
        """Go on from a checkpoint, or decide what a checkpoint would remember."""
        note, facts = self.around.progress.note, self.state.facts
        if self.state.resume(self.around.work, note):
            facts = self.state.facts
            note(f"resumed at step {facts.step} of {self.total} (epoch {facts.epoch + 1})")
            torch.set_num_threads(facts.threads)  # sums are split among threads: another number rounds differently
        else:
            precise = precision.decide(self.settings, self.total, self.rehearse_step, note)
            self.state.facts = Facts(precision=precise, threads=torch.get_num_threads())

    def between_steps(self, epoch_ended: bool = False) -> None:
        """Save when it is time, and stop when asked; the state is whole here."""
        when = self.settings.checkpoint
        if self.around.stopping.is_set():
            self.save()
            self.around.check()
        due = time.monotonic() - self.saved_at >= max(when.seconds, 50 * self.save_seconds)
        if due or (epoch_ended and when.epochs and self.state.facts.epoch % when.epochs == 0):
            self.save()

    def save(self) -> None:
        """Make the state durable.  Weights that are not finite are never saved."""
        began = time.monotonic()
        self.require_finite()
        if not self.state.is_finite():
            raise self.diverged("the weights are not finite", self.state.facts.step)
        self.state.save(self.around.work, self.elapsed())
        self.saved_at = time.monotonic()
        self.save_seconds = self.saved_at - began

    def require_finite(self) -> None:
        """Raise at the first step of this epoch whose loss is not finite."""
        bad = torch.nonzero(~torch.isfinite(self.state.losses))
        if len(bad):
            i = int(bad[0])
            raise self.diverged(f"the loss became {float(self.state.losses[i])}", self.state.facts.epoch * len(self.cuts) + i + 1)

    def diverged(self, what: str, step: int) -> ModelError:
        """The error to raise; the best weights so far are written where its message says."""
        best, metric, settings = self.state.facts.best, self.selection.metric, self.settings
        kept = "there is no good checkpoint yet; "
        if self.state.best:
            facts = {"fingerprint": self.state.fingerprint, "best": best}
            path = checkpoint.write(self.around.work / "good", self.state.facts.epoch, self.state.best, facts)
            kept = f"the last good weights ({metric} {best.get(metric, math.nan):.4g} after epoch {best['epoch']:.0f}) are in {path}; "
        hints = [f"train.optimizer.lr={settings.optimizer.lr / 10:g}"]
        hints += ["train.clip_norm=1"] if settings.clip_norm is None else []
        hints += ["train.schedule.warmup=0.1"] if settings.schedule.warmup < 0.1 else []
        hints += ["train.precision=fp32"] if self.state.facts.precision == "bf16" else []
        epoch = (step - 1) // len(self.cuts) + 1
        return ModelError(f"{what} in epoch {epoch}, step {step} of {self.total}; {kept}try --set {' or '.join(hints)}")

    def show(self, samples: int, force: bool = False) -> None:
        """Tell the display about more samples done, a few times a second; look for NaN as often."""
        self.unshown += samples
        now = time.monotonic()
        if not force and now - self.shown_at < TICK:
            return
        self.shown_at = now
        self.require_finite()
        facts, done = self.state.facts, self.done_in_epoch()
        numbers: dict[str, float | str] = {"epoch": f"{min(facts.epoch + 1, self.settings.epochs)}/{self.settings.epochs}"}
        if done:
            numbers["loss"] = float(self.state.losses[max(0, done - 20) : done].mean())
        if self.selection.metric in facts.best:
            numbers[f"best {self.selection.metric}"] = facts.best[self.selection.metric]
        self.task.advance(self.unshown, **numbers)
        self.unshown = 0

    # ── small things ────────────────────────────────────────────────────────────────────────────────

    task: Task

    def done_in_epoch(self) -> int:
        """Steps of this epoch that are done."""
        return self.state.facts.step - self.state.facts.epoch * len(self.cuts)

    def elapsed(self) -> float:
        """Seconds of training, over all interruptions."""
        return self.state.facts.seconds + time.monotonic() - self.began

    def rehearse_step(self, chosen: precision.Precision) -> None:
        """A forward and backward pass that leaves weights, buffers, gradients and random numbers as they were."""
        before, generator, kept = checkpoint.weights(self.model), torch.get_rng_state(), self.state.facts.precision
        self.state.facts.precision = chosen
        self.model.train()
        self.gradient(torch.arange(*self.cuts[0]))
        self.optimizer.zero_grad(set_to_none=True)
        self.model.load_state_dict(before)
        torch.set_rng_state(generator)
        self.state.facts.precision = kept


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
        for batch in torch.split(features, max(batch_size, 256)):
            scores = model(batch) if weights is None else torch.func.functional_call(model, weights, (batch,))
            parts.append(scores.float())
    model.train(was_training)
    return torch.cat(parts) if len(parts) > 1 else parts[0]

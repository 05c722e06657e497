"""What a recipe's ``train`` section says, in the words of the field.

    train:
      epochs: 30
      batch_size: 64
      optimizer: {name: adamw, lr: 3.0e-3, weight_decay: 0.01}
      schedule: {name: cosine, warmup: 0.05}
      early_stopping: {metric: accuracy, patience: 5}

This is for networks; an estimator takes its settings from its constructor (``model``) and reads nothing of this section.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from groundup.metrics import DIRECTIONS
from groundup.sections import Section

Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Fraction = Annotated[float, Field(ge=0, lt=1)]


class Optimizer(Section):
    """The update rule.  Formulas as in torch.optim, whose fused kernels are used."""

    name: Literal["sgd", "adam", "adamw"] = "adamw"
    """Which rule."""
    lr: Positive = 3e-3
    """Peak learning rate; the schedule multiplies it."""
    weight_decay: NotNegative = 0.01
    """Decoupled from the gradient in adamw, an L2 penalty in sgd and adam.  Matrices and filters decay, vectors (biases, norms) do not."""
    momentum: Fraction = 0.9
    """Of sgd."""
    nesterov: bool = False
    """Of sgd."""
    betas: tuple[Fraction, Fraction] = (0.9, 0.999)
    """Of adam and adamw."""
    eps: Positive = 1e-8
    """Of adam and adamw."""


class Schedule(Section):
    """How the learning rate moves, as a factor of the optimizer's ``lr``."""

    name: Literal["constant", "linear", "cosine", "step", "inverse-sqrt"] = "cosine"
    """The shape after the warm-up."""
    warmup: NotNegative = 0.05
    """Below 1: the share of all steps that rise linearly from 0; from 1: that number of steps."""
    final: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Where linear and cosine end, as a factor of ``lr``."""
    every: Annotated[float, Field(gt=0, le=1)] = 0.3
    """Of step: the share of all steps after which the rate drops, again and again."""
    factor: Annotated[float, Field(gt=0, le=1)] = 0.1
    """Of step: what it is multiplied by."""


class EarlyStopping(Section):
    """Stop when a validation metric has not improved for ``patience`` epochs."""

    metric: str | None = None
    """One of the task's metrics, or "loss"; by default the task's headline."""
    patience: Annotated[int, Field(ge=1)] = 10
    """Epochs to wait for an improvement."""
    min_delta: NotNegative = 0.0
    """Smaller changes are no improvement."""

    @model_validator(mode="after")
    def _known(self) -> EarlyStopping:
        if self.metric is not None and self.metric not in {*DIRECTIONS, "loss"}:
            raise ValueError(f"unknown metric {self.metric!r}; known are loss, {', '.join(DIRECTIONS)}")
        return self


class Augment(Section):
    """Random changes to training images, drawn anew every epoch.  For features of shape (C, H, W) alone."""

    shift: Annotated[int, Field(ge=0)] = 0
    """At most this many pixels up, down, left and right; what moves in is the image's own edge repeated."""
    flip: bool = False
    """Mirror left and right with probability one half."""


class Checkpoint(Section):
    """When the state of the training is made durable; an interruption always does so too."""

    seconds: NotNegative = 15.0
    """At least this long between two; longer where writing would take over 2 % of the time."""
    epochs: Annotated[int, Field(ge=1)] | None = None
    """Also after every so many epochs, however short they are."""


class Train(Section):
    """How the model is fitted."""

    epochs: Annotated[int, Field(ge=1)] = 30
    """Passes over the training split."""
    batch_size: Annotated[int, Field(ge=1)] = 64
    """Samples that go forward together."""
    accumulate: Annotated[int, Field(ge=1)] = 1
    """Batches whose gradients make one step: a step sees batch_size × accumulate samples, and equals one such batch."""
    drop_last: bool = False
    """Leave out the samples that do not fill an epoch's last step.  Otherwise it is smaller; never a single sample (batch norm)."""
    optimizer: Optimizer = Optimizer()
    schedule: Schedule = Schedule()
    clip_norm: Positive | None = 1.0
    """Scale gradients down to this global norm."""
    label_smoothing: Fraction = 0.0
    """Share of each target that is spread over all classes."""
    class_weights: Literal["none", "balanced"] = "none"
    """balanced: every class weighs the same in the loss, however rare (N / (K · count))."""
    ema: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Decay of an exponential moving average of the weights; where set, it is what is evaluated and kept."""
    early_stopping: EarlyStopping | None = None
    augment: Augment = Augment()
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """bf16: forward and backward under autocast, weights and optimizer in fp32.  auto: fp32 for a training that fp32 finishes
    within a minute, with `deterministic`, or where the CPU has no bf16 instructions; else whichever a few timed steps find faster."""
    deterministic: bool = False
    """Refuse operations that can answer differently from run to run (torch.use_deterministic_algorithms)."""
    threads: Annotated[int, Field(ge=1)] | None = None
    """CPU threads; by default all that PyTorch sees.  Bit-equality holds for the same number."""
    checkpoint: Checkpoint = Checkpoint()

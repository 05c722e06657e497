"""Where a training stands: everything that its next step depends on, to and from a checkpoint."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from groundup.training import checkpoint
from groundup.training.ema import Ema
from groundup.training.precision import Precision


@dataclass
class Facts:
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
    precision: Precision = "fp32"
    threads: int = 0


@dataclass
class State:
    """The facts and the tensors.

    Attributes:
        losses: of this epoch's steps, NaN-free where done; 0 where yet to come.
        best: the best weights so far, a ``state_dict``, or {} before the first epoch's end.
        fingerprint: of model, data and settings; a checkpoint with another one is of another training.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    ema: Ema | None
    losses: Tensor
    fingerprint: str
    facts: Facts = field(default_factory=Facts)
    best: dict[str, Tensor] = field(default_factory=dict)

    def current(self) -> dict[str, Tensor]:
        """What is evaluated and kept: the averaged weights where there are any, else the model's; not a copy."""
        return self.ema.average if self.ema else self.model.state_dict()

    def is_finite(self) -> bool:
        """Whether all weights are numbers."""
        return all(bool(torch.isfinite(v).all()) for v in self.model.state_dict().values() if v.is_floating_point())

    def save(self, folder: Path, seconds: float) -> Path:
        """Write a checkpoint (see :mod:`groundup.training.checkpoint`); ``seconds`` is the time spent so far."""
        optimizer, scalars = checkpoint.pack_optimizer(self.optimizer)
        generators, generator_facts = checkpoint.pack_random()
        tensors = {
            **checkpoint.with_prefix("model", self.model.state_dict()),
            **checkpoint.with_prefix("ema", self.ema.average if self.ema else {}),
            **checkpoint.with_prefix("best", self.best),
            **checkpoint.with_prefix("optimizer", optimizer),
            **checkpoint.with_prefix("random", generators),
            "losses": self.losses,
        }
        facts = {
            "fingerprint": self.fingerprint,
            "optimizer": scalars,
            "random": generator_facts,
            "training": asdict(self.facts) | {"seconds": seconds},
        }
        return checkpoint.write(folder, self.facts.step, tensors, facts)

    def resume(self, folder: Path, note: Callable[[str], None]) -> bool:
        """Take up the newest usable checkpoint of this very training; False where there is none."""
        found = checkpoint.newest(folder, self.fingerprint, note)
        if found is None:
            return False
        tensors, facts = found
        self.facts = Facts(**facts["training"])
        self.model.load_state_dict(checkpoint.under("model", tensors))
        if self.ema:
            self.ema.average = checkpoint.under("ema", tensors)
        self.best = checkpoint.under("best", tensors)
        self.losses = tensors["losses"]
        checkpoint.unpack_optimizer(self.optimizer, checkpoint.under("optimizer", tensors), facts["optimizer"])
        checkpoint.unpack_random(checkpoint.under("random", tensors), facts["random"])
        return True

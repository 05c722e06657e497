"""Exponential moving average of the weights (Polyak averaging with a forgetting rate).

    θ̄ ← d θ̄ + (1 − d) θ,   d = min(decay, (1 + t) / (10 + t))

The second bound lets the average leave the random start quickly (TensorFlow's ``ExponentialMovingAverage``).  Floating
buffers (batch norm's statistics) are averaged with the weights that they describe, integer ones are copied.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Ema:
    """The average of a model's ``state_dict``, kept up to date by :meth:`update` after each step."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.average: dict[str, Tensor] = {k: v.detach().clone() for k, v in model.state_dict().items()}
        self.follow(model)

    def follow(self, model: nn.Module) -> None:
        """Look the model's tensors up again; called once an epoch, as a module may replace a buffer."""
        live = model.state_dict()
        floating = [k for k, v in live.items() if v.is_floating_point()]
        self._live, self._average = [live[k] for k in floating], [self.average[k] for k in floating]
        self._copied = [(self.average[k], live[k]) for k in live.keys() - set(floating)]

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take step ``step`` (counted from 1) into the average."""
        d = min(self.decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(self._average, self._live, 1 - d)
        for average, live in self._copied:
            average.copy_(live)

"""Random changes to a batch of training images (B, C, H, W), a function of (seed, epoch, sample) alone.

All of an epoch's draws are made at its start from a counter-based generator, one row a sample, so that a resumed epoch,
other batch sizes and accumulation see the same pictures.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from groundup.errors import RecipeError
from groundup.training.sampler import generator
from groundup.training.settings import Augment


class Augmenter:
    """Shifts and flips for one epoch."""

    def __init__(self, settings: Augment, seed: int, epoch: int, n: int) -> None:
        draws = generator(seed, epoch, purpose=1).random((n, 3))
        s = settings.shift
        self.shifts = torch.from_numpy(np.floor(draws[:, :2] * (2 * s + 1)).astype(np.int64) - s)  # (n, 2): down, right
        self.flips = torch.from_numpy(draws[:, 2] < 0.5) if settings.flip else torch.zeros(n, dtype=torch.bool)

    def __call__(self, X: Tensor, samples: Tensor) -> Tensor:
        """The batch ``X`` (B, C, H, W), whose rows are the data set's ``samples`` (B,), changed; the same shape."""
        B, C, H, W = X.shape
        down, right = self.shifts[samples].unbind(1)
        rows = (torch.arange(H) - down[:, None]).clamp_(0, H - 1)  # (B, H); clamping repeats the edge
        columns = (torch.arange(W) - right[:, None]).clamp_(0, W - 1)
        columns = torch.where(self.flips[samples][:, None], columns.flip(1), columns)
        pixels = (rows[:, :, None] * W + columns[:, None, :]).view(B, 1, H * W)
        return X.reshape(B, C, H * W).gather(2, pixels.expand(B, C, H * W)).view(B, C, H, W)


def wanted(settings: Augment, feature_shape: tuple[int, ...]) -> bool:
    """Whether there is anything to do; refuses features that are no images."""
    if not (settings.shift or settings.flip):
        return False
    if len(feature_shape) != 3:
        raise RecipeError(f"train.augment is for images (C, H, W); these features have shape {feature_shape}: remove it")
    return True

"""Convolutional network for images: 3 × 3 convolutions, halved and doubled, averaged, read out.

Paper: Simonyan & Zisserman 2015, "Very Deep Convolutional Networks for Large-Scale Image Recognition", section 2.1,
arXiv:1409.1556; batch normalization after Ioffe & Szegedy 2015, arXiv:1502.03167, algorithm 1.

    stage s = 1..n_stages, width C_s = width · 2^(s-1):
        n_convs times   x ← ReLU(BN(W ∗ x))           3 × 3, zero-padded, so height and width stay
        between stages  x ← maxpool 2 × 2             height and width halve
    scores = W · mean over height and width of x + b

What is unusual: (1) the read-out averages each channel over the image (Lin, Chen & Yan 2014, "Network In Network",
arXiv:1312.4400, section 3.2) where VGG has two dense layers of 4,096: no parameter depends on the size of the image.
(2) Convolutions have no bias, since batch normalization subtracts it again and brings its own (β); an inference
runtime folds both into one convolution, which is also what quantization wants to see.  (3) Dropout stands before the
read-out alone.
"""

from __future__ import annotations

import math
from typing import Annotated

import torch
from pydantic import Field, PositiveInt
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - its usual name

from groundup.errors import ModelError

TASKS = ("image-classification",)


class _Block(nn.Module):
    """x ← ReLU(BN(W ∗ x)), C_in channels to C_out, height and width kept."""

    def __init__(self, C_in: int, C_out: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(C_in, C_out, kernel_size=3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(C_out)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.norm(self.conv(x)))  # (B, C_in, H, W) -> (B, C_out, H, W)


class CNN(nn.Module):
    """A VGG-like network with batch normalization and an averaging read-out.

    Args:
        input_shape: (channels, height, width) of one image; filled in from the data.
        n_outputs: number of scores, one a class; filled in from the data.
        width: channels of the first stage; they double with every further stage.
        n_stages: number of stages; between two of them height and width halve.
        n_convs: 3 × 3 convolutions in each stage.
        dropout: share of the averaged channels that is zeroed in training.

    Raises:
        ModelError: the input is no image, or too small to be halved ``n_stages`` - 1 times.
    """

    def __init__(
        self,
        input_shape: tuple[int, ...],
        n_outputs: int,
        width: PositiveInt = 32,
        n_stages: PositiveInt = 2,
        n_convs: PositiveInt = 2,
        dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1,
    ) -> None:
        super().__init__()
        if len(input_shape) != 3:
            raise ModelError(
                f"cnn: expected images (channels, height, width), got features of shape {tuple(input_shape)}; for a table use mlp"
            )
        C, H, W = input_shape
        if min(H, W) < 2 ** (n_stages - 1):
            raise ModelError(
                f"cnn: an image of {H} × {W} cannot be halved {n_stages - 1} times; use n_stages of at most {int(math.log2(min(H, W))) + 1}"
            )
        self.dropout = dropout
        stages = []
        for s in range(n_stages):
            blocks = []
            for _ in range(n_convs):
                blocks.append(_Block(C, width << s))
                C = width << s
            stages.append(nn.Sequential(*blocks))
        self.stages = nn.ModuleList(stages)
        self.head = nn.Linear(C, n_outputs)
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Draw every weight anew: W ~ N(0, 2 / fan_out) keeps a ReLU network's gradients of one size (He et al. 2015, eq. 14).

        Batch normalization starts as the identity (γ = 1, β = 0), the read-out small and without bias.
        """
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                fan_out = module.out_channels * math.prod(module.kernel_size)
                module.weight.normal_(0, math.sqrt(2 / fan_out), generator=generator)
            elif isinstance(module, nn.BatchNorm2d):
                module.reset_parameters()
        self.head.weight.normal_(0, math.sqrt(1 / self.head.in_features), generator=generator)
        self.head.bias.zero_()

    def forward(self, x: Tensor) -> Tensor:
        """Scores (B, n_outputs) of images (B, C, H, W)."""
        for s, stage in enumerate(self.stages):
            if s:
                x = F.max_pool2d(x, 2)  # (B, C, H, W) -> (B, C, ⌊H/2⌋, ⌊W/2⌋)
            x = stage(x)  # (B, C_s, H, W)
        x = F.avg_pool2d(x, x.shape[2:]).flatten(1)  # (B, C)
        scores: Tensor = self.head(F.dropout(x, self.dropout, self.training))  # (B, n_outputs)
        return scores

"""A small network with everything that has state, small arrays, and surroundings that remember what they were told."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

from groundup.progress import Progress, Silent
from groundup.training.arrays import Arrays
from groundup.training.surroundings import Quiet


class Small(nn.Module):
    """Batch norm (buffers), dropout (random numbers), and a matrix (weight decay)."""

    def __init__(self, n_features: int = 5, n_outputs: int = 3) -> None:
        super().__init__()
        self.hidden, self.norm, self.out = nn.Linear(n_features, 7), nn.BatchNorm1d(7), nn.Linear(7, n_outputs)
        self.drop = nn.Dropout(0.2)

    def forward(self, X: Tensor) -> Tensor:
        return self.out(self.drop(torch.relu(self.norm(self.hidden(X.flatten(1))))))


class Notes(Silent):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def note(self, text: str) -> None:
        self.lines.append(text)


@dataclass
class Around(Quiet):
    """Surroundings that remember what they were told."""

    progress: Progress = field(default_factory=Notes)


def classification(n: int = 61, n_val: int = 23, shape: tuple[int, ...] = (5,), seed: int = 0) -> Arrays:
    """Three classes of points around three centres; sizes are primes, so that no batch divides them."""
    draw = np.random.default_rng(seed)
    y = draw.integers(0, 3, n + n_val)
    X = (draw.normal(size=(n + n_val, *shape)) + y.reshape(-1, *[1] * len(shape))).astype(np.float32)
    return Arrays("tabular-classification", X[:n], y[:n], X[n:], y[n:], 3)


def network(seed: int = 0, **sizes: int) -> Small:
    torch.manual_seed(seed)
    return Small(**sizes)

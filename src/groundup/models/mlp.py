"""Multi-layer perceptron: affine maps with a non-linearity between them, for tables and anything else that can be flattened.

Paper: Rumelhart, Hinton & Williams 1986, "Learning representations by back-propagating errors", Nature 323, equations 1-2.

    h_0 = x,   h_l = dropout(φ(W_l h_{l-1} + b_l))   for l = 1..n_layers,   scores = W h_{n_layers} + b

What is unusual: nothing is normalized inside.  Features come standardized from the recipe's transforms, and at two or
three layers the variance-keeping initialization is enough; a network without batch statistics answers the same
whatever the batch is, and exports to nothing but Gemm and φ.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Annotated, Literal

import torch
from pydantic import Field, NonNegativeInt, PositiveInt
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - its usual name

TASKS = ("tabular-classification", "tabular-regression", "image-classification")


class MLP(nn.Module):
    """A multi-layer perceptron with layers of one width.

    Args:
        input_shape: shape of one example, flattened to D features; filled in from the data.
        n_outputs: number of scores: one a class, or 1 for regression; filled in from the data.
        width: units of each hidden layer.
        n_layers: number of hidden layers; 0 is a linear model.
        activation: the non-linearity φ.
        dropout: share of the hidden units that is zeroed in training.
    """

    def __init__(
        self,
        input_shape: tuple[int, ...],
        n_outputs: int,
        width: PositiveInt = 128,
        n_layers: NonNegativeInt = 2,
        activation: Literal["relu", "gelu", "silu", "tanh"] = "relu",
        dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1,
    ) -> None:
        super().__init__()
        sizes = [math.prod(input_shape), *[width] * n_layers, n_outputs]
        self.activation, self.dropout = activation, dropout
        self.weights = nn.ParameterList([torch.empty(d_out, d_in) for d_in, d_out in pairwise(sizes)])
        self.biases = nn.ParameterList([torch.empty(d_out) for d_out in sizes[1:]])
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Draw every weight anew: W ~ N(0, gain² / fan_in), b = 0, which keeps the variance of the forward pass.

        gain² is 2 before ReLU and its kin (He et al. 2015, eq. 10), 1 before tanh and before the output (Glorot & Bengio 2010, eq. 5).
        """
        for i, (W, b) in enumerate(zip(self.weights, self.biases, strict=True)):
            hidden = i < len(self.weights) - 1
            gain2 = 2.0 if hidden and self.activation != "tanh" else 1.0
            W.normal_(0, math.sqrt(gain2 / W.shape[1]), generator=generator)
            b.zero_()

    def forward(self, x: Tensor) -> Tensor:
        """Scores (B, n_outputs) of examples (B, *input_shape)."""
        φ = getattr(F, self.activation) if self.activation != "tanh" else torch.tanh
        h = x.flatten(1)  # (B, D)
        for W, b in zip(self.weights[:-1], self.biases[:-1], strict=True):
            h = F.dropout(φ(F.linear(h, W, b)), self.dropout, self.training)  # (B, width)
        return F.linear(h, self.weights[-1], self.biases[-1])  # (B, n_outputs)

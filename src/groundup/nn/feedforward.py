"""The map that follows attention in every layer, token by token: one hidden layer, plain or gated.

Papers: Vaswani et al. 2017, arXiv:1706.03762, equation 2; Hendrycks & Gimpel 2016, arXiv:1606.08415 (GELU); Shazeer 2020,
"GLU Variants Improve Transformer", arXiv:2002.05202, equations 5-6 (gated).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - its usual name

Activation = Literal["relu", "gelu", "gelu_tanh", "silu"]
"""φ; ``gelu_tanh`` is GELU's approximation by tanh (Hendrycks & Gimpel, section 2), as GPT-2 has it."""

ACTIVATIONS: dict[Activation, Callable[[Tensor], Tensor]] = {
    "relu": F.relu,
    "gelu": F.gelu,
    "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "silu": F.silu,
}


def feed_forward(X: Tensor, W_1: Tensor, b_1: Tensor, W_2: Tensor, b_2: Tensor, φ: Activation = "relu") -> Tensor:
    """W_2 φ(W_1 X + b_1 1ᵀ) + b_2 1ᵀ, as lines 4 and 6 of algorithms 8 to 10 have it.

    Args:
        X: (d_e, l), one column a token.
        W_1, b_1: (d_mlp, d_e), (d_mlp,).
        W_2, b_2: (d_e, d_mlp), (d_e,).
    """
    return W_2 @ ACTIVATIONS[φ](W_1 @ X + b_1[:, None]) + b_2[:, None]


class FeedForward(nn.Module):
    """φ(x W_1ᵀ + b_1) W_2ᵀ + b_2 over batches (B, T, D).

    Args:
        d_model: D.
        d_ff: hidden units.
        activation: φ.
        bias: whether there are b_1 and b_2.
        dropout: share of the hidden units that is zeroed in training.
    """

    def __init__(self, d_model: int, d_ff: int, activation: Activation = "gelu", bias: bool = True, dropout: float = 0.0) -> None:
        super().__init__()
        self.activation, self.dropout = activation, dropout
        self.up = nn.Linear(d_model, d_ff, bias=bias)  # W_1, b_1
        self.down = nn.Linear(d_ff, d_model, bias=bias)  # W_2, b_2

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, D) -> (B, T, D)."""
        hidden = ACTIVATIONS[self.activation](self.up(x))
        y: Tensor = self.down(F.dropout(hidden, self.dropout, self.training) if self.dropout else hidden)
        return y


class GatedFeedForward(nn.Module):
    """(φ(x W_gᵀ) ⊙ x W_1ᵀ) W_2ᵀ over batches (B, T, D): SwiGLU for φ = silu, GEGLU for φ = gelu.  No biases.

    The two maps inwards are one matrix product, the gate's rows first.

    Args:
        d_model: D.
        d_ff: hidden units.
        activation: φ.
    """

    def __init__(self, d_model: int, d_ff: int, activation: Activation = "silu") -> None:
        super().__init__()
        self.activation = activation
        self.gate_up = nn.Linear(d_model, 2 * d_ff, bias=False)
        self.down = nn.Linear(d_ff, d_model, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, D) -> (B, T, D)."""
        gate, up = self.gate_up(x).chunk(2, dim=-1)
        y: Tensor = self.down(ACTIVATIONS[self.activation](gate) * up)
        return y


def normal_(module: nn.Module, std: float, generator: torch.Generator | None = None) -> None:
    """Draw every matrix of a network from N(0, std²), set biases to 0 and leave scales (γ) at 1."""
    with torch.no_grad():
        for name, p in module.named_parameters():
            if p.ndim >= 2:
                p.normal_(0, std, generator=generator)
            elif name.endswith("bias"):
                p.zero_()
            else:
                p.fill_(1)

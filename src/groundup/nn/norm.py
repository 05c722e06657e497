"""Normalization of one token's activations: layer normalization and its root-mean-square kin.

Paper: Phuong & Hutter 2022, arXiv:2207.09238, algorithm 6, after Ba, Kiros & Hinton 2016, "Layer Normalization",
arXiv:1607.06450, equations 3-4; RMSNorm: Zhang & Sennrich 2019, arXiv:1910.07467, equation 4.

What is unusual: nothing, and that is the point.  The variance is the biased one (divided by d, not d - 1) and ε stands
*inside* the root.  A widely copied implementation has both otherwise, and answers 1.5 where this gives 1.732 for the
first component of (1, 0, 0, 0).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - its usual name


def layer_norm(e: Tensor, γ: Tensor, β: Tensor, ε: float = 0.0) -> Tensor:
    """Algorithm 6: ê = (e - m) / √(v + ε) ⊙ γ + β, with m and v the mean and the variance of e's own components.

    Args:
        e: (d_e,), one token's activations.
        γ, β: (d_e,), scale and shift.
        ε: the page has none; implementations add about 1e-5 against a variance of zero.

    Returns:
        ê, (d_e,).

    >>> f"{layer_norm(torch.tensor([1.0, 0.0, 0.0, 0.0]), torch.ones(4), torch.zeros(4))[0]:.4f}"
    '1.7321'
    """
    m = e.sum() / len(e)
    v = ((e - m) ** 2).sum() / len(e)
    return (e - m) / torch.sqrt(v + ε) * γ + β


def rms_norm(e: Tensor, γ: Tensor, ε: float = 0.0) -> Tensor:
    """Equation 4 of Zhang & Sennrich: ê = e / RMS(e) ⊙ γ, RMS(e) = √(Σ e_i² / d + ε); no mean, no shift.

    Args:
        e: (d_e,), one token's activations.
        γ: (d_e,), scale.
    """
    return e / torch.sqrt((e**2).sum() / len(e) + ε) * γ


class LayerNorm(nn.Module):
    """Algorithm 6 over the last axis of a batch (B, T, D).

    Args:
        d_model: D.
        eps: ε.
        bias: whether there is a β (PaLM has none).
    """

    def __init__(self, d_model: int, eps: float = 1e-5, bias: bool = True) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(d_model))  # γ
        self.bias = nn.Parameter(torch.zeros(d_model)) if bias else None  # β

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, D) -> (B, T, D)."""
        return F.layer_norm(x, self.weight.shape, self.weight, self.bias, self.eps)


class RMSNorm(nn.Module):
    """Root-mean-square normalization over the last axis of a batch (B, T, D); the mean square is taken in float32 at least.

    Args:
        d_model: D.
        eps: ε.
    """

    def __init__(self, d_model: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(d_model))  # γ

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, D) -> (B, T, D)."""
        wide = x if x.dtype == torch.float64 else x.float()  # as Llama: a sum of squares in bfloat16 has 8 bits
        return self.weight * (wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + self.eps)).to(x.dtype)

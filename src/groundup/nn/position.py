"""Where a token stands, told inside attention: rotary positions and relative biases.

Papers: Su et al. 2021, "RoFormer", arXiv:2104.09864, equation 34 (rotary); Raffel et al. 2020, arXiv:1910.10683, section 2.1
(biases by distance, in buckets).

What is unusual: RoFormer turns the channel pairs (0, 1), (2, 3), ...; here, as in the Hugging Face libraries, channel i
is paired with i + d/2.  The two differ by the order of the channels alone, which the rows of W_q and W_k absorb; two
half-width products are faster than strided ones.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


def rotate(x: Tensor, t: int, base: float = 10_000.0) -> Tensor:
    """Equation 34 of RoFormer for one vector: each pair of channels turned by the angle t · base^(-2i/d).

    Args:
        x: (d,), a query or key; pairs are (0, 1), (2, 3), ...
        t: its position.

    Returns:
        (d,); the dot product of two rotated vectors depends on the difference of their positions only.
    """
    y = torch.empty_like(x)
    for i in range(len(x) // 2):
        θ = t * base ** (-2 * i / len(x))
        y[2 * i] = x[2 * i] * math.cos(θ) - x[2 * i + 1] * math.sin(θ)
        y[2 * i + 1] = x[2 * i] * math.sin(θ) + x[2 * i + 1] * math.cos(θ)
    return y


class Rotation:
    """Turns queries and keys (B, H, T, d) of tokens at given positions; made once a forward pass, used by every layer.

    Args:
        positions: (T,) or (B, T), integers.
        d_head: d; even.
        base: of the geometric series of angles.
        inverse_frequencies: (d / 2,), in place of ``base``'s (Llama 3 stretches them); angles have their dtype.  It is
            float32 where left out, since checkpoints were trained so: at t = 1,000 an angle is then off by 6e-5.
        dtype: of the queries.
    """

    def __init__(
        self,
        positions: Tensor,
        d_head: int,
        base: float = 10_000.0,
        *,
        inverse_frequencies: Tensor | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        if inverse_frequencies is None:
            inverse_frequencies = frequencies(d_head, base, device=positions.device)
        angle = positions[..., None].to(inverse_frequencies.dtype) * inverse_frequencies  # (..., T, d / 2)
        angle = angle if angle.ndim == 2 else angle[:, None]  # a head axis where there is a batch axis
        self.cos, self.sin = angle.cos().to(dtype), angle.sin().to(dtype)

    def __call__(self, x: Tensor) -> Tensor:
        """(B, H, T, d) -> (B, H, T, d)."""
        a, b = x.chunk(2, dim=-1)
        return torch.cat([a * self.cos - b * self.sin, b * self.cos + a * self.sin], dim=-1)


def frequencies(d_head: int, base: float = 10_000.0, *, dtype: torch.dtype = torch.float32, device: torch.device | None = None) -> Tensor:
    """base^(-2i/d) for i = 0 .. d/2 - 1, (d / 2,)."""
    return 1.0 / base ** (torch.arange(0, d_head, 2, dtype=dtype, device=device) / d_head)


class RelativeBias(nn.Module):
    """A learned number a head and bucket of distances, added to the scores of attention.

    Distances up to half of the buckets have one each; from there to ``max_distance`` the buckets widen logarithmically,
    and all beyond share the last.  For causal attention: distances are to the past.

    Args:
        n_heads: H.
        n_buckets: number of buckets.
        max_distance: the distance from which all share one.
    """

    def __init__(self, n_heads: int, n_buckets: int = 32, max_distance: int = 128) -> None:
        super().__init__()
        self.n_buckets, self.max_distance = n_buckets, max_distance
        self.weight = nn.Parameter(torch.zeros(n_buckets, n_heads))

    def forward(self, T: int, S: int) -> Tensor:
        """Biases (1, H, T, S) of T tokens that stand at the end of S."""
        device = self.weight.device
        t, s = torch.arange(S - T, S, device=device), torch.arange(S, device=device)
        bias: Tensor = self.weight[self.buckets((t[:, None] - s).clamp(min=0))].permute(2, 0, 1)[None]
        return bias

    def buckets(self, distance: Tensor) -> Tensor:
        """Bucket of each distance >= 0."""
        exact = self.n_buckets // 2
        growth = torch.log(distance.clamp(min=1).float() / exact) / math.log(self.max_distance / exact)  # float32, as T5's
        far = (exact + (growth * (self.n_buckets - exact)).long()).clamp(max=self.n_buckets - 1)
        return torch.where(distance < exact, distance, far)

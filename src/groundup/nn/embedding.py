"""Tokens to vectors and back: token embedding, positional embedding, unembedding.

Paper: Phuong & Hutter 2022, arXiv:2207.09238, algorithms 1, 2 and 7; the sinusoidal positions are those of Vaswani et al. 2017,
"Attention Is All You Need", arXiv:1706.03762, section 3.5.

What is unusual: the paper counts tokens and positions from 1, these functions from 0, as arrays do.
"""

from __future__ import annotations

import torch
from torch import Tensor


def token_embedding(v: int, W_e: Tensor) -> Tensor:
    """Algorithm 1: the vector of a token, e = W_e[:, v].

    Args:
        v: the token, 0 <= v < N_V.
        W_e: (d_e, N_V), one column a token.

    Returns:
        e, (d_e,).
    """
    return W_e[:, v]


def positional_embedding(t: int, W_p: Tensor) -> Tensor:
    """Algorithm 2: the vector of a position, e_p = W_p[:, t].

    Args:
        t: the position, 0 <= t < l_max.
        W_p: (d_e, l_max), one column a position, learned or :func:`sinusoids`.

    Returns:
        e_p, (d_e,).
    """
    return W_p[:, t]


def unembedding(e: Tensor, W_u: Tensor) -> Tensor:
    """Algorithm 7: a distribution over the vocabulary, p = softmax(W_u e).

    Args:
        e: (d_e,), what the network made of a token.
        W_u: (N_V, d_e), one row a token.

    Returns:
        p, (N_V,), non-negative, sums to 1.
    """
    return torch.softmax(W_u @ e, dim=0)


def sinusoids(
    l_max: int, d_e: int, *, halves: bool = False, dtype: torch.dtype | None = None, device: torch.device | None = None
) -> Tensor:
    """Positions as waves, section 3.5 of Vaswani et al.: PE[t, 2i] = sin(t / 10000^(2i/d_e)), PE[t, 2i+1] its cosine.

    Args:
        l_max: number of positions.
        d_e: width; even.
        halves: all sines before all cosines, as Marian stores them (the same numbers in another order of the channels).

    Returns:
        (l_max, d_e), computed in float64 and rounded once.

    >>> [f"{wave:.4f}" for wave in sinusoids(2, 4)[1]]
    ['0.8415', '0.5403', '0.0100', '0.9999']
    """
    if d_e % 2:
        raise ValueError(f"expected an even width, got {d_e}: each wave takes a sine and a cosine")
    i = torch.arange(0, d_e, 2, dtype=torch.float64, device=device)  # 2i
    angle = torch.arange(l_max, dtype=torch.float64, device=device)[:, None] / 10_000 ** (i / d_e)  # (l_max, d_e / 2)
    waves = torch.stack([angle.sin(), angle.cos()], dim=1 if halves else 2)  # (l_max, 2, d_e / 2) or (l_max, d_e / 2, 2)
    return waves.reshape(l_max, d_e).to(dtype or torch.get_default_dtype())

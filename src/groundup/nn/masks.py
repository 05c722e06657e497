"""Which token may look at which, from what is known of a batch: its padding, and where one document ends and the next begins."""

from __future__ import annotations

import torch
from torch import Tensor


def visible(T: int, mask: Tensor | None = None, segments: Tensor | None = None, *, causal: bool = False) -> Tensor | None:
    """The attention mask of the last T of S tokens; None where every token sees every token.

    Args:
        T: tokens that ask; the last of the S.
        mask: (B, S), true for a token, false for padding, on either side.
        segments: (B, S), the number of the document that a token belongs to, where several are packed into a row.
        causal: leaves the rule "none after itself" to the attention, but lets a padding token see itself: a row
            without any true has no softmax.

    Returns:
        bool, (B, 1, 1, S) or (B, 1, T, S).
    """
    seen = None if mask is None else mask.bool()[:, None, None, :]
    if segments is not None:
        same = (segments[:, -T:, None] == segments[:, None, :])[:, None]
        seen = same if seen is None else seen & same
    if seen is not None and causal and mask is not None:
        S = mask.shape[1]
        seen = seen | torch.eye(S, dtype=torch.bool, device=mask.device)[S - T :]
    return seen


def positions(
    T: int, mask: Tensor | None = None, segments: Tensor | None = None, *, start: int = 0, device: torch.device | None = None
) -> Tensor:
    """The position of each of the last T tokens: counted from 0, over padding on the left, anew in each packed document.

    Args:
        T: tokens.
        mask, segments: as for :func:`visible`, over all S tokens so far.
        start: tokens before these T, where neither is given.

    Returns:
        integers, (T,) where every row counts alike, else (B, T).
    """
    if segments is not None:
        n = torch.arange(segments.shape[1], device=segments.device).expand_as(segments)
        first = torch.ones_like(segments, dtype=torch.bool)
        first[:, 1:] = segments[:, 1:] != segments[:, :-1]
        return (n - torch.where(first, n, 0).cummax(1).values)[:, -T:]
    if mask is not None:
        return (mask.long().cumsum(1) - 1).clamp(min=0)[:, -T:]
    return torch.arange(start, start + T, device=device)

"""One example through a network that is only looked at: evaluating, without gradients, left as it was."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from groundup.errors import ModelError


@contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """No dropout and no gradients inside; afterwards every module trains or not as before."""
    before = {module: module.training for module in network.modules()}
    network.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, training in before.items():
            module.training = training


def one_example(network: nn.Module, tokens: Sequence[int] | Tensor, vocab_size: int | None = None) -> Tensor:
    """Tokens (T,) or (1, T) as (1, T), where the network is.

    Args:
        tokens: numbers of tokens of one text.
        vocab_size: numbers that there are; the network's own where left out.

    Raises:
        ModelError: none, several examples, or a number that is no token of the network.
    """
    given = torch.as_tensor(tokens)
    if given.numel() == 0:
        raise ModelError("expected one token at least, got an empty text; there is nothing to look at")
    if given.ndim > 2 or (given.ndim == 2 and len(given) != 1) or given.is_floating_point():
        raise ModelError(f"expected the tokens of one text, integers (T,) or (1, T), got {given.dtype} {tuple(given.shape)}")
    given = given.reshape(1, -1)
    size = vocab_size or getattr(network, "vocab_size", None)
    wrong = (given < 0) | (given >= size) if size is not None else torch.zeros_like(given, dtype=torch.bool)
    if wrong.any():
        at = int(wrong[0].nonzero()[0])
        raise ModelError(
            f"token {at} is {int(given[0, at])}, and the network has the tokens 0 to {size - 1 if size else 0}; is the tokenizer its own?"
        )
    return given.to(next(iter(network.parameters())).device)

"""What generation needs of a network, whoever computes it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Logits = NDArray[np.float32]


class Decoder(Protocol):
    """A network that reads prompts once and then one token a row at a time.

    Attributes:
        vocab_size: number of tokens N_V.
        context: longest sequence, prompt and continuation together.
    """

    vocab_size: int
    context: int

    def start(self, prompts: Sequence[Sequence[int]], capacity: int) -> Logits:
        """Read prompts of any lengths, one a row, forgetting what was read before.

        Args:
            prompts: B sequences of tokens.
            capacity: tokens a row that there shall be room for, prompt included.

        Returns:
            (B, N_V), the logits of each row's next token.
        """
        ...

    def step(self, tokens: Sequence[int]) -> Logits:
        """Read one more token a row; the next token's logits, (B, N_V)."""
        ...

    def select(self, rows: Sequence[int]) -> None:
        """Row i becomes what row ``rows[i]`` was; there may be fewer rows than before, not more."""
        ...

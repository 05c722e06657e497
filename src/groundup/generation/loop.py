"""Writing one token after another, for a batch of prompts of any lengths, until each is full or ends."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from groundup.errors import DataError
from groundup.generation.beam import beam_search
from groundup.generation.decoder import Decoder
from groundup.generation.sampling import Sampling, choose

Finish = Literal["length", "end"]


@dataclass
class Generated:
    """One continuation.

    Attributes:
        tokens: what was written, the end token left out.
        finish: why it stopped: it was full, or an end token came.
    """

    tokens: list[int]
    finish: Finish = "length"


def check(decoder: Decoder, prompts: Sequence[Sequence[int]], max_tokens: int) -> int:
    """Tokens that a row needs room for.

    Raises:
        DataError: an empty prompt, a token that is not in the vocabulary, no room left for the text.
    """
    longest = 0
    for i, prompt in enumerate(prompts):
        if len(prompt) == 0:
            raise DataError(f"prompt {i + 1} is empty; a text starts from one token at least, such as the tokenizer's begin-of-text")
        wrong = [t for t in prompt if not 0 <= t < decoder.vocab_size]
        if wrong:
            raise DataError(f"prompt {i + 1}: token {wrong[0]} is outside the vocabulary 0..{decoder.vocab_size - 1}; another tokenizer's?")
        longest = max(longest, len(prompt))
    if longest >= decoder.context:
        raise DataError(f"a prompt of {longest} tokens leaves no room in a context of {decoder.context}; shorten it")
    return min(longest + max_tokens, decoder.context)


def stream(decoder: Decoder, prompts: Sequence[Sequence[int]], settings: Sampling, end: Collection[int] = ()) -> Iterator[tuple[int, int]]:
    """Write, yielding (row, token) as each is chosen; an end token is yielded too and ends its row.

    A reader that leaves (closes the iterator) stops the writing.

    Raises:
        DataError: see :func:`check`; several beams, which know their text only at the end.
    """
    if settings.beams > 1:
        raise DataError(f"{settings.beams} beams know their text only at the end and cannot be streamed; set beams 1, or use generate()")
    capacity = check(decoder, prompts, settings.max_tokens)
    rngs = [np.random.default_rng(None if settings.seed is None else [settings.seed, row]) for row in range(len(prompts))]
    texts = [list(prompt) for prompt in prompts]
    rows = list(range(len(prompts)))
    logits = decoder.start(prompts, capacity)
    while rows:
        chosen, keep = [], []
        for i, row in enumerate(rows):
            token = choose(logits[i], texts[row], settings, rngs[row])
            texts[row].append(token)
            yield row, token
            full = len(texts[row]) - len(prompts[row]) >= settings.max_tokens or len(texts[row]) >= decoder.context
            if token not in end and not full:
                chosen.append(token)
                keep.append(i)
        if len(keep) < len(rows):
            decoder.select(keep)
            rows = [rows[i] for i in keep]
        if rows:
            logits = decoder.step(chosen)


def generate(decoder: Decoder, prompts: Sequence[Sequence[int]], settings: Sampling, end: Collection[int] = ()) -> list[Generated]:
    """Continue each prompt.

    Args:
        prompts: tokens, one sequence a row; rows do not influence one another.
        settings: how tokens are chosen; stop strings are found in text, not here.
        end: tokens that end a text.

    Raises:
        DataError: see :func:`check`.
    """
    if settings.beams > 1:
        check(decoder, prompts, settings.max_tokens)
        found = [beam_search(decoder, prompt, settings, end) for prompt in prompts]
        return [Generated(tokens, "end" if ended else "length") for tokens, ended in found]
    out = [Generated([]) for _ in prompts]
    for row, token in stream(decoder, prompts, settings, end):
        if token in end:
            out[row].finish = "end"
        else:
            out[row].tokens.append(token)
    return out

"""A text and a network to look inside of: a checkpoint's with its tokenizer, or a small one of bytes that has learned nothing."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from groundup import catalogue
from groundup.data import tokenizers
from groundup.errors import DataError, ModelError, RecipeError
from groundup.inside.attention import AttentionMaps, attention_maps
from groundup.inside.lens import Lens, logit_lens
from groundup.inside.running import one_example
from groundup.inside.steps import Steps, trace_steps

SMALL = {"vocab_size": 256, "n_layers": 2, "n_heads": 4, "d_model": 64, "d_head": 16, "d_ff": 256, "context": 512}
"""What the small network is built with, as far as its constructor takes it."""


@dataclass(frozen=True)
class Example:
    """One text, ready to be looked at.

    Attributes:
        network: evaluating.
        tokens: numbers.
        labels: the piece of the text that each is.
        name: the text of a token's number.
        note: what network this is.
    """

    network: nn.Module
    tokens: tuple[int, ...]
    labels: tuple[str, ...]
    name: Callable[[int], str]
    note: str

    def steps(self) -> Steps:
        """Every intermediate value."""
        return trace_steps(self.network, one_example(self.network, self.tokens))

    def attention(self) -> AttentionMaps:
        """Who looks at whom."""
        return attention_maps(self.network, self.tokens, labels=self.labels)

    def lens(self) -> Lens:
        """What every layer would say."""
        return logit_lens(self.network, self.tokens, labels=self.labels, name=self.name)


def example(name: str, text: str, checkpoint: str | Path | None = None) -> Example:
    """A text in a network of the catalogue.

    Args:
        name: of the kind "sequence", with one text as its input.
        text: what it reads.
        checkpoint: folder with its weights and a tokenizer; left out, a small network is drawn (seed 0) over the bytes of UTF-8.

    Raises:
        RecipeError: no such model, or one that reads features, or two texts.
        ModelError: the checkpoint is of another architecture or damaged; no token, or one that the network does not have.
        DataError: the text is empty or cannot be written; the folder has no tokenizer, or one that refuses the text.
    """
    entry = catalogue.find(name)
    if entry.kind != "sequence":
        raise RecipeError(f"{name} reads features, not tokens; a text can be traced through {', '.join(catalogue.names('sequence'))}")
    if not text:
        raise DataError("expected a text to trace, got an empty one; write: groundup models gpt --trace 'Hello'")
    cls: Any = getattr(importlib.import_module(entry.module), entry.class_name)
    if hasattr(cls, "encode"):
        raise RecipeError(f"{name} reads a source and a target; look inside it from Python, with groundup.inside.attention_maps")
    return _drawn(cls, entry, text) if checkpoint is None else _loaded(cls, Path(checkpoint), text)


def _drawn(cls: Any, entry: catalogue.Entry, text: str) -> Example:
    names = {parameter.name for parameter in entry.parameters}
    config = {k: v for k, v in SMALL.items() if k in names}
    try:
        data = text.encode("utf-8")
    except UnicodeEncodeError as e:
        raise DataError(f"character {e.start} of the text is half of a surrogate pair, which no UTF-8 can write; leave it out") from e
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = cls(**config).eval()
    shown = ", ".join(f"{k} {v}" for k, v in config.items())
    note = f"a small random network ({shown}) that reads bytes and has learned nothing; --checkpoint FOLDER shows a trained one"
    return Example(network, tuple(data), tuple(map(_byte, data)), _byte, note)


def _byte(number: int) -> str:
    """ASCII as it is, other bytes by their number."""
    return chr(number) if number < 128 else f"x{number:02X}"


def _loaded(cls: Any, folder: Path, text: str) -> Example:
    network = cls.from_pretrained(folder)
    tokenizer = tokenizers.load(folder)
    encoding = tokenizer.encoding(text)
    if not encoding.ids:
        raise DataError(f"the tokenizer of {folder} makes no token of {text!r}; there is nothing to trace")
    if max(encoding.ids) >= network.vocab_size:
        raise ModelError(
            f"{folder}: the tokenizer has {tokenizer.vocab_size} tokens and the network {network.vocab_size}, so token {max(encoding.ids)}"
            " has no embedding; tokenizer and weights are of two checkpoints"
        )

    def name(i: int) -> str:
        if i >= tokenizer.vocab_size:  # rows that fill a matrix up to a round size
            return f"token {i}"
        told = tokenizer.decode([i], skip_special=False)
        return tokenizer.tokens[i] if not told or "\N{REPLACEMENT CHARACTER}" in told else told

    pieces = tuple(text[a:b] or name(i) for i, (a, b) in zip(encoding.ids, encoding.offsets, strict=True))
    return Example(network, tuple(encoding.ids), pieces, name, f"the network of {folder}")

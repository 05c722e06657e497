"""The invariants of language models: each is seen to break when a network breaks it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from groundup.models.gpt import GPT
from groundup.proof.language import prove_language_model

SIZES: dict[str, Any] = {"vocab_size": 31, "n_layers": 1, "n_heads": 2, "d_model": 10, "context": 17, "dropout": 0.0}


class LooksAhead(GPT):
    def hidden(self, tokens: Tensor, **how: Any) -> Tensor:
        return super().hidden(tokens, **how) + self.tokens(tokens).mean(1, keepdim=True)


class IgnoresPadding(GPT):
    def hidden(self, tokens: Tensor, mask: Tensor | None = None, **how: Any) -> Tensor:
        return super().hidden(tokens, **how)


class IgnoresDocuments(GPT):
    def hidden(self, tokens: Tensor, segments: Tensor | None = None, **how: Any) -> Tensor:
        return super().hidden(tokens, **how)


class ForgetsPositions(GPT):
    def hidden(self, tokens: Tensor, cache: Any = None, **how: Any) -> Tensor:
        x = super().hidden(tokens, cache=cache, **how)
        return x * (1.01 if cache is not None and cache.length > 3 else 1.0)


class MixesExamples(GPT):
    def hidden(self, tokens: Tensor, **how: Any) -> Tensor:
        x = super().hidden(tokens, **how)
        return x - 0.1 * x.mean(0, keepdim=True)


@pytest.mark.parametrize(
    ("cls", "claim"),
    [
        (LooksAhead, "bit-equal"),
        (IgnoresPadding, "padding"),
        (IgnoresDocuments, "packed"),
        (ForgetsPositions, "cache"),
        (MixesExamples, "accumulated"),
    ],
)
def test_a_broken_network_is_seen(cls: type[GPT], claim: str) -> None:
    assert all(p.passed for p in prove_language_model("gpt", [GPT(**SIZES)]))
    failed = [p for p in prove_language_model("gpt", [cls(**SIZES)]) if not p.passed]
    assert any(claim in p.claim for p in failed), [p.claim for p in failed]


class Deaf(GPT):
    def hidden(self, tokens: Tensor, **how: Any) -> Tensor:
        return super().hidden(torch.zeros_like(tokens), **how)


def test_a_network_that_ignores_its_input_is_not_called_causal() -> None:
    proofs = prove_language_model("gpt", [Deaf(**SIZES)])
    assert not next(p for p in proofs if "bit-equal" in p.claim).passed

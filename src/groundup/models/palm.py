"""Decoder-only transformer whose layers do everything at once: as GPT, except that attention and feed-forward map read the same input.

Paper: Chowdhery et al. 2022, "PaLM: Scaling Language Modeling with Pathways", arXiv:2204.02311, sections 2 and 5.

    x_t = E[tokens_t],  E ~ N(0, 1)
    n_layers times   y = LN(x),  x ← x + MHAttention(y, rotated) + W_2 (silu(W_g y) ⊙ W_1 y)
    logits = LN(x) Eᵀ / √D

What is unusual: (1) the two parts of a layer are parallel, with one normalization between them; ``llama`` has the same
parts one after another.  (2) All query heads share one head of keys and values, so the cache is 1 / n_heads of GPT's.
(3) No biases, in the normalizations neither (γ alone).  (4) The embedding is drawn with variance 1, since nothing
normalizes it, and the logits that it makes as unembedding are divided by √D for it.  (5) Nobody published weights; its
checkpoint folders have the layout of the others, with our names.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping
from typing import Any

import torch
from pydantic import PositiveInt
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - its usual name

from groundup.errors import ModelError
from groundup.nn.attention import MultiHeadAttention
from groundup.nn.cache import Cache
from groundup.nn.checkpoint import Source
from groundup.nn.decoder_only import DecoderOnly
from groundup.nn.feedforward import GatedFeedForward
from groundup.nn.masks import positions, visible
from groundup.nn.norm import LayerNorm
from groundup.nn.position import Rotation, frequencies
from groundup.nn.presets import Preset
from groundup.nn.trace import Trace

TASKS = ("language-modelling",)
PRESETS = {
    "palm-8b": Preset({}, 8.63e9, "Chowdhery et al. 2022, table 1"),
    "palm-62b": Preset({"n_layers": 64, "n_heads": 32, "d_model": 8192}, 62.50e9, "Chowdhery et al. 2022, table 1"),
    "palm-540b": Preset(
        {"n_layers": 118, "n_heads": 48, "d_model": 18432, "d_head": 256},
        540.35e9,
        "Chowdhery et al. 2022, table 1: 48 heads of 256 are narrower together (12,288) than d_model",
    ),
}
"""Published sizes by name."""


class Block(nn.Module):
    """One layer: attention and gated feed-forward of the same normalized input, both added to what came in."""

    def __init__(self, d_model: int, n_heads: int, d_head: int, d_ff: int, eps: float) -> None:
        super().__init__()
        self.norm = LayerNorm(d_model, eps, bias=False)
        self.attention = MultiHeadAttention(d_model, n_heads, n_kv_heads=1, d_head=d_head, bias=False)
        self.mlp = GatedFeedForward(d_model, d_ff, "silu")

    def forward(self, x: Tensor, **how: Any) -> Tensor:
        """(B, T, D) -> (B, T, D)."""
        y = self.norm(x)
        answer: Tensor = x + self.attention(y, causal=True, **how) + self.mlp(y)
        return answer


class PaLM(DecoderOnly):
    """A decoder-only transformer over tokens, with parallel layers and multi-query attention.

    Args:
        vocab_size: number of tokens N_V.
        n_layers: number of layers.
        n_heads: query heads of each layer; keys and values have one.
        d_model: width of a token's activations.
        d_head: width of one head, even; d_model / n_heads where left out.
        d_ff: hidden units of the feed-forward map; 4 d_model where left out.
        context: tokens that it was, or is to be, trained on at a time.
        eps: ε of the normalizations; the paper does not say.

    Raises:
        ModelError: d_model is no multiple of n_heads and d_head is left out; an odd head width.
    """

    MODEL_TYPES = ("palm",)

    def __init__(
        self,
        vocab_size: PositiveInt = 256000,
        n_layers: PositiveInt = 32,
        n_heads: PositiveInt = 16,
        d_model: PositiveInt = 4096,
        d_head: PositiveInt | None = None,
        d_ff: PositiveInt | None = None,
        context: PositiveInt = 2048,
        eps: float = 1e-6,
    ) -> None:
        super().__init__()
        if d_head is None and d_model % n_heads:
            raise ModelError(f"palm: d_model {d_model} is no multiple of n_heads {n_heads}; change one, or give d_head")
        self.d_head = d_head or d_model // n_heads
        if self.d_head % 2:
            raise ModelError(f"palm: heads are {self.d_head} wide, and rotary positions turn pairs of channels; make it even")
        self.vocab_size, self.n_layers, self.d_model = vocab_size, n_layers, d_model
        self.n_heads, self.n_kv_heads = n_heads, 1
        self.d_ff, self.context, self.eps = d_ff or 4 * d_model, context, eps
        self.tokens = nn.Embedding(vocab_size, d_model)  # E
        self.blocks = nn.ModuleList(Block(d_model, n_heads, self.d_head, self.d_ff, eps) for _ in range(n_layers))
        self.final_norm = LayerNorm(d_model, eps, bias=False)
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """W ~ N(0, 1 / n_in), E ~ N(0, 1), γ = 1 (section 5)."""
        for name, p in self.named_parameters():
            if p.ndim == 2:
                p.normal_(0, 1.0 if name == "tokens.weight" else p.shape[1] ** -0.5, generator=generator)
            else:
                p.fill_(1)

    def hidden(
        self,
        tokens: Tensor,
        *,
        mask: Tensor | None = None,
        segments: Tensor | None = None,
        cache: Cache | None = None,
        trace: Trace | None = None,
    ) -> Tensor:
        """What :meth:`forward` unembeds, (B, T, D)."""
        T, before = self.span(tokens, cache)
        x: Tensor = self.tokens(tokens)  # (B, T, D)
        exact = torch.float64 if x.dtype == torch.float64 else torch.float32
        ω = frequencies(self.d_head, dtype=exact, device=tokens.device)
        at = positions(T, mask, segments, start=before, device=tokens.device)
        rotation = Rotation(at, self.d_head, inverse_frequencies=ω, dtype=x.dtype)
        return self.through(x, cache, trace, mask=visible(T, mask, segments, causal=True), rotation=rotation)

    def unembed(self, x: Tensor) -> Tensor:
        """Logits (B, T, N_V) of hidden states (B, T, D): the shared embedding is large, so they are scaled down (section 5)."""
        return F.linear(x / math.sqrt(self.d_model), self.tokens.weight)

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> dict[str, Any]:
        """The constructor's arguments, by their own names."""
        return {name: config[name] for name in inspect.signature(cls).parameters if name in config}

    def to_config(self) -> dict[str, Any]:
        """The constructor's arguments, by their own names."""
        arguments = {name: getattr(self, name) for name in inspect.signature(type(self)).parameters}
        return {"architectures": ["PaLM"], "model_type": "palm"} | arguments

    def sources(self) -> dict[str, Source]:
        """Every tensor by its own name."""
        return {name: Source((name,)) for name in self.state_dict()}

"""What the decoder-only networks share around their equations: logits of hidden states, the walk through the layers, the cache."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - its usual name

from groundup.errors import ModelError
from groundup.nn.cache import Cache
from groundup.nn.checkpoint import Pretrained
from groundup.nn.trace import Trace


class DecoderOnly(Pretrained):
    """A network that predicts the next token after each token.

    A subclass has the sizes below, ``tokens`` (the embedding), ``blocks``, ``final_norm``, and :meth:`hidden`, which
    embeds, decides who sees whom, and calls :meth:`through`.
    """

    vocab_size: int
    context: int
    n_layers: int
    n_heads: int
    d_head: int
    tokens: nn.Embedding
    blocks: nn.ModuleList
    final_norm: nn.Module

    def forward(
        self,
        tokens: Tensor,
        *,
        mask: Tensor | None = None,
        segments: Tensor | None = None,
        cache: Cache | None = None,
        trace: Trace | None = None,
        last: bool = False,
    ) -> Tensor:
        """Logits of the next token after each token.

        Args:
            tokens: (B, T), integers.
            mask: (B, S), false for padding, over the tokens in the cache and these; positions are counted without it.
            segments: (B, S), numbers of packed documents; tokens see their own document only.
            cache: read and extended; made by :meth:`new_cache`.
            trace: is shown every intermediate value.
            last: the logits after the last token alone.

        Returns:
            (B, T, N_V), or (B, 1, N_V) for ``last``.

        Raises:
            ModelError: more tokens than the context.
        """
        x = self.hidden(tokens, mask=mask, segments=segments, cache=cache, trace=trace)
        logits = self.unembed(x[:, -1:] if last else x)
        if trace is not None:
            trace.see("logits", logits)
        return logits

    @abstractmethod
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

    def unembed(self, x: Tensor) -> Tensor:
        """Logits (B, T, N_V) of hidden states (B, T, D); by the embedding's transpose unless a subclass has its own map."""
        return F.linear(x, self.tokens.weight)

    def span(self, tokens: Tensor, cache: Cache | None) -> tuple[int, int]:
        """How many tokens there are, and how many come before them in the cache.

        Raises:
            ModelError: together they are more than the context.
        """
        T, before = tokens.shape[1], cache.length if cache is not None else 0
        if before + T > self.context:
            name = type(self).__name__.lower()
            raise ModelError(f"{name}: {before + T} tokens, and the context is {self.context}; shorten the text")
        return T, before

    def through(self, x: Tensor, cache: Cache | None, trace: Trace | None, **how: Any) -> Tensor:
        """Embedded tokens (B, T, D) through all layers and the last norm.

        Args:
            how: what every layer is called with: a mask, a rotation, a bias.
        """
        if trace is not None:
            trace.see("embedding", x)
        for i, block in enumerate(self.blocks):
            part = trace.within(f"block.{i}") if trace is not None else None
            x = block(x, cache=None if cache is None else cache[i], trace=part, **how)
            if part is not None:
                part.see("output", x)
        x = self.final_norm(x)
        if trace is not None:
            trace.see("final_norm", x)
        return x

    def new_cache(self, batch: int, capacity: int | None = None) -> Cache:
        """An empty cache for ``batch`` sequences of at most ``capacity`` tokens (the context where left out)."""
        W, heads = self.tokens.weight, getattr(self, "n_kv_heads", self.n_heads)
        return Cache(self.n_layers, batch, heads, capacity or self.context, self.d_head, dtype=W.dtype, device=W.device)

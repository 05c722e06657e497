"""Networks as generation wants them: prompts padded on the left into one batch, then a token a row with the cache."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from groundup.errors import DataError
from groundup.nn.cache import Cache, DecoderCache


class _Network(Protocol):
    vocab_size: int
    context: int

    def new_cache(self, batch: int, capacity: int | None = None) -> Cache: ...

    def __call__(self, tokens: Tensor, *, mask: Tensor | None, cache: Cache, last: bool) -> Tensor: ...

    def parameters(self) -> Any: ...


class NetworkDecoder:
    """A :class:`groundup.generation.Decoder` over GPT, Llama and their kin.

    Args:
        network: evaluating; it is not changed.
    """

    def __init__(self, network: _Network) -> None:
        self.network, self.vocab_size, self.context = network, network.vocab_size, network.context
        self._device = next(iter(network.parameters())).device
        self._cache: Cache | None = None
        self._mask: Tensor | None = None

    @torch.inference_mode()
    def start(self, prompts: Sequence[Sequence[int]], capacity: int) -> NDArray[np.float32]:
        """Read prompts; see :meth:`groundup.generation.Decoder.start`."""
        T = max(map(len, prompts))
        self._cache = self.network.new_cache(len(prompts), capacity)
        tokens = torch.tensor([[0] * (T - len(p)) + list(p) for p in prompts], device=self._device)
        real = [[0] * (T - len(p)) + [1] * len(p) for p in prompts]
        ragged = any(len(p) < T for p in prompts)
        self._mask = torch.tensor(real, dtype=torch.bool, device=self._device) if ragged else None
        return self._read(tokens)

    @torch.inference_mode()
    def step(self, tokens: Sequence[int]) -> NDArray[np.float32]:
        """Read one more token a row."""
        if self._mask is not None:
            self._mask = torch.cat([self._mask, self._mask.new_ones(len(tokens), 1)], dim=1)
        return self._read(torch.tensor(tokens, device=self._device)[:, None])

    def select(self, rows: Sequence[int]) -> None:
        """Reorder or drop rows."""
        assert self._cache is not None, "start() comes first"
        with torch.inference_mode():
            self._cache.select(rows)
            if self._mask is not None:
                self._mask = self._mask[torch.as_tensor(rows, dtype=torch.long, device=self._device)]

    def _read(self, tokens: Tensor) -> NDArray[np.float32]:
        assert self._cache is not None, "start() comes first"
        logits = self.network(tokens, mask=self._mask, cache=self._cache, last=True)[:, -1]
        answer: NDArray[np.float32] = logits.float().cpu().numpy()
        return answer


class _Translator(Protocol):
    vocab_size: int
    target_vocab_size: int | None
    context: int

    def new_cache(self, batch: int, source: int, capacity: int | None = None) -> DecoderCache: ...

    def encode(self, source: Tensor, *, mask: Tensor | None) -> Tensor: ...

    def decode(
        self, target: Tensor, z: Tensor | None, *, source_mask: Tensor | None, target_mask: Tensor | None, cache: DecoderCache, last: bool
    ) -> Tensor: ...

    def parameters(self) -> Any: ...


class TranslationDecoder:
    """A :class:`groundup.generation.Decoder` over an encoder-decoder: it writes targets, and each row has its source.

    Args:
        network: evaluating; it is not changed.
        sources: one for each prompt (a target's beginning) that is read, or a single one for all of them.
    """

    def __init__(self, network: _Translator, sources: Sequence[Sequence[int]]) -> None:
        self.network, self.vocab_size, self.context = network, network.target_vocab_size or network.vocab_size, network.context
        self.sources, self._device = [list(source) for source in sources], next(iter(network.parameters())).device
        self._cache: DecoderCache | None = None

    @torch.inference_mode()
    def start(self, prompts: Sequence[Sequence[int]], capacity: int) -> NDArray[np.float32]:
        """Read sources and prompts; see :meth:`groundup.generation.Decoder.start`.

        Raises:
            DataError: neither one source nor as many as prompts.
        """
        B, n = len(prompts), len(self.sources)
        if n not in (1, B):
            raise DataError(f"{n} sources for {B} targets; give one for each, or a single one for all")
        S, T = max(map(len, self.sources)), max(map(len, prompts))
        source = torch.tensor([s + [0] * (S - len(s)) for s in self.sources], device=self._device)
        mask = torch.tensor([[1] * len(s) + [0] * (S - len(s)) for s in self.sources], dtype=torch.bool, device=self._device)
        z = self.network.encode(source, mask=mask).expand(B, -1, -1)  # (B, S, D)
        self._source_mask = mask.expand(B, -1)
        target = torch.tensor([[0] * (T - len(p)) + list(p) for p in prompts], device=self._device)
        self._mask = torch.tensor([[0] * (T - len(p)) + [1] * len(p) for p in prompts], dtype=torch.bool, device=self._device)
        self._cache = self.network.new_cache(B, S, capacity)
        return self._read(target, z)

    @torch.inference_mode()
    def step(self, tokens: Sequence[int]) -> NDArray[np.float32]:
        """Read one more token a row."""
        self._mask = torch.cat([self._mask, self._mask.new_ones(len(tokens), 1)], dim=1)
        return self._read(torch.tensor(tokens, device=self._device)[:, None], None)

    def select(self, rows: Sequence[int]) -> None:
        """Reorder or drop rows, their sources with them."""
        assert self._cache is not None, "start() comes first"
        with torch.inference_mode():
            self._cache.select(rows)
            index = torch.as_tensor(rows, dtype=torch.long, device=self._device)
            self._mask, self._source_mask = self._mask[index], self._source_mask[index]

    def _read(self, target: Tensor, z: Tensor | None) -> NDArray[np.float32]:
        assert self._cache is not None, "start() comes first"
        masks = {"source_mask": self._source_mask, "target_mask": self._mask}
        logits = self.network.decode(target, z, **masks, cache=self._cache, last=True)[:, -1]
        answer: NDArray[np.float32] = logits.float().cpu().numpy()
        return answer

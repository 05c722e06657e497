"""A decoder-only network as generation wants it: prompts padded on the left into one batch, then a token a row with the cache."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from groundup.nn.cache import Cache


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

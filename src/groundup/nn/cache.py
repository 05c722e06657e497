"""Keys and values of the tokens read so far, so that the next one costs one token's work and not all of theirs.

Memory is taken once, at its full size; a layer's part is handed to its attention as a :class:`LayerCache`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from groundup.errors import ModelError


class LayerCache:
    """Keys and values of one layer: (B, H_kv, capacity, d_head) each, the first ``length`` of them filled."""

    def __init__(self, k: Tensor, v: Tensor) -> None:
        self.k, self.v, self.length = k, v, 0

    def append(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Add keys and values (B, H_kv, T, d_head); returns all that are there now.

        Raises:
            ModelError: they do not fit any more.
        """
        end = self.length + k.shape[2]
        if end > self.k.shape[2]:
            raise ModelError(f"the cache holds {self.k.shape[2]} tokens, and {end} were to be kept; make it with a larger capacity")
        self.k[:, :, self.length : end] = k
        self.v[:, :, self.length : end] = v
        self.length = end
        return self.read()

    def read(self) -> tuple[Tensor, Tensor]:
        """Keys and values (B, H_kv, length, d_head)."""
        return self.k[:, :, : self.length], self.v[:, :, : self.length]


class Cache:
    """One :class:`LayerCache` a layer.

    Args:
        n_layers, batch, n_kv_heads, capacity, d_head: sizes; ``capacity`` in tokens.
        dtype, device: of the network's activations.
    """

    def __init__(
        self,
        n_layers: int,
        batch: int,
        n_kv_heads: int,
        capacity: int,
        d_head: int,
        *,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        shape = (2, n_layers, batch, n_kv_heads, capacity, d_head)
        self.kv = torch.empty(shape, dtype=dtype, device=device)  # pages are taken as they are written
        self.layers = [LayerCache(self.kv[0, i], self.kv[1, i]) for i in range(n_layers)]

    def __getitem__(self, layer: int) -> LayerCache:
        return self.layers[layer]

    @property
    def length(self) -> int:
        """Tokens that are in it."""
        return self.layers[-1].length

    @property
    def nbytes(self) -> int:
        """Bytes at full capacity."""
        return self.kv.numel() * self.kv.element_size()

    def select(self, rows: Sequence[int]) -> None:
        """Row i becomes what row ``rows[i]`` was (beam search keeps some twice, a batch loses those that ended); never more rows."""
        n, index = self.length, torch.as_tensor(rows, dtype=torch.long, device=self.kv.device)
        for layer in self.layers:
            for part in (layer.k, layer.v):
                part[: len(index), :, :n] = part[index, :, :n]
            layer.k, layer.v = layer.k[: len(index)], layer.v[: len(index)]

    def truncate(self, length: int) -> None:
        """Forget all but the first ``length`` tokens."""
        for layer in self.layers:
            layer.length = min(layer.length, length)


class DecoderCache(NamedTuple):
    """What the decoder of an encoder-decoder keeps: keys and values of the target so far, and of the source, which are computed once."""

    own: Cache
    cross: Cache

    @property
    def length(self) -> int:
        """Target tokens that are in it."""
        return self.own.length

    @property
    def nbytes(self) -> int:
        """Bytes at full capacity."""
        return self.own.nbytes + self.cross.nbytes

    def select(self, rows: Sequence[int]) -> None:
        """Row i becomes what row ``rows[i]`` was, source included."""
        self.own.select(rows)
        self.cross.select(rows)

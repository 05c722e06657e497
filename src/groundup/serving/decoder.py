"""A decode graph on ONNX Runtime: rows of a batch, each with its own length, cache in place."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

Logits = NDArray[np.float32]


class GraphDecoder:
    """A :class:`groundup.generation.Decoder` over a graph made by ``groundup.models.decoder_graph``.

    Args:
        model: the graph, a file or its bytes.
        threads: of a single step.
    """

    def __init__(self, model: Path | bytes, threads: int = 0) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        source = model if isinstance(model, bytes) else str(model)
        self.session = onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
        properties = self.session.get_modelmeta().custom_metadata_map
        self.vocab_size, self.context = int(properties["vocab_size"]), int(properties["context"])
        inputs = {each.name: each.shape for each in self.session.get_inputs()}
        self._past = [name for name in inputs if name.startswith("past.")]
        self._positions = "positions" in inputs
        _, heads, _, width = inputs[self._past[0]]
        self._heads, self._width = int(heads), int(width)
        self._cache: list[NDArray[np.float32]] = []
        self.lengths = np.zeros(0, np.int32)

    def start(self, prompts: Sequence[Sequence[int]], capacity: int) -> Logits:
        """Read prompts of any lengths; see :meth:`groundup.generation.Decoder.start`."""
        self._cache = [np.empty((len(prompts), self._heads, capacity, self._width), np.float32) for _ in self._past]
        self.lengths = np.zeros(len(prompts), np.int32)
        T = max(map(len, prompts))
        tokens = np.array([[*prompt, *[0] * (T - len(prompt))] for prompt in prompts], np.int64)
        return self._read(tokens, np.array([len(p) for p in prompts], np.int32))

    def step(self, tokens: Sequence[int]) -> Logits:
        """Read one more token a row."""
        return self._read(np.array(tokens, np.int64)[:, None], np.ones(len(tokens), np.int32))

    def select(self, rows: Sequence[int]) -> None:
        """Reorder or drop rows; what stays where it is, is not copied."""
        index = np.asarray(rows, dtype=np.intp)
        n = int(self.lengths.max(initial=0))
        if not np.array_equal(index, np.arange(len(index))):
            for cache in self._cache:
                cache[: len(index), :, :n] = cache[index, :, :n]
        self._cache = [cache[: len(index)] for cache in self._cache]
        self.lengths = self.lengths[index]

    def _read(self, tokens: NDArray[np.int64], counts: NDArray[np.int32]) -> Logits:
        """Read ``counts`` tokens of each row, the rest of it is padding."""
        B, T = tokens.shape
        after = self.lengths + counts
        logits = np.empty((B, self.vocab_size), np.float32)
        inputs: dict[str, NDArray[Any]] = {
            "tokens": tokens,
            "lengths": after - 1,
            "total": np.array(after.max(), np.int32),
            "last": (counts - 1).astype(np.int64),
        }
        if self._positions:
            inputs["positions"] = np.minimum(self.lengths[:, None] + np.arange(T), self.context - 1).astype(np.int64)
        binding = self.session.io_binding()
        for name, array in inputs.items():
            binding.bind_input(name, "cpu", 0, array.dtype, array.shape, array.ctypes.data)
        binding.bind_output("logits", "cpu", 0, logits.dtype, logits.shape, logits.ctypes.data)
        for name, array in zip(self._past, self._cache, strict=True):  # in and out are the same memory
            binding.bind_input(name, "cpu", 0, array.dtype, array.shape, array.ctypes.data)
            binding.bind_output(name.replace("past", "present"), "cpu", 0, array.dtype, array.shape, array.ctypes.data)
        self.session.run_with_iobinding(binding)
        self.lengths = after
        return logits

"""A network over tokens in numbers: parameters beside the paper's, operations a token, memory to train and to write with.

Counted on the meta device, so that 175 billion parameters take no memory.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from groundup.catalogue.entries import Entry
from groundup.catalogue.signature import nearest, problems
from groundup.catalogue.size import counter
from groundup.catalogue.table import find
from groundup.errors import ModelError, RecipeError


@dataclass(frozen=True)
class SequenceDescription:
    """One size of a network over tokens.

    Attributes:
        entry: of the catalogue.
        preset: the published size, or "" for a size of one's own.
        config: constructor arguments that differ from the defaults.
        parameters: trainable numbers, counted.
        published: as the paper states them, 0 where there is none.
        source: where the paper does, and why it may differ.
        batch, context: what the figures below are for, in sequences and tokens.
        forward_flops: floating-point operations of reading one token, averaged over a full context.
        decode_flops: those of writing one more token after a full context, with the cache; 0 for an encoder-decoder.
        activations: bytes that the operations of one forward pass over the batch write in float32: an upper bound of
            what the backward pass keeps.
        cache: bytes of keys and values of the batch at the full context in float32; 0 without a cache.
    """

    entry: Entry
    preset: str
    config: dict[str, Any]
    parameters: int
    published: float
    source: str
    batch: int
    context: int
    forward_flops: float
    decode_flops: float
    activations: int
    cache: int

    @property
    def training_flops(self) -> float:
        """Operations a token in training: forward, and twice that backward (gradients of inputs and of weights)."""
        return 3 * self.forward_flops

    def __str__(self) -> str:
        """A page of plain text, as `groundup models NAME --preset PRESET` prints it."""
        n = self.parameters
        lines = [f"{self.entry.name}{f' {self.preset}' if self.preset else ''}: {self.entry.summary}", ""]
        lines += [f"paper: {self.entry.paper}", f"file:  {self.entry.module.replace('.', '/')}.py"]
        lines += ["", "  ".join(f"{k}={v}" for k, v in self.config.items()) or "the defaults", ""]
        rows = [("parameters", f"{n:,}")]
        if self.published:
            rows.append(("the paper says", f"{_short(self.published)} ({n / self.published - 1:+.1%}): {self.source}"))
        rows += [
            ("operations a token", f"{_short(self.forward_flops)} FLOP to read, {_short(self.training_flops)} FLOP to train on"),
            ("weights", f"{_size(4 * n)} in float32, {_size(2 * n)} in bfloat16, {_size(n)} in int8, {_size(n / 2)} in int4"),
            ("gradients and AdamW", f"{_size(4 * n)} and {_size(8 * n)} in float32"),
            ("activations", f"at most {_size(self.activations)} in float32, {self.batch} × {self.context:,} tokens"),
        ]
        if self.cache:
            rows.append(
                ("cache", f"{_size(self.cache)} in float32, {_size(self.cache / 2)} in 16 bits, {self.batch} × {self.context:,} tokens")
            )
        if self.decode_flops:
            rows.append(("one more token", f"{_short(self.decode_flops)} FLOP after {self.context:,} tokens"))
        width = max(len(k) for k, _ in rows)
        return "\n".join(lines + [f"{k:{width}}  {v}" for k, v in rows])


def describe_sequence(
    name: str, preset: str | None = None, *, batch: int = 1, context: int | None = None, **params: Any
) -> SequenceDescription:
    """The numbers of one size.

    Args:
        name: a model of the kind "sequence".
        preset: one of its published sizes; the constructor's defaults where left out.
        batch: sequences.
        context: tokens a sequence; the model's own context where left out, 512 for one that has none.
        params: constructor parameters that differ from the preset's.

    Raises:
        RecipeError: no such model, preset or parameter.
        ModelError: it cannot be built so, or the context is longer than its own.
    """
    import torch

    entry = find(name)
    if entry.kind != "sequence":
        raise RecipeError(f"{name} reads features, not tokens; see groundup models {name}")
    module = importlib.import_module(entry.module)
    if preset is not None and preset not in module.PRESETS:
        raise RecipeError(f"{name} has no preset {preset!r}{nearest(preset, module.PRESETS)}; it has {', '.join(module.PRESETS)}")
    chosen = module.PRESETS[preset] if preset is not None else None
    config = {**(chosen.config if chosen else {}), **params}
    if found := problems(params, entry.parameters, name):
        raise RecipeError("; ".join(f"{key}: {text}" for key, text in found.items()))
    with torch.device("meta"):
        network = getattr(module, entry.class_name)(**config).eval()
    own = getattr(network, "context", None)
    length = context or own or 512
    if own is not None and length > own:
        raise ModelError(f"{name}: a context of {length:,} tokens was asked for, and this size has {own:,}")
    flops, activations = _forward(network, 1, length)
    decode = cache = 0
    if hasattr(network, "new_cache"):
        pair = hasattr(network, "encode")  # an encoder-decoder keeps the source's keys and values too
        cache = network.new_cache(batch, *([length] if pair else []), length).nbytes
        decode = 0 if pair else _decode(network, length)
    return SequenceDescription(
        entry=entry,
        preset=preset or "",
        config=config,
        parameters=sum(p.numel() for p in network.parameters()),
        published=chosen.published if chosen and not params else 0.0,
        source=chosen.source if chosen else "",
        batch=batch,
        context=length,
        forward_flops=flops / length,
        decode_flops=float(decode),
        activations=batch * activations,
        cache=cache,
    )


def _forward(network: Any, batch: int, length: int) -> tuple[int, int]:
    """Operations and bytes written of one forward pass."""
    import torch

    tokens = torch.zeros(batch, length, dtype=torch.long, device="meta")
    inputs = (tokens, tokens) if hasattr(network, "encode") else (tokens,)  # an encoder-decoder reads two
    with _counting() as count:
        network(*inputs)
    return int(count.flops), int(count.bytes)


def _decode(network: Any, length: int) -> int:
    """Operations of one token after a cache of ``length`` - 1."""
    import torch

    cache = network.new_cache(1, length)
    for layer in cache.layers:
        layer.length = length - 1
    with _counting() as count:
        network(torch.zeros(1, 1, dtype=torch.long, device="meta"), cache=cache)
    return int(count.flops)


@contextmanager
def _counting() -> Iterator[Any]:
    """Count on the meta device; attention as the fused kernel does it, which writes no scores and leaves out what no token may see."""
    import torch
    from torch.nn import functional

    count, attend = counter(), functional.scaled_dot_product_attention
    fused = [0, 0]

    def attention(q: Any, k: Any, v: Any, *_: Any, is_causal: bool = False, **__: Any) -> Any:
        batch, heads, T, d = q.shape
        fused[0] += 4 * batch * heads * T * k.shape[2] * d // (2 if is_causal else 1)
        out = q.new_empty(batch, heads, T, v.shape[3])
        fused[1] += out.numel() * out.element_size()
        return out

    functional.scaled_dot_product_attention = attention  # type: ignore[assignment]
    try:
        with torch.no_grad(), torch.device("meta"), count:
            yield count
    finally:
        functional.scaled_dot_product_attention = attend
    count.flops += fused[0]
    count.bytes += fused[1]


def _short(n: float) -> str:
    for unit, scale in (("T", 1e12), ("G" if n >= 1e12 else "B", 1e9), ("M", 1e6), ("k", 1e3)):
        if n >= scale:
            return f"{n / scale:.4g} {unit}"
    return f"{n:.4g}"


def _size(n: float) -> str:
    for unit, scale in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if n >= scale:
            return f"{n / scale:.3g} {unit}"
    return f"{n:.0f} B"

"""Decoder-only transformer of today: as GPT, except that positions are rotary, norms have no mean, and the feed-forward map is gated.

Paper: Touvron et al. 2023, "LLaMA", arXiv:2302.13971, section 2.2; Llama 2, arXiv:2307.09288 (grouped-query attention);
Llama 3, arXiv:2407.21783 (stretched rotary frequencies).

    x_t = W_e[tokens_t]
    n_layers times   x ← x + MHAttention(RMS(x), rotated),  x ← x + W_2 (silu(W_g RMS(x)) ⊙ W_1 RMS(x))
    logits = RMS(x) W_uᵀ

What is unusual: (1) no biases anywhere.  (2) Keys and values have fewer heads than queries, which share them: the cache
shrinks by that factor.  (3) Nothing is learned about positions, so the context is a promise of the training and not a
shape; Llama 3.1 stretches the slow frequencies to reach further.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from pydantic import PositiveInt
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - its usual name

from groundup.errors import ModelError
from groundup.nn.attention import MultiHeadAttention
from groundup.nn.cache import Cache
from groundup.nn.checkpoint import Source, linear, require
from groundup.nn.decoder_only import DecoderOnly
from groundup.nn.feedforward import GatedFeedForward, normal_
from groundup.nn.masks import positions, visible
from groundup.nn.norm import RMSNorm
from groundup.nn.position import Rotation, frequencies
from groundup.nn.presets import Preset
from groundup.nn.trace import Trace

TASKS = ("language-modelling",)
_LLAMA2 = {"context": 4096, "eps": 1e-5}
_LLAMA3 = {"vocab_size": 128256, "context": 8192, "n_kv_heads": 8, "rotary_base": 500_000.0, "eps": 1e-5}
_LLAMA31 = {"context": 131072, "stretch": (8.0, 1.0, 4.0, 8192)}
_LLAMA32 = {"context": 131072, "stretch": (32.0, 1.0, 4.0, 8192), "tied": True}

PRESETS = {
    "llama-7b": Preset({}, 6.7e9, "Touvron et al. 2023, table 2"),
    "llama-13b": Preset({"n_layers": 40, "n_heads": 40, "d_model": 5120, "d_ff": 13824}, 13.0e9, "Touvron et al. 2023, table 2"),
    "llama-33b": Preset({"n_layers": 60, "n_heads": 52, "d_model": 6656, "d_ff": 17920}, 32.5e9, "Touvron et al. 2023, table 2"),
    "llama-65b": Preset(
        {"n_layers": 80, "n_heads": 64, "d_model": 8192, "d_ff": 22016},
        65.2e9,
        "Touvron et al. 2023, table 2: the printed 65.2B is 65.29B cut off, not rounded",
    ),
    "llama2-7b": Preset(_LLAMA2, 6.7e9, "as LLaMA 7B; Llama 2's paper rounds to 7B"),
    "llama2-13b": Preset({"n_layers": 40, "n_heads": 40, "d_model": 5120, "d_ff": 13824} | _LLAMA2, 13.0e9, "as LLaMA 13B"),
    "llama2-70b": Preset(
        {"n_layers": 80, "n_heads": 64, "n_kv_heads": 8, "d_model": 8192, "d_ff": 28672} | _LLAMA2,
        70e9,
        "arXiv:2307.09288 says 70B; the released weights have 69.0B",
    ),
    "llama3-8b": Preset({"n_layers": 32, "n_heads": 32, "d_model": 4096, "d_ff": 14336} | _LLAMA3, 8.03e9, "arXiv:2407.21783, table 3"),
    "llama3-70b": Preset({"n_layers": 80, "n_heads": 64, "d_model": 8192, "d_ff": 28672} | _LLAMA3, 70.6e9, "arXiv:2407.21783, table 3"),
    "llama3.1-405b": Preset(
        {"n_layers": 126, "n_heads": 128, "d_model": 16384, "d_ff": 53248} | _LLAMA3 | _LLAMA31,
        405e9,
        "arXiv:2407.21783, table 3, rounds down",
    ),
    "llama3.2-1b": Preset(
        {"n_layers": 16, "n_heads": 32, "d_model": 2048, "d_ff": 8192} | _LLAMA3 | _LLAMA32,
        1.23e9,
        "its model card: 1.236B cut off, not rounded",
    ),
    "llama3.2-3b": Preset({"n_layers": 28, "n_heads": 24, "d_model": 3072, "d_ff": 8192} | _LLAMA3 | _LLAMA32, 3.21e9, "its model card"),
}
"""Published sizes by name."""


class Stretch(NamedTuple):
    """How Llama 3.1 slows the slow frequencies.

    Attributes:
        factor: frequencies of waves longer than ``context / low`` are divided by it.
        low, high: between ``context / high`` and ``context / low`` the division fades in.
        context: the context before stretching.
    """

    factor: float
    low: float
    high: float
    context: int

    def __call__(self, ω: Tensor) -> Tensor:
        """Frequencies (d / 2,) in radians a token, stretched."""
        wavelength = 2 * math.pi / ω
        fade = ((self.context / wavelength - self.low) / (self.high - self.low)).clamp(0, 1)
        between = (1 - fade) * ω / self.factor + fade * ω
        ω = torch.where(
            wavelength > self.context / self.low, ω / self.factor, torch.where(wavelength < self.context / self.high, ω, between)
        )
        return ω


class Block(nn.Module):
    """One layer: attention and gated feed-forward, each added to what came in."""

    def __init__(self, d_model: int, n_heads: int, n_kv_heads: int, d_head: int, d_ff: int, eps: float) -> None:
        super().__init__()
        self.norm_1 = RMSNorm(d_model, eps)
        self.attention = MultiHeadAttention(d_model, n_heads, n_kv_heads=n_kv_heads, d_head=d_head, bias=False)
        self.norm_2 = RMSNorm(d_model, eps)
        self.mlp = GatedFeedForward(d_model, d_ff)

    def forward(self, x: Tensor, **how: Any) -> Tensor:
        """(B, T, D) -> (B, T, D)."""
        x = x + self.attention(self.norm_1(x), causal=True, **how)
        y: Tensor = x + self.mlp(self.norm_2(x))
        return y


class Llama(DecoderOnly):
    """A decoder-only transformer over tokens, with rotary positions and grouped-query attention.

    Args:
        vocab_size: number of tokens N_V.
        n_layers: number of layers.
        n_heads: query heads of each layer.
        n_kv_heads: heads of keys and values, a divisor of n_heads; n_heads where left out.
        d_model: width of a token's activations.
        d_head: width of one head; d_model / n_heads where left out.
        d_ff: hidden units of the feed-forward map.
        context: tokens that it was, or is to be, trained on at a time.
        rotary_base: base of the rotary frequencies.
        stretch: (factor, low, high, context) of Llama 3.1's stretched frequencies.
        tied: whether the unembedding is the embedding's transpose.
        eps: ε of the normalizations.

    Raises:
        ModelError: heads that do not divide one another, an odd head width.
    """

    MODEL_TYPES = ("llama",)
    PREFIX = "model."
    IGNORED = ("rotary_emb.inv_freq",)

    def __init__(
        self,
        vocab_size: PositiveInt = 32000,
        n_layers: PositiveInt = 32,
        n_heads: PositiveInt = 32,
        n_kv_heads: PositiveInt | None = None,
        d_model: PositiveInt = 4096,
        d_head: PositiveInt | None = None,
        d_ff: PositiveInt = 11008,
        context: PositiveInt = 2048,
        rotary_base: float = 10_000.0,
        stretch: tuple[float, float, float, int] | None = None,
        tied: bool = False,
        eps: float = 1e-6,
    ) -> None:
        super().__init__()
        n_kv_heads = n_kv_heads or n_heads
        if n_heads % n_kv_heads:
            raise ModelError(f"llama: n_heads {n_heads} is no multiple of n_kv_heads {n_kv_heads}")
        if d_head is None and d_model % n_heads:
            raise ModelError(f"llama: d_model {d_model} is no multiple of n_heads {n_heads}; change one, or give d_head")
        d_head = d_head or d_model // n_heads
        if d_head % 2:
            raise ModelError(f"llama: heads are {d_head} wide, and rotary positions turn pairs of channels; make it even")
        self.vocab_size, self.n_layers, self.n_heads, self.n_kv_heads = vocab_size, n_layers, n_heads, n_kv_heads
        self.d_model, self.d_head, self.d_ff, self.context = d_model, d_head, d_ff, context
        self.rotary_base, self.stretch, self.tied, self.eps = rotary_base, stretch, tied, eps
        self.tokens = nn.Embedding(vocab_size, d_model)
        self.blocks = nn.ModuleList(Block(d_model, n_heads, n_kv_heads, d_head, d_ff, eps) for _ in range(n_layers))
        self.final_norm = RMSNorm(d_model, eps)
        if not tied:
            self.unembedding = nn.Linear(d_model, vocab_size, bias=False)
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """W ~ N(0, 0.02²), γ = 1; maps that end in a sum are divided by √(2 n_layers)."""
        normal_(self, 0.02, generator)
        for name, parameter in self.named_parameters():
            if name.endswith(("attention.out.weight", "mlp.down.weight")):
                parameter.div_(math.sqrt(2 * self.n_layers))

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
        ω = frequencies(self.d_head, self.rotary_base, device=tokens.device)
        ω = ω if self.stretch is None else Stretch(*self.stretch)(ω)
        at = positions(T, mask, segments, start=before, device=tokens.device)
        rotation = Rotation(at, self.d_head, inverse_frequencies=ω, dtype=x.dtype)
        return self.through(x, cache, trace, mask=visible(T, mask, segments, causal=True), rotation=rotation)

    def unembed(self, x: Tensor) -> Tensor:
        """Logits (B, T, N_V) of hidden states (B, T, D)."""
        return F.linear(x, self.tokens.weight if self.tied else self.unembedding.weight)

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> dict[str, Any]:
        """Arguments of a Llama configuration."""
        require(config, hidden_act="silu", attention_bias=False, mlp_bias=False)
        rope = {"rope_type": "default", "rope_theta": config.get("rope_theta", 10_000.0)}
        rope |= config.get("rope_scaling") or {}  # as written before version 5 of transformers
        rope |= config.get("rope_parameters") or {}
        kind = rope.get("rope_type", rope.get("type"))
        if kind not in ("default", "llama3"):
            raise ModelError(f"config.json: rotary positions of type {kind!r}; expected 'default' or 'llama3'")
        return {
            "vocab_size": config.get("vocab_size", 32000),
            "n_layers": config.get("num_hidden_layers", 32),
            "n_heads": config.get("num_attention_heads", 32),
            "n_kv_heads": config.get("num_key_value_heads"),
            "d_model": config.get("hidden_size", 4096),
            "d_head": config.get("head_dim"),
            "d_ff": config.get("intermediate_size", 11008),
            "context": config.get("max_position_embeddings", 2048),
            "rotary_base": float(rope["rope_theta"]),
            "stretch": None
            if kind == "default"
            else (rope["factor"], rope["low_freq_factor"], rope["high_freq_factor"], rope["original_max_position_embeddings"]),
            "tied": config.get("tie_word_embeddings", False),
            "eps": config.get("rms_norm_eps", 1e-6),
        }

    def to_config(self) -> dict[str, Any]:
        """As ``transformers`` writes it for LlamaForCausalLM."""
        rope: dict[str, Any] = {"rope_type": "default", "rope_theta": self.rotary_base}
        if self.stretch is not None:
            s = Stretch(*self.stretch)
            rope |= {"rope_type": "llama3", "factor": s.factor, "low_freq_factor": s.low, "high_freq_factor": s.high}
            rope["original_max_position_embeddings"] = s.context
        return {
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "vocab_size": self.vocab_size,
            "num_hidden_layers": self.n_layers,
            "num_attention_heads": self.n_heads,
            "num_key_value_heads": self.n_kv_heads,
            "hidden_size": self.d_model,
            "head_dim": self.d_head,
            "intermediate_size": self.d_ff,
            "hidden_act": "silu",
            "max_position_embeddings": self.context,
            "rope_parameters": rope,
            "tie_word_embeddings": self.tied,
            "attention_bias": False,
            "mlp_bias": False,
            "rms_norm_eps": self.eps,
        }

    def sources(self) -> dict[str, Source]:
        """q, k and v are three maps there, gate and up two."""
        t = self.PREFIX
        table = {"tokens.weight": Source((f"{t}embed_tokens.weight",))}
        rows = (self.n_heads * self.d_head, self.n_kv_heads * self.d_head, self.n_kv_heads * self.d_head)
        for i in range(self.n_layers):
            ours, theirs = f"blocks.{i}", f"{t}layers.{i}"
            table |= linear(f"{ours}.norm_1", f"{theirs}.input_layernorm", bias=False)
            qkv = (f"{theirs}.self_attn.{part}_proj" for part in "qkv")
            table |= linear(f"{ours}.attention.qkv", *qkv, bias=False, rows=rows)
            table |= linear(f"{ours}.attention.out", f"{theirs}.self_attn.o_proj", bias=False)
            table |= linear(f"{ours}.norm_2", f"{theirs}.post_attention_layernorm", bias=False)
            table |= linear(f"{ours}.mlp.gate_up", f"{theirs}.mlp.gate_proj", f"{theirs}.mlp.up_proj", bias=False)
            table |= linear(f"{ours}.mlp.down", f"{theirs}.mlp.down_proj", bias=False)
        table |= linear("final_norm", f"{t}norm", bias=False)
        return table if self.tied else table | linear("unembedding", "lm_head", bias=False)

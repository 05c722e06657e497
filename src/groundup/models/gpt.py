"""Decoder-only transformer that predicts the next token: GPT-1, GPT-2 and GPT-3.

Paper: Phuong & Hutter 2022, "Formal Algorithms for Transformers", arXiv:2207.09238, algorithms 10, 13 and 14, after Radford
et al. 2018 (GPT-1), Radford et al. 2019 (GPT-2) and Brown et al. 2020, arXiv:2005.14165 (GPT-3).

    x_t = W_e[tokens_t] + W_p[t]
    n_layers times   x ← x + MHAttention(LN(x)),  x ← x + W_2 gelu(W_1 LN(x) + b_1) + b_2
    logits = LN(x) W_eᵀ

What is unusual: (1) GPT-1 normalizes after each sum and not at the end (``norm="post"``); from GPT-2 on it is before
each part and once more at the end.  (2) The unembedding is the embedding's transpose.  (3) GELU is its tanh form.
(4) GPT-3 alternates dense with locally banded sparse attention; here every layer is dense, which changes no parameter.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, NamedTuple, cast

import torch
from pydantic import Field, PositiveInt
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - its usual name

from groundup.errors import ModelError
from groundup.nn.attention import MH, MultiHeadAttention, mh_attention
from groundup.nn.cache import Cache
from groundup.nn.checkpoint import Source, choose, linear, require
from groundup.nn.decoder_only import DecoderOnly
from groundup.nn.embedding import positional_embedding, token_embedding, unembedding
from groundup.nn.feedforward import Activation, FeedForward, feed_forward, normal_
from groundup.nn.masks import positions, visible
from groundup.nn.norm import LayerNorm, layer_norm
from groundup.nn.presets import Preset
from groundup.nn.trace import Trace

TASKS = ("language-modelling",)
_GPT3 = {"context": 2048, "vocab_size": 50257}

PRESETS = {
    "gpt1": Preset(
        {"vocab_size": 40478, "n_layers": 12, "n_heads": 12, "d_model": 768, "context": 512, "norm": "post"},
        published=117e6,
        source="Radford et al. 2018 print 117M in later work; the released weights have 116.5M",
    ),
    "gpt2": Preset({"n_layers": 12, "n_heads": 12, "d_model": 768}, 124e6, "table 2 says 117M; later corrected to 124M"),
    "gpt2-medium": Preset({"n_layers": 24, "n_heads": 16, "d_model": 1024}, 355e6, "table 2 says 345M; later corrected to 355M"),
    "gpt2-large": Preset({"n_layers": 36, "n_heads": 20, "d_model": 1280}, 774e6, "table 2 says 762M; later corrected to 774M"),
    "gpt2-xl": Preset({"n_layers": 48, "n_heads": 25, "d_model": 1600}, 1558e6, "table 2 says 1542M; later corrected to 1558M"),
    "gpt3-small": Preset({"n_layers": 12, "n_heads": 12, "d_model": 768} | _GPT3, 125e6, "Brown et al. 2020, table 2.1"),
    "gpt3-medium": Preset(
        {"n_layers": 24, "n_heads": 16, "d_model": 1024} | _GPT3,
        350e6,
        "Brown et al. 2020, table 2.1: printed as 350M, its own sizes give 355.9M",
    ),
    "gpt3-large": Preset({"n_layers": 24, "n_heads": 16, "d_model": 1536} | _GPT3, 760e6, "Brown et al. 2020, table 2.1"),
    "gpt3-xl": Preset(
        {"n_layers": 24, "n_heads": 24, "d_model": 2048, "d_head": 128} | _GPT3,
        1.3e9,
        "Brown et al. 2020, table 2.1: the printed 24 heads of 128 make 1.517B; 16 heads, as wide together as d_model, make 1.316B",
    ),
    "gpt3-2.7b": Preset({"n_layers": 32, "n_heads": 32, "d_model": 2560} | _GPT3, 2.7e9, "Brown et al. 2020, table 2.1"),
    "gpt3-6.7b": Preset({"n_layers": 32, "n_heads": 32, "d_model": 4096} | _GPT3, 6.7e9, "Brown et al. 2020, table 2.1"),
    "gpt3-13b": Preset(
        {"n_layers": 40, "n_heads": 40, "d_model": 5140, "d_head": 128, "d_ff": 20560} | _GPT3,
        13e9,
        "Brown et al. 2020, table 2.1: 5,140 is printed, though 40 heads of 128 are 5,120",
    ),
    "gpt3-175b": Preset({"n_layers": 96, "n_heads": 96, "d_model": 12288} | _GPT3, 175e9, "Brown et al. 2020, table 2.1"),
}
"""Published sizes by name."""


class Layer(NamedTuple):
    """One layer's weights in the page's letters."""

    γ1: Tensor
    β1: Tensor
    W: MH
    γ2: Tensor
    β2: Tensor
    W_mlp1: Tensor
    b_mlp1: Tensor
    W_mlp2: Tensor
    b_mlp2: Tensor


class Theta(NamedTuple):
    """All weights θ of Algorithm 10: W_e (d_e, N_V), W_p (d_e, l_max), L layers, γ, β (d_e,), W_u (N_V, d_e)."""

    W_e: Tensor
    W_p: Tensor
    layers: tuple[Layer, ...]
    γ: Tensor
    β: Tensor
    W_u: Tensor


def d_transformer(x: Sequence[int], θ: Theta, ε: float = 0.0) -> Tensor:
    """Algorithm 10, DTransformer: a distribution over the next token after each prefix of x.

    Args:
        x: l tokens, l <= l_max.
        θ: :meth:`GPT.theta`.
        ε: inside the roots of the normalizations; the page has none.

    Returns:
        P, (N_V, l); column t is the distribution of token t + 1 given tokens 0..t.
    """
    l_x = len(x)
    X = torch.stack([token_embedding(x[t], θ.W_e) + positional_embedding(t, θ.W_p) for t in range(l_x)], dim=1)  # (d_e, l)
    Mask = torch.tensor([[t_z <= t_x for t_x in range(l_x)] for t_z in range(l_x)])
    for layer in θ.layers:
        Y = _columns(layer_norm, X, layer.γ1, layer.β1, ε)
        X = X + mh_attention(Y, Y, layer.W, Mask)
        Y = _columns(layer_norm, X, layer.γ2, layer.β2, ε)
        X = X + feed_forward(Y, layer.W_mlp1, layer.b_mlp1, layer.W_mlp2, layer.b_mlp2, "gelu_tanh")
    X = _columns(layer_norm, X, θ.γ, θ.β, ε)
    return torch.stack([unembedding(X[:, t], θ.W_u) for t in range(l_x)], dim=1)


def d_training(data: Sequence[Sequence[int]], network: GPT, η: float, n_epochs: int) -> GPT:
    """Algorithm 13, DTraining: stochastic gradient descent on -Σ_t log P[x_{t+1}, t], one sequence a step.

    Args:
        data: sequences of at least two tokens.
        network: θ, changed in place.
        η: learning rate.
        n_epochs: times through the data.

    Returns:
        The network.
    """
    for _ in range(n_epochs):
        for x in data:
            P = d_transformer(x, network.theta(), network.eps)
            loss = -sum((torch.log(P[x[t + 1], t]) for t in range(len(x) - 1)), start=torch.zeros((), dtype=P.dtype))
            θ = list(network.parameters())
            for p, g in zip(θ, torch.autograd.grad(loss, θ), strict=True):
                p.data -= η * g
    return network


@torch.no_grad()
def d_inference(x: Sequence[int], l_gen: int, network: GPT, τ: float, generator: torch.Generator | None = None) -> list[int]:
    """Algorithm 14, DInference: continue a prompt by sampling each token from p^(1/τ).

    Args:
        x: the prompt, one token at least.
        l_gen: tokens to write.
        network: θ.
        τ: temperature; 1 samples from the model's distribution, 0 takes the most likely token.
        generator: where chance comes from.

    Returns:
        The continuation, ``l_gen`` tokens.
    """
    x, l_x = list(x), len(x)
    θ = network.theta()
    for _ in range(l_gen):
        P = d_transformer(x, θ, network.eps)
        p = P[:, -1]
        if τ == 0:
            y = int(p.argmax())
        else:
            q = p ** (1 / τ)
            y = int(torch.multinomial(q / q.sum(), 1, generator=generator))
        x.append(y)
    return x[l_x:]


def _columns(function: Any, X: Tensor, *args: Any) -> Tensor:
    """``function`` of every column."""
    return torch.stack([function(column, *args) for column in X.T], dim=1)


class Block(nn.Module):
    """One layer: attention and feed-forward, each added to what came in."""

    def __init__(
        self, d_model: int, n_heads: int, d_head: int, d_ff: int, activation: Activation, norm: str, dropout: float, eps: float
    ) -> None:
        super().__init__()
        self.norm, self.dropout = norm, dropout
        self.norm_1 = LayerNorm(d_model, eps)
        self.attention = MultiHeadAttention(d_model, n_heads, d_head=d_head, dropout=dropout)
        self.norm_2 = LayerNorm(d_model, eps)
        self.mlp = FeedForward(d_model, d_ff, activation)

    def forward(self, x: Tensor, **how: Any) -> Tensor:
        """(B, T, D) -> (B, T, D)."""
        if self.norm == "pre":
            x = x + self._drop(self.attention(self.norm_1(x), causal=True, **how))
            x = x + self._drop(self.mlp(self.norm_2(x)))
        else:
            x = self.norm_1(x + self._drop(self.attention(x, causal=True, **how)))
            x = self.norm_2(x + self._drop(self.mlp(x)))
        return x

    def weights(self) -> Layer:
        """The same weights in the page's letters."""
        γ1, β1 = self.norm_1.parameters()
        γ2, β2 = self.norm_2.parameters()
        up, down = self.mlp.up, self.mlp.down
        return Layer(γ1, β1, self.attention.weights(), γ2, β2, up.weight, up.bias, down.weight, down.bias)

    def _drop(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.dropout, self.training) if self.dropout else x


class GPT(DecoderOnly):
    """A decoder-only transformer over tokens.

    Args:
        vocab_size: number of tokens N_V.
        n_layers: number of layers.
        n_heads: attention heads of each layer.
        d_model: width of a token's activations.
        d_head: width of one head; d_model / n_heads where left out.
        d_ff: hidden units of the feed-forward map; 4 d_model where left out.
        context: longest sequence l_max, since positions are learned.
        activation: the non-linearity of the feed-forward map.
        norm: where layers normalize, before their parts (GPT-2, GPT-3) or after their sums (GPT-1).
        dropout: share of activations that is zeroed in training.
        eps: ε of the normalizations.

    Raises:
        ModelError: d_model is no multiple of n_heads and d_head is left out.
    """

    MODEL_TYPES = ("gpt2", "openai-gpt")
    PREFIX = "transformer."
    IGNORED = (".attn.bias", ".attn.masked_bias")
    TIED = {"lm_head.weight": "transformer.wte.weight"}  # noqa: RUF012 - typed in the base

    def __init__(
        self,
        vocab_size: PositiveInt = 50257,
        n_layers: PositiveInt = 12,
        n_heads: PositiveInt = 12,
        d_model: PositiveInt = 768,
        d_head: PositiveInt | None = None,
        d_ff: PositiveInt | None = None,
        context: PositiveInt = 1024,
        activation: Literal["gelu_tanh", "gelu", "relu", "silu"] = "gelu_tanh",
        norm: Literal["pre", "post"] = "pre",
        dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1,
        eps: float = 1e-5,
    ) -> None:
        super().__init__()
        if d_head is None and d_model % n_heads:
            raise ModelError(f"gpt: d_model {d_model} is no multiple of n_heads {n_heads}; change one, or give d_head")
        self.vocab_size, self.context, self.activation, self.norm = vocab_size, context, activation, norm
        self.n_layers, self.n_heads, self.d_model, self.d_head = n_layers, n_heads, d_model, d_head or d_model // n_heads
        self.d_ff, self.dropout, self.eps = d_ff or 4 * d_model, dropout, eps
        self.tokens = nn.Embedding(vocab_size, d_model)  # W_eᵀ, and W_u
        self.positions = nn.Embedding(context, d_model)  # W_pᵀ
        self.blocks = nn.ModuleList(
            Block(d_model, n_heads, self.d_head, self.d_ff, activation, norm, dropout, eps) for _ in range(n_layers)
        )
        self.final_norm = LayerNorm(d_model, eps) if norm == "pre" else nn.Identity()
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """W ~ N(0, 0.02²), b = 0, γ = 1; maps that end in a sum are divided by √(2 n_layers) (GPT-2, section 2.3)."""
        normal_(self, 0.02, generator)
        if self.norm == "pre":
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
        at = positions(T, mask, segments, start=before, device=tokens.device)
        x = self.tokens(tokens) + self.positions(at)  # (B, T, D)
        if self.dropout:
            x = F.dropout(x, self.dropout, self.training)
        return self.through(x, cache, trace, mask=visible(T, mask, segments, causal=True))

    def theta(self) -> Theta:
        """The weights in the page's letters; gradients flow back through them.

        Raises:
            ModelError: for ``norm="post"``, which Algorithm 10 is not.
        """
        if self.norm != "pre":
            raise ModelError("gpt: algorithm 10 normalizes before each part; this network does after (norm='post')")
        layers = tuple(block.weights() for block in cast(list[Block], list(self.blocks)))
        W_e = self.tokens.weight.T
        γ, β = self.final_norm.parameters()
        return Theta(W_e, self.positions.weight.T, layers, γ, β, W_e.T)

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> dict[str, Any]:
        """Arguments of a GPT-2 or GPT-1 (``openai-gpt``) configuration."""
        require(config, tie_word_embeddings=True, add_cross_attention=False)
        require(config, scale_attn_weights=True, scale_attn_by_inverse_layer_idx=False)
        first = config["model_type"] == "openai-gpt"
        names = {"gelu_new": "gelu_tanh", "gelu": "gelu_tanh" if first else "gelu", "relu": "relu", "silu": "silu", "swish": "silu"}
        return {
            "vocab_size": config.get("vocab_size", 40478 if first else 50257),
            "n_layers": config.get("n_layer", 12),
            "n_heads": config.get("n_head", 12),
            "d_model": config.get("n_embd", 768),
            "d_ff": config.get("n_inner"),
            "context": config.get("n_positions", 512 if first else 1024),
            "activation": choose(config, "afn" if first else "activation_function", names, "gelu" if first else "gelu_new"),
            "norm": "post" if first else "pre",
            "dropout": config.get("resid_pdrop", 0.1),
            "eps": config.get("layer_norm_epsilon", 1e-5),
        }

    def to_config(self) -> dict[str, Any]:
        """As ``transformers`` writes it for GPT2LMHeadModel and OpenAIGPTLMHeadModel.

        Raises:
            ModelError: a head's width or a hidden layer's that those have no key for.
        """
        first = self.norm == "post"
        if self.d_head * self.n_heads != self.d_model:
            raise ModelError(
                f"gpt: {self.n_heads} heads of {self.d_head} are not {self.d_model} wide; GPT-2's configuration cannot say that"
            )
        names = {"gelu_tanh": "gelu" if first else "gelu_new", "gelu": "gelu", "relu": "relu", "silu": "silu"}
        if first and (self.activation == "gelu" or self.d_ff != 4 * self.d_model):
            raise ModelError("gpt: GPT-1's configuration knows the tanh form of GELU and hidden layers of 4 d_model only")
        return {
            "architectures": ["OpenAIGPTLMHeadModel" if first else "GPT2LMHeadModel"],
            "model_type": "openai-gpt" if first else "gpt2",
            "vocab_size": self.vocab_size,
            "n_layer": self.n_layers,
            "n_head": self.n_heads,
            "n_embd": self.d_model,
            "n_positions": self.context,
            "n_ctx": self.context,
            "afn" if first else "activation_function": names[self.activation],
            "resid_pdrop": self.dropout,
            "embd_pdrop": self.dropout,
            "attn_pdrop": self.dropout,
            "layer_norm_epsilon": self.eps,
            "tie_word_embeddings": True,
        } | ({} if first else {"n_inner": self.d_ff})

    def sources(self) -> dict[str, Source]:
        """GPT-2 stores its maps (in, out), so they are transposed."""
        first = self.norm == "post"
        t = self.PREFIX
        table = {
            "tokens.weight": Source((f"{t}tokens_embed.weight" if first else f"{t}wte.weight",)),
            "positions.weight": Source((f"{t}positions_embed.weight" if first else f"{t}wpe.weight",)),
        }
        for i in range(self.n_layers):
            ours, theirs = f"blocks.{i}", f"{t}h.{i}"
            table |= linear(f"{ours}.norm_1", f"{theirs}.ln_1")
            table |= linear(f"{ours}.attention.qkv", f"{theirs}.attn.c_attn", transposed=True)
            table |= linear(f"{ours}.attention.out", f"{theirs}.attn.c_proj", transposed=True)
            table |= linear(f"{ours}.norm_2", f"{theirs}.ln_2")
            table |= linear(f"{ours}.mlp.up", f"{theirs}.mlp.c_fc", transposed=True)
            table |= linear(f"{ours}.mlp.down", f"{theirs}.mlp.c_proj", transposed=True)
        return table if first else table | linear("final_norm", f"{t}ln_f")

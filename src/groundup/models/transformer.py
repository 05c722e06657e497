"""Encoder-decoder transformer that translates one sequence into another: "Attention Is All You Need".

Paper: Vaswani et al. 2017, arXiv:1706.03762, in the letters of Phuong & Hutter 2022, "Formal Algorithms for Transformers",
arXiv:2207.09238, algorithms 8, 11 and 15.  Checkpoints: Marian (Junczys-Dowmunt et al. 2018, arXiv:1804.00344).

    z_t = √D W_e[source_t] + PE[t],  x_t = √D W_e[target_t] + PE[t]
    encoder, n_layers times   z ← LN(z + MHAttention(z)),  z ← LN(z + W_2 relu(W_1 z + b_1) + b_2)
    decoder, n_layers times   x ← LN(x + MHAttention(x, causal)),  x ← LN(x + MHAttention(x, z)),  x ← LN(x + W_2 relu(...) + b_2)
    logits = x W_eᵀ

What is unusual: (1) every sum is normalized after it is made, and nothing at the end; the decoders that came later (``gpt``)
normalize before each part.  (2) Positions are waves, not learned.  (3) One matrix embeds source and target and unembeds
(section 3.4), and embeddings are multiplied by √D.  (4) Marian differs by four options: swish for ReLU, all sines before
all cosines, a vocabulary of the target's own, a constant added to the logits (0 unless a checkpoint brings one).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence, Set
from typing import Annotated, Any, Literal, NamedTuple

import torch
from pydantic import Field, NonNegativeInt, PositiveInt
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - its usual name

from groundup.errors import ModelError
from groundup.models import marian
from groundup.nn.attention import MH, MultiHeadAttention, mh_attention
from groundup.nn.cache import Cache, DecoderCache
from groundup.nn.checkpoint import Pretrained, Source, Weights
from groundup.nn.embedding import positional_embedding, sinusoids, token_embedding, unembedding
from groundup.nn.feedforward import Activation, FeedForward, feed_forward
from groundup.nn.masks import positions, visible
from groundup.nn.norm import LayerNorm, layer_norm
from groundup.nn.presets import Preset
from groundup.nn.trace import Trace

TASKS = ("translation",)
PRESETS = {
    "transformer-base": Preset(
        {},
        65e6,
        "Vaswani et al. 2017, table 3; the 37,000 tokens of section 5.1 make 63.1M.  This row and all of (C), where N, d_model and"
        " d_ff vary, are what the equations give for 41,000 tokens, and none of them is for 37,000",
    ),
    "transformer-big": Preset(
        {"n_heads": 16, "d_model": 1024, "dropout": 0.3},
        213e6,
        "Vaswani et al. 2017, table 3; the 37,000 tokens of section 5.1 make 214.2M, 36,000 would make the 213M,"
        " and the other rows' 41,000 make 218M",
    ),
}
"""Published sizes by name."""


class EncoderLayer(NamedTuple):
    """One encoder layer's weights in the page's letters."""

    W: MH
    γ1: Tensor
    β1: Tensor
    W_mlp1: Tensor
    b_mlp1: Tensor
    W_mlp2: Tensor
    b_mlp2: Tensor
    γ2: Tensor
    β2: Tensor


class DecoderLayer(NamedTuple):
    """One decoder layer's weights in the page's letters."""

    W: MH
    γ3: Tensor
    β3: Tensor
    W_ed: MH
    γ4: Tensor
    β4: Tensor
    W_mlp3: Tensor
    b_mlp3: Tensor
    W_mlp4: Tensor
    b_mlp4: Tensor
    γ5: Tensor
    β5: Tensor


class Theta(NamedTuple):
    """All weights θ of Algorithm 8: W_e (d_e, N_V), W_p (d_e, l_max), L_enc and L_dec layers, W_u (N_V, d_e)."""

    W_e: Tensor
    W_p: Tensor
    encoder: tuple[EncoderLayer, ...]
    decoder: tuple[DecoderLayer, ...]
    W_u: Tensor


def ed_transformer(z: Sequence[int], x: Sequence[int], θ: Theta, ε: float = 0.0) -> Tensor:
    """Algorithm 8, EDTransformer: a distribution over the next token after each prefix of x, given z.

    Args:
        z: the source, l_z tokens.
        x: the target, l_x tokens; both are at most l_max long.
        θ: :meth:`Transformer.theta`.
        ε: inside the roots of the normalizations; the page has none.

    Returns:
        P, (N_V, l_x); column t is the distribution of x's token t + 1 given its tokens 0..t and z.
    """
    l_z, l_x = len(z), len(x)
    Z = torch.stack([token_embedding(z[t], θ.W_e) + positional_embedding(t, θ.W_p) for t in range(l_z)], dim=1)  # (d_e, l_z)
    for W, γ1, β1, W_mlp1, b_mlp1, W_mlp2, b_mlp2, γ2, β2 in θ.encoder:
        Z = Z + mh_attention(Z, Z, W, torch.ones(l_z, l_z, dtype=torch.bool))
        Z = _columns(Z, γ1, β1, ε)
        Z = Z + feed_forward(Z, W_mlp1, b_mlp1, W_mlp2, b_mlp2)
        Z = _columns(Z, γ2, β2, ε)
    X = torch.stack([token_embedding(x[t], θ.W_e) + positional_embedding(t, θ.W_p) for t in range(l_x)], dim=1)  # (d_e, l_x)
    Mask = torch.tensor([[t_z <= t_x for t_x in range(l_x)] for t_z in range(l_x)])
    for W, γ3, β3, W_ed, γ4, β4, W_mlp3, b_mlp3, W_mlp4, b_mlp4, γ5, β5 in θ.decoder:
        X = X + mh_attention(X, X, W, Mask)
        X = _columns(X, γ3, β3, ε)
        X = X + mh_attention(X, Z, W_ed, torch.ones(l_z, l_x, dtype=torch.bool))
        X = _columns(X, γ4, β4, ε)
        X = X + feed_forward(X, W_mlp3, b_mlp3, W_mlp4, b_mlp4)
        X = _columns(X, γ5, β5, ε)
    return torch.stack([unembedding(X[:, t], θ.W_u) for t in range(l_x)], dim=1)


def _columns(X: Tensor, γ: Tensor, β: Tensor, ε: float) -> Tensor:
    """Every column normalized."""
    return torch.stack([layer_norm(column, γ, β, ε) for column in X.T], dim=1)


def ed_training(data: Sequence[tuple[Sequence[int], Sequence[int]]], network: Transformer, η: float, n_epochs: int) -> Transformer:
    """Algorithm 11, EDTraining: stochastic gradient descent on -Σ_t log P[x_{t+1}, t], one pair a step.

    Args:
        data: pairs (z, x) of a source and a target; the target from its bos_token to its eos_token.
        network: θ, changed in place.
        η: learning rate.
        n_epochs: times through the data.

    Returns:
        The network.
    """
    for _ in range(n_epochs):
        for z, x in data:
            P = ed_transformer(z, x, network.theta(), EPS)
            loss = -sum((torch.log(P[x[t + 1], t]) for t in range(len(x) - 1)), start=torch.zeros((), dtype=P.dtype))
            θ = list(network.parameters())
            for p, g in zip(θ, torch.autograd.grad(loss, θ), strict=True):
                p.data -= η * g
    return network


@torch.no_grad()
def ed_inference(z: Sequence[int], network: Transformer, τ: float, generator: torch.Generator | None = None) -> list[int]:
    """Algorithm 15, EDInference: write a target from its bos_token on, sampling each token from p^(1/τ), until the eos_token.

    Args:
        z: the source.
        network: θ.
        τ: temperature; 1 samples from the model's distribution, 0 takes the most likely token.
        generator: where chance comes from.

    Returns:
        x̂, with bos_token and eos_token; without the latter where l_max tokens were written first.
    """
    x, y, θ = [network.bos_token], None, network.theta()
    while y != network.eos_token and len(x) < network.context:
        P = ed_transformer(z, x, θ, EPS)
        p = P[:, -1]
        if τ == 0:
            y = int(p.argmax())
        else:
            q = p ** (1 / τ)
            y = int(torch.multinomial(q / q.sum(), 1, generator=generator))
        x.append(y)
    return x


EPS = 1e-5
"""ε of the normalizations; the paper does not say, Marian and torch.nn have this."""


class Block(nn.Module):
    """One layer: attention, to the source too in a decoder, and feed-forward, each added to what came in and normalized."""

    def __init__(self, d_model: int, n_heads: int, d_ff: int, activation: Activation, dropout: float, *, decodes: bool) -> None:
        super().__init__()
        self.decodes, self.dropout = decodes, nn.Dropout(dropout)
        self.attention = MultiHeadAttention(d_model, n_heads)
        self.norm_1 = LayerNorm(d_model, EPS)
        if decodes:
            self.cross = MultiHeadAttention(d_model, n_heads, d_context=d_model)
            self.norm_2 = LayerNorm(d_model, EPS)
        self.mlp = FeedForward(d_model, d_ff, activation)
        self.norm_3 = LayerNorm(d_model, EPS)

    def forward(self, x: Tensor, own: dict[str, Any], z: Tensor | None = None, cross: dict[str, Any] | None = None) -> Tensor:
        """(B, T, D), and (B, S, D) for z -> (B, T, D); ``own`` and ``cross`` are the two attentions' masks, caches and traces."""
        x = self.norm_1(x + self.dropout(self.attention(x, causal=self.decodes, **own)))
        if cross is not None:
            x = self.norm_2(x + self.dropout(self.cross(x, z, **cross)))
        answer: Tensor = self.norm_3(x + self.dropout(self.mlp(x)))
        return answer


class Transformer(Pretrained):
    """An encoder-decoder transformer over tokens.

    Args:
        vocab_size: number of tokens N_V.
        target_vocab_size: number of the target's tokens, which then have embeddings of their own; one set serves both where left out.
        n_layers: number of encoder layers.
        n_decoder_layers: number of decoder layers; as many where left out.
        n_heads: attention heads of each layer.
        d_model: width of a token's activations; even.
        d_ff: hidden units of the feed-forward maps; 4 d_model where left out.
        context: longest source and longest target l_max.
        activation: the non-linearity of the feed-forward maps (``silu`` is what Marian calls swish).
        positions: order of the waves' channels: sine and cosine of each in turn (the paper), or all sines before all cosines (Marian).
        scale_embedding: whether embeddings are multiplied by √d_model.
        dropout: share of activations that is zeroed in training, after the embedding and after each part.
        bos_token: what a target starts with.
        eos_token: what it ends with.
        pad_token: a token whose embedding learns nothing from being read, where there is one.

    Raises:
        ModelError: d_model is odd or no multiple of n_heads.
    """

    MODEL_TYPES = ("marian",)
    PREFIX = "model."
    IGNORED = ("embed_positions.weight", "lm_head.weight")
    TIED = {name: "model.shared.weight" for name in marian.COPIES}  # noqa: RUF012 - typed in the base

    def __init__(
        self,
        vocab_size: PositiveInt = 37000,
        target_vocab_size: PositiveInt | None = None,
        n_layers: PositiveInt = 6,
        n_decoder_layers: PositiveInt | None = None,
        n_heads: PositiveInt = 8,
        d_model: PositiveInt = 512,
        d_ff: PositiveInt | None = None,
        context: PositiveInt = 1024,
        activation: Literal["relu", "gelu", "silu"] = "relu",
        positions: Literal["interleaved", "halves"] = "interleaved",
        scale_embedding: bool = True,
        dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1,
        bos_token: NonNegativeInt = 0,
        eos_token: NonNegativeInt = 1,
        pad_token: NonNegativeInt | None = None,
    ) -> None:
        super().__init__()
        if d_model % n_heads or d_model % 2:
            raise ModelError(f"transformer: expected d_model to be even and a multiple of n_heads, got {d_model} with {n_heads} heads")
        self.vocab_size, self.target_vocab_size, self.context = vocab_size, target_vocab_size, context
        self.n_layers, self.n_decoder_layers, self.n_heads = n_layers, n_decoder_layers or n_layers, n_heads
        self.d_model, self.d_ff, self.activation, self.dropout = d_model, d_ff or 4 * d_model, activation, dropout
        self.positions, self.scale_embedding = positions, scale_embedding
        self.bos_token, self.eos_token, self.pad_token = bos_token, eos_token, pad_token
        self.tokens = nn.Embedding(vocab_size, d_model, padding_idx=pad_token)  # W_eᵀ, and W_u
        self.target_tokens = self.tokens
        if target_vocab_size is not None:
            self.target_tokens = nn.Embedding(target_vocab_size, d_model, padding_idx=pad_token)
        sizes = (d_model, n_heads, self.d_ff, activation, dropout)
        self.encoder = nn.ModuleList(Block(*sizes, decodes=False) for _ in range(n_layers))
        self.decoder = nn.ModuleList(Block(*sizes, decodes=True) for _ in range(self.n_decoder_layers))
        self.register_buffer("waves", torch.empty(context, d_model), persistent=False)  # PE
        self.register_buffer("output_bias", torch.empty(1, target_vocab_size or vocab_size))
        self.waves: Tensor
        self.output_bias: Tensor
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Each map's W ~ U(±√(6 / (in + out))) (Glorot & Bengio 2010), embeddings ~ N(0, 1 / d_model), b = 0, γ = 1."""
        for name, p in self.named_parameters():
            if name.startswith(("tokens", "target_tokens")):
                p.normal_(0, self.d_model**-0.5, generator=generator)
            elif p.ndim == 2:
                parts = 3 if "qkv" in name else 2 if "kv" in name else 1  # maps that share a matrix
                for W in p.chunk(parts):
                    nn.init.xavier_uniform_(W, generator=generator)
            else:
                p.fill_(0 if name.endswith("bias") else 1)
        self.output_bias.zero_()
        self._draw_waves()

    def _draw_waves(self) -> None:
        """Float32 whatever the network computes in, as the checkpoints were trained."""
        halves = self.positions == "halves"
        self.waves.copy_(sinusoids(self.context, self.d_model, halves=halves, dtype=torch.float32, device=self.waves.device))

    def forward(
        self,
        source: Tensor,
        target: Tensor,
        *,
        source_mask: Tensor | None = None,
        target_mask: Tensor | None = None,
        cache: DecoderCache | None = None,
        trace: Trace | None = None,
        last: bool = False,
    ) -> Tensor:
        """Logits of the next target token after each.

        Args:
            source: (B, S), integers; not looked at again once the cache has it.
            target: (B, T), integers, from the bos_token on; those after the ones in the cache.
            source_mask: (B, S), false for padding.
            target_mask: (B, T), false for padding, over the tokens in the cache and these; positions are counted without it.
            cache: read and extended; made by :meth:`new_cache`.
            trace: is shown every intermediate value.
            last: the logits after the last token alone.

        Returns:
            (B, T, N_V), or (B, 1, N_V) for ``last``.

        Raises:
            ModelError: more tokens than the context.
        """
        z = None if cache is not None and cache.length else self.encode(source, mask=source_mask, trace=trace)
        return self.decode(target, z, source_mask=source_mask, target_mask=target_mask, cache=cache, trace=trace, last=last)

    def encode(self, source: Tensor, *, mask: Tensor | None = None, trace: Trace | None = None) -> Tensor:
        """What the encoder makes of the source, (B, S) -> (B, S, D); arguments as :meth:`forward`'s."""
        trace = trace.within("encoder") if trace is not None else None
        z = self._embed(self.tokens, source, mask, 0, trace)
        seen = visible(source.shape[1], mask)
        for i, block in enumerate(self.encoder):
            part = trace.within(f"block.{i}") if trace is not None else None
            z = block(z, {"mask": seen, "trace": part})
            if part is not None:
                part.see("output", z)
        return z

    def decode(
        self,
        target: Tensor,
        z: Tensor | None,
        *,
        source_mask: Tensor | None = None,
        target_mask: Tensor | None = None,
        cache: DecoderCache | None = None,
        trace: Trace | None = None,
        last: bool = False,
    ) -> Tensor:
        """Logits from the target so far and what :meth:`encode` made of the source, (B, S, D); None once the cache has it."""
        inner = trace.within("decoder") if trace is not None else None
        x = self._embed(self.target_tokens, target, target_mask, cache.length if cache is not None else 0, inner)
        seen, seen_source = visible(target.shape[1], target_mask, causal=True), visible(1, source_mask)
        for i, block in enumerate(self.decoder):
            own: dict[str, Any] = {"mask": seen, "cache": cache.own[i] if cache is not None else None}
            cross: dict[str, Any] = {"mask": seen_source, "cache": cache.cross[i] if cache is not None else None}
            if inner is not None:
                own["trace"], cross["trace"] = inner.within(f"block.{i}"), inner.within(f"block.{i}.cross")
            x = block(x, own, z, cross)
            if inner is not None:
                inner.see(f"block.{i}.output", x)
        logits = F.linear(x[:, -1:] if last else x, self.target_tokens.weight, self.output_bias[0])
        if trace is not None:
            trace.see("logits", logits)
        return logits

    def _embed(self, embedding: nn.Embedding, tokens: Tensor, mask: Tensor | None, before: int, trace: Trace | None) -> Tensor:
        T = tokens.shape[1]
        if before + T > self.context:
            raise ModelError(f"transformer: {before + T} tokens, and the context is {self.context}; shorten the text")
        e = embedding(tokens) * math.sqrt(self.d_model) if self.scale_embedding else embedding(tokens)  # (B, T, D)
        x = F.dropout(e + self.waves[positions(T, mask, start=before, device=tokens.device)], self.dropout, self.training)
        if trace is not None:
            trace.see("embedding", x)
        return x

    def new_cache(self, batch: int, source: int, capacity: int | None = None) -> DecoderCache:
        """An empty cache for ``batch`` sources of ``source`` tokens and targets of at most ``capacity`` (the context where left out)."""
        W = self.tokens.weight
        own, cross = (
            Cache(self.n_decoder_layers, batch, self.n_heads, n, self.d_model // self.n_heads, dtype=W.dtype, device=W.device)
            for n in (capacity or self.context, source)
        )
        return DecoderCache(own, cross)

    def theta(self) -> Theta:
        """The weights in the page's letters; gradients flow back through them.

        Raises:
            ModelError: for what Algorithm 8 does not have: another activation, a target vocabulary, a constant added to the logits.
        """
        if self.activation != "relu" or self.target_vocab_size is not None or bool(self.output_bias.any()):
            raise ModelError("transformer: algorithm 8 has ReLU, one vocabulary, and nothing added to the logits; this network differs")
        encode: list[Any] = list(self.encoder)
        decode: list[Any] = list(self.decoder)
        encoder = tuple(EncoderLayer(b.attention.weights(), *_affine(b.norm_1, b.mlp.up, b.mlp.down, b.norm_3)) for b in encode)
        decoder = tuple(
            DecoderLayer._make(
                [b.attention.weights(), *_affine(b.norm_1), b.cross.weights(), *_affine(b.norm_2, b.mlp.up, b.mlp.down, b.norm_3)]
            )
            for b in decode
        )
        W_u = self.tokens.weight
        return Theta(W_u.T * (math.sqrt(self.d_model) if self.scale_embedding else 1), self.waves.T, encoder, decoder, W_u)

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> dict[str, Any]:
        """Arguments of a Marian configuration."""
        return marian.arguments(config)

    def to_config(self) -> dict[str, Any]:
        """As ``transformers`` writes it for MarianMTModel."""
        return marian.configuration(self)

    def sources(self) -> dict[str, Source]:
        """Marian's names."""
        return marian.sources(self)

    def to_checkpoint(self, state: Mapping[str, Tensor] | None = None) -> Iterator[tuple[str, Tensor]]:
        """In Marian's order of channels, whichever this network has."""
        for name, tensor in super().to_checkpoint(state):
            yield name, tensor if self.positions == "halves" else marian.reorder(name, tensor)

    def _fill(self, files: Weights, fresh: Set[str]) -> None:
        super()._fill(files, fresh)
        self._draw_waves()  # which no checkpoint needs to hold


def _affine(*modules: Any) -> Any:
    """Weight and bias of each, one after another."""
    return [tensor for module in modules for tensor in (module.weight, module.bias)]

"""Decoder-only transformer for dialogue: as GPT, except that positions are relative biases, the feed-forward map is gated, and
the network rates what it writes.

Paper: Thoppilan et al. 2022, "LaMDA: Language Models for Dialog Applications", arXiv:2201.08239, sections 3 (network) and 6.1
(dialogue); attention and its biases are those of T5, Raffel et al. 2020, arXiv:1910.10683, section 2.1, the gated map that
of Shazeer 2020, arXiv:2002.05202.

    x_t = W_e[tokens_t]
    n_layers times   x ← x + MHAttention(RMS(x), scores + b[bucket(t - s)]),  x ← x + W_2 (gelu(W_g RMS(x)) ⊙ W_1 RMS(x))
    logits = RMS(x) W_eᵀ

What is unusual: (1) a token's position is told by nothing but a number a head and distance that is added to the scores;
all layers share these numbers.  (2) No biases in the maps.  (3) Heads are wider together than d_model in the published
size.  (4) Scores are divided by √d_head, which T5 leaves to its initial weights.  (5) The paper does not say how it
normalizes, unembeds or draws weights: T5's norm, GPT's tied unembedding and initial weights stand here.  Nobody published
weights; its checkpoint folders have the layout of the others, with our names.

Dialogue: one network writes responses and rates them, as one more token to predict:

    <context> <sentinel> <response>                              learned: the response
    <context> <sentinel> <response> <attribute-name> <rating>    learned: the rating
    answer = of several responses with P[safe] >= threshold the one with the largest 3 P[sensible] + P[specific] + P[interesting]
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import torch
from pydantic import PositiveInt
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - its usual name

from groundup.errors import ModelError
from groundup.generation import Sampling, generate
from groundup.nn.attention import MultiHeadAttention
from groundup.nn.cache import Cache
from groundup.nn.checkpoint import Source
from groundup.nn.decoder_only import DecoderOnly
from groundup.nn.decoding import NetworkDecoder
from groundup.nn.feedforward import GatedFeedForward, normal_
from groundup.nn.masks import visible
from groundup.nn.norm import RMSNorm
from groundup.nn.position import RelativeBias
from groundup.nn.presets import Preset
from groundup.nn.trace import Trace

TASKS = ("language-modelling",)
PRESETS = {
    "lamda-137b": Preset(
        {},
        137e9,
        "Thoppilan et al. 2022, section 3: 137B non-embedding parameters, which the layers here have (137.4B);"
        " the 32,000 tokens of its vocabulary add 0.26B",
    ),
}
"""Published sizes by name."""


class Block(nn.Module):
    """One layer: attention and gated feed-forward, each added to what came in."""

    def __init__(self, d_model: int, n_heads: int, d_head: int, d_ff: int, eps: float) -> None:
        super().__init__()
        self.norm_1 = RMSNorm(d_model, eps)
        self.attention = MultiHeadAttention(d_model, n_heads, d_head=d_head, bias=False)
        self.norm_2 = RMSNorm(d_model, eps)
        self.mlp = GatedFeedForward(d_model, d_ff, "gelu_tanh")

    def forward(self, x: Tensor, **how: Any) -> Tensor:
        """(B, T, D) -> (B, T, D)."""
        x = x + self.attention(self.norm_1(x), **how)
        answer: Tensor = x + self.mlp(self.norm_2(x))
        return answer


class LaMDA(DecoderOnly):
    """A decoder-only transformer over tokens, with relative positions.

    Args:
        vocab_size: number of tokens N_V.
        n_layers: number of layers.
        n_heads: attention heads of each layer.
        d_model: width of a token's activations.
        d_head: width of one head.
        d_ff: hidden units of the feed-forward map; 8 d_model where left out.
        n_buckets: distances that have a bias of their own, or share one.
        max_distance: the distance from which all share one.
        context: tokens that it was, or is to be, trained on at a time; the paper does not say.
        eps: ε of the normalizations.

    Raises:
        ModelError: too few buckets, or a largest distance that the exact half of them reaches already.
    """

    MODEL_TYPES = ("lamda",)

    def __init__(
        self,
        vocab_size: PositiveInt = 32000,
        n_layers: PositiveInt = 64,
        n_heads: PositiveInt = 128,
        d_model: PositiveInt = 8192,
        d_head: PositiveInt = 128,
        d_ff: PositiveInt | None = None,
        n_buckets: PositiveInt = 32,
        max_distance: PositiveInt = 128,
        context: PositiveInt = 2048,
        eps: float = 1e-6,
    ) -> None:
        super().__init__()
        if n_buckets < 2 or max_distance <= n_buckets // 2:
            raise ModelError(
                f"lamda: expected n_buckets of 2 at least and max_distance above half of them, got {n_buckets} and {max_distance}"
            )
        self.vocab_size, self.n_layers, self.n_heads, self.d_model = vocab_size, n_layers, n_heads, d_model
        self.d_head, self.d_ff, self.n_buckets, self.max_distance = d_head, d_ff or 8 * d_model, n_buckets, max_distance
        self.context, self.eps = context, eps
        self.tokens = nn.Embedding(vocab_size, d_model)  # W_eᵀ, and W_u
        self.distances = RelativeBias(n_heads, n_buckets, max_distance)  # b
        self.blocks = nn.ModuleList(Block(d_model, n_heads, d_head, self.d_ff, eps) for _ in range(n_layers))
        self.final_norm = RMSNorm(d_model, eps)
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """W ~ N(0, 0.02²), γ = 1; maps that end in a sum are divided by √(2 n_layers)."""
        normal_(self, 0.02, generator)
        for block in self.blocks:
            assert isinstance(block, Block)
            block.attention.out.weight.div_(math.sqrt(2 * self.n_layers))
            block.mlp.down.weight.div_(math.sqrt(2 * self.n_layers))

    def hidden(
        self,
        tokens: Tensor,
        *,
        mask: Tensor | None = None,
        segments: Tensor | None = None,
        cache: Cache | None = None,
        trace: Trace | None = None,
    ) -> Tensor:
        """What :meth:`forward` unembeds, (B, T, D); distances count padding, so let it not stand between tokens."""
        T, before = self.span(tokens, cache)
        S = before + T
        lower = torch.ones(T, S, dtype=torch.bool, device=tokens.device).tril(before)
        seen = visible(T, mask, segments, causal=True)
        seen = lower if seen is None else seen & lower
        bias = self.distances(T, S).masked_fill(~seen, -torch.inf)  # (1 or B, H, T, S), the mask too, made once for all layers
        return self.through(self.tokens(tokens), cache, trace, bias=bias)

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> dict[str, Any]:
        """The constructor's arguments, by their own names."""
        return {name: config[name] for name in inspect.signature(cls).parameters if name in config}

    def to_config(self) -> dict[str, Any]:
        """The constructor's arguments, by their own names."""
        arguments = {name: getattr(self, name) for name in inspect.signature(type(self)).parameters}
        return {"architectures": ["LaMDA"], "model_type": "lamda"} | arguments

    def sources(self) -> dict[str, Source]:
        """Every tensor by its own name."""
        return {name: Source((name,)) for name in self.state_dict()}


class Marks(NamedTuple):
    """The tokens that mark a dialogue's parts; which they are is the tokenizer's business.

    Attributes:
        sentinel: between context and response.
        end: after a response.
        sensible, specific, interesting, unsafe: names of the attributes that responses are rated by.
        no, yes: the ratings 0 and 1.
    """

    sentinel: int
    end: int
    sensible: int
    specific: int
    interesting: int
    unsafe: int
    no: int
    yes: int


class Example(NamedTuple):
    """Tokens to train on, and which of them the network is to predict."""

    tokens: list[int]
    learned: list[bool]


def response_example(context: Sequence[int], response: Sequence[int], marks: Marks) -> Example:
    """``<context> <sentinel> <response> <end>``: learned are the response and where it ends."""
    before = [*context, marks.sentinel]
    return Example([*before, *response, marks.end], [False] * len(before) + [True] * (len(response) + 1))


def rating_example(
    context: Sequence[int],
    response: Sequence[int],
    attribute: Literal["sensible", "specific", "interesting", "unsafe"],
    rating: bool,
    marks: Marks,
) -> Example:
    """``<context> <sentinel> <response> <attribute-name> <rating>``: learned is the rating."""
    before = [*context, marks.sentinel, *response, getattr(marks, attribute)]
    return Example([*before, marks.yes if rating else marks.no], [False] * len(before) + [True])


def dialogue_loss(network: LaMDA, examples: Sequence[Example]) -> Tensor:
    """Mean of -log P[token | those before it] over the learned tokens of all examples, a number."""
    T, device = max(len(e.tokens) for e in examples), network.tokens.weight.device
    tokens = torch.tensor(
        [e.tokens + [0] * (T - len(e.tokens)) for e in examples], device=device
    )  # (B, T); nothing looks at what is after it
    learned = torch.tensor([e.learned + [False] * (T - len(e.learned)) for e in examples], device=device)
    return F.cross_entropy(network(tokens[:, :-1])[learned[:, 1:]], tokens[:, 1:][learned[:, 1:]])


class Candidate(NamedTuple):
    """A response with the probabilities that it is sensible, specific, interesting and safe."""

    response: list[int]
    sensible: float
    specific: float
    interesting: float
    safe: float

    @property
    def quality(self) -> float:
        """What candidates are ranked by (section 6.1)."""
        return 3 * self.sensible + self.specific + self.interesting


@torch.no_grad()
def rate(network: LaMDA, context: Sequence[int], responses: Sequence[Sequence[int]], marks: Marks) -> list[Candidate]:
    """Rate responses to a context; what an attribute costs is one token a response, since the rest is in the cache."""
    texts = [[*context, marks.sentinel, *response] for response in responses]
    n, T, device = len(texts), max(map(len, texts)), network.tokens.weight.device
    tokens = torch.tensor([[0] * (T - len(text)) + text for text in texts], device=device)
    mask = torch.tensor([[False] * (T - len(text)) + [True] * (len(text) + 1) for text in texts], device=device)
    cache = network.new_cache(n, T + 1)
    network.hidden(tokens, mask=mask[:, :T], cache=cache)
    columns = []
    for attribute, rating in (
        (marks.sensible, marks.yes),
        (marks.specific, marks.yes),
        (marks.interesting, marks.yes),
        (marks.unsafe, marks.no),
    ):
        logits = network(tokens.new_full((n, 1), attribute), mask=mask, cache=cache)[:, -1]  # (n, N_V)
        columns.append(logits.softmax(-1)[:, rating].tolist())
        cache.truncate(T)
    return [Candidate(list(response), *ratings) for response, *ratings in zip(responses, *columns, strict=True)]


def respond(
    network: LaMDA,
    context: Sequence[int],
    marks: Marks,
    *,
    threshold: float,
    n_candidates: int = 16,
    top_k: int = 40,
    max_tokens: int = 64,
    seed: int | None = None,
) -> tuple[Candidate | None, list[Candidate]]:
    """Write several responses, drop those that are not safe enough, and answer with the best of the others.

    Args:
        context: the dialogue so far.
        marks: as in training.
        threshold: the smallest P[safe] of an answer; the paper does not say which.
        n_candidates: responses that are written, each by itself.
        top_k: most likely tokens that each of theirs is drawn from (16 and 40 are section 3's).
        max_tokens: of a response.
        seed: where chance starts.

    Returns:
        The answer, None where no candidate was safe enough; and all candidates, best quality first, unsafe ones included.

    Raises:
        ModelError: a threshold that is no probability, or no room for a response in the context.
    """
    if not 0 <= threshold <= 1 or n_candidates < 1:
        raise ModelError(f"respond: expected a threshold from 0 to 1 and a candidate at least, got {threshold} and {n_candidates}")
    prompt = [*context, marks.sentinel]
    room = min(max_tokens, network.context - len(prompt) - 1)  # one for the attribute's name
    if room < 1:
        raise ModelError(f"respond: {len(context)} tokens leave no room for a response in a context of {network.context}; shorten them")
    settings = Sampling(max_tokens=room, top_k=top_k, seed=seed)
    written = generate(NetworkDecoder(network), [prompt] * n_candidates, settings, end=[marks.end])
    candidates = sorted(rate(network, context, [g.tokens for g in written], marks), key=lambda c: -c.quality)
    return next((c for c in candidates if c.safe >= threshold), None), candidates

"""Encoder-only transformer that fills in masked words and judges sentences: BERT.

Paper: Devlin et al. 2019, "BERT", arXiv:1810.04805; Phuong & Hutter 2022, "Formal Algorithms for Transformers",
arXiv:2207.09238, algorithms 9 and 12.  Smaller sizes: Turc et al. 2019, arXiv:1908.08962.

    x_t = LN(W_e[tokens_t] + W_p[t] + W_s[types_t])
    n_layers times   x ← LN(x + MHAttention(x)),  x ← LN(x + W_2 gelu(W_1 x + b_1) + b_2)
    masked LM        LN(gelu(W_f x_t + b_f)) W_eᵀ + b_u
    next sentence, classification    W tanh(W_c x_0 + b_c) + b
    span             W x_t + b: the answer's start and its end

What is unusual: (1) as GPT-1, except that every token sees every other, and that nothing can be generated.  (2) Three
things are not on the page of algorithm 9: the type of a token (first or second sentence), the normalization of the
embeddings, the unembedding's bias b_u.  (3) The unembedding is the embedding's transpose.  (4) GELU is exact.
(5) Positions are counted without padding, and where documents are packed into a row every one has its own answer.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, Literal, NamedTuple, cast

import torch
from pydantic import Field, PositiveFloat, PositiveInt
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - its usual name

from groundup.errors import ModelError
from groundup.models.gpt import Layer
from groundup.nn.attention import MultiHeadAttention, mh_attention
from groundup.nn.checkpoint import Pretrained, Source, Weights, choose, linear, require
from groundup.nn.embedding import positional_embedding, token_embedding, unembedding
from groundup.nn.feedforward import ACTIVATIONS, Activation, FeedForward, feed_forward, normal_
from groundup.nn.masks import positions, visible
from groundup.nn.norm import LayerNorm, layer_norm
from groundup.nn.presets import Preset
from groundup.nn.trace import Trace

_TURC = "Turc et al. 2019, table of students by layers and width, in millions to one decimal"

TASKS = ("masked-language-modelling", "text-classification")
PRESETS = {
    "bert-tiny": Preset({"n_layers": 2, "n_heads": 2, "d_model": 128}, 4.4e6, f"{_TURC}; 4.433 before that"),
    "bert-mini": Preset({"n_layers": 4, "n_heads": 4, "d_model": 256}, 11.3e6, _TURC),
    "bert-small": Preset({"n_layers": 4, "n_heads": 8, "d_model": 512}, 29.1e6, _TURC),
    "bert-medium": Preset({"n_layers": 8, "n_heads": 8, "d_model": 512}, 41.7e6, _TURC),
    "bert-base": Preset({"n_layers": 12, "n_heads": 12, "d_model": 768}, 110e6, "Devlin et al. 2019, section 3"),
    "bert-large": Preset({"n_layers": 24, "n_heads": 16, "d_model": 1024}, 340e6, "the same, in tens of millions; 336.2 before that"),
}
"""Published sizes by name, with the pre-training heads and the uncased vocabulary."""

Head = Literal["pretraining", "masked-lm", "next-sentence", "classification", "span"]

_HEADS: dict[Head, tuple[str, str]] = {
    "pretraining": ("BertForPreTraining", "cls.seq_relationship"),
    "masked-lm": ("BertForMaskedLM", ""),
    "next-sentence": ("BertForNextSentencePrediction", "cls.seq_relationship"),
    "classification": ("BertForSequenceClassification", "classifier"),
    "span": ("BertForQuestionAnswering", "qa_outputs"),
}
"""Head -> their class, and their name of the last map."""

_KEYS: dict[str, tuple[str, Any]] = {
    "vocab_size": ("vocab_size", 30522),
    "n_layers": ("num_hidden_layers", 12),
    "n_heads": ("num_attention_heads", 12),
    "d_model": ("hidden_size", 768),
    "d_ff": ("intermediate_size", 3072),
    "context": ("max_position_embeddings", 512),
    "n_types": ("type_vocab_size", 2),
    "dropout": ("hidden_dropout_prob", 0.1),
    "attention_dropout": ("attention_probs_dropout_prob", 0.1),
    "eps": ("layer_norm_eps", 1e-12),
}
"""Our argument -> their key, and what it is where a configuration leaves it out."""


class Theta(NamedTuple):
    """All weights θ of Algorithm 9, and after γ, β, W_u what BERT has besides: W_s (d_e, types), γ_e, β_e (d_e,), b_u (N_V,)."""

    W_e: Tensor
    W_p: Tensor
    layers: tuple[Layer, ...]
    W_f: Tensor
    b_f: Tensor
    γ: Tensor
    β: Tensor
    W_u: Tensor
    W_s: Tensor
    γ_e: Tensor
    β_e: Tensor
    b_u: Tensor


def e_transformer(x: Sequence[int], θ: Theta, ε: float = 0.0, s: Sequence[int] | None = None) -> Tensor:
    """Algorithm 9, ETransformer: a distribution over the vocabulary at every token of x.

    Args:
        x: l tokens, l <= l_max.
        θ: :meth:`BERT.theta`.
        ε: inside the roots of the normalizations; the page has none.
        s: types of the tokens, 0 where left out; not on the page.

    Returns:
        P, (N_V, l).
    """
    s = s or [0] * len(x)
    X = torch.stack([token_embedding(v, θ.W_e) + positional_embedding(t, θ.W_p) for t, v in enumerate(x)], dim=1)  # (d_e, l)
    X = X + torch.stack([token_embedding(v, θ.W_s) for v in s], dim=1)  # BERT's, not on the page
    X = _norms(X, θ.γ_e, θ.β_e, ε)  # BERT's, not on the page
    Mask = torch.ones(len(x), len(x), dtype=torch.bool)
    for layer in θ.layers:
        X = X + mh_attention(X, X, layer.W, Mask)
        X = _norms(X, layer.γ1, layer.β1, ε)
        X = X + feed_forward(X, layer.W_mlp1, layer.b_mlp1, layer.W_mlp2, layer.b_mlp2, "gelu")
        X = _norms(X, layer.γ2, layer.β2, ε)
    X = ACTIVATIONS["gelu"](θ.W_f @ X + θ.b_f[:, None])  # (d_f, l)
    X = _norms(X, θ.γ, θ.β, ε)
    # softmax(W_u e + b_u) as the page's softmax(W e): BERT's bias is a column beside W_u, and e ends in a 1
    W_u, X = torch.cat([θ.W_u, θ.b_u[:, None]], dim=1), torch.cat([X, torch.ones_like(X[:1])])
    return torch.stack([unembedding(e, W_u) for e in X.T], dim=1)


def e_training(
    data: Sequence[Sequence[int]],
    network: BERT,
    η: float,
    n_epochs: int,
    p_mask: float,
    mask_token: int,
    generator: torch.Generator | None = None,
) -> BERT:
    """Algorithm 12, ETraining: stochastic gradient descent on -Σ log P[x_t, t] over tokens that were hidden by chance.

    Args:
        data: sequences of tokens.
        network: θ with a masked-LM head, changed in place.
        η: learning rate.
        n_epochs: times through the data.
        p_mask: probability with which a token is hidden.
        mask_token: what stands in its place.
        generator: where chance comes from.

    Returns:
        The network.
    """
    for _ in range(n_epochs):
        for x in data:
            hidden = (torch.rand(len(x), generator=generator) < p_mask).tolist()
            x_masked = [mask_token if hide else v for v, hide in zip(x, hidden, strict=True)]
            T = [t for t in range(len(x)) if hidden[t]]
            if not T:
                continue  # an empty sum has no gradient
            P = e_transformer(x_masked, network.theta(), network.eps)
            loss = -torch.stack([torch.log(P[x[t], t]) for t in T]).sum()
            θ = list(network.parameters())
            for p, g in zip(θ, torch.autograd.grad(loss, θ, materialize_grads=True), strict=True):
                p.data -= η * g
    return network


def _norms(X: Tensor, γ: Tensor, β: Tensor, ε: float) -> Tensor:
    """Algorithm 6 of every column."""
    return torch.stack([layer_norm(e, γ, β, ε) for e in X.T], dim=1)


def _γβ(norm: LayerNorm) -> tuple[Tensor, Tensor]:
    assert norm.bias is not None
    return norm.weight, norm.bias


class PretrainingScores(NamedTuple):
    """What the pre-training head answers: masked LM (B, T, N_V), and next sentence (B, 2), 0 for "follows"."""

    masked_lm: Tensor
    next_sentence: Tensor


class Block(nn.Module):
    """One layer: attention and feed-forward, each added to what came in, and the sum normalized."""

    def __init__(
        self, d_model: int, n_heads: int, d_ff: int, activation: Activation, dropout: float, attention_dropout: float, eps: float
    ) -> None:
        super().__init__()
        self.dropout = dropout
        self.attention = MultiHeadAttention(d_model, n_heads, dropout=attention_dropout)
        self.norm_1 = LayerNorm(d_model, eps)
        self.mlp = FeedForward(d_model, d_ff, activation)
        self.norm_2 = LayerNorm(d_model, eps)

    def forward(self, x: Tensor, mask: Tensor | None, trace: Trace | None) -> Tensor:
        """(B, T, D) -> (B, T, D)."""
        x = self.norm_1(x + F.dropout(self.attention(x, mask=mask, trace=trace), self.dropout, self.training))
        y: Tensor = self.norm_2(x + F.dropout(self.mlp(x), self.dropout, self.training))
        return y

    def theta(self) -> Layer:
        """The weights in the page's letters."""
        up, down = self.mlp.up, self.mlp.down
        γβ1, γβ2 = _γβ(self.norm_1), _γβ(self.norm_2)
        return Layer(*γβ1, self.attention.weights(), *γβ2, up.weight, up.bias, down.weight, down.bias)


class MaskedLM(nn.Module):
    """LN(φ(W_f x + b_f)) W_eᵀ + b_u: which token belongs here."""

    def __init__(self, vocab_size: int, d_model: int, activation: Activation, eps: float) -> None:
        super().__init__()
        self.activation = activation
        self.map = nn.Linear(d_model, d_model)  # W_f, b_f
        self.norm = LayerNorm(d_model, eps)
        self.bias = nn.Parameter(torch.zeros(vocab_size))  # b_u

    def forward(self, x: Tensor, W_e: Tensor) -> Tensor:
        """(..., D) -> (..., N_V)."""
        return F.linear(self.norm(ACTIVATIONS[self.activation](self.map(x))), W_e, self.bias)


class BERT(Pretrained):
    """An encoder-only transformer over tokens, with one of five heads.

    Args:
        head: what it answers: pretraining (masked LM and next sentence), masked-lm, next-sentence, classification, span.
        n_outputs: scores of the classification, 2 where left out; of another head it can only be what that head has.
        vocab_size: number of tokens N_V.
        n_layers: number of layers.
        n_heads: attention heads of each layer.
        d_model: width of a token's activations.
        d_ff: hidden units of the feed-forward map; 4 d_model where left out.
        context: longest sequence l_max, since positions are learned.
        n_types: token types; 0 for the first sentence, 1 for the second.
        activation: the non-linearity of the feed-forward map and of the masked LM.
        dropout: share of activations that is zeroed in training.
        attention_dropout: share of attention weights that is; as ``dropout`` where left out.
        eps: ε of the normalizations.

    Raises:
        ModelError: no such head, n_outputs that the head does not have, d_model that is no multiple of n_heads.
    """

    MODEL_TYPES = ("bert",)
    PREFIX = "bert."
    IGNORED = (
        ".position_ids",
        # what a checkpoint of the pre-training, as bert-base-uncased, has beyond the one head that its config names
        *("pooler.dense.weight", "pooler.dense.bias", "cls.seq_relationship.weight", "cls.seq_relationship.bias"),
    )
    TIED = {  # noqa: RUF012 - typed in the base
        "cls.predictions.decoder.weight": "bert.embeddings.word_embeddings.weight",
        "cls.predictions.decoder.bias": "cls.predictions.bias",
    }
    HEAD = ("head", "n_outputs")

    def __init__(
        self,
        head: Literal["pretraining", "masked-lm", "next-sentence", "classification", "span"] = "pretraining",
        n_outputs: PositiveInt | None = None,
        vocab_size: PositiveInt = 30522,
        n_layers: PositiveInt = 12,
        n_heads: PositiveInt = 12,
        d_model: PositiveInt = 768,
        d_ff: PositiveInt | None = None,
        context: PositiveInt = 512,
        n_types: PositiveInt = 2,
        activation: Literal["gelu", "gelu_tanh", "relu", "silu"] = "gelu",
        dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1,
        attention_dropout: Annotated[float, Field(ge=0, lt=1)] | None = None,
        eps: PositiveFloat = 1e-12,
    ) -> None:
        super().__init__()
        if head not in _HEADS:
            raise ModelError(f"bert: head is {head!r}; expected {', '.join(_HEADS)}; fresh_head of from_pretrained replaces a checkpoint's")
        if d_model % n_heads:
            raise ModelError(f"bert: d_model {d_model} is no multiple of n_heads {n_heads}; change one")
        fixed = {"pretraining": vocab_size, "masked-lm": vocab_size, "next-sentence": 2, "span": 2}.get(head)
        if fixed is not None and n_outputs not in (None, fixed):
            raise ModelError(f"bert: the head {head} has {fixed} outputs, not {n_outputs}; leave n_outputs out")
        self.head, self.n_outputs, self.vocab_size, self.context, self.n_types = head, fixed or n_outputs or 2, vocab_size, context, n_types
        self.n_layers, self.n_heads, self.d_model, self.d_ff = n_layers, n_heads, d_model, d_ff or 4 * d_model
        self.activation, self.dropout, self.eps = activation, dropout, eps
        self.attention_dropout = dropout if attention_dropout is None else attention_dropout
        self.tokens = nn.Embedding(vocab_size, d_model)  # W_eᵀ, and W_u
        self.positions = nn.Embedding(context, d_model)  # W_pᵀ
        self.types = nn.Embedding(n_types, d_model)  # W_sᵀ
        self.norm = LayerNorm(d_model, eps)
        self.blocks = nn.ModuleList(
            Block(d_model, n_heads, self.d_ff, activation, dropout, self.attention_dropout, eps) for _ in range(n_layers)
        )
        self.pooler = nn.Linear(d_model, d_model) if head not in ("masked-lm", "span") else None  # W_c, b_c
        self.masked_lm = MaskedLM(vocab_size, d_model, activation, eps) if head in ("masked-lm", "pretraining") else None
        self.scores = nn.Linear(d_model, 2 if head == "pretraining" else self.n_outputs) if head != "masked-lm" else None
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """W ~ N(0, 0.02²), b = 0, γ = 1, as the authors' code draws them (theirs are cut off at 0.04)."""
        normal_(self, 0.02, generator)

    def forward(
        self,
        tokens: Tensor,
        *,
        types: Tensor | None = None,
        mask: Tensor | None = None,
        segments: Tensor | None = None,
        at: Tensor | None = None,
        trace: Trace | None = None,
    ) -> Tensor | PretrainingScores:
        """What the head answers.

        Args:
            tokens: (B, T), integers.
            types: (B, T), 0 for tokens of the first sentence and 1 for those of the second; all 0 where left out.
            mask: (B, T), false for padding; positions are counted without it.
            segments: (B, T), numbers of packed documents; tokens see their own document only.
            at: bool (B, T), the tokens whose masked-LM scores are asked for; the others' are not computed.
            trace: is shown every intermediate value.

        Returns:
            masked-lm: (B, T, N_V), or (number of true in ``at``, N_V).
            next-sentence, classification: (B, n_outputs); with ``segments`` one row a document, in reading order.
            span: (B, T, 2), scores of being the answer's start and its end; padding has scores too.
            pretraining: the first two, as :class:`PretrainingScores`.

        Raises:
            ModelError: more tokens than the context; ``at`` without a masked LM.
        """
        if at is not None and self.masked_lm is None:
            raise ModelError(f"bert: `at` chooses tokens for the masked LM, and the head is {self.head}")
        x = self.hidden(tokens, types, mask, segments, trace)  # (B, T, D)
        words = None if self.masked_lm is None else self.masked_lm(x if at is None else x[at], self.tokens.weight)
        if self.pooler is not None:
            x = torch.tanh(self.pooler(_first(x, mask, segments)))  # (B, D)
            if trace is not None:
                trace.see("pooled", x)
            if self.head == "classification":
                x = F.dropout(x, self.dropout, self.training)
        scores = words if self.scores is None else self.scores(x)
        assert scores is not None
        if trace is not None:
            trace.see("logits", scores if words is None else words)
        return scores if words is None or self.scores is None else PretrainingScores(words, scores)

    def hidden(self, tokens: Tensor, types: Tensor | None, mask: Tensor | None, segments: Tensor | None, trace: Trace | None) -> Tensor:
        """What the heads of :meth:`forward` read, (B, T, D)."""
        T = tokens.shape[1]
        if self.context < T:
            raise ModelError(f"bert: {T} tokens, and the context is {self.context}; shorten the text")
        at = positions(T, mask, segments, device=tokens.device)
        kind = self.types.weight[0] if types is None else self.types(types)
        x: Tensor = self.norm(self.tokens(tokens) + kind + self.positions(at))  # (B, T, D)
        x = F.dropout(x, self.dropout, self.training)
        seen = visible(T, mask, segments)
        if trace is not None:
            trace.see("embedding", x)
        for i, block in enumerate(self.blocks):
            part = trace.within(f"block.{i}") if trace is not None else None
            x = block(x, seen, part)
            if part is not None:
                part.see("output", x)
        return x

    def theta(self) -> Theta:
        """The weights in the page's letters; gradients flow back through them.

        Raises:
            ModelError: there is no masked LM, or the activation is not the page's.
        """
        if self.masked_lm is None or self.activation != "gelu":
            raise ModelError(f"bert: algorithm 9 has a masked LM and GELU; this network has the head {self.head} and {self.activation}")
        layers = tuple(block.theta() for block in cast("Iterable[Block]", self.blocks))
        lm, W_e = self.masked_lm, self.tokens.weight.T
        return Theta(
            W_e, self.positions.weight.T, layers, lm.map.weight, lm.map.bias, *_γβ(lm.norm), W_e.T,
            self.types.weight.T, *_γβ(self.norm), lm.bias,
        )  # fmt: skip

    def new_head(self, files: Weights) -> set[str]:
        """Draws the head, and the pooler where the checkpoint has none."""
        modules = {"masked_lm": self.masked_lm, "scores": self.scores}
        if not any(name.endswith("pooler.dense.weight") for name in files):
            modules["pooler"] = self.pooler
        for module in modules.values():
            if module is not None:
                normal_(module, 0.02)
        return {f"{prefix}.{name}" for prefix, m in modules.items() if m is not None for name, _ in m.named_parameters()}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> dict[str, Any]:
        """Arguments of a BERT configuration; its ``architectures`` name the head, pretraining where it has none."""
        require(config, is_decoder=False, add_cross_attention=False, tie_word_embeddings=True, position_embedding_type="absolute")
        names = {"gelu": "gelu", "gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh", "relu": "relu", "silu": "silu", "swish": "silu"}
        (theirs, *_) = config.get("architectures") or ["BertForPreTraining"]
        head = next((head for head, (name, _) in _HEADS.items() if name == theirs), theirs)
        labels = config.get("id2label") or range(config.get("num_labels", 2))
        return {
            "head": head,
            "n_outputs": len(labels) if head == "classification" else None,
            "activation": choose(config, "hidden_act", names, "gelu"),
        } | {ours: config.get(theirs, default) for ours, (theirs, default) in _KEYS.items()}

    def to_config(self) -> dict[str, Any]:
        """As ``transformers`` writes it for the class with this head."""
        names = [f"LABEL_{i}" for i in range(self.n_outputs)]
        labels = {"id2label": {str(i): name for i, name in enumerate(names)}, "label2id": {name: i for i, name in enumerate(names)}}
        return {
            "architectures": [_HEADS[self.head][0]],
            "model_type": "bert",
            "hidden_act": "gelu_new" if self.activation == "gelu_tanh" else self.activation,
            "tie_word_embeddings": True,
            **{theirs: getattr(self, ours) for ours, (theirs, _) in _KEYS.items()},
            **(labels if self.head == "classification" else {}),
        }

    def sources(self) -> dict[str, Source]:
        """Query, key and value are maps of their own there; the unembedding is the embedding."""
        t = self.PREFIX
        names = {"tokens": "word", "positions": "position", "types": "token_type"}
        table = {f"{ours}.weight": Source((f"{t}embeddings.{theirs}_embeddings.weight",)) for ours, theirs in names.items()}
        table |= linear("norm", f"{t}embeddings.LayerNorm")
        for i in range(self.n_layers):
            ours, theirs = f"blocks.{i}", f"{t}encoder.layer.{i}"
            table |= linear(f"{ours}.attention.qkv", *(f"{theirs}.attention.self.{each}" for each in ("query", "key", "value")))
            table |= linear(f"{ours}.attention.out", f"{theirs}.attention.output.dense")
            table |= linear(f"{ours}.norm_1", f"{theirs}.attention.output.LayerNorm")
            table |= linear(f"{ours}.mlp.up", f"{theirs}.intermediate.dense")
            table |= linear(f"{ours}.mlp.down", f"{theirs}.output.dense")
            table |= linear(f"{ours}.norm_2", f"{theirs}.output.LayerNorm")
        if self.pooler is not None:
            table |= linear("pooler", f"{t}pooler.dense")
        if self.masked_lm is not None:
            table |= linear("masked_lm.map", "cls.predictions.transform.dense")
            table |= linear("masked_lm.norm", "cls.predictions.transform.LayerNorm")
            table["masked_lm.bias"] = Source(("cls.predictions.bias",))
        return table if self.scores is None else table | linear("scores", _HEADS[self.head][1])

    def _names(self, files: Weights) -> dict[str, str]:
        """In the oldest checkpoints γ and β are called so."""
        names = super()._names(files)
        for name, there in names.items():
            old = there.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta")
            if there not in files and old in files:
                names[name] = old
        return names


def _first(x: Tensor, mask: Tensor | None, segments: Tensor | None) -> Tensor:
    """The first token's activations of each row (B, T, D) -> (B, D), or of each packed document, (number of documents, D)."""
    if segments is not None:
        starts = positions(x.shape[1], mask, segments) == 0
        return x[starts if mask is None else starts & mask.bool()]
    if mask is None:
        return x[:, 0]
    return x[torch.arange(x.shape[0], device=x.device), mask.long().argmax(1)]

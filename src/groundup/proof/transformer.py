"""transformer beside ``transformers``' MarianMTModel, and in the paper's form beside torch.nn's Transformer."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from groundup.bundle import Proof
from groundup.models.transformer import EPS, Transformer
from groundup.nn.attention import MultiHeadAttention
from groundup.nn.cache import DecoderCache
from groundup.nn.norm import LayerNorm
from groundup.nn.trace import Trace
from groundup.proof.compare import FLOAT64_TOLERANCE, Worst, reordering_bound
from groundup.proof.language import prove_language_model
from groundup.proof.pretrained import Pair, draw, prove_pretrained
from groundup.proof.twin import Twin, prove_twins

B, S, T, V, L_ENC, L_DEC, H, D_HEAD, D_FF, CONTEXT = 3, 13, 11, 61, 2, 3, 5, 14, 37, 17
D = H * D_HEAD
TORCH = f"torch.nn {torch.__version__.partition('+')[0]}"
TERMS = 2 * (L_ENC * (2 * D + D_HEAD + S + D_FF) + L_DEC * (3 * D + 2 * D_HEAD + S + T + D_FF)) + 2 * (D + V)


def prove(seeds: Sequence[int]) -> list[Proof]:
    """Marian with one vocabulary and two, with each activation, a padded source; then the paper's own form."""
    return [
        *prove_pretrained("transformer", _pairs, seeds),
        *prove_twins("transformer", "those of torch.nn.Transformer in the paper's form", TORCH, "hidden states", _papers, seeds),
        *_prove_parts(seeds),
        *prove_language_model("transformer, given a source", [_Given()], seeds, packs=False),
    ]


def _pairs(seed: int) -> Iterator[Pair]:
    from transformers import MarianConfig, MarianMTModel

    generator = torch.Generator().manual_seed(seed)
    source, target = torch.randint(V, (B, S), generator=generator), torch.randint(V - 2, (B, T), generator=generator)
    mask = torch.arange(S) < torch.tensor([[S], [7], [2]])
    for V_target, activation, scale in ((None, "swish", True), (59, "relu", False), (None, "gelu", True)):
        config: Any = MarianConfig(
            vocab_size=V,
            decoder_vocab_size=V_target,
            share_encoder_decoder_embeddings=V_target is None,
            encoder_layers=L_ENC,
            decoder_layers=L_DEC,
            encoder_attention_heads=H,
            decoder_attention_heads=H,
            encoder_ffn_dim=D_FF,
            decoder_ffn_dim=D_FF,
            d_model=D,
            max_position_embeddings=CONTEXT,
            activation_function=activation,
            scale_embedding=scale,
            dropout=0.0,
            pad_token_id=5,
            decoder_start_token_id=5,
        )
        config._attn_implementation = "eager"
        theirs = draw(MarianMTModel(config), seed)
        _waves_are_constants(theirs)
        with torch.no_grad():
            theirs.final_logits_bias.normal_(generator=generator)  # type: ignore[operator]
        yield Pair(
            ours=Transformer,
            theirs=theirs,
            inputs={"source": source, "target": target, "source_mask": mask},
            their_inputs={"input_ids": source, "decoder_input_ids": target, "attention_mask": mask.long()},
            terms=TERMS,
            hidden=lambda trace: _hidden(_states(trace, "encoder"), _states(trace, "decoder"), mask),
            their_hidden=lambda out: _hidden(out.encoder_hidden_states, out.decoder_hidden_states, mask),
            attentions=_attentions(mask),
            their_attentions=lambda out: [
                *(α.transpose(1, 2)[mask] for α in out.encoder_attentions),
                *out.decoder_attentions,
                *out.cross_attentions,
            ],
        )


def _waves_are_constants(theirs: nn.Module) -> None:
    """Their positions are parameters that are not trained: put back what :func:`draw` drew over, as buffers that are not saved."""
    model: Any = theirs.model
    for positions in (model.encoder.embed_positions, model.decoder.embed_positions):
        waves = positions.create_weight()
        del positions.weight
        positions.register_buffer("weight", waves, persistent=False)


def _states(trace: Trace, side: str) -> list[Tensor]:
    return [v for k, v in trace.values.items() if k.startswith(side) and k.endswith(("embedding", "output"))]


def _hidden(encoder: Sequence[Tensor], decoder: Sequence[Tensor], mask: Tensor) -> list[Tensor]:
    """What padding becomes is nobody's business: nothing reads it, and the two count its positions differently."""
    return [*(z[mask] for z in encoder), *decoder]


def _attentions(mask: Tensor) -> Any:
    def of(trace: Trace) -> list[Tensor]:
        values = trace.values
        encoder = [values[f"encoder.block.{i}.attention"].transpose(1, 2)[mask] for i in range(L_ENC)]
        own = [values[f"decoder.block.{i}.attention"] for i in range(L_DEC)]
        return [*encoder, *own, *(values[f"decoder.block.{i}.cross.attention"] for i in range(L_DEC))]

    return of


class _Given(nn.Module):
    """The decoder of a source that stays the same: a language model of targets."""

    def __init__(self) -> None:
        super().__init__()
        self.network = Transformer(V, None, L_ENC, L_DEC, H, D, D_FF, CONTEXT, dropout=0.0)
        self.vocab_size, self.context = V, CONTEXT
        self.source = torch.arange(S)[None] % V
        self.mask = torch.arange(S)[None] < S - 2

    def forward(self, tokens: Tensor, *, mask: Tensor | None = None, cache: DecoderCache | None = None, last: bool = False) -> Tensor:
        """Logits of the next target token."""
        B = len(tokens)
        source, source_mask = self.source.expand(B, -1), self.mask.expand(B, -1)
        logits: Tensor = self.network(source, tokens, source_mask=source_mask, target_mask=mask, cache=cache, last=last)
        return logits

    def new_cache(self, batch: int, capacity: int | None = None) -> DecoderCache:
        """A cache that has room for the source."""
        return self.network.new_cache(batch, S, capacity)


class _Torch(nn.Module):
    """The paper's form from torch.nn's own parts; nn.Transformer's two last normalizations are not in the paper and left out."""

    def __init__(self) -> None:
        super().__init__()
        sizes: dict[str, Any] = {"dim_feedforward": D_FF, "dropout": 0.0, "batch_first": True, "layer_norm_eps": EPS}
        self.tokens = nn.Embedding(V, D)
        self.stack: Any = nn.Transformer(
            D,
            H,
            custom_encoder=nn.TransformerEncoder(nn.TransformerEncoderLayer(D, H, **sizes), L_ENC, enable_nested_tensor=False),
            custom_decoder=nn.TransformerDecoder(nn.TransformerDecoderLayer(D, H, **sizes), L_DEC),
            batch_first=True,
        )

    def forward(self, source: Tensor, target: Tensor, mask: Tensor, states: list[Tensor]) -> Tensor:
        """Logits; ``states`` is given what every layer makes, the encoder's first."""
        z, x = ((self.tokens(each) * D**0.5 + self.waves(each.shape[1])) for each in (source, target))
        made: dict[str, list[Tensor]] = {"encoder": [z], "decoder": [x]}
        hooks = [
            layer.register_forward_hook(lambda _module, _inputs, out, of=made[side]: of.append(out))
            for side, layers in (("encoder", self.stack.encoder.layers), ("decoder", self.stack.decoder.layers))
            for layer in layers
        ]
        causal = nn.Transformer.generate_square_subsequent_mask(x.shape[1], dtype=x.dtype)
        padding = torch.zeros(mask.shape, dtype=x.dtype).masked_fill(~mask, -torch.inf)
        y: Tensor = self.stack(z, x, tgt_mask=causal, src_key_padding_mask=padding, memory_key_padding_mask=padding)
        for hook in hooks:
            hook.remove()
        states += _hidden(made["encoder"], made["decoder"], mask)
        return y @ self.tokens.weight.T

    def waves(self, n: int) -> Tensor:
        """Section 3.5, number by number, in float32 as ours."""
        W = self.tokens.weight
        angle = [[t / 10_000 ** (2 * (i // 2) / D) for i in range(D)] for t in range(n)]
        rows = [[math.cos(a) if i % 2 else math.sin(a) for i, a in enumerate(row)] for row in angle]
        return torch.tensor(rows, dtype=torch.float32).to(W.dtype)


_THEIRS = (
    ("attention.qkv.", "self_attn.in_proj_"),
    ("attention.out", "self_attn.out_proj"),
    ("cross.out", "multihead_attn.out_proj"),
    ("mlp.up", "linear1"),
    ("mlp.down", "linear2"),
    ("norm_1", "norm1"),
    ("norm_2", "norm2"),
)


def _rename(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """By torch.nn's names; q of the attention to the source stands above k and v in one matrix there."""
    named = {"tokens.weight": tensors["tokens.weight"]}
    for name, tensor in tensors.items():
        if name.startswith(("encoder", "decoder")) and not name.endswith(("cross.q.weight", "cross.q.bias")):
            side, layer, rest = name.split(".", 2)
            if "cross.kv" in rest:
                tensor = torch.cat([tensors[name.replace("cross.kv", "cross.q")], tensor])
                rest = rest.replace("cross.kv.", "multihead_attn.in_proj_")
            for ours, theirs in (*_THEIRS, ("norm_3", "norm2" if side == "encoder" else "norm3")):
                rest = rest.replace(ours, theirs)
            named[f"stack.{side}.layers.{layer}.{rest}"] = tensor
    return named


def _papers(seed: int) -> Iterator[Twin]:
    generator = torch.Generator().manual_seed(seed)
    source, target = (torch.randint(V, (B, n), generator=generator) for n in (S, T))
    mask = torch.arange(S) < torch.tensor([[S], [7], [2]])
    yield Twin(
        ours=draw(Transformer(V, None, L_ENC, L_DEC, H, D, D_FF, CONTEXT, dropout=0.0), seed),
        theirs=_Torch(),
        rename=_rename,
        run=lambda ours, trace: ours(source, target, source_mask=mask, trace=trace),
        inside=lambda trace: _hidden(_states(trace, "encoder"), _states(trace, "decoder"), mask),
        run_theirs=lambda theirs, states: theirs(source, target, mask, states),
        terms=TERMS,
    )


def _prove_parts(seeds: Sequence[int]) -> list[Proof]:
    proofs = []
    for dtype, tolerance in ((torch.float64, FLOAT64_TOLERANCE), (torch.float32, reordering_bound(3 * D + D_HEAD + S))):
        worst = Worst()
        for seed in seeds:
            _compare_parts(seed, dtype, worst)
        proofs.append(
            Proof(
                link=1,
                claim=f"transformer: MultiHeadAttention and LayerNorm equal torch.nn's ({str(dtype).removeprefix('torch.')})",
                reference=TORCH,
                quantity="largest difference, relative to the tensor's largest value",
                measured=worst.measured,
                tolerance=tolerance,
                samples=worst.samples,
            )
        )
    return proofs


def _compare_parts(seed: int, dtype: torch.dtype, worst: Worst) -> None:
    generator = torch.Generator().manual_seed(seed)
    x, z = (torch.randn(B, n, D, generator=generator).to(dtype) for n in (T, S))
    mask = torch.rand(B, 1, T, S, generator=generator) < 0.7
    mask[..., 0] = True
    theirs: Any = draw(nn.MultiheadAttention(D, H, batch_first=True), seed).to(dtype)
    ours = MultiHeadAttention(D, H, d_context=D).to(dtype)
    (W_q, W_k, W_v), (b_q, b_k, b_v) = theirs.in_proj_weight.chunk(3), theirs.in_proj_bias.chunk(3)
    with torch.no_grad():
        ours.q.weight.copy_(W_q)
        ours.q.bias.copy_(b_q)
        ours.kv.weight.copy_(torch.cat([W_k, W_v]))
        ours.kv.bias.copy_(torch.cat([b_k, b_v]))
    ours.out.load_state_dict(theirs.out_proj.state_dict())
    trace = Trace()
    y, α = theirs(x, z, z, attn_mask=~mask[:, 0].repeat_interleave(H, dim=0), average_attn_weights=False)
    for answer in (ours(x, z, mask=mask), ours(x, z, mask=mask, trace=trace)):
        worst.see(answer, y)
    worst.see(trace.values["attention"], α)
    norm = draw(nn.LayerNorm(D, EPS), seed).to(dtype)
    mine = LayerNorm(D, EPS).to(dtype)
    mine.load_state_dict(norm.state_dict())
    worst.see(mine(x), norm(x))

"""lamda beside ``transformers``' T5 decoder without its attention to a source, and what holds of every language model.

No library has a LaMDA.  Its layers are T5's, which it cites for them, but for the division of the scores by √d_head: the
reference's ``scaling`` is set to it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from groundup.bundle import Proof
from groundup.models.lamda import LaMDA
from groundup.proof.language import prove_language_model
from groundup.proof.pretrained import draw
from groundup.proof.twin import Twin, prove_twins

B, T, V, L, H, D_HEAD, D_MODEL, D_FF = 2, 43, 61, 3, 5, 7, 31, 37
BUCKETS = ((32, 128), (7, 19))
"""T5's, and few enough that the distances here reach the last."""


def prove(seeds: Sequence[int]) -> list[Proof]:
    """Heads that together are wider than d_model; sizes are distinct primes."""
    import transformers

    inside = "hidden states and attention weights"
    small = LaMDA(V, 2, H, D_MODEL, D_HEAD, D_FF, 7, 19, context=17)
    return [
        *prove_twins("lamda", "a T5 decoder's", f"transformers {transformers.__version__}", inside, _twins, seeds),
        *prove_language_model("lamda", [small], seeds),
    ]


def _twins(seed: int) -> Iterator[Twin]:
    tokens = torch.randint(V, (B, T), generator=torch.Generator().manual_seed(seed))
    for n_buckets, max_distance in BUCKETS:
        yield Twin(
            ours=draw(LaMDA(V, L, H, D_MODEL, D_HEAD, D_FF, n_buckets, max_distance, context=T), seed),
            theirs=_T5(n_buckets, max_distance),
            rename=_rename,
            run=lambda ours, trace: ours(tokens, trace=trace),
            inside=lambda trace: [*_states(trace.values), *trace.find("attention")],
            run_theirs=lambda theirs, states: theirs(tokens, states),
            terms=2 * L * (2 * D_MODEL + 2 * D_HEAD + T + H * D_HEAD + D_FF) + 2 * (D_MODEL + V),
        )


def _states(values: Mapping[str, Tensor]) -> list[Tensor]:
    """As transformers lists them: the last layer's normalized."""
    return [values["embedding"], *(values[f"block.{i}.output"] for i in range(L - 1)), values["final_norm"]]


def _stack(n_buckets: int, max_distance: int) -> Any:
    """T5's decoder stack; its own norm rounds to float32 inside whatever comes in, so torch.nn's of the same weights stands in."""
    from transformers import T5Config
    from transformers.models.t5.modeling_t5 import T5Stack

    config: Any = T5Config(
        vocab_size=V,
        d_model=D_MODEL,
        d_kv=D_HEAD,
        d_ff=D_FF,
        num_layers=L,
        num_heads=H,
        relative_attention_num_buckets=n_buckets,
        relative_attention_max_distance=max_distance,
        dropout_rate=0.0,
        layer_norm_epsilon=1e-6,
        feed_forward_proj="gated-gelu",
        is_decoder=True,
        is_encoder_decoder=False,
        use_cache=False,
    )
    config._attn_implementation = "eager"
    stack: nn.Module = T5Stack(config)
    stack.final_layer_norm = nn.RMSNorm(D_MODEL, eps=1e-6)
    blocks: Any = stack.block
    for block in blocks:
        del block.layer[1]  # the attention to a source
        block.layer[0].SelfAttention.scaling = D_HEAD**-0.5
        for part in block.layer:
            part.layer_norm = nn.RMSNorm(D_MODEL, eps=1e-6)
    return stack


class _T5(nn.Module):
    """The stack and its embedding as unembedding."""

    def __init__(self, n_buckets: int, max_distance: int) -> None:
        super().__init__()
        self.stack = _stack(n_buckets, max_distance)

    def forward(self, tokens: Tensor, states: list[Tensor]) -> Tensor:
        """Logits; ``states`` is given what every layer makes."""
        out = self.stack(input_ids=tokens, output_hidden_states=True, output_attentions=True)
        states += [*out.hidden_states, *out.attentions]
        logits: Tensor = out.last_hidden_state @ self.stack.embed_tokens.weight.T
        return logits


def _rename(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """By T5's names."""
    named = {
        "stack.embed_tokens.weight": tensors["tokens.weight"],
        "stack.final_layer_norm.weight": tensors["final_norm.weight"],
        "stack.block.0.layer.0.SelfAttention.relative_attention_bias.weight": tensors["distances.weight"],
    }
    for i in range(L):
        ours, attention, mlp = f"blocks.{i}", f"stack.block.{i}.layer.0", f"stack.block.{i}.layer.1"
        for letter, W in zip("qkv", tensors[f"{ours}.attention.qkv.weight"].chunk(3), strict=True):
            named[f"{attention}.SelfAttention.{letter}.weight"] = W
        named[f"{attention}.SelfAttention.o.weight"] = tensors[f"{ours}.attention.out.weight"]
        named[f"{attention}.layer_norm.weight"] = tensors[f"{ours}.norm_1.weight"]
        named[f"{mlp}.layer_norm.weight"] = tensors[f"{ours}.norm_2.weight"]
        for letter, W in zip("01", tensors[f"{ours}.mlp.gate_up.weight"].chunk(2), strict=True):
            named[f"{mlp}.DenseReluDense.wi_{letter}.weight"] = W
        named[f"{mlp}.DenseReluDense.wo.weight"] = tensors[f"{ours}.mlp.down.weight"]
    return named

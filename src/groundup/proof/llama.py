"""llama beside ``transformers``' LlamaForCausalLM."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import nn

from groundup.bundle import Proof
from groundup.models.llama import Llama
from groundup.proof.language import prove_language_model
from groundup.proof.pretrained import Pair, draw, prove_pretrained


def prove(seeds: Sequence[int]) -> list[Proof]:
    """Grouped, multi-query and plain heads, tied and untied, plain and stretched frequencies, heads wider than d_model / n_heads."""
    sizes = {"vocab_size": 61, "n_layers": 2, "n_heads": 6, "d_model": 31, "d_head": 14, "d_ff": 37, "context": 17}
    networks = [Llama(**sizes, n_kv_heads=n, tied=tied) for n, tied in ((2, False), (6, True))]  # type: ignore[arg-type]
    return [*prove_pretrained("llama", _pairs, seeds), *prove_language_model("llama", networks, seeds)]


def _pairs(seed: int) -> Iterator[Pair]:
    from transformers import LlamaConfig, LlamaForCausalLM

    B, T, V, L, d_head, d_ff, context = 3, 13, 61, 2, 14, 37, 4096
    tokens = torch.randint(V, (B, T), generator=torch.Generator().manual_seed(seed))
    stretched = {"rope_type": "llama3", "rope_theta": 10000.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
    stretched["original_max_position_embeddings"] = 11
    for H, H_kv, D, tied, rope in ((6, 2, 66, False, None), (5, 1, 55, True, None), (3, 3, 57, False, stretched)):
        config = LlamaConfig(
            vocab_size=V,
            hidden_size=D,
            intermediate_size=d_ff,
            num_hidden_layers=L,
            num_attention_heads=H,
            num_key_value_heads=H_kv,
            head_dim=d_head,
            max_position_embeddings=context,
            tie_word_embeddings=tied,
            rope_parameters=rope,
            attn_implementation="eager",
        )
        names = ["embedding", *(f"block.{i}.output" for i in range(L - 1)), "final_norm"]
        yield Pair(
            ours=Llama,
            theirs=draw(LlamaForCausalLM(config), seed),
            inputs={"tokens": tokens},
            their_inputs={"input_ids": tokens},
            terms=2 * L * (2 * D + 2 * d_head + T + H * d_head + D + d_ff) + 2 * (D + V),
            hidden=lambda trace, names=names: [trace.values[name] for name in names],  # type: ignore[misc]
            adapt=_norms_in_float64,
        )


def _norms_in_float64(network: nn.Module) -> None:
    """Their norm rounds to float32 inside, whatever comes in; beyond that, torch.nn's of the same weights is the reference."""
    for module in network.modules():
        for name, child in module.named_children():
            if type(child).__name__ == "LlamaRMSNorm":
                norm = nn.RMSNorm(len(child.weight), eps=child.variance_epsilon)  # type: ignore[arg-type]
                norm.weight = child.weight  # type: ignore[assignment]
                setattr(module, name, norm)

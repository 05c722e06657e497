"""gpt beside ``transformers``' GPT2LMHeadModel and OpenAIGPTLMHeadModel."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch

from groundup.bundle import Proof
from groundup.models.gpt import GPT
from groundup.proof.language import prove_language_model
from groundup.proof.pretrained import Pair, draw, prove_pretrained


def prove(seeds: Sequence[int]) -> list[Proof]:
    """GPT-2 and GPT-1; sizes are distinct primes."""
    sizes = {"vocab_size": 61, "n_layers": 2, "n_heads": 5, "d_model": 35, "context": 17, "dropout": 0.0}
    networks = [GPT(**sizes, norm=norm) for norm in ("pre", "post")]  # type: ignore[arg-type]
    return [*prove_pretrained("gpt", _pairs, seeds), *prove_language_model("gpt", networks, seeds)]


def _pairs(seed: int) -> Iterator[Pair]:
    from transformers import GPT2Config, GPT2LMHeadModel, OpenAIGPTConfig, OpenAIGPTLMHeadModel

    B, T, V, L, H, d_head, context = 3, 13, 61, 2, 5, 7, 17
    D = H * d_head
    sizes = {"vocab_size": V, "n_positions": context, "n_embd": D, "n_layer": L, "n_head": H}
    off = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0, "bos_token_id": 1, "eos_token_id": 2}
    tokens = torch.randint(V, (B, T), generator=torch.Generator().manual_seed(seed))
    terms = 2 * L * (D + D + d_head + T + D + D + D + 4 * D) + 2 * (D + V)
    for config, cls in (
        (GPT2Config(**sizes, **off, attn_implementation="eager"), GPT2LMHeadModel),
        (OpenAIGPTConfig(**sizes, **off, attn_implementation="eager"), OpenAIGPTLMHeadModel),
    ):
        last = ["final_norm"] if cls is GPT2LMHeadModel else [f"block.{L - 1}.output"]
        names = ["embedding", *(f"block.{i}.output" for i in range(L - 1)), *last]
        yield Pair(
            ours=GPT,
            theirs=draw(cls(config), seed),
            inputs={"tokens": tokens},
            their_inputs={"input_ids": tokens},
            terms=terms,
            hidden=lambda trace, names=names: [trace.values[name] for name in names],  # type: ignore[misc]
        )

"""bert beside ``transformers``' BERT with each of its heads."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from groundup.bundle import Proof
from groundup.models.bert import BERT, PretrainingScores
from groundup.nn.masks import positions
from groundup.proof.pretrained import Pair, draw, prove_pretrained


def prove(seeds: Sequence[int]) -> list[Proof]:
    """Pre-training, masked LM, next sentence, classification and span; two sentences a row, padded; sizes are distinct primes."""
    return prove_pretrained("bert", _pairs, seeds)


def _pairs(seed: int) -> Iterator[Pair]:
    import transformers

    B, T, V, L, H, d_head, d_ff, context = 3, 13, 61, 2, 5, 7, 37, 17
    D = H * d_head
    sizes: dict[str, Any] = {"vocab_size": V, "hidden_size": D, "num_hidden_layers": L, "num_attention_heads": H}
    sizes |= {
        "intermediate_size": d_ff,
        "max_position_embeddings": context,
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
    }
    sizes["pad_token_id"] = None  # else they leave out a gradient
    tokens = torch.randint(V, (B, T), generator=torch.Generator().manual_seed(seed))
    types = (torch.arange(T) >= 5).long().expand(B, T)
    mask = torch.arange(T) < torch.tensor([[T], [11], [7]])
    inputs = {"tokens": tokens, "types": types, "mask": mask}
    their_inputs = {"input_ids": tokens, "token_type_ids": types, "attention_mask": mask.long(), "position_ids": positions(T, mask)}
    for name in ("PreTraining", "MaskedLM", "NextSentencePrediction", "SequenceClassification", "QuestionAnswering"):
        each: Any = getattr(transformers, f"BertFor{name}")
        labels = 2 if name == "QuestionAnswering" else 11  # an answer's start and its end
        config = transformers.BertConfig(**sizes, num_labels=labels, attn_implementation="eager")
        yield Pair(
            ours=BERT,
            theirs=draw(each(config), seed),
            inputs=inputs,
            their_inputs=their_inputs,
            terms=2 * (L * (4 * D + D + d_head + T + T + D + D + d_ff) + 4 * D + V) + B * T,
            output=_output,
            their_output=_their_output,
        )


def _output(out: Tensor | PretrainingScores) -> Tensor:
    return torch.cat([scores.flatten() for scores in out]) if isinstance(out, PretrainingScores) else out


def _their_output(out: Any) -> Tensor:
    if "prediction_logits" in out:
        return torch.cat([out.prediction_logits.flatten(), out.seq_relationship_logits.flatten()])
    answer: Tensor = torch.stack([out.start_logits, out.end_logits], dim=-1) if "start_logits" in out else out.logits
    return answer

"""PaLM: equal to the paper's equations written another way, causal, cached, padded and packed without a difference."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from groundup.errors import ModelError
from groundup.models import palm
from groundup.models.palm import PRESETS, PaLM
from groundup.nn.position import Rotation
from groundup.proof import palm as proof


def small(**other: Any) -> PaLM:
    sizes = {"vocab_size": 61, "n_layers": 2, "n_heads": 5, "d_model": 31, "d_head": 14, "d_ff": 37, "context": 17}
    return PaLM(**(sizes | other))


def test_equals_the_paper(seed: int) -> None:
    proofs = proof.prove((seed,))
    assert len(proofs) == 8 + 6
    assert all(p.passed for p in proofs), "\n".join(map(str, proofs))
    assert all(p.samples > 50 for p in proofs)


def _serial(self: palm.Block, x: Tensor, **how: Any) -> Tensor:
    x = x + self.attention(self.norm(x), causal=True, **how)
    answer: Tensor = x + self.mlp(self.norm(x))
    return answer


def _still(self: Rotation, x: Tensor) -> Tensor:
    return x


@pytest.mark.parametrize(("cls", "name", "mistake"), [(palm.Block, "forward", _serial), (Rotation, "__call__", _still)])
def test_a_mistake_is_seen(monkeypatch: pytest.MonkeyPatch, cls: type, name: str, mistake: Any) -> None:
    monkeypatch.setattr(cls, name, mistake)
    by_claim = {p.claim: p.passed for p in proof.prove((0,))}
    assert not any(passed for claim, passed in by_claim.items() if "paper" in claim)
    assert all(passed for claim, passed in by_claim.items() if "paper" not in claim), "it stays a sound language model"


def test_presets_have_the_published_size() -> None:
    for name, preset in PRESETS.items():
        with torch.device("meta"):
            n = sum(p.numel() for p in PaLM(**preset.config).parameters())
        assert abs(n / preset.published - 1) < 0.0005, f"{name}: {n:,} beside {preset.published:,.0f}"


def test_weights_are_drawn_as_the_paper_says() -> None:
    network = small(vocab_size=499, d_model=113)
    network.reset_parameters(torch.Generator().manual_seed(0))
    block = network.blocks[0]
    assert abs(network.tokens.weight.std() - 1) < 0.02
    for W in (block.attention.qkv.weight, block.attention.out.weight, block.mlp.gate_up.weight, block.mlp.down.weight):
        assert abs(W.std() * W.shape[1] ** 0.5 - 1) < 0.03
    again = small(vocab_size=499, d_model=113)
    again.reset_parameters(torch.Generator().manual_seed(0))
    assert torch.equal(again(torch.arange(9)[None]), network(torch.arange(9)[None]))


def test_saved_and_loaded_is_the_same(tmp_path: Path) -> None:
    network, tokens = small(), torch.arange(13)[None]
    network.save_pretrained(tmp_path)
    again = PaLM.from_pretrained(tmp_path)
    assert again.to_config() == network.to_config()
    assert torch.equal(again(tokens), network(tokens))


def test_cache_has_one_head() -> None:
    assert small().new_cache(3, 11).nbytes == 2 * 2 * 3 * 11 * 14 * 4


@pytest.mark.parametrize(
    ("config", "message"),
    [({"d_head": None}, "d_model 31 is no multiple of n_heads 5"), ({"d_head": 7}, "heads are 7 wide.*make it even")],
)
def test_what_cannot_be_built(config: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        small(**config)


def test_too_many_tokens() -> None:
    with pytest.raises(ModelError, match="18 tokens, and the context is 17"):
        small()(torch.zeros(1, 18, dtype=torch.long))

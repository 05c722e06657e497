"""Llama: equal to transformers', loaded and saved both ways, causal, cached, padded and packed without a difference."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from groundup.errors import ModelError
from groundup.models.llama import PRESETS, Llama, Stretch
from groundup.nn.position import frequencies
from groundup.proof import llama as proof

transformers = pytest.importorskip("transformers", reason="the reference")


def small(**other: object) -> Llama:
    sizes = {"vocab_size": 61, "n_layers": 2, "n_heads": 6, "n_kv_heads": 2, "d_model": 31, "d_head": 14, "d_ff": 37, "context": 17}
    return Llama(**(sizes | other))  # type: ignore[arg-type]


def test_equals_transformers(seed: int) -> None:
    proofs = proof.prove((seed,))
    assert len(proofs) == 10 + 6
    assert all(p.passed for p in proofs), "\n".join(map(str, proofs))


@pytest.mark.parametrize("other", [{}, {"tied": True}, {"stretch": (8.0, 1.0, 4.0, 11)}])
def test_opens_in_transformers(tmp_path: Path, other: dict[str, object]) -> None:
    network = small(d_model=66, **other).eval()
    network.save_pretrained(tmp_path)
    theirs, report = transformers.LlamaForCausalLM.from_pretrained(tmp_path, output_loading_info=True)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    tokens = torch.randint(61, (3, 13))
    torch.testing.assert_close(theirs.eval()(tokens).logits, network(tokens), rtol=1e-5, atol=1e-6)
    again = Llama.from_pretrained(tmp_path)
    assert torch.equal(again(tokens), network(tokens))


def test_presets_have_the_published_size() -> None:
    for name, preset in PRESETS.items():
        with torch.device("meta"):
            n = sum(p.numel() for p in Llama(**preset.config).parameters())
        assert abs(n / preset.published - 1) < 0.02, f"{name}: {n:,} beside {preset.published:,.0f}"


def test_stretching_leaves_fast_waves_and_divides_slow_ones() -> None:
    ω = frequencies(64, 500_000.0)
    stretched = Stretch(8.0, 1.0, 4.0, 8192)(ω)
    assert torch.equal(stretched[:10], ω[:10])
    assert torch.allclose(stretched[-5:], ω[-5:] / 8)
    assert (stretched <= ω).all()
    assert (stretched.diff() < 0).all()


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"n_kv_heads": 4}, "n_heads 6 is no multiple of n_kv_heads 4"),
        ({"d_head": None}, "d_model 31 is no multiple of n_heads 6"),
        ({"d_head": 7}, "heads are 7 wide.*make it even"),
    ],
)
def test_what_cannot_be_built(config: dict[str, int], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        small(**config)

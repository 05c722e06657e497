"""GPT: equal to transformers', loaded and saved both ways, causal, cached, padded and packed without a difference."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from groundup.errors import ModelError
from groundup.models.gpt import GPT, PRESETS, d_inference
from groundup.proof import gpt as proof

transformers = pytest.importorskip("transformers", reason="the reference")


def small(**other: object) -> GPT:
    return GPT(**({"vocab_size": 61, "n_layers": 2, "n_heads": 5, "d_model": 35, "context": 17, "dropout": 0.0} | other))  # type: ignore[arg-type]


def test_equals_transformers(seed: int) -> None:
    proofs = proof.prove((seed,))
    assert len(proofs) == 10 + 6
    assert all(p.passed for p in proofs), "\n".join(map(str, proofs))
    assert all(p.samples > 50 for p in proofs)


def test_a_wrong_weight_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """One row of one bias off by 1 %."""
    fill = GPT._fill

    def off(self: GPT, *args: object) -> None:
        fill(self, *args)  # type: ignore[arg-type]
        with torch.no_grad():
            self.blocks[1].mlp.up.bias[3] *= 1.01

    monkeypatch.setattr(GPT, "_fill", off)
    assert not any(p.passed for p in proof.prove((0,)) if "transformers' (float64)" in p.claim and "attention" not in p.claim)


@pytest.mark.parametrize("norm", ["pre", "post"])
def test_opens_in_transformers(tmp_path: Path, norm: str) -> None:
    network = small(norm=norm).eval()
    network.save_pretrained(tmp_path)
    cls = transformers.GPT2LMHeadModel if norm == "pre" else transformers.OpenAIGPTLMHeadModel
    theirs, report = cls.from_pretrained(tmp_path, output_loading_info=True)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    tokens = torch.randint(61, (3, 13))
    torch.testing.assert_close(theirs.eval()(tokens).logits, network(tokens), rtol=1e-5, atol=1e-6)


def test_presets_have_the_published_size() -> None:
    for name, preset in PRESETS.items():
        with torch.device("meta"):
            n = sum(p.numel() for p in GPT(**preset.config).parameters())
        assert abs(n / preset.published - 1) < 0.02 or name == "gpt3-xl", f"{name}: {n:,} beside {preset.published:,.0f}"
    assert "gpt2" in PRESETS


def test_page_samples_from_the_distribution_it_computes() -> None:
    network = small(context=5).double()
    generator = torch.Generator().manual_seed(0)
    drawn = torch.tensor([d_inference([1, 2], 1, network, 0.5, generator)[0] for _ in range(2000)])
    p = (network(torch.tensor([[1, 2]]))[0, -1].detach() / 0.5).softmax(-1)
    counts = torch.bincount(drawn, minlength=61).double()
    chi2 = ((counts - 2000 * p) ** 2 / (2000 * p)).sum()
    assert chi2 < 60 + 4 * (2 * 60) ** 0.5, "within four standard deviations of χ² with 60 degrees of freedom"


@pytest.mark.parametrize(
    ("config", "message"),
    [({"d_model": 36}, "no multiple of n_heads"), ({"n_heads": 5, "d_model": 36}, "give d_head")],
)
def test_what_cannot_be_built(config: dict[str, int], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        small(**config)


def test_too_many_tokens() -> None:
    with pytest.raises(ModelError, match="18 tokens, and the context is 17"):
        small()(torch.zeros(1, 18, dtype=torch.long))
    network, tokens = small().eval(), torch.zeros(1, 10, dtype=torch.long)
    cache = network.new_cache(1, 15)
    network(tokens, cache=cache)
    with pytest.raises(ModelError, match="cache holds 15 tokens, and 20"):
        network.blocks[0].attention(torch.zeros(1, 10, 35), cache=cache[0])

"""Transformer: equal to transformers' Marian and to torch.nn's, loaded and saved both ways, padded and cached without a difference."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from groundup.errors import DataError, ModelError
from groundup.generation import Sampling, generate
from groundup.models.transformer import PRESETS, Transformer, ed_inference
from groundup.nn.decoding import TranslationDecoder
from groundup.proof import transformer as proof

transformers = pytest.importorskip("transformers", reason="the reference")


def small(**other: Any) -> Transformer:
    sizes = {"vocab_size": 61, "n_layers": 2, "n_decoder_layers": 3, "n_heads": 5, "d_model": 70, "d_ff": 37, "context": 17, "dropout": 0.0}
    network = Transformer(**(sizes | other))
    network.reset_parameters(torch.Generator().manual_seed(0))
    return network


def drawn(**other: Any) -> Transformer:
    """With weights that are all off where they start, in float64."""
    network = small(**other)
    proof.draw(network, 0)
    network.output_bias.normal_(generator=torch.Generator().manual_seed(0))
    return network.double().eval()


def tokens(seed: int, *shape: int) -> torch.Tensor:
    return torch.randint(59, shape, generator=torch.Generator().manual_seed(seed))


def test_equals_its_references(seed: int) -> None:
    proofs = proof.prove((seed,))
    assert len(proofs) == 10 + 8 + 2 + 5
    assert all(p.passed for p in proofs), "\n".join(map(str, proofs))
    assert all(p.samples > 50 for p in proofs)


def test_a_wrong_weight_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """One row of one bias off by 1 %."""
    fill = Transformer._fill

    def off(self: Transformer, *args: Any) -> None:
        fill(self, *args)
        with torch.no_grad():
            self.decoder[1].mlp.up.bias[3] *= 1.01

    monkeypatch.setattr(Transformer, "_fill", off)
    failed = {p.claim for p in proof.prove((0,)) if not p.passed}
    assert {
        f"transformer: {claim} transformers' (float64)" for claim in ("outputs equal", "the gradient of every parameter equals")
    } <= failed
    assert not any("torch.nn" in claim for claim in failed)


@pytest.mark.parametrize(
    "other",
    [{}, {"positions": "halves", "activation": "silu", "scale_embedding": False, "pad_token": 5}, {"target_vocab_size": 59}],
    ids=["paper", "marian", "two-vocabularies"],
)
def test_opens_in_transformers(tmp_path: Path, other: dict[str, Any]) -> None:
    network, source, target = drawn(**other), tokens(1, 3, 13), tokens(2, 3, 11)
    network.save_pretrained(tmp_path)
    theirs, report = transformers.MarianMTModel.from_pretrained(tmp_path, dtype=torch.float64, output_loading_info=True)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    theirs.eval()
    expected = network(source, target)
    torch.testing.assert_close(theirs(input_ids=source, decoder_input_ids=target).logits, expected, rtol=1e-10, atol=1e-10)
    theirs.save_pretrained(tmp_path / "theirs")
    for folder in (tmp_path, tmp_path / "theirs"):
        again = Transformer.from_pretrained(folder)
        torch.testing.assert_close(again(source, target), expected, rtol=1e-10, atol=1e-10)
        if network.positions == "halves":
            assert torch.equal(again(source, target), expected)
            assert again.to_config() == network.to_config()


def test_writes_what_transformers_writes(tmp_path: Path) -> None:
    network, source = drawn(pad_token=60, bos_token=60, eos_token=3), tokens(3, 1, 13)
    network.save_pretrained(tmp_path)
    theirs = transformers.MarianMTModel.from_pretrained(tmp_path, dtype=torch.float64).eval()
    for beams in (1, 3):
        with torch.no_grad():
            how = {"do_sample": False, "num_beams": beams, "max_new_tokens": 9, "forced_eos_token_id": None, "early_stopping": False}
            wanted = theirs.generate(source, **how)[0].tolist()
        settings = Sampling(temperature=0, max_tokens=9, beams=beams)
        written = generate(TranslationDecoder(network, source.tolist()), [[60]], settings, end=[3])[0]
        assert [60, *written.tokens, *([3] if written.finish == "end" else [])] == wanted


def test_old_checkpoints_hold_copies(tmp_path: Path) -> None:
    drawn().save_pretrained(tmp_path)
    file = tmp_path / "model.safetensors"
    whole = load_file(file)
    copies = {"lm_head.weight", "model.encoder.embed_tokens.weight", "model.decoder.embed_tokens.weight"}
    old = (
        whole
        | {name: whole["model.shared.weight"].clone() for name in copies}
        | {"model.encoder.embed_positions.weight": torch.zeros(17, 70)}
    )
    save_file(old, file)
    Transformer.from_pretrained(tmp_path)
    save_file(old | {"model.decoder.embed_tokens.weight": torch.zeros(61, 70)}, file)
    with pytest.raises(ModelError, match=r"second copy of model\.shared\.weight"):
        Transformer.from_pretrained(tmp_path)


@pytest.mark.parametrize("left", [False, True])
def test_padding_a_source_changes_no_logit(left: bool) -> None:
    network, source, target = drawn(), tokens(4, 3, 13), tokens(5, 3, 11)
    padding = torch.full((3, 4), 7)
    padded = torch.cat([padding, source] if left else [source, padding], dim=1)
    mask = torch.cat([padding < 0, source >= 0] if left else [source >= 0, padding < 0], dim=1)
    expected = network(source, target)
    torch.testing.assert_close(network(padded, target, source_mask=mask), expected, rtol=1e-12, atol=1e-12)
    assert not torch.allclose(network(padded, target), expected), "without the mask it does"


def test_each_row_reads_its_own_source() -> None:
    network = drawn()
    sources = [tokens(i, n).tolist() for i, n in enumerate((3, 13, 7, 2))]
    prompts = [[0], [0, 5, 9], [0, 1], [0]]
    decoder = TranslationDecoder(network, sources)

    def check(logits: Any, rows: list[int], written: list[list[int]]) -> None:
        for row, extra, answer in zip(rows, written, logits, strict=True):
            alone = network(torch.tensor([sources[row]]), torch.tensor([prompts[row] + extra]))[0, -1].detach()
            torch.testing.assert_close(torch.from_numpy(answer).double(), alone, rtol=1e-5, atol=1e-6)

    check(decoder.start(prompts, 17), [0, 1, 2, 3], [[], [], [], []])
    check(decoder.step([8, 9, 10, 11]), [0, 1, 2, 3], [[8], [9], [10], [11]])
    decoder.select([3, 1, 1])
    check(decoder.step([4, 5, 6]), [3, 1, 1], [[11, 4], [9, 5], [9, 6]])
    with pytest.raises(DataError, match="4 sources for 2 targets"):
        decoder.start(prompts[:2], 17)


def test_page_samples_from_the_distribution_it_computes() -> None:
    network = small(vocab_size=61, n_layers=1, n_decoder_layers=1, n_heads=1, d_model=6, context=2).double().eval()
    generator = torch.Generator().manual_seed(0)
    drawn_tokens = torch.tensor([ed_inference([1, 2], network, 0.5, generator)[1] for _ in range(1000)])
    p = (network(torch.tensor([[1, 2]]), torch.tensor([[0]]))[0, -1].detach() / 0.5).softmax(-1)
    counts = torch.bincount(drawn_tokens, minlength=61).double()
    chi2 = ((counts - 1000 * p) ** 2 / (1000 * p)).sum()
    assert chi2 < 60 + 4 * (2 * 60) ** 0.5, "within four standard deviations of χ² with 60 degrees of freedom"


def test_page_stops_at_the_end_token() -> None:
    network = small().double().eval()
    written = ed_inference([1, 2], network, 0.0)
    assert len(written) == 17, "full, since the end token happens not to come"
    network.eos_token = written[4]
    assert ed_inference([1, 2], network, 0.0) == written[: written.index(network.eos_token, 1) + 1]


def count(**config: Any) -> int:
    with torch.device("meta"):
        return sum(p.numel() for p in Transformer(**config).parameters())


def test_presets_have_the_published_size() -> None:
    sizes = {name: count(**preset.config) for name, preset in PRESETS.items()}
    assert sizes == {"transformer-base": 63_082_496, "transformer-big": 214_245_376}
    assert abs(sizes["transformer-base"] / PRESETS["transformer-base"].published - 1) < 0.03
    assert abs(sizes["transformer-big"] / PRESETS["transformer-big"].published - 1) < 0.006


def test_why_the_published_size_differs() -> None:
    """What the presets say of table 3: its rows (C) are for 41,000 tokens, its last for 36,000."""
    rows = {36: {"n_layers": 2}, 50: {"n_layers": 4}, 80: {"n_layers": 8}, 65: {}, 53: {"d_ff": 1024}, 90: {"d_ff": 4096}}
    rows |= {28: {"d_model": 256, "d_ff": 2048}, 168: {"d_model": 1024, "d_ff": 2048}}
    for millions, config in rows.items():
        assert round(count(vocab_size=41_000, **config) / 1e6) == millions
        assert round(count(vocab_size=37_000, **config) / 1e6) != millions
    big = PRESETS["transformer-big"].config
    assert [round(count(vocab_size=V, **big) / 1e6) for V in (36_000, 37_000, 41_000)] == [213, 214, 218]


def test_dropout_drops_in_training_only() -> None:
    network, source, target = small(dropout=0.5), tokens(1, 2, 5), tokens(2, 2, 3)
    assert not torch.equal(network(source, target), network(source, target))
    network.eval()
    assert torch.equal(network(source, target), network(source, target))


def test_seeded_weights_are_the_same() -> None:
    first, second = small(), small()
    for network in (first, second):
        network.reset_parameters(torch.Generator().manual_seed(7))
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    q, k, v = first.encoder[0].attention.qkv.weight.chunk(3)
    for W in (q, k, v, first.decoder[2].cross.kv.weight[:70]):
        assert W.abs().max() <= (6 / 140) ** 0.5
        assert abs(W.std() / (2 / 140) ** 0.5 - 1) < 0.05, "each map as wide as if it stood by itself"


@pytest.mark.parametrize(
    ("config", "message"), [({"d_model": 71}, "even and a multiple"), ({"n_heads": 4}, "even and a multiple.*got 70 with 4")]
)
def test_what_cannot_be_built(config: dict[str, int], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        small(**config)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"attention_dropout": 0.1}, "attention_dropout is 0.1"),
        ({"decoder_attention_heads": 7}, "decoder_attention_heads is 7"),
        ({"decoder_vocab_size": 7}, "decoder_vocab_size is 7, and the embeddings shared with the encoder are 61"),
        ({"tie_word_embeddings": False}, "tie_word_embeddings is False"),
        ({"activation_function": "tanh"}, "activation_function is 'tanh'"),
        ({"vocab_size": 67, "decoder_vocab_size": 67}, r"wrongly shaped: .*\(1, 61\), the config makes it \(1, 67\)"),
    ],
)
def test_configs_that_are_something_else(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    small().save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | change))
    with pytest.raises(ModelError, match=message):
        Transformer.from_pretrained(tmp_path)


def test_the_page_has_one_form_only() -> None:
    for other in ({"activation": "silu"}, {"target_vocab_size": 59}):
        with pytest.raises(ModelError, match="algorithm 8 has ReLU, one vocabulary"):
            small(**other).theta()
    with pytest.raises(ModelError, match="nothing added to the logits"):
        drawn().theta()


def test_too_many_tokens() -> None:
    network, long, short = small(), torch.zeros(1, 18, dtype=torch.long), torch.zeros(1, 3, dtype=torch.long)
    for source, target in ((long, short), (short, long)):
        with pytest.raises(ModelError, match="18 tokens, and the context is 17"):
            network(source, target)

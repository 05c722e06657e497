"""`groundup models NAME --trace TEXT`: a checkpoint or a small network, and what is refused."""

from __future__ import annotations

import sys
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from groundup import catalogue
from groundup.cli import main
from groundup.data import tokenizers
from groundup.errors import DataError, ModelError, RecipeError
from groundup.inside import example
from groundup.models.gpt import GPT

Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def models(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Call:
    """models(ARGUMENT, ...) -> status, standard output, standard error."""
    monkeypatch.setenv("COLUMNS", "80")

    def call(*arguments: str | Path) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["groundup", "models", *map(str, arguments)])
        capfd.readouterr()
        with pytest.raises(SystemExit) as e:
            main()
        return int(e.value.code or 0), *capfd.readouterr()

    return call


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A checkpoint with its tokenizer, which has a token of two bytes of a character."""
    texts = ["low lower lowest é è", "日本 日本"]
    tokenizer = tokenizers.train("bpe", texts, 270)
    GPT(vocab_size=tokenizer.vocab_size + 2, n_layers=2, n_heads=2, d_model=22, context=13).save_pretrained(tmp_path)
    tokenizer.save(tmp_path)
    return tmp_path


@pytest.mark.parametrize("name", [n for n in catalogue.names("sequence") if n != "transformer"])
def test_a_small_network_reads_bytes(name: str) -> None:
    state = torch.random.get_rng_state()
    read, again = example(name, "é!"), example(name, "é!")
    assert torch.equal(torch.random.get_rng_state(), state)
    assert (read.tokens, read.labels) == ((0xC3, 0xA9, 0x21), ("xC3", "xA9", "!"))
    assert "random network" in read.note
    assert "learned nothing" in read.note
    assert sum(p.numel() for p in read.network.parameters()) < 300_000
    assert str(read.steps()) == str(again.steps())
    assert all(len(layer.weights) == 4 for layer in read.attention().layers)


def test_a_checkpoint_reads_with_its_tokenizer(folder: Path) -> None:
    read = example("gpt", "lowest 日本!", folder)
    assert "".join(read.labels[: read.labels.index(" ")] if " " in read.labels else read.labels).startswith("lowest")
    assert list(read.tokens) == tokenizers.load(folder).encode("lowest 日本!")
    network = GPT.from_pretrained(folder)
    assert torch.equal(read.lens().logits[-1], network(torch.tensor([read.tokens]))[0].detach())
    assert read.name(int(tokenizers.load(folder).ids["Ġlow"])) == " low"
    assert read.name(len(tokenizers.load(folder).tokens)) == "token 270"  # a row that fills the matrix


def test_the_command_shows_and_writes(models: Call, folder: Path, tmp_path: Path) -> None:
    attention, lens = tmp_path / "attention.svg", tmp_path / "lens.svg"
    status, out, err = models("gpt", "--trace", "lower", "--checkpoint", folder, "--attention", attention, "--lens", lens)
    assert (status, err) == (0, "")
    assert str(folder) in out
    assert "block.1.attention" in out
    n = len(tokenizers.load(folder).encode("lower"))
    assert f"1 × 2 × {n} × {n}" in out
    assert out.endswith(f"wrote {attention}\nwrote {lens}\n")
    for path in (attention, lens):
        assert ET.fromstring(path.read_text(encoding="utf-8")).tag.endswith("svg")
    status, out, _ = models("llama", "--trace", "Hi")
    assert status == 0
    assert out.startswith("a small random network (vocab_size 256, ")
    assert "2 tokens" in out


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["gpt", "--trace", ""], 3, "expected a text to trace, got an empty one"),
        (["mlp", "--trace", "x"], 2, "mlp reads features, not tokens"),
        (["vit", "--trace", "x"], 2, "vit reads features, not tokens"),
        (["gtp", "--trace", "x"], 2, "did you mean 'gpt'?"),
        (["--trace", "x"], 2, "--trace takes one model"),
        (["gpt", "--trace", "x", "--preset", "gpt2"], 2, "none of --preset"),
        (["gpt", "--trace", "x", "--batch", "2"], 2, "none of --preset, --batch"),
        (["gpt", "--lens", "x.svg"], 2, "go with --trace"),
        (["gpt", "--checkpoint", "x"], 2, "go with --trace"),
        (["gpt", "--trace", "x" * 600], 4, "600 tokens, and the context is 512; shorten the text"),
        (["gpt", "--trace", "x", "--checkpoint", "nowhere"], 4, "there is no folder nowhere"),
    ],
)
def test_what_cannot_be_traced_is_refused(models: Call, arguments: list[str], status: int, message: str) -> None:
    got, out, err = models(*arguments)
    assert (got, out) == (status, "")
    assert message in err


def test_checkpoints_that_do_not_fit_are_refused(folder: Path, models: Call, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="expected model_type llama for Llama, got 'gpt2'"):
        example("llama", "low", folder)
    got, out, err = models("gpt", "--trace", "low " * 20, "--checkpoint", folder, "--lens", tmp_path / "x.svg")
    assert (got, out) == (4, "")
    assert "the context is 13; shorten the text" in err
    assert not (tmp_path / "x.svg").exists()
    GPT(vocab_size=200, n_layers=1, n_heads=1, d_model=8, context=13).save_pretrained(folder)
    with pytest.raises(ModelError, match=r"the tokenizer has 270 tokens and the network 200, so token \d+ has no embedding"):
        example("gpt", "low", folder)
    for file in folder.glob("tokenizer*"):
        file.unlink()
    with pytest.raises(DataError, match="has no tokenizer"):
        example("gpt", "low", folder)


def test_text_that_no_file_could_hold_is_refused() -> None:
    with pytest.raises(DataError, match="character 1 of the text is half of a surrogate pair"):
        example("gpt", "a\udcff")


def test_an_encoder_decoder_is_for_python() -> None:
    with pytest.raises(RecipeError, match=r"transformer reads a source and a target; .* groundup\.inside\.attention_maps"):
        example("transformer", "x")

"""The logit lens: the last layer is the network's own answer to the last bit, every other one that of the network cut off there."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from groundup.errors import ModelError
from groundup.inside import logit_lens
from groundup.models.bert import BERT
from groundup.models.gpt import GPT
from groundup.models.lamda import LaMDA
from groundup.models.llama import Llama
from groundup.models.palm import PaLM
from groundup.models.vit import ViT

S = "{http://www.w3.org/2000/svg}"
SIZE: dict[str, Any] = {"vocab_size": 61, "n_layers": 3, "n_heads": 2, "d_model": 22, "d_ff": 29, "context": 19}
TEXT = [3, 1, 4, 1, 5, 9, 2]
NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "gpt": lambda: GPT(**SIZE),
    "gpt post": lambda: GPT(**SIZE, norm="post"),
    "llama": lambda: Llama(**SIZE, d_head=6),
    "llama tied": lambda: Llama(**SIZE, d_head=6, tied=True),
    "palm": lambda: PaLM(**SIZE, d_head=6),
    "lamda": lambda: LaMDA(**SIZE, d_head=6),
    "bert masked-lm": lambda: BERT(**SIZE, head="masked-lm"),
    "bert pretraining": lambda: BERT(**SIZE),
}


def built(name: str, seed: int) -> Any:
    """A network whose layers all matter, so that no two of them answer alike."""
    network: Any = NETWORKS[name]()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in network.parameters():
            p.add_(0.3 * torch.randn(p.shape, generator=generator))
    return network


@torch.no_grad()  # where gradients are asked for, LaMDA's learned distances take another kernel
def scores(network: Any) -> torch.Tensor:
    """The network's own logits of the text."""
    answer = network(torch.tensor([TEXT]))
    found: torch.Tensor = getattr(answer, "masked_lm", answer)[0]
    return found


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_last_layer_is_the_networks_own_answer(name: str, dtype: torch.dtype, seed: int) -> None:
    network = built(name, seed).to(dtype).train()
    lens = logit_lens(network, TEXT, labels=list("abcdefg"))
    assert network.training
    assert "hidden" not in vars(network)
    own = scores(network.eval())
    assert torch.equal(lens.logits[-1], own)
    p = own.double().softmax(-1)
    np.testing.assert_array_equal(lens.ids[-1, :, 0], p.argmax(-1).numpy())
    np.testing.assert_array_equal(lens.probabilities[-1, :, 0], p.max(-1).values.numpy())


@pytest.mark.parametrize("name", NETWORKS)
def test_every_layer_is_the_network_cut_off_there(name: str, seed: int) -> None:
    network = built(name, seed).eval()
    lens = logit_lens(network, TEXT, labels=list("abcdefg"))
    assert lens.layers == ("embedding", "layer 0", "layer 1", "layer 2")
    blocks = network.blocks
    for n in range(4):
        network.blocks = blocks[:n]
        own = scores(network)
        assert torch.equal(lens.logits[n], own), f"after {n} layers"
    assert len({tuple(layer.flatten().tolist()) for layer in lens.logits}) == 4


def test_it_prints_as_a_table() -> None:
    lens = logit_lens(built("gpt", 0), TEXT, labels=["if", " ", "日本", "x" * 30, "\n", "\u0301", ""], name=lambda i: f"<{i}>")
    lines = str(lens).splitlines()
    assert lines[0].split() == ["embedding", "layer", "0", "layer", "1", "layer", "2"]
    assert [line.split()[1] for line in lines[1:]] == ["if", "␣", "日本", "x" * 9 + "…", "↵", "◌́", "∅"]
    for t, line in enumerate(lines[1:]):
        assert re.findall(r"<(\d+)> (\d\.\d\d)", line) == [(str(lens.ids[i, t, 0]), f"{lens.probabilities[i, t, 0]:.2f}") for i in range(4)]


def test_it_is_drawn_from_the_text_upwards() -> None:
    lens = logit_lens(built("gpt", 0), TEXT, labels=["<b>", "]]>", "c", "d", "e", "f", "\x00"], name=lambda i: f"<{i}>&", top=3)
    svg = ET.fromstring(lens.svg())
    told = ["".join(e.itertext()) for e in svg.findall(f".//{S}rect[@class='spot']")]
    assert len(told) == 4 * 7
    first = lens.ids[0, 0], lens.probabilities[0, 0]
    assert told[0] == "after <b> (0), embedding: " + ", ".join(f"<{i}>& {p:.3f}" for i, p in zip(*first, strict=True))
    names = [e for e in svg.iter(f"{S}text") if e.get("class") == "token"]
    assert ["".join(e.itertext()) for e in names[-7:]] == ["<b>", "]]>", "c", "d", "e", "f", "\\x00"]
    heights = [float(e.attrib["y"]) for e in names[::7]]
    assert heights[-1] > heights[0] > heights[1] > heights[2] > heights[3]
    cells = [float(e.attrib["fill-opacity"]) for e in svg.findall(f"./{S}g/{S}rect[@fill-opacity]")]
    np.testing.assert_allclose(cells, 0.03 + 0.52 * lens.probabilities[:, :, 0].ravel(), atol=0.001)


def test_long_texts_break_into_lines() -> None:
    network = GPT(vocab_size=61, n_layers=1, n_heads=1, d_model=8, context=200)
    svg = ET.fromstring(logit_lens(network, [1] * 200, labels=["word"] * 200).svg())
    assert float(svg.attrib["width"]) < 1400
    assert len(svg.findall(f".//{S}rect[@class='spot']")) == 400
    assert len(svg.findall(f"./{S}g")) > 3


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (ViT((1, 8, 8), 3, patch_size=4, n_layers=1, n_heads=1, d_model=8), "ViT has no logit lens: expected blocks over tokens"),
        (
            BERT(**SIZE, head="classification"),
            r"BERT has no logit lens: it answers \(1, 2\), no scores of a vocabulary at each of 2 tokens",
        ),
        (nn.Linear(2, 2), "Linear has no logit lens"),
    ],
    ids=["vit", "bert", "linear"],
)
def test_other_networks_are_refused(network: nn.Module, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        logit_lens(network, [1, 2], labels=["a", "b"])


def test_labels_are_as_many_as_tokens() -> None:
    with pytest.raises(ModelError, match="a label for each of the 2 tokens, got 1"):
        logit_lens(GPT(**SIZE), [1, 2], labels=["a"])


def test_the_network_is_whole_after_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    network = GPT(**SIZE)
    with pytest.raises(ModelError, match="shorten the text"):
        logit_lens(network, [1] * 20, labels=["a"] * 20)
    assert network(torch.tensor([[1]])).shape == (1, 1, 61)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in network.modules())

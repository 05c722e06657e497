"""The trace: every value once, in order, with its own numbers, and a network that does not notice."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - its usual name

from groundup.inside import trace_steps
from groundup.models.gpt import GPT
from groundup.models.llama import Llama

TOKENS = torch.tensor([[3, 1, 4, 1, 5]])


def gpt(**other: object) -> GPT:
    return GPT(
        **({"vocab_size": 61, "n_layers": 1, "n_heads": 3, "d_model": 21, "d_ff": 29, "context": 17, "dropout": 0.1} | other)
    ).double()  # type: ignore[arg-type]


def test_every_value_in_the_order_of_the_equations() -> None:
    steps = trace_steps(gpt(), TOKENS)
    assert [(s.name, s.where, s.shape) for s in steps] == [
        ("input", "into GPT", (1, 5)),
        ("tokens", "Embedding", (1, 5, 21)),
        ("positions.input", "into Embedding", (5,)),
        ("positions", "Embedding", (5, 21)),
        ("embedding", "in GPT", (1, 5, 21)),
        ("blocks.0.norm_1", "LayerNorm", (1, 5, 21)),
        ("blocks.0.attention.qkv", "Linear", (1, 5, 63)),
        ("block.0.attention", "in MultiHeadAttention", (1, 3, 5, 5)),
        ("blocks.0.attention.out.input", "into Linear", (1, 5, 21)),
        ("blocks.0.attention.out", "Linear", (1, 5, 21)),
        ("blocks.0.norm_2.input", "into LayerNorm", (1, 5, 21)),
        ("blocks.0.norm_2", "LayerNorm", (1, 5, 21)),
        ("blocks.0.mlp.up", "Linear", (1, 5, 29)),
        ("blocks.0.mlp.down.input", "into Linear", (1, 5, 29)),
        ("blocks.0.mlp.down", "Linear", (1, 5, 21)),
        ("blocks.0", "Block", (1, 5, 21)),
        ("final_norm", "LayerNorm", (1, 5, 21)),
        ("logits", "in GPT", (1, 5, 61)),
    ]


def test_the_values_are_those_of_the_equations() -> None:
    network = gpt()
    v = trace_steps(network, TOKENS).values
    assert torch.equal(v["input"], TOKENS)
    assert torch.equal(v["embedding"], v["tokens"] + v["positions"])
    assert torch.equal(v["blocks.0.norm_2.input"], v["embedding"] + v["blocks.0.attention.out"])
    assert torch.equal(v["blocks.0.mlp.down.input"], F.gelu(v["blocks.0.mlp.up"], approximate="tanh"))
    assert torch.equal(v["blocks.0"], v["blocks.0.norm_2.input"] + v["blocks.0.mlp.down"])
    torch.testing.assert_close(v["block.0.attention"].sum(-1), torch.ones(1, 3, 5, dtype=torch.float64), rtol=0, atol=1e-15)
    torch.testing.assert_close(v["logits"], network.eval()(TOKENS).detach(), rtol=1e-12, atol=1e-13)


def test_mean_and_deviation_are_numpys() -> None:
    steps = trace_steps(gpt(), TOKENS)
    for step in steps:
        x = steps.values[step.name].double().numpy()
        np.testing.assert_allclose([step.mean, step.std], [x.mean(), x.std()], rtol=1e-5, atol=1e-12)


def test_what_is_changed_in_place_is_two_values() -> None:
    network = nn.Sequential(nn.Linear(3, 7), nn.ReLU(inplace=True), nn.Identity(), nn.Dropout(0.5), nn.Linear(7, 2))
    steps = trace_steps(network, torch.randn(5, 3))
    assert [s.name for s in steps] == ["input", "0", "1", "4"]
    assert bool((steps.values["0"] < 0).any())
    assert torch.equal(steps.values["1"], steps.values["0"].relu())


class Answer(NamedTuple):
    low: Tensor
    rest: dict[str, Tensor]


class Twice(nn.Module):
    """One module called twice, with a keyword, and an answer that is a structure."""

    def __init__(self) -> None:
        super().__init__()
        self.map = nn.Linear(3, 3)

    def forward(self, x: Tensor, *, shift: Tensor) -> Answer:
        return Answer(self.map(x), {"high": self.map(x + shift)})


def test_any_module_and_any_answer() -> None:
    steps = trace_steps(Twice(), torch.randn(2, 3), shift=torch.ones(3))
    assert [s.name for s in steps] == ["input", "input.shift", "map", "map.input", "map (2)"]
    steps = trace_steps(nn.Bilinear(2, 3, 5), torch.ones(1, 2), torch.ones(1, 3))
    assert [s.name for s in steps] == ["input.0", "input.1", "answer"]


def test_the_network_is_left_as_it_was() -> None:
    network = gpt().train()
    network.blocks[0].eval()
    before = {name: m.training for name, m in network.named_modules()}
    with pytest.raises(Exception, match="context"):
        trace_steps(network, torch.zeros(1, 18, dtype=torch.long))
    trace_steps(network, TOKENS)
    assert {name: m.training for name, m in network.named_modules()} == before
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in network.modules())
    assert torch.is_grad_enabled()


def test_shapes_alone_without_memory() -> None:
    with torch.device("meta"):
        network = Llama(n_layers=2)
        steps = trace_steps(network, torch.zeros(1, 3, dtype=torch.long))
    assert steps[-1].shape == (1, 3, 32000)
    assert math.isnan(steps[-1].mean)
    assert str(steps).splitlines()[-1].split()[-2:] == ["–", "–"]


def test_the_table_is_aligned_and_escaped() -> None:
    steps = trace_steps(nn.ModuleDict({"<b>&": nn.Linear(2, 3)})["<b>&"], torch.ones(2))
    assert [line.index("2") for line in str(steps).splitlines() if "input" in line] == [str(steps).index("shape")]
    network = nn.Sequential()
    network.add_module("<script>", nn.Linear(2, 3))
    shown = trace_steps(network, torch.ones(2))._repr_html_()
    assert "<td>&lt;script&gt;</td>" in shown
    assert "<script>" not in shown

"""mlp beside ``torch.nn.Sequential`` of Linear, activation and Dropout."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
from torch import nn

from groundup.bundle import Proof
from groundup.models.mlp import MLP
from groundup.proof.compare import Case, prove_network

_ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "gelu": nn.GELU, "silu": nn.SiLU, "tanh": nn.Tanh}


_CONFIGURATIONS = ((0, "relu", (13,)), (1, "tanh", (11,)), (2, "relu", (2, 3, 5)), (3, "gelu", (7,)), (2, "silu", (17,)))
"""Hidden layers, activation, shape of one example."""


def prove(seeds: Sequence[int]) -> list[Proof]:
    """Every activation, no hidden layer, one and several; sizes are distinct primes, so that no two axes can be swapped."""
    return prove_network("mlp", _cases, seeds)


def _cases(seed: int) -> Iterator[Case]:
    for n_layers, activation, shape in _CONFIGURATIONS:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            ours = MLP(shape, n_outputs=3, width=19, n_layers=n_layers, activation=activation, dropout=0.25)  # type: ignore[arg-type]
            _move_biases(ours)
        theirs, names = twin(ours, shape)
        D = math.prod(shape)
        yield Case(ours, theirs, names, shape, batch=23, terms=2 * (D + 19 * n_layers + 23))


def twin(ours: MLP, shape: tuple[int, ...]) -> tuple[nn.Module, dict[str, str]]:
    """The same network from torch.nn's modules, and our tensors' names in it."""
    modules: list[nn.Module] = [nn.Flatten()]
    names: dict[str, str] = {}
    last = len(ours.weights) - 1
    for i, W in enumerate(ours.weights):
        names |= {f"weights.{i}": f"{len(modules)}.weight", f"biases.{i}": f"{len(modules)}.bias"}
        modules.append(nn.Linear(W.shape[1], W.shape[0]))
        if i < last:
            modules += [_ACTIVATIONS[ours.activation](), nn.Dropout(ours.dropout)]
    return nn.Sequential(*modules), names


@torch.no_grad()
def _move_biases(network: MLP) -> None:
    """Off zero, where they start: a bias left out would not show."""
    for b in network.biases:
        b.normal_()

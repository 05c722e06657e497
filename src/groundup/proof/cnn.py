"""cnn beside ``torch.nn.Sequential`` of Conv2d, BatchNorm2d, ReLU, MaxPool2d, AdaptiveAvgPool2d, Dropout and Linear."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import nn

from groundup.bundle import Proof
from groundup.models.cnn import CNN
from groundup.proof.compare import Case, prove_network


def prove(seeds: Sequence[int]) -> list[Proof]:
    """One stage and several, odd sizes that halving cuts, one channel and three; sizes are distinct primes."""
    return prove_network("cnn", _cases, seeds)


def _cases(seed: int) -> Iterator[Case]:
    for shape, width, n_stages, n_convs in (((1, 7, 11), 5, 2, 2), ((3, 13, 11), 5, 3, 1), ((2, 5, 7), 11, 1, 2)):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            ours = CNN(shape, n_outputs=17, width=width, n_stages=n_stages, n_convs=n_convs, dropout=0.25)
            _move_constants(ours)
        theirs, names = twin(ours, shape[0], width, n_stages, n_convs)
        batch = 13
        positions = batch * shape[1] * shape[2]  # what a convolution's gradient and a batch statistic sum over
        terms = 2 * n_convs * sum(9 * (width << s) + positions // 4**s for s in range(n_stages)) + positions
        yield Case(ours, theirs, names, shape, batch, terms)


def twin(ours: CNN, channels: int, width: int, n_stages: int, n_convs: int) -> tuple[nn.Module, dict[str, str]]:
    """The same network from torch.nn's modules, and our tensors' names in it."""
    modules: list[nn.Module] = []
    names = {}
    for s in range(n_stages):
        if s > 0:
            modules.append(nn.MaxPool2d(kernel_size=2, stride=2))
        for i in range(n_convs):
            mine = f"stages.{s}.{i}"
            names[f"{mine}.conv.weight"] = f"{len(modules)}.weight"
            modules.append(nn.Conv2d(channels, width * 2**s, 3, padding="same", bias=False))
            for tensor in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked"):
                names[f"{mine}.norm.{tensor}"] = f"{len(modules)}.{tensor}"
            channels = width * 2**s
            modules += [nn.BatchNorm2d(channels), nn.ReLU()]
    modules += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(ours.dropout)]
    names |= {f"head.{tensor}": f"{len(modules)}.{tensor}" for tensor in ("weight", "bias")}
    modules.append(nn.Linear(channels, ours.head.out_features))
    return nn.Sequential(*modules), names


@torch.no_grad()
def _move_constants(network: CNN) -> None:
    """γ, β and the read-out's bias off the constants where they start: one left out would not show."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.weight.uniform_(0.5, 1.5)
            module.bias.normal_()
    network.head.bias.normal_()

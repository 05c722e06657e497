"""The measuring that the comparisons share: two implementations, the same weights, the same data, and how far apart they are.

Differences are relative to the largest value of the tensor that they are in: max|ours - theirs| / max|theirs|.

Two correct implementations in one arithmetic differ by the order of their sums.  A sum of n terms is off by at most
n·u of the sum of magnitudes (Higham 2002, "Accuracy and Stability of Numerical Algorithms", section 4.2; u = 2⁻²⁴ in
float32), each of the two by itself; so float32 is held to 2·n·u, n counting the terms summed one after another from
input to output and back.  In float64 the same differences must stay below 1e-10.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from groundup.bundle import Proof

FLOAT64_TOLERANCE = 1e-10


def reordering_bound(terms: int) -> float:
    """2·n·u: how far two float32 sums of n terms in different order may be apart.

    >>> reordering_bound(100) < 1.2e-5
    True
    """
    return 2 * terms * 2.0**-24


def difference(ours: Tensor, theirs: Tensor) -> float:
    """max|ours - theirs| / max|theirs|; NaN where either is not finite, infinity where the shapes differ."""
    if ours.shape != theirs.shape:
        return float("inf")
    ours, theirs = ours.detach().double(), theirs.detach().double()
    if not (ours.isfinite().all() and theirs.isfinite().all()):
        return float("nan")
    scale = theirs.abs().max().item() if theirs.numel() else 0.0
    gap = (ours - theirs).abs().max().item() if theirs.numel() else 0.0
    return gap / scale if scale else gap


@dataclass
class Worst:
    """The largest difference seen, and over how many values; a NaN stays."""

    measured: float = 0.0
    samples: int = 0

    def see(self, ours: Tensor, theirs: Tensor) -> None:
        """Compare two tensors."""
        gap = difference(ours, theirs)
        self.measured = gap if gap != gap or gap > self.measured else self.measured
        self.samples += theirs.numel()


@dataclass(frozen=True)
class Case:
    """One pair to compare.

    Attributes:
        ours: the network of the catalogue.
        theirs: the reference's, built independently.
        names: our parameter or buffer -> theirs; weights are copied along it.
        shape: of one example.
        batch: how many.
        terms: how many terms a score is summed from, layer after layer (for the float32 bound).
        adamw_eps: what AdamW adds to the size of a gradient before it divides by it; larger than usual for a network with
            gradients that are 0 but for rounding, which would otherwise become full steps.
    """

    ours: nn.Module
    theirs: nn.Module
    names: dict[str, str]
    shape: tuple[int, ...]
    batch: int
    terms: int
    adamw_eps: float = 1e-8


@dataclass
class _Measured:
    tolerance: float
    quantities: dict[str, Worst] = field(default_factory=dict)

    def of(self, quantity: str) -> Worst:
        return self.quantities.setdefault(quantity, Worst())


def prove_network(name: str, cases: Callable[[int], Iterator[Case]], seeds: Sequence[int]) -> list[Proof]:
    """Outputs (training and evaluation), every gradient, one SGD and one AdamW step, in float64 and float32.

    Args:
        cases: seed -> the pairs to compare for it; weights are drawn with that seed.
    """
    results = {torch.float64: _Measured(FLOAT64_TOLERANCE), torch.float32: _Measured(0.0)}
    ε = 1e-8
    for seed in seeds:
        for case in cases(seed):
            ε = max(ε, case.adamw_eps)
            for dtype, measured in results.items():
                if dtype == torch.float32:
                    measured.tolerance = max(measured.tolerance, reordering_bound(case.terms))
                _compare(case, dtype, seed, measured)
    claims = {
        "outputs": "outputs equal torch.nn's with the same weights, training and evaluating",
        "gradients": "the gradient of every parameter equals torch.nn's",
        "sgd": "one SGD step with momentum leaves the same weights as torch.nn's",
        "adamw": "one AdamW step leaves the same weights as torch.nn's" + (f", ε = {ε:g}" if ε > 1e-8 else ""),
    }
    return [
        Proof(
            link=1,
            claim=f"{name}: {claims[quantity]} ({str(dtype).removeprefix('torch.')})",
            reference=f"torch.nn {torch.__version__.partition('+')[0]}",
            quantity="largest difference, relative to the tensor's largest value",
            measured=worst.measured,
            tolerance=measured.tolerance,
            samples=worst.samples,
        )
        for dtype, measured in results.items()
        for quantity, worst in measured.quantities.items()
    ]


_STEPS: dict[str, Callable[[list[nn.Parameter], Case], torch.optim.Optimizer]] = {
    "sgd": lambda parameters, _: torch.optim.SGD(parameters, lr=0.1, momentum=0.9),
    "adamw": lambda parameters, case: torch.optim.AdamW(parameters, lr=0.01, eps=case.adamw_eps),
}


def _compare(case: Case, dtype: torch.dtype, seed: int, measured: _Measured) -> None:
    ours, theirs = copy.deepcopy(case.ours).to(dtype), copy.deepcopy(case.theirs).to(dtype)
    copy_weights(ours, theirs, case.names)
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(case.batch, *case.shape, generator=generator).to(dtype)
    for training in (True, False):  # training first: it moves the running statistics that evaluation then uses
        scores, expected = (_forward(net.train(training), x, seed) for net in (ours, theirs))
        measured.of("outputs").see(scores, expected)
    for step, optimizer in _STEPS.items():
        mine, reference = copy.deepcopy(ours), copy.deepcopy(theirs)
        weight = torch.randn(expected.shape, generator=torch.Generator().manual_seed(seed)).to(dtype)
        for net in (mine, reference):
            weighted = (_forward(net.train(), x, seed) * weight).sum()  # every score counts, with its own sign and size
            weighted.backward()  # type: ignore[no-untyped-call]
        parameters, twins = dict(mine.named_parameters()), dict(reference.named_parameters())
        if step == "sgd":
            for a, b in _pairs(parameters, twins, case.names):
                measured.of("gradients").see(_grad(a), _grad(b))
        for each in (parameters, twins):
            optimizer(list(each.values()), case).step()
        for a, b in _pairs(parameters, twins, case.names):
            measured.of(step).see(a, b)


def copy_weights(ours: nn.Module, theirs: nn.Module, names: dict[str, str]) -> None:
    """Copy our state into the reference's, all of it and nothing twice.

    Raises:
        AssertionError: a tensor of either side has no partner; a comparison that leaves one out proves less than it says.
    """
    mine, target = ours.state_dict(), theirs.state_dict()
    assert set(names) == set(mine), f"without a partner in the reference: {sorted(set(mine) ^ set(names))}"
    assert set(names.values()) == set(target), f"the reference has others: {sorted(set(target) ^ set(names.values()))}"
    theirs.load_state_dict({names[k]: v.clone() for k, v in mine.items()})


def _pairs(ours: dict[str, nn.Parameter], theirs: dict[str, nn.Parameter], names: dict[str, str]) -> Iterator[tuple[Tensor, Tensor]]:
    for name, parameter in ours.items():
        yield parameter, theirs[names[name]]


def _forward(network: nn.Module, x: Tensor, seed: int) -> Tensor:
    """Scores, with dropout drawn from the seed: where ours drops, theirs does."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        scores: Tensor = network(x)
        return scores


def _grad(parameter: Tensor) -> Tensor:
    return parameter.grad if parameter.grad is not None else torch.full_like(parameter, float("nan"))

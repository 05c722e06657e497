"""The measuring itself: equal things measure as equal, and every kind of mistake is seen."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from groundup.catalogue import entries
from groundup.errors import ModelError
from groundup.models.mlp import MLP
from groundup.proof import check, cnn, linear, logistic, mlp
from groundup.proof.compare import Worst, copy_weights, difference, prove_network, reordering_bound
from groundup.proof.fitted import difference as fitted_difference
from groundup.proof.fitted import prove_estimator


def test_difference() -> None:
    a = torch.tensor([1.0, -4.0])
    assert difference(a, a) == 0
    assert difference(a + torch.tensor([0.0, 0.4]), a) == pytest.approx(0.1)
    assert difference(torch.zeros(2), torch.zeros(2)) == 0
    assert difference(torch.ones(2), torch.zeros(2)) == 1
    assert math.isinf(difference(torch.ones(2, 1), torch.ones(2)))
    assert math.isnan(difference(torch.tensor([math.nan, 1.0]), a))
    assert math.isinf(fitted_difference([1.0], [[1.0]]))
    assert fitted_difference([200.0], [100.0]) == 1


def test_a_nan_stays_the_worst() -> None:
    worst = Worst()
    worst.see(torch.tensor([math.nan]), torch.ones(1))
    worst.see(torch.ones(1), torch.ones(1))
    assert math.isnan(worst.measured)
    assert worst.samples == 2


def test_reordering_costs_less_than_the_bound(seed: int) -> None:
    x = torch.rand(1000, generator=torch.Generator().manual_seed(seed))
    forward, backward = torch.zeros(()), torch.zeros(())
    for value in x:
        forward = forward + value
    for value in x.flip(0):
        backward = backward + value
    assert 0 < difference(forward, backward) <= reordering_bound(1000)


def test_no_tensor_may_be_left_out() -> None:
    ours, theirs = nn.Linear(3, 2), nn.Linear(3, 2)
    copy_weights(ours, theirs, {"weight": "weight", "bias": "bias"})
    assert torch.equal(ours.bias, theirs.bias)
    with pytest.raises(AssertionError, match="without a partner"):
        copy_weights(ours, theirs, {"weight": "weight"})


def _swap(kind: type[nn.Module], other: Callable[[nn.Module], nn.Module]) -> Callable[[nn.Sequential], None]:
    def change(network: nn.Sequential) -> None:
        for i, module in enumerate(network):
            if isinstance(module, kind):
                network[i] = other(module)

    return change


def _eps(network: nn.Sequential) -> None:
    for module in network:
        if isinstance(module, nn.BatchNorm2d):
            module.eps = 1.01e-5


def _momentum(network: nn.Sequential) -> None:
    for module in network:
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 0.11


@pytest.mark.parametrize(
    ("module", "change"),
    [
        (mlp, _swap(nn.GELU, lambda m: nn.GELU(approximate="tanh"))),
        (mlp, _swap(nn.ReLU, lambda m: nn.LeakyReLU(1e-6))),
        (mlp, _swap(nn.Dropout, lambda m: nn.Dropout(0.26))),
        (cnn, _swap(nn.MaxPool2d, lambda m: nn.AvgPool2d(2))),
        (cnn, _swap(nn.ReLU, lambda m: nn.SiLU())),
        (cnn, _swap(nn.Dropout, lambda m: nn.Identity())),
        (cnn, _eps),
        (cnn, _momentum),
    ],
    ids=["gelu", "slope", "dropout", "pool", "activation", "no-dropout", "eps", "momentum"],
)
def test_a_reference_that_differs_is_seen(module: Any, change: Callable[[nn.Sequential], None]) -> None:
    def cases(seed: int) -> Any:
        for case in module._cases(seed):
            change(case.theirs)
            yield case

    proofs = prove_network("broken", cases, (0,))
    assert not all(p.passed for p in proofs if "float64" in p.claim)


def test_a_wrong_gradient_is_seen() -> None:
    class Detached(MLP):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x).detach() + 0 * sum(p.sum() for p in self.parameters())

    def cases(seed: int) -> Any:
        for case in mlp._cases(seed):
            case.ours.__class__ = Detached
            yield case

    by_claim = {p.claim: p.passed for p in prove_network("broken", cases, (0,))}
    assert all(passed for claim, passed in by_claim.items() if "outputs" in claim)
    assert not any(passed for claim, passed in by_claim.items() if "gradient" in claim or "step" in claim)


@pytest.mark.parametrize("module", [linear, logistic])
def test_an_estimator_that_differs_is_seen(module: Any) -> None:
    def pairs(seed: int) -> Any:
        for case in module._cases(seed):
            yield {quantity: (np.asarray(ours) + 1e-6, theirs) for quantity, (ours, theirs) in case.items()}

    assert not any(p.passed for p in prove_estimator("broken", pairs, (0,), 1e-8) if "objective" not in p.claim)


def test_every_model_has_its_comparison() -> None:
    for name in entries():
        assert __import__(f"groundup.proof.{name}", fromlist=["prove"]).prove
    with pytest.raises(ModelError, match="did you mean 'cnn'"):
        check("cn")

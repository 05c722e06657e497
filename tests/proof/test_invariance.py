"""The invariances of link 2: they hold for honest networks and fail for those that break them."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from groundup.models.cnn import CNN
from groundup.models.mlp import MLP
from groundup.proof import invariance
from groundup.proof.invariance import invariances

ACCUMULATION, ORDER, SIZE = 0, 1, 2


class Centred(nn.Module):
    """Subtracts the mean of the batch, evaluating too: what must not happen."""

    def __init__(self) -> None:
        super().__init__()
        self.line = nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.line(x - x.mean(0))


class Positional(Centred):
    """Answers by the place in the batch."""

    def forward(self, x: Tensor) -> Tensor:
        return self.line(x) * torch.arange(len(x), dtype=x.dtype)[:, None]


class Single(Centred):
    """Computes in float32 whatever comes."""

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.linear(x, self.line.weight.float(), self.line.bias.float())


def data(seed: int, n: int = 17) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, 5, generator=generator), torch.randint(3, (n,), generator=generator)


def test_honest_networks_pass(seed: int) -> None:
    x, y = data(seed)
    proofs = invariances(MLP((5,), 3), x, y)
    assert [p.link for p in proofs] == [2, 2, 2]
    assert all(p.passed and p.samples > 0 for p in proofs), proofs
    assert all(p.passed for p in invariances(MLP((5,), 1), x, torch.randn(17)))


def test_network_is_left_alone(seed: int) -> None:
    x, y = data(seed)
    network = MLP((5,), 3).train()
    before = [p.clone() for p in network.parameters()]
    invariances(network, x, y)
    assert network.training
    assert all(torch.equal(a, b) and a.dtype == b.dtype and b.grad is None for a, b in zip(before, network.parameters(), strict=True))


@pytest.mark.parametrize(("cls", "broken"), [(Centred, {ACCUMULATION, SIZE}), (Positional, {ACCUMULATION, ORDER, SIZE})])
def test_networks_that_mix_a_batch_fail(cls: type[nn.Module], broken: set[int], seed: int) -> None:
    proofs = invariances(cls(), *data(seed))
    assert {i for i, p in enumerate(proofs) if not p.passed} == broken


def test_claims_say_what_was_held_still() -> None:
    x, y = torch.randn(9, 1, 4, 4), torch.arange(9) % 3
    claims = [p.claim for p in invariances(CNN((1, 4, 4), 3, width=4), x, y)]
    assert "with the statistics of BatchNorm2d frozen" in claims[ACCUMULATION]
    assert "frozen" not in invariances(MLP((5,), 3), *data(0))[ACCUMULATION].claim


def test_float32_is_said() -> None:
    proofs = invariances(Single(), *data(0))
    assert all("(float32)" in p.claim and p.tolerance == invariance.FLOAT32_TOLERANCE and p.passed for p in proofs)


def test_a_mean_of_means_is_seen(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The usual mistake: every micro-batch counted alike, the smaller last one too."""

    def mean_of_means(network: nn.Module, parts: list[tuple[Tensor, Tensor]], loss: invariance.Loss) -> list[Tensor]:
        network.zero_grad()
        for x, y in parts:
            (loss(network(x), y) / len(parts)).backward()
        return [p.grad.clone() for p in network.parameters()]

    monkeypatch.setattr(invariance, "_gradients", mean_of_means)
    assert not invariances(MLP((5,), 3), *data(seed))[ACCUMULATION].passed


def test_too_few_examples_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 4 examples"):
        invariances(MLP((5,), 3), *data(0, n=3))

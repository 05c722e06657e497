"""cnn on real images: accuracy on handwritten digits, and the shapes of the usual data sets."""

from __future__ import annotations

import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch.nn import functional as F  # noqa: N812

from groundup.errors import ModelError
from groundup.models.cnn import CNN


def accuracy(seed: int, epochs: int) -> float:
    """Test accuracy on 20 % of scikit-learn's digits with the default configuration, AdamW and one cycle of the learning rate."""
    X, y = load_digits(return_X_y=True)
    x = torch.tensor((X - X.mean()) / X.std(), dtype=torch.float32).reshape(-1, 1, 8, 8)
    train, test = train_test_split(range(len(y)), test_size=0.2, stratify=y, random_state=seed)
    x_train, y_train, x_test, y_test = x[train], torch.tensor(y[train]), x[test], torch.tensor(y[test])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = CNN((1, 8, 8), 10)
        optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3)
        steps = epochs * (len(train) // 64)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=steps)
        for _ in range(epochs):
            for batch in torch.randperm(len(train))[: len(train) // 64 * 64].split(64):
                optimizer.zero_grad()
                F.cross_entropy(network.train()(x_train[batch]), y_train[batch]).backward()
                optimizer.step()
                schedule.step()
        with torch.no_grad():
            return (network.eval()(x_test).argmax(1) == y_test).float().mean().item()


def test_digits_in_a_few_epochs(seed: int) -> None:
    assert accuracy(seed, epochs=4) >= 0.96


@pytest.mark.slow
def test_digits(seed: int) -> None:
    assert accuracy(seed, epochs=20) >= 0.98


@pytest.mark.parametrize("shape", [(1, 8, 8), (1, 28, 28), (3, 32, 32), (3, 33, 47), (1, 2, 2)])
@pytest.mark.parametrize("n_stages", [1, 2])
def test_any_image_size(shape: tuple[int, int, int], n_stages: int) -> None:
    network = CNN(shape, 10, width=4, n_stages=n_stages)
    assert network(torch.randn(3, *shape)).shape == (3, 10)
    assert sum(p.numel() for p in network.parameters()) == sum(p.numel() for p in CNN((shape[0], 64, 64), 10, 4, n_stages).parameters())


def test_what_is_no_image_is_refused() -> None:
    with pytest.raises(ModelError, match=r"got features of shape \(7,\); for a table use mlp"):
        CNN((7,), 3)
    with pytest.raises(ModelError, match="use n_stages of at most 4"):
        CNN((1, 8, 9), 3, n_stages=5)


def test_an_explicit_generator_draws_the_same_weights(seed: int) -> None:
    ours, other = CNN((1, 8, 8), 3, width=4), CNN((1, 8, 8), 3, width=4)
    for network in (ours, other):
        network.reset_parameters(torch.Generator().manual_seed(seed))
    assert all(torch.equal(a, b) for a, b in zip(ours.parameters(), other.parameters(), strict=True))


def test_signal_keeps_its_size_through_the_layers(seed: int) -> None:
    """He initialization: without normalization, activations neither vanish nor explode over eight layers."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = CNN((16, 32, 32), 10, width=64, n_stages=1, n_convs=8)
        x = torch.randn(4, 16, 32, 32)
    with torch.no_grad():
        first = F.relu(network.stages[0][0].conv(x))
        last = first
        for block in list(network.stages[0])[1:]:
            last = F.relu(block.conv(last))
    assert 0.1 < (last.square().mean() / first.square().mean()).item() < 10

"""The page's form and the form that is used are one function, and the comparison sees it when they are not."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from groundup.nn import attention, norm, position
from groundup.proof import algorithms


def test_every_algorithm_equals_its_page(seed: int) -> None:
    proofs = algorithms.prove((seed,))
    assert len(proofs) == len(algorithms.ALGORITHMS)
    assert all(p.passed for p in proofs), "\n".join(map(str, proofs))
    assert all(p.samples > 30 for p in proofs)


def _unbiased(e: Tensor, γ: Tensor, β: Tensor, ε: float = 0.0) -> Tensor:
    """The widely copied mistake: Bessel's correction, and ε outside the root."""
    return γ * (e - e.mean()) / (e.std() + ε) + β


def _no_scale(X: Tensor, Z: Tensor, W: attention.QKV, Mask: Tensor) -> Tensor:
    S = (W.W_k @ Z + W.b_k[:, None]).T @ (W.W_q @ X + W.b_q[:, None])
    return (W.W_v @ Z + W.b_v[:, None]) @ torch.where(Mask, S, -torch.inf).softmax(0)


@pytest.mark.parametrize(
    ("module", "name", "mistake", "claim"),
    [
        (norm, "layer_norm", _unbiased, "algorithm 6"),
        (attention, "attention", _no_scale, "algorithm 5"),
        (position, "rotate", lambda x, t: x, "equation 34"),
    ],
)
def test_a_mistake_is_seen(monkeypatch: pytest.MonkeyPatch, module: object, name: str, mistake: Callable[..., Tensor], claim: str) -> None:
    monkeypatch.setattr(module, name, mistake)
    (proof,) = [p for p in algorithms.prove((0,)) if claim in p.claim]
    assert not proof.passed


def test_a_column_without_mask_gives_each_token_its_own_distribution() -> None:
    W = attention.QKV(*(torch.randn(*shape) for shape in ((3, 2), (3,), (3, 2), (3,), (5, 2), (5,))))
    X = torch.randn(2, 4)
    diagonal = attention.attention(X, X, W, torch.eye(4, dtype=torch.bool))
    assert torch.allclose(diagonal, W.W_v @ X + W.b_v[:, None]), "a token that sees itself alone takes its own value"


def test_rotated_products_depend_on_the_distance_alone(seed: int) -> None:
    q, k = torch.randn(2, 8, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    near = position.rotate(q, 5) @ position.rotate(k, 2)
    far = position.rotate(q, 105) @ position.rotate(k, 102)
    assert torch.allclose(near, far)
    assert not torch.allclose(near, position.rotate(q, 6) @ position.rotate(k, 2))

"""Exporting networks that users write: what works, and what an error says when it cannot."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from groundup.errors import ModelError
from groundup.models.export import export_network


class Residual(nn.Module):
    """Norms, attention, a shape computed from the input, a branch on the training flag."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(3, 8)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.norm = nn.LayerNorm(8)
        self.drop = nn.Dropout(0.5)
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        h = self.embed(x.reshape(x.shape[0], -1, 3))
        h = self.norm(h + self.drop(self.attention(h, h, h, need_weights=False)[0]))
        if self.training:
            h = h + 1
        return self.head(h.mean(1))


class Decides(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.line = nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.line(x) if x.sum() > 0 else -self.line(x)


class FixedBatch(Decides):
    def forward(self, x: Tensor) -> Tensor:
        return self.line(x).reshape(3, 2)


class ThreeInMind(Decides):
    """Divides by the number of examples that it was traced with."""

    def forward(self, x: Tensor) -> Tensor:
        if not torch.compiler.is_exporting():
            return self.line(x) / x.shape[0]
        return self.line(x) / 3


class OneNumber(Decides):
    def forward(self, x: Tensor) -> Tensor:
        return self.line(x).sum(1)


def test_a_users_network(seed: int, capfd: pytest.CaptureFixture[str]) -> None:
    torch.manual_seed(seed)
    network = Residual().train()
    before = {k: v.clone() for k, v in network.state_dict().items()}
    model = export_network(network, (5, 3))
    printed = capfd.readouterr()
    assert printed.out + printed.err == "", "exporting is quiet"
    assert network.training
    assert all(torch.equal(before[k], v) for k, v in network.state_dict().items())
    session = onnxruntime.InferenceSession(model.SerializeToString())
    x = torch.randn(7, 5, 3)
    for n in (1, 2, 7):
        (scores,) = session.run(None, {"features": x[:n].numpy()})
        np.testing.assert_allclose(scores, network.eval()(x[:n]).detach().numpy(), atol=1e-5)


def test_float64_weights_become_float32() -> None:
    network = nn.Linear(6, 2).double()
    session = onnxruntime.InferenceSession(export_network(network, (6,)).SerializeToString())
    x = np.random.default_rng(0).normal(size=(3, 6)).astype(np.float32)
    (scores,) = session.run(None, {"features": x})
    np.testing.assert_allclose(scores, network(torch.tensor(x).double()).detach().numpy(), atol=1e-5)
    assert network.weight.dtype == torch.float64


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (Decides(), "Decides cannot be exported to ONNX: its forward pass decides on values .* torch.where"),
        (FixedBatch(), "FixedBatch cannot be exported to ONNX: it fixes the batch size"),
        (ThreeInMind(), r"for 1 examples the graph's scores are .* away from its own"),
        (OneNumber(), r"forward gave shape \(3,\) for 3 examples, expected \(3, n_outputs\)"),
    ],
)
def test_what_cannot_be_exported_is_explained(network: nn.Module, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        export_network(network, (6,))

"""What every network of the catalogue keeps, whichever it is.  A new file in models/ is tested by being there."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional as F  # noqa: N812

from groundup.catalogue import REQUIRED, Model, Resolved, entries, resolve
from groundup.models.export import export_network
from groundup.proof import check
from groundup.proof.invariance import invariances

SHAPES = {"image-classification": ((3, 11, 13), 5), "tabular-classification": ((7,), 3), "tabular-regression": ((7,), 1)}
NETWORKS = [name for name, entry in entries().items() if entry.kind == "network"]
CASES = [(name, *SHAPES[task]) for name in NETWORKS for task in entries()[name].tasks]
every_case = pytest.mark.parametrize(("name", "shape", "n_outputs"), CASES, ids=[f"{c[0]}-{'x'.join(map(str, c[1]))}" for c in CASES])
every_network = pytest.mark.parametrize("name", NETWORKS)


def resolved(name: str) -> Resolved:
    return resolve(Model(name=name), Path.cwd())


def data(shape: tuple[int, ...], n_outputs: int, seed: int, n: int = 17) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, *shape, generator=generator)
    y = torch.arange(n) % n_outputs if n_outputs > 1 else torch.randn(n, generator=generator)
    return x, y


def loss(scores: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return F.cross_entropy(scores, y) if y.dtype == torch.int64 else F.mse_loss(scores[:, 0], y)


def train(network: nn.Module, x: torch.Tensor, y: torch.Tensor, steps: int) -> None:
    optimizer = torch.optim.AdamW(network.train().parameters(), lr=3e-3)
    for _ in range(steps):
        optimizer.zero_grad()
        loss(network(x), y).backward()
        optimizer.step()


def test_networks_are_found() -> None:
    assert {"cnn", "mlp"} <= set(NETWORKS)


@every_network
def test_file_says_what_it_is(name: str) -> None:
    entry = entries()[name]
    assert entry.summary.endswith("."), "the file opens with one sentence"
    assert any(str(year) in entry.paper for year in range(1800, 2100)), "the header names its paper with the year"
    assert entry.tasks
    assert set(entry.tasks) <= set(SHAPES)
    for parameter in entry.parameters:
        assert parameter.doc, f"{name}: Args does not describe {parameter.name}"
        assert parameter.annotation, f"{name}: {parameter.name} has no annotation"


@every_case
def test_scores_have_one_row_an_example(name: str, shape: tuple[int, ...], n_outputs: int, seed: int) -> None:
    x, _ = data(shape, n_outputs, seed)
    kept = x.clone()
    network = resolved(name).build(shape, n_outputs, seed)
    for training in (True, False):
        scores = network.train(training)(x)
        assert scores.shape == (17, n_outputs)
        assert scores.dtype == torch.float32
        assert scores.isfinite().all()
    assert torch.equal(x, kept), "forward changed its input"


@every_case
def test_meta_device_has_the_same_parameters(name: str, shape: tuple[int, ...], n_outputs: int) -> None:
    real = resolved(name).build(shape, n_outputs, seed=0)
    meta = resolved(name).build(shape, n_outputs, seed=0, device="meta")
    assert {k: v.shape for k, v in real.state_dict().items()} == {k: v.shape for k, v in meta.state_dict().items()}
    assert all(p.is_meta for p in meta.parameters())
    size = resolved(name).check(shape, n_outputs)
    assert size.parameters == sum(p.numel() for p in real.parameters())
    assert size.macs is not None
    assert size.macs >= size.parameters / 2, "a weight is used at least about once an example"


@every_case
def test_seed_decides_the_weights(name: str, shape: tuple[int, ...], n_outputs: int, seed: int) -> None:
    before = torch.random.get_rng_state()
    first = resolved(name).build(shape, n_outputs, seed).state_dict()
    assert torch.equal(before, torch.random.get_rng_state()), "building moved the caller's random state"
    torch.rand(3)
    again = resolved(name).build(shape, n_outputs, seed).state_dict()
    other = resolved(name).build(shape, n_outputs, seed + 1).state_dict()
    assert all(torch.equal(first[k], again[k]) for k in first)
    assert not all(torch.equal(first[k], other[k]) for k in first)


@every_case
def test_config_builds_the_same_model(name: str, shape: tuple[int, ...], n_outputs: int, seed: int) -> None:
    config = json.loads(json.dumps(resolved(name).config(shape, n_outputs)))
    assert set(config) == {"name"} | {p.name for p in entries()[name].parameters}
    again = resolve(Model(**config), Path.cwd())
    assert again.config(shape, n_outputs) == config
    ours, theirs = resolved(name).build(shape, n_outputs, seed), again.build(shape, n_outputs, seed)
    assert all(torch.equal(a, b) for a, b in zip(ours.parameters(), theirs.parameters(), strict=True))


@every_network
def test_unknown_and_wrong_parameters_are_refused(name: str) -> None:
    for parameter in entries()[name].parameters:
        if parameter.filled:
            continue
        with pytest.raises(ValidationError, match=f"did you mean '{parameter.name}'"):
            Model(name=name, **{parameter.name + "x": 1})
        with pytest.raises(ValidationError, match=parameter.name) as refused:
            Model(name=name, **{parameter.name: {"no": "such type"}})
        assert refused.value.errors()[0]["loc"] == (parameter.name,)
        if parameter.default is not REQUIRED:
            Model(name=name, **{parameter.name: parameter.default})


@every_case
def test_gradient_reaches_every_parameter(name: str, shape: tuple[int, ...], n_outputs: int, seed: int) -> None:
    x, y = data(shape, n_outputs, seed)
    network = resolved(name).build(shape, n_outputs, seed).train()
    loss(network(x), y).backward()
    for key, p in network.named_parameters():
        assert p.grad is not None, key
        assert p.grad.isfinite().all(), key
        assert p.grad.abs().max() > 0, key


@every_case
def test_training_reduces_the_loss(name: str, shape: tuple[int, ...], n_outputs: int, seed: int) -> None:
    x, y = data(shape, n_outputs, seed)
    network = resolved(name).build(shape, n_outputs, seed)
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        before = loss(network.train()(x), y).item()
        with torch.enable_grad():
            train(network, x, y, steps=40)
        assert loss(network(x), y).item() < 0.5 * before


@every_case
def test_dtype_is_kept(name: str, shape: tuple[int, ...], n_outputs: int) -> None:
    x, _ = data(shape, n_outputs, 0)
    network = resolved(name).build(shape, n_outputs, 0).eval()
    single = network(x)
    double = network.double()(x.double())
    assert double.dtype == torch.float64
    assert torch.allclose(single.double(), double, atol=1e-4)


@every_case
def test_weights_survive_safetensors(name: str, shape: tuple[int, ...], n_outputs: int, seed: int, tmp_path: Path) -> None:
    x, y = data(shape, n_outputs, seed)
    network = resolved(name).build(shape, n_outputs, seed)
    train(network, x, y, steps=2)
    save_file(network.state_dict(), tmp_path / "model.safetensors")
    other = resolved(name).build(shape, n_outputs, seed + 1)
    other.load_state_dict(load_file(tmp_path / "model.safetensors"))
    assert torch.equal(network.eval()(x), other.eval()(x))


@every_case
def test_exported_graph_answers_as_the_module(name: str, shape: tuple[int, ...], n_outputs: int, seed: int) -> None:
    x, y = data(shape, n_outputs, seed)
    network = resolved(name).build(shape, n_outputs, seed)
    train(network, x, y, steps=3)  # so that running statistics are not what they start as
    model = export_network(network, shape)
    assert network.training, "exporting changed the module"
    assert [i.name for i in model.graph.input] == ["features"]
    assert [o.name for o in model.graph.output] == ["scores"]
    assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "N"
    assert model.ir_version <= 10
    assert max(o.version for o in model.opset_import if o.domain == "") <= 21
    session = onnxruntime.InferenceSession(model.SerializeToString())
    for n in (1, 2, 17):
        (scores,) = session.run(None, {"features": x[:n].numpy()})
        with torch.no_grad():
            expected = network.eval()(x[:n]).numpy()
        assert scores.dtype == np.float32
        np.testing.assert_allclose(scores, expected, rtol=1e-5, atol=1e-5)


@every_case
def test_batches_do_not_matter(name: str, shape: tuple[int, ...], n_outputs: int, seed: int) -> None:
    x, y = data(shape, n_outputs, seed)
    network = resolved(name).build(shape, n_outputs, seed)
    train(network, x, y, steps=2)
    proofs = invariances(network, x, y)
    assert [p.link for p in proofs] == [2, 2, 2]
    assert all("float64" in p.claim for p in proofs)
    assert all(p.passed for p in proofs), "\n".join(map(str, proofs))


@every_network
def test_equals_the_reference(name: str, seed: int) -> None:
    proofs = check(name, (seed,))
    assert {p.link for p in proofs} == {1}
    assert len(proofs) == 8, "outputs, gradients, one SGD and one AdamW step, in two types"
    assert all(p.samples > 100 for p in proofs)
    assert all(p.passed for p in proofs), "\n".join(map(str, proofs))

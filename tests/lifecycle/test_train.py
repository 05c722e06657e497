"""train as a stage: from prepared data to files that answer, on real prepared data; and what it refuses."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from groundup import metrics
from groundup.bundle.proof import Proof
from groundup.catalogue import Model
from groundup.errors import GroundupError, Interrupted, ModelError, ProofError
from groundup.lifecycle.prepare import Data, Prepared, prepare
from groundup.lifecycle.stage import Context
from groundup.lifecycle.train import Train, Trained, train
from groundup.training.core import run, session
from groundup.training.surroundings import StopAfter

QUICK = Train.model_validate({"epochs": 4, "batch_size": 16})


def context(folder: Path, name: str, root: Path | None = None, stopping: threading.Event | None = None) -> Context:
    work = folder / f"work-{name}"
    work.mkdir(exist_ok=True)
    return Context(root=root or folder, work=work, stopping=stopping or threading.Event())


def prepared(folder: Path, task: str) -> Prepared:
    """Flowers of three kinds, or a line with noise, through the real prepare."""
    draw = np.random.default_rng(0)
    kind = draw.integers(0, 3, 150)
    length, width = kind * 2 + draw.normal(size=150), draw.normal(size=150) - kind
    price = 3000 + 200 * length - 50 * width + draw.normal(size=150)
    rows = [f"{a:.4f},{b:.4f},{'abc'[k]},{c:.2f}" for a, b, k, c in zip(length, width, kind, price, strict=True)]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "flowers.csv").write_text("length,width,kind,price\n" + "\n".join(rows) + "\n")
    out = folder / "prepared"
    out.mkdir()
    target = "kind" if task.endswith("classification") else "price"
    return prepare(Data(source="flowers.csv", target=target), task=task, out=out, context=context(folder, "prepare")).save(out)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def classes(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    return prepared(tmp_path_factory.mktemp("classes"), "tabular-classification")


@pytest.fixture(scope="module")
def values(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    return prepared(tmp_path_factory.mktemp("values"), "tabular-regression")


def trained(data: Prepared, folder: Path, model: dict[str, Any], section: Train = QUICK, **surroundings: Any) -> Trained:
    out = folder / "trained"
    out.mkdir(exist_ok=True)
    result = train(section, Model.model_validate(model), data, out=out, context=context(folder, "train", **surroundings))
    result.save(out)
    return Trained.load(out)


MODELS = [{"name": "mlp"}, {"name": "logistic"}, {"class": "sklearn.ensemble:RandomForestClassifier", "n_estimators": 7}]


@pytest.mark.parametrize("model", MODELS, ids=lambda m: m.get("name") or m["class"])
def test_classification_answers_probabilities_equal_to_its_graph(model: dict[str, Any], classes: Prepared, tmp_path: Path) -> None:
    found = trained(classes, tmp_path, model)
    X, y = classes.features("validation"), classes.targets("validation")
    p = found.answers(X)
    assert p.shape == (len(y), 3)
    assert p.dtype == np.float32
    assert p.sum(1) == pytest.approx(1, abs=1e-5)
    again = metrics.compute("tabular-classification", y, p)
    assert {k: again[k] for k in ("accuracy", "log_loss")} == pytest.approx({k: found.best[k] for k in ("accuracy", "log_loss")}, abs=1e-5)
    exported = run(session(found.core().SerializeToString()), X)
    assert np.abs(exported - found.raw_scores(X)).max() < 1e-5
    assert found.scores == ("logits" if found.kind == "network" else "probabilities")
    assert found.proofs
    assert all(record.passed for record in found.proofs)
    assert not any(path.suffix in (".pt", ".pkl", ".pickle", ".joblib") for path in found.path.iterdir())


@pytest.mark.parametrize("model", [{"name": "mlp"}, {"name": "linear"}, {"class": "sklearn.tree:DecisionTreeRegressor"}], ids=str)
def test_regression_answers_in_the_targets_own_unit(model: dict[str, Any], values: Prepared, tmp_path: Path) -> None:
    section = Train.model_validate({"epochs": 60, "batch_size": 16, "optimizer": {"lr": 0.01}})
    found = trained(values, tmp_path, model, section)
    X, y = values.features("validation"), values.targets("validation")
    predicted = found.answers(X)
    assert predicted.shape == y.shape
    assert abs(float(predicted.mean()) - float(y.mean())) < 100  # around 3400, not around 0
    assert metrics.compute("tabular-regression", y, predicted)["r2"] == pytest.approx(found.best["r2"], abs=1e-4)
    assert found.best["r2"] > 0.8
    scale, shift = found.target_scale
    assert predicted == pytest.approx(found.raw_scores(X)[:, 0] * scale + shift, rel=1e-5)


USERS_MODULE = """
import torch
from torch import nn

class Mine(nn.Module):
    def __init__(self, n_features: int, n_outputs: int, width: int = 8, flaw: str = "") -> None:
        super().__init__()
        self.flaw = flaw
        self.layers = nn.Sequential(nn.Linear(n_features, width), nn.ReLU(), nn.Linear(width, n_outputs + (flaw == "shape")))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        scores = self.layers(x)
        if self.flaw == "batch":
            scores = scores - scores.mean(0)
        return scores
"""


def test_a_users_module_beside_the_recipe_goes_the_whole_way_and_moves_with_its_folder(classes: Prepared, tmp_path: Path) -> None:
    root = tmp_path / "project"
    root.mkdir()
    (root / "my_flower_net.py").write_text(USERS_MODULE)
    found = trained(classes, root, {"class": "my_flower_net:Mine", "width": 11}, root=root)
    assert found.model == {"class": "my_flower_net:Mine", "n_features": 3, "n_outputs": 3, "width": 11, "flaw": ""}
    before = found.answers(classes.features("test"))
    root.rename(tmp_path / "elsewhere")
    moved = Trained.load(tmp_path / "elsewhere" / "trained")
    assert np.array_equal(before, moved.answers(classes.features("test")))
    with pytest.raises(GroundupError, match="n_outputs"):
        trained(classes, tmp_path / "elsewhere", {"class": "my_flower_net:Mine", "flaw": "shape"}, root=tmp_path / "elsewhere")
    with pytest.raises(ProofError, match=r"the order of a batch|the size of a batch"):
        trained(classes, tmp_path / "elsewhere", {"class": "my_flower_net:Mine", "flaw": "batch"}, root=tmp_path / "elsewhere")


def test_interrupted_says_how_to_go_on_and_goes_on_to_the_same_bytes(classes: Prepared, tmp_path: Path) -> None:
    for name in ("whole", "parts"):
        (tmp_path / name).mkdir()
    whole = trained(classes, tmp_path / "whole", {"name": "mlp"})
    with pytest.raises(Interrupted, match="run the same command again"):
        trained(classes, tmp_path / "parts", {"name": "mlp"}, stopping=StopAfter(9))
    assert not (tmp_path / "parts" / "trained" / "model.safetensors").exists()
    assert list((tmp_path / "parts" / "work-train").glob("*.safetensors"))
    parts = trained(classes, tmp_path / "parts", {"name": "mlp"})
    for name in ("model.safetensors", "last.safetensors", "config.json"):
        assert (whole.path / name).read_bytes() == (parts.path / name).read_bytes()


def test_a_failed_proof_stops_the_stage_before_it_trains(classes: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = Proof(1, "mlp: outputs equal", "torch.nn", "largest difference", 0.5, 1e-10)
    monkeypatch.setattr("groundup.proof.check", lambda name: [broken])
    monkeypatch.setattr("groundup.training.networks.fitted", lambda *a, **k: pytest.fail("trained in spite of a failed proof"))
    with pytest.raises(ProofError, match=r"FAILED.* mlp: outputs equal"):
        trained(classes, tmp_path, {"name": "mlp"})


def test_an_estimator_that_refuses_the_data_is_a_model_error(classes: Prepared, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="n_neighbors"):
        trained(classes, tmp_path, {"class": "sklearn.neighbors:KNeighborsClassifier", "n_neighbors": -3})


def test_weights_that_are_not_the_models_are_refused(classes: Prepared, tmp_path: Path) -> None:
    found = trained(classes, tmp_path, {"name": "mlp"})
    facts = json.loads((found.path / "output.json").read_text())
    facts["model"]["width"] = facts["model"].get("width", 64) + 1
    (found.path / "output.json").write_text(json.dumps(facts))
    with pytest.raises(ModelError, match="not the weights of MLP"):
        Trained.load(found.path).module()


def test_a_model_larger_than_the_memory_is_refused_before_it_is_built(monkeypatch: pytest.MonkeyPatch) -> None:
    from groundup.training import networks

    monkeypatch.setattr(networks, "_available", lambda free: 10_000)
    with torch.device("meta"), pytest.raises(ModelError, match="copies of its"):
        networks.require_memory(torch.nn.Linear(50, 50), Train())

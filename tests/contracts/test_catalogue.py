"""The catalogue: what it lists, what it imports, and what it says when it cannot."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from groundup.catalogue import Model, describe, entries, resolve, table
from groundup.errors import ModelError, RecipeError

NET = """
import torch
from my_parts import SLOPE

class MyNet(torch.nn.Module):
    def __init__(self, n_features: int, n_outputs: int, width: int = 8):
        super().__init__()
        self.net = torch.nn.Sequential(torch.nn.Linear(n_features, width), torch.nn.LeakyReLU(SLOPE), torch.nn.Linear(width, n_outputs))

    def forward(self, x):
        return self.net(x)

def small(n_features: int, n_outputs: int) -> MyNet:
    return MyNet(n_features, n_outputs, width=2)

class Wrong(MyNet):
    def forward(self, x):
        return self.net(x)[:, 0]

class Breaks(MyNet):
    def forward(self, x):
        return self.net(x[:, :3])

class Plain:
    pass
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "my_module.py").write_text(NET)
    (tmp_path / "my_parts.py").write_text("SLOPE = 0.1\n")
    return tmp_path


def of(**keys: Any) -> Model:
    return Model(**keys)


def test_listing_imports_nothing_heavy() -> None:
    code = (
        "import sys; from groundup.catalogue import table; rows = table(); assert len(rows) >= 4;"
        "heavy = {'torch', 'sklearn', 'pandas', 'scipy', 'onnx', 'skl2onnx'} & set(sys.modules); assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_table_has_a_row_for_every_file() -> None:
    assert [row.name for row in table()] == sorted(entries())
    assert all(row.summary and row.tasks for row in table())
    assert "export" not in entries(), "an exporter is no model"


def test_a_new_file_is_a_new_entry(tmp_path: Path) -> None:
    from groundup.catalogue.entries import read

    path = tmp_path / "tiny.py"
    source = (Path(entries()["mlp"].path)).read_text()
    path.write_text(source.replace("class MLP", "class Tiny"))
    entry = read(path, "network")
    assert entry is not None
    assert (entry.name, entry.class_name) == ("tiny", "Tiny")
    assert [repr(p) for p in entry.parameters] == [repr(p) for p in entries()["mlp"].parameters]
    path.write_text(source.replace("TASKS", "OTHER"))
    assert read(path, "network") is None


def test_description_counts_what_the_paper_and_pencil_count() -> None:
    shown = describe("mlp", (7,), 3, width=5, n_layers=2)
    assert shown.size.parameters == (7 * 5 + 5) + (5 * 5 + 5) + (5 * 3 + 3)
    assert shown.size.macs == 7 * 5 + 5 * 5 + 5 * 3
    assert shown.size.weights == 4 * shown.size.parameters
    assert [row["name"] for row in shown.parameters] == ["width", "n_layers", "activation", "dropout"]
    assert shown.parameters[0]["default"] == "128"
    cnn = describe("cnn", (1, 8, 8), 10, width=2, n_stages=1, n_convs=1)
    assert cnn.size.parameters == 2 * 9 + 2 * 2 + 2 * 10 + 10
    assert cnn.size.macs == 64 * 2 * 9 + 2 * 10
    at_least = cnn.size.training_bytes(batch=10)
    assert at_least is not None
    assert at_least > 4 * 4 * cnn.size.parameters + 10 * 4 * 64 * 2
    page = str(describe("cnn", (1, 8, 8), 10))
    assert "65,834 parameters, 0.26 MB" in page
    assert entries()["cnn"].paper in page
    with pytest.raises(RecipeError, match="did you mean 'cnn'"):
        describe("cn")


@pytest.mark.parametrize(
    ("keys", "loc", "message"),
    [
        ({"name": "cn"}, ("name",), "did you mean 'cnn'"),
        ({"name": "cnn", "widht": 3}, ("widht",), "did you mean 'width'"),
        ({"name": "cnn", "zzz": 3}, ("zzz",), "known: dropout, n_convs, n_stages, width"),
        ({"name": "cnn", "width": "64"}, ("width",), "expected a valid integer, got '64'"),
        ({"name": "cnn", "width": True}, ("width",), "got True"),
        ({"name": "cnn", "width": 0}, ("width",), "greater than 0, got 0"),
        ({"name": "cnn", "dropout": 1.0}, ("dropout",), "less than 1, got 1.0"),
        ({"name": "mlp", "activation": "rel"}, ("activation",), "'relu', 'gelu', 'silu' or 'tanh', got 'rel'"),
        ({}, (), "either 'name'"),
        ({"name": "cnn", "class": "a:B"}, (), "either 'name'"),
    ],
)
def test_mistakes_are_found_without_importing_the_model(keys: dict[str, Any], loc: tuple[str, ...], message: str) -> None:
    class Recipe(BaseModel):
        model: Model

    with pytest.raises(ValidationError) as refused:
        Recipe(model=keys)
    (error,) = refused.value.errors()
    assert error["loc"] == ("model", *loc)
    assert message in error["msg"]


def test_schema_completes_every_model() -> None:
    schema = Model.model_json_schema()
    by_title = {option["title"]: option for option in schema["anyOf"]}
    assert set(by_title) == {*(name for name, entry in entries().items() if entry.kind != "sequence"), "class"}
    assert by_title["cnn"]["properties"]["width"] == {
        "type": "integer",
        "exclusiveMinimum": 0,
        "default": 32,
        "description": "channels of the first stage; they double with every further stage.",
    }
    assert "input_shape" not in by_title["cnn"]["properties"]
    assert by_title["cnn"]["additionalProperties"] is False
    json.dumps(schema)


def test_module_beside_the_recipe(root: Path) -> None:
    resolved = resolve(of(**{"class": "my_module:MyNet", "width": 3}), root)
    assert resolved.kind == "network"
    assert resolved.check((7,), 2).parameters == 7 * 3 + 3 + 3 * 2 + 2
    assert resolved.config((7,), 2) == {"class": "my_module:MyNet", "n_features": 7, "n_outputs": 2, "width": 3}
    assert resolve(of(**resolved.config((7,), 2)), root).build((7,), 2, seed=0).net[0].in_features == 7
    assert resolve(of(**{"class": "my_module:small"}), root).check((7,), 2).parameters == 7 * 2 + 2 + 2 * 2 + 2
    assert sys.path[0] != str(root), "the recipe's folder must not come before the standard library"


def test_changed_and_foreign_modules_are_imported_again(root: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    model = of(**{"class": "my_module:MyNet"})
    assert resolve(model, root).build((2,), 1, 0).net[1].negative_slope == 0.1
    before = resolve(model, root).source_hash()
    assert resolve(model, root).source_hash() == before
    assert resolve(model, root).cls is resolve(model, root).cls, "what did not change is not imported again"
    (root / "my_parts.py").write_text("SLOPE = 0.25\n")
    assert resolve(model, root).build((2,), 1, 0).net[1].negative_slope == 0.25
    assert resolve(model, root).source_hash() != before, "the hash must see what the module imports"
    other = tmp_path_factory.mktemp("other")
    (other / "my_module.py").write_text(NET)
    (other / "my_parts.py").write_text("SLOPE = 0.75\n")
    assert resolve(model, other).build((2,), 1, 0).net[1].negative_slope == 0.75
    assert resolve(model, root).build((2,), 1, 0).net[1].negative_slope == 0.25
    (root / "unrelated.py").write_text("x = 1\n")
    after = resolve(model, root).source_hash()
    (root / "unrelated.py").write_text("x = 2\n")
    assert resolve(model, root).source_hash() == after


@pytest.mark.parametrize(
    ("keys", "error", "message"),
    [
        ({"class": "my_module:MyNett"}, RecipeError, "did you mean 'MyNet'"),
        ({"class": "my_modul:MyNet"}, RecipeError, "did you mean 'my_module'"),
        ({"class": "my_module.MyNet"}, RecipeError, r"expected package.module:Name, got 'my_module.MyNet'"),
        ({"class": "sklearn.svn:SVC"}, RecipeError, "no module 'sklearn.svn'"),
        ({"class": "sklearn.svm:SCV"}, RecipeError, "did you mean 'SVC'"),
        ({"class": "sklearn.svm:SVC", "kernl": "rbf"}, RecipeError, "did you mean 'kernel'"),
        ({"class": "my_module:MyNet", "widht": 3}, RecipeError, "did you mean 'width'"),
        ({"class": "my_module:MyNet", "width": "3"}, RecipeError, "expected a valid integer, got '3'"),
        ({"class": "my_module:Plain"}, ModelError, "got the class Plain"),
        ({"class": "my_module:SLOPE"}, ModelError, "got a float"),
        ({"class": "fails:Net"}, ModelError, "ZeroDivisionError"),
        ({"class": "needs:Net"}, ModelError, "needs the module 'not_installed_here'"),
        ({"class": "random:Random"}, RecipeError, "standard library; rename the file"),
        ({"class": "yaml:Loader"}, RecipeError, "hidden by the installed module"),
    ],
)
def test_what_cannot_be_found_is_explained(root: Path, keys: dict[str, Any], error: type[Exception], message: str) -> None:
    (root / "fails.py").write_text("1 / 0\n")
    (root / "needs.py").write_text("import not_installed_here\n")
    (root / "random.py").write_text("Random = None\n")
    (root / "yaml.py").write_text("Loader = None\n")
    with pytest.raises(error, match=message):
        resolve(of(**keys), root)


@pytest.mark.parametrize(
    ("keys", "shape", "n_outputs", "message"),
    [
        ({"class": "my_module:Wrong"}, (7,), 3, r"forward gave \(2,\) for 2 examples, expected a tensor of shape \(2, 3\)"),
        ({"class": "my_module:Breaks"}, (7,), 3, r"forward failed on features of shape \(N, 7\)"),
        ({"class": "my_module:MyNet", "n_outputs": 4}, (7,), 3, "n_outputs is 4 in the recipe, but the data makes it 3"),
        ({"class": "my_module:MyNet", "width": -1}, (7,), 3, "its constructor refused"),
        ({"class": "torch.nn:Linear"}, (7,), 3, "parameter 'in_features' has no default"),
        ({"class": "torch.nn:Flatten"}, (3,), 3, "no trainable parameter"),
        ({"name": "cnn"}, (7,), 3, "for a table use mlp"),
        ({"name": "cnn", "n_stages": 5}, (1, 8, 8), 3, "n_stages of at most 4"),
        ({"class": "sklearn.svm:SVC", "C": -1}, (7,), 3, "'C' parameter"),
        ({"class": "sklearn.svm:SVR"}, (7,), 3, "is a regressor, and the task is a classification"),
        ({"class": "sklearn.svm:SVC"}, (7,), 1, "is no regressor"),
        ({"class": "sklearn.neighbors:NearestCentroid"}, (7,), 3, "NearestCentroid has no converter to ONNX"),
        ({"class": "sklearn.neighbors:RadiusNeighborsClassifier"}, (7,), 3, "KNeighborsClassifier exports"),
        ({"class": "sklearn.kernel_ridge:KernelRidge"}, (7,), 1, "KernelRidge has no converter"),
    ],
)
def test_what_would_fail_late_fails_early(root: Path, keys: dict[str, Any], shape: tuple[int, ...], n_outputs: int, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        resolve(of(**keys), root).check(shape, n_outputs)


def test_estimators_are_seeded_inside_and_out() -> None:
    keys = {
        "class": "sklearn.ensemble:VotingClassifier",
        "voting": "soft",
        "estimators": [
            ["trees", {"class": "sklearn.ensemble:RandomForestClassifier", "n_estimators": 3}],
            ["line", {"class": "groundup.estimators.logistic:LogisticRegression", "C": 0.5}],
            ["fixed", {"class": "sklearn.tree:DecisionTreeClassifier", "random_state": 5}],
        ],
    }
    resolved = resolve(of(**keys), Path.cwd())
    resolved.check((7,), 3)
    built = resolved.build((7,), 3, seed=42)
    assert built.get_params()["trees__random_state"] == 42
    assert built.get_params()["fixed__random_state"] == 5
    assert built.get_params()["line__C"] == 0.5
    assert resolve(of(**resolved.config((7,), 3)), Path.cwd()).build((7,), 3, 42).get_params()["trees__n_estimators"] == 3
    keys["estimators"] = [["trees", {"class": "sklearn.ensemble:RandomForestClassifier", "n_estimator": 3}]]
    with pytest.raises(RecipeError, match="did you mean 'n_estimators'"):
        resolve(of(**keys), Path.cwd()).build((7,), 3, seed=0)


def test_same_installed_code_has_the_same_hash(root: Path) -> None:
    svc = resolve(of(**{"class": "sklearn.svm:SVC"}), root).source_hash()
    assert svc == resolve(of(**{"class": "sklearn.svm:SVC", "C": 2}), root).source_hash()
    assert svc != resolve(of(**{"class": "sklearn.tree:DecisionTreeClassifier"}), root).source_hash()
    assert resolve(of(name="cnn"), root).source_hash() != resolve(of(name="mlp"), root).source_hash()


def test_a_large_network_is_measured_without_memory() -> None:
    shown = describe("mlp", (100_000,), 10, width=1_000_000, n_layers=1)
    assert shown.size.parameters == 100_000 * 1_000_000 + 1_000_000 + 1_000_000 * 10 + 10

"""A recipe that is wrong is refused before anything is run or written, with its place and what to do."""

from __future__ import annotations

from pathlib import Path

import pytest
from command_line import CANCER, call, written

HEAD = "name: d\ntask: tabular-classification\ndata: {source: breast_cancer}\nmodel: {name: logistic}\n"


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        (HEAD + "trian: {}", ["recipe.yaml:5:1: unknown key 'trian'", "did you mean 'train'?"]),
        (HEAD + "train:\n  optimizer:\n    lrr: 1", ["recipe.yaml:7:5: unknown key 'lrr' in train.optimizer", "did you mean 'lr'?"]),
        (
            HEAD + "monitor:\n  drift: {treshold: 1}",
            ["recipe.yaml:6:11: unknown key 'treshold' in monitor.drift; did you mean 'threshold'?"],
        ),
        (HEAD.replace("logistic", "logistc"), ["recipe.yaml:4:15: ", "'logistc'", "did you mean 'logistic'?"]),
        (HEAD.replace("logistic}", "logistic, CC: 1}"), ["recipe.yaml:4:29: model.CC: logistic has no parameter 'CC'; did you mean 'C'?"]),
        (HEAD + "train:\n  epochs: ten", ["recipe.yaml:6:11: train.epochs: expected a valid integer", "got 'ten'"]),
        (HEAD + "train:\n  epochs: .nan", ["recipe.yaml:6:11: train.epochs: expected", "got nan"]),
        (HEAD + "seed: 1e99", ["recipe.yaml:5:7: seed: expected", "got 1e+99"]),
        (HEAD + "gates: {accuracy: {threshold: high}}", ["recipe.yaml:5:31: gates.accuracy.threshold: expected", "got 'high'"]),
        (HEAD.replace("name: d\n", "name: Bäume\n"), ["recipe.yaml:1:7: name: expected at most 64 letters", "got 'Bäume'"]),
        (HEAD.replace("name: d\n", "name: a/b\n"), ["recipe.yaml:1:7: name: expected at most 64 letters", "got 'a/b'"]),
        (HEAD + "train: {epochs: 1\n", ["recipe.yaml:6:1: not YAML"]),
        (HEAD + "seed: 1\nseed: 2\n", ["recipe.yaml:6:1: the key 'seed' is given twice; keep one"]),
        (HEAD + "model: !!python/object/apply:os.system ['true']", ["recipe.yaml:5:1: the key 'model' is given twice"]),
        (HEAD + "seed: !!python/object/apply:os.system ['true']", ["recipe.yaml:5:7: the tag"]),
        ("", ["recipe.yaml: the file is empty; `groundup init` writes a recipe that runs"]),
        ("- a\n", ["recipe.yaml:1:1: expected keys and values", "got a list"]),
    ],
)
def test_mistakes_are_told_with_their_place(tmp_path: Path, text: str, parts: list[str]) -> None:
    folder = written(tmp_path / "Bäume & Straßen", text)
    told = call("run", folder).refused(2, *parts)
    assert "Bäume & Straßen/recipe.yaml" in told
    assert [p.name for p in folder.iterdir()] == ["recipe.yaml"]


@pytest.mark.parametrize("verb", ["plan", "validate", "prepare", "train", "register"])
def test_every_verb_that_reads_a_recipe_refuses_it(tmp_path: Path, verb: str) -> None:
    call(verb, written(tmp_path, HEAD + "trian: {}")).refused(2, "recipe.yaml:5:1: unknown key 'trian'; did you mean 'train'?")
    assert [p.name for p in tmp_path.iterdir()] == ["recipe.yaml"]


def test_every_mistake_is_told_at_once_in_the_order_of_the_file(tmp_path: Path) -> None:
    folder = written(tmp_path, HEAD + "train: {epoch: 3}\nserve: {batch: {max_sise: 3}}\nsed: 1\n")
    said = call("run", folder)
    said.refused(2)
    assert [line.split("recipe.yaml:")[1][:2] for line in said.err.splitlines()] == ["5:", "6:", "7:"]


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["--set", "train.epoch=3"], ["--set train.epoch=3: ", "did you mean 'epochs'?"]),
        (["--set", "train.epochs"], ["expected key.path=value"]),
        (["--to", "packge"], ["--to packge: this recipe has the stages prepare, train"]),
        (["--from", "tune"], ["--from tune: this recipe has the stages prepare, train"]),
    ],
)
def test_options_that_fit_nothing(tmp_path: Path, arguments: list[str], parts: list[str]) -> None:
    call("run", written(tmp_path, CANCER), *arguments).refused(2, *parts)
    assert not (tmp_path / ".groundup").exists()


def test_a_recipe_that_is_not_there(tmp_path: Path) -> None:
    call("run", tmp_path / "absent.yaml").refused(2, "no such recipe; `groundup init` writes one")
    call("run", tmp_path).refused(2, "recipe.yaml: no such recipe")


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose data is prepared already, whatever the model."""
    folder = written(tmp_path_factory.mktemp("recipes") / "r", CANCER)
    assert call("run", folder, "--to", "prepare").status == 0
    return folder


@pytest.mark.parametrize(
    ("section", "parts"),
    [
        ("model: {class: my_module:Net}", ["my_module"]),
        ("model: {class: 'os:system'}", ["os:system"]),
        ("model: {class: 'sklearn.ensemble:RandomForestClasifier'}", ["did you mean 'RandomForestClassifier'?"]),
        ("model: {class: 'sklearn.ensemble:RandomForestClassifier', n_estimator: 3}", ["did you mean 'n_estimators'?"]),
    ],
)
def test_a_class_that_cannot_be_had(prepared: Path, section: str, parts: list[str]) -> None:
    written(prepared, CANCER.replace("model: {name: logistic}", section))
    said = call("run", prepared, "--to", "train")
    assert said.status in (2, 4), said
    said.refused(said.status, *parts)
    assert not list((prepared / ".groundup" / "cache").glob("train/*/output.json"))

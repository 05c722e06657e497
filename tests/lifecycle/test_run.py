"""The run: stages wired, cached, resumed, gated, extended by a user's own functions."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import textwrap

import pytest

from groundup.bundle import Bundle
from groundup.errors import GateError, RecipeError
from groundup.lifecycle.run import plan, run, stages_of
from groundup.recipe import Recipe

RECIPE = """
name: cancer
task: tabular-classification
data: {source: breast_cancer}
model: {name: logistic}
compress: {measure: {seconds: 0.02}}
rehearse: {enabled: false}
register: {enabled: false}
evaluate: {bootstrap: 100}
"""


def recipe_in(folder, text=RECIPE):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "recipe.yaml").write_text(text)
    return folder


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = recipe_in(tmp_path_factory.mktemp("run") / "cancer")
    return folder, run(folder)


def test_it_ends_with_a_bundle_a_report_and_a_record(finished):
    folder, done = finished
    assert Bundle.open(folder / "build" / "bundle").name == "cancer"
    assert "<html" in (folder / "build" / "report.html").read_text()
    record = json.loads((folder / ".groundup" / "runs" / done.id / "run.json").read_text())
    assert record["status"] == "finished"
    assert list(record["stages"]) == ["prepare", "train", "evaluate", "compress", "package", "rehearse", "register", "report"]
    assert done.proofs
    assert all(p.passed for p in done.proofs)
    assert (folder / ".groundup" / "runs" / "latest").read_text() == done.id
    assert not list((folder / ".groundup" / "work").glob("*"))
    assert "accuracy" in done._repr_html_().lower()


def test_again_everything_comes_from_the_cache(finished):
    from groundup.bundle import files

    folder, _ = finished
    ended = subprocess.Popen(["true"])
    ended.wait()
    left = folder / ".groundup" / "runs" / "killed" / f".run.json.{files._host()}-{ended.pid}-0.tmp"
    alive = left.with_name(f".run.json.{files._host()}-{os.getpid()}-0.tmp")
    left.parent.mkdir()
    left.touch()
    alive.touch()
    again = run(folder)
    assert alive.exists(), "its process may still be writing it"
    assert not left.exists(), "a run that was killed while it recorded itself"
    shutil.rmtree(left.parent)
    assert all(s.cached for s in again.stages.values())
    assert all(line.cached for line in plan(folder))


@pytest.mark.parametrize(
    ("override", "first", "why"),
    [
        ("compress.per_channel=false", "compress", "section.per_channel"),
        ("evaluate.worst=3", "evaluate", "section.worst"),
        ("seed=1", "prepare", "seed: 0 became 1"),
        ("data.split.test=0.25", "prepare", "section.split.test"),
        ("package.license=mit", "package", "section.license"),
    ],
)
def test_a_change_makes_again_what_depends_on_it_and_says_why(finished, override, first, why):
    folder, _ = finished
    lines = plan(Recipe.load(folder, [override]))
    missing = next(line for line in lines if not line.cached)
    assert missing.name == first
    assert why.split(".")[-1] in missing.why.replace("-", "_")


def test_from_makes_a_stage_and_all_after_it_again(finished):
    folder, _ = finished
    again = run(folder, start="package")
    assert {name for name, s in again.stages.items() if not s.cached} >= {"package"}
    assert again.stages["compress"].cached
    with pytest.raises(RecipeError, match="--from pack: this recipe has the stages prepare, train"):
        run(folder, start="pack")


def test_until_stops_there(tmp_path):
    done = run(recipe_in(tmp_path / "r"), until="prepare")
    assert list(done.outputs) == ["prepare"]
    assert done.bundle is None
    assert not (tmp_path / "r" / "build").exists()


def test_a_gate_stops_the_run_with_the_numbers_which_are_kept(tmp_path):
    folder = recipe_in(tmp_path / "r", RECIPE + "gates: {accuracy: {threshold: 1.5}}\n")
    with pytest.raises(GateError, match=r"(?s)1 gate of 1 failed.*accuracy.*>= 1.5"):
        run(folder)
    record = json.loads(next((folder / ".groundup" / "runs").glob("*/run.json")).read_text())
    assert record["status"] == "failed"
    assert "accuracy" in record["message"]
    assert "compress" not in record["stages"]
    assert plan(folder)[2].cached


def test_functions_of_the_users_own_run_and_are_cached(tmp_path):
    folder = recipe_in(
        tmp_path / "r",
        RECIPE
        + "steps:\n"
        + "  - {name: halve, function: my_steps:halve, after: source}\n"
        + "  - {name: count, function: my_steps:count, after: prepare}\n",
    )
    module = folder / "my_steps.py"
    module.write_text(
        textwrap.dedent("""
        def halve(frame):
            return frame[frame.index % 2 == 0]

        def count(prepared):
            return {"rows": sum(prepared.sizes.values())}
        """)
    )
    done = run(folder, until="train")
    assert done.outputs["step:count"].values == {"rows": 285.0}
    assert stages_of(done.recipe)[:2] == ["prepare", "step:count"]
    assert all(s.cached for s in run(folder, until="train").stages.values())
    module.write_text(module.read_text().replace('"rows":', '"n":'))
    assert run(folder, until="step:count").outputs["step:count"].values == {"n": 285.0}


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("def f(prepared): raise KeyError('x')", "my_steps:f raised KeyError: 'x'"),
        ("def f(prepared): return 3", "expected my_steps:f to return a dict of numbers or None, got 3"),
        ("g = 3", "has no 'f'"),
        ("f = 3", "expected my_steps:f to be a function, got int"),
    ],
)
def test_a_users_function_that_fails_is_named(tmp_path, body, message):
    folder = recipe_in(tmp_path / "r", RECIPE + "steps: [{name: own, function: 'my_steps:f', after: prepare}]\n")
    (folder / "my_steps.py").write_text(body)
    with pytest.raises(RecipeError, match=message):
        run(folder, until="train")


def test_an_estimator_by_import_path_goes_the_whole_way(tmp_path):
    text = RECIPE.replace("{name: logistic}", "{class: 'sklearn.ensemble:RandomForestClassifier', n_estimators: 10}")
    done = run(recipe_in(tmp_path / "r", text))
    assert Bundle.open(done.bundle).metrics["accuracy"] > 0.9


def test_a_network_of_the_users_own_goes_the_whole_way(tmp_path):
    from groundup.recipe.templates import write

    write(tmp_path / "r", "torch")
    path = tmp_path / "r" / "recipe.yaml"
    path.write_text(path.read_text().replace("epochs: 20", "epochs: 8") + "rehearse: {enabled: false}\nregister: {enabled: false}\n")
    done = run(path)
    assert Bundle.open(done.bundle).metrics["accuracy"] > 0.9
    assert {p.link for p in done.proofs} >= {2, 3, 4}

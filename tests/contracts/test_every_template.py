"""What every template keeps, whichever it is: it validates, plans and runs unedited.  A new folder is tested by being there."""

from __future__ import annotations

from pathlib import Path

import pytest

from groundup.bundle import Bundle
from groundup.errors import RecipeError
from groundup.lifecycle.estimate import estimate
from groundup.lifecycle.run import run, stages_of
from groundup.lifecycle.validate import validate
from groundup.recipe import Recipe, templates
from groundup.serving.verify import verify

NAMES = [t.name for t in templates.all_templates()]
QUICK = ("train.epochs=2", "gates={}", "compress.schemes=[]", "evaluate.bootstrap=100")
every_template = pytest.mark.parametrize("name", NAMES)


def test_the_templates_that_people_are_told_of_are_there() -> None:
    assert {"tabular", "image", "regression", "sklearn", "torch", "csv"} <= set(NAMES)


@every_template
def test_its_first_lines_say_what_it_is_and_where_the_schema_is(name: str, tmp_path: Path) -> None:
    lines = templates.write(tmp_path, name).read_text(encoding="utf-8").splitlines()
    assert lines[0] == f"# yaml-language-server: $schema={templates.SCHEMA}"
    assert (tmp_path / templates.SCHEMA).is_file()
    summary = next(t.summary for t in templates.all_templates() if t.name == name)
    assert lines[1] == f"# {summary}"
    assert summary.endswith(".")
    assert len(summary) < 120


@every_template
def test_it_validates_plans_and_runs_to_a_verified_bundle(name: str, tmp_path: Path) -> None:
    path = templates.write(tmp_path, name)
    recipe = Recipe.load(path)
    assert [f for f in validate(recipe) if not f.passed] == []
    assert next((e.planned.name, e.planned.cached) for e in estimate(recipe)) == ("prepare", False)
    quick = Recipe.load(path, QUICK)
    result = run(quick, until="package")
    assert result.bundle is not None
    proofs = verify(result.bundle)
    assert proofs
    assert [str(p) for p in proofs if not p.passed] == []
    assert Bundle.open(result.bundle).name == recipe.name
    cached = {e.planned.name: e.planned.cached for e in estimate(quick)}
    assert [cached[s] for s in ("prepare", "train", "evaluate", "compress", "package", "rehearse")] == [True] * 5 + [False]


@pytest.mark.slow
@every_template
def test_it_runs_unedited_from_data_to_report(name: str, tmp_path: Path) -> None:
    recipe = Recipe.load(templates.write(tmp_path, name))
    result = run(recipe)
    assert list(result.stages) == stages_of(recipe)
    assert result.report is not None
    assert result.report.stat().st_size > 20_000
    assert result.outputs["evaluate"].gates
    assert [str(p) for p in result.proofs if not p.passed] == []


def test_a_template_is_not_written_over_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text("mine")
    with pytest.raises(RecipeError, match="is there already"):
        templates.write(tmp_path, "tabular")
    assert (tmp_path / "recipe.yaml").read_text() == "mine"
    templates.write(tmp_path, "tabular", force=True)
    with pytest.raises(RecipeError, match="no template 'tabluar'; did you mean 'tabular'"):
        templates.write(tmp_path / "other", "tabluar")

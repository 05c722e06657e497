"""What the documentation shows is true: recipes are read, command lines are understood, links lead somewhere, Python runs."""

from __future__ import annotations

import functools
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer

import groundup
from groundup.cli import app
from groundup.recipe import Recipe
from groundup.recipe.document import parse

DOCS = Path(__file__).parents[1] / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
RECIPE: dict[str, Any] = {"name": "a", "task": "tabular-classification", "data": {"source": "t.csv"}, "model": {"name": "mlp"}}


def blocks(page: Path, kind: str) -> list[str]:
    return re.findall(rf"^```{kind}\n(.*?)^```", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


def commands(page: Path) -> list[list[str]]:
    """The words of every line of a page that calls groundup, in indented and fenced blocks."""
    found = []
    for line in page.read_text(encoding="utf-8").splitlines():
        match = re.match(r"(?: {4}|\$ )?(?:[A-Z_]+=\S*(?:\([^)]*\))? )*(groundup .*)$", line)
        if match and (line.startswith((" ", "$")) or not line.rstrip().endswith(".")):
            found.append(shlex.split(match[1], comments=True)[1:])
    return found


YAML = [(p, text) for p in PAGES for text in blocks(p, "yaml")]
SHELL = [(p, words) for p in PAGES for words in commands(p)]


def test_there_is_something_to_check() -> None:
    assert len(YAML) >= 8
    assert len(SHELL) >= 10


@pytest.mark.parametrize(("page", "text"), YAML, ids=lambda v: v.stem if isinstance(v, Path) else v.split(":")[0])
def test_every_piece_of_a_recipe_is_one(page: Path, text: str) -> None:
    """A whole recipe as it stands, a piece of one within the smallest that there is."""
    if page.name == "faults.md":
        pytest.skip("shows mistakes")
    piece = parse(text, page.name).data
    whole = {**RECIPE, **piece}
    if "source" not in whole["data"]:
        whole["data"] = {**RECIPE["data"], **whole["data"]}
    Recipe.of(**whole)


@pytest.mark.parametrize(("page", "words"), SHELL, ids=lambda v: v.stem if isinstance(v, Path) else " ".join(v))
def test_every_command_line_is_understood(page: Path, words: list[str]) -> None:
    """Parsed by the command line itself, and not run."""
    known: Any = typer.main.get_command(app)
    assert words[0] in known.commands
    context = known.commands[words[0]].make_context(words[0], list(words[1:]))
    if context.params.get("template"):
        from groundup.recipe.templates import all_templates

        assert context.params["template"] in {t.name for t in all_templates()}


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.relative_to(DOCS).as_posix())
def test_links_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))
    assert [link for link in links if "://" not in link and not link.startswith("mailto:") and not (page.parent / link).exists()] == []


def test_the_python_of_the_pages_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Block after block as somebody types them; a run stops at the bundle, which is all that these blocks look at."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(groundup, "run", functools.partial(groundup.run, until="package"))
    ran = 0
    for page in PAGES:
        names: dict[str, Any] = {}
        for text in blocks(page, "python"):
            exec(compile(text, page.name, "exec"), names)
            ran += 1
    assert ran >= 2

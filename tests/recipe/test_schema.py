"""The committed JSON schema is what the code says; it accepts every recipe that is shipped and refuses misspelt keys."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from groundup.recipe import Recipe, templates
from groundup.recipe.document import parse
from groundup.recipe.schema import json_schema

ROOT = Path(__file__).parents[2]
COMMITTED = ROOT / "docs" / "recipe.schema.json"
SHIPPED = [t.folder / "recipe.yaml" for t in templates.all_templates()] + sorted((ROOT / "examples").glob("*/recipe.yaml"))
DIGITS = ROOT / "examples" / "digits" / "recipe.yaml"


def read(path: Path) -> dict[str, Any]:
    return parse(path.read_text(encoding="utf-8"), path.name).data


def mistakes(recipe: dict[str, Any]) -> list[str]:
    validator = jsonschema.Draft202012Validator(json_schema())
    return [f"{'.'.join(map(str, e.path))}: {e.message}" for e in validator.iter_errors(recipe)]


def test_the_committed_schema_is_what_the_code_says() -> None:
    assert json.loads(COMMITTED.read_text(encoding="utf-8")) == json_schema(), "run: groundup schema docs/recipe.schema.json"


def test_it_is_a_schema() -> None:
    jsonschema.Draft202012Validator.check_schema(json_schema())


@pytest.mark.parametrize("path", SHIPPED, ids=lambda p: p.parent.name)
def test_every_shipped_recipe_passes(path: Path) -> None:
    assert mistakes(read(path)) == []


@pytest.mark.parametrize("path", SHIPPED, ids=lambda p: p.parent.name)
def test_with_every_default_written_out_it_still_passes(path: Path) -> None:
    """What ``Recipe.dump`` writes is what the schema describes: aliases, defaults and types are the same."""
    dumped = Recipe.load(path).dump()
    model = {k: v for k, v in dumped["model"].items() if v is not None}  # name or class, not both
    assert mistakes({k: v for k, v in dumped.items() if v is not None} | {"model": model}) == []


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("trian",), {}),
        (("train", "epoch"), 3),
        (("train", "optimizer", "nam"), "sgd"),
        (("model", "widht"), 3),
        (("gates", "acuracy"), {"threshold": 0.9}),
        (("gates", "accuracy", "treshold"), 0.9),
        (("serve", "batch", "max_sise"), 3),
        (("data", "split", "tset"), 0.1),
        (("tune", "trails"), 3),
        (("train", "epochs"), "ten"),
        (("task",), "image-clasification"),
    ],
    ids=lambda v: ".".join(v) if isinstance(v, tuple) else "",
)
def test_a_mistake_is_refused(path: tuple[str, ...], value: Any) -> None:
    recipe = copy.deepcopy(read(DIGITS))
    assert mistakes(recipe) == []
    place = recipe
    for key in path[:-1]:
        place = place.setdefault(key, {})
    place[path[-1]] = value
    assert mistakes(recipe)


def test_keys_are_described() -> None:
    """An editor shows a description at every key of every section that the recipe can hold."""
    schema = json_schema()

    def described(value: dict[str, Any]) -> bool:
        if "$ref" in value:
            return "description" in value or "description" in schema["$defs"][value["$ref"].rsplit("/", 1)[1]]
        return "description" in value or any(described(v) for v in value.get("anyOf", []))

    sections = {"recipe": schema, **schema["$defs"]}
    assert [f"{name}.{key}" for name, s in sections.items() for key, v in s.get("properties", {}).items() if not described(v)] == []

"""Recipes that run unedited.  A folder here is a template: its files are written as they are, recipe.yaml first line the summary."""

from __future__ import annotations

import difflib
import json
from dataclasses import dataclass
from pathlib import Path

from groundup.bundle.files import explaining_storage, make_folder, write_bytes
from groundup.errors import RecipeError

SCHEMA = ".groundup/recipe.schema.json"


@dataclass(frozen=True)
class Template:
    """One folder of files."""

    name: str
    summary: str
    folder: Path


def all_templates() -> list[Template]:
    """Every template, by name."""
    found = []
    for recipe in sorted(Path(__file__).parent.glob("*/recipe.yaml")):
        summary = recipe.read_text(encoding="utf-8").splitlines()[0].lstrip("# ")
        found.append(Template(recipe.parent.name, summary, recipe.parent))
    return found


def write(folder: Path, name: str, *, force: bool = False) -> Path:
    """Write a template's files into a folder, with the schema that editors complete from; gives the recipe's path.

    Raises:
        RecipeError: no such template, or a file is there already and ``force`` is not set.
    """
    templates = {t.name: t for t in all_templates()}
    if name not in templates:
        close = difflib.get_close_matches(name, templates, n=1)
        hint = f"did you mean {close[0]!r}? " if close else ""
        raise RecipeError(f"no template {name!r}; {hint}known: {', '.join(templates)}")
    files = [p for p in sorted(templates[name].folder.iterdir()) if p.is_file() and p.name != "__init__.py"]
    if not force and (there := [p.name for p in files if (folder / p.name).exists()]):
        raise RecipeError(f"{folder / there[0]} is there already; choose another folder, or --force to replace it")
    from groundup.recipe.schema import json_schema

    with explaining_storage(folder):
        make_folder((folder / SCHEMA).parent)
        write_bytes(folder / SCHEMA, json.dumps(json_schema(), indent=2).encode())
        for path in files:
            content = path.read_bytes()
            if path.name == "recipe.yaml":
                content = f"# yaml-language-server: $schema={SCHEMA}\n".encode() + content
            write_bytes(folder / path.name, content)
    return folder / "recipe.yaml"

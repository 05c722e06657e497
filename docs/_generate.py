"""Fills the generated parts of the documentation: a line ``<!-- generate: NAME -->`` becomes what the code says."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any


def on_page_markdown(markdown: str, **_: Any) -> str:
    """mkdocs calls this for every page."""
    return re.sub(r"<!-- generate: (\w+) -->", lambda m: GENERATORS[m[1]](), markdown)


def recipe() -> str:
    """Every section of the recipe with its keys, from the JSON schema."""
    from groundup.recipe.schema import json_schema

    schema = json_schema()
    lines: list[str] = []
    _section(lines, "recipe", schema, schema["$defs"], set())
    return "\n".join(lines)


def _section(lines: list[str], name: str, node: dict[str, Any], defs: dict[str, Any], seen: set[str]) -> None:
    lines += [
        f"## {name}",
        "",
        node.get("description", "").replace("\n", " "),
        "",
        "| key | type | default | meaning |",
        "|---|---|---|---|",
    ]
    inner = []
    for key, value in node.get("properties", {}).items():
        required = " (required)" if key in node.get("required", []) else ""
        default = f"`{value['default']}`" if "default" in value and not isinstance(value["default"], dict) else ""
        lines.append(
            f"| `{key}`{required} | {_type(value)} | {default} | {value.get('description', '').replace('|', '/').replace(chr(10), ' ')} |"
        )
        inner += [(f"{name}.{key}" if name != "recipe" else key, r) for r in _references(value)]
    lines.append("")
    for child, reference in inner:
        if reference not in seen and "properties" in defs[reference]:
            seen.add(reference)
            _section(lines, child, defs[reference], defs, seen)


def _references(value: Any) -> list[str]:
    if isinstance(value, dict):
        own = [value["$ref"].rsplit("/", 1)[1]] if "$ref" in value else []
        return own + [r for v in value.values() for r in _references(v)]
    return [r for v in value for r in _references(v)] if isinstance(value, list) else []


def _type(value: dict[str, Any]) -> str:
    if "$ref" in value:
        return "section"
    if "enum" in value:
        return ", ".join(f"`{v}`" for v in value["enum"])
    if "anyOf" in value:
        return " or ".join(dict.fromkeys(_type(v) for v in value["anyOf"]))
    if value.get("type") == "array":
        return f"list of {_type(value['items'])}" if "items" in value else "list"
    return {"object": "keys and values", "null": "null"}.get(str(value.get("type")), str(value.get("type", "any")))


def cli() -> str:
    """The help of every verb, from the command line itself."""
    import typer

    from groundup.cli import app

    command: Any = typer.main.get_command(app)
    lines = []
    for name, verb in command.commands.items():
        parameters = []
        for p in verb.params:
            spelled = " ".join(p.opts) if p.opts[0].startswith("-") else p.name.upper()
            parameters.append(f"| `{spelled}` | {getattr(p, 'help', None) or ''} |")
        lines += [f"## groundup {name}", "", verb.help or "", ""]
        if parameters:
            lines += ["| argument | meaning |", "|---|---|", *parameters, ""]
    return "\n".join(lines)


def models() -> str:
    """Every model of the catalogue with its paper and parameters."""
    from groundup import catalogue

    lines = []
    for entry in catalogue.entries().values():
        lines += [f"## {entry.name}", "", f"{entry.summary} ({entry.kind}; {', '.join(entry.tasks)})", "", f"Paper: {entry.paper}", ""]
        lines += ["| parameter | default | meaning |", "|---|---|---|"]
        lines += [f"| `{p.name}` | `{p.default!r}` | {p.doc.replace('|', '/')} |" for p in entry.parameters if not p.filled]
        lines.append("")
    return "\n".join(lines)


def proofs() -> str:
    """The comparisons with reference implementations, made while this page is built."""
    from groundup import catalogue
    from groundup.proof import check

    lines = ["| claim | against | measured | tolerance | |", "|---|---|---|---|---|"]
    for name in catalogue.entries():
        for p in check(name):
            state = "passed" if p.passed else "**failed**"
            lines.append(f"| {p.claim} | {p.reference} | {p.quantity}: {p.measured:.2g} | {p.tolerance:.2g} | {state} |")
    return "\n".join(lines)


def benchmarks() -> str:
    """What scripts/bench wrote, as it wrote it."""
    results = sorted((Path(__file__).parents[1] / "benchmarks" / "results").glob("*.txt"))
    return "\n".join(f"## {path.stem}\n\n```text\n{path.read_text()}```\n" for path in results)


def algorithms() -> str:
    """Each of the fifteen: our words, the function, and how far what is used is from it."""
    import importlib
    import inspect
    import sys

    sys.path.insert(0, str(Path(__file__).parent))
    from _algorithms import ALGORITHMS

    from groundup.proof.algorithms import prove

    measured = {p.claim.partition(",")[0]: p for p in prove((0,))}
    parts = []
    for a in ALGORITHMS:
        module, _, name = a.function.partition(":")
        source = inspect.getsource(getattr(importlib.import_module(module), name))
        p = measured[f"algorithm {a.number}"]
        parts.append(
            f"## {a.number}. {a.title}\n\n"
            f'<div class="grid" markdown>\n\n```text{a.text}```\n\n```python\n{source}```\n\n</div>\n\n'
            f"Used: {a.used}. Furthest apart: **{p.measured:.1e}** of the largest value (at most {p.tolerance:.0e} is allowed,"
            f" {p.samples:,} values, float64): {'equal' if p.passed else '**not equal**'}.\n"
        )
    return "\n".join(parts)


GENERATORS: dict[str, Callable[[], str]] = {
    "algorithms": algorithms,
    "benchmarks": benchmarks,
    "cli": cli,
    "models": models,
    "proofs": proofs,
    "recipe": recipe,
}

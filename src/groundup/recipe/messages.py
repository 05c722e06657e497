"""Turns what pydantic found wrong with a recipe into lines that say where, what was expected, what came, what to do."""

from __future__ import annotations

import difflib
import types
import typing
from typing import Any

from pydantic import BaseModel, ValidationError

from groundup.errors import RecipeError
from groundup.recipe.document import Document
from groundup.sections import spelling

Path = tuple[str | int, ...]


def explain(error: ValidationError, root: type[BaseModel], document: Document, origins: dict[Path, str]) -> str:
    """One line a mistake, in the order of the file.

    Args:
        origins: paths that were set on the command line -> how they were.
    """
    lines: list[tuple[str, str]] = []
    for e in error.errors(include_url=False):
        path = _written(tuple(e["loc"]), document.data)
        unknown = e["type"] == "extra_forbidden"
        where = next((text for set_path, text in origins.items() if path[: len(set_path)] == set_path), None)
        where = where or document.where(path, key=unknown)
        message = f"{where}: {_sentence(e, path, root)}"
        if all(message != seen for _, seen in lines):
            lines.append((where, message))
    return "\n".join(message for _, message in lines)


def _sentence(e: Any, path: Path, root: type[BaseModel]) -> str:
    name = ".".join(map(str, path))
    parent = path[:-1]
    match e["type"]:
        case "extra_forbidden":
            known = keys_at(parent, root)
            section = f" in {'.'.join(map(str, parent))}" if parent else ""
            return f"unknown key {path[-1]!r}{section}; {_nearest(str(path[-1]), known)}"
        case "missing":
            section = f"{'.'.join(map(str, parent))} lacks" if parent else "the recipe lacks"
            return f"{section} the key {path[-1]!r}, which has no default{_about(path, root)}"
        case "literal_error":
            return f"{name}: expected {e['ctx']['expected']}, got {e['input']!r}{_close(e['input'], e['ctx']['expected'])}"
        case "int_parsing_size":
            return f"{name}: expected a smaller whole number, got {e['input']!r:.60}"
        case "value_error" | "assertion_error":
            return f"{name}: {e['ctx']['error']}" if name else str(e["ctx"]["error"])
        case "model_type" | "model_attributes_type" | "dict_type":
            return f"{name}: expected keys and values ({', '.join(sorted(keys_at(path, root))[:6])}, ...), got {e['input']!r}"
    message = str(e["msg"]).replace("Input should be", "expected").replace("Value should", "expected the value to")
    got = repr(e["input"])
    return f"{name}: {message[0].lower()}{message[1:]}, got {got if len(got) < 80 else got[:77] + '...'}"


def _nearest(word: str, known: typing.Iterable[str]) -> str:
    known = sorted(known)
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.6) or difflib.get_close_matches(
        word.replace("_", "-"), known, n=1, cutoff=0.6
    )
    if close:
        return f"did you mean {close[0]!r}?"
    return f"known here: {', '.join(known)}" if known else "this place takes no keys"


def _close(word: Any, expected: str) -> str:
    options = [w.strip(" '\"") for w in expected.replace(" or ", ",").split(",")]
    close = difflib.get_close_matches(str(word), options, n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


def _about(path: Path, root: type[BaseModel]) -> str:
    for section in _sections(path[:-1], root):
        for key, field in section.model_fields.items():
            if path[-1] in (key, field.alias) and field.description:
                return f": {field.description}"
    return ""


def _written(loc: Path, data: Any) -> Path:
    """pydantic's location without the parts that name union members or validators, which nobody wrote."""
    path: list[str | int] = []
    for i, part in enumerate(loc):
        last = i == len(loc) - 1
        if isinstance(data, dict):
            part = spelling(part, data, ())
        inside: Any = data
        if (isinstance(data, dict) and part in data) or (isinstance(data, list) and isinstance(part, int) and part < len(data)):
            path.append(part)
            data = inside[part]
        elif last and isinstance(part, str) and part.replace("_", "").replace("-", "").isalnum() and isinstance(data, dict):
            path.append(part)
    return tuple(path)


def _sections(path: Path, root: type[BaseModel]) -> list[type[BaseModel]]:
    """The section types that can stand at a path."""
    here: list[Any] = [root]
    for part in path:
        following: list[Any] = []
        for annotation in here:
            if isinstance(annotation, type) and issubclass(annotation, BaseModel):
                following += [f.annotation for key, f in annotation.model_fields.items() if part in (key, f.alias)]
                if "root" in annotation.model_fields:
                    following += _members(annotation.model_fields["root"].annotation)
            else:
                following += _members(annotation)
        here = [m for annotation in following for m in _unwrapped(annotation)]
    return [a for a in here if isinstance(a, type) and issubclass(a, BaseModel)]


def _members(annotation: Any) -> list[Any]:
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (dict, list, tuple) and arguments:
        return [arguments[-1] if origin is not tuple else arguments[0]]
    return []


def _unwrapped(annotation: Any) -> list[Any]:
    origin = typing.get_origin(annotation)
    if origin is typing.Annotated:
        return _unwrapped(typing.get_args(annotation)[0])
    if origin in (typing.Union, types.UnionType):
        return [m for a in typing.get_args(annotation) for m in _unwrapped(a)]
    return [annotation]


def keys_at(path: Path, root: type[BaseModel]) -> set[str]:
    """The keys that may be written at a path, as a recipe spells them."""
    return {field.alias or key for section in _sections(path, root) for key, field in section.model_fields.items() if key != "root"}


def complete(path: tuple[str, ...], root: type[BaseModel]) -> Path:
    """Fill in sections left out between: ("train", "lr") -> ("train", "optimizer", "lr"), where only one place is meant."""
    known = keys_at(path[:-1], root)
    if (
        not known
        or path[-1] in known
        or len(path) < 2
        or any("extra" in s.model_config and s.model_config["extra"] == "allow" for s in _sections(path[:-1], root))
    ):
        return path
    places = _descend(path[:-1], path[-1], root, depth=3)
    if len(places) == 1:
        return places[0]
    if len(places) > 1:
        options = ", ".join(".".join(map(str, p)) for p in places)
        raise RecipeError(f"--set {'.'.join(path)}: several keys end so: {options}; write one of them")
    return path


def _descend(path: Path, name: str, root: type[BaseModel], depth: int) -> list[Path]:
    found: list[Path] = []
    for key in sorted(keys_at(path, root)):
        if key == name:
            found.append((*path, key))
        elif depth > 1:
            found += _descend((*path, key), name, root, depth - 1)
    return found

"""A YAML document that remembers where every key stands, so that errors can say file, line and column.

YAML 1.2's core schema is read, not PyYAML's 1.1: ``1e-3`` is a number, ``no`` and ``on`` are words, dates stay text.
Only plain data is built; tags that would make Python objects are refused, and so are keys given twice.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import yaml

from groundup.errors import RecipeError

_MAX_NODES = 100_000  # aliases can make a small file expand without end


class _Loader(yaml.SafeLoader):
    """SafeLoader with the scalars of YAML 1.2's core schema."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 - PyYAML's own interface


for _tag, _pattern, _first in (
    ("tag:yaml.org,2002:bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("tag:yaml.org,2002:int", r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", "-+0123456789"),
    (
        "tag:yaml.org,2002:float",
        r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        "-+0123456789.",
    ),
    ("tag:yaml.org,2002:null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("tag:yaml.org,2002:merge", r"<<", "<"),
):
    _Loader.add_implicit_resolver(_tag, re.compile(rf"^(?:{_pattern})$"), _first)


@dataclass(frozen=True)
class Place:
    """Where something stands, counted from 1, as editors do."""

    line: int
    column: int


@dataclass(frozen=True)
class Document:
    """Plain data with the places of its keys and values.

    Attributes:
        name: what messages call it: the file's name.
        keys, values: path -> place; a path is a tuple of mapping keys and list positions.
    """

    name: str
    data: dict[str, Any]
    keys: dict[tuple[str | int, ...], Place]
    values: dict[tuple[str | int, ...], Place]

    def where(self, path: tuple[str | int, ...], *, key: bool = False) -> str:
        """``name:line:column`` of the path, or of its nearest parent that is written in the document."""
        places = self.keys if key else self.values
        while path and path not in places:
            path = path[:-1]
        place = places.get(path)
        return f"{self.name}:{place.line}:{place.column}" if place else self.name


def parse(text: str, name: str = "recipe") -> Document:
    """Read YAML text.

    Raises:
        RecipeError: not YAML, not a mapping, a key twice, a key that is not text, or a tag that makes objects.
    """
    try:
        root = _compose(text)
    except yaml.MarkedYAMLError as e:
        mark = e.problem_mark or e.context_mark
        place = f"{name}:{mark.line + 1}:{mark.column + 1}" if mark else name
        raise RecipeError(f"{place}: not YAML: {e.problem or e.context}") from e
    except yaml.YAMLError as e:  # a character that YAML does not allow
        raise RecipeError(f"{name}: not YAML: {e}") from e
    except RecursionError as e:
        raise RecipeError(f"{name}: nested too deeply to be a recipe") from e
    if root is None:
        raise RecipeError(f"{name}: the file is empty; `groundup init` writes a recipe that runs")
    if not isinstance(root, yaml.MappingNode):
        got = "a list" if isinstance(root, yaml.SequenceNode) else "a single value"
        raise RecipeError(f"{name}:1:1: expected keys and values (name: ..., data: ..., model: ...), got {got}")
    builder = _Builder(name)
    data = builder.build(root, ())
    return Document(name, data, builder.keys, builder.values)


def _compose(text: str) -> yaml.Node | None:
    loader = _Loader(text)
    try:
        node: yaml.Node | None = loader.get_single_node()
        return node
    finally:
        loader.dispose()


class _Builder:
    def __init__(self, name: str) -> None:
        self.name, self.nodes = name, 0
        self.keys: dict[tuple[str | int, ...], Place] = {}
        self.values: dict[tuple[str | int, ...], Place] = {}
        self._open: set[int] = set()

    def build(self, node: yaml.Node, path: tuple[str | int, ...]) -> Any:
        place = Place(node.start_mark.line + 1, node.start_mark.column + 1)
        self.values[path] = place
        self.nodes += 1
        if self.nodes > _MAX_NODES or id(node) in self._open:
            raise RecipeError(
                f"{self.name}:{place.line}:{place.column}: aliases expand to more than {_MAX_NODES} values or to themselves; write them out"
            )
        self._open.add(id(node))
        try:
            if not isinstance(node, yaml.ScalarNode) and node.tag not in ("tag:yaml.org,2002:map", "tag:yaml.org,2002:seq"):
                raise self._foreign(node.tag, place)
            if isinstance(node, yaml.MappingNode):
                return self._mapping(node, path)
            if isinstance(node, yaml.SequenceNode):
                return [self.build(child, (*path, i)) for i, child in enumerate(node.value)]
            return self._scalar(node, place)
        finally:
            self._open.discard(id(node))

    def _mapping(self, node: yaml.MappingNode, path: tuple[str | int, ...]) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for key_node, value_node in node.value:
            place = Place(key_node.start_mark.line + 1, key_node.start_mark.column + 1)
            where = f"{self.name}:{place.line}:{place.column}"
            if key_node.tag == "tag:yaml.org,2002:merge":
                raise RecipeError(f"{where}: merge keys (<<) are not read; write the keys out")
            if not isinstance(key_node, yaml.ScalarNode):
                raise RecipeError(f"{where}: expected a word as key, got a list or keys and values")
            key = key_node.value
            if key in result:
                raise RecipeError(f"{where}: the key {key!r} is given twice; keep one")
            self.keys[(*path, key)] = place
            result[key] = self.build(value_node, (*path, key))
        return result

    def _scalar(self, node: yaml.Node, place: Place) -> Any:
        where = f"{self.name}:{place.line}:{place.column}"
        match node.tag:
            case "tag:yaml.org,2002:str":
                return node.value
            case "tag:yaml.org,2002:null":
                return None
            case "tag:yaml.org,2002:bool":
                return node.value.lower() == "true"
            case "tag:yaml.org,2002:int":
                try:
                    return int(node.value, 0 if node.value.lower().startswith(("0x", "0o")) else 10)
                except ValueError as e:
                    raise RecipeError(f"{where}: not a usable whole number: {node.value[:40]}") from e
            case "tag:yaml.org,2002:float":
                return float(node.value.lower().replace(".inf", "inf").replace(".nan", "nan"))
        raise self._foreign(node.tag, place)

    def _foreign(self, tag: str, place: Place) -> RecipeError:
        return RecipeError(
            f"{self.name}:{place.line}:{place.column}: the tag {tag!r} is not read; recipes hold plain text, numbers, lists and keys"
        )

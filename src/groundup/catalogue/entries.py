"""What groundup itself has: one entry a file of models/ and estimators/, found by being there.

A model's file declares ``TASKS`` (what it can do), opens with one sentence on what it is and a ``Paper:`` paragraph; the
model is the class that is called as the file is, or else its first public one.  Files without ``TASKS`` (the
exporters) are no entries.
"""

from __future__ import annotations

import ast
import functools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from groundup.catalogue.signature import Parameter, from_source

Kind = Literal["network", "sequence", "estimator"]
_FOLDERS: dict[str, Kind] = {"models": "network", "estimators": "estimator"}
SEQUENCE_TASKS = ("language-modelling", "masked-language-modelling", "text-classification", "translation")
"""What networks over tokens do; a model with one of these is of the kind "sequence"."""


@dataclass(frozen=True)
class Entry:
    """One model of the catalogue.

    Attributes:
        name: the file's name, and the recipe's.
        kind: "network" reads features (B, *shape), "sequence" tokens (B, T), "estimator" has scikit-learn's API.
        tasks: the recipe tasks that it can do.
        summary: first sentence of the file.
        paper: where it is from.
        path: its file.
        class_name: the class in it.
        parameters: the constructor's, in order.
        presets: names of published sizes.
    """

    name: str
    kind: Kind
    tasks: tuple[str, ...]
    summary: str
    paper: str
    path: Path
    class_name: str
    parameters: tuple[Parameter, ...]
    presets: tuple[str, ...] = ()

    @property
    def module(self) -> str:
        """Dotted name of the module."""
        return f"groundup.{self.path.parent.name}.{self.name}"


@functools.cache
def entries() -> Mapping[str, Entry]:
    """Every model by name, in alphabetical order.  Reads the files, imports nothing.

    >>> entries()["cnn"].tasks
    ('image-classification',)
    """
    package = Path(__file__).parent.parent
    found = [entry for folder, kind in _FOLDERS.items() for path in (package / folder).glob("[!_]*.py") if (entry := read(path, kind))]
    return {entry.name: entry for entry in sorted(found, key=lambda e: e.name)}


def names(kind: Kind) -> list[str]:
    """The models of one kind.

    >>> names("estimator")
    ['linear', 'logistic']
    """
    return [entry.name for entry in entries().values() if entry.kind == kind]


def read(path: Path, kind: Kind) -> Entry | None:
    """The entry of one file, or None where it declares no TASKS."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    constants = {t.id: n.value for n in tree.body if isinstance(n, ast.Assign) for t in n.targets if isinstance(t, ast.Name)}
    if "TASKS" not in constants:
        return None
    tasks = tuple(ast.literal_eval(constants["TASKS"]))
    presets = constants.get("PRESETS")
    public = [n for n in tree.body if isinstance(n, ast.ClassDef) and not n.name.startswith("_")]
    cls = next((n for n in public if n.name.lower() == path.stem), public[0])
    header = ast.get_docstring(tree) or ""
    return Entry(
        name=path.stem,
        kind="sequence" if kind == "network" and set(tasks) <= set(SEQUENCE_TASKS) else kind,
        tasks=tasks,
        summary=_paragraph(header),
        paper=_paragraph(header.partition("Paper:")[2]),
        path=path,
        class_name=cls.name,
        parameters=from_source(cls),
        presets=tuple(ast.literal_eval(key) for key in presets.keys if key) if isinstance(presets, ast.Dict) else (),
    )


def _paragraph(text: str) -> str:
    return " ".join(text.strip().partition("\n\n")[0].split())

"""What `groundup models` and `groundup models NAME` show: data, not layout."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from groundup.catalogue.entries import Entry, entries
from groundup.catalogue.resolve import resolve
from groundup.catalogue.section import Model
from groundup.catalogue.signature import REQUIRED, nearest
from groundup.catalogue.size import Size
from groundup.errors import RecipeError

_EXAMPLE_SHAPES = {"image-classification": ((1, 28, 28), 10), "tabular-classification": ((20,), 2), "tabular-regression": ((20,), 1)}
"""Features and outputs that a description is made for where none are given."""


@dataclass(frozen=True)
class Description:
    """One model in full.

    Attributes:
        parameters: rows of name, type, default and help, those taken from the data left out.
        input_shape, n_outputs: what the size is for.
        size: counted on the meta device.
    """

    entry: Entry
    parameters: tuple[dict[str, str], ...]
    input_shape: tuple[int, ...]
    n_outputs: int
    size: Size


def table() -> list[dict[str, str]]:
    """One row a model: name, kind, tasks, summary.  Imports neither PyTorch nor scikit-learn."""
    return [{"name": e.name, "kind": e.kind, "tasks": ", ".join(e.tasks), "summary": e.summary} for e in entries().values()]


def describe(name: str, input_shape: Sequence[int] | None = None, n_outputs: int | None = None, **params: Any) -> Description:
    """A model of the catalogue with its parameters and its size for a shape of features; ``groundup.proof.check`` has its proofs.

    Args:
        input_shape: of one example; MNIST's (1, 28, 28) or 20 columns where it is left out.
        n_outputs: number of scores; 10 classes for images, 2 or 1 for tables where it is left out.
        params: constructor parameters that differ from the defaults.

    Raises:
        RecipeError: no such model, or a parameter that it does not take.
        ModelError: it cannot be built for such features.
    """
    if name not in entries():
        raise RecipeError(f"groundup has no model {name!r}{nearest(name, entries())}")
    entry = entries()[name]
    shape, outputs = _EXAMPLE_SHAPES[entry.tasks[0]]
    shape, outputs = tuple(input_shape or shape), n_outputs or outputs
    size = resolve(Model(name=name, **params), Path.cwd()).check(shape, outputs, count=True)
    rows = tuple(
        {"name": p.name, "type": p.annotation, "default": "required" if p.default is REQUIRED else repr(p.default), "help": p.doc}
        for p in entry.parameters
        if not p.filled
    )
    return Description(entry=entry, parameters=rows, input_shape=shape, n_outputs=outputs, size=size)

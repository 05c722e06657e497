"""What `groundup models` and `groundup models NAME` show: data, not layout."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from groundup.catalogue.entries import Entry, entries
from groundup.catalogue.resolve import resolve
from groundup.catalogue.section import Model
from groundup.catalogue.signature import REQUIRED, nearest
from groundup.catalogue.size import Size
from groundup.errors import RecipeError

_EXAMPLE_SHAPES = {"image-classification": ((1, 28, 28), 10), "tabular-classification": ((20,), 2), "tabular-regression": ((20,), 1)}
"""Features and outputs that a description is made for where none are given."""


class Row(NamedTuple):
    """One line of the list of models."""

    name: str
    kind: str
    tasks: str
    summary: str


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

    def __str__(self) -> str:
        """A page of plain text, as `groundup models NAME` prints it."""
        width = max((len(row["name"]) for row in self.parameters), default=0)
        kinds = max((len(row["type"]) for row in self.parameters), default=0)
        lines = [f"{self.entry.name} ({self.entry.kind}): {self.entry.summary}", "", f"for:   {', '.join(self.entry.tasks)}"]
        lines += [f"paper: {self.entry.paper}", f"file:  {self.entry.module.replace('.', '/')}.py", "", "parameters"]
        lines += [f"  {row['name']:{width}}  {row['type']:{kinds}}  {row['default']:>9}  {row['help']}" for row in self.parameters]
        shape, size = " × ".join(map(str, self.input_shape)), self.size
        lines += ["", f"for features of {shape} and {self.n_outputs} output{'s' * (self.n_outputs > 1)}"]
        if size.parameters is None or size.weights is None or size.macs is None:
            return "\n".join([*lines, "  an estimator: the data decides its size"])
        training = size.training_bytes(batch=64) or 0
        return "\n".join(
            [
                *lines,
                f"  {size.parameters:,} parameters, {size.weights / 1e6:,.2f} MB of float32 weights",
                f"  {size.macs:,} multiplications an answer",
                f"  at most {training / 1e6:,.1f} MB to train with AdamW and batches of 64",
            ]
        )


def table() -> list[Row]:
    """One row a model.  Imports neither PyTorch nor scikit-learn."""
    return [Row(e.name, e.kind, ", ".join(e.tasks), e.summary) for e in entries().values()]


def find(name: str) -> Entry:
    """The entry of this name.

    Raises:
        RecipeError: there is none; says what is near.
    """
    if name not in entries():
        raise RecipeError(f"groundup has no model {name!r}{nearest(name, entries())}")
    return entries()[name]


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
    entry = find(name)
    if entry.kind == "sequence":
        raise RecipeError(f"{name} reads tokens: its sizes are those of groundup.catalogue.describe_sequence")
    shape, outputs = _EXAMPLE_SHAPES[entry.tasks[0]]
    shape, outputs = tuple(input_shape or shape), n_outputs or outputs
    size = resolve(Model(name=name, **params), Path.cwd()).check(shape, outputs)
    rows = tuple(
        {"name": p.name, "type": p.annotation, "default": "required" if p.default is REQUIRED else repr(p.default), "help": p.doc}
        for p in entry.parameters
        if not p.filled
    )
    return Description(entry=entry, parameters=rows, input_shape=shape, n_outputs=outputs, size=size)

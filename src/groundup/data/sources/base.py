"""What a source gives: a table that DuckDB can read, or arrays with a label each."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from groundup.errors import DataError
from groundup.progress import Progress, Silent


def quoted(name: str) -> str:
    """A column or table name inside SQL."""
    return '"' + name.replace('"', '""') + '"'


def text(value: str) -> str:
    """A string constant inside SQL."""
    return "'" + value.replace("'", "''") + "'"


def is_web_page(head: bytes) -> bool:
    """Whether a file that starts so is the page about a file, or an error page, rather than the file."""
    return head.lstrip(b"\xef\xbb\xbf \t\r\n").lower().startswith((b"<!doctype html", b"<html"))


def alike(names: list[str], where: str) -> None:
    """Refuse columns whose names are told apart by their letters' case alone, which SQL does not.

    Raises:
        DataError: there are such; the message names them.
    """
    folded = [name.casefold() for name in names]
    if twins := [name for name in names if name and folded.count(name.casefold()) > 1]:
        told = " and ".join(map(repr, twins))
        raise DataError(f"{where}: the column names {told} differ in nothing but large and small letters; rename one of them")


class BadRow(NamedTuple):
    """One row that cannot be used: where it stands in the source, which column, why."""

    row: int
    column: str
    reason: str


class Source(ABC):
    """Where data comes from.

    Attributes:
        where: what messages call it.
        target: the column to predict where the source knows it.
        task: the task it was made for, where known.
        progress: where a download says how far it is.
    """

    where: str
    target: str | None = None
    task: str | None = None
    progress: Progress | Silent = Silent()

    @abstractmethod
    def identity(self) -> str:
        """Hex hash that changes when the content does; cheap the second time."""


class TableSource(Source):
    """Rows with named columns.

    Attributes:
        loose: values are text whose types were guessed (CSV, JSON Lines, SQLite): a declared kind may differ from the guess.
        comma: a comma stands before the fraction of numbers in text.
        objects: a row is an object of its own, which may lack every column (JSON Lines).
    """

    loose = False
    comma = False
    objects = False

    def place(self, row: int) -> str:
        """What messages call a row of :meth:`relation`, counted from 0."""
        return f"row {row}"

    @abstractmethod
    def relation(self, con: Any, types: Mapping[str, str] | None = None, *, forgiving: bool = False) -> str:
        """SQL that can stand after FROM.

        Args:
            con: the DuckDB connection that will run it; in-memory data is registered there.
            types: read these columns as these DuckDB types instead of the guessed ones.
            forgiving: everything as text, and what is no row at all left out and told by :meth:`structural_errors`.
        """

    def structural_errors(self, con: Any) -> list[BadRow]:
        """Rows that :meth:`relation` left out because they are no rows at all (wrong number of values); after a read."""
        return []


@dataclass
class Arrays:
    """Samples of one shape, with a label each.

    Attributes:
        x: uint8 (N, H, W, C) for images, float32 (N, ...) for tensors; may be a memory map.
        y: labels (N,): text for classes, numbers for regression.
        rows: (N,) where each stands in the source.
        bad: samples that could not be read.
        notes: what people should know about how it was read.
    """

    where: str
    kind: Literal["image", "tensor"]
    x: NDArray[Any]
    y: NDArray[Any]
    target: str | None = "label"
    task: str | None = None
    rows: NDArray[np.int64] | None = None
    bad: list[BadRow] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


class ArraySource(Source):
    """A source of :class:`Arrays`, read only when asked."""

    @abstractmethod
    def load(self, work: Path, limit: int | None = None) -> Arrays:
        """Read the samples; what is large goes into files in ``work``."""

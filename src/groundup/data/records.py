"""Records to answer: a source's rows, images or arrays as a model's inputs, without targets, piece by piece.

What the server would refuse in one record is refused here too, with its row and the reason; its neighbours go on.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from groundup.bundle.signature import MISSING_DATETIME, Field
from groundup.data.sources.base import ArraySource, BadRow, Source, TableSource
from groundup.data.sources.images import Folder, decoded
from groundup.data.sources.npz import Npz
from groundup.errors import DataError
from groundup.progress import Progress, Silent

_PIECE_BYTES = 1 << 20  # of images or tensors in a piece; what a network computes between is many times that
_EXACT = 2**53  # whole numbers travel as float64


class Piece(NamedTuple):
    """Some records in order.

    Attributes:
        rows: where each stands in the source, from 0.
        inputs: their tensors, by the convention of ``groundup.bundle.signature``.
        bad: what was read and does not fit; not among ``rows``.
        names: file of each record, for a folder of images.
    """

    rows: NDArray[np.int64]
    inputs: dict[str, NDArray[Any]]
    bad: list[BadRow]
    names: list[str] | None = None


def pieces(source: Source, fields: Sequence[Field], work: Path, progress: Progress | Silent) -> Iterator[Piece]:
    """The records of ``source`` as the tensors of ``fields``; images need no folders of classes, archives no labels.

    Args:
        work: an empty folder, for files that are needed meanwhile.

    Raises:
        DataError: the source cannot be read, lacks a column, or holds something of another kind or shape.
    """
    return _table(source, fields, work, progress) if isinstance(source, TableSource) else _arrays(source, fields, work)


def _table(source: TableSource, fields: Sequence[Field], work: Path, progress: Progress | Silent) -> Iterator[Piece]:
    """A table's records, its values read as the kinds of the signature."""
    from groundup.data import reading
    from groundup.data.columns import tensor
    from groundup.data.divide import source_rows

    if any(f.shape for f in fields):
        raise DataError(f"{source.where} is a table, and this bundle takes {_taken(fields)}")
    kinds: dict[str, Any] = {f.name: f.kind for f in fields}
    con = reading.connect(work)
    try:
        with reading.explaining(source.where):
            there = list(reading.describe(con, source.relation(con, forgiving=source.loose)))
        if missing := [name for name in kinds if name not in there]:
            raise DataError(f"{source.where} lacks {_listed(missing)}, which the bundle needs; it has {_listed(there)}")
        with progress.task("read", None, "rows") as task:
            formats = _formats(source, con, kinds) if source.loose else None
            spill = reading.spill(source, con, work / "spill.parquet", kinds=kinds, forced={}, limit=None, formats=formats)
            task.advance(spill.n_rows)
    finally:
        con.close()
    rows = source_rows(spill)
    yield Piece(rows[:0], {}, spill.structural)
    start = 0
    for table in reading.pieces(spill.path):
        here = slice(start, start + table.num_rows)
        bad = reading.unread(table, spill, start)
        unknown = {(b.row, b.column) for b in bad}
        inputs = {}
        for f in fields:
            inputs[f.name] = x = tensor(table.column(f.name), f.kind)
            bad += [b for row, why in _misfits(x, f) if (b := BadRow(start + row, f.name, why))[:2] not in unknown]
        if source.objects:
            empty = np.logical_and.reduce([_missing(x) for x in inputs.values()])
            bad += [BadRow(start + int(i), "", "no JSON object, or one with none of the columns") for i in np.flatnonzero(empty)]
        kept = np.ones(table.num_rows, bool)
        kept[[b.row - start for b in bad]] = False
        told = [b._replace(row=int(rows[b.row])) for b in sorted(bad)]
        yield Piece(rows[here][kept], {name: x[kept] for name, x in inputs.items()}, told)
        start = here.stop


def _formats(source: TableSource, con: Any, kinds: dict[str, Any]) -> dict[str, str]:
    """Datetime column -> how its dates are written, where that is not ISO 8601.

    Raises:
        DataError: the values do not tell.
    """
    from groundup.data import dates, reading

    wanted = [name for name, kind in kinds.items() if kind == "datetime"]
    found = {}
    with reading.explaining(source.where):
        as_text = dict.fromkeys(reading.describe(con, source.relation(con, forgiving=True)), "VARCHAR")
        relation = f"(SELECT * FROM {source.relation(con, as_text, forgiving=True)} LIMIT {reading.SAMPLE})"
        for name in wanted:
            told = dates.find(con, relation, name, reading.SHARE, source.place)
            if told and told.problem:
                raise DataError(f"column {name!r} of {source.where} holds {told.problem}; write them as 2024-12-31")
            if told and told.format:
                found[name] = told.format
    return found


def _missing(x: NDArray[Any]) -> NDArray[np.bool_]:
    """Where a column of the convention has no value."""
    if x.dtype == object:
        return np.asarray(x == "", bool)
    return np.asarray(x == MISSING_DATETIME if x.dtype == np.int64 else np.isnan(x))


def _misfits(x: NDArray[Any], f: Field) -> Iterator[tuple[int, str]]:
    """The rows of one column that the server would refuse as well, with the reason."""
    checks = []
    if not f.nullable:
        checks.append((_missing(x), "missing, and the model was trained on data where it never is"))
    if f.kind == "number":
        checks.append((np.isinf(x), "expected a finite number, got infinity"))
    if f.kind == "integer":
        checks.append((np.abs(x) > _EXACT, "expected a whole number of at most 2**53"))
    if f.kind == "category":
        checks.append((np.array(["\0" in value for value in x], bool), "holds a NUL character"))
    for wrong, why in checks:
        yield from ((int(i), why) for i in np.flatnonzero(wrong))


def _arrays(source: Source, fields: Sequence[Field], work: Path) -> Iterator[Piece]:
    """Images and tensors, a few at a time."""
    if len(fields) != 1 or fields[0].kind not in ("image", "tensor"):
        raise DataError(f"{source.where} holds images or arrays, and this bundle takes {_taken(fields)}")
    f = fields[0]
    if isinstance(source, Folder):
        yield from _pictures(source, f)
        return
    assert isinstance(source, ArraySource)
    x = source.samples(work) if isinstance(source, Npz) else source.load(work).x
    if x.shape[1:] != f.shape and not (f.shape[-1] == 1 and x.shape[1:] == f.shape[:-1]):
        raise DataError(f"{source.where}: expected samples of {_shape(f.shape)}, got {_shape(x.shape[1:])}")
    for start in range(0, len(x), size := _at_once(f)):
        part = np.asarray(x[start : start + size]).reshape(-1, *f.shape)
        flat = part.reshape(len(part), -1)
        if f.kind == "image" and part.dtype != np.uint8:
            fits, why = ((flat >= 0) & (flat <= 255) & (flat == np.floor(flat))).all(axis=1), "expected whole numbers from 0 to 255"
        else:
            fits, why = np.isfinite(flat).all(axis=1), "expected finite numbers within the range of float32"
        bad = [BadRow(start + int(i), f.name, why) for i in np.flatnonzero(~fits)]
        yield Piece(start + np.flatnonzero(fits), {f.name: part[fits].astype(f.dtype)}, bad)


def _pictures(source: Folder, f: Field) -> Iterator[Piece]:
    """Every image in a folder and below, brought to the size and mode that the model was trained on."""
    if f.kind != "image" or f.shape[-1] not in (1, 3):
        raise DataError(f"{source.where} holds images, and this bundle takes {_taken([f])}")
    files, _ = source.files()
    if not files:
        raise DataError(f"{source.where} holds no images")
    height, width, channels = f.shape
    pixels = decoded(files, "L" if channels == 1 else "RGB", (width, height))
    for start in range(0, len(files), size := _at_once(f)):
        bad, rows, kept = [], [], []
        for row, found in enumerate(itertools.islice(pixels, size), start):
            if isinstance(found, str):
                bad.append(BadRow(row, str(files[row].relative_to(source.path)), found))
            else:
                rows.append(row)
                kept.append(found)
        names = [str(files[row].relative_to(source.path)) for row in rows]
        yield Piece(np.array(rows, np.int64), {f.name: np.array(kept, np.uint8).reshape(-1, *f.shape)}, bad, names)


def _at_once(f: Field) -> int:
    return max(1, min(1024, _PIECE_BYTES // (f.dtype.itemsize * math.prod(f.shape))))


def _taken(fields: Sequence[Field]) -> str:
    if fields[0].shape:
        return f"{fields[0].kind}s of {_shape(fields[0].shape)}"
    return f"records with the columns {_listed([f.name for f in fields])}"


def _shape(shape: Sequence[int]) -> str:
    return " × ".join(map(str, shape))


def _listed(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names[:20])) + (f" and {len(names) - 20} more" if len(names) > 20 else "")

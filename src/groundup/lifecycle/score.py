"""score: answer every record of a file with a bundle: ``groundup score BUNDLE DATA --output FILE``.

Records are read as training reads them (``groundup.data``) and answered by the server's own engine, piece by piece, so
that memory does not grow with the file.  A record that does not fit is left out and told, with its row and the reason,
in a file beside the output; both files appear whole or not at all.
"""

from __future__ import annotations

import csv
import itertools
import math
import os
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from groundup.bundle import Bundle, Field
from groundup.bundle.files import explaining_storage
from groundup.data.settings import Data
from groundup.data.sources import find
from groundup.data.sources.base import BadRow, TableSource
from groundup.errors import DataError, MissingExtraError
from groundup.progress import Progress, Silent
from groundup.serving.engine import Engine

Arrays = dict[str, NDArray[Any]]
_BATCH = 4096  # table rows answered at once
_BATCH_BYTES = 1 << 20  # of images or tensors answered at once; what a network computes between is many times that
_EXACT = 2**53


@dataclass(frozen=True)
class Scored:
    """What was written.

    Attributes:
        rows: records answered, one line each in the output.
        refused: records that do not fit.
        refusals: the file that names them (row, column, reason); None where there are none.
    """

    rows: int
    refused: int
    refusals: Path | None


class Piece(NamedTuple):
    """Some records in order.

    Attributes:
        rows: where each stands in the source, from 0.
        inputs: their tensors, by the convention of ``groundup.bundle.signature``.
        bad: what was read and does not fit; not among ``rows``.
        names: file of each record, for a folder of images.
    """

    rows: NDArray[np.int64]
    inputs: Arrays
    bad: list[BadRow]
    names: list[str] | None = None


def score(
    bundle: Path, data: str, output: Path, *, format: str | None = None, progress: Progress | None = None, threads: int | None = None
) -> Scored:
    """Answer every record of ``data``; write ``output``.

    The output has ``row`` (and ``file`` for a folder of images), then ``label`` and ``probability_<class>`` a class, or
    ``prediction``.  Columns that the model does not take (its target, an id) are passed over.

    Args:
        data: a path or URL that a recipe could name as ``data.source``; images need no folders of classes, archives no labels.
        output: ends in .parquet or .csv.
        format: what the data is, where its ending does not tell.
        threads: of ONNX Runtime; all cores that this process may use by default.

    Raises:
        DataError: the file cannot be read, lacks a column, or not one record fits; nothing is written.
        BundleError: the bundle cannot be used.
        StorageError: the output cannot be written.
    """
    if output.suffix.lower() not in (".parquet", ".csv"):
        raise DataError(f"{output}: expected the output to end in .parquet or .csv")
    opened = Bundle.open(bundle)
    engine = Engine(opened, threads or len(os.sched_getaffinity(0)))
    try:
        source = find(Data(source=data, format=format), Path.cwd())  # type: ignore[arg-type]
    except ValidationError as e:
        raise DataError(f"--format {format}: {e.errors()[0]['msg'].replace('Input should be', 'expected')}") from e
    refusals = output.with_suffix(".refused.csv")
    watch = progress or Silent()
    with (
        tempfile.TemporaryDirectory(prefix="groundup-score-") as work,
        explaining_storage(output),
        _Written(output, refusals, opened.signature.outputs) as files,
    ):
        fields = opened.signature.inputs
        try:
            pieces = _table(source, fields, Path(work), watch) if isinstance(source, TableSource) else _arrays(source, fields, Path(work))
            with watch.task("score", None, "records") as task:
                for piece in pieces:
                    _answer(engine, piece, files, task)
        except ImportError as e:
            raise MissingExtraError(e.name or "pyarrow", "train", "scoring a file") from e
        files.commit(data)
    return Scored(files.rows, files.refused, refusals if files.refused else None)


# ── reading ─────────────────────────────────────────────────────────────────────────────────────────


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
            spill = reading.spill(source, con, work / "spill.parquet", kinds=kinds, forced={}, limit=None)
            task.advance(spill.n_rows)
    finally:
        con.close()
    rows = source_rows(spill)
    yield Piece(rows[:0], {}, spill.structural)
    start = 0
    for table in reading.pieces(spill.path):
        here = slice(start, start + table.num_rows)
        bad = reading.unread(table, spill.kinds, start)
        unknown = {(b.row, b.column) for b in bad}
        inputs = {}
        for f in fields:
            inputs[f.name] = x = tensor(table.column(f.name), f.kind)
            bad += [b for row, why in _misfits(x, f) if (b := BadRow(start + row, f.name, why))[:2] not in unknown]
        if isinstance(source, JsonLines):
            empty = np.logical_and.reduce([_missing(x) for x in inputs.values()])
            bad += [BadRow(start + int(i), "", "no JSON object, or one with none of the columns") for i in np.flatnonzero(empty)]
        kept = np.ones(table.num_rows, bool)
        kept[[b.row - start for b in bad]] = False
        told = [b._replace(row=int(rows[b.row])) for b in sorted(bad)]
        yield Piece(rows[here][kept], {name: x[kept] for name, x in inputs.items()}, told)
        start = here.stop


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
    return max(1, min(1024, _BATCH_BYTES // (f.dtype.itemsize * math.prod(f.shape))))


def _taken(fields: Sequence[Field]) -> str:
    if fields[0].shape:
        return f"{fields[0].kind}s of {_shape(fields[0].shape)}"
    return f"records with the columns {_listed([f.name for f in fields])}"


def _shape(shape: Sequence[int]) -> str:
    return " × ".join(map(str, shape))


def _listed(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names[:20])) + (f" and {len(names) - 20} more" if len(names) > 20 else "")


# ── answering ───────────────────────────────────────────────────────────────────────────────────────


def _answer(engine: Engine, piece: Piece, files: _Written, task: Task) -> None:
    files.refuse(piece.bad)
    task.advance(len({b.row for b in piece.bad}))
    for start in range(0, len(piece.rows), _BATCH):
        part = slice(start, start + _BATCH)
        for kept, answers in _answered(engine, {name: x[part] for name, x in piece.inputs.items()}, files, piece.rows[part]):
            here = start + kept
            files.write(piece.rows[here], [piece.names[i] for i in here] if piece.names is not None else None, answers)
        task.advance(len(piece.rows[part]))


def _answered(engine: Engine, inputs: Arrays, files: _Written, rows: NDArray[np.int64]) -> Iterator[tuple[NDArray[np.int64], Arrays]]:
    """Answers, with the positions in this batch that they are for; a record on which the graph fails does not fail its neighbours."""
    try:
        yield np.arange(len(rows)), engine.run(inputs)
    except InferenceError as e:
        if len(rows) == 1:
            files.refuse([BadRow(int(rows[0]), "", f"the model cannot answer it: {e}")])
            return
        for half in (slice(0, len(rows) // 2), slice(len(rows) // 2, len(rows))):
            for kept, answers in _answered(engine, {name: x[half] for name, x in inputs.items()}, files, rows[half]):
                yield kept + half.start, answers


# ── writing ─────────────────────────────────────────────────────────────────────────────────────────


class _Written:
    """The output and its refusals, under other names until :meth:`commit`."""

    def __init__(self, output: Path, refusals: Path, outputs: Sequence[Field]) -> None:
        self.output, self.refusals, self.fields = output, refusals, outputs
        self.rows = self.refused = 0
        self._reasons: Counter[str] = Counter()
        self._writer: Any = None

    def __enter__(self) -> Self:
        self._folder = tempfile.TemporaryDirectory(prefix=f".{self.output.name}.", dir=self.output.parent)
        self._answers, self._told = Path(self._folder.name, "answers"), Path(self._folder.name, "refused")
        self._file = open(self._told, "w", newline="", encoding="utf-8")
        self._refusals = csv.writer(self._file)
        self._refusals.writerow(("row", "column", "reason"))
        return self

    def __exit__(self, *_: object) -> None:
        if self._writer is not None:
            self._writer.close()
        self._file.close()
        self._folder.cleanup()

    def refuse(self, bad: Sequence[BadRow]) -> None:
        """Note records that get no answer; several reasons may belong to one record."""
        self._refusals.writerows(bad)
        self.refused += len({b.row for b in bad})
        self._reasons.update(f"{b.column + ': ' if b.column else ''}{b.reason}" for b in bad)

    def write(self, rows: NDArray[np.int64], names: list[str] | None, answers: Arrays) -> None:
        """Add one line a record."""
        import pyarrow as pa

        columns: dict[str, Any] = {"row": pa.array(rows)} | ({"file": pa.array(names, pa.string())} if names is not None else {})
        for f in self.fields:
            x = answers[f.name]
            if x.ndim == 1:
                columns[f.name] = pa.array(x, pa.string() if f.kind == "category" else None)
            else:
                flat = x.reshape(len(x), -1)
                columns |= {name: pa.array(flat[:, i]) for i, name in enumerate(self._names(f, flat.shape[1]))}
        table = pa.table(columns)
        if self._writer is None:
            self._writer = self._started(table.schema)
        self._writer.write_table(table)
        self.rows += len(rows)

    def _names(self, f: Field, n: int) -> list[str]:
        """A column a class for probabilities, a column a value for whatever else has an axis."""
        classes = next((o.categories for o in self.fields if o.name == "label"), None)
        if f.name == "probabilities" and classes is not None and len(classes) == n:
            return [f"probability_{c}" for c in classes]
        return [f"{f.name}_{i}" for i in range(n)]

    def _started(self, schema: Any) -> Any:
        if self.output.suffix.lower() == ".csv":
            from pyarrow import csv as arrow_csv

            return arrow_csv.CSVWriter(self._answers, schema)
        import pyarrow.parquet as pq

        return pq.ParquetWriter(self._answers, schema, compression="zstd")

    def commit(self, where: str) -> None:
        """Give both files their names; refusals of an earlier call go."""
        if not self.rows:
            most = "; ".join(f"{n} × {reason}" for reason, n in self._reasons.most_common(3)) or "it has no records"
            raise DataError(f"{where}: not one record can be answered: {most}")
        self._writer.close()
        self._file.close()
        for path in (self._told, self._answers):
            with open(path, "rb") as f:
                os.fsync(f.fileno())
        if self.refused:
            os.replace(self._told, self.refusals)
        else:
            self.refusals.unlink(missing_ok=True)
        os.replace(self._answers, self.output)
        fsync_dir(self.output.parent)

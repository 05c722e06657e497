"""score: answer every record of a file with a bundle: ``groundup score BUNDLE DATA --output FILE``.

Records are read as training reads them (``groundup.data``) and answered by the server's own engine, piece by piece, so
that memory does not grow with the file.  A record that does not fit is left out and told, with its row and the reason,
in a file beside the output; both files appear whole or not at all.
"""

from __future__ import annotations

import csv
import os
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from groundup.bundle import Bundle, Field
from groundup.bundle.files import explaining_storage, fsync_dir
from groundup.data.records import Piece, pieces
from groundup.data.settings import Data
from groundup.data.sources import find
from groundup.data.sources.base import BadRow
from groundup.errors import DataError, MissingExtraError
from groundup.progress import Progress, Silent, Task
from groundup.serving.engine import Engine
from groundup.serving.refusal import InferenceError

Arrays = dict[str, NDArray[Any]]
_BATCH = 4096  # table rows answered at once


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
    if output.is_dir():
        raise DataError(f"{output} is a folder; expected a file to write")
    opened = Bundle.open(bundle)
    engine = Engine(opened, threads or len(os.sched_getaffinity(0)))
    try:
        source = find(Data.model_validate({"source": data, "format": format}), Path.cwd())
    except ValidationError as e:
        raise DataError(f"--format {format}: {e.errors()[0]['msg'].replace('Input should be', 'expected')}") from e
    refusals = output.with_suffix(".refused.csv")
    watch = progress or Silent()
    with (
        tempfile.TemporaryDirectory(prefix="groundup-score-") as work,
        explaining_storage(output),
        _Written(output, refusals, opened.signature.outputs) as files,
    ):
        try:
            with watch.task("score", None, "records") as task:
                for piece in pieces(source, opened.signature.inputs, Path(work), watch):
                    _answer(engine, piece, files, task)
        except ImportError as e:
            raise MissingExtraError(e.name or "pyarrow", "train", "scoring a file") from e
        files.commit(data)
    return Scored(files.rows, files.refused, refusals if files.refused else None)


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
        self.output.parent.mkdir(parents=True, exist_ok=True)
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

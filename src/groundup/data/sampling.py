"""A quick look at a source before a run: its first rows, and what can be told to be wrong from them."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from groundup.data import reading
from groundup.data import schema as schemas
from groundup.data.divide import unused
from groundup.data.enforce import Enforcer
from groundup.data.infer import infer, unsettled
from groundup.data.job import schema_path
from groundup.data.settings import Data
from groundup.data.sources import find
from groundup.data.sources.base import ArraySource, TableSource
from groundup.data.table import check_names
from groundup.errors import DataError

if TYPE_CHECKING:
    import pandas as pd


@dataclass
class Sample:
    """The first rows of a source.

    Attributes:
        rows: how many were looked at.
        frame: them as a table; None for images and tensors.
        schema: declared in the schema file, or inferred from these rows.
        feature_shape: of the raw samples of images and tensors.
        classes: classes seen, for classification.
        problems: rows that would be put aside, in words.
    """

    rows: int
    frame: pd.DataFrame | None = None
    schema: schemas.Schema | None = None
    feature_shape: tuple[int, ...] | None = None
    classes: list[str] | None = None
    problems: list[str] = field(default_factory=list)


def sample(section: Data, root: Path, task: str, n: int = 1000) -> Sample:
    """Read the first ``n`` rows and hold them to the schema file, or to what they suggest.  Nothing is written.

    Raises:
        DataError: the source is missing, unreadable or empty, or the recipe names columns that it lacks.
    """
    source = find(section, root)
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        if isinstance(source, TableSource):
            return _table(section, root, task, source, work, n)
        assert isinstance(source, ArraySource)
        data = source.load(work, n)
        problems = [f"{bad.column}: {bad.reason}" for bad in data.bad]
        classes = sorted({str(v) for v in data.y.tolist()}) if task.endswith("classification") else None
        return Sample(len(data.x), feature_shape=tuple(data.x.shape[1:]), classes=classes, problems=problems)


def _table(section: Data, root: Path, task: str, source: TableSource, work: Path, n: int) -> Sample:
    target = section.target or source.target
    if target is None:
        raise DataError(f"{source.where}: which column is to be predicted? give data.target")
    classification = task.endswith("classification")
    path = schema_path(section, root)
    declared = schemas.read(path).schema if path.exists() else None
    con = reading.connect(work)
    try:
        kinds: dict[str, schemas.Kind] | None = {name: c.kind for name, c in declared.columns.items()} if declared else None
        forced: dict[str, schemas.Kind] = {target: "category"} if classification else {}
        formats = declared.formats() if declared else None
        spill = reading.spill(source, con, work / "sample.parquet", kinds=kinds, forced=forced, limit=n, formats=formats)
        check_names(section, target, spill.present, source.where)
        if declared is not None:
            schemas.check_columns(declared, list(spill.kinds), source.where, path)
            schema = declared
        else:
            keys = {k for k in (section.group, section.time) if k}
            dropped = unused(section, list(spill.kinds), target)
            schema, _ = infer(con, spill, source.where, target=target, classification=classification, dropped=dropped, keys=keys)
            unsettled(spill, schema, source.where, schemas.draft_of(path).name, path.name)
        enforcer = Enforcer(
            schema, spill, {k for k in (target, section.group, section.time) if k}, unused(section, list(schema.columns), target)
        )
        problems, frames, start = [], [], 0
        for piece in reading.pieces(spill.path):
            problems += [f"row {bad.row}, column {bad.column!r}: {bad.reason}" for bad in enforcer.check(piece, start)]
            frames.append(piece.select(list(spill.kinds)).to_pandas())
            start += piece.num_rows
    finally:
        con.close()
    import pandas as pd

    return Sample(spill.n_rows, pd.concat(frames, ignore_index=True), schema, None, schema.columns[target].categories, problems)

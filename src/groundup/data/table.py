"""From a table to prepared files: read, hold to the schema, divide, look for leaks, fit, transform, write.

Two passes over a spilled Parquet file: columns one at a time to fit, then pieces of at most 100,000 rows to write.
Whole-length arrays are few and narrow: target, split, row number and row hash.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from groundup.bundle.files import explaining_storage
from groundup.data import reading
from groundup.data import schema as schemas
from groundup.data.divide import divide, unused
from groundup.data.enforce import quarantine
from groundup.data.finish import finish
from groundup.data.infer import infer, unsettled
from groundup.data.job import Job
from groundup.data.schema import Schema
from groundup.data.settings import SPLITS, Data
from groundup.data.sources.base import TableSource, text
from groundup.data.write import fit, look_for_giveaways, write
from groundup.errors import DataError


def prepare_table(job: Job, source: TableSource, clean: Callable[[Any], Any] | None = None) -> dict[str, Any]:
    """Prepare ``source`` into ``job.out``; returns the facts of the stage's output."""
    con, inferred = reading.connect(job.work), not job.schema_path.exists()
    try:
        spill, schema, target = _read(job, source, con, clean)
        plan = divide(job, con, spill, schema, target, source.where)
    finally:
        con.close()  # with it goes the memory that DuckDB holds
    transform = fit(job, plan)
    look_for_giveaways(job, plan)
    with explaining_storage(job.out):
        profile = write(job, plan, transform)
    facts = finish(job, plan.fields, transform, profile, {name: int((plan.split == i).sum()) for i, name in enumerate(SPLITS)})
    quarantine(job.out / "quarantine.parquet", plan.bad)
    if inferred:
        schemas.accept(job.schema_path)
    return facts | {
        "target": target,
        "classes": plan.classes,
        "quarantined": len({b.row for b in plan.bad}),
    }


def _read(job: Job, source: TableSource, con: Any, clean: Callable[[Any], Any] | None) -> tuple[reading.Spill, Schema, str]:
    section, path = job.section, job.schema_path
    target = section.target or source.target
    if target is None:
        raise DataError(f"{source.where}: which column is to be predicted? give data.target")
    if source.task is not None and source.task != job.task and section.target is None:
        raise DataError(f"{source.where} is made for {source.task}, and the recipe's task is {job.task}; change one of them")
    forced: dict[str, schemas.Kind] = {target: "category"} if job.classification else {}
    with job.progress.task("read", None, "rows") as task:
        if clean is not None:
            source = _cleaned(job, source, con, clean, forced)
        declared = _declared(path, section, source.where)
        kinds: dict[str, schemas.Kind] | None = {n: c.kind for n, c in declared.columns.items()} if declared else None
        formats = declared.formats() if declared else None
        spill = reading.spill(source, con, job.work / "spill.parquet", kinds=kinds, forced=forced, limit=section.limit, formats=formats)
        task.advance(spill.n_rows)
    if source.comma:
        job.note('numbers are read with a comma before the fraction (12,5); if they are not meant so, set data.decimal: "."')
    check_names(section, target, spill.present, source.where)
    if declared is not None:
        for name in schemas.check_columns(declared, spill.present, source.where, path):
            job.note(f"column {name!r} is new since {path.name} was made and was not read; add it there to use it")
        return spill, declared, target
    keys = {k for k in (section.group, section.time) if k}
    inferred, remarks = infer(
        con,
        spill,
        source.where,
        target=target,
        classification=job.classification,
        dropped=unused(section, list(spill.kinds), target),
        keys=keys,
    )
    for name, why in spill.ignored.items():
        job.note(f"column {name!r} was not read: it {why}")
    schemas.write(schemas.draft_of(path), inferred, source.identity() if clean is None else "", remarks)
    unsettled(spill, inferred, source.where, schemas.draft_of(path).name, path.name)
    for name, why in remarks.items():
        if name in inferred.columns and name not in section.drop:
            job.note(f"column {name!r} is no feature: {why}")
    return spill, inferred, target


def _declared(path: Path, section: Data, where: str) -> Schema | None:
    if not path.exists():
        if section.schema_ is not None and not path.parent.exists():
            raise DataError(f"no folder {path.parent} for data.schema; make it first")
        return None
    declared = schemas.read(path).schema
    if declared.source != where:
        raise DataError(
            f"{path} was made for {declared.source}, not for {where}; give this recipe its own with data.schema, or delete the file"
        )
    return declared


def check_names(section: Data, target: str, present: list[str], where: str) -> None:
    """Whether every column that the recipe names exists."""
    asked = [("target", target), ("group", section.group), ("time", section.time)]
    asked += [("drop", name) for name in section.drop] + [("features", name) for name in section.features or []]
    for key, name in asked:
        if name is not None and name not in present:
            near = difflib.get_close_matches(name, present, 1)
            advice = f"did you mean {near[0]!r}?" if near else f"it has {', '.join(present[:20])}"
            raise DataError(f"data.{key}: {where} has no column {name!r}; {advice}")
    if section.features and target in section.features:
        raise DataError(f"data.features: {target!r} is the target, and a model that sees its target learns nothing else")


class _Parquet(TableSource):
    """Cleaned pieces as a source."""

    def __init__(self, where: str, files: list[Path]) -> None:
        self.where, self.files = where, files

    def identity(self) -> str:
        return ""

    def relation(self, con: Any, types: Any = None, *, forgiving: bool = False) -> str:
        return f"read_parquet([{', '.join(text(str(f)) for f in self.files)}], union_by_name=true)"


def _cleaned(job: Job, source: TableSource, con: Any, clean: Callable[[Any], Any], forced: dict[str, schemas.Kind]) -> TableSource:
    """The source after the user's function, applied to pieces of at most 100,000 rows."""
    import pandas as pd
    import pyarrow as pa
    import pyarrow.parquet as pq

    first = reading.spill(source, con, job.work / "uncleaned.parquet", kinds=None, forced=forced, limit=job.section.limit)
    files: list[Path] = []
    start = 0
    for piece in reading.pieces(first.path, list(first.kinds)):
        job.check()
        frame = piece.to_pandas()
        frame.index = pd.RangeIndex(start, start + len(frame))
        start += len(frame)
        result = clean(frame)
        if not isinstance(result, pd.DataFrame):
            raise DataError(f"the clean function returns a DataFrame, got {type(result).__name__}; return the frame it was given, changed")
        if not result.index.isin(range(start - piece.num_rows, start)).all():
            raise DataError(
                "the clean function keeps the frame's index, by which rows are found again; leave out reset_index and concat of new rows"
            )
        table = pa.Table.from_pandas(result, preserve_index=False).append_column(reading.ROW, pa.array(result.index, pa.int64()))
        files.append(job.work / f"clean-{len(files)}.parquet")
        pq.write_table(table, files[-1])
    first.path.unlink()
    return _Parquet(source.where, files)

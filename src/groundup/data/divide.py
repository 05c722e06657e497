"""Dividing a spilled table: rows that do not fit its schema are put aside, the others go to training, validation and test."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from groundup.bundle.signature import Field
from groundup.data import leaks, reading, splits
from groundup.data import schema as schemas
from groundup.data.columns import tensor
from groundup.data.enforce import Enforcer, too_many
from groundup.data.job import Job
from groundup.data.schema import Schema
from groundup.data.settings import SPLITS, Data
from groundup.data.sources.base import BadRow, quoted, text
from groundup.errors import DataError


@dataclass
class Plan:
    """A spilled, checked, divided table.

    Attributes:
        fields: the model's inputs, limits and categories as in the training rows.
        y: class index int64 (N,) or value float64 (N,); whatever where ``split`` is -1.
        split: int8 (N,), -1 for rows in quarantine.
        rows: int64 (N,) row in the source.
    """

    spill: reading.Spill
    schema: Schema
    target: str
    fields: list[Field]
    classes: list[str] | None
    y: NDArray[Any]
    split: NDArray[np.int8]
    rows: NDArray[np.int64]
    bad: list[BadRow]


def unused(section: Data, present: list[str], target: str) -> set[str]:
    """The columns that the recipe does not predict from."""
    unused = set(section.drop) | ({section.group} if section.group else set())
    if section.features is not None:
        unused |= set(present) - set(section.features)
    return unused - {target}


def divide(job: Job, con: Any, spill: reading.Spill, schema: Schema, target: str, where: str) -> Plan:
    section = job.section
    fields = _fields(job, schema, target)
    n = spill.n_rows
    rows = source_rows(spill)
    required = {k for k in (target, section.group, section.time) if k}
    enforcer = Enforcer(schema, spill, required, unused(section, list(schema.columns), target))
    classes = schema.columns[target].categories if job.classification else None
    if job.classification and not classes:
        raise DataError(f"{job.schema_path}: {target!r} is the target of a classification; list its classes under categories")
    y = np.zeros(n, np.int64 if job.classification else np.float64)
    bad, start = [], 0
    always = [target, *([reading.UNREAD] if reading.UNREAD in _names_of(spill.path) else [])]
    with job.progress.task("check", n, "rows") as task:
        for piece in reading.pieces(spill.path, lambda told: list(dict.fromkeys([*always, *enforcer.to_read(told)]))):
            job.check()
            bad += enforcer.check(piece, start)
            y[start : start + piece.num_rows] = _target(piece.column(target), classes)
            start += piece.num_rows
            task.advance(piece.num_rows)
    bad += enforcer.repeated(con)
    wrong = np.zeros(n, bool)
    wrong[[b.row for b in bad]] = True
    bad = [BadRow(int(rows[b.row]), b.column, b.reason) for b in bad] + spill.structural
    n_bad = int(wrong.sum()) + len(spill.structural)
    too_many(bad, n_bad, n + len(spill.structural), section.max_bad_rows, where)
    if n_bad:
        job.note(f"{n_bad} of {n + len(spill.structural)} rows put aside, see quarantine.parquet")
    good = np.flatnonzero(~wrong)
    split = np.full(n, -1, np.int8)
    split[good] = _split(job, spill, y[good], good)
    if job.classification:
        _classes_present(y[good], classes or [], target, where)
    if section.leaks != "ignore":
        split = _repeats(job, con, spill, fields, split, rows, y)
    if empty := [name for i, name in enumerate(SPLITS) if not (split == i).any()]:
        raise DataError(f"{len(good)} usable rows of {where} leave none for {' and '.join(empty)}; expected a few dozen at least")
    job.notes += leaks.unordered(_method(job), [f.name for f in fields if f.kind == "datetime"])
    return Plan(spill, schema, target, fields, classes, y, split, rows, bad)


def _names_of(path: Path) -> list[str]:
    import pyarrow.parquet as pq

    return list(pq.read_schema(path).names)


def _fields(job: Job, schema: Schema, target: str) -> list[Field]:
    """The inputs: asked for, or all of use."""
    section = job.section
    hidden = unused(section, list(schema.columns), target) | {target}
    chosen = section.features if section.features is not None else [n for n, c in schema.columns.items() if c.feature and n not in hidden]
    fields = []
    for name in chosen:
        column = schema.columns[name]
        if column.kind == "text":
            if section.features is None:
                continue
            raise DataError(
                f"data.features: {name!r} holds free text, which no transform here reads; "
                "declare it a category in the schema file, or leave it out"
            )
        categories = tuple(column.categories) if column.categories is not None else None
        fields.append(Field(name, column.kind, nullable=column.nullable, categories=categories))
    if not fields:
        path = job.schema_path
        told = f"{path.name} says why of each: correct the data, or edit it"
        if not path.exists():
            told = f"{schemas.draft_of(path).name} says why of each: correct the data, or edit it and name it {path.name}"
        raise DataError(f"no column is left to predict from; {told}")
    return fields


def source_rows(spill: reading.Spill) -> NDArray[np.int64]:
    """Row in the source of each spilled row: told by the cleaning, or counted, lines that were no rows counted too."""
    if reading.ROW in _names_of(spill.path):
        return np.asarray(tensor(reading.column(spill.path, reading.ROW), "number"), np.int64)
    if not spill.structural:
        return np.arange(spill.n_rows)
    lost = np.array(sorted(b.row for b in spill.structural))
    return np.setdiff1d(np.arange(spill.n_rows + len(lost)), lost)[: spill.n_rows]


def _target(values: Any, classes: list[str] | None) -> NDArray[Any]:
    import pyarrow as pa
    import pyarrow.compute as pc

    if classes is None:
        return np.asarray(np.nan_to_num(tensor(values, "number")))
    index = pc.index_in(values.cast(pa.string()), pa.array(classes, pa.string()))
    return np.asarray(pc.fill_null(index, 0).to_numpy(), np.int64)


def _method(job: Job) -> str:
    section = job.section
    if section.split.method != "auto":
        return section.split.method
    return "group" if section.group else "time" if section.time else "stratified" if job.classification else "random"


def _split(job: Job, spill: reading.Spill, y: NDArray[Any], good: NDArray[np.int64]) -> NDArray[np.int8]:
    section, method = job.section, _method(job)
    shares = section.split.validation, section.split.test
    if method == "group":
        column = reading.column(spill.path, section.group or "").take(good).combine_chunks().dictionary_encode()
        return splits.grouped(
            column.combine_chunks().indices.to_numpy() if hasattr(column, "combine_chunks") else column.indices.to_numpy(),
            *shares,
            job.seed,
        )
    if method == "time":
        if spill.kinds[section.time or ""] != "datetime":
            raise DataError(f"data.time: {section.time!r} holds {spill.kinds[section.time or '']} values, not dates")
        return splits.ordered(tensor(reading.column(spill.path, section.time or ""), "datetime")[good], *shares)
    if method == "stratified":
        if not job.classification:
            raise DataError("split method 'stratified' keeps class shares, and a regression has no classes; use random")
        return splits.stratified(y, *shares, job.seed)
    return splits.random(len(y), *shares, job.seed)


def _classes_present(y: NDArray[Any], classes: list[str], target: str, where: str) -> None:
    present = np.flatnonzero(np.bincount(y, minlength=len(classes)))
    if len(present) < 2:
        raise DataError(
            f"all usable rows of {where} have {target} = {classes[int(present[0])]!r}; a classification needs at least two classes"
        )


def _repeats(
    job: Job, con: Any, spill: reading.Spill, fields: list[Field], split: NDArray[np.int8], rows: NDArray[np.int64], y: NDArray[Any]
) -> NDArray[np.int8]:
    names = ", ".join(quoted(f.name) for f in fields)
    query = f"SELECT hash({names}) AS h FROM read_parquet({text(str(spill.path))})"
    hashes = con.execute(query).fetchnumpy()["h"]
    split, notes, complaints = leaks.settle_repeated(
        split, hashes, rows, y, movable=_method(job) in ("random", "stratified"), by_chance=not any(f.kind == "number" for f in fields)
    )
    for note in notes:
        job.note(note)
    job.complain(complaints)
    return split

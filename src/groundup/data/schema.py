"""The schema: what each column is and may hold.  Inferred once, written beside the recipe as YAML, edited by hand, enforced from then on.

columns:
  age: {kind: number, nullable: true, min: 0, max: 120}
  embarked: {kind: category, nullable: true, categories: [C, Q, S]}
  ticket: {kind: text, feature: false}  # 681 different values in 891 rows
"""

from __future__ import annotations

import datetime as dt
import difflib
import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import ValidationError, model_validator

from groundup.bundle.files import explaining_storage, fsync_dir, write_bytes
from groundup.data import dates
from groundup.errors import SchemaError, StorageError
from groundup.sections import Section

Kind = Literal["number", "integer", "boolean", "category", "datetime", "text"]
FEATURE_KINDS = ("number", "integer", "boolean", "category", "datetime")


class Column(Section):
    """One column's line."""

    kind: Kind
    """text is kept for people to read and never predicted from."""
    nullable: bool = False
    format: str | None = None
    """How dates stand in text (kind datetime), such as "%d/%m/%Y"; ISO 8601 where it is not given."""
    min: float | dt.datetime | dt.date | None = None
    max: float | dt.datetime | dt.date | None = None
    categories: list[str] | None = None
    """The only values allowed (kind category)."""
    unique: bool = False
    """No value stands twice."""
    feature: bool = True
    """Whether the model may see it."""

    @model_validator(mode="after")
    def _fits_kind(self) -> Column:
        ranged = self.kind in ("number", "integer", "datetime")
        if not ranged and (self.min is not None or self.max is not None):
            raise ValueError(f"min and max do not apply to kind {self.kind}")
        for limit in (self.min, self.max):
            if limit is not None and isinstance(limit, dt.date) != (self.kind == "datetime"):
                raise ValueError(f"{limit!r} is no limit for kind {self.kind}")
        if self.format is not None:
            if self.kind != "datetime":
                raise ValueError(f"format does not apply to kind {self.kind}")
            dates.check(self.format)
        if self.categories is not None and self.kind != "category":
            raise ValueError(f"categories do not apply to kind {self.kind}")
        return self

    def limits(self) -> tuple[float | None, float | None]:
        """min and max as numbers; dates as microseconds since 1970-01-01 UTC."""
        return as_number(self.min), as_number(self.max)


class Schema(Section):
    """Every column of a source."""

    source: str
    """What the schema was made for."""
    columns: dict[str, Column]

    def formats(self) -> dict[str, str]:
        """Datetime column -> how its dates stand in text, where that is not ISO 8601."""
        return {name: column.format for name, column in self.columns.items() if column.format is not None}


@dataclass
class Written:
    """A schema file: its contents, and whether it still says what was inferred.

    Attributes:
        inferred_from: identity of the data that it was inferred from; "" where the file does not tell.
        edited: whether somebody changed it since.
        digest: hash of its meaning, whatever its layout.
    """

    schema: Schema
    inferred_from: str
    edited: bool
    digest: str


_HEAD = """\
# What each column is and may hold.  Made by looking at the data once; yours to edit; every later run is held to it.
# kind: number, integer, boolean, category, datetime or text (kept, not predicted from).
# Dates are ISO 8601 (2024-12-31), or as `format` says: {kind: datetime, format: "%d/%m/%Y"} for 31/12/2024.
# Limits are what was seen, widened by half of its range; tighten or remove them.  `feature: false` hides a column from the model.
# To start again, delete this file.
"""


def draft_of(path: Path) -> Path:
    """Where a schema stands until the data that it was inferred from has passed: what is wrong there may be the data."""
    return path.with_name(f"{path.name}.draft")


def accept(path: Path) -> None:
    """Make the draft the schema that holds from now on."""
    with explaining_storage(path):
        os.replace(draft_of(path), path)
        fsync_dir(path.parent)


def write(path: Path, schema: Schema, identity: str, remarks: dict[str, str]) -> None:
    """Write ``schema`` readably.

    Args:
        identity: of the data that it was inferred from.
        remarks: column -> why it is no feature, shown beside it.
    """
    lines = [_HEAD.rstrip(), f"source: {_scalar(schema.source)}", "columns:"]
    for name, column in schema.columns.items():
        told = column.model_dump(exclude_defaults=True)
        if column.kind == "integer":
            told |= {key: int(told[key]) for key in ("min", "max") if key in told and float(told[key]).is_integer()}
        inside = ", ".join(f"{key}: {_inline(value)}" for key, value in told.items())
        remark = f"  # {' '.join(remarks[name].split())}" if name in remarks else ""
        lines.append(f"  {_scalar(name)}: {{{inside}}}{remark}")
    lines.append(f"# inferred: {identity} {_digest(schema)}")
    try:
        write_bytes(path, ("\n".join(lines) + "\n").encode())
    except StorageError as e:
        raise StorageError(f"{e}; for the schema alone: data.schema") from e


def read(path: Path) -> Written:
    """Read a schema file.

    Raises:
        SchemaError: not YAML, or not a schema; the message names the line or the key.
    """
    try:
        content = path.read_text(encoding="utf-8")
        data = yaml.safe_load(content)
    except (yaml.YAMLError, UnicodeDecodeError) as e:
        raise SchemaError(f"{path}: not readable as YAML: {' '.join(str(e).split())}") from e
    try:
        schema = Schema.model_validate(data)
    except ValidationError as e:
        raise SchemaError(f"{path}: {_explain(e)}") from e
    last = content.rstrip().rsplit("\n", 1)[-1].split()
    told = last[2:] if last[:2] == ["#", "inferred:"] and len(last) == 4 else ["", ""]
    digest = _digest(schema)
    return Written(schema, told[0], digest != told[1], digest)


def _explain(e: ValidationError) -> str:
    first = min(e.errors(), key=lambda error: error["type"] != "extra_forbidden")  # a misspelt key also lacks the right one
    place = ".".join(str(part) for part in first["loc"]) or "the file"
    if first["type"] == "extra_forbidden":
        known = list(Column.model_fields if len(first["loc"]) > 2 else Schema.model_fields)
        near = difflib.get_close_matches(str(first["loc"][-1]), known, 1)
        return f"unknown key {place}" + (f"; did you mean {near[0]!r}?" if near else f"; known are {', '.join(known)}")
    got = "" if first["type"] == "missing" else f" (got {first['input']!r:.80})"
    return f"{place}: {first['msg']}{got}"


def _digest(schema: Schema) -> str:
    return hashlib.sha256(schema.model_dump_json(exclude_defaults=True).encode()).hexdigest()[:16]


def _scalar(value: str) -> str:
    """A string as one YAML word, quoted where YAML would read something else."""
    return _inline(value)


def _inline(value: Any) -> str:
    if isinstance(value, dt.datetime | dt.date):
        return value.isoformat()
    if isinstance(value, str) and not value.isprintable():  # on one line, whatever it holds
        return json.dumps(value)
    return str(yaml.safe_dump([value], default_flow_style=True, allow_unicode=True, width=float("inf"))).strip()[1:-1]


def as_number(value: Any) -> Any:
    """A number as it is; a date as microseconds since 1970-01-01 UTC; None as None."""
    if not isinstance(value, dt.date):
        return value
    moment = value if isinstance(value, dt.datetime) else dt.datetime(value.year, value.month, value.day)
    moment = moment.replace(tzinfo=dt.UTC) if moment.tzinfo is None else moment
    return (moment - dt.datetime(1970, 1, 1, tzinfo=dt.UTC)) // dt.timedelta(microseconds=1)


def check_columns(schema: Schema, present: list[str], where: str, path: Path) -> list[str]:
    """Columns of the source that the schema does not know.

    Raises:
        SchemaError: the source lacks a column that the schema has.
    """
    new = [name for name in present if name not in schema.columns]
    if missing := [name for name in schema.columns if name not in present]:
        near = f" (it has the new {', '.join(map(repr, new))})" if new else ""
        raise SchemaError(
            f"{where} lacks {', '.join(map(repr, missing))}{near}, which {path.name} lists; "
            "correct the data, or the file, or delete the file to have it made again"
        )
    return new

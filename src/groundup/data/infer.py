"""Inferring a schema from a spilled table: one scan of counts, limits and categories."""

from __future__ import annotations

import math
from typing import Any

from groundup.data.reading import Spill
from groundup.data.schema import Column, Kind, Schema
from groundup.data.sources.base import quoted, text
from groundup.errors import DataError

MAX_CATEGORIES = 1000  # more different texts are no category
FEW = 50  # different texts are always a category
SHARE_DIFFERENT = 0.5  # of the known values: more different ones are names, not categories
MAX_CLASSES = 1000
_DRESSED = r"[^\p{L}\d]*\d+([., ']\d{3})*([.,]\d+)?[^\p{L}\d]*"
EXACT = 2**53  # beyond it float64 skips integers


def infer(
    con: Any, spill: Spill, where: str, *, target: str | None, classification: bool, dropped: set[str], keys: set[str]
) -> tuple[Schema, dict[str, str]]:
    """A schema that the spilled data keeps, and column -> what is to be said beside it, such as why it is no feature.

    Args:
        dropped: columns that the recipe does not predict from: large integers in them are no fault.
        keys: group and time columns, kept whatever they hold.

    Raises:
        DataError: integers that float64 cannot hold; a target that is no target.
    """
    if not spill.kinds:
        raise DataError(f"{where} has no columns that can be read")
    columns: dict[str, Column] = {}
    remarks: dict[str, str] = dict(spill.ignored)
    for name, (known, low, high, different) in _scan(con, spill).items():
        kind = spill.kinds[name]
        nullable = known < spill.n_rows
        if name == target:
            columns[name] = _target(con, spill, name, kind, classification, different, where)
        elif known == 0:
            columns[name], remarks[name] = Column(kind="text", nullable=True, feature=False), "never known"
        elif different == 1 and not nullable and name not in keys:
            columns[name], remarks[name] = Column(kind=kind, nullable=True, feature=False), f"always {str(low)[:40]}"
        elif name in spill.dates and spill.dates[name].problem and name not in dropped:
            told = spill.dates[name]
            columns[name] = Column(kind="datetime", nullable=nullable, format=told.format)
            remarks[name] = f"or {told.rival}: choose one" if told.rival else told.problem
        elif kind in ("category", "text"):
            columns[name], remark = _category(con, spill, name, known, different, nullable, name in keys)
            if remark:
                remarks[name] = remark
        elif kind == "integer":
            if max(abs(low), abs(high)) > EXACT and name not in dropped:
                raise DataError(
                    f"column {name!r} of {where} holds integers beyond 2^53 "
                    f"(such as {max(high, -low)}), which a float64 cannot tell apart; "
                    f"if it is an identifier, put it under data.drop, else cast it to text in the data to make it a category"
                )
            if _counts_rows(con, spill, name, known, low, high) and name not in keys:
                columns[name], remarks[name] = Column(kind="integer", unique=True, feature=False), "numbers the rows"
            else:
                columns[name] = Column(kind="integer", nullable=nullable, **_widened(low, high, whole=True))
        elif kind == "number":
            columns[name] = Column(kind="number", nullable=nullable, **_widened(low, high, whole=False))
        else:
            format = spill.dates[name].format if name in spill.dates else None
            columns[name] = Column(kind=kind, nullable=nullable, format=format)
    return Schema(source=where, columns=columns), remarks


def unsettled(spill: Spill, schema: Schema, where: str, draft: str, name: str) -> None:
    """Stop where a person has to say how dates are written.

    Args:
        draft, name: what the written schema is called, and what it is to be called.

    Raises:
        DataError: with the columns, the places and the ways to go on.
    """
    complaints = [
        f"column {c!r} of {where} holds {told.problem}; "
        + (f'write "{told.format}" or "{told.rival}" as its format in {draft}' if told.rival else "write all in one way")
        for c, told in spill.dates.items()
        if told.problem and schema.columns[c].kind == "datetime"
    ]
    if complaints:
        told = f"{draft} holds what was inferred; named {name}, it holds from then on.  Dates written as 2024-12-31 need no format"
        raise DataError("\n".join([*complaints, f"{told}, and data.drop leaves a column out."]))


def _scan(con: Any, spill: Spill) -> dict[str, tuple[int, Any, Any, int]]:
    """Column -> (known values, least, greatest, about how many different), infinities left out of the limits.

    Different values are counted for text alone; of other kinds only "one" and "several" is told apart.
    """
    wanted = []
    for name, kind in spill.kinds.items():
        c = quoted(name)
        finite = f"FILTER (isfinite({c}))" if kind == "number" else ""
        different = f"approx_count_distinct({c})" if kind in ("category", "text") else f"if(min({c}) = max({c}), 1, 2)"
        wanted += [f"count({c})", f"min({c}) {finite}", f"max({c}) {finite}", different]
    row = con.execute(f"SELECT {', '.join(wanted)} FROM {_from(spill)}").fetchone()
    return {name: tuple(row[4 * i : 4 * i + 4]) for i, name in enumerate(spill.kinds)}


def _from(spill: Spill) -> str:
    return f"read_parquet({text(str(spill.path))})"


def values(con: Any, spill: Spill, name: str, most: int) -> list[str]:
    """The different known values of a text column, sorted; at most ``most`` + 1 of them."""
    c = quoted(name)
    rows = con.execute(f"SELECT DISTINCT {c} FROM {_from(spill)} WHERE {c} IS NOT NULL ORDER BY 1 LIMIT {most + 1}").fetchall()
    return [value for (value,) in rows]


def _category(con: Any, spill: Spill, name: str, known: int, different: int, nullable: bool, key: bool) -> tuple[Column, str]:
    if different <= 2 * MAX_CATEGORIES and not key:  # the count is approximate
        found = values(con, spill, name, MAX_CATEGORIES)
        if len(found) <= MAX_CATEGORIES and (len(found) <= FEW or len(found) <= SHARE_DIFFERENT * known):
            return Column(kind="category", nullable=nullable, categories=found), ""
        different = max(len(found), different) if len(found) > MAX_CATEGORIES else len(found)
    if key:
        return Column(kind="text", nullable=nullable, feature=False), "keeps rows together"
    if example := _dressed(con, spill, name, known):
        told = f"numbers that are not plain, such as {example!r}; write them plainly, or turn them with a cleaning step"
        return Column(kind="text", nullable=True, feature=False), told + ' (data.decimal: "," reads 12,5)' * (
            "," in example and "." not in example
        )
    return Column(kind="text", nullable=True, feature=False), f"about {different} different texts in {known}: a name or free text"


def _dressed(con: Any, spill: Spill, name: str, known: int) -> str:
    """One of the texts where nine in ten are numbers with signs about them (1,234.50, € 3, 12 %), else nothing."""
    c = quoted(name)
    query = f"SELECT count(*), min({c}) FROM {_from(spill)} WHERE regexp_full_match({c}, {text(_DRESSED)})"
    count, example = con.execute(query).fetchone()
    return str(example) if count >= 0.9 * known else ""


def _target(con: Any, spill: Spill, name: str, kind: Kind, classification: bool, different: int, where: str) -> Column:
    if not classification:
        if kind not in ("number", "integer"):
            raise DataError(
                f"column {name!r} of {where} holds {kind} values, and a regression predicts numbers; is the task a classification?"
            )
        return Column(kind=kind)
    if different > 2 * MAX_CLASSES:
        raise DataError(
            f"column {name!r} of {where} has about {different} different values; "
            f"a classification takes at most {MAX_CLASSES} (is the task a regression?)"
        )
    found = values(con, spill, name, MAX_CLASSES)
    if len(found) < 2:
        only = f"only {found[0]!r}" if found else "no value at all"
        raise DataError(f"column {name!r} of {where} holds {only}; a classification needs at least two classes")
    if len(found) > MAX_CLASSES:
        raise DataError(f"column {name!r} of {where} has more than {MAX_CLASSES} different values; is the task a regression?")
    return Column(kind="category", categories=ordered(found))


def ordered(classes: list[str]) -> list[str]:
    """Class names in the order people expect: as numbers where all are numbers, else as text."""
    try:
        return sorted(classes, key=float)
    except ValueError:
        return sorted(classes)


def _counts_rows(con: Any, spill: Spill, name: str, known: int, low: int, high: int) -> bool:
    if known != spill.n_rows or known < 20 or high - low + 1 != known:
        return False
    c = quoted(name)
    return bool(con.execute(f"SELECT count(DISTINCT {c}) = {known} FROM {_from(spill)}").fetchone()[0])


def _widened(low: float | None, high: float | None, *, whole: bool) -> dict[str, Any]:
    """Limits half a range beyond what was seen, never below zero where nothing was; three digits."""
    if low is None or high is None:
        return {}
    reach = (high - low) / 2 or abs(high) or 1.0
    if not math.isfinite(reach):
        return {}
    least = 0.0 if 0 <= low <= reach else _outward(low - reach, math.floor)
    most = 0.0 if -reach <= high <= 0 else _outward(high + reach, math.ceil)
    if whole:
        least, most = math.floor(least), math.ceil(most)
    return {"min": least, "max": most}


def _outward(value: float, rounding: Any) -> float:
    if value == 0 or not math.isfinite(value):
        return value
    digits = 2 - math.floor(math.log10(abs(value)))
    if not -300 < digits < 300:
        return value
    return float(rounding(value * 10.0**digits) / 10.0**digits) if digits >= 0 else float(rounding(value / 10.0**-digits) * 10.0**-digits)

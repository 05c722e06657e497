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
EXACT = 2**53  # beyond it float64 skips integers


def infer(
    con: Any, spill: Spill, where: str, *, target: str | None, classification: bool, dropped: set[str], keys: set[str]
) -> tuple[Schema, dict[str, str]]:
    """A schema that the spilled data keeps, and column -> why it is no feature.

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
            columns[name] = Column(kind=kind, nullable=nullable)
    return Schema(source=where, columns=columns), remarks


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
    return Column(kind="text", nullable=True, feature=False), f"about {different} different texts in {known}: a name or free text"


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

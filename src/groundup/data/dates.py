"""Dates in text: ISO 8601, or a format that is stated in the schema or told by the values themselves; never guessed.

``2024-12-31``, ``2024/12/31 10:00`` and ``2024-12-31T10:00:00+02:00`` mean the same to everybody; without an offset they are UTC, as
they are for the server.  Of ``31/12/2024``, ``12/31/24 1:05 PM``, ``31 Dec 2024`` and their like the order is found by trying all:
one must read nearly every value, and where the day might as well be the month (03/04/2024 throughout), or values contradict
each other, a person has to say.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable
from typing import Any, NamedTuple

from groundup.data.sources.base import quoted, text

_DAYS = [
    *(order.replace("-", s) for s in "/.-" for order in ("%d-%m-%Y", "%m-%d-%Y", "%d-%m-%y", "%m-%d-%y", "%y-%m-%d")),
    "%Y.%m.%d",
    *("%d %b %Y", "%d-%b-%Y", "%b %d, %Y", "%b %d %Y", "%d %B %Y", "%d-%B-%Y", "%B %d, %Y", "%B %d %Y"),
]
_TIMES = ["", " %H:%M", " %H:%M:%S", " %H:%M:%S.%f", " %I:%M %p", " %I:%M:%S %p"]
FORMATS = [day + time for day, time in itertools.product(_DAYS, _TIMES)]
_KNOWN = set("dmYybBHIMSfpaA%")
_TRIED = 1000  # different values by which a format is taken into consideration


class Found(NamedTuple):
    """What a text column's values say of their format.

    Attributes:
        format: strptime format; None for ISO 8601 and where nothing can be told.
        rival: another format that reads every value as well.
        problem: why a person has to say; empty where the column holds no dates, or ones that can be read.
    """

    format: str | None = None
    rival: str | None = None
    problem: str = ""


def check(format: str) -> None:
    """Whether a format, as written in a schema, tells a date.

    Raises:
        ValueError: it holds a directive that is not read, or no year or month.
    """
    directives = re.findall(r"%(.?)", format)
    if wrong := [d for d in directives if d not in _KNOWN]:
        raise ValueError(f"%{wrong[0]} is not read in a date format; known are {' '.join('%' + d for d in sorted(_KNOWN - {'%'}))}")
    if not {"Y", "y"} & set(directives) or not {"m", "b", "B"} & set(directives):
        raise ValueError(f'{format!r} tells no year and month; expected a format such as "%d/%m/%Y" for 31/12/2024')


def parsed(column: str, format: str | None) -> str:
    """SQL for a text column as TIMESTAMP in UTC, NULL where it is no such date."""
    if format is None:  # DuckDB alone would take 24/01/05 for the year 24, and leave offsets out of a plain timestamp
        dated = f"ltrim({column}) LIKE '____-%' OR ltrim({column}) LIKE '____/%'"
        return f"CASE WHEN {dated} THEN make_timestamp(epoch_us(TRY_CAST({column} AS TIMESTAMPTZ))) END"
    value = f"try_strptime({column}, {text(format)})"
    return f"CASE WHEN regexp_matches({column}, '[0-9]{{4}}') THEN {value} END" if "%Y" in format else value


def expected(format: str | None) -> str:
    """How messages call a date of this format."""
    if format is None:
        return "a date such as 2024-12-31 or 2024-12-31T10:00:00+02:00 (another way of writing is stated as its `format` in the schema)"
    return f'a date in the format "{format}"'


def find(con: Any, relation: str, name: str, share: float, place: Callable[[int], str]) -> Found | None:
    """The format of the dates in a text column, or None where it holds none.

    Args:
        relation: SQL of the rows to look at, in order.
        share: of the known values that must read as dates.
        place: what messages call a row.
    """
    c = quoted(name)
    some = f"(SELECT DISTINCT {c} FROM (SELECT {c} FROM {relation} WHERE {c} IS NOT NULL LIMIT {50 * _TRIED}) LIMIT {_TRIED})"
    every = ", ".join(f"count({parsed(c, f)})" for f in FORMATS)
    either = f"count(coalesce({parsed(c, None)}, {', '.join(parsed(c, f) for f in FORMATS)}))"
    total, dates, *counts = con.execute(f"SELECT count(*), {either}, {every} FROM {some}").fetchone()
    if not total or dates < share * total:
        return None
    tried = [f for f, count in zip(FORMATS, counts, strict=True) if count]
    told = con.execute(f"SELECT count({c}), {', '.join(f'count({parsed(c, f)})' for f in [None, *tried])} FROM {relation}").fetchone()
    known, iso, *counts = told
    if not tried or iso >= share * known:
        return Found()
    best = max(tried, key=lambda f: counts[tried.index(f)])
    most = counts[tried.index(best)]
    if most < share * known:
        return Found(best, None, f"dates written in several ways: {_examples(con, relation, c, best, place)}")
    for rival in (f for f in tried if f != best and _shape(f) == _shape(best)):
        apart = f"count(*) FILTER ({parsed(c, best)} IS NULL AND {parsed(c, rival)} IS NOT NULL)"
        against = con.execute(f"SELECT {apart} FROM {relation}").fetchone()[0]
        if counts[tried.index(rival)] == most and not against:
            if example := _first(con, relation, c, f"{parsed(c, best)} <> {parsed(c, rival)}", place):
                return Found(best, rival, f"dates of which nobody can tell the day from the month or year: {example}")
        elif against:
            return Found(best, rival, f"dates that contradict each other: {_examples(con, relation, c, best, place)}")
    return Found(best)


def _shape(format: str) -> str:
    """What a format looks like when nobody knows which number is which."""
    return re.sub("%[dmyY]", "#", format)


def _examples(con: Any, relation: str, c: str, format: str, place: Callable[[int], str]) -> str:
    """A value that reads in ``format`` and one that does not, with their places."""
    return " and ".join(_first(con, relation, c, f"{parsed(c, format)} {which}", place) for which in ("IS NOT NULL", "IS NULL"))


def _first(con: Any, relation: str, c: str, condition: str, place: Callable[[int], str]) -> str:
    """The first known value for which ``condition`` holds, with its place; empty where there is none."""
    numbered = f"(SELECT row_number() OVER () - 1 AS n, {c} FROM {relation})"
    found = con.execute(f"SELECT n, {c} FROM {numbered} WHERE {c} IS NOT NULL AND {condition} ORDER BY n LIMIT 1").fetchone()
    return f"{found[1]!r} in {place(int(found[0]))}" if found else ""

"""Reading a table: types are guessed or declared, then the whole source becomes one Parquet file, a column a kind.

Everything after this reads that file: by column where a whole column is needed (a median), by pieces of at most
100,000 rows elsewhere.  So memory is bounded by one column and a few pieces, whatever the source was.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from groundup.bundle.files import explaining_storage, is_storage
from groundup.data import dates
from groundup.data.schema import Kind
from groundup.data.sources.base import BadRow, TableSource, quoted, text
from groundup.errors import DataError

PIECE = 90_112  # rows; a multiple of DuckDB's vector of 2,048; it writes a few thousand more, and pieces stay below 100,000
SAMPLE = 100_000  # rows looked at to guess what text holds
SHARE = 0.9  # of the texts must read as a number (date, ...) for the column to be one
ROW, UNREAD = "__row", "__unread"  # columns of the spill beside the data's own
_INTEGERS = {"TINYINT", "SMALLINT", "INTEGER", "BIGINT", "UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT", "HUGEINT", "UHUGEINT"}
_SQL = {"number": "DOUBLE", "integer": "BIGINT", "boolean": "BOOLEAN", "category": "VARCHAR", "text": "VARCHAR", "datetime": "VARCHAR"}
_SEPARATOR, _END = "\x1f", "\x1e"


class Spill(NamedTuple):
    """A source in one Parquet file.

    Attributes:
        kinds: column -> kind, in the source's order.
        dates: datetime column of text -> how its dates are written.
        ignored: column -> why it was not read.
        structural: lines of the source that were no rows.
        present: every column of the source.
    """

    path: Path
    kinds: dict[str, Kind]
    dates: dict[str, dates.Found]
    ignored: dict[str, str]
    structural: list[BadRow]
    n_rows: int
    present: list[str]


class Summary(NamedTuple):
    """Missing values of one column in one piece, its least and greatest known value (None where there is none or nobody knows)."""

    nulls: int
    least: Any
    most: Any


def connect(work: Path) -> Any:
    """A DuckDB connection of this run's own: bounded memory, dates in UTC, no extensions fetched behind the user's back."""
    import duckdb

    con = duckdb.connect()
    con.execute(f"SET memory_limit='512MB'; SET temp_directory={text(str(work / 'duckdb'))}; SET TimeZone='UTC'")
    con.execute("SET autoinstall_known_extensions=false; SET enable_progress_bar=false")
    return con


def spill(
    source: TableSource,
    con: Any,
    out: Path,
    *,
    kinds: dict[str, Kind] | None,
    forced: dict[str, Kind],
    limit: int | None,
    formats: Mapping[str, str] | None = None,
) -> Spill:
    """Read the whole source into ``out``.

    Args:
        kinds: declared by a schema; guessed where None.
        forced: kinds that go before declared and guessed ones (class labels are read as the text that stands there).
        limit: only the first so many rows.
        formats: datetime column -> format of its dates, where they are not ISO 8601; found by looking where ``kinds`` is None.

    Raises:
        DataError: it cannot be read, has no rows, or has columns of no use.
    """
    types, forgiving = _types(source, con)
    present = [name for name in types if name != ROW]
    if kinds is not None:
        guessed = Guess(kinds, {}, {name: dates.Found(format) for name, format in (formats or {}).items()})
    else:
        guessed = guess(con, source, types, None if forgiving else SAMPLE, forgiving)
    usable = {name: forced.get(name, kind) for name, kind in guessed.kinds.items() if name in present}
    if not usable:
        why = "; ".join(f"{name!r} {reason}" for name, reason in guessed.ignored.items()) or "it has no named columns"
        raise DataError(f"{source.where} has no column that can be read: {why}; expected rows with a name for each value")
    large = _large(con, source, types) if kinds is None and not forgiving else set()
    wanted = {name: _SQL[usable[name]] if kinds is not None or name in forced else types[name] for name in usable}
    # text that reads 3.25 becomes 3 when read as BIGINT, so integers are read as what cannot hide it
    wanted |= {name: "DOUBLE" for name, kind in wanted.items() if kind in _INTEGERS and usable[name] == "integer" and name not in large}
    structural: list[BadRow] = []
    try:
        relation = source.relation(con, (types if forgiving else wanted) if source.loose else None, forgiving=forgiving)
        read_as = types | wanted if source.loose and not forgiving else describe(con, relation)
        n = _copy(con, relation, read_as, usable, guessed.dates, out, limit, source.comma)
        if kinds is None and (fractions := _fractions(con, out, usable, source.comma)):
            usable = {name: "number" if name in fractions else kind for name, kind in usable.items()}
            n = _copy(con, relation, read_as, usable, guessed.dates, out, limit, source.comma)
    except _duckdb_errors() as e:
        if not source.loose or forgiving or _out_of_memory(e):
            with explaining(source.where):
                raise
        as_text = dict.fromkeys(types, "VARCHAR")  # a second reading: what does not read as its column's kind is noted beside the row
        with explaining(source.where):
            if kinds is None:
                again = guess(con, source, as_text, None, True)
                guessed = guessed._replace(kinds=again.kinds, dates=again.dates)
                usable = {name: forced.get(name, again.kinds[name]) for name in usable}
            relation = source.relation(con, as_text, forgiving=True)
            n = _copy(con, relation, as_text, usable, guessed.dates, out, limit, source.comma)
        forgiving = True
    if forgiving:
        structural = source.structural_errors(con)
    if n == 0 and structural:
        raise DataError(f"no line of {source.where} is a row; the first, {source.place(structural[0].row)}: {structural[0].reason}")
    if n == 0:
        raise DataError(f"{source.where} has column names but no rows; expected at least one row")
    return Spill(out, usable, guessed.dates, guessed.ignored, structural, n, present)


def _large(con: Any, source: TableSource, types: dict[str, str]) -> set[str]:
    """Integer columns whose first values a float64 cannot hold."""
    whole = [name for name, kind in types.items() if kind in _INTEGERS]
    if not source.loose or not whole:
        return set()
    wanted = ", ".join(f"max(greatest({c}, -{c}))" for c in map(quoted, whole))
    with explaining(source.where):
        found = con.execute(f"SELECT {wanted} FROM (SELECT * FROM {source.relation(con, types)} LIMIT {SAMPLE})").fetchone()
    return {name for name, most in zip(whole, found, strict=True) if most is not None and most > 2**53}


def _fractions(con: Any, path: Path, kinds: dict[str, Kind], comma: bool) -> set[str]:
    """Columns guessed to be integers in which a value is a number with a fraction."""
    import pyarrow.parquet as pq

    whole = {position: name for position, (name, kind) in enumerate(kinds.items()) if kind == "integer"}
    if not whole or UNREAD not in pq.read_schema(path).names:
        return set()
    note = f"unnest(string_split({quoted(UNREAD)}, chr(30)))"
    rows = con.execute(
        f"SELECT DISTINCT split_part(note, chr(31), 1) FROM (SELECT {note} AS note FROM read_parquet({text(str(path))}) "
        f"WHERE {quoted(UNREAD)} IS NOT NULL) WHERE isfinite({_number('split_part(note, chr(31), 2)', comma)})"
    ).fetchall()
    return {whole[int(position)] for (position,) in rows if int(position) in whole}


def _types(source: TableSource, con: Any) -> tuple[dict[str, str], bool]:
    """Column -> DuckDB type, and whether only a forgiving reading could tell."""
    try:
        types = describe(con, source.relation(con))
    except _duckdb_errors():
        with explaining(source.where):
            if not source.loose:
                raise
            return describe(con, source.relation(con, forgiving=True)), True
    if source.loose:  # DuckDB tells dates by the first format that fits, day and month in whichever order
        types = {name: "VARCHAR" if kind.startswith(("DATE", "TIME")) else kind for name, kind in types.items()}
    return types, False


def describe(con: Any, relation: str) -> dict[str, str]:
    """Column -> DuckDB type."""
    return {name: str(kind) for name, kind, *_ in con.execute(f"DESCRIBE SELECT * FROM {relation}").fetchall()}


class Guess(NamedTuple):
    """What a source's columns seem to be; attributes as in :class:`Spill`."""

    kinds: dict[str, Kind]
    ignored: dict[str, str]
    dates: dict[str, dates.Found]


def guess(con: Any, source: TableSource, types: dict[str, str], rows: int | None, forgiving: bool) -> Guess:
    """Each column's kind, and the columns that no model here can read (lists, structs, binary) with the reason.

    Text counts as a number (integer, date, boolean) when at least ``SHARE`` of its known values read as one, so that a
    stray "n.a." does not turn a number into a category; ``rows`` bounds how many are looked at.  Dates of which a person has
    to say how they are written stay text.
    """
    kinds: dict[str, Kind] = {}
    ignored: dict[str, str] = {}
    found: dict[str, dates.Found] = {}
    for name, kind in types.items():
        base = kind.split("(")[0]
        if base in _INTEGERS:
            kinds[name] = "integer"
        elif base in ("FLOAT", "DOUBLE", "DECIMAL"):
            kinds[name] = "number"
        elif base == "BOOLEAN":
            kinds[name] = "boolean"
        elif base == "DATE" or base.startswith("TIMESTAMP"):
            kinds[name] = "datetime"
        elif base in ("VARCHAR", "UUID", "ENUM"):
            kinds[name] = "category"
        else:
            ignored[name] = f"holds values of type {kind}, which no column kind here covers"
    texts = [name for name, kind in types.items() if kind == "VARCHAR"]
    if source.loose and texts:
        relation = source.relation(con, types, forgiving=forgiving)
        if rows is not None:
            relation = f"(SELECT * FROM {relation} LIMIT {rows})"
        wanted = []
        for c in map(quoted, texts):
            number = _number(c, source.comma)
            wanted += [
                f"count({c})",
                f"count({number})",
                f"count(*) FILTER (floor({number}) = {number} AND NOT regexp_matches({c}, '[.,eE]'))",
                f"count({dates.parsed(c, None)})",
                f"count(*) FILTER (lower(trim({c})) IN ('true', 'false'))",
                f"count(*) FILTER (regexp_matches(trim({c}), '^[+-]?0[0-9]'))",
            ]
        with explaining(source.where):
            counts = con.execute(f"SELECT {', '.join(wanted)} FROM {relation}").fetchone()
        for i, name in enumerate(texts):
            known, numbers, whole, iso, truths, padded = counts[6 * i : 6 * i + 6]
            if known == 0:
                continue
            if truths >= SHARE * known:
                kinds[name] = "boolean"
            elif numbers >= SHARE * known and padded < SHARE * known:  # 00501 is a code, not a number
                kinds[name] = "integer" if whole == numbers else "number"
            elif iso >= SHARE * known:
                kinds[name] = "datetime"
            elif numbers < SHARE * known and (told := dates.find(con, relation, name, SHARE, source.place)):
                found[name] = told
                kinds[name] = "category" if told.problem else "datetime"
    return Guess(kinds, ignored, found)


def _copy(
    con: Any,
    relation: str,
    types: dict[str, str],
    kinds: dict[str, Kind],
    written: Mapping[str, dates.Found],
    out: Path,
    limit: int | None,
    comma: bool,
) -> int:
    """Write ``relation`` as the kinds say; returns the number of rows."""
    values, unread = [], []
    for position, (name, kind) in enumerate(kinds.items()):
        value, risky = _expression(quoted(name), types[name], kind, _format(written, name), comma)
        values.append(f"{value} AS {quoted(name)}")
        if risky:
            c = quoted(name)
            unread.append(f"CASE WHEN {c} IS NOT NULL AND {value} IS NULL THEN '{position}' || chr(31) || CAST({c} AS VARCHAR) END")
    if ROW in types:
        values.append(f"{quoted(ROW)} AS {quoted(ROW)}")
    if unread:
        values.append(f"nullif(concat_ws(chr(30), {', '.join(unread)}), '') AS {quoted(UNREAD)}")
    query = f"SELECT {', '.join(values)} FROM {relation}" + (f" LIMIT {limit}" if limit else "")
    counted = con.execute(
        f"COPY ({query}) TO {text(str(out))} (FORMAT parquet, COMPRESSION 'uncompressed', ROW_GROUP_SIZE {PIECE})"
    ).fetchone()
    return int(counted[0])


def _format(written: Mapping[str, dates.Found], name: str) -> str | None:
    return written[name].format if name in written else None


def _number(c: str, comma: bool) -> str:
    """SQL for text as a number, NULL where it is none."""
    return f"TRY_CAST({c} AS DOUBLE)" if not comma else f"CASE WHEN {c} NOT LIKE '%.%' THEN TRY_CAST(replace({c}, ',', '.') AS DOUBLE) END"


def _expression(c: str, kind_of_source: str, kind: Kind, format: str | None, comma: bool) -> tuple[str, bool]:
    """SQL for column ``c`` as ``kind``, and whether a known value can come out as NULL."""
    base = kind_of_source.split("(")[0]
    is_text = base in ("VARCHAR", "UUID", "ENUM")
    if kind in ("category", "text"):
        return f"nullif(CAST({c} AS VARCHAR), '')", False
    if kind == "number":
        return f"nullif({_number(c, comma and is_text)}, 'nan'::DOUBLE)", is_text or base in ("DATE",) or base.startswith("TIMESTAMP")
    if kind == "integer":
        if base in _INTEGERS - {"UBIGINT", "HUGEINT", "UHUGEINT"}:
            return f"CAST({c} AS BIGINT)", False
        number = _number(c, comma and is_text)
        plain = f"replace({c}, ',', '.')" if comma and is_text else c
        exact = f"TRY_CAST({plain} AS BIGINT)"  # rounds 1.5, so only where the number is whole
        return f"CASE WHEN floor({number}) = {number} THEN {exact} END", True
    if kind == "boolean":
        return f"TRY_CAST({c} AS BOOLEAN)", is_text
    if base == "TIMESTAMP WITH TIME ZONE":
        return f"CAST({c} AT TIME ZONE 'UTC' AS TIMESTAMP)", False
    if base == "DATE" or base.startswith("TIMESTAMP"):
        return f"CAST({c} AS TIMESTAMP)", False
    return dates.parsed(c if is_text else f"CAST({c} AS VARCHAR)", format), True


def pieces(path: Path, columns: list[str] | Callable[[dict[str, Summary]], list[str]] | None = None) -> Iterator[Any]:
    """pyarrow Tables of at most 100,000 rows, in order: the file's row groups.

    Args:
        columns: what to read; or what to read of each piece, decided from the file's own statistics about it.
    """
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        for i in range(file.num_row_groups):
            wanted = columns(_summaries(file.metadata.row_group(i))) if callable(columns) else columns
            yield file.read_row_group(i, columns=wanted)


def _summaries(group: Any) -> dict[str, Summary]:
    told = {}
    for j in range(group.num_columns):
        column = group.column(j)
        statistics = column.statistics
        if statistics is not None and statistics.has_null_count:
            known = statistics.has_min_max
            told[column.path_in_schema] = Summary(
                statistics.null_count, statistics.min if known else None, statistics.max if known else None
            )
    return told


def column(path: Path, name: str) -> Any:
    """One whole column, a pyarrow ChunkedArray."""
    import pyarrow.parquet as pq

    return pq.read_table(path, columns=[name]).column(0)


def unread(piece: Any, spill: Spill, start: int) -> list[BadRow]:
    """What :func:`spill` could not read in a piece that starts at row ``start`` of it."""
    import numpy as np

    if UNREAD not in piece.column_names:
        return []
    names = list(spill.kinds)
    notes = piece.column(UNREAD)
    found = []
    for i in np.flatnonzero(notes.is_valid().to_numpy()):
        for note in notes[int(i)].as_py().split(_END):
            position, _, value = note.partition(_SEPARATOR)
            name = names[int(position)]
            kind = spill.kinds[name]
            expected = dates.expected(_format(spill.dates, name)) if kind == "datetime" else _A[kind]
            found.append(BadRow(start + int(i), name, f"expected {expected}, got {value[:40]!r}"))
    return found


_A = {"number": "a number", "integer": "a whole number", "boolean": "true or false"}


def _out_of_memory(error: Exception) -> bool:
    import duckdb

    return isinstance(error, duckdb.OutOfMemoryException)


def _duckdb_errors() -> tuple[type[Exception], ...]:
    import duckdb

    return (duckdb.Error,)


class explaining:  # noqa: N801 - reads as a sentence: with explaining(...)
    """Turn DuckDB's errors into a :class:`DataError` that keeps the sentence that says what is wrong, line number included."""

    def __init__(self, where: str) -> None:
        self.where = where

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if error is not None and isinstance(error, _duckdb_errors()):
            with explaining_storage(Path("the copy of the data")):
                if is_storage(error):
                    raise error
            kept = [line.strip() for line in str(error).splitlines() if line.strip()]
            cut = next((i for i, line in enumerate(kept) if line.startswith(("Possible", "LINE", "file ="))), len(kept))
            raise DataError(f"{self.where} cannot be read: {' '.join(kept[: max(cut, 1)])[:500]}") from error

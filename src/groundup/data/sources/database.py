"""What databases share: a URL, a table or a query, and a copy of the result in one Parquet file that DuckDB then reads."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from groundup.data.settings import Data
from groundup.data.sources.base import TableSource, quoted, text
from groundup.errors import DataError


class Database(TableSource):
    """A table or query, exported on first use into the folder where the connection keeps its temporary files."""

    loose = True

    def __init__(self, where: str, query: str) -> None:
        self.where, self.query = where, query
        self._exported: Path | None = None

    @abstractmethod
    def export(self, path: Path) -> None:
        """Write the query's result as Parquet."""

    def relation(self, con: Any, types: Mapping[str, str] | None = None, *, forgiving: bool = False) -> str:
        if self._exported is None or not self._exported.exists():
            folder = Path(con.execute("SELECT current_setting('temp_directory')").fetchone()[0])
            folder.mkdir(parents=True, exist_ok=True)
            self.export(folder / "export.parquet")
            self._exported = folder / "export.parquet"
        return f"read_parquet({text(str(self._exported))})"


def query_of(section: Data, url: str, tables: list[str] | None = None) -> str:
    """The SELECT that ``section`` asks for: data.query, data.table, or ``?table=`` / ``?query=`` in the URL.

    Args:
        tables: the database's tables, where they are known already.

    Raises:
        DataError: none of them, or more than one.
    """
    told = {k: v for k, v in dict(parse_qsl(urlsplit(url).query)).items() if k in ("table", "query")}
    asked = [("table", v) for v in (section.table, told.get("table")) if v] + [
        ("query", v) for v in (section.query, told.get("query")) if v
    ]
    where = public(section.source) if "://" in section.source else section.source
    if len(asked) > 1:
        raise DataError(f"{where} names {' and '.join(k for k, _ in asked)}; give one table or one query")
    if not asked:
        if tables is not None and len(tables) == 1:
            return f"SELECT * FROM {quoted(tables[0])}"
        has = f"; it has {', '.join(tables[:20])}" if tables else ""
        raise DataError(f"which table of {where} is to be read? give data.table or data.query{has}")
    kind, value = asked[0]
    if kind == "query":
        return value.strip().rstrip(";")
    return "SELECT * FROM " + ".".join(quoted(part) for part in value.split("."))


def public(url: str) -> str:
    """The URL without user, password and options: fit for messages and files.

    Raises:
        DataError: its host or port cannot be one.
    """
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError as e:
        raise DataError(f"data.source is no usable URL: {e}; expected scheme://host:port/path") from e
    return f"{parts.scheme}://{host}{f':{port}' if port else ''}{parts.path}"

"""SQLite: ``sqlite:///relative/path.db``, ``sqlite:////absolute/path.db``, or a file ending in .db, .sqlite, .sqlite3.

Read with Python's own sqlite3, opened read-only.  SQLite's columns may hold anything anywhere: a column is integer or
real only where every value is; all else is read as text, and what the text means is found out as for a CSV.
"""

from __future__ import annotations

import hashlib
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlsplit

from groundup.data.settings import Data
from groundup.data.sources import existing
from groundup.data.sources.base import Source, quoted
from groundup.data.sources.database import Database, query_of
from groundup.errors import DataError

_PIECE = 50_000  # rows in memory as Python objects


def claim(section: Data, root: Path) -> Source | None:
    url = section.source
    if url.startswith("sqlite:"):
        path = unquote(urlsplit(url).path)[1:]
        found = existing(section.model_copy(update={"source": path}), root)
    elif section.format == "sqlite" or (section.format is None and url.lower().endswith((".db", ".sqlite", ".sqlite3"))):
        found = existing(section, root)
    else:
        return None
    with _open(found, url) as con:
        tables = [
            name for (name,) in con.execute("SELECT name FROM sqlite_master WHERE type IN ('table', 'view') AND name NOT LIKE 'sqlite_%'")
        ]
    return Sqlite(found, url.split("?")[0], query_of(section, url if url.startswith("sqlite:") else "", tables))


def _open(path: Path, where: str) -> Any:
    try:
        con = sqlite3.connect(f"file:{quote(str(path.resolve()))}?mode=ro", uri=True)
        con.execute("SELECT count(*) FROM sqlite_master")
    except sqlite3.Error as e:
        raise DataError(f"{where} cannot be opened as SQLite: {e}") from e
    return closing(con)


class Sqlite(Database):
    def __init__(self, path: Path, where: str, query: str) -> None:
        super().__init__(where, query)
        self.path = path

    def identity(self) -> str:
        from groundup.data.hashing import file_hash

        digest = hashlib.sha256(f"{self.query}\0{file_hash(self.path)}".encode())
        log = self.path.with_name(self.path.name + "-wal")  # changes that are not in the file yet
        if log.exists() and log.stat().st_size:
            digest.update(file_hash(log).encode())
        return digest.hexdigest()

    def export(self, path: Path) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        with _open(self.path, self.where) as con:
            try:
                names = [c[0] for c in con.execute(f"SELECT * FROM ({self.query}) LIMIT 0").description]
                if len(set(names)) < len(names):
                    raise DataError(f"the query on {self.where} names a column twice: {', '.join(names)}; rename one with AS")
                types = [self._type(con, name) for name in names]
                wanted = ", ".join(
                    f"CAST({quoted(n)} AS TEXT)" if t == pa.string() else quoted(n) for n, t in zip(names, types, strict=True)
                )
                schema = pa.schema(list(zip(names, types, strict=True)))
                with pq.ParquetWriter(path, schema) as writer:
                    cursor = con.execute(f"SELECT {wanted} FROM ({self.query})")
                    while rows := cursor.fetchmany(_PIECE):
                        columns = [pa.array(values, t) for values, t in zip(zip(*rows, strict=True), types, strict=True)]
                        writer.write_table(pa.Table.from_arrays(columns, schema=schema))
            except sqlite3.Error as e:
                raise DataError(f"{self.where}: {e} (query: {self.query})") from e

    def _type(self, con: Any, name: str) -> Any:
        import pyarrow as pa

        held = {kind for (kind,) in con.execute(f"SELECT DISTINCT typeof({quoted(name)}) FROM ({self.query})")} - {"null"}
        if held and held <= {"integer"}:
            return pa.int64()
        if held and held <= {"integer", "real"}:
            return pa.float64()
        return pa.string()

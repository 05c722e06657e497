"""PostgreSQL: ``postgresql://user@host/database`` with data.table or data.query.

Read through ADBC, Arrow all the way, in pieces.  A password belongs in the environment (PGPASSWORD) or in ~/.pgpass, not in a
recipe; whatever stands in the URL is kept out of messages and files.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from groundup.data.settings import Data
from groundup.data.sources.base import Source
from groundup.data.sources.database import Database, public, query_of
from groundup.errors import DataError, MissingExtraError


def claim(section: Data, root: Path) -> Source | None:
    if not section.source.startswith(("postgresql://", "postgres://")):
        return None
    return Postgresql(section.source, query_of(section, section.source))


class Postgresql(Database):
    loose = False

    def __init__(self, url: str, query: str) -> None:
        super().__init__(public(url), query)
        parts = urlsplit(url)
        kept = [(k, v) for k, v in parse_qsl(parts.query) if k not in ("table", "query")]
        self._url = urlunsplit(parts._replace(query=urlencode(kept)))

    def _reader(self, use: Any) -> None:
        """Call ``use`` with a pyarrow RecordBatchReader of the result."""
        try:
            import adbc_driver_manager
            import adbc_driver_postgresql.dbapi as dbapi
        except ImportError as e:
            raise MissingExtraError("adbc-driver-postgresql", "postgresql", "reading PostgreSQL") from e
        try:
            with dbapi.connect(self._url) as con, con.cursor() as cursor:
                cursor.execute(self.query)
                use(cursor.fetch_record_batch())
        except adbc_driver_manager.Error as e:
            raise DataError(f"{self.where}: {' '.join(str(e).split())[:400]} (query: {self.query})") from e

    def identity(self) -> str:
        """Hash of the query and of every value that it gives: the result is read once for it."""
        digest = hashlib.sha256(self.query.encode())

        def add(reader: Any) -> None:
            digest.update(reader.schema.to_string().encode())
            for batch in reader:
                digest.update(batch.serialize())

        self._reader(add)
        return digest.hexdigest()

    def export(self, path: Path) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        def write(reader: Any) -> None:
            # numeric comes as text with a mark of its own, so that no digit is lost; here it is a number like any other
            schema = pa.schema([f.with_type(pa.string()) if isinstance(f.type, pa.BaseExtensionType) else f for f in reader.schema])
            with pq.ParquetWriter(path, schema) as writer:
                for batch in reader:
                    columns = [
                        c.storage.cast(f.type) if isinstance(c, pa.ExtensionArray) else c
                        for c, f in zip(batch.columns, schema, strict=True)
                    ]
                    writer.write_batch(pa.record_batch(columns, schema=schema))

        self._reader(write)

"""PostgreSQL: ``postgresql://user@host/database`` with data.table or data.query.

Read through ADBC, Arrow all the way, in pieces.  A password belongs in the environment (PGPASSWORD) or in ~/.pgpass, not in a
recipe; whatever stands in the URL is kept out of messages and files.  Rows come in the order of the query: with ORDER BY the
same rows give the same splits, without it that is PostgreSQL's to decide.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
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
        self._identity: str | None = None
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
        """Hash of the query and of every value that it gives; the result is read once for it, unless it was exported already."""
        if self._identity is None:
            self._reader(self._hashing(lambda batch: None))
        assert self._identity is not None
        return self._identity

    def _hashing(self, use: Callable[[Any], None]) -> Callable[[Any], None]:
        """Call ``use`` with each batch of a reader, and keep the hash of all."""

        def consume(reader: Any) -> None:
            digest = hashlib.sha256(f"{self.query}\0{reader.schema}".encode())
            for batch in reader:
                digest.update(batch.serialize())
                use(batch)
            self._identity = digest.hexdigest()

        return consume

    def export(self, path: Path) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        def write(reader: Any) -> None:
            schema = pa.schema([f.with_type(_plain(f.type)) for f in reader.schema])
            with pq.ParquetWriter(path, schema) as writer:

                def add(batch: Any) -> None:
                    columns = [
                        c.storage.cast(f.type) if isinstance(c, pa.ExtensionArray) else c
                        for c, f in zip(batch.columns, schema, strict=True)
                    ]
                    writer.write_batch(pa.record_batch(columns, schema=schema))

                self._hashing(add)(reader)

        self._reader(write)


def _plain(kind: Any) -> Any:
    """What an Arrow type becomes: PostgreSQL's numeric a float64, its other own types (inet, json, enums) their text."""
    import pyarrow as pa

    if not isinstance(kind, pa.BaseExtensionType):
        return kind
    return pa.float64() if getattr(kind, "type_name", "") == "numeric" else pa.string()

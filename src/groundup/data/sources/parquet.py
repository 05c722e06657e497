"""Parquet: typed columns.  A pattern (``sales/*.parquet``) reads its files in the order of their names."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from groundup.data.settings import Data
from groundup.data.sources import existing
from groundup.data.sources.base import Source, TableSource, alike, text


def claim(section: Data, root: Path) -> Source | None:
    name = section.source.lower()
    if "://" in name or (section.format != "parquet" and (section.format is not None or not name.endswith((".parquet", ".pq")))):
        return None
    found = sorted(root.glob(section.source)) if "*" in section.source and not Path(section.source).is_absolute() else []
    return Parquet(found or [existing(section, root)], section.source)


class Parquet(TableSource):
    def __init__(self, files: list[Path], where: str) -> None:
        self.files, self.where = files, where

    def identity(self) -> str:
        from groundup.data.hashing import file_hash, folder_hash

        return file_hash(self.files[0]) if len(self.files) == 1 else folder_hash(self.files, self.files[0].parent)

    def relation(self, con: Any, types: Mapping[str, str] | None = None, *, forgiving: bool = False) -> str:
        self._checked()
        return f"read_parquet([{', '.join(text(str(f)) for f in self.files)}], union_by_name=true)"

    def _checked(self) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            names = {name: None for file in self.files for name in pq.read_schema(file).names}
        except pa.ArrowInvalid:  # DuckDB says it with more detail
            return
        alike(list(names), self.where)

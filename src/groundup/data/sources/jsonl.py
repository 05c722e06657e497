"""JSON Lines: one object a line, its keys are the columns.  A key that a line lacks is missing there."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from groundup.data.settings import Data
from groundup.data.sources import existing
from groundup.data.sources.base import Source, TableSource, text
from groundup.errors import DataError

_ENDINGS = (".jsonl", ".ndjson", ".jsonl.gz", ".ndjson.gz")


def claim(section: Data, root: Path) -> Source | None:
    name = section.source.lower()
    if "://" in name or (section.format != "jsonl" and (section.format is not None or not name.endswith(_ENDINGS))):
        return None
    return JsonLines(existing(section, root), section.source)


class JsonLines(TableSource):
    loose = objects = True

    def __init__(self, path: Path, where: str) -> None:
        self.path, self.where = path, where

    def identity(self) -> str:
        from groundup.data.hashing import file_hash

        return file_hash(self.path)

    def relation(self, con: Any, types: Mapping[str, str] | None = None, *, forgiving: bool = False) -> str:
        if self.path.stat().st_size == 0:
            raise DataError(f"{self.where} is empty; expected at least one JSON object")
        if not types and _first_byte(self.path) == b"[":
            raise DataError(f"{self.where} is one JSON list; write its objects one a line, without the brackets and commas about them")
        options = [text(str(self.path)), "format='newline_delimited'", "maximum_sample_files=1", "map_inference_threshold=-1"]
        if types:
            columns = ", ".join(f"{text(n)}: {text('VARCHAR' if forgiving else t)}" for n, t in types.items())
            options.append(f"columns={{{columns}}}")
        if forgiving:
            options.append("ignore_errors=true")  # a broken line is a row of missing values
        return f"read_json({', '.join(options)})"


def _first_byte(path: Path) -> bytes:
    """The first byte that is no space."""
    import gzip

    with gzip.open(path, "rb") if path.suffix == ".gz" else open(path, "rb") as f:
        return f.read(1 << 12).lstrip(b"\xef\xbb\xbf \t\r\n")[:1]

"""CSV: text with a separator, first line names.  Read by DuckDB on all cores; what it cannot say clearly is looked at here first."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from groundup.data.settings import Data
from groundup.data.sources import existing
from groundup.data.sources.base import BadRow, Source, TableSource, text
from groundup.errors import DataError

_SEPARATORS = ",;\t|"
_FIELD_LIMIT = 16 << 20  # bytes of one line


def claim(section: Data, root: Path) -> Source | None:
    name = section.source.lower().removesuffix(".gz")
    if section.format != "csv" and (section.format is not None or not name.endswith((".csv", ".tsv")) or "://" in name):
        return None
    return Csv(existing(section, root), section.source, section.missing)


class Csv(TableSource):
    loose = True

    def __init__(
        self, path: Path, where: str, missing: list[str], *, header: list[str] | None = None, separator: str | None = None
    ) -> None:
        """``header``: names of the columns of a file that has no line of names; ``separator``: told instead of guessed."""
        self.path, self.where, self.missing, self.names = path, where, missing, header
        self.separator = separator
        self.skip = 0

    def identity(self) -> str:
        from groundup.data.hashing import file_hash

        return file_hash(self.path)

    def relation(self, con: Any, types: Mapping[str, str] | None = None) -> str:
        separator = self._check()
        options = [
            text(str(self.path)),
            f"delim={text(separator)}",
            "quote='\"'",
            "escape='\"'",
            f"skip={self.skip}",
            f"max_line_size={_FIELD_LIMIT}",
            f"nullstr=[{', '.join(text(m) for m in self.missing)}]",
        ]
        if self.names is None:
            options.append("header=true")
        else:
            options += ["header=false", f"names=[{', '.join(text(n) for n in self.names)}]"]
        if types:
            options.append("types={" + ", ".join(f"{text(n)}: {text(t)}" for n, t in types.items()) + "}")
            if set(types.values()) == {"VARCHAR"}:  # the forgiving second reading: lines that are no rows are left out and listed
                options += ["store_rejects=true", "rejects_limit=100000"]
        return f"read_csv({', '.join(options)})"

    def structural_errors(self, con: Any) -> list[BadRow]:
        found = con.execute("SELECT line, any_value(error_message) FROM reject_errors GROUP BY line ORDER BY line").fetchall()
        first = 1 if self.names is not None else 2  # the line of row 0
        return [BadRow(int(line) - first - self.skip, "", _short(message)) for line, message in found]

    def _check(self) -> str:
        """The separator; raises where the file is empty, not UTF-8, or names a column twice."""
        opened = _open(self.path)
        with opened as f:
            head = f.read(1 << 16)
        if not head.strip():
            raise DataError(f"{self.where} is empty; expected a line of column names and at least one row")
        if head.startswith((b"\xff\xfe", b"\xfe\xff")):
            raise DataError(f"{self.where} is UTF-16 text; save it as UTF-8 (in a spreadsheet: 'CSV UTF-8')")
        if b"\x00" in head:
            raise DataError(f"{self.where} holds zero bytes, so it is no CSV; give data.format if it is something else")
        cut = head if len(head) < 1 << 16 else head[: head.rfind(b"\n") + 1] or head
        try:
            lines = cut.decode("utf-8-sig").splitlines()
        except UnicodeDecodeError as e:
            line = cut[: e.start].count(b"\n") + 1
            raise DataError(
                f"{self.where}:{line}: byte 0x{cut[e.start]:02x} is not UTF-8; save the file as UTF-8, or convert it with: "
                f"iconv -f latin1 -t utf-8 {self.path.name}"
            ) from e
        separator = self.separator or _separator(lines[self.skip :])
        if self.names is None:
            names = next(csv.reader(lines[self.skip :], delimiter=separator))
            if twice := sorted({n for n in names if n and names.count(n) > 1}):
                raise DataError(
                    f"{self.where}:1: column name {', '.join(map(repr, twice))} stands there more than once; rename one of them"
                )
        return separator


def _separator(lines: list[str]) -> str:
    """The candidate that splits the first lines into the same number (> 1) of values; a comma where none does."""
    best, most = ",", 1
    for candidate in _SEPARATORS:
        counts = [len(row) for row in csv.reader(lines[:50], delimiter=candidate) if row]
        usual = max(set(counts), key=counts.count) if counts else 1
        if usual > most and counts[0] == usual and counts.count(usual) >= 0.8 * len(counts):
            best, most = candidate, usual
    return best


def _open(path: Path) -> Any:
    import gzip

    return gzip.open(path, "rb") if path.suffix == ".gz" else open(path, "rb")


def _short(message: str) -> str:
    """The sentence of DuckDB's message that says what is wrong."""
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    told = next((line for line in lines if line.startswith(("Expected", "Value", "Error", "Invalid"))), lines[0] if lines else "unreadable")
    return told.rstrip(".")

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
_LONGEST = 16 << 20  # bytes of one line
_HEAD = 1 << 16  # bytes looked at here


def claim(section: Data, root: Path) -> Source | None:
    name = section.source.lower().removesuffix(".gz")
    if section.format != "csv" and (section.format is not None or not name.endswith((".csv", ".tsv")) or "://" in name):
        return None
    return Csv(existing(section, root), section.source, section.missing)


class Csv(TableSource):
    loose = True

    def __init__(self, path: Path, where: str, missing: list[str]) -> None:
        self.path, self.where, self.missing = path, where, missing

    def identity(self) -> str:
        from groundup.data.hashing import file_hash

        return file_hash(self.path)

    def relation(self, con: Any, types: Mapping[str, str] | None = None, *, forgiving: bool = False) -> str:
        separator, names = self._checked()
        options = [
            text(str(self.path)),
            f"delim={text(separator)}",
            "header=true",
            "quote='\"'",
            "escape='\"'",
            f"max_line_size={_LONGEST}",
            f"nullstr=[{', '.join(map(text, self.missing))}]",
        ]
        if forgiving:
            columns = ", ".join(f"{text(n)}: 'VARCHAR'" for n in names)
            options += ["auto_detect=false", f"columns={{{columns}}}", "store_rejects=true", "rejects_limit=0"]
        elif types:
            told = ", ".join(f"{text(n)}: {text(t)}" for n, t in types.items())
            dates = any(t.startswith(("DATE", "TIME")) for t in types.values())  # their format is found by looking
            options += [f"types={{{told}}}"] if dates or list(types) != names else ["auto_detect=false", f"columns={{{told}}}"]
        return f"read_csv({', '.join(options)})"

    def structural_errors(self, con: Any) -> list[BadRow]:
        found = con.execute("SELECT line, any_value(error_message) FROM reject_errors GROUP BY line ORDER BY line").fetchall()
        return [
            BadRow(int(line) - 2, "", _short(message)) for line, message in found
        ]  # row 0 stands in line 2, if no value holds a line break

    def _checked(self) -> tuple[str, list[str]]:
        """The separator and the column names; raises where the file is empty, not UTF-8, or names a column twice."""
        with _open(self.path) as f:
            head = f.read(_HEAD)
        if not head.strip():
            raise DataError(f"{self.where} is empty; expected a line of column names and at least one row")
        if head.startswith((b"\xff\xfe", b"\xfe\xff")):
            raise DataError(f"{self.where} is UTF-16 text; save it as UTF-8 (in a spreadsheet: 'CSV UTF-8')")
        if b"\x00" in head:
            raise DataError(f"{self.where} holds zero bytes, so it is no CSV; give data.format if it is something else")
        cut = head if len(head) < _HEAD else head[: head.rfind(b"\n") + 1] or head
        try:
            lines = cut.decode("utf-8-sig").splitlines()
        except UnicodeDecodeError as e:
            line = cut[: e.start].count(b"\n") + 1
            raise DataError(
                f"{self.where}:{line}: byte 0x{cut[e.start]:02x} is not UTF-8; save the file as UTF-8, or convert it with: "
                f"iconv -f latin1 -t utf-8 {self.path.name}"
            ) from e
        separator = _separator(lines)
        names = next(csv.reader(lines, delimiter=separator))
        if twice := sorted({n for n in names if n and names.count(n) > 1}):
            raise DataError(f"{self.where}:1: column name {', '.join(map(repr, twice))} stands there more than once; rename one of them")
        return separator, [name or f"column{i}" for i, name in enumerate(names)]


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

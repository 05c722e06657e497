"""CSV: text with a separator, first line names.  Read by DuckDB on all cores; what it cannot say clearly is looked at here first."""

from __future__ import annotations

import csv
import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from groundup.data.settings import Data
from groundup.data.sources import existing
from groundup.data.sources.base import BadRow, Source, TableSource, alike, is_web_page, text
from groundup.errors import DataError

_SEPARATORS = ",;\t|"
_LONGEST = 16 << 20  # bytes of one line
_BUFFER = 2 * _LONGEST  # bytes read at once; DuckDB's own choice is sixteen lines, which its share of the memory does not hold
_HEAD = 1 << 16  # bytes looked at here
_COMMA, _POINT = re.compile(r"[+-]?\d+,\d+([eE][+-]?\d+)?"), re.compile(r"[+-]?\d+\.\d+([eE][+-]?\d+)?")


def claim(section: Data, root: Path) -> Source | None:
    name = section.source.lower().removesuffix(".gz")
    if "://" in name or (section.format != "csv" and (section.format is not None or not name.endswith((".csv", ".tsv")))):
        return None
    return Csv(existing(section, root), section.source, section.missing, section.decimal)


class Csv(TableSource):
    loose = True

    def __init__(self, path: Path, where: str, missing: list[str], decimal: str | None = None) -> None:
        self.path, self.where, self.missing, self.decimal = path, where, missing, decimal

    def identity(self) -> str:
        from groundup.data.hashing import file_hash

        return file_hash(self.path)

    def place(self, row: int) -> str:
        return f"line {row + 2}"  # if no value before it holds a line break

    def relation(self, con: Any, types: Mapping[str, str] | None = None, *, forgiving: bool = False) -> str:
        separator, names, self.comma = self._checked()
        options = [
            text(str(self.path)),
            f"delim={text(separator)}",
            "header=true",
            "quote='\"'",
            "escape='\"'",
            f"max_line_size={_LONGEST}",
            f"buffer_size={_BUFFER}",
            f"decimal_separator={text(',' if self.comma else '.')}",
            f"nullstr=[{', '.join(map(text, self.missing))}]",
        ]
        if forgiving:
            columns = ", ".join(f"{text(n)}: 'VARCHAR'" for n in names)
            options += ["auto_detect=false", f"columns={{{columns}}}", "store_rejects=true", "rejects_limit=0"]
        elif types:
            told = ", ".join(f"{text(n)}: {text(t)}" for n, t in types.items())
            options += [f"types={{{told}}}"] if list(types) != names else ["auto_detect=false", f"columns={{{told}}}"]
        return f"read_csv({', '.join(options)})"

    def structural_errors(self, con: Any) -> list[BadRow]:
        found = con.execute("SELECT line, any_value(error_message) FROM reject_errors GROUP BY line ORDER BY line").fetchall()
        return [
            BadRow(int(line) - 2, "", _short(message)) for line, message in found
        ]  # row 0 stands in line 2, if no value holds a line break

    def _checked(self) -> tuple[str, list[str], bool]:
        """The separator, the column names, whether fractions follow a comma.

        Raises:
            DataError: the file is empty, no CSV, not UTF-8, or names a column twice.
        """
        with _open(self.path) as f:
            head = f.read(_HEAD)
        if not head.strip():
            raise DataError(f"{self.where} is empty; expected a line of column names and at least one row")
        if is_web_page(head):
            raise DataError(
                f"{self.where} holds a web page, not a CSV; download the file itself (a 'raw' link) instead of the page about it"
            )
        if head.startswith((b"\xff\xfe", b"\xfe\xff")):
            raise DataError(f"{self.where} is UTF-16 text; save it as UTF-8 (in a spreadsheet: 'CSV UTF-8')")
        if head.startswith(b"PK\x03\x04"):
            raise DataError(f"{self.where} is a zip archive or a workbook, not a CSV; unpack it, or save the sheet as CSV")
        if b"\x00" in head:
            raise DataError(f"{self.where} holds zero bytes, so it is no CSV; give data.format if it is something else")
        cut = head if len(head) < _HEAD else head[: head.rfind(b"\n") + 1] or head
        try:
            lines = cut.decode("utf-8-sig").splitlines()
        except UnicodeDecodeError as e:
            line = cut[: e.start].count(b"\n") + 1
            raise DataError(
                f"{self.where}:{line}: byte 0x{cut[e.start]:02x} is not UTF-8; save the file as UTF-8, or convert it with: "
                f"iconv -f latin1 -t utf-8 {shlex.quote(self.path.name)} > utf8.csv"
            ) from e
        separator = _separator(lines)
        names = next(csv.reader(lines, delimiter=separator))
        if twice := sorted({n for n in names if n and names.count(n) > 1}):
            raise DataError(f"{self.where}:1: column name {', '.join(map(repr, twice))} stands there more than once; rename one of them")
        alike(names, f"{self.where}:1")
        comma = self.decimal == "," or (self.decimal is None and _fractions_follow_commas(lines, separator))
        return separator, [name or f"column{i}" for i, name in enumerate(names)], comma


def _separator(lines: list[str]) -> str:
    """The candidate that splits the first lines into the same number (> 1) of values; a comma where none does."""
    best, most = ",", 1
    for candidate in _SEPARATORS:
        counts = [len(row) for row in csv.reader(lines[:50], delimiter=candidate) if row]
        usual = max(set(counts), key=counts.count) if counts else 1
        if usual > most and counts[0] == usual and counts.count(usual) >= 0.8 * len(counts):
            best, most = candidate, usual
    return best


def _fractions_follow_commas(lines: list[str], separator: str) -> bool:
    """Whether values such as 12,5 stand there and none such as 12.5."""
    if separator == ",":
        return False
    values = [value.strip() for row in csv.reader(lines[1:1000], delimiter=separator) for value in row]
    return any(map(_COMMA.fullmatch, values)) and not any(map(_POINT.fullmatch, values))


def _open(path: Path) -> Any:
    import gzip

    return gzip.open(path, "rb") if path.suffix == ".gz" else open(path, "rb")


def _short(message: str) -> str:
    """The sentence of DuckDB's message that says what is wrong."""
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    told = next((line for line in lines if line.startswith(("Expected", "Value", "Error", "Invalid"))), lines[0] if lines else "unreadable")
    return told.rstrip(".")

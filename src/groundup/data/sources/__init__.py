"""Sources, one file a kind, found by being here.

A module in this package with a function ``claim(section, root) -> Source | None`` is a source; ``claim`` looks at the name, ending
or ``format`` and opens nothing large.  A module with a list ``LISTING`` of :class:`Entry` shows up in ``groundup data``.
"""

from __future__ import annotations

import difflib
import importlib
import os
import pkgutil
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

from groundup.data.settings import Data
from groundup.data.sources.base import Arrays, ArraySource, BadRow, Source, TableSource
from groundup.errors import DataError

__all__ = ["ArraySource", "Arrays", "BadRow", "Entry", "Source", "TableSource", "entries", "find"]


_OTHER = {
    **dict.fromkeys((".xlsx", ".xls", ".ods"), "workbooks are not read; save the sheet as CSV"),
    ".json": "a JSON document is not read; write one object a line (JSON Lines), or give data.format: jsonl if that is what it holds",
    **dict.fromkeys(
        (".pkl", ".pickle", ".joblib", ".pt", ".pth"), "pickles are never loaded, they can run anything; save the table as Parquet"
    ),
    **dict.fromkeys((".zip", ".tar", ".tgz", ".7z", ".rar"), "archives are not read; unpack it"),
}


class Entry(NamedTuple):
    """One named data set."""

    name: str
    task: str
    rows: int
    licence: str
    where: str


def _modules() -> Iterator[ModuleType]:
    for info in pkgutil.iter_modules(__path__):
        if info.name != "base":
            yield importlib.import_module(f"{__name__}.{info.name}")


def entries() -> list[Entry]:
    """Every named data set, by name."""
    return sorted(entry for module in _modules() for entry in getattr(module, "LISTING", ()))


def find(section: Data, root: Path) -> Source:
    """The source that ``section`` names.  Paths start at ``root``.

    Raises:
        DataError: nothing is called so, or the path does not exist.
    """
    for module in _modules():
        if hasattr(module, "claim") and (source := module.claim(section, root)) is not None:
            return source  # type: ignore[no-any-return]
    names = [entry.name for entry in entries()]
    if "://" in section.source:
        told = section.source.partition("://")[0]
        raise DataError(
            f"data at {told}:// is not read; addresses are http://, https://, sqlite:/// and postgresql://; "
            "download the file and give its path as data.source"
        )
    path = root / section.source
    if (other := _OTHER.get(path.suffix.lower())) and path.exists():
        raise DataError(f"{section.source}: {other}")
    if path.exists():
        raise DataError(
            f"cannot tell what {section.source!r} holds from its ending; give data.format: csv, parquet, jsonl, sqlite, npz or images"
        )
    near = difflib.get_close_matches(section.source, names + [p.name for p in path.parent.glob("*")][:1000], 1)
    raise DataError(
        f"no data set and no file called {section.source!r} (looked in {path.parent})"
        + (f"; did you mean {near[0]!r}?" if near else f"; named ones are {', '.join(names)}")
    )


def existing(section: Data, root: Path) -> Path:
    """The path of the file that ``section.source`` names, which must be there and readable.

    Raises:
        DataError: it is not there, no plain file (a pipe would be waited for without end), or may not be read.
    """
    path = root / section.source
    if not path.exists():
        near = difflib.get_close_matches(path.name, [p.name for p in path.parent.glob("*")][:1000], 1)
        raise DataError(f"no such file: {section.source} (looked in {path.parent})" + (f"; did you mean {near[0]!r}?" if near else ""))
    if path.is_dir():
        raise DataError(f"{section.source} is a folder; expected a file (a folder of images needs data.format: images)")
    if not path.is_file():
        raise DataError(f"{section.source} is no plain file (a pipe or a device); copy what it gives into a file")
    if not os.access(path, os.R_OK):
        raise DataError(f"{section.source} may not be read by this user; change its mode: chmod u+r {path}")
    return path

"""Data: sources, schema, splits, leak checks and transforms.  Heavy libraries are imported where they are used."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from groundup.data.settings import Data
from groundup.data.sources import Entry, Source, TableSource, entries, find

if TYPE_CHECKING:
    from groundup.data.sampling import Sample

__all__ = ["Data", "Entry", "fingerprint", "sample", "sources"]


def sources() -> list[Entry]:
    """Every named data set: (name, task, rows, licence, where)."""
    return entries()


def fingerprint(section: Data, root: Path) -> str:
    """Hex hash of the content that ``section`` names, and of the schema file where it says more than the data itself did.

    Cheap the second time: file hashes are remembered by path, size and time of change.

    Raises:
        DataError: there is no such source.
    """
    return fingerprint_of(find(section, root), section, root)


def fingerprint_of(source: Source, section: Data, root: Path) -> str:
    """:func:`fingerprint` of a source that is open already."""
    import hashlib

    from groundup.data import schema as schemas
    from groundup.data.job import schema_path

    identity = source.identity()
    path = schema_path(section, root)
    said = ""
    if isinstance(source, TableSource) and path.exists():
        written = schemas.read(path)
        if written.edited or written.inferred_from != identity:
            said = written.digest
    return hashlib.sha256(f"{identity}\0{said}".encode()).hexdigest()


def sample(section: Data, root: Path, task: str, n: int = 1000) -> Sample:
    """The first ``n`` rows and what is wrong in them; see :func:`groundup.data.sampling.sample`."""
    from groundup.data import sampling

    return sampling.sample(section, root, task, n)

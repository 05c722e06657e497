"""A CSV, Parquet or JSON Lines file at an http or https address, downloaded once and asked for again only if it changed.

The copy lies in ``GROUNDUP_HOME/data/web``.  With ``data.sha256`` the content is settled and the network is needed once; without
it the server is asked at every run whether the file is still the same, and where it cannot tell, the file comes again.  The
content's hash is part of the run's identity either way, so a changed file is prepared anew.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import quote, unquote, urlsplit, urlunsplit

from groundup.bundle.files import explaining_storage, sha256, write_bytes
from groundup.data.download import Validator, download
from groundup.data.fetch import alone, settle
from groundup.data.hashing import file_hash, home
from groundup.data.settings import Data
from groundup.data.sources.base import BadRow, Source, TableSource, is_web_page
from groundup.data.sources.csv import Csv
from groundup.data.sources.database import public
from groundup.data.sources.jsonl import JsonLines
from groundup.data.sources.parquet import Parquet
from groundup.errors import DataError
from groundup.progress import Progress, Silent

_FRESH = 60.0  # seconds in which one process does not ask again: a run asks once, for its plan and for its preparation
_ENDINGS = {"csv": "csv", "tsv": "csv", "parquet": "parquet", "pq": "parquet", "jsonl": "jsonl", "ndjson": "jsonl"}
_asked: dict[Path, float] = {}


def claim(section: Data, root: Path) -> Source | None:
    if not section.source.lower().startswith(("http://", "https://")):
        return None
    where = public(section.source)
    parts = urlsplit(section.source)
    if parts.username is not None:
        raise DataError(f"{where}: a URL with a user or a password is not fetched; download the file and give its path")
    name = PurePosixPath(unquote(parts.path)).name
    format = section.format or _ENDINGS.get(name.lower().removesuffix(".gz").rpartition(".")[2])
    openers: dict[str | None, Callable[[Path], TableSource]] = {
        "csv": lambda path: Csv(path, where, section.missing, section.decimal),
        "jsonl": lambda path: JsonLines(path, where),
        "parquet": lambda path: Parquet([path], where),
    }
    if format not in openers:
        told = "cannot tell what it holds from its ending" if format is None else f"{format} is not read from the web"
        raise DataError(f"{where}: {told}; give data.format: csv, parquet or jsonl, or download the file and give its path as data.source")
    escaped = parts._replace(
        path=quote(parts.path, safe="/%:@!$&'()*+,;=~"), query=quote(parts.query, safe="/%:@!$&'()*+,;=~?"), fragment=""
    )
    ending = f".{format}{'.gz' if name.lower().endswith('.gz') else ''}"  # the name itself may hold anything
    return Web(urlunsplit(escaped), where, ending, openers[format], section.sha256, section.max_download)


class Web(TableSource):
    """A table source whose file comes from elsewhere when it is first needed."""

    def __init__(self, url: str, where: str, ending: str, opened: Callable[[Path], TableSource], sha256: str | None, limit: int) -> None:
        self.url, self.where, self.ending, self._opened = url, where, ending, opened
        self.sha256, self.limit = sha256, limit
        self._inner: TableSource | None = None
        self.loose, self.objects = opened(Path()).loose, opened(Path()).objects

    @property
    def inner(self) -> TableSource:
        """The file as a source of its own; fetched on first use."""
        if self._inner is None:
            self._inner = self._opened(fetch_url(self.url, self.ending, self.sha256, self.limit, self.progress))
        return self._inner

    @property
    def comma(self) -> bool:  # type: ignore[override]
        return self.inner.comma

    def place(self, row: int) -> str:
        return self.inner.place(row)

    def identity(self) -> str:
        return self.inner.identity()

    def relation(self, con: Any, types: Mapping[str, str] | None = None, *, forgiving: bool = False) -> str:
        return self.inner.relation(con, types, forgiving=forgiving)

    def structural_errors(self, con: Any) -> list[BadRow]:
        return self.inner.structural_errors(con)


def fetch_url(url: str, ending: str, known: str | None, limit: int, progress: Progress | Silent, *, wait: float = 1.0) -> Path:
    """The local copy of the file at ``url``, the present version of it.

    Args:
        ending: of the copy's name.
        known: SHA-256 that the file must have.
        limit: bytes; a larger file is refused.
        wait: seconds before the second attempt.

    Raises:
        DataError: it cannot be reached, is a web page, is too large, or has another SHA-256.
        StorageError: the cache cannot be written.
    """
    path = home() / "data" / "web" / hashlib.sha256(url.encode()).hexdigest()[:24] / f"file{ending}"
    with explaining_storage(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with alone(path):
            have = file_hash(path) if path.exists() else None
            note = _note(path)
            whole = have is not None and have == note.get("sha256")
            if whole and (have == known or (known is None and time.monotonic() - _asked.get(path, -_FRESH) < _FRESH)):
                return path
            version = Validator(str(note.get("etag", "")), str(note.get("modified", ""))) if whole and known is None else None
            part = path.with_name(path.name + ".part")
            advice = "download the file by other means and give its path as data.source"
            if whole and known is None:
                advice = f"write data.sha256: {have} to use the copy of {note.get('fetched')} without asking"
            now = download(url, part, progress, known=known, unless=version, limit=limit, wait=wait, advice=advice)
            if now is not None:
                _settle(url, part, path, known, now)
            _asked[path] = time.monotonic()
    return path


def _settle(url: str, part: Path, path: Path, known: str | None, version: Validator) -> None:
    """Look at what came; what is right becomes the copy."""
    found = sha256(part)
    with open(part, "rb") as f:
        page = is_web_page(f.read(1024))
    if page or (known is not None and found != known):
        part.unlink()
        raise DataError(
            f"{url} answers with a web page, not with a file; use the address that the download button leads to (a 'raw' link)"
            if page
            else f"{url} has SHA-256 {found}, and data.sha256 expects {known}; what came was thrown away. "
            "If the file was changed on purpose, write its new hash into the recipe"
        )
    note = version._asdict() | {"url": url, "sha256": found, "fetched": time.strftime("%Y-%m-%d %H:%M", time.gmtime())}
    settle(part, path)
    write_bytes(path.with_name(path.name + ".note"), json.dumps(note).encode())


def _note(path: Path) -> dict[str, Any]:
    """What is known of the copy; nothing where it is not there or damaged: the file then comes again."""
    try:
        note = json.loads(path.with_name(path.name + ".note").read_text())
    except (OSError, ValueError):
        return {}
    return note if isinstance(note, dict) else {}

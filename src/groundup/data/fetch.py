"""Fetching a file once: from a local mirror, from the cache, or from where it is published, always held to its SHA-256.

An interrupted download is kept as ``<file>.part`` and goes on where it stood (HTTP Range); a file that is not what was promised is
thrown away; ``<file>`` itself is there whole or not at all.  ``GROUNDUP_DATA`` names a folder with ``<data set>/<file>`` in it
(plain or with a further .gz), for machines without a network.
"""

from __future__ import annotations

import fcntl
import gzip
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from groundup.bundle.files import explaining_storage, fsync_dir, sha256
from groundup.data.download import download
from groundup.data.hashing import file_hash, home
from groundup.errors import DataError
from groundup.progress import Progress, Silent

_BY_HAND = "put the file into a folder and name that folder's parent in GROUNDUP_DATA"


class Remote(NamedTuple):
    """A published file.

    Attributes:
        url: where it is published.
        sha256: of its bytes as published.
    """

    url: str
    sha256: str

    @property
    def name(self) -> str:
        return self.url.rsplit("/", 1)[-1]


def fetch(dataset: str, remote: Remote, progress: Progress | Silent | None = None, *, wait: float = 1.0) -> Path:
    """The local path of ``remote``, verified.

    Args:
        dataset: folder in the mirror and in the cache.
        wait: seconds before the second attempt; doubled with each further one.

    Raises:
        DataError: it cannot be reached, or is not the file that was promised.
        StorageError: the cache cannot be written.
    """
    mirrored = _mirrored(dataset, remote)
    if mirrored is not None and mirrored.suffix == Path(remote.name).suffix:
        return mirrored
    path = home() / "data" / dataset / remote.name
    if path.exists() and file_hash(path) == remote.sha256:
        return path
    with explaining_storage(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with alone(path):
            if path.exists() and file_hash(path) == remote.sha256:  # another process was faster
                return path
            part = path.with_name(path.name + ".part")
            if mirrored is not None:
                with gzip.open(mirrored, "rb") as source, open(part, "wb") as f:
                    shutil.copyfileobj(source, f)
            else:
                download(remote.url, part, progress or Silent(), known=remote.sha256, wait=wait, advice=_BY_HAND)
            found = sha256(part)
            if found != remote.sha256:
                part.unlink()
                raise DataError(
                    f"{remote.url} is not the file that was promised: "
                    f"SHA-256 {found[:16]}…, expected {remote.sha256[:16]}…; it was thrown away. "
                    f"Try again; if it stays so, the publisher changed it"
                )
            settle(part, path)
    return path


def settle(part: Path, path: Path) -> None:
    """A whole part becomes the file."""
    with open(part, "rb") as f:
        os.fsync(f.fileno())
    os.replace(part, path)
    fsync_dir(path.parent)


def _mirrored(dataset: str, remote: Remote) -> Path | None:
    """The file in ``GROUNDUP_DATA``, plain or compressed once more.

    Raises:
        DataError: it is there with other content.
    """
    mirror = os.environ.get("GROUNDUP_DATA")
    if not mirror:
        return None
    plain = Path(mirror) / dataset / remote.name
    packed = plain.with_name(plain.name + ".gz")
    if plain.exists():
        if (found := file_hash(plain)) != remote.sha256:
            raise DataError(
                f"{plain} (from GROUNDUP_DATA) has SHA-256 {found[:16]}…, expected {remote.sha256[:16]}…; replace it or remove it"
            )
        return plain
    return packed if packed.exists() else None


@contextmanager
def alone(path: Path) -> Iterator[None]:
    """One process at a time; the lock goes with the process that holds it."""
    with open(path.with_name(path.name + ".lock"), "wb") as f:
        fcntl.flock(f, fcntl.LOCK_EX)
        yield

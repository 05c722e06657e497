"""Files that are written whole or not at all, and hashes of what was written.

The order is the one that survives a crash (Pillai et al., "All File Systems Are Not Created Equal", OSDI 2014):
temporary name in the same folder, write, fsync the file, rename, fsync the folder.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from groundup.errors import StorageError


def sha256(path: Path) -> str:
    """Hex SHA-256 of a file, in constant memory."""
    with open(path, "rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def fsync_dir(path: Path) -> None:
    """Make a folder's entries durable."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


@contextmanager
def explaining_storage(path: Path) -> Iterator[None]:
    """Turn the operating system's 'no' while writing below ``path`` into a :class:`StorageError` that says what to do."""
    try:
        yield
    except OSError as e:
        advice = {
            errno.ENOSPC: "the disk is full: free some space and run the same command again; what was finished is kept",
            errno.EDQUOT: "the quota is used up: free some space and run the same command again",
            errno.EROFS: "the file system is read-only: choose another folder (--output, or GROUNDUP_HOME)",
            errno.EACCES: "no permission to write there: change the folder's owner or choose another one",
            errno.EPERM: "no permission to write there: change the folder's owner or choose another one",
        }.get(e.errno or 0)
        if advice is None or isinstance(e, StorageError):
            raise
        raise StorageError(f"cannot write {path}: {advice}") from e


def write_bytes(path: Path, data: bytes) -> None:
    """Replace ``path`` by ``data``; a reader sees the old file or the new one, never a part."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with explaining_storage(path):
        try:
            with open(temporary, "wb") as f:
                f.write(data)
                f.flush()
                os.fsync(f.fileno())
            os.replace(temporary, path)
            fsync_dir(path.parent)
        finally:
            temporary.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """:func:`write_bytes` of readable, stable JSON (NaN and infinity are refused)."""
    text = json.dumps(value, indent=2, sort_keys=False, ensure_ascii=False, allow_nan=False)
    write_bytes(path, (text + "\n").encode())


@contextmanager
def whole_directory(path: Path) -> Iterator[Path]:
    """Give a temporary folder to fill; on success it becomes ``path`` in one rename, on any error it is removed.

    A ``path`` that exists already is replaced.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with explaining_storage(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()
        try:
            yield temporary
            for root, _, names in os.walk(temporary):
                for name in names:
                    fd = os.open(os.path.join(root, name), os.O_RDONLY)
                    try:
                        os.fsync(fd)
                    finally:
                        os.close(fd)
                fsync_dir(Path(root))
            if path.exists():
                old = path.with_name(f".{path.name}.{os.getpid()}.old")
                os.replace(path, old)
                os.replace(temporary, path)
                shutil.rmtree(old)
            else:
                os.replace(temporary, path)
            fsync_dir(path.parent)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)

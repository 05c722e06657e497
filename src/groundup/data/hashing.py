"""Content hashes of files, remembered by path, size and times, so that a cache key costs nothing the second time."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path

from groundup.bundle.files import sha256, write_bytes


def home() -> Path:
    """``GROUNDUP_HOME``, or ~/.cache/groundup."""
    return Path(os.environ.get("GROUNDUP_HOME") or Path.home() / ".cache" / "groundup")


def file_hash(path: Path) -> str:
    """Hex SHA-256 of a file's bytes; remembered while path, inode, size and both times stay the same."""
    return _remembered(_stamp(path), lambda: sha256(path))


def folder_hash(paths: list[Path], base: Path) -> str:
    """Hex SHA-256 over names (relative to ``base``) and contents of files; remembered as a whole."""
    paths = sorted(paths)

    def compute() -> str:
        digest = hashlib.sha256()
        for path in paths:
            digest.update(f"{path.relative_to(base).as_posix()}\0{sha256(path)}\n".encode())
        return digest.hexdigest()

    return _remembered("\n".join(map(_stamp, paths)), compute)


def _stamp(path: Path) -> str:
    info = path.stat()
    return f"{path.absolute()}\0{info.st_ino}\0{info.st_size}\0{info.st_mtime_ns}\0{info.st_ctime_ns}"


def _remembered(stamp: str, compute: Callable[[], str]) -> str:
    note = home() / "hashes" / (hashlib.sha256(stamp.encode()).hexdigest()[:32] + ".json")
    try:
        return str(json.loads(note.read_text())["sha256"])
    except (OSError, ValueError, KeyError):  # not hashed yet, or a damaged note
        digest = compute()
    try:
        note.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(note, json.dumps({"sha256": digest}).encode())
    except OSError:  # a home that cannot be written costs time, nothing else
        return digest
    return digest

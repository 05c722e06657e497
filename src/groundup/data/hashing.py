"""Content hashes of files, remembered by path, size and time of change, so that a cache key costs nothing the second time."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

from groundup.bundle.files import sha256, write_bytes


def home() -> Path:
    """``GROUNDUP_HOME``, or ~/.cache/groundup."""
    return Path(os.environ.get("GROUNDUP_HOME") or Path.home() / ".cache" / "groundup")


def file_hash(path: Path) -> str:
    """Hex SHA-256 of a file's bytes; memoised while path, inode, size and both times stay the same."""
    info = path.stat()
    key = f"{path.resolve()}\0{info.st_ino}\0{info.st_size}\0{info.st_mtime_ns}\0{info.st_ctime_ns}"
    note = home() / "hashes" / (hashlib.sha256(key.encode()).hexdigest()[:32] + ".json")
    try:
        return str(json.loads(note.read_text())["sha256"])
    except (OSError, ValueError, KeyError):  # not hashed yet, or a damaged note: hash
        digest = sha256(path)
    try:
        note.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(note, json.dumps({"sha256": digest}).encode())
    except OSError:  # a home that cannot be written only costs time
        return digest
    return digest


def folder_hash(paths: list[Path], base: Path) -> str:
    """Hex SHA-256 over names (relative to ``base``) and contents."""
    digest = hashlib.sha256()
    for path in sorted(paths):
        digest.update(f"{path.relative_to(base).as_posix()}\0{file_hash(path)}\n".encode())
    return digest.hexdigest()

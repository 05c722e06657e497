"""Stage outputs by content: a directory is named by the hash of everything that it depends on.

Layout of a home folder (``.groundup`` beside the recipe unless told otherwise)::

    cache/<stage>/<key>/      an output, written whole or not at all; key.json says what the key was made of
    cache/<stage>/<key>.lock  held (flock) while somebody makes it; the system releases it when that process dies
    work/<stage>-<key>/       what a stage keeps across interruptions; removed when it has succeeded
    runs/<id>/run.json        what ran, from which keys, how long
"""

from __future__ import annotations

import fcntl
import functools
import hashlib
import importlib.metadata
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import groundup
from groundup.bundle.files import explaining_storage, make_folder, write_json

# What can change a stage's output besides groundup's own code.
LIBRARIES = ("numpy", "pandas", "scikit-learn", "torch", "onnx", "onnxruntime", "skl2onnx", "duckdb", "optuna", "mlflow", "datasketches")


@functools.cache
def environment() -> dict[str, str]:
    """Versions of the libraries that outputs depend on; absent ones are left out."""
    versions = {}
    for library in LIBRARIES:
        try:
            versions[library] = importlib.metadata.version(library)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


@functools.cache
def code_hash() -> str:
    """Hash of groundup's own source, without what only shows things (the command line)."""
    package = Path(groundup.__file__).parent
    digest = hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        relative = path.relative_to(package).as_posix()
        if relative.startswith(("cli", "console", "summary")):
            continue
        digest.update(relative.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]


def key_of(inputs: dict[str, Any]) -> str:
    """First 16 hex digits of the SHA-256 of the inputs' canonical JSON."""
    return hashlib.sha256(json.dumps(inputs, sort_keys=True, ensure_ascii=False).encode()).hexdigest()[:16]


_WAIT = 0.1  # seconds between looks at a lock that another run holds


class Cache:
    """The outputs below one home folder."""

    def __init__(self, home: Path) -> None:
        self.home = home

    def directory(self, stage: str, key: str) -> Path:
        """Where the output of a stage with this key is, or will be."""
        return self.home / "cache" / stage / key

    def work(self, stage: str, key: str) -> Path:
        """The folder that outlives an interruption of this stage."""
        return self.home / "work" / f"{stage}-{key}"

    def has(self, stage: str, key: str) -> bool:
        """Whether the output is there; directories are whole, so looking for its last-written file is enough."""
        return (self.directory(stage, key) / "output.json").is_file()

    def why_not(self, stage: str, inputs: dict[str, Any]) -> str:
        """Why these inputs are not cached: what differs from the newest output of this stage."""
        folder = self.home / "cache" / stage
        made = [p for p in folder.glob("*/key.json") if not p.parent.name.startswith(".")]
        if not made:
            return "never run here"
        newest = max(made, key=lambda p: p.stat().st_mtime)
        differences = list(_differences(json.loads(newest.read_text()), inputs))
        if not differences:
            return "its output was removed"
        return "; ".join(differences[:3]) + (f"; and {len(differences) - 3} more" if len(differences) > 3 else "")

    @contextmanager
    def lock(self, stage: str, key: str, waiting: Callable[[str], None], check: Callable[[], None] = lambda: None) -> Iterator[None]:
        """Hold the right to make one output.

        Args:
            waiting: called with the holder's process id if another run has it.
            check: called now and then meanwhile; what it raises ends the waiting.
        """
        path = self.directory(stage, key).with_name(f"{key}.lock")
        with explaining_storage(path):
            make_folder(path.parent)
            fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            if not _locked(fd):
                waiting(os.pread(fd, 20, 0).decode(errors="replace").strip() or "?")
                while not _locked(fd):  # a lock that is waited for inside the system is deaf to signals
                    check()
                    time.sleep(_WAIT)
            with explaining_storage(path):
                os.truncate(fd, 0)
                os.pwrite(fd, str(os.getpid()).encode(), 0)
            self._sweep(path.parent, key)
            yield
        finally:
            os.close(fd)

    @staticmethod
    def _sweep(folder: Path, mine: str) -> None:
        """Remove what killed runs left half made: nobody else can be writing what is locked by this process, or by none."""
        for left in folder.glob(".*.making"):
            key = left.name.split(".")[1]
            if key != mine:
                with open(folder / f"{key}.lock", "a") as lock:
                    if _locked(lock.fileno()):
                        shutil.rmtree(left, ignore_errors=True)
            else:
                shutil.rmtree(left, ignore_errors=True)

    def record(self, directory: Path, inputs: dict[str, Any]) -> None:
        """Leave in an output what its key was made of."""
        write_json(directory / "key.json", inputs)


def _locked(fd: int) -> bool:
    """Take the lock on an open file, if nobody has it."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _differences(old: Any, new: Any, path: str = "") -> Iterator[str]:
    if isinstance(old, dict) and isinstance(new, dict):
        for name in sorted(old.keys() | new.keys()):
            yield from _differences(old.get(name), new.get(name), f"{path}.{name}" if path else name)
    elif old != new:
        match path.partition(".")[0]:
            case "code":
                yield "groundup's code changed"
            case "needs":
                yield f"{path.partition('.')[2]} is new"
            case "data":
                yield "the data changed"
            case "libraries":
                yield f"{path.partition('.')[2]} {old} became {new}"
            case _:
                yield f"{path}: {_short(old)} became {_short(new)}"


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 40 else text[:37] + "..."

"""The entries of a bundle's folder: plain files with harmless names, and nothing else.

Refused: names that leave the folder, symbolic links, hard links (a second name elsewhere can change the file), pipes, devices.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from groundup.errors import BundleError

MANIFEST = "bundle.json"


@contextmanager
def plain_file(path: Path) -> Iterator[BinaryIO]:
    """A file opened for reading.

    Raises:
        BundleError: it is missing, a link, a pipe or a device, or it has a second name.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)  # a pipe would block for ever
    except OSError as e:
        raise BundleError(f"{path}: cannot be opened ({e.strerror}); links are refused in bundles") from e
    try:
        info = os.fstat(fd)
        if not stat.S_ISREG(info.st_mode):
            raise BundleError(f"{path} is not a plain file; refused")
        if info.st_nlink > 1:
            raise BundleError(f"{path} is a hard link to a file elsewhere ({info.st_nlink} names); refused, copy the bundle instead")
        with os.fdopen(fd, "rb", closefd=False) as f:
            yield f
    finally:
        os.close(fd)


def safe_name(folder: Path, name: str) -> str:
    """``name`` if it stays inside the folder, else an error."""
    parts = PurePosixPath(name).parts
    if (
        not parts
        or name.startswith("/")
        or "\\" in name
        or "\0" in name
        or any(p in {"..", "."} for p in parts)
        or str(PurePosixPath(name)) != name
    ):
        raise BundleError(f"{folder / MANIFEST}: the path {name!r} leaves the bundle's folder; refused")
    if name == MANIFEST:
        raise BundleError(f"{folder / MANIFEST}: a manifest does not list itself")
    return name


def walk(folder: Path) -> set[str]:
    """Relative paths of all plain files; anything else in the folder is refused."""

    def unreadable(e: OSError) -> None:
        raise BundleError(f"{e.filename}: cannot be read ({e.strerror}); a bundle must be readable as a whole") from e

    found = set()
    for root, directories, names in os.walk(folder, onerror=unreadable):
        for entry in directories + names:
            path = Path(root, entry)
            if path.is_symlink():
                raise BundleError(f"{path} is a symbolic link; links are refused in bundles")
        for entry in names:
            path = Path(root, entry)
            info = path.stat(follow_symlinks=False)
            if not stat.S_ISREG(info.st_mode):
                raise BundleError(f"{path} is not a plain file; refused")
            if info.st_nlink > 1:
                raise BundleError(f"{path} is a hard link to a file elsewhere ({info.st_nlink} names); refused, copy the bundle instead")
            found.add(path.relative_to(folder).as_posix())
    return found

"""NumPy archives: ``x`` (or X, images) holds the samples, ``y`` (or labels, targets) a label each.

uint8 of shape (N, H, W) or (N, H, W, C) are images, all else are tensors.  Nothing is unpickled: an archive with Python
objects is refused.  Arrays are unpacked into files and mapped, so an archive may be larger than memory.
"""

from __future__ import annotations

import shutil
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from groundup.data.settings import Data
from groundup.data.sources import existing
from groundup.data.sources.base import Arrays, ArraySource, Source
from groundup.errors import DataError

_X, _Y = ("x", "X", "images"), ("y", "Y", "labels", "targets")


def claim(section: Data, root: Path) -> Source | None:
    name = section.source.lower()
    if "://" in name or (section.format != "npz" and (section.format is not None or not name.endswith(".npz"))):
        return None
    return Npz(existing(section, root), section.source, section.target)


class Npz(ArraySource):
    def __init__(self, path: Path, where: str, target: str | None) -> None:
        self.path, self.where, self.wanted = path, where, target

    def identity(self) -> str:
        from groundup.data.hashing import file_hash

        return file_hash(self.path)

    def samples(self, work: Path) -> NDArray[Any]:
        """The samples without labels: uint8 (N, H, W, C) for images, float32 (N, ...) for tensors."""
        with self._opened() as (archive, names):
            x = self._shaped(self._array(archive, self._one(names, _X, "samples"), work))
        if _kind(x) == "tensor":
            return self._tensor(x, work)
        return x[..., None] if x.ndim == 3 else x

    def load(self, work: Path, limit: int | None = None) -> Arrays:
        with self._opened() as (archive, names):
            x = self._shaped(self._array(archive, self._one(names, _X, "samples"), work))
            target = self._one(names, (self.wanted,) if self.wanted else _Y, "labels")
            y = self._array(archive, target, work)
        if y.ndim != 1 or len(y) != len(x):
            raise DataError(f"{self.where}: expected one label for each of {len(x)} samples, got an array of shape {y.shape}")
        x, y = x[:limit], np.asarray(y[:limit])
        kind = _kind(x)
        if kind == "image" and x.ndim == 3:
            x = x[..., None]
        if kind == "tensor":
            x = self._tensor(x, work)
        return Arrays(self.where, kind, x, _labels(y), target=target)

    @contextmanager
    def _opened(self) -> Iterator[tuple[zipfile.ZipFile, list[str]]]:
        """The archive and the names of its arrays."""
        try:
            with zipfile.ZipFile(self.path) as archive:
                yield archive, [n.removesuffix(".npy") for n in archive.namelist() if n.endswith(".npy")]
        except (zipfile.BadZipFile, EOFError) as e:
            raise DataError(f"{self.where} is no readable NumPy archive: {e}; write it again with numpy.savez") from e

    def _shaped(self, x: NDArray[Any]) -> NDArray[Any]:
        if x.ndim < 2 or len(x) == 0 or min(x.shape) == 0:
            raise DataError(f"{self.where}: expected samples of shape (N, ...), got {x.shape}")
        return x

    def _one(self, names: list[str], wanted: tuple[str, ...], what: str) -> str:
        found = [n for n in wanted if n in names]
        if len(found) != 1:
            raise DataError(
                f"{self.where}: expected the {what} under one of {', '.join(wanted)}; it holds {', '.join(names) or 'no arrays'}"
            )
        return found[0]

    def _array(self, archive: zipfile.ZipFile, name: str, work: Path) -> NDArray[Any]:
        unpacked = work / f"npz-{name}.npy"
        with archive.open(name + ".npy") as source, open(unpacked, "wb") as f:
            shutil.copyfileobj(source, f, 1 << 20)
        try:
            return np.asanyarray(np.load(unpacked, mmap_mode="r", allow_pickle=False))
        except ValueError as e:
            raise DataError(
                f"{self.where}: {name!r} cannot be read ({e}); store plain numbers or text, Python objects are never unpickled"
            ) from e

    def _tensor(self, x: NDArray[Any], work: Path) -> NDArray[Any]:
        if x.dtype.kind not in "fiub":
            raise DataError(f"{self.where}: expected numbers as samples, got {x.dtype}")
        out = np.lib.format.open_memmap(work / "npz-float32.npy", "w+", np.float32, x.shape)
        for start in range(0, len(x), 1024):
            out[start : start + 1024] = x[start : start + 1024]
        return out


def _kind(x: NDArray[Any]) -> Literal["image", "tensor"]:
    return "image" if x.dtype == np.uint8 and x.ndim in (3, 4) else "tensor"


def _labels(y: NDArray[Any]) -> NDArray[Any]:
    """Floats as they are (a regression's targets); all else as text."""
    if y.dtype.kind == "f":
        return y
    if y.dtype.kind == "b":
        return np.where(y, "true", "false").astype(object)
    return y.astype(str).astype(object)

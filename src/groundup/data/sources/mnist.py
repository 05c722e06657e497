"""MNIST: 70,000 handwritten digits, 28 × 28 grey, in the idx format of its authors; the 60,000 published for training come first."""

from __future__ import annotations

import gzip
import hashlib
import struct
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from groundup.data.fetch import Remote, fetch
from groundup.data.settings import Data
from groundup.data.sources import Entry
from groundup.data.sources.base import Arrays, ArraySource, Source
from groundup.errors import DataError

LISTING = [
    Entry("mnist", "image-classification", 70_000, "CC BY-SA 3.0", "storage.googleapis.com, 11.6 MB: handwritten digits, 28 × 28 grey")
]
_URL = "https://storage.googleapis.com/cvdf-datasets/mnist"
_FILES = (
    Remote(f"{_URL}/train-images-idx3-ubyte.gz", "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609"),
    Remote(f"{_URL}/train-labels-idx1-ubyte.gz", "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c"),
    Remote(f"{_URL}/t10k-images-idx3-ubyte.gz", "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6"),
    Remote(f"{_URL}/t10k-labels-idx1-ubyte.gz", "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6"),
)


def claim(section: Data, root: Path) -> Source | None:
    return Mnist() if section.format is None and section.source == "mnist" else None


class Mnist(ArraySource):
    where, target, task = "mnist", "digit", "image-classification"

    def identity(self) -> str:
        return hashlib.sha256("".join(f.sha256 for f in _FILES).encode()).hexdigest()

    def load(self, work: Path, limit: int | None = None) -> Arrays:
        train_x, train_y, test_x, test_y = (read_idx(fetch(self.where, f, self.progress)) for f in _FILES)
        x = np.concatenate([train_x, test_x])[:limit, ..., None]
        y = np.concatenate([train_y, test_y])[:limit].astype(str).astype(object)
        return Arrays(self.where, "image", x, y, self.target, self.task)


def read_idx(path: Path) -> NDArray[Any]:
    """An array of unsigned bytes in the idx format: two zero bytes, type 8, number of axes, each length big-endian, the bytes.

    Raises:
        DataError: it is something else.
    """
    with gzip.open(path, "rb") as f:
        content = f.read()
    if content[:3] != b"\0\0\x08":
        raise DataError(f"{path}: expected an idx file of unsigned bytes, got the start {content[:4].hex()}")
    axes = content[3]
    shape = struct.unpack(f">{axes}I", content[4 : 4 + 4 * axes])
    return np.frombuffer(content, np.uint8, offset=4 + 4 * axes).reshape(shape)

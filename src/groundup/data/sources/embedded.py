"""Small real data sets that come with scikit-learn: nothing to download."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from groundup.data.settings import Data
from groundup.data.sources import Entry
from groundup.data.sources.base import Arrays, ArraySource, Source, TableSource

LISTING = [
    Entry("digits", "image-classification", 1797, "CC BY 4.0 (UCI)", "with scikit-learn: handwritten digits, 8 × 8 grey"),
    Entry("breast_cancer", "tabular-classification", 569, "CC BY 4.0 (UCI)", "with scikit-learn: Wisconsin diagnostic, 30 numbers"),
    Entry("diabetes", "tabular-regression", 442, "public (Efron et al. 2004)", "with scikit-learn: disease progression, 10 numbers"),
    Entry("iris", "tabular-classification", 150, "CC BY 4.0 (UCI)", "with scikit-learn: Fisher's flowers, 4 numbers"),
    Entry("wine", "tabular-classification", 178, "CC BY 4.0 (UCI)", "with scikit-learn: three cultivars, 13 numbers"),
]
_TARGETS = {"breast_cancer": "diagnosis", "diabetes": "progression", "iris": "species", "wine": "cultivar"}


def claim(section: Data, root: Path) -> Source | None:
    if section.format is not None:
        return None
    if section.source == "digits":
        return Digits()
    if section.source in _TARGETS:
        return Table(section.source)
    return None


class Digits(ArraySource):
    """1,797 digits; the 17 ink levels 0..16 are spread over the bytes 0..255."""

    where, target, task = "digits", "digit", "image-classification"

    def identity(self) -> str:
        return _identity(self.where)

    def load(self, work: Path, limit: int | None = None) -> Arrays:
        from sklearn.datasets import load_digits

        data = load_digits()
        x = np.round(data.images * 255 / 16).astype(np.uint8)[..., None]  # (N, 8, 8, 1)
        y = data.target.astype(str).astype(object)
        return Arrays("digits", "image", x[:limit], y[:limit], target="digit", task=self.task)


class Table(TableSource):
    """One of scikit-learn's tables, column names with underscores."""

    def __init__(self, name: str) -> None:
        self.where, self.target = name, _TARGETS[name]
        self.task = next(entry.task for entry in LISTING if entry.name == name)

    def identity(self) -> str:
        return _identity(self.where)

    def relation(self, con: Any, types: Mapping[str, str] | None = None, *, forgiving: bool = False) -> str:
        import pyarrow as pa
        from sklearn import datasets

        loaders: dict[str, Callable[..., Any]] = {
            "breast_cancer": datasets.load_breast_cancer,
            "iris": datasets.load_iris,
            "wine": datasets.load_wine,
        }
        data = datasets.load_diabetes(scaled=False) if self.where == "diabetes" else loaders[self.where]()
        names = [str(n).replace(" (cm)", "").replace("/", "_").replace(" ", "_") for n in data.feature_names]
        columns = dict(zip(names, data.data.T, strict=True))
        if self.where == "diabetes":  # coded 1 and 2; which is which is not recorded
            columns["sex"] = columns["sex"].astype(np.int64).astype(str)
            columns[self.target or ""] = data.target
        else:
            columns[self.target or ""] = np.array(data.target_names, dtype=object)[data.target]
        con.register("embedded", pa.table({name: pa.array(values) for name, values in columns.items()}))
        return "embedded"


def _identity(name: str) -> str:
    import sklearn

    return hashlib.sha256(f"{name} of scikit-learn {sklearn.__version__}".encode()).hexdigest()

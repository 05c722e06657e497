"""Well-known tables, fetched from where they are published and held to their SHA-256."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from groundup.data.fetch import Remote, fetch
from groundup.data.settings import MISSING, Data
from groundup.data.sources import Entry
from groundup.data.sources.base import Source, TableSource, text

_UCI = "https://archive.ics.uci.edu/ml/machine-learning-databases"
_GITHUB = "https://raw.githubusercontent.com"
_ADULT = [
    "age",
    "workclass",
    "fnlwgt",
    "education",
    "education_num",
    "marital_status",
    "occupation",
    "relationship",
    "race",
    "sex",
    "capital_gain",
    "capital_loss",
    "hours_per_week",
    "native_country",
    "income",
]


class _Table(NamedTuple):
    entry: Entry
    target: str
    files: tuple[Remote, ...]


_TABLES = {
    t.entry.name: t
    for t in (
        _Table(
            Entry("adult", "tabular-classification", 48_842, "CC BY 4.0 (UCI)", "archive.ics.uci.edu, 5.7 MB: census income over $50,000"),
            "income",
            (
                Remote(f"{_UCI}/adult/adult.data", "5b00264637dbfec36bdeaab5676b0b309ff9eb788d63554ca0a249491c86603d"),
                Remote(f"{_UCI}/adult/adult.test", "a2a9044bc167a35b2361efbabec64e89d69ce82d9790d2980119aac5fd7e9c05"),
            ),
        ),
        _Table(
            Entry("titanic", "tabular-classification", 891, "not stated", "github.com/datasciencedojo/datasets, 60 kB: who survived"),
            "Survived",
            (
                Remote(
                    f"{_GITHUB}/datasciencedojo/datasets/master/titanic.csv",
                    "4a437fde05fe5264e1701a7387ac6fb75393772ba38bb2c9c566405af5af4bd7",
                ),
            ),
        ),
        _Table(
            Entry("california_housing", "tabular-regression", 20_640, "Apache-2.0", "github.com/ageron/handson-ml, 1.4 MB: house values"),
            "median_house_value",
            (
                Remote(
                    f"{_GITHUB}/ageron/handson-ml/master/datasets/housing/housing.csv",
                    "8a3727f4cf54ac1a327f69b1d5b4db54c5834ea81c6e4efc0d163300022a685e",
                ),
            ),
        ),
    )
}
LISTING = [t.entry for t in _TABLES.values()]


def claim(section: Data, root: Path) -> Source | None:
    return Published(_TABLES[section.source]) if section.format is None and section.source in _TABLES else None


class Published(TableSource):
    def __init__(self, table: _Table) -> None:
        self.where, self.target, self.task, self._files = table.entry.name, table.target, table.entry.task, table.files

    def identity(self) -> str:
        return hashlib.sha256("".join(f.sha256 for f in self._files).encode()).hexdigest()  # known without a download

    def relation(self, con: Any, types: Mapping[str, str] | None = None, *, forgiving: bool = False) -> str:
        paths = [text(str(fetch(self.where, f, self.progress))) for f in self._files]
        if self.where != "adult":
            return f"read_csv({paths[0]}, header=true, nullstr=[{', '.join(map(text, MISSING))}])"
        names = ", ".join(map(text, _ADULT))
        read = "SELECT * REPLACE (rtrim(income, '.') AS income) FROM "
        read += "read_csv({}, skip={}, header=false, delim=', ', quote='', nullstr='?', names=[{}])"
        # as published: training and test file, the second with a line to skip and a full stop after each label
        return "(" + " UNION ALL ".join(read.format(path, skip, names) for path, skip in zip(paths, (0, 1), strict=True)) + ")"

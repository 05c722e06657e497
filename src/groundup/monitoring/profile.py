"""What the training data looked like, column by column: the reference that live traffic is compared with.

    profile = Profile.start(fields)            # fields: the inputs (or outputs) of the bundle's signature
    for batch in batches: profile.update(batch)   # {"age": float64 (N,), ...} in the tensor convention
    profile.freeze()                           # fixes the bins
    for batch in batches: profile.count(batch)    # second pass: exact counts in these bins

Everything is kept in constant memory.  Without the second pass the counts are read off the sketches: exact for
categories and for numbers with few values, otherwise worth those of a sample of about ten thousand rows (``bins[..].rows``), and the
drift tests take that into account.  :meth:`Profile.of` does all steps on arrays in memory.

Bins of a number: ten quantiles with open ends, or one bin a value where there are few values (or much mass on one), and
a bin for missing.  Bins of a category: the fifty most frequent that are not rare, the others, missing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from groundup.bundle.signature import Field
from groundup.errors import BundleError
from groundup.monitoring.columns import Column, columns_of, derive
from groundup.monitoring.sketches import Categories, Numbers, count_strings

Array = NDArray[Any]
FORMAT = 1
N_QUANTILES = 10
MAX_CATEGORIES = 50
MIN_COUNT, MIN_SHARE = 20, 0.005  # rarer categories share one bin: those seen twice by luck would be missed in honest traffic
SKETCH_ERROR = 0.005  # rank error of the quantile sketch, assumed when counts are read off it


@dataclass
class Bins:
    """Frozen bins of one column and how many reference rows fell into each.

    Attributes:
        edges: numbers: bin j holds edges[j-1] < x <= edges[j], with open ends; None for categories.
        categories: categories: bin j holds categories[j]; None for numbers.
        counts: float64; E + 1 bins (numbers) or C + 1 (categories, the last for all others), then one for missing.
        rows: how many independent rows the counts are worth; smaller than their sum when read off a sketch.
    """

    edges: Array | None
    categories: list[str] | None
    counts: Array
    rows: float

    def __post_init__(self) -> None:
        self._index = {c: i for i, c in enumerate(self.categories or [])}

    def count(self, x: Array) -> Array:
        """int64 (bins,): how many of the column's values (n,) fall into each bin."""
        out = np.zeros(len(self.counts), np.int64)
        if self.edges is None:
            for text, weight in count_strings(x).items():
                out[-1 if text == "" else self._index.get(text, len(self._index))] += weight
            return out
        known = np.sort(x)  # NaN go to the end; ten look-ups in the sorted values cost less than a look-up for each value
        n = int(np.searchsorted(known, np.nan))
        below = np.searchsorted(known[:n], self.edges, side="right")
        out[:-1] = np.diff(below, prepend=0, append=n)
        out[-1] = len(x) - n
        return out

    def names(self) -> list[str]:
        """A label for each bin, for reports."""
        if self.categories is not None:
            return [*self.categories, "(other)", "(missing)"]
        assert self.edges is not None
        if not len(self.edges):
            return ["any", "(missing)"]
        single = np.nextafter(self.edges[1:], -np.inf) == self.edges[:-1]  # a bin that holds one value alone
        e = [f"{v:.6g}" for v in self.edges]
        between = [f"= {b}" if alone else f"{a} … {b}" for alone, (a, b) in zip(single.tolist(), pairwise(e), strict=True)]
        first = f"< {e[1]}" if len(single) and single[0] else f"≤ {e[0]}"
        return [first, *between, f"> {e[-1]}", "(missing)"]

    def to_dict(self) -> dict[str, Any]:
        where = {"categories": self.categories} if self.edges is None else {"edges": self.edges.tolist()}
        return {**where, "counts": self.counts.tolist(), "rows": self.rows}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Self:
        edges = np.array(data["edges"], np.float64) if "edges" in data else None
        return cls(edges, data.get("categories"), np.array(data["counts"], np.float64), float(data["rows"]))


def bins_of(summary: Numbers | Categories) -> Bins:
    """Bins and first counts from a summary alone."""
    if isinstance(summary, Categories):
        least = max(MIN_COUNT, MIN_SHARE * summary.count)
        top = [(name, count) for name, count in summary.top(MAX_CATEGORIES) if count >= least]
        known = [c for _, c in top]
        counts = np.array([*known, summary.n - sum(known), summary.nulls], np.float64)
        return Bins(None, [name for name, _ in top], counts, float(summary.count))
    if summary.values is not None:
        values = np.array(sorted(summary.values))
        weights = np.array([summary.values[v] for v in values.tolist()], np.float64)
        edges = _edges(_heavy(values, weights))
        bins = Bins(edges, None, np.zeros(len(edges) + 2), float(summary.count))
        np.add.at(bins.counts, np.searchsorted(edges, values), weights)
    else:
        quantiles = summary.sample.quantiles(np.arange(1, N_QUANTILES) / N_QUANTILES)
        edges = _edges(quantiles)
        shares = np.diff(summary.sample.cdf(edges), prepend=0.0, append=1.0)
        rows = min(float(summary.count), 1 / (4 * SKETCH_ERROR**2))  # a sample of this size has the sketch's error
        bins = Bins(edges, None, np.append(shares * summary.n, 0.0), rows)
    bins.counts[-1] = summary.nulls
    bins.counts[-2] += summary.infinite  # of either sign; told apart by the second pass
    return bins


def _heavy(values: Array, weights: Array) -> Array:
    """Of at most 64 values, those that get a bin of their own: all, if few; else those at the quantiles."""
    if len(values) <= 2 * N_QUANTILES:
        return np.repeat(values, 2)
    cdf = np.cumsum(weights) / weights.sum()
    return np.take(values, np.searchsorted(cdf, np.arange(1, N_QUANTILES) / N_QUANTILES))


def _edges(quantiles: Array) -> Array:
    """Sorted edges; a value that repeats has a bin of its own: an edge at it and one just below."""
    values, times = np.unique(quantiles[np.isfinite(quantiles)], return_counts=True)
    with np.errstate(over="ignore"):
        below = np.nextafter(values[times > 1], -np.inf)
    edges: Array = np.unique(np.concatenate([values, below]))
    finite: Array = edges[np.isfinite(edges)]
    return finite


class Profile:
    """Summaries, and once frozen bins, of the columns that ``fields`` give (see ``groundup.monitoring.columns``)."""

    def __init__(self, fields: Sequence[Field]) -> None:
        self.fields = tuple(fields)
        self.rows = 0
        self.columns: dict[str, Column] = {c.name: c for c in columns_of(fields)}
        self.summaries: dict[str, Numbers | Categories] = {
            c.name: Numbers() if c.kind == "number" else Categories() for c in self.columns.values()
        }
        self.bins: dict[str, Bins] | None = None
        self._counted = 0

    @classmethod
    def start(cls, fields: Sequence[Field]) -> Self:
        """An empty profile of the given inputs or outputs."""
        return cls(fields)

    @classmethod
    def of(cls, fields: Sequence[Field], arrays: dict[str, Array]) -> Self:
        """The frozen profile, with exact counts, of arrays in memory."""
        profile = cls(fields)
        profile.update(arrays)
        profile.freeze()
        profile.count(arrays)
        return profile

    def update(self, arrays: dict[str, Array]) -> None:
        """Add one batch of tensors by name; names that are no field are passed over, absent fields are not counted.

        Raises:
            ValueError: the bins are frozen.
        """
        if self.bins is not None:
            raise ValueError("this profile is frozen, so it takes no more data; start another one and merge before freezing")
        for name, x in derive(self.fields, arrays).items():
            self.summaries[name].update(x)
        self.rows += _rows(self.fields, arrays)

    def merge(self, other: Profile) -> None:
        """Add what ``other`` saw of the same fields, before freezing.

        Raises:
            ValueError: the fields differ, or either profile is frozen.
        """
        if list(self.columns) != list(other.columns):
            raise ValueError(f"cannot merge profiles of different columns: {list(self.columns)} and {list(other.columns)}")
        if self.bins is not None or other.bins is not None:
            raise ValueError("cannot merge a frozen profile: its bins were fixed by its own data; merge first, then freeze")
        for name, mine in self.summaries.items():
            mine.merge(other.summaries[name])  # type: ignore[arg-type]  # same column, so the same kind
        self.rows += other.rows

    def freeze(self) -> Self:
        """Fix the bins of every compared column and take their counts from the summaries.  Frozen twice is frozen once."""
        if self.bins is None:
            self.bins = {name: bins_of(s) for name, s in self.summaries.items() if self.columns[name].compared}
        return self

    def count(self, arrays: dict[str, Array]) -> None:
        """Second pass: count one batch in the frozen bins.  The first call throws away the counts read off the sketches.

        Raises:
            ValueError: not frozen yet.
        """
        if self.bins is None:
            raise ValueError("freeze() the profile before the second pass")
        if not self._counted:
            for bins in self.bins.values():
                bins.counts, bins.rows = np.zeros(len(bins.counts)), 0.0
        self._counted += _rows(self.fields, arrays)
        for name, x in derive(self.fields, arrays).items():
            if name in self.bins:
                bins = self.bins[name]
                bins.counts = bins.counts + bins.count(x)
                bins.rows += len(x)

    def to_dict(self) -> dict[str, Any]:
        """JSON-able; :meth:`from_dict` gives the same profile back, which can be merged if it is not frozen."""
        return {
            "format": FORMAT,
            "rows": self.rows,
            "counted": self._counted,
            "fields": [asdict(f) for f in self.fields],
            "columns": {
                name: {
                    "kind": self.columns[name].kind,
                    **_described(summary),
                    "sketch": summary.to_dict(),
                    "bins": self.bins[name].to_dict() if self.bins and name in self.bins else None,
                }
                for name, summary in self.summaries.items()
            },
        }

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Self:
        """Inverse of :meth:`to_dict`.

        Raises:
            BundleError: the profile is of another format or damaged.
        """
        if data.get("format") != FORMAT:
            got = data.get("format")
            raise BundleError(f"expected a profile of format {FORMAT}, got {got!r}; package the model again with this version")
        try:
            profile = cls([Field.from_dict(f) for f in data["fields"]])
            profile.rows, profile._counted = int(data["rows"]), int(data["counted"])
            frozen = {}
            for name, column in profile.columns.items():
                stored = data["columns"][name]
                profile.summaries[name] = (Numbers if column.kind == "number" else Categories).from_dict(stored["sketch"])
                if stored["bins"] is not None:
                    frozen[name] = Bins.from_dict(stored["bins"])
            profile.bins = frozen or None
        except (LookupError, TypeError, ValueError, RuntimeError) as e:  # DataSketches raises IndexError and RuntimeError
            raise BundleError(f"the profile is damaged ({type(e).__name__}: {e}); package the model again") from e
        return profile


def _rows(fields: Sequence[Field], arrays: dict[str, Array]) -> int:
    return max((len(arrays[f.name]) for f in fields if f.name in arrays), default=0)


def _described(s: Numbers | Categories) -> dict[str, Any]:
    """The figures that people read."""
    facts: dict[str, Any] = {"count": s.count, "missing": s.nulls, "distinct": round(s.distinct.estimate())}
    if isinstance(s, Categories):
        return facts | {"top": s.top(10)}
    if not s.n:
        return facts
    numbers = {"mean": s.mean, "std": s.std, "min": s.minimum, "max": s.maximum}
    facts |= {k: v if np.isfinite(v) else None for k, v in numbers.items()}
    percents = (5, 25, 50, 75, 95)
    quantiles = s.sample.quantiles(np.array(percents) / 100).tolist()
    return facts | {"quantiles": {str(percent): q for percent, q in zip(percents, quantiles, strict=True)}}

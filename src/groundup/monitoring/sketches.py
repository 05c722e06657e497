"""Summaries of one column in constant memory that can be merged: counts, moments, quantiles, distinct values, frequent items.

Every summary is deterministic: the same batches in the same order give the same bytes.  That decided the choices:

- Quantiles are the KLL sketch (Karnin, Lang and Liberty 2016, section 4) with its coin replaced by strict alternation.
  DataSketches' KLL draws from a random device that cannot be seeded, so the same data gave another file on every run;
  its t-digest is deterministic, but missed the median by 2.5 % of ranks where this one stays within 0.5 %, at a third of the time.
- Distinct numbers are counted by the k minimum values (Bar-Yossef et al. 2002, estimator 1): hash, keep the k smallest hashes; if
  the k-th smallest is at fraction f of the hash range, about (k - 1) / f values were seen.  DataSketches' HyperLogLog is
  as good, but takes one value a call: 75 ns each against 2 ns here.
- Frequent categories come from DataSketches' frequent-items sketch (Anderson et al. 2017), exact up to 3,072 categories.
"""

from __future__ import annotations

import base64
import hashlib
from collections import Counter
from typing import Any, Self

import datasketches
import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
BLOCK = 16_384  # values handled at once: they stay in the cache while they are sorted
MAX_VALUES = 64  # a numeric column with at most this many values is counted value by value, exactly
LG_MAX_ITEMS = 12  # of the frequent-items sketch: 2**12 slots, of which 3/4 are used
MAX_KEY = 128  # longer strings are cut and end in their hash, so that memory is bounded


def _encode(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _decode(text: str) -> bytes:
    return base64.b64decode(text)


class Distinct:
    """Number of distinct 64-bit hashes seen, by the ``k`` smallest: exact below k, relative error about 1/√k above."""

    def __init__(self, k: int = 512) -> None:
        self.k = k
        self.smallest = np.empty(0, np.uint64)  # sorted, unique, at most k

    def add(self, hashes: Array) -> None:
        """Add uint64 hashes (n,)."""
        if len(self.smallest) == self.k:
            hashes = hashes[hashes < self.smallest[-1]]  # after the first block, almost none are left
        if len(hashes):
            self.smallest = np.unique(np.concatenate([self.smallest, hashes]))[: self.k]

    def estimate(self) -> float:
        if len(self.smallest) < self.k:
            return float(len(self.smallest))
        return (self.k - 1) / ((float(self.smallest[-1]) + 1) / 2.0**64)

    def to_dict(self) -> dict[str, Any]:
        return {"k": self.k, "estimate": self.estimate(), "smallest": _encode(self.smallest.astype("<u8").tobytes())}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Self:
        self = cls(int(data["k"]))
        self.smallest = np.frombuffer(_decode(data["smallest"]), "<u8").astype(np.uint64)
        return self


class Quantiles:
    """KLL quantile sketch: level h holds a sorted sample in which each value stands for 2**h values seen.

    A level that overflows is halved: every second value moves up, the odd and the even ones by turns.  The topmost
    level takes k values, each one below 2/3 of that, so about 3 k are kept in all.  Exact up to k values; rank error
    measured at k = 512 on a million values: 0.45 % random, 0.2 % sorted, 6 kB.
    """

    def __init__(self, k: int = 512) -> None:
        self.k = k
        self.levels: list[Array] = [np.empty(0)]
        self.turns: list[int] = [0]

    def add(self, x: Array) -> None:
        """Add finite float64 (n,)."""
        self._put(0, x)
        self._compress()

    def merge(self, other: Quantiles) -> None:
        for h, x in enumerate(other.levels):
            self._put(h, x)
        self._compress()

    def _put(self, h: int, x: Array) -> None:
        while len(self.levels) <= h:
            self.levels.append(np.empty(0))
            self.turns.append(0)
        self.levels[h] = np.sort(np.concatenate([self.levels[h], x]))

    def _compress(self) -> None:
        h = 0
        while h < len(self.levels):
            x = self.levels[h]
            if len(x) > max(32, self.k * (2 / 3) ** (len(self.levels) - 1 - h)):
                even = len(x) // 2 * 2  # an odd one out stays, so that the weights always sum to n
                self._put(h + 1, x[self.turns[h] : even : 2])
                self.levels[h] = x[even:]
                self.turns[h] ^= 1
            h += 1

    def _weighted(self) -> tuple[Array, Array]:
        """The sample in order (S,), and how many values seen lie at or below each (S,)."""
        x = np.concatenate(self.levels)
        weights = np.repeat(2.0 ** np.arange(len(self.levels)), [len(level) for level in self.levels])
        order = np.argsort(x, kind="stable")
        return x[order], np.cumsum(weights[order])

    def quantiles(self, ranks: Array) -> Array:
        """Smallest value with at least the share ``ranks`` (in [0, 1]) of the data at or below it; NaN when empty."""
        x, below = self._weighted()
        if not len(x):
            return np.full(len(ranks), np.nan)
        at: Array = np.minimum(np.searchsorted(below, np.asarray(ranks) * below[-1]), len(x) - 1)
        return np.take(x, at)

    def cdf(self, points: Array) -> Array:
        """Share of the data at or below each point; 0 when empty."""
        x, below = self._weighted()
        if not len(x):
            return np.zeros(len(points))
        shares: Array = np.append(0.0, below) / below[-1]
        return np.take(shares, np.searchsorted(x, points, side="right"))

    def to_dict(self) -> dict[str, Any]:
        return {"k": self.k, "turns": self.turns, "levels": [_encode(x.astype("<f8").tobytes()) for x in self.levels]}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Self:
        self = cls(int(data["k"]))
        self.turns = [int(t) for t in data["turns"]]
        self.levels = [np.frombuffer(_decode(x), "<f8").astype(np.float64) for x in data["levels"]]
        return self


def hash_numbers(x: Array) -> Array:
    """uint64 (n,): the finaliser of SplitMix64 over the bits of float64 (n,); -0.0 counts as 0.0."""
    z: Array = (x + 0.0).view(np.uint64)
    z ^= z >> np.uint64(30)
    z *= np.uint64(0xBF58476D1CE4E5B9)
    z ^= z >> np.uint64(27)
    z *= np.uint64(0x94D049BB133111EB)
    z ^= z >> np.uint64(31)
    return z


def hash_string(text: str) -> int:
    """64-bit BLAKE2b; Python's own ``hash`` differs from process to process."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


class Numbers:
    """Summary of a float64 column.  NaN is missing; infinities are counted apart and enter no moment or quantile.

    Attributes:
        n: finite values seen; ``count`` has the missing and the infinite ones too.
        mean, m2: of the finite values; m2 is the sum of squared deviations (Welford 1962, in batches as Chan et al. 1979).
        values: exact count of every finite value while there are at most 64 different ones, else None.
    """

    def __init__(self) -> None:
        self.n = self.nulls = self.infinite = self.zeros = 0
        self.mean = self.m2 = 0.0
        self.minimum, self.maximum = np.inf, -np.inf
        self.sample = Quantiles()
        self.distinct = Distinct()
        self.values: Counter[float] | None = Counter()

    @property
    def count(self) -> int:
        return self.n + self.nulls + self.infinite

    @property
    def std(self) -> float:
        """Standard deviation with n - 1; NaN below two values."""
        return float(np.sqrt(self.m2 / (self.n - 1))) if self.n > 1 else float("nan")

    def update(self, x: Array) -> None:
        """Add float64 (n,)."""
        x = np.ascontiguousarray(x, np.float64)
        for start in range(0, len(x), BLOCK):
            self._block(x[start : start + BLOCK])

    def _block(self, x: Array) -> None:
        finite = np.isfinite(x)
        if not finite.all():
            nulls = int(np.isnan(x).sum())
            self.nulls += nulls
            self.infinite += len(x) - nulls - int(finite.sum())
            x = x[finite]
            if not len(x):
                return
        x = np.sort(x)
        with np.errstate(over="ignore", invalid="ignore"):  # near 1e308 the moments overflow to infinity; the rest stands
            mean = float(x.mean())
            d = x - mean
            self._moments(len(x), mean, float(np.square(d).sum()))
        self.zeros += int(np.searchsorted(x, 0.0, "right") - np.searchsorted(x, 0.0, "left"))
        self.minimum, self.maximum = min(self.minimum, float(x[0])), max(self.maximum, float(x[-1]))
        self.sample.add(x)
        self.distinct.add(hash_numbers(x))
        if self.values is not None:
            starts = np.flatnonzero(np.concatenate([[True], x[1:] != x[:-1]]))  # x is sorted: where each value begins
            counts = dict(zip(x[starts].tolist(), np.diff(starts, append=len(x)).tolist(), strict=True))
            self._count_values(counts if len(counts) <= MAX_VALUES else None)

    def _moments(self, n: int, mean: float, m2: float) -> None:
        total = self.n + n
        delta = mean - self.mean
        self.mean += delta * n / total
        self.m2 += m2 + delta * delta * self.n * n / total
        self.n = total

    def _count_values(self, counts: dict[float, int] | None) -> None:
        if self.values is None or counts is None:
            self.values = None
            return
        self.values.update(counts)
        if len(self.values) > MAX_VALUES:
            self.values = None

    def merge(self, other: Numbers) -> None:
        """Add what ``other`` saw: all as in one pass, but moments to rounding and quantiles to the sketch's error."""
        with np.errstate(over="ignore", invalid="ignore"):
            if other.n:
                self._moments(other.n, other.mean, other.m2)
        self.nulls += other.nulls
        self.infinite += other.infinite
        self.zeros += other.zeros
        self.minimum, self.maximum = min(self.minimum, other.minimum), max(self.maximum, other.maximum)
        self.sample.merge(other.sample)
        self.distinct.add(other.distinct.smallest)
        self._count_values(None if other.values is None else dict(other.values))

    def to_dict(self) -> dict[str, Any]:
        return {
            "n": self.n,
            "nulls": self.nulls,
            "infinite": self.infinite,
            "zeros": self.zeros,
            "mean": _finite(self.mean),
            "m2": _finite(self.m2),
            "minimum": _finite(self.minimum),
            "maximum": _finite(self.maximum),
            "sample": self.sample.to_dict(),
            "distinct": self.distinct.to_dict(),
            "values": None if self.values is None else sorted(self.values.items()),
        }

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Self:
        self = cls()
        self.n, self.nulls, self.infinite, self.zeros = (int(data[k]) for k in ("n", "nulls", "infinite", "zeros"))
        self.mean, self.m2 = (np.inf if data[k] is None else float(data[k]) for k in ("mean", "m2"))
        if self.n:
            self.minimum, self.maximum = float(data["minimum"]), float(data["maximum"])
        self.sample = Quantiles.from_dict(data["sample"])
        self.distinct = Distinct.from_dict(data["distinct"])
        self.values = None if data["values"] is None else Counter({float(v): int(c) for v, c in data["values"]})
        return self


class Categories:
    """Summary of a column of strings; "" is missing."""

    def __init__(self) -> None:
        self.n = self.nulls = 0
        self.frequent = datasketches.frequent_strings_sketch(LG_MAX_ITEMS)
        self.distinct = Distinct()

    @property
    def count(self) -> int:
        return self.n + self.nulls

    def update(self, x: Array) -> None:
        """Add object str (n,)."""
        counts = count_strings(x)
        self.nulls += counts.pop("", 0)
        self.n += sum(counts.values())
        for text, weight in counts.items():
            self.frequent.update(text, weight)
        self.distinct.add(np.fromiter(map(hash_string, counts), np.uint64, len(counts)))

    def merge(self, other: Categories) -> None:
        """Add what ``other`` saw; as in one pass while there are at most 3,072 categories, else to the sketch's error."""
        self.n += other.n
        self.nulls += other.nulls
        self.frequent.merge(other.frequent)
        self.distinct.add(other.distinct.smallest)

    def top(self, most: int) -> list[tuple[str, int]]:
        """The ``most`` most frequent categories with their counts (never too high), the most frequent first."""
        if not self.n:
            return []
        rows = self.frequent.get_frequent_items(datasketches.frequent_items_error_type.NO_FALSE_NEGATIVES)
        return sorted(((item, int(low)) for item, _, low, _ in rows), key=lambda r: (-r[1], r[0]))[:most]

    def to_dict(self) -> dict[str, Any]:
        return {"n": self.n, "nulls": self.nulls, "frequent": _encode(self.frequent.serialize()), "distinct": self.distinct.to_dict()}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Self:
        self = cls()
        self.n, self.nulls = int(data["n"]), int(data["nulls"])
        self.frequent = datasketches.frequent_strings_sketch.deserialize(_decode(data["frequent"]))
        self.distinct = Distinct.from_dict(data["distinct"])
        return self


def count_strings(x: Array) -> Counter[str]:
    """Occurrences of each string of (n,), in the order of first sight; None, NaN and "" are "", long strings are cut at 128."""
    values = x.tolist()
    try:
        raw = Counter(values)
    except TypeError:  # something unhashable, such as a list
        return Counter(map(_key, values))
    counts: Counter[str] = Counter()
    for value, weight in raw.items():
        counts[_key(value)] += weight
    return counts


def _key(value: object) -> str:
    if not isinstance(value, str):
        if value is None or value != value:
            return ""
        value = value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else str(value)
    if not value.isascii():
        value = value.encode("utf-8", "backslashreplace").decode()  # lone surrogates cannot be stored
    return value if len(value) <= MAX_KEY else f"{value[: MAX_KEY - 17]}…{hash_string(value):016x}"


def _finite(x: float) -> float | None:
    return float(x) if np.isfinite(x) else None

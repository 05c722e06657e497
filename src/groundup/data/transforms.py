"""From typed columns to what a model sees: fitted on the training split alone, with scikit-learn's transformers.

| kind            | becomes                                                                                                     |
|-----------------|-------------------------------------------------------------------------------------------------------------|
| number, integer | missing -> training median; standardized (mean 0, variance 1)                                               |
| boolean         | 0 or 1; missing -> training median; standardized                                                            |
| datetime        | year, month, day of the week (Monday 0), hour and days since the first training row, each as a number       |
| category        | one 0/1 column for each category that at least one in a thousand training rows holds, 64 at most            |
| any that may be missing (but categories) | one more column: 1 where the value was missing                                             |

A rare category, one that training never saw and a missing one are zeros in all columns of theirs: the model met that
pattern in training wherever rare ones were.  ±inf counts as missing.  Dates are clipped to the years 1 to 9999.
Arithmetic is float64; the last step rounds to float32.  :mod:`groundup.data.graph` writes the same as an ONNX graph.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from groundup.bundle.signature import MISSING_DATETIME, Field
from groundup.errors import DataError

MOST_CATEGORIES = 64
RARE = 1e-3  # share of the training rows
_AT_ONCE = 1 << 16  # dates
DAY = 86_400_000_000  # microseconds
HOUR = 3_600_000_000
EARLIEST, LATEST = -62_135_596_800_000_000, 253_402_300_799_999_999  # 0001-01-01 and the last microsecond of 9999
PARTS = ("year", "month", "weekday", "hour", "days")

Array = NDArray[Any]


@dataclass
class TableTransform:
    """The fitted transform of a table.

    Attributes:
        fields: the inputs, in order.
        origin: datetime column -> first training moment, microseconds.
        imputer, scaler: fitted scikit-learn transformers over the numeric block: a column a number, integer or boolean
            field, five a datetime field, in the order of ``fields``.
        encoders: category column -> fitted OneHotEncoder.
    """

    fields: list[Field]
    origin: dict[str, int]
    imputer: Any
    scaler: Any
    encoders: dict[str, Any]

    @property
    def feature_names(self) -> list[str]:
        """A name for each output column."""
        numeric = [n for f in self.fields for n in numeric_names(f)]
        missing = [f"{f.name} is missing" for f in self.fields if has_indicator(f)]
        onehot = [f"{name} = {c}" for name, encoder in self.encoders.items() for c in encoder.categories_[0]]
        return numeric + missing + onehot

    def __call__(self, arrays: Mapping[str, Any]) -> NDArray[np.float32]:
        """Features float32 (N, n_features) of columns in the tensor convention; a category may also be (codes, texts)."""
        blocks = [self._numeric(arrays), *(self._onehot(name, arrays[name]) for name in self.encoders)]
        return np.concatenate(blocks, axis=1)

    def _numeric(self, arrays: Mapping[str, Any]) -> NDArray[np.float32]:
        n = len(next(iter(arrays.values()))) if not isinstance(next(iter(arrays.values())), tuple) else len(next(iter(arrays.values()))[0])
        columns = [c for f in self.fields for c in numeric_columns(f, arrays[f.name], self.origin.get(f.name, 0))]
        indicators = [is_missing(f, arrays[f.name]) for f in self.fields if has_indicator(f)]
        out = np.empty((n, len(columns) + len(indicators)), np.float32)
        if columns:
            X = np.stack(columns, axis=1)  # (N, n_numeric) float64
            with np.errstate(over="ignore"):  # beyond float32's range becomes inf, in the graph too
                out[:, : len(columns)] = self.scaler.transform(self.imputer.transform(X))
        for j, missing in enumerate(indicators):
            out[:, len(columns) + j] = missing
        return out

    def _onehot(self, name: str, values: Any) -> NDArray[np.float32]:
        codes, texts = values if isinstance(values, tuple) else _coded(values)
        rows = np.zeros((len(texts) + 1, len(self.encoders[name].categories_[0])), np.float32)  # the last row: missing
        if len(texts):
            rows[:-1] = self.encoders[name].transform(np.asarray(texts, dtype=object)[:, None])
        return np.asarray(rows[codes])


def _coded(values: Array) -> tuple[Array, Array]:
    texts, codes = np.unique(np.asarray(values, dtype=object), return_inverse=True)
    return codes.astype(np.int64), texts


def has_indicator(field: Field) -> bool:
    """Whether a column says that the field was missing."""
    return field.nullable and field.kind != "category"


def numeric_names(field: Field) -> list[str]:
    """Names of the field's columns in the numeric block."""
    if field.kind == "category":
        return []
    return [f"{field.name} {part}" for part in PARTS] if field.kind == "datetime" else [field.name]


def is_missing(field: Field, x: Array) -> NDArray[np.bool_]:
    """(N,): NaN, ±inf or NaT."""
    return np.asarray(x == MISSING_DATETIME if field.kind == "datetime" else ~np.isfinite(x))


def numeric_columns(field: Field, x: Array, origin: int) -> list[NDArray[np.float64]]:
    """The field's columns in the numeric block, float64 (N,) each, NaN where missing."""
    if field.kind == "category":
        return []
    missing = is_missing(field, x)
    if field.kind != "datetime":
        return [np.where(missing, np.nan, x) if missing.any() else x]
    parts = np.empty((len(PARTS), len(x)))
    for start in range(0, len(x), _AT_ONCE):  # a date passes through a dozen arrays on its way, so few at a time
        here = slice(start, start + _AT_ONCE)
        parts[:, here] = date_parts(x[here], origin)
    parts[:, missing] = np.nan
    return list(parts)


def date_parts(micros: NDArray[np.int64], origin: int) -> list[NDArray[np.float64]]:
    """Year, month, day of the week, hour and days since ``origin`` of moments in microseconds since 1970-01-01 UTC.

    Civil date from day number by Howard Hinnant's algorithm ("chrono-compatible low-level date algorithms",
    civil_from_days): a year starts in March, so the leap day is its last, and eras of 400 years all have 146,097 days.
    """
    t = np.clip(micros, EARLIEST, LATEST)
    days = t // DAY
    hour = (t - days * DAY) // HOUR
    z = days + 719_468  # since 0000-03-01
    era = z // 146_097
    doe = z - era * 146_097  # day of the era, 0..146096
    yoe = (doe - doe // 1_460 + doe // 36_524 - doe // 146_096) // 365  # year of the era, 0..399
    doy = doe - (365 * yoe + yoe // 4 - yoe // 100)  # day of the year, March first
    mp = (5 * doy + 2) // 153  # month, March = 0
    month = np.where(mp < 10, mp + 3, mp - 9)
    year = yoe + era * 400 + (month <= 2)
    weekday = (days + 3) % 7
    elapsed = (t - origin).astype(np.float64) / DAY
    return [year.astype(np.float64), month.astype(np.float64), weekday.astype(np.float64), hour.astype(np.float64), elapsed]


def fit_table(fields: Sequence[Field], column: Callable[[Field], Any]) -> TableTransform:
    """Fit on the training rows, one column in memory at a time.

    Args:
        column: gives a field's training values: an array in the tensor convention, or {text: count} for a category.

    Medians and variances are those of scikit-learn's SimpleImputer and StandardScaler, whose ``transform`` is then used.
    """
    from sklearn.impute import SimpleImputer
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    medians, means, variances, encoders, origin = [], [], [], {}, {}
    n = 0
    for field in fields:
        values = column(field)
        if field.kind == "category":
            encoders[field.name] = OneHotEncoder(
                categories=[np.array(_frequent(values), dtype=object)], handle_unknown="ignore", sparse_output=False, dtype=np.float32
            ).fit(np.array(_frequent(values), dtype=object)[:, None] if _frequent(values) else np.empty((0, 1), object))
            continue
        n = len(values)
        if field.kind == "datetime":
            origin[field.name] = _first(values)
        for x in numeric_columns(field, values, origin.get(field.name, 0)):
            median = _median(x)
            x = np.where(np.isnan(x), median, x)
            mean = float(x.mean())
            medians.append(median)
            means.append(mean)
            variances.append(float(np.square(x - mean).mean()))
    imputer, scaler = None, None
    if medians:
        imputer = SimpleImputer(strategy="median").fit(np.array([medians]))
        scaler = StandardScaler()
        scaler.mean_, scaler.var_ = np.array(means), np.array(variances)
        scaler.scale_, scaler.n_features_in_, scaler.n_samples_seen_ = _scale(scaler.mean_, scaler.var_, n), len(means), n
    return TableTransform(list(fields), origin, imputer, scaler, encoders)


def _first(micros: NDArray[np.int64]) -> int:
    known = micros[micros != MISSING_DATETIME]
    return int(np.clip(known.min(), EARLIEST, LATEST)) if len(known) else 0


def _median(x: NDArray[np.float64]) -> float:
    known = x[~np.isnan(x)]
    return float(np.median(known)) if len(known) else 0.0


def _scale(mean: Array, variance: Array, n: int) -> Array:
    """Standard deviations, 1 for columns that are constant up to rounding (StandardScaler's rule)."""
    eps = np.finfo(np.float64).eps
    constant = variance <= n * eps * variance + (n * mean * eps) ** 2
    scale = np.sqrt(variance)
    return np.where(constant | (scale == 0), 1.0, scale)


def _frequent(counts: Mapping[str, int]) -> list[str]:
    """Categories with a column of their own, sorted."""
    total = sum(counts.values())
    common = [name for name, count in sorted(counts.items(), key=lambda item: (-item[1], item[0])) if count >= RARE * total]
    return sorted(common[:MOST_CATEGORIES])


@dataclass
class ArrayTransform:
    """The fitted transform of images (uint8 (N,H,W,C) -> float32 (N,C,H,W)) or tensors (float32 (N,...) -> the same shape).

    Attributes:
        mean, scale: float32, one a channel for images, one a value for vectors, one in all for tensors of more axes;
            in the units of the raw values: features = (x - mean) / scale.
    """

    field: Field
    mean: NDArray[np.float32]
    scale: NDArray[np.float32]

    @property
    def feature_names(self) -> None:
        return None

    def __call__(self, arrays: Mapping[str, Any]) -> NDArray[np.float32]:
        x = np.asarray(arrays[self.field.name]).astype(np.float32)
        return np.ascontiguousarray(self._order((x - self.mean) / self.scale))

    def _order(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        return x.transpose(0, 3, 1, 2) if self.field.kind == "image" else x

    @property
    def feature_shape(self) -> tuple[int, ...]:
        s = self.field.shape
        return (s[2], s[0], s[1]) if self.field.kind == "image" else s


def fit_arrays(field: Field, x: Array, rows: NDArray[np.int64]) -> ArrayTransform:
    """Mean and standard deviation of the training ``rows`` of ``x``, added up in float64 piece by piece.

    Raises:
        DataError: a tensor holds NaN or infinity.
    """
    axes = {"image": (0, 1, 2)}.get(field.kind, (0,) if x.ndim == 2 else tuple(range(x.ndim)))
    total, squares, count = np.float64(0), np.float64(0), 0
    shift = x[rows[:1024]].astype(np.float64).mean(axis=axes)  # near the mean: E[(x-s)²] - E[x-s]² then loses no digits
    for start in range(0, len(rows), 1024):
        piece = x[rows[start : start + 1024]].astype(np.float64) - shift
        total = total + piece.sum(axis=axes)
        squares = squares + np.square(piece).sum(axis=axes)
        count += piece.size // max(np.size(total), 1)
    mean = total / count
    variance = np.maximum(squares / count - np.square(mean), 0)
    if not np.isfinite(mean).all():
        raise DataError("the training arrays hold NaN or infinity; replace them before saving the archive")
    scale = np.sqrt(variance)
    scale = np.where(scale > 1e-7 * np.maximum(np.abs(mean + shift), 1), scale, 1.0)
    return ArrayTransform(field, np.asarray(mean + shift, np.float32), np.asarray(scale, np.float32))

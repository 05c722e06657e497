"""Where the model is worse than elsewhere: the metric on parts of the test split.

A slice is a set of rows: every category of every column with few of them, missing and present, every class, and what a
recipe declares.  Whether it is *significantly* worse than the rest is one one-sided test a slice (Fisher's exact test on
right and wrong answers; Mann-Whitney on absolute errors), and since many slices are looked at, the p-values pass through
Benjamini & Hochberg 1995: among the slices flagged, at most the stated share is expected to be chance.
"""

from __future__ import annotations

import difflib
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from groundup import metrics
from groundup.errors import RecipeError
from groundup.evaluation.bootstrap import mean_interval, none_if_nan, wilson

Array = NDArray[Any]
FEW = 20  # at most so many categories make a column's slices by themselves
MOST = 50  # a declared column gives at most its so many largest categories
BINS = 4  # of a declared numeric column
MISSING, PRESENT = "(missing)", "(present)"


@dataclass(frozen=True)
class Slice:
    """Rows that share something.

    Attributes:
        column: the column, "a & b" for a crossing, or the target for classes.
        value: the category, the range, "(missing)" or "(present)".
        kind: "category", "range", "missing", "class" or "crossing".
    """

    column: str
    value: str
    kind: str
    mask: Array

    @property
    def n(self) -> int:
        return int(self.mask.sum())


def automatic(frame: Any, inputs: Sequence[Mapping[str, Any]]) -> Iterator[Slice]:
    """The slices that nobody has to ask for.

    Args:
        frame: pandas DataFrame of the split, a column an input (columns that it lacks are passed over: images).
        inputs: the inputs' fields as dicts with ``name`` and ``kind``.
    """
    for field in inputs:
        name, kind = str(field["name"]), field["kind"]
        if name not in frame.columns:
            continue
        column = frame[name]
        if kind != "datetime" and 2 <= column.nunique() <= (FEW if kind != "number" else 10):
            yield from _categories(name, column)
            yield from _missing(name, column, both=False)
        else:
            yield from _missing(name, column, both=True)


def of_classes(target: str, y: Array, classes: Sequence[str]) -> Iterator[Slice]:
    """One slice a class: the rows that truly belong to it."""
    for index, name in enumerate(classes):
        yield Slice(target, str(name), "class", np.asarray(y) == index)


def declared(frame: Any, wanted: str | Mapping[str, Sequence[float]]) -> list[Slice]:
    """Slices that a recipe asks for.

    Args:
        wanted: a column ("age": categories, or quarters of a numeric one), a crossing ("sex & class"), or a column
            with its own edges ({"age": [18, 65]}: below 18, 18 to 65, from 65).

    Raises:
        RecipeError: no such column; names the nearest.
    """
    if isinstance(wanted, str):
        parts = [part.strip() for part in wanted.split("&")]
        slices = list(_column(frame, parts[0]))
        for part in parts[1:]:
            other = list(_column(frame, part))
            slices = [
                Slice(f"{a.column} & {b.column}", f"{a.value} & {b.value}", "crossing", a.mask & b.mask) for a in slices for b in other
            ]
        return slices
    return [s for name, edges in wanted.items() for s in _ranges(name, _get(frame, name), [float(e) for e in edges])]


def judge(
    task: str,
    y: Array,
    scores: Array,
    slices: Sequence[Slice],
    *,
    confidence: float = 0.95,
    at_least: int = 10,
    count: int = 1000,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """Metric, interval and verdict of each slice with at least ``at_least`` rows, worst first.

    The metric is accuracy, or the mean absolute error.  Each entry: column, value, kind, n, metric, ``measured``,
    low, high, ``rest`` (the metric on all other rows), ``p`` (adjusted for the number of slices) and ``worse``.
    """
    regression = task.endswith("regression")
    wrong = metrics.per_row_loss(task, y, scores) if regression else (np.asarray(scores).argmax(1) != np.asarray(y)).astype(np.float64)
    kept = [s for s in slices if at_least <= s.n < len(y)]
    raw = np.array([_p_worse(wrong, s.mask, regression) for s in kept])
    adjusted = benjamini_hochberg(raw)
    found = []
    for s, p in zip(kept, adjusted, strict=True):
        inside, outside = wrong[s.mask], wrong[~s.mask]
        low, high = mean_interval(inside, confidence, count, seed) if regression else wilson(int((inside == 0).sum()), s.n, confidence)
        found.append(
            {
                "column": s.column,
                "value": s.value,
                "kind": s.kind,
                "n": s.n,
                "metric": "mae" if regression else "accuracy",
                "measured": float(inside.mean() if regression else 1 - inside.mean()),
                "low": none_if_nan(low),
                "high": none_if_nan(high),
                "rest": float(outside.mean() if regression else 1 - outside.mean()),
                "p": float(p),
                "worse": bool(p <= 1 - confidence),
            }
        )
    return sorted(found, key=lambda e: (e["p"], -e["measured"] if regression else e["measured"]))


def benjamini_hochberg(p: Array) -> Array:
    """p-values adjusted for how many there are, same order: reject those at most q to keep the false discovery rate at q."""
    m = len(p)
    order = np.argsort(p, kind="stable")
    stepped = p[order] * m / np.arange(1, m + 1)
    adjusted = np.empty(m)
    adjusted[order] = np.minimum(np.minimum.accumulate(stepped[::-1])[::-1], 1.0)
    return adjusted


def _p_worse(wrong: Array, mask: Array, regression: bool) -> float:
    """Chance of a slice at least this bad if it were like the rest."""
    if regression:
        from scipy.stats import mannwhitneyu

        return float(mannwhitneyu(wrong[mask], wrong[~mask], alternative="greater").pvalue)
    from scipy.stats import hypergeom

    return float(hypergeom.sf(wrong[mask].sum() - 1, len(wrong), wrong.sum(), mask.sum()))


def _column(frame: Any, name: str) -> Iterator[Slice]:
    column = _get(frame, name)
    ordered = column.dtype.kind in "iufM"
    if ordered and column.nunique() > 10:
        present = column.dropna()
        if column.dtype.kind == "M":
            edges = [present.quantile(i / BINS) for i in range(1, BINS)]
        else:
            edges = [float(e) for e in np.quantile(present, [i / BINS for i in range(1, BINS)])]
        yield from _ranges(name, column, sorted(set(edges)))
    else:
        yield from _categories(name, column, MOST)
    yield from _missing(name, column, both=False)


def _categories(name: str, column: Any, most: int = FEW) -> Iterator[Slice]:
    for value in column.value_counts().index[:most]:
        yield Slice(name, _text(value), "category", (column == value).fillna(False).to_numpy(bool))


def _ranges(name: str, column: Any, edges: Sequence[Any]) -> Iterator[Slice]:
    """Below the first edge, then [edge, next), then from the last."""
    ends = [None, *edges, None]
    for low, high in itertools.pairwise(ends):
        mask = column.notna()
        if low is not None:
            mask &= column >= low
        if high is not None:
            mask &= column < high
        text = f"below {_text(high)}" if low is None else f"from {_text(low)}" if high is None else f"{_text(low)} to {_text(high)}"
        yield Slice(name, text, "range", mask.to_numpy(bool))


def _missing(name: str, column: Any, *, both: bool) -> Iterator[Slice]:
    missing = column.isna().to_numpy(bool)
    if missing.any():
        yield Slice(name, MISSING, "missing", missing)
        if both:
            yield Slice(name, PRESENT, "missing", ~missing)


def _get(frame: Any, name: str) -> Any:
    columns = [str(c) for c in frame.columns]
    if name not in columns:
        close = difflib.get_close_matches(name, columns, 1)
        hint = f"did you mean {close[0]!r}?" if close else f"it has {', '.join(columns[:12])}"
        raise RecipeError(f"evaluate.slices: the data has no column {name!r}; {hint}")
    return frame[name]


def _text(value: Any) -> str:
    if hasattr(value, "isoformat"):
        return str(value.isoformat(sep=" ", timespec="minutes")) if hasattr(value, "hour") else str(value.isoformat())
    return f"{value:g}" if isinstance(value, float | np.floating) else str(value)

"""Intervals for a metric: how far it could be off because the test split is a sample.

The bootstrap draws N rows with replacement, B times, and looks at how the metric spreads (Efron & Tibshirani 1993, "An
Introduction to the Bootstrap", chapter 13).  Each resample is a row of counts W (B, N), multinomial with N draws, and
:func:`groundup.metrics.weighted` turns all rows into metrics at once.

- ``percentile``: the quantiles of the B values (section 13.3).
- ``bca``: the same quantiles, shifted for bias and skewness (section 14.3), for R², whose spread is skewed.
- ``wilson``: for accuracy, a share: Wilson 1927's score interval keeps its coverage for small samples and near 0 and 1,
  where the bootstrap does not (360 right of 360 gives [1, 1]).
- ``ece``: expected calibration error cannot be negative and noise only adds to it, so resamples of a sample lie above it;
  the spread is put around the value, the lower end moved down by that bias, and to 0 where a perfectly calibrated model
  would show as much in this sample (consistency bars, Bröcker & Smith 2007).  Coverage measured in the tests.
- ``normal``: value ± z × the spread of fewer resamples, for ranking metrics on samples too large to sort a thousand times.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from groundup import metrics

Array = NDArray[Any]
Method = Literal["percentile", "bca", "wilson", "ece", "normal"]
_CELLS = 1 << 20  # weights held at once: 8 MiB
_RANKED_BUDGET = 3e9  # sorted cells read for ranking metrics before fewer resamples are drawn: some 10 s


@dataclass(frozen=True)
class Interval:
    """A value with its confidence interval; ``low`` and ``high`` are NaN where it is undefined."""

    value: float
    low: float
    high: float
    method: Method

    def to_dict(self) -> dict[str, float | None]:
        """JSON form: NaN becomes null."""
        return {k: none_if_nan(getattr(self, k)) for k in ("value", "low", "high")}


def none_if_nan(x: float) -> float | None:
    """JSON has no NaN."""
    return float(x) if np.isfinite(x) else None


def resamples(n: int, count: int, seed: int) -> Iterator[Array]:
    """Counts of ``count`` bootstrap resamples of n rows, float64 (b, n), in blocks of about 8 MiB.

    The same (n, count, seed) gives the same resamples, so two models' replicates are paired row by row.
    """
    rng = np.random.default_rng(seed)
    block = max(1, min(count, _CELLS // max(n, 1)))
    for start in range(0, count, block):
        b = min(block, count - start)
        drawn = rng.integers(0, n, (b, n)) + np.arange(b)[:, None] * n
        yield np.bincount(drawn.ravel(), minlength=b * n).reshape(b, n).astype(np.float64)


def replicates(task: str, y: Array, scores: Array, count: int, seed: int, only: tuple[str, ...] | None = None) -> dict[str, Array]:
    """Every metric on every resample: name -> (count,).

    Ranking metrics get fewer (at least 100) where sorting N × K scores ``count`` times would take minutes.
    """
    wanted = only or metrics.names(task)
    n, k = len(y), (scores.shape[1] if scores.ndim == 2 else 1)
    fewer = count if 2 * n * k * count <= _RANKED_BUDGET else max(100, int(_RANKED_BUDGET / (2 * n * k)))
    full = metrics.weighted(task, y, scores, wanted)
    cheap_names = tuple(name for name in wanted if name not in metrics.RANKED)
    cheap = full if fewer >= count or not cheap_names else metrics.weighted(task, y, scores, cheap_names)
    rows: dict[str, list[Array]] = {name: [] for name in wanted}
    done = 0
    for W in resamples(n, count, seed):
        if done >= fewer and not cheap_names:
            break
        for name, values in (full if done < fewer else cheap)(W).items():
            rows[name].append(values)
        done += len(W)
    return {name: np.concatenate(values) for name, values in rows.items()}


def intervals(
    task: str, y: Array, scores: Array, drawn: dict[str, Array], *, count: int = 1000, confidence: float = 0.95
) -> dict[str, Interval]:
    """Every metric of the task with its interval, by the method named in the module's header.

    Args:
        y: class indices (N,) or targets (N,).
        scores: probabilities (N, K) or predictions (N,).
        drawn: what :func:`replicates` gave.
        count: how many resamples were asked for.
        confidence: coverage of the interval, in (0, 1).
    """
    values = metrics.compute(task, y, scores)
    found = {}
    for name, value in values.items():
        if name == "accuracy":
            low, high = wilson(round(value * len(y)), len(y), confidence)
            found[name] = Interval(value, low, high, "wilson")
        elif name == "r2":
            found[name] = Interval(value, *bca(drawn[name], value, jackknife_r2(y, scores), confidence), "bca")
        elif name == "ece":
            found[name] = Interval(value, *_ece_interval(value, drawn[name], scores, confidence), "ece")
        elif len(drawn[name]) < count:
            found[name] = _normal(value, drawn[name], confidence)
        else:
            found[name] = Interval(value, *percentile(drawn[name], confidence), "percentile")
    return found


def difference(
    ours: Interval, theirs: Interval, drawn: Array, drawn_theirs: Array, count: int = 1000, confidence: float = 0.95
) -> Interval:
    """ours − theirs, from replicates on the same resamples: what the two have in common cancels."""
    value, spread = ours.value - theirs.value, drawn - drawn_theirs
    low, high = percentile(spread, confidence)
    if len(spread) < count or not low <= value <= high:  # fewer were drawn, or resampling is biased (calibration error)
        return _normal(value, spread, confidence)
    return Interval(value, low, high, "percentile")


def _normal(value: float, drawn: Array, confidence: float) -> Interval:
    """value ± z × the spread of the replicates."""
    drawn = drawn[np.isfinite(drawn)]
    if len(drawn) < 2:
        return Interval(value, float("nan"), float("nan"), "normal")
    half = float(np.std(drawn, ddof=1)) * NormalDist().inv_cdf((1 + confidence) / 2)
    return Interval(value, value - half, value + half, "normal")


def _ece_interval(value: float, drawn: Array, p: Array, confidence: float) -> tuple[float, float]:
    """The interval of the calibration error described in the module's header."""
    around = _normal(value, drawn, confidence)
    low = max(0.0, around.low - max(0.0, float(drawn.mean()) - value))
    # A calibrated model is right in row i with chance c_i: the gap of a bin is a sum with mean 0 and variance Σ c_i (1 − c_i).
    c = np.asarray(p, np.float64).max(1)
    bins = np.minimum((c * metrics.ECE_BINS).astype(np.int64), metrics.ECE_BINS - 1)
    sigma = np.sqrt(np.bincount(bins, c * (1 - c), metrics.ECE_BINS))
    chance = np.abs(np.random.default_rng(0).normal(size=(1000, metrics.ECE_BINS)) * sigma).sum(1) / len(c)
    if value <= np.quantile(chance, confidence):
        low = 0.0
    return low, min(around.high, 1.0)


def percentile(drawn: Array, confidence: float = 0.95) -> tuple[float, float]:
    """The middle ``confidence`` of the replicates; undefined (NaN) replicates are left out."""
    drawn = drawn[np.isfinite(drawn)]
    if len(drawn) == 0:
        return float("nan"), float("nan")
    low, high = np.quantile(drawn, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def bca(drawn: Array, value: float, jackknife: Array, confidence: float = 0.95) -> tuple[float, float]:
    """Bias-corrected and accelerated interval (Efron 1987; Efron & Tibshirani 1993, equations 14.9 to 14.15).

    Args:
        drawn: replicates (B,).
        value: the statistic on the sample itself.
        jackknife: the statistic with each row left out, (N,).
    """
    drawn = drawn[np.isfinite(drawn)]
    share = float(np.mean(drawn < value) + np.mean(drawn == value) / 2) if len(drawn) else float("nan")
    deviation = jackknife.mean() - jackknife
    scale = float(np.sum(deviation**2))
    if not 0 < share < 1 or not scale > 0:
        return percentile(drawn, confidence)
    normal = NormalDist()
    z0 = normal.inv_cdf(share)
    a = float(np.sum(deviation**3)) / (6 * scale**1.5)
    ends = []
    for tail in ((1 - confidence) / 2, (1 + confidence) / 2):
        z = z0 + normal.inv_cdf(tail)
        ends.append(float(np.quantile(drawn, normal.cdf(z0 + z / (1 - a * z)))))
    return ends[0], ends[1]


def jackknife_r2(y: Array, f: Array) -> Array:
    """R² with each row left out, (N,), from the sums in one pass: SST₋ᵢ = SST − N/(N−1) (yᵢ − ȳ)²."""
    y, f = np.asarray(y, np.float64), np.asarray(f, np.float64)
    n, error, centred = len(y), (y - f) ** 2, y - y.mean()
    if n < 3:
        return np.zeros(n)
    spread = np.sum(centred**2) - n / (n - 1) * centred**2
    return np.asarray(1 - (error.sum() - error) / np.where(spread > 0, spread, np.inf))


def wilson(right: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Score interval of a share (Wilson 1927); (0, 1) of no rows."""
    if n == 0:
        return 0.0, 1.0
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    p = right / n
    middle = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * float(np.sqrt(p * (1 - p) / n + z * z / (4 * n * n)))
    return (0.0 if right == 0 else middle - half), (1.0 if right == n else middle + half)


def mean_interval(values: Array, confidence: float = 0.95, count: int = 1000, seed: int = 0) -> tuple[float, float]:
    """Interval of a mean: percentile bootstrap up to 2,000 values, the normal limit above."""
    n = len(values)
    if n < 2:
        return float("nan"), float("nan")
    if n > 2000:
        half = NormalDist().inv_cdf((1 + confidence) / 2) * float(np.std(values, ddof=1)) / n**0.5
        return float(np.mean(values)) - half, float(np.mean(values)) + half
    return percentile(np.concatenate([W @ values / n for W in resamples(n, count, seed)]), confidence)

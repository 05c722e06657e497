"""Does live traffic still look like the training data?  Windows of it are tested, column by column, against the profile.

Windows do not overlap and each is tested once, when it closes, so the stated false-alarm rate holds for every window;
over many windows false alarms add up, and ``scores()`` says how many to expect.  A test assumes that rows are drawn
independently: bursts of near-equal requests look like drift, and are.

For each column the counts in the profile's frozen bins, W of the window (n rows) and R of the reference (m rows):

- chi-square of two samples over the well-filled bins, Σ (√(m/n) W − √(n/m) R)² / (W + R): any change of shape;
- Kolmogorov-Smirnov over the bins of a number, √(nm/(n+m)) sup |W/n − R/m|: a shift;
- an exact test that rare bins (missing, new categories, beyond the range) have become frequent.

The smallest p-value, times the number of tests made, is the column's; Benjamini-Hochberg over all columns makes *shifted*.
That the reference is itself a sample is in these tests; the rate holds over training samples too, so for one that was
drawn unluckily false alarms come more often, and for most less.

The size of the change is the population stability index PSI = Σ (w − r) ln(w / r); without any drift it is about
(1/n + 1/m)(bins − 1) on average (Yurdakul 2018), which is taken off before it is compared with the threshold.
Shifted and large is *drifted*.
"""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from groundup.bundle.signature import Field
from groundup.errors import BundleError
from groundup.monitoring.columns import derive
from groundup.monitoring.profile import Bins, Profile
from groundup.monitoring.settings import DriftSettings
from groundup.monitoring.tails import benjamini_hochberg, chi2_sf, kolmogorov_sf, poisson_excess_sf

Array = NDArray[Any]
MIN_EXPECTED = 5.0  # rows expected in a bin, below which chi-square is not trusted (Cochran 1954)
RARE = 0.01  # a bin with a smaller share of the reference, and too few rows expected, goes to the exact test
_GATHER_ROWS, _GATHER_BYTES = 1024, 8 << 20
HISTORY = 200  # closed windows that are remembered in short


@dataclass(frozen=True)
class Score:
    """How one column of one window compares with the reference.

    Attributes:
        n: rows of the window.
        psi: population stability index over the bins used; excess: what chance would give taken off, at least 0.
        ks: largest difference of the two distribution functions, over the bins; 0 for categories.
        p: p-value of the column, before the correction for many columns.
        state: "same", "shifted" (significant) or "drifted" (significant and large).
    """

    n: int
    psi: float
    excess: float
    ks: float
    p: float
    state: str = "same"


def compare(bins: Bins, window: Array) -> Score:
    """Score of one column from its window's counts (bins,), state not decided yet.

    An empty window or an empty reference scores 0 with p = 1.
    """
    W, n = np.asarray(window, np.float64), float(np.sum(window))
    total = float(bins.counts.sum())
    if n <= 0 or total <= 0:
        return Score(int(n), 0.0, 0.0, 0.0, 1.0)
    m = min(bins.rows, total)
    R = bins.counts * (m / total)
    cells = _cells(R / m, n, ordered=bins.edges is not None)
    groups = int(cells.max()) + 1  # cell 0 holds the rare bins
    w, r = np.bincount(cells, W, groups), np.bincount(cells, R, groups)

    tests = [poisson_excess_sf(float(w[0]), n, float(r[0]), m), _chi_square(w[1:], r[1:])]
    ks = 0.0
    if bins.edges is not None:
        known_n, known_m = n - W[-1], m - R[-1]
        if known_n > 0 and known_m > 0:
            ks = float(np.abs(np.cumsum(W[:-1]) / known_n - np.cumsum(R[:-1]) / known_m).max())
            tests.append(kolmogorov_sf(ks * math.sqrt(known_n * known_m / (known_n + known_m))))
    psi = _psi(w, r)
    chance = (1 / n + 1 / m) * (np.count_nonzero(w + r) - 1)
    return Score(int(n), psi, float(max(0.0, psi - chance)), ks, float(min(1.0, len(tests) * min(tests))))


def _cells(shares: Array, n: float, *, ordered: bool) -> Array:
    """Which cell each bin (B,) is pooled into, int64 (B,): 0 for the rare ones, 1.. with enough rows expected of n.

    Decided by the reference alone: pooling by what the window shows would bias the test.
    """
    expected = shares * n
    cells = np.zeros(len(shares), np.int64)
    usual = np.flatnonzero((shares >= RARE) | (expected >= MIN_EXPECTED))
    if not ordered:  # the smallest first, so that only small ones are pooled
        usual = usual[np.argsort(expected[usual], kind="stable")]
    cell, filled = 1, 0.0
    for j in usual:
        cells[j] = cell
        filled += expected[j]
        if filled >= MIN_EXPECTED:
            cell, filled = cell + 1, 0.0
    if filled and cell > 1:  # what is left over joins the cell before
        cells[cells == cell] = cell - 1
    return cells


def _chi_square(w: Array, r: Array) -> float:
    """p-value of the two-sample chi-square test of counts (cells,); 1 where there is nothing to compare."""
    n, m, both = w.sum(), r.sum(), w + r
    dof = int(np.count_nonzero(both)) - 1
    if n <= 0 or m <= 0 or dof < 1:
        return 1.0
    difference = math.sqrt(m / n) * w - math.sqrt(n / m) * r
    return chi2_sf(float(np.sum(difference**2 / np.where(both > 0, both, 1))), dof)


def _psi(w: Array, r: Array) -> float:
    """Population stability index; half a row is added to each cell that either side has seen, so that no share is zero."""
    seen = w + r > 0
    p, q = w[seen] + 0.5, r[seen] + 0.5
    p, q = p / p.sum(), q / q.sum()
    return float(np.sum((p - q) * np.log(p / q)))


def judge(scores: dict[str, Score], settings: DriftSettings) -> dict[str, Score]:
    """Decide the state of each column of one window, all columns together."""
    rejected = benjamini_hochberg([s.p for s in scores.values()], settings.false_alarm_rate)
    return {
        name: replace(s, state="same" if not shifted else "drifted" if s.excess >= settings.threshold else "shifted")
        for (name, s), shifted in zip(scores.items(), rejected, strict=True)
    }


@dataclass(frozen=True)
class Window:
    """One closed and tested window: when its first row came and when it closed (seconds since 1970), scores and bin counts by column."""

    started: float
    closed: float
    rows: int
    scores: dict[str, Score]
    counts: dict[str, Array]

    def columns(self, state: str) -> list[str]:
        """Names of the columns in ``state``, the largest change first."""
        return sorted((k for k, s in self.scores.items() if s.state == state), key=lambda k: -self.scores[k].excess)

    @property
    def alarm(self) -> bool:
        return any(s.state == "drifted" for s in self.scores.values())


class Drift:
    """Streams batches into windows and tests each against a bundle's profile.  Safe to use from several threads.

    Args:
        profile: content of the bundle's ``profile.json``: {"inputs": ..., "outputs": ...}, each ``Profile.to_dict()``, frozen.
        now: seconds since 1970, injected by tests; a window's age is taken on the monotonic clock.
    """

    def __init__(
        self,
        profile: dict[str, Any],
        settings: DriftSettings | None = None,
        *,
        now: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.settings = settings or DriftSettings()
        self._now, self._monotonic = now, monotonic
        self.fields: tuple[tuple[Field, ...], ...] = ()  # of the inputs, of the outputs
        self.bins: dict[str, Bins] = {}
        for side in ("inputs", "outputs"):
            if profile.get(side) is None:
                self.fields += ((),)
                continue
            loaded = Profile.from_dict(profile[side])
            if loaded.bins is None:
                raise BundleError(f"the profile of the {side} is not frozen, so it has no bins; call freeze() before packaging")
            self.fields += (loaded.fields,)
            self.bins |= {self._name(side, name): bins for name, bins in loaded.bins.items()}
        self._lock = threading.Lock()
        self.tested = self.dropped_rows = self.failures = 0
        self.last: Window | None = None
        self.history: deque[dict[str, Any]] = deque(maxlen=HISTORY)
        self._open()

    @staticmethod
    def _name(side: str, column: str) -> str:
        return column if side == "inputs" else f"output:{column}"

    def _open(self) -> None:
        self._gathered: list[tuple[dict[str, Array], ...]] = []
        self._form: tuple[Any, ...] = ()
        self._gathered_rows = self._gathered_bytes = 0
        self._rows, self._started, self._ended, self._since = 0, 0.0, 0.0, 0.0
        self._counts = {name: np.zeros(len(b.counts), np.int64) for name, b in self.bins.items()}
        self._provisional: tuple[int, dict[str, Score]] | None = None

    def update(self, inputs: dict[str, Array], outputs: dict[str, Array] | None = None, *, times: Array | None = None) -> list[Window]:
        """Add one batch of tensors; returns the windows that it closed (none, mostly).

        Arrays are kept by reference until a thousand rows have gathered: do not write into them afterwards.  A column that
        cannot be read is left out and counted in ``failures``; it never raises.

        Args:
            times: when each row came, seconds since 1970 (N,); now by default.
        """
        sides = (inputs, outputs or {})
        lengths = [len(arrays[f.name]) for arrays, side in zip(sides, self.fields, strict=True) for f in side if f.name in arrays]
        rows = max(lengths, default=0)
        closed = []
        with self._lock:
            if self._rows and self._monotonic() - self._since >= self.settings.max_age_s:
                closed += self._close()
            at = 0
            while at < rows:
                take = min(rows - at, self.settings.window - self._rows)
                if not self._rows:
                    self._started, self._since = self._now() if times is None else float(times[at]), self._monotonic()
                self._gather(sides if take == rows else tuple({k: x[at : at + take] for k, x in a.items()} for a in sides), take)
                self._rows += take
                at += take
                self._ended = self._now() if times is None else float(times[at - 1])
                if self._rows >= self.settings.window:
                    closed += self._close()
        return closed

    def _gather(self, sides: tuple[dict[str, Array], ...], rows: int) -> None:
        """Keep one batch with others of its form: counting a thousand rows at once costs little more than counting one."""
        form = tuple((k, x.dtype.char, x.shape[1:]) for arrays in sides for k, x in arrays.items())
        if form != self._form:
            self._drain()
            self._form = form
        self._gathered.append(sides)
        self._gathered_rows += rows
        self._gathered_bytes += sum(x.nbytes for arrays in sides for x in arrays.values())
        if self._gathered_rows >= _GATHER_ROWS or self._gathered_bytes >= _GATHER_BYTES:
            self._drain()

    def _drain(self) -> None:
        batches, self._gathered, self._gathered_rows, self._gathered_bytes = self._gathered, [], 0, 0
        for i, (side, fields) in enumerate(zip(("inputs", "outputs"), self.fields, strict=True)):
            for field in fields:
                parts = [b[i][field.name] for b in batches if field.name in b[i]]
                if not parts:
                    continue
                try:
                    columns = derive([field], {field.name: parts[0] if len(parts) == 1 else np.concatenate(parts)})
                    found = {name: self.bins[name].count(x) for k, x in columns.items() if (name := self._name(side, k)) in self.bins}
                except (TypeError, ValueError, OverflowError):  # another shape or type than the signature's
                    self.failures += 1
                    continue
                for name, counts in found.items():
                    self._counts[name] += counts

    def expire(self) -> list[Window]:
        """Close the open window if it is too old; for callers that may wait long for the next batch."""
        with self._lock:
            old = self._rows and self._monotonic() - self._since >= self.settings.max_age_s
            return self._close() if old else []

    def finish(self) -> list[Window]:
        """Close the open window as it is; it is tested if it has ``min_rows``."""
        with self._lock:
            return self._close() if self._rows else []

    def _close(self) -> list[Window]:
        self._drain()
        rows, started, ended, counts = self._rows, self._started, self._ended, self._counts
        self._open()
        if rows < self.settings.min_rows:
            self.dropped_rows += rows
            return []
        window = Window(started, ended, rows, judge(self._compare(counts), self.settings), counts)
        self.tested += 1
        self.last = window
        worst = max(window.scores.values(), key=lambda s: s.excess, default=None)
        self.history.append(
            {
                "started": window.started,
                "closed": window.closed,
                "rows": rows,
                "worst": 0.0 if worst is None else worst.excess,
                "shifted": window.columns("shifted"),
                "drifted": window.columns("drifted"),
            }
        )
        return [window]

    def _compare(self, counts: dict[str, Array]) -> dict[str, Score]:
        return {name: compare(self.bins[name], c) for name, c in counts.items()}

    @property
    def alarm(self) -> bool:
        """Whether the last tested window had a drifted column."""
        return self.last is not None and self.last.alarm

    def scores(self) -> dict[str, Any]:
        """JSON-able state: the last tested window, the open one (sizes only: it is not tested yet), short history.

        Costs about 0.2 ms a column when the open window has grown since the last call.
        """
        with self._lock:
            self._drain()
            if self._rows >= self.settings.min_rows and (self._provisional is None or self._provisional[0] != self._rows):
                self._provisional = (self._rows, self._compare(self._counts))
            return {
                "alarm": self.alarm,
                "windows": self.tested,
                "expected_false_alarms": self.tested * self.settings.false_alarm_rate,
                "dropped_rows": self.dropped_rows,
                "failures": self.failures,
                "settings": self.settings.model_dump(mode="json"),
                "last": None
                if self.last is None
                else {
                    "started": self.last.started,
                    "closed": self.last.closed,
                    "rows": self.last.rows,
                    "columns": {k: asdict(s) for k, s in self.last.scores.items()},
                },
                "open": {
                    "rows": self._rows,
                    "columns": {k: {"psi": s.psi, "excess": s.excess, "ks": s.ks} for k, s in (self._provisional or (0, {}))[1].items()},
                },
                "history": list(self.history),
            }

    def shares(self, window: Window) -> dict[str, dict[str, Any]]:
        """For plots, by column: names of the bins, their shares in the reference and in ``window`` (None where it had no rows)."""
        out = {}
        for name, bins in self.bins.items():
            counts, total = window.counts[name], window.counts[name].sum()
            out[name] = {
                "bins": bins.names(),
                "reference": (bins.counts / max(bins.counts.sum(), 1)).tolist(),
                "window": (counts / total).tolist() if total else None,
            }
        return out

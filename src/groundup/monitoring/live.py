"""What the server holds: takes batches off its hands at once, and does everything else in a thread of its own.

    live = Live(profile, signature, settings, version="3")   # profile: content of profile.json
    live.observe(inputs, outputs, ids)    # after answering; never blocks, never raises
    registry.register(live)               # Prometheus gauges
    live.state()                          # JSON for /monitor
    live.close()                          # at drain: everything observed is counted and logged

Arrays are kept by reference until the thread has read them: do not write into them afterwards.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric

from groundup.bundle.signature import Signature
from groundup.monitoring.drift import Drift, Window
from groundup.monitoring.log import PredictionLog
from groundup.monitoring.settings import Monitor

Array = NDArray[Any]
Batch = tuple[float, dict[str, Array], dict[str, Array], Sequence[str] | None]
_log = logging.getLogger("groundup.monitoring")
_LINGER_S = 0.05  # how long batches gather: one pass over many small batches costs as much as over one of them
_TICK_S = 1.0  # how often clocks are looked at when nothing comes
_ROWS_AT_ONCE = 16_384
_REMIND_S, _NAMED = 3600.0, 20  # an alarm that lasts is repeated so often, and names so many columns
_OVERHEAD = 2_048  # bytes that a batch costs beside its arrays


def _to_log(event: dict[str, Any]) -> None:
    _log.warning(event["event"], extra=event)


class Live:
    """Watches the traffic of one bundle.  Every method may be called from any thread.

    Args:
        profile: content of the bundle's ``profile.json``.
        version: of the bundle, written to the log.
        alert: called from the monitor's thread with a JSON-able event when the alarm rises, falls or lasts; logs by default.

    Raises:
        BundleError: the profile cannot be used.
    """

    def __init__(
        self,
        profile: dict[str, Any],
        signature: Signature,
        settings: Monitor | None = None,
        *,
        version: str = "",
        alert: Callable[[dict[str, Any]], None] = _to_log,
    ) -> None:
        self.settings = settings or Monitor()
        self.drift = Drift(profile, self.settings.drift)
        self.log = PredictionLog(self.settings.log, signature, version) if self.settings.log.path is not None else None
        self._alert = alert
        self._pending: deque[Batch] = deque()
        self._pending_bytes = 0
        self._lock = threading.Lock()
        self._wake, self._idle = threading.Event(), threading.Event()
        self._idle.set()
        self._stopping = False
        self.rows = self.batches = self.dropped_batches = self.errors = 0
        self.last_error: str | None = None
        self._alert_again = 0.0  # on the monotonic clock; 0 while all is quiet
        self._thread = threading.Thread(target=self._work, name="groundup-monitor", daemon=True)
        self._thread.start()

    def observe(self, inputs: dict[str, Array], outputs: dict[str, Array], ids: Sequence[str] | None = None) -> bool:
        """Hand over one answered batch: tensors by name (N, ...), and N request ids if the log shall have them.

        Returns:
            False if the batch was dropped, because too much is waiting or the monitor is closed; drops are counted.
        """
        size = _OVERHEAD + sum(x.nbytes for x in inputs.values()) + sum(x.nbytes for x in outputs.values())
        with self._lock:
            if self._stopping or self._pending_bytes + size > self.settings.queue_mb * 1e6:
                self.dropped_batches += 1
                return False
            self._pending.append((time.time(), inputs, outputs, ids))
            self._pending_bytes += size
            self._idle.clear()
        self._wake.set()
        return True

    def flush(self, timeout: float = 10.0) -> bool:
        """Wait until all that was observed is counted; False after ``timeout`` seconds."""
        return self._idle.wait(timeout)

    def close(self, timeout: float = 10.0) -> bool:
        """Take nothing more, finish what waits, write the log; False if that took longer than ``timeout`` seconds."""
        with self._lock:
            self._stopping = True
        self._wake.set()
        self._thread.join(timeout)
        return not self._thread.is_alive()

    # ── the monitor's thread ─────────────────────────────────────────────────────────────────────────────────────────────────
    def _work(self) -> None:
        while True:
            woken = self._wake.wait(_TICK_S)
            if woken and not self._stopping:
                time.sleep(_LINGER_S)
            with self._lock:
                batches, self._pending, self._pending_bytes = self._pending, deque(), 0
                stopping = self._stopping
                self._wake.clear()
            while batches:
                self._guarded(self._take, _group(batches))
            self._guarded(self._tick)
            with self._lock:
                if not self._pending:
                    self._idle.set()
            if stopping:
                if self.log is not None:
                    self._guarded(self.log.close)
                return

    def _guarded(self, action: Callable[..., None], *args: Any) -> None:
        """A fault in watching must not end the watching, let alone the serving: it is counted, shown and logged."""
        try:
            action(*args)
        except Exception as e:  # noqa: BLE001
            self.errors += 1
            self.last_error = f"{type(e).__name__}: {e}"
            _log.exception("the monitor failed on a batch; serving goes on")

    def _take(self, group: list[Batch]) -> None:
        inputs, outputs = _joined([b[1] for b in group]), _joined([b[2] for b in group])
        counts = [max((len(x) for x in b[1].values()), default=0) for b in group]
        self.rows += sum(counts)
        self.batches += len(group)
        self._report(self.drift.update(inputs, outputs))
        if self.log is not None:
            times = np.repeat([b[0] for b in group], counts).tolist()
            ids = [i for b, n in zip(group, counts, strict=True) for i in (b[3] if b[3] is not None else [""] * n)]
            self.log.append(inputs, outputs, times=times, ids=ids)

    def _tick(self) -> None:
        self._report(self.drift.expire())
        if self.log is not None:
            self.log.tick()

    def _report(self, windows: list[Window]) -> None:
        """One event when the alarm rises, one when it falls, and one an hour while it lasts: busy servers close windows every second."""
        if self.settings.on_drift != "alert":
            return
        for window in windows:
            event = {"started": window.started, "closed": window.closed, "rows": window.rows}
            if window.alarm and time.monotonic() >= self._alert_again:
                drifted = window.columns("drifted")
                worst = {k: {"psi": round(window.scores[k].psi, 4), "p": window.scores[k].p} for k in drifted[:_NAMED]}
                self._alert({"event": "drift", **event, "drifted": len(drifted), "columns": worst})
                self._alert_again = time.monotonic() + _REMIND_S
            elif not window.alarm and self._alert_again:
                self._alert({"event": "drift over", **event})
                self._alert_again = 0.0

    # ── what others read ────────────────────────────────────────────────────────────────────────────────────────────────────
    @property
    def alarm(self) -> bool:
        """Whether the last window drifted and drift is to be alerted."""
        return self.drift.alarm and self.settings.on_drift == "alert"

    def state(self) -> dict[str, Any]:
        """JSON-able: ``drift`` as :meth:`Drift.scores`, what was watched, dropped and logged, and what is wrong."""
        log = self.log
        return {
            "alarm": self.alarm,
            "rows": self.rows,
            "batches": self.batches,
            "dropped_batches": self.dropped_batches,
            "errors": self.errors,
            "last_error": self.last_error,
            "log": None
            if log is None
            else {
                "folder": str(log.folder),
                "files": log.files,
                "rows": log.rows,
                "pending": log.pending,
                "degraded": log.degraded,
                "errors": log.errors,
                "lost_rows": log.lost_rows,
            },
            "drift": self.drift.scores(),
        }

    def collect(self) -> Iterator[Metric]:
        """Prometheus metrics; called by the registry that this object is registered with."""
        scores = GaugeMetricFamily(
            "groundup_feature_drift_score", "Size of the drift of a column in the last tested window.", labels=["feature", "stat"]
        )
        states = GaugeMetricFamily("groundup_drift_columns", "Columns of the last tested window by state.", labels=["state"])
        window = self.drift.last
        for name, score in window.scores.items() if window is not None else ():
            scores.add_metric([name, "psi"], score.psi)
            scores.add_metric([name, "excess"], score.excess)
            scores.add_metric([name, "ks"], score.ks)
        for state in ("shifted", "drifted"):
            states.add_metric([state], len(window.columns(state)) if window is not None else 0)
        yield scores
        yield states
        yield GaugeMetricFamily("groundup_drift_alarm", "1 if a column of the last tested window drifted.", value=float(self.alarm))
        counters = {
            "groundup_drift_windows": ("Windows of traffic tested for drift.", self.drift.tested),
            "groundup_monitor_rows": ("Rows watched.", self.rows),
            "groundup_monitor_dropped_batches": ("Batches that were not watched because too much was waiting.", self.dropped_batches),
            "groundup_monitor_errors": ("Batches on which the monitor failed.", self.errors),
        }
        if self.log is not None:
            counters |= {
                "groundup_prediction_log_files": ("Files of the prediction log written.", self.log.files),
                "groundup_prediction_log_errors": ("Times that a file of the prediction log could not be written.", self.log.errors),
                "groundup_prediction_log_lost_rows": ("Rows that are in no file of the prediction log.", self.log.lost_rows),
            }
            degraded = float(self.log.degraded is not None)
            yield GaugeMetricFamily("groundup_prediction_log_degraded", "1 while the prediction log cannot be written.", value=degraded)
        for name, (text, value) in counters.items():
            yield CounterMetricFamily(name, text, value=value)


def _group(batches: deque[Batch]) -> list[Batch]:
    """Take batches off the left, up to ``_ROWS_AT_ONCE`` rows, that have the same tensors of the same row shapes."""
    first = batches.popleft()
    group, rows = [first], max((len(x) for x in first[1].values()), default=0)
    while batches and rows < _ROWS_AT_ONCE and _alike(first, batches[0]):
        group.append(batches.popleft())
        rows += max((len(x) for x in group[-1][1].values()), default=0)
    return group


def _alike(a: Batch, b: Batch) -> bool:
    return all(
        x.keys() == y.keys() and all(x[k].shape[1:] == y[k].shape[1:] and x[k].dtype == y[k].dtype for k in x)
        for x, y in zip(a[1:3], b[1:3], strict=True)
    )


def _joined(parts: list[dict[str, Array]]) -> dict[str, Array]:
    return parts[0] if len(parts) == 1 else {k: np.concatenate([p[k] for p in parts]) for k in parts[0]}

"""The drift monitor beside the server: fed after the answers are out, in a thread of its own, never waited for.

Batches are handed over through a bounded queue; what does not fit is dropped and counted.  A monitor that fails is
logged once and set aside: serving goes on, the state says so.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable, Iterable
from typing import Any, Protocol

import numpy as np

Arrays = dict[str, np.ndarray[Any, np.dtype[Any]]]
Sample = tuple[str, dict[str, str], float]
_log = logging.getLogger("groundup.serving")


class Monitor(Protocol):
    """What the server needs of a monitor."""

    def observe(self, inputs: Arrays, outputs: Arrays) -> None:
        """One batch that was answered: inputs and outputs (n, ...)."""
        ...

    def gauges(self) -> Iterable[Sample]:
        """(metric name, labels, value) for /metrics."""
        ...

    def state(self) -> dict[str, Any]:
        """JSON for /monitor."""
        ...


class Watch:
    """Feeds a monitor.

    Args:
        monitor: or None where the bundle has no profile.
        dropped: told how many rows were not taken.
        rows: most rows that may wait for the monitor.
    """

    def __init__(self, monitor: Monitor | None, dropped: Callable[[int], None], rows: int = 16384) -> None:
        self._monitor, self._dropped, self._limit = monitor, dropped, rows
        self._queue: queue.SimpleQueue[tuple[Arrays, Arrays] | None] = queue.SimpleQueue()
        self._in = self._out = 0  # rows handed over and rows taken; each is written by one thread only
        self._failed: str | None = None
        self._thread: threading.Thread | None = None
        if monitor is not None:
            self._thread = threading.Thread(target=self._work, name="groundup-monitor", daemon=True)
            self._thread.start()

    def feed(self, inputs: Arrays, outputs: Arrays) -> None:
        """Hand a batch over.  Called by the thread that runs the graph; never blocks."""
        if self._monitor is None or self._failed:
            return
        rows = len(next(iter(inputs.values())))
        if self._in - self._out + rows > self._limit:
            self._dropped(rows)
            return
        self._in += rows
        self._queue.put((inputs, outputs))

    def gauges(self) -> Iterable[Sample]:
        """The monitor's gauges, none where there is no monitor or it failed."""
        return self._monitor.gauges() if self._monitor is not None and not self._failed else ()

    def state(self) -> dict[str, Any]:
        """{"enabled": bool, ...the monitor's own state}."""
        if self._monitor is None:
            return {"enabled": False, "reason": "the bundle has no profile of its training data"}
        if self._failed:
            return {"enabled": False, "reason": f"the monitor failed ({self._failed}); see the server's log"}
        return {"enabled": True, **self._monitor.state()}

    def close(self) -> None:
        """Take what waits, then stop; at most two seconds."""
        self._queue.put(None)
        if self._thread is not None:
            self._thread.join(2)

    def _work(self) -> None:
        assert self._monitor is not None
        while (batch := self._queue.get()) is not None:
            taken = [batch]
            rows = len(next(iter(batch[0].values())))
            ended = False
            while rows < 1024 and not self._queue.empty():  # many small batches cost more than one large one
                more = self._queue.get()
                if more is None:
                    ended = True
                    break
                taken.append(more)
                rows += len(next(iter(more[0].values())))
            try:
                self._monitor.observe(*(_stacked([pair[side] for pair in taken]) for side in (0, 1)))
            except Exception as e:  # noqa: BLE001 - a monitor's mistake must not touch serving; it is logged and shown
                self._failed = type(e).__name__
                _log.exception("the drift monitor failed and is switched off until the next start")
            self._out += rows
            if ended or self._failed:
                return


def _stacked(parts: list[Arrays]) -> Arrays:
    return parts[0] if len(parts) == 1 else {name: np.concatenate([p[name] for p in parts]) for name in parts[0]}

"""Dynamic micro-batching: many requests, one run of the graph.

The rules, rows being counted and not requests:

1. Requests are run first come, first served, at most ``max_size`` rows together; a larger one is run alone, in slices.
2. A request that finds the server idle is run at once.  Only where the last run held several rows, hence several
   clients are at it, may the next run wait for as many rows again, and never longer than ``max_delay`` after the first
   of them came.  One client alone never waits.
3. More than ``capacity`` waiting rows are refused at once: a queue that only grows helps nobody.
4. Who has gone or whose deadline has passed is not run.
5. A run that fails is halved until the request that made it fail stands alone; its mates get their answers.

One thread runs the graph (ONNX Runtime releases the interpreter lock), so the event loop goes on answering health checks.
A run that takes less than ``INLINE`` seconds is made on the loop itself: handing it to the thread and back costs more,
and nobody notices the pause.  How long a run of so many rows takes is measured, in the processor time of its thread, so
that a busy machine does not look like a slow model; sizes that were never measured go to the thread.
"""

from __future__ import annotations

import asyncio
import logging
import math
import queue
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

import numpy as np

from groundup.serving.refusal import InferenceError, RequestError, too_many_rows

Arrays = dict[str, np.ndarray[Any, np.dtype[Any]]]
Ran = tuple[Arrays, Arrays, list[str], float, float]  # inputs, outputs, identity of each row, seconds, seconds of the processor
_log = logging.getLogger("groundup.serving")
INLINE = 0.00025
_NEVER_RUN = "the deadline passed while the request waited; it was not run"


class Ticket:
    """One waiting request: ``answer`` is a future of its outputs."""

    __slots__ = ("answer", "came", "deadline", "identity", "inputs", "rows", "started", "timer")

    def __init__(self, inputs: Arrays, rows: int, deadline: float, identity: str, answer: asyncio.Future[Arrays]) -> None:
        self.inputs, self.rows, self.deadline, self.identity, self.answer = inputs, rows, deadline, identity, answer
        self.came = time.monotonic()
        self.started = 0.0
        self.timer: asyncio.TimerHandle | None = None


class Batcher:
    """Collects requests and runs them together.  Made and used on one event loop.

    Args:
        run: inputs (n, ...) -> outputs (n, ...).
        max_size, capacity: rows.
        max_delay: seconds.
        ran: told about every run that succeeded: inputs, outputs, the identity of each row's request, seconds.  From the thread
            or the loop; must not block.

    Attributes:
        waiting: rows in the queue now.
    """

    def __init__(
        self,
        run: Callable[[Arrays], Arrays],
        *,
        max_size: int = 32,
        max_delay: float = 0.002,
        capacity: int = 1024,
        ran: Callable[[Arrays, Arrays, list[str], float], None] | None = None,
    ) -> None:
        self._run, self._ran = run, ran
        self.max_size, self.max_delay, self.capacity = max_size, max_delay, capacity
        self.waiting = 0
        self._queue: deque[Ticket] = deque()
        self._batches: queue.SimpleQueue[list[Ticket] | None] = queue.SimpleQueue()
        self._busy = self._gathering = False  # a run in the thread; a run put off until more rows have come
        self._last_rows, self._last_end = 1, -math.inf
        self._row_seconds = 0.0  # moving mean, for Retry-After
        self._cost: dict[int, float] = {}  # bits of the number of rows -> moving mean of a run's seconds
        self._wake: asyncio.Handle | None = None
        self._loop = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._work, name="groundup-run", daemon=True)
        self._thread.start()

    def submit(self, inputs: Arrays, rows: int, timeout: float, identity: str = "") -> Ticket:
        """Queue one request.

        Args:
            inputs: valid tensors (rows, ...), so that any two requests can be stacked.
            timeout: seconds until its deadline.
            identity: of the request, for ``ran``.

        Raises:
            RequestError: 413 more rows than the queue holds, 429 the queue is full.
        """
        if rows > self.capacity:
            raise too_many_rows(rows, self.capacity)
        self.check_room(rows)
        loop = self._loop
        ticket = Ticket(inputs, rows, time.monotonic() + timeout, identity, loop.create_future())
        self._queue.append(ticket)
        self.waiting += rows
        if self._busy:
            self._watch(ticket)
        elif self._wake is None:
            # In the next round of the loop: what arrives in this one goes along.
            self._wake = loop.call_soon(self._dispatch)
        elif self._gathering and self.waiting >= self._target():
            self._dispatch()
        return ticket

    def check_room(self, rows: int = 1) -> None:
        """Return if the queue takes so many rows more.

        Raises:
            RequestError: 429, with when to come back.
        """
        if self.waiting + rows > self.capacity:
            raise RequestError(429, "the queue is full; try again after the seconds in Retry-After", retry_after=self.retry_after())

    def cancel(self, ticket: Ticket) -> None:
        """Its client has gone: not run if it still waits, its answer dropped if it is being run."""
        self._settle(ticket, RequestError(499, "the client closed the connection"))

    def retry_after(self) -> int:
        """Whole seconds until the queue as it stands will have been worked off, at least 1."""
        return max(1, math.ceil(self.waiting * self._row_seconds))

    def close(self) -> None:
        """Run nothing more; the thread ends after the run that it is at."""
        self._batches.put(None)

    # on the event loop

    def _target(self) -> int:
        """Rows worth waiting for: as many as last time, if that was just now and a run is worth sharing."""
        rows = min(self._last_rows, self.max_size)
        return 1 if time.monotonic() - self._last_end > self.max_delay or self._cheap(rows) else rows

    def _cheap(self, rows: int) -> bool:
        return rows <= self.max_size and self._cost.get(rows.bit_length(), math.inf) <= INLINE

    def _watch(self, ticket: Ticket) -> None:
        """Keep an eye on the deadline of a ticket that is not answered at once."""
        if ticket.timer is None:
            ticket.timer = self._loop.call_later(max(0.0, ticket.deadline - time.monotonic()), self._expire, ticket)

    def _dispatch(self) -> None:
        if self._wake is not None:
            self._wake.cancel()
            self._wake = None
        self._gathering = False
        while self._queue and self._queue[0].answer.done():
            self._queue.popleft()
        if self._busy or not self._queue:
            return
        now = time.monotonic()
        left = self._queue[0].came + self.max_delay - now
        if left > 0 and self.waiting < self._target():
            for ticket in self._queue:
                self._watch(ticket)
            self._wake, self._gathering = self._loop.call_later(left, self._dispatch), True
            return
        batch: list[Ticket] = []
        rows = 0
        while self._queue and (not batch or rows + self._queue[0].rows <= self.max_size):
            ticket = self._queue.popleft()
            if ticket.answer.done():
                continue
            ticket.started = now
            self.waiting -= ticket.rows
            rows += ticket.rows
            batch.append(ticket)
        if self._cheap(rows):
            done: list[Ran] = []
            results = self._execute(batch, done)
            self._tell(done)
            self._finished(batch, rows, results, done)
            return
        self._busy = True
        for ticket in (*batch, *self._queue):
            self._watch(ticket)
        self._batches.put(batch)

    def _finished(self, batch: list[Ticket], rows: int, results: list[Arrays | Exception], done: list[Ran]) -> None:
        self._busy = False
        self._last_rows, self._last_end = rows, time.monotonic()
        for inputs, _, _, wall, cost in done:
            n = len(next(iter(inputs.values())))
            self._row_seconds += 0.1 * (wall / n - self._row_seconds)
            self._cost[n.bit_length()] = cost + 0.8 * (self._cost.get(n.bit_length(), cost) - cost)
        for ticket, result in zip(batch, results, strict=True):
            self._settle(ticket, result)
        if self._queue and self._wake is None:
            self._wake = self._loop.call_soon(self._dispatch)

    def _expire(self, ticket: Ticket) -> None:
        message = "the deadline passed while the model ran" if ticket.started else _NEVER_RUN
        self._settle(ticket, RequestError(504, message))

    def _settle(self, ticket: Ticket, result: Arrays | Exception) -> None:
        """Answer a ticket once; later answers are dropped."""
        if ticket.timer is not None:
            ticket.timer.cancel()
        if ticket.answer.done():
            return
        if not ticket.started:
            self.waiting -= ticket.rows
        if isinstance(result, Exception):
            ticket.answer.set_exception(result)
        else:
            ticket.answer.set_result(result)

    # in the thread, or on the loop where a run is cheap

    def _work(self) -> None:
        while (batch := self._batches.get()) is not None:
            done: list[Ran] = []
            results = self._execute(batch, done)
            try:
                self._loop.call_soon_threadsafe(self._finished, batch, sum(t.rows for t in batch), results, done)
            except RuntimeError:  # the loop is closed: the server has stopped without waiting for this run
                return
            self._tell(done)
            del batch, done, results  # the next may be long in coming

    def _tell(self, done: list[Ran]) -> None:
        if self._ran is not None:
            try:
                for inputs, outputs, identities, seconds, _ in done:
                    self._ran(inputs, outputs, identities, seconds)
            except Exception:  # noqa: BLE001 - who is told must not be able to stop the runs
                _log.exception("what was told of a run failed; serving goes on")

    def _execute(self, tickets: list[Ticket], done: list[Ran]) -> list[Arrays | Exception]:
        """One result a ticket; what ran goes to ``done``."""
        now = time.monotonic()
        if any(t.answer.done() or t.deadline <= now for t in tickets):
            live = [t for t in tickets if not t.answer.done() and t.deadline > now]
            answers = dict(zip(map(id, live), self._execute(live, done) if live else [], strict=True))
            return [answers.get(id(t), RequestError(504, _NEVER_RUN)) for t in tickets]
        try:
            if len(tickets) == 1:
                outputs = self._slices(tickets[0], done)
                return [outputs]
            inputs = {name: np.concatenate([t.inputs[name] for t in tickets]) for name in tickets[0].inputs}
            outputs = self._counted(inputs, [i for t in tickets for i in [t.identity] * t.rows], done)
        except RequestError as e:
            return [e]
        except Exception as e:  # noqa: BLE001 - whatever a run raises belongs to the request that caused it, and the thread lives on
            if len(tickets) == 1:
                if not isinstance(e, InferenceError):
                    _log.exception("a run failed unexpectedly")
                else:
                    _log.error("the graph failed on a request: %s", e)
                return [
                    RequestError(
                        500, "the model failed on this request; its mates in the batch were answered, the server's log has the reason"
                    )
                ]
            half = len(tickets) // 2
            return self._execute(tickets[:half], done) + self._execute(tickets[half:], done)
        results: list[Arrays | Exception] = []
        at = 0
        for ticket in tickets:
            results.append({name: values[at : at + ticket.rows] for name, values in outputs.items()})
            at += ticket.rows
        return results

    def _slices(self, ticket: Ticket, done: list[Ran]) -> Arrays:
        if ticket.rows <= self.max_size:
            return self._counted(ticket.inputs, [ticket.identity] * ticket.rows, done)
        parts = []
        for at in range(0, ticket.rows, self.max_size):
            if ticket.answer.done() or ticket.deadline <= time.monotonic():
                raise RequestError(504, "the deadline passed while the model ran")
            piece = {name: values[at : at + self.max_size] for name, values in ticket.inputs.items()}
            parts.append(self._counted(piece, [ticket.identity] * min(self.max_size, ticket.rows - at), done))
        return {name: np.concatenate([p[name] for p in parts]) for name in parts[0]}

    def _counted(self, inputs: Arrays, identities: list[str], done: list[Ran]) -> Arrays:
        rows = len(identities)
        wall, cost = time.perf_counter(), time.thread_time()
        outputs = self._run(inputs)
        wall, cost = time.perf_counter() - wall, time.thread_time() - cost
        if any(len(values) != rows for values in outputs.values()):
            raise InferenceError(f"{rows} rows went in, {[len(v) for v in outputs.values()]} came out")
        done.append((inputs, outputs, identities, wall, cost))
        return outputs

"""One bundle being served: engine, batcher, monitor and metrics, and the state that readiness tells."""

from __future__ import annotations

import json
import logging
from typing import Any

from groundup.bundle import Bundle, Proof
from groundup.monitoring.live import Live
from groundup.monitoring.settings import Monitor
from groundup.serving.batcher import Arrays, Batcher
from groundup.serving.engine import Engine, cpu_difference
from groundup.serving.metrics import Metrics
from groundup.serving.refusal import RequestError
from groundup.serving.settings import Serve
from groundup.serving.v2 import V2

_log = logging.getLogger("groundup.serving")
_PROFILE = "profile.json"


class Service:
    """Loads and self-tests a bundle; :meth:`start` on the event loop makes it answer.

    Attributes:
        ready: answering; False before the start and while draining.

    Raises:
        BundleError, ProofError: see :class:`~groundup.serving.engine.Engine`.
    """

    def __init__(self, bundle: Bundle, settings: Serve) -> None:
        self.bundle, self.settings = bundle, settings
        self.engine = Engine(bundle, settings.threads)
        self.proofs: list[Proof] = self.engine.self_test()
        if difference := cpu_difference(bundle):
            _log.warning("%s; the self-test passed", difference)
        self.v2 = V2(bundle)
        self.ready = False
        self.draining = False
        self._batcher: Batcher | None = None
        self.monitor = _monitor(bundle)
        self.metrics = Metrics(bundle, lambda: self._batcher.waiting if self._batcher else 0, self.monitor)

    def start(self) -> None:
        """Begin to answer.  Called on the running event loop."""
        batch = self.settings.batch
        self._batcher = Batcher(
            self.engine.run, max_size=batch.max_size, max_delay=batch.max_delay_ms / 1e3, capacity=self.settings.queue, ran=self._ran
        )
        self.ready = True

    def drain(self) -> None:
        """Say from now on that this server is not ready; what comes is still answered."""
        self.ready, self.draining = False, True

    def close(self) -> None:
        """Stop for good."""
        self.ready = False
        if self._batcher is not None:
            self._batcher.close()
        if self.monitor is not None:
            self.monitor.close(timeout=2)

    @property
    def batcher(self) -> Batcher:
        """The running batcher.

        Raises:
            RequestError: 503 before the start.
        """
        if self._batcher is None:
            raise RequestError(503, "the server is starting", retry_after=1)
        return self._batcher

    async def infer(self, inputs: Arrays, rows: int, timeout: float | None, scope: Any, leave_key: str) -> Arrays:
        """Answers for valid tensors, through the queue.

        Args:
            timeout: seconds that the client allows; never more than the server's own.
            scope: of the request; under ``leave_key`` it gets what takes the request out of the queue.

        Raises:
            RequestError: 413, 429, 499, 500, 503 or 504.
        """
        limit = self.settings.timeout_ms / 1e3
        batcher = self.batcher
        ticket = batcher.submit(inputs, rows, limit if timeout is None else min(limit, timeout))
        scope[leave_key] = lambda: batcher.cancel(ticket)
        try:
            return await ticket.answer
        finally:
            batcher.cancel(ticket)  # does nothing to one that was answered
            if ticket.started:
                self.metrics.waited(ticket.started - ticket.came)

    def _ran(self, inputs: Arrays, outputs: Arrays, seconds: float) -> None:
        self.metrics.ran(len(next(iter(inputs.values()))), seconds)
        if self.monitor is not None:
            self.monitor.observe(inputs, outputs)


def _monitor(bundle: Bundle) -> Live | None:
    """The drift monitor, where the bundle carries a profile."""
    if _PROFILE not in bundle.files:
        return None
    return Live(json.loads(bundle.read(_PROFILE)), bundle.signature, Monitor.model_validate(dict(bundle.monitor)), version=bundle.version)

"""One bundle being served: engine, batcher, monitor and metrics, and the state that readiness tells."""

from __future__ import annotations

import functools
import json
import logging
import time
from typing import Any

from groundup.bundle import Bundle, Proof
from groundup.monitoring.live import Live
from groundup.monitoring.settings import Monitor
from groundup.serving.aside import Aside
from groundup.serving.batcher import Arrays, Batcher
from groundup.serving.engine import Engine, cpu_difference
from groundup.serving.metrics import Metrics
from groundup.serving.protocol import GONE, TICKET
from groundup.serving.refusal import RequestError
from groundup.serving.settings import Serve
from groundup.serving.v2 import V2

_log = logging.getLogger("groundup.serving")
_PROFILE = "profile.json"


class Service:
    """Loads and self-tests a bundle; :meth:`start` on the event loop makes it answer.

    Attributes:
        ready: answering; False before the start and while draining.
        aside: where large bodies are read and large answers written.

    Raises:
        BundleError, ProofError: see :class:`~groundup.serving.engine.Engine`.
    """

    def __init__(self, bundle: Bundle, settings: Serve) -> None:
        self.bundle, self.settings = bundle, settings
        self.engine = Engine(bundle, settings.threads)
        self.proofs: list[Proof] = self.engine.self_test()
        if difference := cpu_difference(bundle):
            _log.warning("%s; the self-test passed", difference)
        self.v2 = V2(bundle, settings.queue)
        self.aside = Aside()
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

    async def infer(self, inputs: Arrays, rows: int, deadline: float, identity: str, scope: Any) -> Arrays:
        """Answers for valid tensors, through the queue.

        Args:
            deadline: of the request, on the monotonic clock.
            scope: of the request; it tells whether the client has gone, and gets what takes the request out of the queue.

        Raises:
            RequestError: 413, 429, 499, 500, 503 or 504.
        """
        if GONE in scope:
            raise RequestError(499, "the client closed the connection")
        batcher = self.batcher
        ticket = batcher.submit(inputs, rows, deadline - time.monotonic(), identity)
        scope[TICKET] = functools.partial(batcher.cancel, ticket)
        try:
            return await ticket.answer
        finally:
            batcher.cancel(ticket)  # does nothing to one that was answered
            if ticket.started:
                self.metrics.waited(ticket.started - ticket.came)
            del scope[TICKET], ticket  # or an exception and this frame hold each other, and with them the tensors

    def _ran(self, inputs: Arrays, outputs: Arrays, identities: list[str], seconds: float) -> None:
        self.metrics.ran(len(identities), seconds)
        if self.monitor is not None:
            self.monitor.observe(inputs, outputs, identities)


def _monitor(bundle: Bundle) -> Live | None:
    """The drift monitor, where the bundle carries a profile."""
    if _PROFILE not in bundle.files:
        return None
    return Live(json.loads(bundle.read(_PROFILE)), bundle.signature, Monitor.model_validate(dict(bundle.monitor)), version=bundle.version)

"""What Prometheus sees.  Names follow its conventions; no label comes from a path, a header or a body.

Buckets begin at half a millisecond: a small model answers faster than the usual first bucket of 5 ms.
"""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.exposition import choose_encoder

from groundup.bundle import Bundle
from groundup.monitoring.live import Live

SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10)
ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
PROTOCOLS = ("v2", "predict", "invocations", "health", "metrics", "page", "docs", "other")
REASONS = {
    401: "unauthorized",
    403: "forbidden",
    408: "slow_body",
    413: "too_large",
    429: "queue_full",
    499: "client_gone",
    503: "stopping",
    504: "deadline",
}


class Metrics:
    """The registry of one server.

    Args:
        waiting: rows in the queue now.
        monitor: adds its own gauges, or None.
    """

    def __init__(self, bundle: Bundle, waiting: Callable[[], int], monitor: Live | None = None) -> None:
        self.registry = CollectorRegistry()
        r = self.registry
        self._requests = Counter("groundup_requests", "Requests by protocol and HTTP status.", ["protocol", "code"], registry=r)
        self._seconds = Histogram(
            "groundup_request_duration_seconds",
            "From the head of a request to the end of its answer.",
            ["protocol"],
            registry=r,
            buckets=SECONDS,
        )
        self._rejected = Counter("groundup_rejected", "Requests refused, by reason.", ["reason"], registry=r)
        self.in_flight = 0
        Gauge("groundup_in_flight_requests", "Requests being answered.", registry=r).set_function(lambda: self.in_flight)
        Gauge("groundup_queue_rows", "Rows that wait.", registry=r).set_function(waiting)
        self._wait = Histogram("groundup_queue_wait_seconds", "From the arrival of a request to its run.", registry=r, buckets=SECONDS)
        self._rows = Histogram("groundup_batch_rows", "Rows in one run of the graph.", registry=r, buckets=ROWS)
        self._run = Histogram("groundup_run_duration_seconds", "One run of the graph.", registry=r, buckets=SECONDS)
        info = Gauge("groundup_model_info", "The bundle that is served.", ["name", "version", "task"], registry=r)
        info.labels(bundle.name, bundle.version, bundle.task).set(1)
        ProcessCollector(registry=r)
        if monitor is not None:
            r.register(monitor)
        self._by_code = {(p, c): self._requests.labels(p, str(c)) for p in ("v2", "predict", "invocations") for c in (200, 400, 429)}
        self._by_protocol = {p: self._seconds.labels(p) for p in PROTOCOLS}
        self._by_reason = {status: self._rejected.labels(reason) for status, reason in REASONS.items()}

    def answered(self, protocol: str, code: int, seconds: float) -> None:
        """One request has its answer."""
        key = (protocol, code)
        counter = self._by_code.get(key)
        if counter is None:
            counter = self._by_code[key] = self._requests.labels(protocol, str(code))
        counter.inc()
        self._by_protocol[protocol].observe(seconds)
        if code in self._by_reason:
            self._by_reason[code].inc()

    def waited(self, seconds: float) -> None:
        """One request has waited in the queue."""
        self._wait.observe(seconds)

    def ran(self, rows: int, seconds: float) -> None:
        """One run of the graph is done."""
        self._rows.observe(rows)
        self._run.observe(seconds)

    def page(self, accept: str) -> tuple[bytes, str]:
        """The exposition and its content type, OpenMetrics where the client accepts it."""
        encoder, content_type = choose_encoder(accept)
        return encoder(self.registry), content_type

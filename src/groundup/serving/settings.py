"""The ``serve`` section of a recipe: how a bundle is served unless the command line says otherwise."""

from __future__ import annotations

from pydantic import Field

from groundup.sections import Section


class Batch(Section):
    """How requests share a run of the graph.  Rows are counted, not requests."""

    max_size: int = Field(default=32, ge=1, le=65536)
    """At most so many rows in one run; a larger request is run in slices of this size."""
    max_delay_ms: float = Field(default=2.0, ge=0, le=10_000)
    """How long the first of several waiting requests may wait for others.  A request that finds the server idle never waits."""


class Serve(Section):
    """How the model is served."""

    batch: Batch = Batch()
    queue: int = Field(1024, ge=1)
    """Rows that may wait; beyond them a request is refused at once with 429 and Retry-After.  Also the most rows of one request."""
    timeout_ms: float = Field(10_000, gt=0)
    """From the last byte of a request to its answer, else 504; a request still waiting then is never run.  Clients may only shorten it."""
    max_body_mb: float = Field(16, gt=0, le=1024)
    """Largest request body in MiB, declared or chunked; beyond it 413."""
    body_timeout_s: float = Field(10, gt=0)
    """A request whose head or body has not arrived after so many seconds is closed (408)."""
    max_connections: int = Field(4096, ge=1)
    """Open connections; beyond them a request is refused with 503."""
    threads: int = Field(1, ge=1)
    """Threads that ONNX Runtime uses for one run."""
    grace_s: float = Field(15, gt=0)
    """After SIGTERM, requests under way get so many seconds to finish."""
    drain_delay_s: float = Field(1, ge=0)
    """After SIGTERM, how long to go on accepting while readiness already says 503, so that load balancers move away first."""
    access_log: float = Field(0, ge=0, le=1)
    """Share of requests that get a line in the log; failures of the server always do."""
    allowed_hosts: tuple[str, ...] = ()
    """Host names that clients may use besides the loopback names and the address that is listened on."""

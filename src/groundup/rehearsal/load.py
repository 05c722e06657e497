"""Load from outside: many keep-alive connections, one thread, no library; latency as a client sees it.

Closed loop: each connection sends its next request when its answer has come, so throughput is what ``connections``
callers who wait get.  A request is *failed* unless a whole answer with status 200 came back.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import cast

from groundup.rehearsal.server import HOST


@dataclass(frozen=True)
class Request:
    """One POST of JSON."""

    path: str
    body: bytes

    def encode(self, port: int) -> bytes:
        """The bytes to send to a server on ``port`` of loopback."""
        about = f"Host: {HOST}:{port}\r\nContent-Type: application/json\r\nContent-Length: {len(self.body)}\r\n\r\n"
        return f"POST {self.path} HTTP/1.1\r\n{about}".encode() + self.body


@dataclass
class Result:
    """What came back.

    Attributes:
        latencies: seconds of each answered request, in order of answering.
        answers: index of the request -> (status, body), where answers are kept.
        failures: one line each: what was expected to come back and did not.
        seconds: from the first byte sent to the last received.
    """

    latencies: list[float] = field(default_factory=list)
    answers: dict[int, tuple[int, bytes]] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def requests(self) -> int:
        """Requests sent."""
        return len(self.latencies) + len(self.failures)

    def measure(self) -> dict[str, float]:
        """requests, failed, p50_ms, p99_ms, requests_per_second."""
        ordered = sorted(self.latencies)

        def quantile(q: float) -> float:
            return ordered[min(int(q * len(ordered)), len(ordered) - 1)] * 1000 if ordered else float("nan")

        return {
            "requests": self.requests,
            "failed": len(self.failures),
            "p50_ms": round(quantile(0.5), 4),
            "p99_ms": round(quantile(0.99), 4),
            "requests_per_second": round(len(ordered) / self.seconds, 1) if self.seconds else float("nan"),
        }


class _Connection(asyncio.Protocol):
    """HTTP/1.1, one request at a time: enough of a client to be fast, strict enough to notice a broken answer."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self.buffer = bytearray()
        self.waiting: asyncio.Future[tuple[int, bytes]] | None = None
        self.closing = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is no subclass

    def send(self, data: bytes) -> asyncio.Future[tuple[int, bytes]]:
        assert self.transport is not None
        self.waiting = asyncio.get_running_loop().create_future()
        self.transport.write(data)
        return self.waiting

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        end = self.buffer.find(b"\r\n\r\n")
        if end < 0 or self.waiting is None or self.waiting.done():
            return
        head = bytes(self.buffer[:end]).lower()
        at = head.find(b"\r\ncontent-length:")
        if at < 0:
            self.waiting.set_exception(ConnectionError("an answer without Content-Length"))
            return
        length = int(head[at + 17 :].split(b"\r\n", 1)[0])
        if len(self.buffer) < end + 4 + length:
            return
        self.closing = b"\r\nconnection: close" in head
        status, body = int(head[9:12]), bytes(self.buffer[end + 4 : end + 4 + length])
        del self.buffer[: end + 4 + length]
        self.waiting.set_result((status, body))

    def connection_lost(self, error: Exception | None) -> None:
        self.closing = True
        if self.waiting is not None and not self.waiting.done():
            self.waiting.set_exception(ConnectionError(f"connection closed before the answer came ({error or 'end of file'})"))


async def _worker(port: int, requests: Sequence[bytes], take: Callable[[], int | None], result: Result, keep: bool, timeout: float) -> None:
    loop = asyncio.get_running_loop()
    connection: _Connection | None = None
    try:
        while (index := take()) is not None:
            started = time.perf_counter()
            try:
                if connection is None or connection.closing:
                    if connection is not None and connection.transport is not None:
                        connection.transport.close()
                    _, connection = await loop.create_connection(_Connection, HOST, port)
                async with asyncio.timeout(timeout):
                    status, body = await connection.send(requests[index % len(requests)])
            except (OSError, TimeoutError) as e:
                result.failures.append(f"request {index}: {type(e).__name__} {e}")
                if connection is not None and connection.transport is not None:
                    connection.transport.abort()
                connection = None
                continue
            if keep:
                result.answers[index] = (status, body)
            if status == 200:
                result.latencies.append(time.perf_counter() - started)
            else:
                result.failures.append(f"request {index}: status {status}, {body[:300].decode(errors='replace')}")
    finally:
        if connection is not None and connection.transport is not None:
            connection.transport.close()


async def _drive(
    port: int,
    requests: Sequence[Request],
    count: int,
    seconds: float,
    connections: int,
    keep: bool,
    go_on: Callable[[], bool],
    timeout: float,
) -> Result:
    result, encoded = Result(), [r.encode(port) for r in requests]
    upcoming, deadline = iter(range(count)), time.perf_counter() + seconds

    def take() -> int | None:
        return next(upcoming, None) if time.perf_counter() < deadline and go_on() else None

    started = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for _ in range(min(connections, count)):
            group.create_task(_worker(port, encoded, take, result, keep, timeout))
    result.seconds = time.perf_counter() - started
    return result


def send(
    port: int,
    requests: Sequence[Request],
    *,
    count: int | None = None,
    seconds: float = float("inf"),
    connections: int = 1,
    keep: bool = False,
    go_on: Callable[[], bool] = lambda: True,
    timeout: float = 30.0,
) -> Result:
    """Send ``requests`` in order, over and over, until ``count`` (once each by default), ``seconds`` or ``go_on`` ends it.

    Args:
        connections: how many callers wait for answers at the same time.
        keep: keep every answer, by its request's index.
        go_on: asked before each request; False lets what is under way come back and sends no more.
        timeout: seconds after which a request without an answer has failed.
    """
    count = len(requests) if count is None else count

    def run() -> Result:
        with asyncio.Runner(loop_factory=_loop) as runner:
            return runner.run(_drive(port, requests, count, seconds, connections, keep, go_on, timeout))

    with ThreadPoolExecutor(1) as pool:  # a thread of its own, because a notebook's has a loop running already
        return pool.submit(run).result()


def _loop() -> asyncio.AbstractEventLoop:
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()

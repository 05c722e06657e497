"""Load on a running server, for tests and benchmarks: open loop, bursts, clients that leave, and what the process costs meanwhile.

Latencies count from the moment at which a request was due, not from when a busy client came to send it.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil


def post(path: str, body: bytes, **headers: str) -> bytes:
    """A request as it goes over the wire."""
    head = "".join(f"{k.replace('_', '-')}: {v}\r\n" for k, v in headers.items())
    return f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n{head}\r\n".encode() + body


@dataclass
class Result:
    """What a load came to.

    Attributes:
        seconds: from the first request due to the last answer.
        latencies: seconds, by HTTP status; 0 stands for a connection that failed.
        retry_after: of every 429 and 503.
    """

    seconds: float = 0.0
    latencies: dict[int, list[float]] = field(default_factory=dict)
    retry_after: list[str | None] = field(default_factory=list)

    def count(self, status: int) -> int:
        return len(self.latencies.get(status, ()))

    @property
    def codes(self) -> dict[int, int]:
        """How often each status came."""
        return {status: len(found) for status, found in sorted(self.latencies.items())}

    def quantile(self, status: int, q: float) -> float:
        """Seconds; NaN where the status never came."""
        return quantile(self.latencies.get(status, ()), q)


def quantile(values: Sequence[float], q: float) -> float:
    """The smallest value with at least the share ``q`` at or below it; NaN when empty."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(q * len(ordered)))] if ordered else float("nan")


class Clients:
    """A pool of connections; as many are opened as are in use at once."""

    def __init__(self, host: str, port: int) -> None:
        self.host, self.port = host, port
        self._free: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def ask(self, request: bytes) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and body of one request; 0 where the connection failed."""
        try:
            reader, writer = self._free.pop() if self._free else await asyncio.open_connection(self.host, self.port)
        except OSError:
            return 0, {}, b""
        try:
            writer.write(request)
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
            headers = {k.lower(): v for k, _, v in (line.partition(": ") for line in head[1:] if line)}
            body = await reader.readexactly(int(headers["content-length"]))
        except (OSError, asyncio.IncompleteReadError):
            writer.close()
            return 0, {}, b""
        if headers.get("connection") == "close":
            writer.close()
        else:
            self._free.append((reader, writer))
        return int(head[0].split(" ")[1]), headers, body

    async def close(self) -> None:
        for _, writer in self._free:
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()
        self._free.clear()


async def open_loop(host: str, port: int, requests: Sequence[bytes], rate: float, seconds: float) -> Result:
    """``rate`` requests a second whatever becomes of those before, drawn from ``requests``."""
    result, clients, chance = Result(), Clients(host, port), random.Random(0)
    began = time.perf_counter()

    async def one(due: float) -> None:
        status, headers, _ = await clients.ask(chance.choice(requests))
        result.latencies.setdefault(status, []).append(time.perf_counter() - due)
        if status in (429, 503):
            result.retry_after.append(headers.get("retry-after"))

    asking = set()
    for i in range(round(rate * seconds)):
        due = began + i / rate
        if (wait := due - time.perf_counter()) > 0.001:
            await asyncio.sleep(wait)
        task = asyncio.ensure_future(one(due))
        asking.add(task)
        task.add_done_callback(asking.discard)
    await asyncio.gather(*asking)
    result.seconds = time.perf_counter() - began
    await clients.close()
    return result


async def closed_loop(host: str, port: int, request: bytes, connections: int, seconds: float) -> Result:
    """So many clients, each of which asks again as soon as it has its answer."""
    result, clients = Result(), Clients(host, port)
    began = time.perf_counter()

    async def one() -> None:
        while (now := time.perf_counter()) < began + seconds:
            status, _, _ = await clients.ask(request)
            result.latencies.setdefault(status, []).append(time.perf_counter() - now)

    await asyncio.gather(*(one() for _ in range(connections)))
    result.seconds = time.perf_counter() - began
    await clients.close()
    return result


async def leavers(host: str, port: int, requests: Sequence[bytes], times: int, at_once: int = 50) -> None:
    """Clients that go away at a random point: in the head, in the body, while they wait, in the middle of the answer."""
    chance, turns = random.Random(1), asyncio.Semaphore(at_once)

    async def one() -> None:
        request = chance.choice(requests)
        async with turns:
            try:
                reader, writer = await asyncio.open_connection(host, port)
                writer.write(request[: chance.randint(0, len(request))] if chance.random() < 0.5 else request)
                await asyncio.sleep(chance.choice([0, 0.001, 0.005, 0.02]))
                if chance.random() < 0.1:
                    with suppress(TimeoutError):
                        await asyncio.wait_for(reader.read(20), 0.05)
                if chance.random() < 0.5:
                    writer.transport.abort()  # RST
                writer.close()
            except OSError:
                pass

    await asyncio.gather(*(one() for _ in range(times)))


# ── what others see meanwhile ──────────────────────────────────────────────────────────────────────────────────────────────────


class Watcher:
    """Asks a path every 20 ms from a process of its own, so that its latencies are the server's and not the load's."""

    def __init__(self, host: str, port: int, path: str = "/v2/health/live") -> None:
        command = [sys.executable, str(Path(__file__)), host, str(port), path]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        self._process.stdout.readline()  # it has begun

    def stop(self) -> dict[str, Any]:
        """{"latencies": seconds of those that were answered, "statuses": how often which}."""
        out, _ = self._process.communicate("\n", timeout=30)
        found: dict[str, Any] = json.loads(out)
        return found


def _watch(host: str, port: int, path: str) -> None:
    import threading

    ended = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.readline(), ended.set()), daemon=True).start()
    latencies: list[float] = []
    statuses: Counter[int] = Counter()
    print("begun", flush=True)
    connection = http.client.HTTPConnection(host, port, timeout=30)
    while not ended.wait(0.02):
        began = time.perf_counter()
        try:
            connection.request("GET", path)
            reply = connection.getresponse()
            reply.read()
            statuses[reply.status] += 1
            latencies.append(time.perf_counter() - began)
        except OSError:
            statuses[0] += 1
            connection.close()
    print(json.dumps({"latencies": latencies, "statuses": statuses}))


@dataclass(frozen=True)
class Cost:
    """What a process holds."""

    rss_mib: float
    fds: int
    threads: int


def cost(pid: int) -> Cost:
    process = psutil.Process(pid)
    return Cost(process.memory_info().rss / 2**20, process.num_fds(), process.num_threads())


def slope(times: Sequence[float], values: Sequence[float]) -> float:
    """Least-squares slope of ``values`` over ``times``."""
    n, t, v = len(times), sum(times) / len(times), sum(values) / len(values)
    spread = sum((x - t) ** 2 for x in times)
    return sum((times[i] - t) * (values[i] - v) for i in range(n)) / spread if spread else 0.0


if __name__ == "__main__":
    _watch(sys.argv[1], int(sys.argv[2]), sys.argv[3])

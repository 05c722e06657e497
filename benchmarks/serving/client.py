"""The load: wrk where there is one, else a client of our own over plain sockets."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from peers import Peer

_LUA = """
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
wrk.body = io.open("{body}"):read("*a")
done = function(summary, latency, requests)
  local e = summary.errors
  io.write(string.format('JSON{{"requests":%d,"us":%d,"p50":%d,"p99":%d,"errors":%d}}\\n', summary.requests, summary.duration,
    latency:percentile(50), latency:percentile(99), e.connect + e.read + e.write + e.status + e.timeout))
end
"""


def tool() -> str:
    """What makes the load."""
    return "wrk, 1 thread" if shutil.which("wrk") else "asyncio client (slower than wrk: rates are lower bounds)"


def measure(peer: Peer, connections: int, seconds: float, cores: set[int]) -> dict[str, float]:
    """requests, rps, p50_ms, p99_ms and errors of a closed loop with so many connections."""
    return _wrk(peer, connections, seconds, cores) if shutil.which("wrk") else asyncio.run(_own(peer, connections, seconds))


def _wrk(peer: Peer, connections: int, seconds: float, cores: set[int]) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        body, script = Path(folder, "body"), Path(folder, "post.lua")
        body.write_bytes(peer.body())
        script.write_text(_LUA.format(body=body))
        command = [
            "wrk",
            "-t1",
            f"-c{connections}",
            f"-d{max(1, round(seconds))}s",
            "-s",
            str(script),
            f"http://127.0.0.1:{peer.port}{peer.path}",
        ]
        out = subprocess.run(
            command, capture_output=True, text=True, check=True, timeout=seconds + 60, preexec_fn=lambda: os.sched_setaffinity(0, cores)
        ).stdout
    found = json.loads(next(line for line in out.splitlines() if line.startswith("JSON"))[4:])
    return {
        "requests": found["requests"],
        "rps": found["requests"] / found["us"] * 1e6,
        "p50_ms": found["p50"] / 1e3,
        "p99_ms": found["p99"] / 1e3,
        "errors": found["errors"],
    }


async def _own(peer: Peer, connections: int, seconds: float) -> dict[str, float]:
    body = peer.body()
    head = f"POST {peer.path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    times: list[float] = []
    errors = 0
    end = time.perf_counter() + seconds

    async def one() -> None:
        nonlocal errors
        reader, writer = await asyncio.open_connection("127.0.0.1", peer.port)
        while time.perf_counter() < end:
            began = time.perf_counter()
            writer.write(head + body)
            answer = await reader.readuntil(b"\r\n\r\n")
            length = next(int(line[15:]) for line in answer.lower().split(b"\r\n") if line.startswith(b"content-length:"))
            await reader.readexactly(length)
            times.append(time.perf_counter() - began)
            errors += not answer.startswith(b"HTTP/1.1 200")
        writer.close()

    began = time.perf_counter()
    await asyncio.gather(*(one() for _ in range(connections)))
    took = time.perf_counter() - began
    times.sort()
    return {
        "requests": len(times),
        "rps": len(times) / took,
        "p50_ms": times[len(times) // 2] * 1e3,
        "p99_ms": times[len(times) * 99 // 100] * 1e3,
        "errors": errors,
    }

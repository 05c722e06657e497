"""What the server does on a bad day: overload, health beside large bodies, clients that leave, hours of traffic.

    python benchmarks/serving/reliability.py overload      # 60 s at three times what it can do
    python benchmarks/serving/reliability.py health        # bursts and large bodies, liveness and readiness beside them
    python benchmarks/serving/reliability.py leavers       # 5,000 clients that go away in the middle
    python benchmarks/serving/reliability.py soak          # 30 minutes of mixed traffic

The load is that of the tests (tests/serving/load.py), for longer; the server has a profile, drift and the log of
predictions on, but for `overload` and `health` of the slow model, which has no profile.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "serving"))

import bundles  # noqa: E402 - the tests' own, from the path above
import load  # noqa: E402
import numpy as np  # noqa: E402
from live_server import Server, started  # noqa: E402

V2 = "/v2/models/toy/infer"


def tensor(rows: int, width: int, seed: int = 0) -> bytes:
    """A v2 request of so many rows of standard normal numbers."""
    values = np.random.default_rng(seed).normal(size=rows * width).round(4).tolist()
    body = {"inputs": [{"name": "x", "shape": [rows, width], "datatype": "FP32", "data": values}]}
    return load.post(V2, json.dumps(body).encode())


def milliseconds(latencies: Sequence[float]) -> str:
    """p50, p99 and the worst."""
    if not latencies:
        return "never"
    p50, p99, worst = (load.quantile(latencies, q) * 1e3 for q in (0.5, 0.99, 1.0))
    return f"p50 {p50:.1f}, p99 {p99:.1f}, worst {worst:.1f} ms"


def overload(folder: Path, seconds: float) -> None:
    """An open loop at three times the capacity that a closed loop finds."""
    bundles.slow(folder / "b", times=100, serve={"queue": 64, "batch": {"max_size": 4}})
    with started(folder / "b", folder) as server:
        request = load.post("/predict", b'{"x":[1.0]}')
        peak = asyncio.run(load.closed_loop(server.host, server.port, request, 16, 5))
        capacity = peak.count(200) / peak.seconds
        print(f"capacity {capacity:.0f} requests/s (closed loop, 16 clients), {milliseconds(peak.latencies[200])}")
        before = load.cost(server.process.pid)
        watchers = [load.Watcher(server.host, server.port, f"/v2/health/{what}") for what in ("live", "ready")]
        over = asyncio.run(load.open_loop(server.host, server.port, [request], 3 * capacity, seconds))
        after = load.cost(server.process.pid)
        print(f"offered {3 * capacity:.0f}/s for {seconds:.0f} s: {over.codes}")
        print(f"goodput {over.count(200) / over.seconds:.0f}/s, {over.count(200) / over.seconds / capacity:.0%} of capacity")
        print(f"served: {milliseconds(over.latencies[200])}; 64 rows of queue are {64 / capacity * 1e3:.0f} ms of work")
        print(f"refused: {milliseconds(over.latencies.get(429, []))}; Retry-After {sorted(set(map(str, over.retry_after)))}")
        for watcher, what in zip(watchers, ("live", "ready"), strict=True):
            found = watcher.stop()
            print(f"{what}: {found['statuses']}, {milliseconds(found['latencies'])}")
        print(f"memory {before.rss_mib:.0f} to {after.rss_mib:.0f} MiB")
        began = time.monotonic()
        again = asyncio.run(load.closed_loop(server.host, server.port, request, 1, 2))
        print(f"afterwards, one client, from {time.monotonic() - began - 2:.1f} s on: {milliseconds(again.latencies[200])}")
        print(f"memory {load.cost(server.process.pid).rss_mib:.0f} MiB, descriptors {before.fds} and {load.cost(server.process.pid).fds}")


def health(folder: Path, seconds: float) -> None:
    """Liveness and readiness, asked 50 times a second, while the server has other things to do."""
    bundles.slow(folder / "slow", times=250, serve={"queue": 256, "batch": {"max_size": 32}})
    bundles.mlp(folder / "mid", (64, 2048, 2048, 2048, 10))
    bundles.mlp(folder / "wide", (784, 64, 3), serve={"queue": 8192})
    slow, mid, wide = load.post("/predict", b'{"x":[1.0]}'), tensor(1, 64), tensor(2000, 784)
    for what, name, request, connections in (
        ("50 ms a run, queue of 256: 1,500 requests in one moment, every two seconds", "slow", slow, 0),
        ("50 ms a run, queue of 256: 300 clients that ask again as soon as they are refused", "slow", slow, 300),
        ("a few ms a run, 128 clients", "mid", mid, 128),
        (f"bodies of {len(wide) / 2**20:.0f} MiB of JSON, 8 clients", "wide", wide, 8),
    ):
        with started(folder / name, folder) as server:
            watchers = [load.Watcher(server.host, server.port, f"/v2/health/{path}") for path in ("live", "ready")]
            if connections:
                done = asyncio.run(load.closed_loop(server.host, server.port, request, connections, seconds))
            else:
                done = asyncio.run(bursts(server, request, 1500, round(seconds / 2)))
            print(f"{what}: {done.codes}; served {milliseconds(done.latencies[200])}; refused {milliseconds(done.latencies.get(429, []))}")
            for watcher, path in zip(watchers, ("live", "ready"), strict=True):
                found = watcher.stop()
                print(f"  {path}: {found['statuses']}, {milliseconds(found['latencies'])}")


async def bursts(server: Server, request: bytes, size: int, times: int) -> load.Result:
    """So many requests at once, two seconds for the queue to empty, and again."""
    result = load.Result()
    for _ in range(times):
        found = await load.open_loop(server.host, server.port, [request], 1e6, size / 1e6)
        for status, latencies in found.latencies.items():
            result.latencies.setdefault(status, []).extend(latencies)
        await asyncio.sleep(2)
    return result


def leavers(folder: Path, times: int) -> None:
    """Clients that go away, a tenth of the times after a warm-up that is not counted."""
    bundles.watched(folder / "b", monitor={"log": {"path": str(folder / "log"), "rotate_s": 5}})
    with started(folder / "b", folder) as server:
        requests = [tensor(1, 32), tensor(60, 32), tensor(3000, 32), b"GET /metrics HTTP/1.1\r\n\r\n"]
        asyncio.run(load.leavers(server.host, server.port, requests, times // 2))
        settle(server)
        before = load.cost(server.process.pid)
        print(f"before: {before}")
        for _ in range(5):
            asyncio.run(load.leavers(server.host, server.port, requests, times // 5))
            settle(server)
            print(f"after {times // 5} more: {load.cost(server.process.pid)}")
        waiting = server.metric("groundup_queue_rows")
        print(f"requests in flight {server.metric('groundup_in_flight_requests') - 1:.0f}, rows waiting {waiting:.0f}")
        codes = {c: server.metric("groundup_requests_total", protocol="v2", code=str(c)) for c in (200, 400, 408, 413, 429, 499, 500)}
        print(f"v2 answers by status: { {c: int(n) for c, n in codes.items() if n} }")
        print(f"a good request then: {server.ask('GET', '/v2/health/ready').status}")


def settle(server: Server) -> None:
    """Wait until nothing is under way."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and server.metric("groundup_in_flight_requests") > 1:
        time.sleep(0.2)
    time.sleep(1)


def soak(folder: Path, minutes: float, rate: float) -> None:
    """Mixed traffic: single rows, small batches, mistakes, clients that leave, a large body now and then."""
    log = folder / "log"
    bundles.watched(folder / "b", monitor={"log": {"path": str(log), "rotate_s": 10, "keep": 20}, "drift": {"window": 1000}})
    rows = np.random.default_rng(1).normal(size=(5, 32)).round(4).tolist()
    singles = [tensor(1, 32, seed) for seed in range(80)]
    several = [load.post("/predict", json.dumps([{"x": x} for x in rows]).encode())] * 10
    wrong = [load.post(V2, b'{"inputs":[]}'), load.post("/predict", b"{"), load.post("/predict", b'{"x":[1]}'), load.post("/nope", b"{}")]
    mix = [*singles, *several, *wrong, tensor(1000, 32)]
    with started(folder / "b", folder) as server:
        process = psutil.Process(server.process.pid)
        times: list[float] = []
        memory: list[float] = []
        print("minute  requests  5xx  p50 ms  p99 ms  RSS MiB  descriptors  threads  CPU %  log files")
        began = time.monotonic()
        for minute in range(1, round(minutes) + 1):
            process.cpu_percent()
            found = asyncio.run(traffic(server, mix, rate))
            cost = load.cost(server.process.pid)
            times.append((time.monotonic() - began) / 600)
            memory.append(cost.rss_mib)
            bad = sum(n for status, n in found.codes.items() if status >= 500 or status == 0)
            p50, p99 = (found.quantile(200, q) * 1e3 for q in (0.5, 0.99))
            files = len(list(log.glob("*.parquet")))
            print(
                f"{minute:>6}{sum(found.codes.values()):>10}{bad:>5}{p50:>8.2f}{p99:>8.2f}{cost.rss_mib:>9.1f}{cost.fds:>13}"
                f"{cost.threads:>9}{process.cpu_percent():>7.0f}{files:>11}",
                flush=True,
            )
        half = len(times) // 2
        print(f"memory, slope over the second half: {load.slope(times[half:], memory[half:]):+.2f} MiB in ten minutes")
        print(f"drift windows {server.metric('groundup_drift_windows_total'):.0f}, alarm {server.metric('groundup_drift_alarm'):.0f}")
        lost, failed, unwatched = (
            server.metric(f"groundup_{name}_total") for name in ("prediction_log_lost_rows", "monitor_errors", "monitor_dropped_batches")
        )
        print(f"rows lost by the log {lost:.0f}, monitor errors {failed:.0f}, batches not watched {unwatched:.0f}")
        began = time.monotonic()
        print(f"SIGTERM: status {server.stop()} after {time.monotonic() - began:.1f} s")


async def traffic(server: Server, mix: Sequence[bytes], rate: float) -> load.Result:
    """A minute of it; beside the requests, a fortieth as many clients that leave."""
    leaving = asyncio.ensure_future(load.leavers(server.host, server.port, mix, round(rate * 60 / 40), at_once=4))
    found = await load.open_loop(server.host, server.port, mix, rate, 60)
    await leaving
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one of them in a temporary folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["overload", "health", "leavers", "soak"])
    parser.add_argument("--seconds", type=float, default=60, help="of overload; a sixth of it for each burst of health")
    parser.add_argument("--times", type=int, default=5000, help="clients that leave")
    parser.add_argument("--minutes", type=float, default=30, help="of the soak")
    parser.add_argument("--rate", type=float, default=300, help="requests a second of the soak")
    given = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if given.what == "overload":
            overload(folder, given.seconds)
        elif given.what == "health":
            health(folder, given.seconds / 6)
        elif given.what == "leavers":
            leavers(folder, given.times)
        else:
            soak(folder, given.minutes, given.rate)
    return 0


if __name__ == "__main__":
    sys.exit(main())

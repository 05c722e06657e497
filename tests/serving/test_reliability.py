"""Bad days: overload, clients that leave, large bodies, clocks that jump, full disks, kill -9.  Benchmarks run the same for longer."""

from __future__ import annotations

import asyncio
import gc
import json
import resource
import time
import weakref
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import bundles
import duckdb
import load
import numpy as np
import pytest
from live_server import started

from groundup.serving.admission import Admission, Policy
from groundup.serving.refusal import RequestError
from groundup.serving.routes import application
from groundup.serving.service import Service
from groundup.serving.settings import Serve

V2 = "/v2/models/toy/infer"
SUMS = ("groundup_run_duration_seconds_sum", "groundup_batch_rows_sum", "groundup_batch_rows_count")


def numbers(rows: int, width: int, **more: Any) -> bytes:
    """A v2 request of the MLP."""
    values = np.random.default_rng(rows).normal(size=rows * width).round(4).tolist()
    return json.dumps({"inputs": [{"name": "x", "shape": [rows, width], "datatype": "FP32", "data": values}], **more}).encode()


def until(condition: Callable[[], bool], seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


# ── load ───────────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.slow
def test_overload(tmp_path: Path) -> None:
    """Three times what it can do: goodput stays, the rest is told at once when to come back, the queue bounds who is admitted."""
    bundles.slow(tmp_path / "b", times=100, serve={"queue": 48, "batch": {"max_size": 4}})
    with started(tmp_path / "b", tmp_path) as server:
        request = load.post("/predict", b'{"x":[1.0]}')
        peak = asyncio.run(load.closed_loop(server.host, server.port, request, 16, 2))
        capacity = peak.count(200) / peak.seconds
        before = load.cost(server.process.pid)
        run, rows, runs = (server.metric(name) for name in SUMS)
        watcher = load.Watcher(server.host, server.port)
        over = asyncio.run(load.open_loop(server.host, server.port, [request], 3 * capacity, 5))
        health = watcher.stop()
        assert set(over.codes) == {200, 429}
        run, rows, runs = (server.metric(name) - was for name, was in zip(SUMS, (run, rows, runs), strict=True))
        # Shares of what this machine gave it in these seconds, for it has other work: the graph never rests, its runs are full.
        assert run / over.seconds > 0.7
        assert rows / runs > 3
        assert over.count(200) == rows
        assert all(wait is not None and int(wait) >= 1 for wait in over.retry_after)
        assert over.quantile(200, 0.5) < 2 * (48 / 4 + 2) * run / runs  # the queue and a run
        assert over.quantile(429, 0.5) < 0.1
        assert set(health["statuses"]) == {"200"}
        assert load.quantile(health["latencies"], 0.95) < 0.1
        until(lambda: server.metric("groundup_in_flight_requests") == 1 and not server.metric("groundup_queue_rows"))
        after = load.cost(server.process.pid)
        assert after.fds <= before.fds + 3
        assert after.rss_mib < before.rss_mib + 40
        began = time.monotonic()
        assert server.ask("POST", "/predict", {"x": [1.0]}).status == 200
        assert time.monotonic() - began < 1


@pytest.mark.slow
def test_health_beside_large_bodies(tmp_path: Path) -> None:
    """Twelve megabytes of JSON at a time from four clients; liveness and readiness are answered within 100 ms."""
    bundles.mlp(tmp_path / "b", (784, 16, 3), serve={"queue": 4096})
    with started(tmp_path / "b", tmp_path) as server:
        watchers = [load.Watcher(server.host, server.port, f"/v2/health/{what}") for what in ("live", "ready")]
        done = asyncio.run(load.closed_loop(server.host, server.port, load.post(V2, numbers(2000, 784)), 4, 5))
        for found in (w.stop() for w in watchers):
            assert set(found["statuses"]) == {"200"}
            assert len(found["latencies"]) > 20
            assert load.quantile(found["latencies"], 0.95) < 0.1
    assert set(done.codes) == {200}
    assert done.count(200) >= 4


def test_large_answers_are_written_aside_and_whole(tmp_path: Path) -> None:
    bundles.mlp(tmp_path / "b", (8, 200), serve={"queue": 4096})
    with started(tmp_path / "b", tmp_path) as server:
        x = np.random.default_rng(0).normal(size=(700, 8)).round(3)
        reply = server.ask("POST", V2, {"inputs": [{"name": "x", "shape": [700, 8], "datatype": "FP32", "data": x.ravel().tolist()}]})
        probabilities = np.reshape(reply.json()["outputs"][1]["data"], (700, 200))
        np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-5)
        typed = server.ask("POST", "/predict", [{"x": row} for row in x.tolist()]).json()["predictions"]
        np.testing.assert_allclose([list(p["probabilities"].values()) for p in typed], probabilities, atol=1e-6)
        mlflow = server.ask("POST", "/invocations", {"inputs": x.tolist()}).json()["predictions"]
        np.testing.assert_allclose([p["probabilities"] for p in mlflow], probabilities, atol=1e-6)


@pytest.mark.slow
def test_clients_that_leave(tmp_path: Path) -> None:
    """In the head, in the body, in the queue, in the answer, with small bodies and large ones."""
    bundles.watched(tmp_path / "b", serve={"queue": 64, "max_body_mb": 1})
    with started(tmp_path / "b", tmp_path) as server:

        def storm(times: int) -> load.Cost:
            small = [load.post(V2, numbers(1, 32)), load.post(V2, numbers(60, 32)), b"GET /metrics HTTP/1.1\r\n\r\n"]
            asyncio.run(load.leavers(server.host, server.port, small, times))
            asyncio.run(load.leavers(server.host, server.port, [load.post(V2, numbers(3000, 32))], times))
            until(lambda: server.metric("groundup_in_flight_requests") == 1 and not server.metric("groundup_queue_rows"), 30)
            return load.cost(server.process.pid)

        storm(300)
        before = storm(100)
        after = storm(500)
        assert after.fds <= before.fds + 3
        assert after.threads <= before.threads + 4  # the pool that /metrics is made in grows to its size once
        assert after.rss_mib < before.rss_mib + 40
        assert server.metric("groundup_requests_total", protocol="v2", code="499") > 100
        assert server.ask("POST", V2, numbers(1, 32)).status == 200
        assert [line for line in server.lines() if line["level"] == "error"] == []


def test_who_is_refused_leaves_nothing_to_the_garbage_collector(tmp_path: Path) -> None:
    """An exception that holds the frame that holds it keeps a request's tensors until a rare full collection: memory grows."""
    bundle = bundles.slow(tmp_path / "b", times=100)

    async def test() -> list[Any]:
        service = Service(bundle, Serve())
        service.start()
        read, asked = np.zeros(10), np.ones((1, 1), np.float32)
        kept = [weakref.ref(read), weakref.ref(asked)]

        def fail(values: Any) -> None:
            raise RequestError(400, f"{len(values)}")

        for refused in (service.aside.run(partial(fail, read)), service.infer({"x": asked}, 1, time.monotonic() + 0.002, "", {})):
            with pytest.raises(RequestError):
                await refused
        del read, asked, refused
        for _ in range(200):  # the run that nobody waits for has to end
            if any(ref() is not None for ref in kept):
                await asyncio.sleep(0.05)
        service.close()
        return kept

    gc.disable()
    try:
        assert [ref() for ref in asyncio.run(test())] == [None, None]
    finally:
        gc.enable()


# ── clocks ─────────────────────────────────────────────────────────────────────────────────────────────────────────────────

JUMPING = """
import random, sys, time
real, offset, chance = time.time, [0.0], random.Random(0)
def jumping():
    if chance.random() < 0.2:
        offset[0] = chance.choice([-3600.0, 0.0, 3600.0])
    return real() + offset[0]
time.time = jumping
time.time_ns = lambda: int(jumping() * 1e9)
from groundup.serving.__main__ import main
sys.exit(main(sys.argv[1:]))
"""


def test_a_wall_clock_that_jumps_by_hours(tmp_path: Path) -> None:
    """No timeout, no negative duration, no window or file that ends by it."""
    log = tmp_path / "log"
    monitor = {"drift": {"window": 10_000, "min_rows": 100, "max_age_s": 1800}, "log": {"path": str(log), "rotate_s": 1800, "keep": 2}}
    bundles.watched(tmp_path / "b", serve={"timeout_ms": 2000, "body_timeout_s": 2}, monitor=monitor)
    with started(tmp_path / "b", tmp_path, program=["-c", JUMPING]) as server:
        for i in range(200):
            assert server.ask("POST", V2, numbers(1, 32)).status == 200, i
        state = server.ask("GET", "/monitor").json()
        until(lambda: server.ask("GET", "/monitor").json()["rows"] == 200)
        state = server.ask("GET", "/monitor").json()
        assert (state["drift"]["windows"], state["drift"]["dropped_rows"], state["log"]["files"]) == (0, 0, 0)
        for name in ("request_duration", "queue_wait", "run_duration"):
            samples = server.ask("GET", "/metrics").body.decode().splitlines()
            total = sum(float(line.split()[1]) for line in samples if line.startswith(f"groundup_{name}_seconds_sum"))
            assert 0 <= total < 20
        assert server.stop() == 0
        (file,) = log.glob("*.parquet")
        assert duckdb.sql(f"select count(*) from '{file}'").fetchall() == [(200,)]


def test_the_wall_clock_is_read_only_to_say_when() -> None:
    """Every use of the wall clock in the server, by file: a new one is a decision."""
    import ast

    import groundup.monitoring
    import groundup.serving

    found = set()
    for package in (groundup.serving, groundup.monitoring):
        for path in Path(package.__path__[0]).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Attribute) and (
                    ast.unparse(node) in ("time.time", "time.time_ns") or node.attr in ("now", "utcnow", "today")
                ):
                    found.add((path.stem, ast.unparse(node)))
    assert found == {
        ("live", "time.time"),  # when a row came, in the prediction log
        ("drift", "time.time"),  # when a window began and ended, for people
        ("log", "time.time"),  # how old a file is that a killed process left
        ("log", "datetime.now"),  # the name of a file
    }


# ── the prediction log ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_every_row_of_the_log_says_which_request_it_came_with(tmp_path: Path) -> None:
    log = tmp_path / "log"
    bundles.watched(tmp_path / "b", monitor={"log": {"path": str(log)}}, serve={"access_log": 1.0})
    with started(tmp_path / "b", tmp_path) as server:
        own = server.ask("POST", V2, numbers(3, 32, id="mine"))
        assert (own.headers["x-request-id"], own.json()["id"]) == ("mine", "mine")
        header = server.ask("POST", "/predict", {"x": [0.5] * 32}, {"x-request-id": "theirs/1"})
        assert header.headers["x-request-id"] == "theirs/1"
        made = [server.ask("POST", "/invocations", {"inputs": [[0.5] * 32]}).headers["x-request-id"] for _ in range(3)]
        assert len(set(made)) == 3
        both = server.ask("POST", V2, numbers(1, 32, id="in the body"), {"x-request-id": "in-the-head"})
        assert "x-request-id" not in both.headers  # no header can hold every text
        assert both.json()["id"] == "in the body"
        for bad in ("", "a b", "x" * 129, "é"):
            given = server.ask("POST", "/predict", {"x": [0.5] * 32}, {"x-request-id": bad})
            assert given.headers["x-request-id"] not in ("", bad)
        assert server.ask("POST", V2, numbers(1, 32, id="a\r\nx-evil: 1")).headers.get("x-evil") is None
        refused = server.ask("POST", "/predict", {"x": "wrong"}, {"x-request-id": "refused"})
        assert (refused.status, refused.headers["x-request-id"]) == (400, "refused")
        assert server.stop() == 0
        assert {line.get("request_id") for line in server.lines()} >= {"mine", "theirs/1", "refused", *made}
    rows = duckdb.sql(f"select request_id, count(*) from '{log}/*.parquet' group by 1").fetchall()
    counts = dict(rows)
    for name, n in {"mine": 3, "theirs/1": 1, "in the body": 1, **dict.fromkeys(made, 1)}.items():
        assert counts[name] == n
    assert None not in counts
    assert "refused" not in counts


def test_kill_minus_nine_loses_no_more_than_the_last_seconds(tmp_path: Path) -> None:
    log = tmp_path / "log"
    bundles.watched(tmp_path / "b", monitor={"log": {"path": str(log), "rotate_s": 1}})
    with started(tmp_path / "b", tmp_path) as server:
        for i in range(50):
            assert server.ask("POST", V2, numbers(1, 32, id=f"old-{i}")).status == 200
        time.sleep(3)  # a file a second, and the clocks are looked at every second
        server.ask("POST", V2, numbers(1, 32, id="new"))
        server.process.kill()
        server.process.wait(5)
    kept = [row[0] for row in duckdb.sql(f"select request_id from '{log}/*.parquet' order by time").fetchall()]
    assert kept[:50] == [f"old-{i}" for i in range(50)]


def test_a_disk_that_is_full_stops_no_answer(tmp_path: Path) -> None:
    """The kernel refuses to write more than 4 kB to a file: as on a full disk, nothing of the log can be kept."""
    log = tmp_path / "log"
    bundles.watched(tmp_path / "b", monitor={"log": {"path": str(log), "rotate_rows": 100, "rotate_mb": 0.05}})

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))

    with started(tmp_path / "b", tmp_path, preexec_fn=limit) as server:

        def lost() -> bool:
            assert server.ask("POST", V2, numbers(30, 32)).status == 200
            return server.metric("groundup_prediction_log_lost_rows_total") > 0

        until(lost, 30)
        assert server.metric("groundup_prediction_log_degraded") == 1
        assert server.metric("groundup_prediction_log_errors_total") >= 1
        assert server.metric("groundup_monitor_errors_total") == 0
        assert server.ask("GET", "/v2/health/ready").status == 200
        assert server.stop() == 0
        said = [line for line in server.lines() if "prediction log" in line["message"]]
        assert len(said) == 1
    assert list(log.iterdir()) == []  # nothing half-written stays


def test_a_full_queue_refuses_before_it_reads(tmp_path: Path) -> None:
    """A body that nobody could be served for is not parsed: the refusal comes although it is no JSON at all."""
    bundle = bundles.slow(tmp_path / "b", times=2000)

    async def test() -> list[int]:
        service = Service(bundle, Serve(queue=1))
        service.start()
        door = application(service, Policy(hosts=None))
        waiting = []
        for _ in range(2):  # one runs, one waits
            waiting.append(asyncio.ensure_future(send(door, b'{"x":[1.0]}')))
            await asyncio.sleep(0.05)
        refused = await send(door, b"no JSON")
        answered = [*[await w for w in waiting], refused, await send(door, b"no JSON")]
        service.close()
        return answered

    async def send(door: Admission, body: bytes) -> int:
        sent: list[Any] = []

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": body}

        async def keep(message: Any) -> None:
            sent.append(message)

        await door({"type": "http", "method": "POST", "path": "/predict", "headers": []}, receive, keep)
        status: int = sent[0]["status"]
        return status

    assert asyncio.run(test()) == [200, 200, 429, 400]

"""The server as a process: who may ask, what one client may cost the others, and how it stops."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import bundles
import psutil
import pytest
from live_server import Server, Start, started

V2 = "/v2/models/toy/infer"
TOKEN = "0123456789abcdef-secret"
X = {"inputs": [{"name": "x", "shape": [1, 32], "datatype": "FP32", "data": [0.5] * 32}]}
SLOW = {"x": [1.0]}
PUBLIC = {"/", "/page.js", "/page.css", "/docs", "/docs.js", "/ping", "/health", "/v2/health/live", "/v2/health/ready"}


def refused(tmp_path: Path, *arguments: str, env: dict[str, str] | None = None) -> tuple[int, str]:
    """Exit status and message of a server that must not start."""
    bundles.mlp(tmp_path / "refused")
    done = subprocess.run(
        [sys.executable, "-m", "groundup.serving", str(tmp_path / "refused"), *arguments],
        capture_output=True,
        text=True,
        timeout=30,
        env={**os.environ, **(env or {})},
    )
    assert "Traceback" not in done.stderr
    return done.returncode, done.stderr


# ── starting ───────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_taken_port_is_named_with_a_free_one(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        status, message = refused(tmp_path, "--port", str(port))
    assert status == 9
    assert f"port {port}" in message
    free = int(message.rpartition("--port ")[2])
    with socket.socket() as s:
        s.bind(("127.0.0.1", free))


@pytest.mark.parametrize(
    ("arguments", "env", "word"),
    [
        (["--host", "0.0.0.0", "--port", "0"], {}, "token"),
        (["--host", "0.0.0.0", "--port", "0"], {"GROUNDUP_TOKEN": "short"}, "at least 16"),
        (["--port", "0"], {"GROUNDUP_TOKEN": "with a space, though long"}, "spaces"),
    ],
)
def test_unsafe_starts_are_refused(tmp_path: Path, arguments: list[str], env: dict[str, str], word: str) -> None:
    status, message = refused(tmp_path, *arguments, env=env)
    assert status == 1
    assert word in message


def test_a_damaged_bundle_is_refused(tmp_path: Path) -> None:
    bundle = bundles.mlp(tmp_path / "b")
    data = bytearray((bundle.path / "model.onnx").read_bytes())
    data[len(data) // 2] ^= 1
    (bundle.path / "model.onnx").write_bytes(data)
    done = subprocess.run([sys.executable, "-m", "groundup.serving", str(bundle.path)], capture_output=True, text=True, timeout=30)
    assert done.returncode == 5
    assert "SHA-256" in done.stderr


# ── who may ask ────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("guarded")
    bundles.mlp(folder / "b", serve={"access_log": 1.0})
    with started(folder / "b", folder, env={"GROUNDUP_TOKEN": TOKEN}) as server:
        yield server


def every_route(server: Server) -> list[tuple[str, str]]:
    """(method, path) of all routes, from the table itself."""
    from groundup.bundle import Bundle
    from groundup.serving.admission import Policy
    from groundup.serving.routes import application
    from groundup.serving.service import Service
    from groundup.serving.settings import Serve

    bundle = Bundle.open(server.log.parent / "b")
    return [(m, r.path) for r in application(Service(bundle, Serve()), Policy()).routes.values() for m in r.handlers]


@pytest.mark.parametrize(
    "token", [None, "", "Bearer ", "Bearer wrong", f"bearer {TOKEN}", f"Basic {TOKEN}", f"Bearer {TOKEN}x", f"Bearer {TOKEN[:-1]}"]
)
def test_every_route_asks_for_the_token_but_the_public_ones(guarded: Server, token: str | None) -> None:
    headers = {} if token is None else {"authorization": token}
    table = every_route(guarded)
    assert {p for _, p in table} >= PUBLIC  # none is stale
    for method, path in [*table, ("GET", "/unknown"), ("PUT", "/predict"), ("OPTIONS", V2)]:
        reply = guarded.ask(method, path, b"{}" if method == "POST" else None, headers)
        assert reply.status == (200 if path in PUBLIC else 401), (method, path)
        if reply.status == 401:
            assert reply.headers["www-authenticate"] == "Bearer"


def test_the_token_opens_every_route_and_is_nowhere_in_the_log(guarded: Server) -> None:
    good = {"authorization": f"Bearer {TOKEN}"}
    for method, path in every_route(guarded):
        body = None if method == "GET" else (X if path.endswith("infer") else {"instances": [{"x": [0.515625] * 32}]})
        reply = guarded.ask(method, path, body, good)
        assert reply.status == 200, (method, path, reply)
        assert TOKEN.encode() not in reply.body
    log = guarded.log.read_text()
    assert TOKEN not in log
    lines = guarded.lines()  # every line is JSON
    assert any(line.get("protocol") == "v2" and line["status"] == 200 for line in lines)
    assert not any("0.515625" in json.dumps(line) for line in lines)


def test_token_file(tmp_path: Path) -> None:
    bundles.mlp(tmp_path / "b")
    (tmp_path / "token").write_text(f"{TOKEN}\nsecond line\n")
    with started(tmp_path / "b", tmp_path, "--token-file", str(tmp_path / "token"), "--host", "0.0.0.0") as server:
        assert server.ask("POST", V2, X).status == 401
        assert server.ask("POST", V2, X, {"authorization": f"Bearer {TOKEN}"}).status == 200
        assert server.ask("GET", "/ping", headers={"host": "any.example"}).status == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example", "localhost.evil.example", "[::2]", "localhost@evil"]
)
def test_foreign_hosts(serve: Start, host: str) -> None:
    server: Server = serve("mlp")
    for method, path in (("GET", "/"), ("GET", "/v2/health/live"), ("POST", V2)):
        assert server.ask(method, path, X if method == "POST" else None, {"host": host}).status == 403


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://localhost:1", "https://127.0.0.1", "file://"])
@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
def test_foreign_origins(serve: Start, method: str, origin: str) -> None:
    reply = serve("mlp").ask(method, V2, X if method == "POST" else None, {"origin": origin})
    assert reply.status == 403
    assert "access-control-allow-origin" not in reply.headers


def test_own_host_and_origin(serve: Start) -> None:
    server: Server = serve("mlp")
    for host in (f"127.0.0.1:{server.port}", f"localhost:{server.port}", "LOCALHOST"):
        assert server.ask("POST", V2, X, {"host": host, "origin": f"http://{host}"}).status == 200


# ── what one client may cost ───────────────────────────────────────────────────────────────────────────────────────────────


def test_large_bodies(tmp_path: Path) -> None:
    bundles.mlp(tmp_path / "b", serve={"max_body_mb": 1})
    with started(tmp_path / "b", tmp_path) as server:
        memory = psutil.Process(server.process.pid).memory_info().rss
        for path in (V2, "/predict", "/invocations"):
            reply = server.ask("POST", path, b" " * (1 << 20) + b"x")
            assert reply.status == 413
        chunk = b"%x\r\n" % 65536 + b" " * 65536 + b"\r\n"
        head = b"POST /predict HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\nContent-Type: application/json\r\n\r\n"
        with socket.create_connection((server.host, server.port)) as s:
            s.sendall(head)
            sent = 0
            try:
                for _ in range(1600):  # 100 MiB, if it is let
                    s.sendall(chunk)
                    sent += 1
            except OSError:
                pass
        got = server.raw(head + chunk * 20)
        assert got.startswith(b"HTTP/1.1 413")
        got = server.raw(b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999999999999999\r\n\r\n")
        assert got.startswith(b"HTTP/1.1 4")
        assert psutil.Process(server.process.pid).memory_info().rss - memory < 64 << 20
        assert server.ask("POST", V2, X).status == 200


def test_small_limits_hold_for_undeclared_lengths(tmp_path: Path) -> None:
    bundles.mlp(tmp_path / "b", serve={"max_body_mb": 0.001})
    with started(tmp_path / "b", tmp_path) as server:
        head = b"POST /predict HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
        assert server.raw(head + b"800\r\n" + b" " * 0x800 + b"\r\n0\r\n\r\n").startswith(b"HTTP/1.1 413")
        assert server.raw(head + b"10\r\n" + b" " * 0x10 + b"\r\n0\r\n\r\n").startswith(b"HTTP/1.1 400")


def test_one_byte_chunks_and_large_heads(serve: Start) -> None:
    server: Server = serve("mlp")
    began = time.monotonic()
    head = b"POST /predict HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\nContent-Type: application/json\r\n\r\n"
    try:
        got = server.raw(head + b"1\r\nx\r\n" * 200_000)
    except ConnectionError:  # closed while we were still sending
        got = b""
    assert got[:12] in (b"", b"HTTP/1.1 400")
    assert time.monotonic() - began < 5
    assert server.raw(b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 40_000).startswith(b"HTTP/1.1 431")
    assert server.raw(b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 300).startswith(b"HTTP/1.1 431")
    assert server.raw(b"GET /" + b"a" * 40_000).startswith(b"HTTP/1.1 4")
    assert server.ask("GET", "/v2/health/live").status == 200


@pytest.mark.parametrize(
    "data",
    [
        b"\x16\x03\x01 this is TLS\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET  / HTTP/1.1\r\nHost: localhost\r\n\r\n\r\n\0",
        b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: -5\r\n\r\n",
        b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
        b"POST /predict HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nRange: bytes=" + b"0-1," * 3000 + b"\r\nConnection: close\r\n\r\n",
    ],
)
def test_torture(serve: Start, data: bytes) -> None:
    server: Server = serve("mlp")
    got = server.raw(data)
    assert not got or got.split(b" ")[1][:1] in b"24"
    assert server.ask("GET", "/v2/health/live").status == 200


def test_pipelined_requests_are_answered_in_order(serve: Start) -> None:
    server: Server = serve("mlp")
    parts = []
    for i in range(20):
        body = json.dumps(X | {"id": f"n{i}"}).encode()
        last = b"Connection: close\r\n" if i == 19 else b""
        parts.append(b"POST %s HTTP/1.1\r\nHost: localhost\r\n%sContent-Length: %d\r\n\r\n%s" % (V2.encode(), last, len(body), body))
    got = server.raw(b"".join(parts))
    assert [got.find(b'"n%d"' % i) for i in range(20)] == sorted(got.find(b'"n%d"' % i) for i in range(20))
    assert got.count(b"HTTP/1.1 200") == 20


def test_slow_clients_are_closed(tmp_path: Path) -> None:
    bundles.mlp(tmp_path / "b", serve={"body_timeout_s": 0.5})
    with started(tmp_path / "b", tmp_path) as server, ExitStack() as stack:
        slow = [stack.enter_context(socket.create_connection((server.host, server.port), timeout=10)) for _ in range(100)]
        for i, s in enumerate(slow):
            s.sendall([b"GET / HT", b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{", b""][i % 3])
        began = time.monotonic()
        replies = [s.recv(4096) for s in slow]
        assert time.monotonic() - began < 5
        assert all(r.startswith(b"HTTP/1.1 408") for r in replies)
        assert server.ask("POST", V2, X).status == 200
        # who goes on sending after the answer is not listened to for long
        s = stack.enter_context(socket.create_connection((server.host, server.port), timeout=10))
        s.sendall(b"POST /nope HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n\r\n")
        began = time.monotonic()
        with suppress(OSError):
            while time.monotonic() - began < 8:
                s.sendall(b"x")
                time.sleep(0.05)
        assert time.monotonic() - began < 6


def test_too_many_connections(tmp_path: Path) -> None:
    bundles.mlp(tmp_path / "b", serve={"max_connections": 5})
    with started(tmp_path / "b", tmp_path) as server, ExitStack() as stack:
        held = [stack.enter_context(socket.create_connection((server.host, server.port), timeout=5)) for _ in range(5)]
        time.sleep(0.2)
        assert server.raw(b"GET / HTTP/1.1\r\n\r\n").startswith(b"HTTP/1.1 503")
        held[0].close()
        time.sleep(0.2)
        assert server.ask("GET", "/v2/health/live").status == 200


# ── load ───────────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def busy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server whose run takes some 50 ms, with room for 8 rows in the queue and 4 in a run."""
    folder = tmp_path_factory.mktemp("busy")
    bundles.slow(folder / "b", times=40, serve={"queue": 8, "batch": {"max_size": 4}, "timeout_ms": 5000, "drain_delay_s": 0.2})
    with started(folder / "b", folder) as server:
        yield server


def test_overload_is_shed_at_once_and_health_answers(busy: Server) -> None:
    waits: list[float] = []
    done = threading.Event()

    def health() -> None:
        while not done.is_set():
            began = time.monotonic()
            assert busy.ask("GET", "/v2/health/live").status == 200
            assert busy.ask("GET", "/v2/health/ready").status == 200
            waits.append(time.monotonic() - began)
            time.sleep(0.02)

    def ask(_: int) -> tuple[int, float, Any]:
        began = time.monotonic()
        reply = busy.ask("POST", "/predict", SLOW)
        return reply.status, time.monotonic() - began, reply.headers.get("retry-after")

    watcher = threading.Thread(target=health)
    watcher.start()
    with ThreadPoolExecutor(48) as pool:
        replies = list(pool.map(ask, range(96)))
    done.set()
    watcher.join()
    served = [r for r in replies if r[0] == 200]
    shed = [r for r in replies if r[0] == 429]
    assert len(served) + len(shed) == 96
    assert len(served) >= 12  # what runs, and what fits the queue
    assert shed
    assert all(int(r[2]) >= 1 for r in shed)
    assert sorted(waits)[len(waits) // 2] < 0.5
    assert busy.metric("groundup_queue_rows") == 0
    assert busy.metric("groundup_rejected_total", reason="queue_full") >= len(shed)
    assert busy.ask("POST", "/predict", SLOW).json() == {"prediction": 1.0}


def test_clients_shorten_the_deadline_but_never_lengthen_it(busy: Server) -> None:
    assert busy.ask("POST", "/predict", SLOW, {"x-timeout-ms": "1"}).status == 504
    request = {"inputs": [{"name": "x", "shape": [1, 1], "datatype": "FP32", "data": [1]}]}
    assert busy.ask("POST", V2, request | {"parameters": {"timeout": 1000}}).status == 504
    assert busy.ask("POST", V2, request | {"parameters": {"timeout": 10**12}}).status == 200
    for wrong in ("abc", "-1", "nan", "inf"):
        assert busy.ask("POST", "/predict", SLOW, {"x-timeout-ms": wrong}).status == 400


def test_who_goes_away_while_waiting_is_not_run(busy: Server) -> None:
    before = busy.metric("groundup_batch_rows_sum")
    body = json.dumps(SLOW).encode()
    request = b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(busy.ask, "POST", "/predict", {"instances": [SLOW] * 8})  # two runs
        time.sleep(0.03)
        for _ in range(100):
            with socket.create_connection((busy.host, busy.port)) as s:
                s.sendall(request)
        assert first.result().status == 200
    deadline = time.monotonic() + 5
    while busy.metric("groundup_in_flight_requests") > 1 or busy.metric("groundup_queue_rows"):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert busy.metric("groundup_batch_rows_sum") - before < 60
    assert busy.metric("groundup_requests_total", protocol="predict", code="499") > 40


def test_disconnects_leave_nothing_behind(serve: Start) -> None:
    server: Server = serve("mlp")
    process = psutil.Process(server.process.pid)
    body = json.dumps(X).encode()
    request = b"POST %s HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n%s" % (V2.encode(), len(body), body)

    def storm(n: int) -> None:
        for i in range(n):
            with socket.create_connection((server.host, server.port)) as s:
                s.sendall(request[: len(request) * (i % 101) // 100])

    storm(200)
    time.sleep(0.3)
    fds, memory = process.num_fds(), process.memory_info().rss
    storm(1000)
    time.sleep(0.5)
    assert process.num_fds() <= fds + 5
    assert process.memory_info().rss - memory < 20 << 20
    assert server.metric("groundup_in_flight_requests") == 1  # the scrape itself
    assert server.metric("groundup_queue_rows") == 0


def test_one_poison_request_among_many(serve: Start) -> None:
    server: Server = serve("poison")

    def ask(i: int) -> tuple[int, int, Any]:
        reply = server.ask("POST", "/predict", {"i": 99 if i % 16 == 0 else i % 9})
        return i, reply.status, reply.json()

    with ThreadPoolExecutor(16) as pool:
        for i, status, value in pool.map(ask, range(480)):
            assert (status, value) == (200, {"prediction": i % 9 * 10.0}) if i % 16 else status == 500


# ── metrics ────────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_metrics_count_what_clients_see_and_have_no_series_from_outside(serve: Start) -> None:
    server: Server = serve("image")
    assert server.metric("groundup_model_info", name="toy", task="tabular-classification") == 1
    before = {c: server.metric("groundup_requests_total", protocol="predict", code=c) for c in ("200", "400")}
    for i in range(30):
        server.ask("POST", "/predict", {"image": [[i] * 8] * 8} if i % 3 else {})
    assert server.metric("groundup_requests_total", protocol="predict", code="200") - before["200"] == 20
    assert server.metric("groundup_requests_total", protocol="predict", code="400") - before["400"] == 10
    server.ask("GET", "/nope")
    series = len(server.ask("GET", "/metrics").body.splitlines())
    for i in range(50):
        server.ask("GET", f"/random/{i}")
        server.ask("GET", "/nope", headers={"x-model": str(i)})
    assert len(server.ask("GET", "/metrics").body.splitlines()) == series
    reply = server.ask("GET", "/metrics", headers={"accept": "application/openmetrics-text; version=1.0.0"})
    assert reply.headers["content-type"].startswith("application/openmetrics-text")
    assert reply.body.endswith(b"# EOF\n")


# ── stopping ───────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_sigterm_drains(tmp_path: Path) -> None:
    """Clients who honour readiness lose nothing; readiness turns at once; liveness stays; the status is 0."""
    bundles.mlp(tmp_path / "b", serve={"drain_delay_s": 1.0, "grace_s": 5})
    with started(tmp_path / "b", tmp_path) as server:
        failures: list[Any] = []
        counts = [0] * 4

        def client(k: int) -> None:
            while True:
                try:
                    if server.ask("GET", "/v2/health/ready").status == 503:
                        return
                    reply = server.ask("POST", V2, X)
                except OSError as e:
                    failures.append(e)
                    return
                if reply.status != 200:
                    failures.append(reply)
                counts[k] += 1

        threads = [threading.Thread(target=client, args=(k,)) for k in range(4)]
        for t in threads:
            t.start()
        time.sleep(0.5)
        server.process.terminate()
        began = time.monotonic()
        while server.ask("GET", "/v2/health/ready").status != 503:
            assert time.monotonic() - began < 0.5
        assert server.ask("GET", "/v2/health/live").status == 200
        assert server.ask("GET", "/ping").status == 503
        assert server.ask("POST", V2, X).headers["connection"] == "close"
        for t in threads:
            t.join(5)
        assert not failures
        assert sum(counts) > 50
        assert server.process.wait(10) == 0
        assert server.lines()[-1]["message"] == "stopped"


def test_sigterm_finishes_what_is_under_way(tmp_path: Path) -> None:
    bundles.slow(tmp_path / "b", times=800, serve={"drain_delay_s": 0, "grace_s": 10})
    with started(tmp_path / "b", tmp_path) as server, ThreadPoolExecutor(3) as pool:
        asked = [pool.submit(server.ask, "POST", "/predict", SLOW) for _ in range(3)]
        time.sleep(0.3)
        server.process.terminate()
        assert [a.result().status for a in asked] == [200] * 3
        assert server.process.wait(10) == 0


def test_sigterm_with_stalled_bodies_ends_within_the_grace(tmp_path: Path) -> None:
    bundles.mlp(tmp_path / "b", serve={"drain_delay_s": 0, "grace_s": 1, "body_timeout_s": 60})
    with started(tmp_path / "b", tmp_path) as server, ExitStack() as stack:
        stalled = [stack.enter_context(socket.create_connection((server.host, server.port))) for _ in range(202)]
        for s in stalled[:200]:
            s.sendall(b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{")
        stalled[200].sendall(b"GET / HT")  # and one that has said half a word, and one that has said nothing
        time.sleep(0.3)
        began = time.monotonic()
        assert server.stop() == 0
        assert time.monotonic() - began < 4
        assert "Traceback" not in server.log.read_text()


def test_a_second_signal_stops_at_once(tmp_path: Path) -> None:
    bundles.mlp(tmp_path / "b", serve={"drain_delay_s": 30})
    with started(tmp_path / "b", tmp_path) as server:
        server.process.terminate()
        time.sleep(0.3)
        assert server.process.poll() is None
        began = time.monotonic()
        assert server.stop() == 0
        assert time.monotonic() - began < 5


def test_killed_and_started_again_on_the_same_port(tmp_path: Path) -> None:
    bundles.mlp(tmp_path / "b")
    with started(tmp_path / "b", tmp_path) as server:
        connection = socket.create_connection((server.host, server.port))
        server.process.kill()
        server.process.wait(5)
        process = subprocess.Popen(
            [sys.executable, "-m", "groundup.serving", str(tmp_path / "b"), "--port", str(server.port)], stderr=subprocess.DEVNULL
        )
        try:
            deadline = time.monotonic() + 10
            while True:
                try:
                    assert server.ask("POST", V2, X).status == 200
                    break
                except OSError:
                    assert time.monotonic() < deadline
                    time.sleep(0.05)
        finally:
            process.kill()
            process.wait(5)
            connection.close()

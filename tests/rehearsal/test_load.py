"""The load generator tells the truth: against a server of raw sockets whose misdeeds are known."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from groundup.rehearsal.load import Request, Result, send

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


@contextmanager
def raw_server(answer: Callable[[int, bytes], list[bytes] | None]) -> Iterator[int]:
    """``answer(index, request)`` gives the pieces to send, or None to close the connection."""
    listener = socket.create_server(("127.0.0.1", 0))
    count = [0]

    def serve(connection: socket.socket) -> None:
        with connection:
            buffer = b""
            while data := connection.recv(65536):
                buffer += data
                head, found, body = buffer.partition(b"\r\n\r\n")
                length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0]) if found else 0
                if not found or len(body) < length:
                    continue
                count[0] += 1
                pieces = answer(count[0] - 1, body[:length])
                buffer = body[length:]
                if pieces is None:
                    return
                for piece in pieces:
                    connection.sendall(piece)
                    time.sleep(0.002 * (len(pieces) > 1))

    def accept() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=serve, args=(connection,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield listener.getsockname()[1]
    finally:
        listener.close()


def requests(n: int) -> list[Request]:
    return [Request("/x", f"body {i}".encode()) for i in range(n)]


def test_every_request_is_sent_once_and_its_own_answer_kept() -> None:
    def echo(_: int, body: bytes) -> list[bytes]:
        return [b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body)]

    with raw_server(echo) as port:
        result = send(port, requests(50), connections=5, keep=True)
    assert {i: a for i, (_, a) in result.answers.items()} == {i: f"body {i}".encode() for i in range(50)}
    assert result.requests == 50
    assert result.failures == []


def test_answers_in_pieces_are_put_together() -> None:
    with raw_server(lambda i, b: [OK[:7], OK[7:30], OK[30:]]) as port:
        assert send(port, requests(3), keep=True).answers[2] == (200, b"ok")


def test_a_status_that_is_not_200_is_a_failure() -> None:
    with raw_server(lambda i, b: [OK.replace(b"200 OK", b"429 Busy")] if i == 1 else [OK]) as port:
        result = send(port, requests(3))
    assert len(result.latencies) == 2
    assert result.failures == ["request 1: status 429, ok"]


def test_a_closed_connection_is_a_failure_and_the_next_request_goes_on() -> None:
    with raw_server(lambda i, b: None if i == 1 else [OK]) as port:
        result = send(port, requests(4))
    assert len(result.latencies) == 3
    assert "connection closed" in result.failures[0]


def test_no_answer_is_a_failure_after_the_timeout() -> None:
    with raw_server(lambda i, b: [] if i == 0 else [OK]) as port:
        result = send(port, requests(2), timeout=0.1)
    assert len(result.latencies) == 1
    assert "TimeoutError" in result.failures[0]


def test_nobody_listening_is_a_failure() -> None:
    with socket.create_server(("127.0.0.1", 0)) as s:
        port = s.getsockname()[1]
    assert len(send(port, requests(3)).failures) == 3


def test_close_is_honoured() -> None:
    closing = OK.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
    with raw_server(lambda i, b: [closing]) as port:
        assert send(port, requests(5)).failures == []


def test_bounds() -> None:
    with raw_server(lambda i, b: [OK]) as port:
        assert send(port, requests(2), count=7).requests == 7
        began = time.monotonic()
        send(port, requests(2), count=10**9, seconds=0.2)
        assert time.monotonic() - began < 2
        left = [5]

        def go_on() -> bool:
            left[0] -= 1
            return left[0] >= 0

        assert send(port, requests(2), count=100, go_on=go_on).requests == 5


def test_quantiles() -> None:
    result = Result(latencies=[i / 1000 for i in range(1, 101)], seconds=2.0)
    assert result.measure() == {"requests": 100, "failed": 0, "p50_ms": 51.0, "p99_ms": 100.0, "requests_per_second": 50.0}


def test_works_inside_of_a_running_event_loop() -> None:
    import asyncio

    async def notebook() -> int:
        return send(port, requests(2)).requests

    with raw_server(lambda i, b: [OK]) as port:
        assert asyncio.run(notebook()) == 2


@pytest.mark.parametrize("connections", [1, 4])
def test_latency_is_what_the_server_took(connections: int) -> None:
    def slow(_: int, body: bytes) -> list[bytes]:
        time.sleep(0.02)
        return [OK]

    with raw_server(slow) as port:
        measured = send(port, requests(8), connections=connections).measure()
    assert 20 <= measured["p50_ms"] < 200

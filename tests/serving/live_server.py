"""A real server for a test: a process of its own on a free port."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit


@dataclass
class Reply:
    """What came back."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        """The body, by a parser that refuses NaN and Infinity."""

        def refuse(name: str) -> None:
            raise AssertionError(f"{name} is not JSON: {self.body[:200]!r}")

        return json.loads(self.body, parse_constant=refuse)


@dataclass
class Server:
    """A running server."""

    process: subprocess.Popen[bytes]
    log: Path
    host: str
    port: int

    def ask(self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None, timeout: float = 10) -> Reply:
        """One request on a connection of its own; a body that is neither bytes nor None is sent as JSON."""
        given = dict(headers or {})
        if body is not None and not isinstance(body, bytes):
            body = json.dumps(body).encode()
        if body is not None:
            given.setdefault("content-type", "application/json")
        connection = http.client.HTTPConnection(self.host, self.port, timeout=timeout)
        try:
            connection.request(method, path, body, given)
            got = connection.getresponse()
            return Reply(got.status, {k.lower(): v for k, v in got.getheaders()}, got.read())
        finally:
            connection.close()

    def raw(self, data: bytes, timeout: float = 10) -> bytes:
        """Send bytes as they are; what comes back until the server closes."""
        with socket.create_connection((self.host, self.port), timeout=timeout) as s:
            s.sendall(data)
            got = b""
            with suppress(ConnectionResetError):
                while part := s.recv(65536):
                    got += part
            return got

    def metric(self, name: str, /, **labels: str) -> float:
        """The value of one series, 0 where there is none."""
        for line in self.ask("GET", "/metrics").body.decode().splitlines():
            series, _, value = line.rpartition(" ")
            if series.partition("{")[0] == name and all(f'{k}="{v}"' in series for k, v in labels.items()):
                return float(value)
        return 0.0

    def stop(self, sig: int = signal.SIGTERM, timeout: float = 20) -> int:
        """Signal the process and wait; its exit status."""
        self.process.send_signal(sig)
        return self.process.wait(timeout)

    def lines(self) -> list[dict[str, Any]]:
        """The log so far; every line must be JSON."""
        return [json.loads(line) for line in self.log.read_text().splitlines()]


Start = Callable[..., Any]


@contextmanager
def started(
    bundle: Path,
    folder: Path,
    *arguments: str,
    env: dict[str, str] | None = None,
    program: Sequence[str] = ("-m", "groundup.serving"),
    preexec_fn: Callable[[], None] | None = None,
) -> Iterator[Server]:
    """``python -m groundup.serving`` (or another ``program`` that takes its arguments) on a free port, ready."""
    log = folder / f"server-{time.monotonic_ns()}.log"
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "error::ResourceWarning", **(env or {})}
    with open(log, "wb") as out:
        command = [sys.executable, *program, str(bundle), "--port", "0", *arguments]
        process = subprocess.Popen(command, stderr=out, stdout=out, env=environment, preexec_fn=preexec_fn)
    try:
        deadline = time.monotonic() + 30
        while not (ready := [line for line in log.read_text().splitlines() if '"ready"' in line]):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.02)
        url = urlsplit(json.loads(ready[0])["url"])
        assert url.port is not None
        yield Server(process, log, "127.0.0.1" if url.hostname == "0.0.0.0" else str(url.hostname), url.port)
    finally:
        if process.poll() is None:
            process.kill()
        process.wait(10)

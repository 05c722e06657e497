"""The server as a user starts it: a process of its own, watched from outside, and never left behind.

Three things keep it from outliving the rehearsal: leaving the ``with`` block stops it, so does the interpreter's exit, and
when the starting process dies without a word it is killed, within a second (see :mod:`groundup.rehearsal.tether`).
"""

from __future__ import annotations

import atexit
import contextlib
import http.client
import importlib.util
import os
import signal
import socket
import subprocess
import sys
import time
import weakref
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from groundup.errors import BusyError, ProofError
from groundup.rehearsal import tether

HOST = "127.0.0.1"
READY = "/v2/health/ready"
TOKEN = "GROUNDUP_TOKEN"  # the rehearsal sends none, so its servers ask for none; nobody else reaches loopback
ATTEMPTS = 5  # a free port can be taken by someone else between looking and binding


def command(bundle: Path, port: int) -> list[str]:
    """What a user types to serve ``bundle``."""
    verb = ["groundup", "serve"] if importlib.util.find_spec("groundup.__main__") else ["groundup.serving"]
    return [sys.executable, "-m", *verb, str(bundle), "--host", HOST, "--port", str(port)]


def free_port() -> int:
    """A port that nobody listens on at this moment."""
    with socket.socket() as s:
        s.bind((HOST, 0))
        return int(s.getsockname()[1])


class Server:
    """A served bundle in a process group of its own.

        with Server(bundle, log=work / "server.log") as server:
            server.get("/metrics")

    Args:
        bundle: the bundle's folder.
        log: what the server writes goes here (appended).
        port: listen there; a free port by default.
        timeout: seconds that a start may take until the server says it is ready.
        environment: added to this process's environment.

    Attributes:
        ready_seconds: from starting the process to the first "ready" (interpreter, imports, self-test included).
    """

    def __init__(
        self, bundle: Path, *, log: Path, port: int | None = None, timeout: float = 60.0, environment: Mapping[str, str] | None = None
    ) -> None:
        self.bundle, self.log, self.timeout = bundle, log, timeout
        self.environment = dict(environment or {})
        self._wanted_port = port
        self.port = port or 0
        self.ready_seconds = float("nan")
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Server:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        """Process id of the running server."""
        return self._running().pid

    def start(self) -> Server:
        """Start the process and wait until it is ready.

        Raises:
            BusyError: the asked port is taken, or every free one was taken before the server could bind it.
            ProofError: it ended, or was not ready in time; the message has its last lines.
        """
        for _ in range(ATTEMPTS):
            port = self._wanted_port or self.port or free_port()
            if self._start_on(port):
                return self
            if self._wanted_port:
                break
            self.port = 0
        raise BusyError(f"port {port} on {HOST} is in use by another process; stop that one, or leave the port to be chosen")

    def _start_on(self, port: int) -> bool:
        self.log.parent.mkdir(parents=True, exist_ok=True)
        begin = self.log.stat().st_size if self.log.exists() else 0
        started = time.monotonic()
        with open(self.log, "ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-S", tether.__file__, str(os.getpid()), *command(self.bundle, port)],
                stdin=subprocess.PIPE,  # nothing is ever written; the tether waits for its end
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env={k: v for k, v in os.environ.items() if k != TOKEN} | self.environment,
            )
        _living.add(self)
        self.port = port
        while True:
            if self._process.poll() is not None:
                text, code = self.tail(begin), self._over(self._process)
                if "in use" in text:
                    return False
                raise ProofError(f"the server of {self.bundle} ended with exit status {code} before it was ready; its last lines:\n{text}")
            if self.is_ready():
                self.ready_seconds = time.monotonic() - started
                return True
            if time.monotonic() - started > self.timeout:
                self.kill()
                raise ProofError(
                    f"the server of {self.bundle} was not ready within {self.timeout:g} s; its last lines:\n{self.tail(begin)}"
                )
            time.sleep(0.01)

    def is_ready(self) -> bool:
        """Whether the readiness route answers 200."""
        try:
            return self.get(READY, timeout=1.0)[0] == 200
        except OSError:
            return False

    def get(self, path: str, timeout: float = 10.0) -> tuple[int, bytes]:
        """Status and body of one GET on a connection of its own."""
        connection = http.client.HTTPConnection(HOST, self.port, timeout=timeout)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            return response.status, response.read()
        except http.client.HTTPException as e:
            raise ConnectionError(f"GET {path}: {type(e).__name__} {e}") from e
        finally:
            connection.close()

    def is_alive(self) -> bool:
        """Whether the process runs."""
        process = self._process  # another thread may be ending it
        return process is not None and process.poll() is None

    def memory(self) -> int | None:
        """Resident bytes of the process now; None where the system does not tell."""
        try:
            for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
                if line.startswith("VmRSS:"):
                    return int(line.split()[1]) * 1024
        except OSError:
            return None
        return None

    def kill(self, sent: Callable[[], Any] = lambda: None) -> None:
        """SIGKILL the whole group, as the kernel's memory killer or ``kill -9`` would, and wait for it to be gone.

        Args:
            sent: called between the signal and the wait.
        """
        process = self._running()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        sent()
        process.wait()
        self._over(process)

    def terminate(self) -> None:
        """Ask it to drain and end (SIGTERM), without waiting."""
        self._running().send_signal(signal.SIGTERM)

    def wait(self, timeout: float) -> int | None:
        """Exit status, or None if it still runs after ``timeout`` seconds."""
        process = self._running()
        try:
            status = process.wait(timeout)
        except subprocess.TimeoutExpired:
            return None
        self._over(process)
        return status

    def stop(self, grace: float = 10.0) -> int | None:
        """End it, politely for ``grace`` seconds, then not.  Exit status, or None if it was not running or had to be killed."""
        if self._process is None:
            return None
        if self._process.poll() is None:
            self.terminate()
        status = self.wait(grace)
        if status is None:
            self.kill()
        return status

    def _over(self, process: subprocess.Popen[bytes]) -> int:
        """Forget a process that has ended, and kill what it may have left in its group.  Gives its exit status."""
        with contextlib.suppress(ProcessLookupError, PermissionError):  # nothing is left, or on macOS nothing but zombies
            os.killpg(process.pid, signal.SIGKILL)
        if process.stdin is not None:
            process.stdin.close()
        self._process = None
        _living.discard(self)
        return int(process.returncode)

    def tail(self, begin: int = 0, lines: int = 15) -> str:
        """The last lines that the server wrote, from byte ``begin`` of its log on."""
        if not self.log.exists():
            return ""
        with open(self.log, "rb") as f:
            f.seek(begin)
            return "\n".join(f.read().decode(errors="replace").splitlines()[-lines:])

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise ValueError("this server is not running; start() it first")
        return self._process


_living: weakref.WeakSet[Server] = weakref.WeakSet()


@atexit.register
def _stop_all() -> None:
    for server in list(_living):
        server.stop(grace=2.0)

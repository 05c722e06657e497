"""``groundup serve``: bind, load, self-test, answer, and on SIGTERM stop without failing anybody.

The port is bound first, so that a port in use is told before anything is loaded, and listened on last, so that no
connection is accepted before the self-test has passed.  Stopping: SIGTERM turns readiness to 503 at once; for
``drain_delay_s`` requests are still accepted; then the listener closes and what is under way gets ``grace_s``
seconds; the exit status is 0.  A second signal stops at once.
"""

from __future__ import annotations

import ipaddress
import logging
import os
import signal
import socket
import sys
import time
from pathlib import Path
from types import FrameType
from typing import Any

import uvicorn

from groundup.bundle import Bundle
from groundup.errors import BusyError, GroundupError
from groundup.serving.admission import Policy
from groundup.serving.logs import configure
from groundup.serving.protocol import guarded
from groundup.serving.routes import application
from groundup.serving.service import Service
from groundup.serving.settings import Serve

TOKEN = "GROUNDUP_TOKEN"  # the environment variable
_LEAST_TOKEN = 16
# How long a thread may keep the interpreter while the event loop wants it.  With Python's 5 ms, health checks beside large
# bodies took up to 95 ms, with this 10 to 30, and as many bodies were read.
_SWITCH_S = 0.0005
_log = logging.getLogger("groundup.serving")


class UnsafeError(GroundupError):
    """The server would be open to others without a token."""


def run(
    path: Path | str,
    settings: Serve | None = None,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    token: str | None = None,
    token_file: Path | None = None,
    allow_open: bool = False,
) -> None:
    """Serve the bundle at ``path`` until SIGTERM or SIGINT.

    Args:
        settings: by default those that the bundle carries.
        port: 0 takes a free one; the log's first line names it.
        token: that clients must send; by default the environment's GROUNDUP_TOKEN, or the first line of ``token_file``.
        allow_open: listen on an address that others reach although there is no token.

    Raises:
        BundleError, ProofError: the bundle is damaged, or answers differently on this machine.
        BusyError: the port is taken.
        UnsafeError: no token (or a short one) and an address that others reach.
    """
    began = time.perf_counter()
    sys.setswitchinterval(_SWITCH_S)
    configure()
    token = _token(token, token_file)
    if token is None and not _loopback(host) and not allow_open:
        raise UnsafeError(
            f"listening on {host} lets others in, and there is no token: set {TOKEN} (at least {_LEAST_TOKEN} characters), "
            "or listen on 127.0.0.1, or say --allow-open"
        )
    with _bind(host, port) as listener:
        bundle = Bundle.open(path)
        settings = settings or Serve.model_validate(dict(bundle.serve))
        service = Service(bundle, settings)
        hosts = (
            None
            if not _loopback(host) and not settings.allowed_hosts
            else {"localhost", "127.0.0.1", "[::1]", host.lower(), *map(str.lower, settings.allowed_hosts)}
        )
        asgi = application(service, Policy(token, None if hosts is None else frozenset(hosts)))
        config = uvicorn.Config(
            asgi,
            http=guarded(settings.body_timeout_s, settings.max_connections),
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_graceful_shutdown=max(1, round(settings.grace_s)),
            timeout_keep_alive=75,
            backlog=2048,
        )
        _Server(config, service, listener, began).run(sockets=[listener])


class _Server(uvicorn.Server):
    """uvicorn's server with our start and stop."""

    def __init__(self, config: uvicorn.Config, service: Service, listener: socket.socket, began: float) -> None:
        super().__init__(config)
        self._service, self._listener, self._began = service, listener, began
        self._stop_at: float | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        self._service.start()
        await super().startup(sockets)
        host, port = self._listener.getsockname()[:2]
        bundle = self._service.bundle
        about: dict[str, Any] = {
            "url": f"http://{f'[{host}]' if ':' in host else host}:{port}/",
            "model": bundle.name,
            "version": bundle.version,
        }
        _log.info("ready", extra=about | {"seconds": round(time.perf_counter() - self._began, 3), "pid": os.getpid()})

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._service.drain()
        await super().shutdown(sockets)
        self._service.close()
        _log.info("stopped")

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self._stop_at is not None:
            self.should_exit = self.force_exit = True
            return
        self._service.drain()
        delay = self._service.settings.drain_delay_s if sig == signal.SIGTERM else 0
        self._stop_at = time.monotonic() + delay

    async def on_tick(self, counter: int) -> bool:
        if self._stop_at is not None and time.monotonic() >= self._stop_at:
            self.should_exit = True
        return await super().on_tick(counter)


def _token(token: str | None, token_file: Path | None) -> str | None:
    if token is None and token_file is not None:
        token = (token_file.read_text().splitlines() or [""])[0].strip()
    if token is None:
        token = os.environ.get(TOKEN) or None
    if token is not None and (len(token) < _LEAST_TOKEN or not token.isascii() or any(c.isspace() for c in token)):
        raise UnsafeError(
            f"the token is too short or holds spaces: expected at least {_LEAST_TOKEN} ASCII characters, as `openssl rand -hex 32` prints"
        )
    return token


def _loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _bind(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OverflowError:
        listener.close()
        raise BusyError(f"port {port} does not exist; expected 0 to 65535") from None
    except OSError as e:
        listener.close()
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            try:
                probe.bind((host, 0))
            except OSError:
                raise BusyError(f"cannot listen on {host}: {e.strerror}; choose an address of this machine with --host") from None
            free = probe.getsockname()[1]
        raise BusyError(f"cannot listen on {host} port {port}: {e.strerror}; port {free} is free: --port {free}") from None
    return listener

"""The one door: every request of every dialect comes through here, so none has limits or rights of its own.

In this order: the path is known, the host and origin are ours, the token is right, the method fits, the body is within
its limits and in time.  Then the route's handler; then the answer, its metrics and its line in the log.  Every path of
a server is known at its start (there is one model), so the table is a dictionary and nothing is matched by pattern.
"""

from __future__ import annotations

import asyncio
import hmac
import itertools
import logging
import math
import os
import random
import re
import time
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from dataclasses import dataclass, field
from typing import Any

from groundup.serving.large_json import LARGE
from groundup.serving.refusal import RequestError
from groundup.serving.service import Service
from groundup.serving.strict_json import dumps

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

_log = logging.getLogger("groundup.serving")
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "[::1]"})
_MAX_BUFFERED = 8  # bodies of the largest size that may be in memory at once
_IDENTITY = re.compile(rb"[!-~]{1,128}")


@dataclass(slots=True)
class Call:
    """One request.

    Attributes:
        identity: in the answer's header X-Request-ID, the log and the prediction log: the client's own, or one of ours.
        body: once it is admitted.
        began, deadline: on the monotonic clock; when the last byte of the body came, and until when there must be an answer.
    """

    scope: Scope
    headers: dict[bytes, bytes]
    identity: str
    body: bytes = b""
    began: float = 0.0
    deadline: float = math.inf

    def header(self, name: bytes) -> str | None:
        """A header's value as text, by its lower-case name."""
        value = self.headers.get(name)
        return None if value is None else value.decode("latin-1")


@dataclass(slots=True)
class Answer:
    """What goes back."""

    body: bytes
    status: int = 200
    content_type: bytes = b"application/json"
    headers: list[tuple[bytes, bytes]] = field(default_factory=list)


Handler = Callable[[Call], Awaitable[Answer]]


@dataclass(frozen=True)
class Route:
    """One path with its handler a method.

    Attributes:
        protocol: the label in the metrics.
        public: answered without a token.
    """

    path: str
    handlers: dict[str, Handler]
    protocol: str
    public: bool = False


@dataclass(frozen=True)
class Policy:
    """Who may ask.

    Attributes:
        token: that clients must send as ``Authorization: Bearer``, or None.
        hosts: names that the Host header may hold, without ports; None: any.
    """

    token: str | None = None
    hosts: frozenset[str] | None = _LOOPBACK


class Admission:
    """The ASGI application."""

    def __init__(self, service: Service, routes: Iterable[Route], policy: Policy) -> None:
        self.service, self.policy = service, policy
        self.routes = {r.path: r for r in routes}
        self._token = None if policy.token is None else b"Bearer " + policy.token.encode()
        self._limit = int(service.settings.max_body_mb * (1 << 20))
        self._buffered = 0
        self._numbers = itertools.count(1)
        self._process = os.urandom(4).hex()  # so that the numbers of two servers differ

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            raise RuntimeError(f"only HTTP is served, got {scope['type']}")
        began = time.perf_counter()
        headers = dict(scope["headers"])
        theirs = headers.get(b"x-request-id", b"")
        call = Call(scope, headers, theirs.decode() if _IDENTITY.fullmatch(theirs) else f"{self._process}-{next(self._numbers)}")
        metrics = self.service.metrics
        metrics.in_flight += 1
        route = self.routes.get(scope["path"])
        protocol = _protocol(scope["path"]) if route is None else route.protocol
        failure: str | None = None
        try:
            answer = await self._answer(route, call, receive)
        except RequestError as e:
            answer = refused(e, protocol)
            failure = e.message if e.status >= 500 else None
        except asyncio.CancelledError:  # the grace period is over: say so and end
            answer = refused(RequestError(503, "the server is stopping", retry_after=1), protocol)
        except Exception as e:  # noqa: BLE001 - a mistake of ours must not show the sender where it stands; it is in the log
            _log.exception("a request failed unexpectedly")
            failure = type(e).__name__
            answer = refused(RequestError(500, "the server failed on this request; its log has the reason"), protocol)
        try:
            await self._send(answer, call, send)
        finally:
            metrics.in_flight -= 1
            seconds = time.perf_counter() - began
            metrics.answered(protocol, answer.status, seconds)
            rate = self.service.settings.access_log
            if failure is not None or (rate and random.random() < rate):
                about = {
                    "protocol": protocol,
                    "status": answer.status,
                    "ms": round(seconds * 1e3, 3),
                    "method": scope["method"][:16],
                    "request_id": call.identity,
                }
                _log.log(logging.INFO if failure is None else logging.ERROR, failure or "answered", extra=about)

    async def _answer(self, route: Route | None, call: Call, receive: Receive) -> Answer:
        headers = call.headers
        self._check_sender(headers)
        if (
            self._token is not None
            and not (route is not None and route.public)
            and not hmac.compare_digest(headers.get(b"authorization", b""), self._token)
        ):
            raise RequestError(401, "expected the header 'Authorization: Bearer <token>' with the server's token")
        if route is None:
            raise RequestError(404, "no such path or model; GET /v2 and /openapi.json tell what there is")
        method = call.scope["method"]
        handler = route.handlers.get("GET" if method == "HEAD" else method)
        if handler is None:
            allowed = ", ".join(sorted(route.handlers))
            raise RequestError(405, f"this path takes {allowed}", allow=allowed)
        if method != "POST":
            return await handler(call)
        if b"content-encoding" in headers and headers[b"content-encoding"] != b"identity":
            raise RequestError(415, "compressed bodies are not taken; send it without Content-Encoding")
        call.body = await self._body(headers, receive)
        call.began = time.monotonic()
        call.deadline = call.began + self.service.settings.timeout_ms / 1e3
        held = len(call.body) if len(call.body) >= LARGE else 0  # small ones are bounded by the queue and the connections
        self._buffered += held
        try:
            return await handler(call)
        finally:
            self._buffered -= held

    def _check_sender(self, headers: dict[bytes, bytes]) -> None:
        """Refuse what a foreign web page makes a browser send: DNS rebinding (Host) and cross-site requests (Origin)."""
        host = headers.get(b"host", b"").decode("latin-1").lower()
        hosts = self.policy.hosts
        if hosts is not None and host and _name(host) not in hosts:
            raise RequestError(403, "the Host header names another server; allow it with serve.allowed_hosts")
        if (origin := headers.get(b"origin")) is not None:
            theirs = origin.decode("latin-1").lower().partition("://")[2]
            if not theirs or (theirs != host and _name(theirs) not in (hosts or frozenset()) - _LOOPBACK):
                raise RequestError(403, "requests from web pages of another origin are refused")

    async def _body(self, headers: dict[bytes, bytes], receive: Receive) -> bytes:
        declared = headers.get(b"content-length", b"")
        if declared.isdigit() and int(declared[:19]) > self._limit:
            raise self._too_large()
        try:
            async with asyncio.timeout(self.service.settings.body_timeout_s):
                message = await receive()
                body: bytes = message.get("body", b"")
                if not message.get("more_body"):
                    if message["type"] != "http.request":
                        raise RequestError(499, "the client closed the connection")
                    if len(body) > self._limit:
                        raise self._too_large()
                    return body
                return await self._rest(body, receive)
        except TimeoutError:
            raise RequestError(408, "the body did not arrive in time") from None

    async def _rest(self, first: bytes, receive: Receive) -> bytes:
        """A body in several parts, within this request's limit and that of all requests together."""
        parts = bytearray(first)
        held = len(first)
        self._buffered += held
        try:
            while True:
                if len(parts) > self._limit:
                    raise self._too_large()
                if self._buffered > self._limit * _MAX_BUFFERED:
                    raise RequestError(429, "too many large bodies are being received; try again", retry_after=1)
                message = await receive()
                if message["type"] != "http.request":
                    raise RequestError(499, "the client closed the connection")
                part = message.get("body", b"")
                parts += part
                held += len(part)
                self._buffered += len(part)
                if not message.get("more_body"):
                    if len(parts) > self._limit:
                        raise self._too_large()
                    return bytes(parts)
        finally:
            self._buffered -= held

    def _too_large(self) -> RequestError:
        return RequestError(413, f"the body is larger than {self._limit} bytes; send fewer rows a request")

    async def _send(self, answer: Answer, call: Call, send: Send) -> None:
        headers = [(b"content-type", answer.content_type), (b"content-length", str(len(answer.body)).encode()), *answer.headers]
        identity = call.identity.encode("utf-8", "replace")
        if _IDENTITY.fullmatch(identity):  # the id of a v2 request may be any text; it stands in the body then
            headers.append((b"x-request-id", identity))
        if self.service.draining or answer.status == 408:
            headers.append((b"connection", b"close"))
        await send({"type": "http.response.start", "status": answer.status, "headers": headers})
        await send({"type": "http.response.body", "body": answer.body})


def refused(error: RequestError, protocol: str) -> Answer:
    """An error in the form of its dialect."""
    value = {"error_code": _code(error.status), "message": error.message} if protocol == "invocations" else {"error": error.message}
    headers = []
    if error.retry_after is not None:
        headers.append((b"retry-after", str(error.retry_after).encode()))
    if error.allow is not None:
        headers.append((b"allow", error.allow.encode()))
    if error.status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    return Answer(dumps(value), error.status, headers=headers)


def _code(status: int) -> str:
    """MLflow's name of an error."""
    if status == 429:
        return "RESOURCE_EXHAUSTED"
    return "BAD_REQUEST" if status < 500 else "INTERNAL_ERROR" if status == 500 else "TEMPORARILY_UNAVAILABLE"


def _protocol(path: str) -> str:
    """The label of an unknown path: one of few, whatever the path."""
    return "v2" if path.startswith("/v2/") else "other"


def _name(host: str) -> str:
    """A Host header without its port."""
    if host.startswith("["):
        return host.partition("]")[0] + "]"
    return host.partition(":")[0]

"""What one connection may do: deadlines and sizes that uvicorn's HTTP/1.1 protocol does not set.

- A request's head must arrive within ``head_timeout`` seconds and hold at most ``MAX_HEAD`` bytes (431); a client that
  sends a byte now and then is closed.
- At most ``MAX_CHUNKS`` chunks in one body: a megabyte in one-byte chunks is an attack, not an upload.
- What follows an answer that was given before the body's end (413, 401) is thrown away for ``LINGER`` seconds, so that
  the client can read the answer, then the connection is closed.
- A client that goes away takes its waiting request out of the queue.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, cast

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

MAX_HEAD = 32 << 10
MAX_CHUNKS = 65_536
LINGER = 2.0
TICKET = "groundup.leave"  # scope key: called when the client goes away
GONE = "groundup.gone"  # scope key: set when it has


class GuardedProtocol(HttpToolsProtocol):
    """uvicorn's protocol with the limits above.  Made by :func:`guarded`, which sets them."""

    head_timeout = 10.0
    max_connections = 4096

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._timer: asyncio.TimerHandle | None = None
        self._in_head = True
        self._head_bytes = self._chunks = 0
        self._message_complete = True

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > self.max_connections:
            self._refuse(503, "too many connections; try again later")
            return
        self._arm(self.head_timeout)

    def connection_lost(self, exc: Exception | None) -> None:
        self._disarm()
        if self.cycle is not None and not self.cycle.response_complete:
            scope = cast("dict[str, Any]", self.cycle.scope)
            scope[GONE] = True
            leave: Callable[[], None] | None = scope.get(TICKET)
            if leave is not None:
                leave()
        for cycle, _ in self.pipeline:
            cycle.disconnected = True
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._in_head:
            self._head_bytes += len(data)
        super().data_received(data)
        if self._in_head and self._head_bytes > MAX_HEAD and not self.transport.is_closing():
            self._refuse(431, f"the head of the request is larger than {MAX_HEAD} bytes")

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._in_head, self._message_complete, self._chunks = True, False, 0
        if self._timer is None:
            self._arm(self.head_timeout)

    def on_header(self, name: bytes, value: bytes) -> None:
        super().on_header(name, value)
        if len(self.headers) > 200:
            self._refuse(431, "more than 200 header fields")

    def on_headers_complete(self) -> None:
        self._disarm()
        self._in_head, self._head_bytes = False, 0
        if self.transport.is_closing():
            return
        super().on_headers_complete()

    def on_chunk_header(self) -> None:
        self._chunks += 1
        if self._chunks == MAX_CHUNKS:
            self._refuse(400, f"more than {MAX_CHUNKS} chunks in one body")

    def on_body(self, body: bytes) -> None:
        if self.cycle is not None and not self.transport.is_closing():
            super().on_body(body)

    def on_message_complete(self) -> None:
        self._message_complete, self._in_head, self._head_bytes = True, True, 0
        if self.cycle is not None and not self.transport.is_closing():
            super().on_message_complete()
            if self.cycle.response_complete:
                self._disarm()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if not self._message_complete and self._timer is None:
            self._arm(LINGER)

    def send_400_response(self, msg: str) -> None:
        self._refuse(400, "this is not a valid HTTP/1.1 request")

    def _refuse(self, status: int, message: str) -> None:
        """Answer without the application and close."""
        if self.transport.is_closing():
            return
        body = b'{"error":"' + message.encode() + b'"}'
        if self.cycle is None or self.cycle.response_complete:
            length = str(len(body)).encode()
            head = STATUS_LINE[status] + b"content-type: application/json\r\nconnection: close\r\ncontent-length: " + length + b"\r\n"
            head += b"retry-after: 1\r\n\r\n" if status == 503 else b"\r\n"
            self.transport.write(head + body)
        self.transport.close()

    def _arm(self, seconds: float) -> None:
        self._timer = self.loop.call_later(seconds, self._late)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _late(self) -> None:
        self._timer = None
        if self._in_head:
            self._refuse(408, "the head of the request did not arrive in time")
        self.transport.close()


def guarded(head_timeout: float, max_connections: int) -> type[GuardedProtocol]:
    """The protocol class with these limits; uvicorn makes one object a connection from it."""
    return type("Guarded", (GuardedProtocol,), {"head_timeout": head_timeout, "max_connections": max_connections})

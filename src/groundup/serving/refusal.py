"""Why one request is answered with an error, in words for its sender.

| status | when |
|---|---|
| 400 | the request is malformed or does not fit the signature |
| 401, 403 | no token or the wrong one; a foreign Host or Origin |
| 404, 405, 415 | no such path or model; wrong method; wrong content type |
| 408, 413, 431 | the body comes too slowly; is too large; the head is too large |
| 429 | the queue is full: try again after ``Retry-After`` seconds |
| 500 | the graph failed on this very request |
| 499 | the client closed the connection; nobody reads it, the metrics count it |
| 503 | nothing can be served now: the server is stopping, or has too many connections |
| 504 | the deadline passed before an answer was there |
"""

from __future__ import annotations

from groundup.errors import GroundupError


class RequestError(GroundupError):
    """One request is refused.

    Args:
        status: HTTP status.
        message: for the sender: expected, got, what to do.  Never a path, a trace or an address of this machine.
        retry_after: seconds after which trying again makes sense, for 429 and 503.
    """

    def __init__(self, status: int, message: str, *, retry_after: int | None = None, allow: str | None = None) -> None:
        super().__init__(message)
        self.status, self.message, self.retry_after, self.allow = status, message, retry_after, allow


def too_many_rows(rows: int, limit: int) -> RequestError:
    """413 for a request that the queue can never hold."""
    return RequestError(413, f"{rows} rows in one request; at most {limit}, send several requests")


class InferenceError(GroundupError):
    """The graph failed while it ran."""

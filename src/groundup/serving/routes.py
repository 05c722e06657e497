"""The table of paths: what each dialect answers, on top of one :class:`~groundup.serving.service.Service`.

| dialect | paths |
|---|---|
| Open Inference Protocol v2 | /v2, /v2/health/live, /v2/health/ready, /v2/models/{m}[/versions/{v}][/ready, /infer] |
| typed | POST /predict, GET /signature |
| MLflow | POST /invocations, GET /ping, /health, /version |
| operation | /metrics, /monitor, /openapi.json |
| people | /, /docs |
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from importlib import resources
from typing import Any, TypeVar

from groundup import __version__
from groundup.bundle.signature import Field
from groundup.serving import invocations, records
from groundup.serving.admission import Admission, Answer, Call, Handler, Policy, Route
from groundup.serving.large_json import LARGE, MANY
from groundup.serving.protocol import GONE
from groundup.serving.refusal import RequestError
from groundup.serving.service import Service
from groundup.serving.strict_json import dumps, kind_of, loads
from groundup.serving.v2 import HEADER_LENGTH, timeout_seconds

T = TypeVar("T")
_ASSETS = {
    "/": ("index.html", b"text/html; charset=utf-8"),
    "/page.js": ("page.js", b"text/javascript; charset=utf-8"),
    "/page.css": ("page.css", b"text/css; charset=utf-8"),
    "/docs": ("docs.html", b"text/html; charset=utf-8"),
    "/docs.js": ("docs.js", b"text/javascript; charset=utf-8"),
}
_SECURITY = [
    (
        b"content-security-policy",
        b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
        b"base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cache-control", b"no-cache"),
]


def application(service: Service, policy: Policy) -> Admission:
    """The ASGI application of a service: its table of paths behind the door."""
    api = _Handlers(service)
    api.admission = Admission(service, _table(api, service), policy)
    return api.admission


def _table(api: _Handlers, service: Service) -> list[Route]:
    name, version = service.bundle.name, service.bundle.version
    model = f"/v2/models/{name}"
    table = [
        Route("/v2", {"GET": api.v2_server}, "v2"),
        Route("/v2/health/live", {"GET": api.v2_live}, "health", public=True),
        Route("/v2/health/ready", {"GET": api.v2_ready}, "health", public=True),
        Route("/predict", {"POST": api.predict}, "predict"),
        Route("/signature", {"GET": api.signature}, "predict"),
        Route("/invocations", {"POST": api.invocations}, "invocations"),
        Route("/ping", {"GET": api.ping}, "health", public=True),
        Route("/health", {"GET": api.ping}, "health", public=True),
        Route("/version", {"GET": api.version}, "invocations"),
        Route("/metrics", {"GET": api.metrics}, "metrics"),
        Route("/monitor", {"GET": api.monitor}, "metrics"),
        Route("/openapi.json", {"GET": api.openapi}, "docs"),
    ]
    for base in (model, f"{model}/versions/{version}"):
        table.append(Route(base, {"GET": api.v2_model}, "v2"))
        table.append(Route(f"{base}/ready", {"GET": api.v2_model_ready}, "v2"))
        table.append(Route(f"{base}/infer", {"POST": api.v2_infer}, "v2"))
    for path, (file, content_type) in _ASSETS.items():
        table.append(Route(path, {"GET": _asset(file, content_type)}, "page", public=True))
    return table


class _Handlers:
    admission: Admission  # the door they stand behind, for the documentation

    def __init__(self, service: Service) -> None:
        self.service = service
        self._document: bytes | None = None
        label = next((f for f in service.bundle.signature.outputs if f.name == "label"), None)
        self._classes = label.categories if label is not None else None

    # Open Inference Protocol

    async def v2_server(self, call: Call) -> Answer:
        """Name, version and extensions of the server."""
        return Answer(dumps(self.service.v2.server(__version__)))

    async def v2_live(self, call: Call) -> Answer:
        """Whether the process answers; true even while it stops."""
        return Answer(b'{"live":true}')

    async def v2_ready(self, call: Call) -> Answer:
        """Whether the model answers; 503 before the self-test has passed and from SIGTERM on."""
        ready = self.service.ready
        return Answer(b'{"ready":true}' if ready else b'{"ready":false}', 200 if ready else 503)

    async def v2_model(self, call: Call) -> Answer:
        """Inputs and outputs of the model."""
        return Answer(dumps(self.service.v2.model()))

    async def v2_model_ready(self, call: Call) -> Answer:
        """Whether this model answers."""
        ready = self.service.ready
        return Answer(dumps({"name": self.service.bundle.name, "ready": ready}), 200 if ready else 503)

    async def v2_infer(self, call: Call) -> Answer:
        """Answers for tensors by name (Open Inference Protocol v2)."""
        length = call.header(HEADER_LENGTH.encode())
        _expect_json(call, binary=length is not None)
        v2 = self.service.v2
        inputs, rows, asked = await self._read(call, lambda: v2.read(call.body, length, call.deadline))
        call.identity = asked.id or call.identity
        outputs = await self._infer(call, inputs, rows, asked.timeout)
        body, head = await self._write(outputs, lambda large: v2.write(outputs, asked, large))
        if head is None:
            return Answer(body)
        return Answer(body, content_type=b"application/octet-stream", headers=[(HEADER_LENGTH.encode(), str(head).encode())])

    # typed

    async def predict(self, call: Call) -> Answer:
        """Answers for one record, a list of records, or {instances: [...]}."""
        _expect_json(call)
        inputs, rows, single = await self._read(call, lambda: self._records(call))
        outputs = await self._infer(call, inputs, rows)

        def write(large: bool) -> bytes:
            answers = self._named(records.to_records(outputs))
            return dumps(answers[0] if single else {"predictions": answers}, large)

        return Answer(await self._write(outputs, write))

    def _records(self, call: Call) -> tuple[records.Arrays, int, bool]:
        """Tensors, their number of rows, and whether it is a record that stands alone."""
        value = loads(call.body, call.deadline)
        signature, single = self.service.bundle.signature, False
        names = {f.name for f in signature.inputs}
        if type(value) is dict:
            if "instances" in value and "instances" not in names:
                if len(value) != 1:
                    raise RequestError(400, "expected nothing beside 'instances'")
                value = value["instances"]
            else:
                value, single = [value], True
        if type(value) is not list:
            raise RequestError(400, f"expected one record, a list of records, or {{'instances': [...]}}, got {kind_of(value)}")
        rows = len(value)
        return records.from_records(signature, value, self.service.settings.queue), rows, single

    async def signature(self, call: Call) -> Answer:
        """What the model takes and gives, with an example."""
        bundle = self.service.bundle
        about = {"name": bundle.name, "version": bundle.version, "task": bundle.task, "metrics": dict(bundle.metrics)}
        return Answer(dumps(about | bundle.signature.to_dict() | {"example": example(bundle.signature.inputs)}))

    # MLflow

    async def invocations(self, call: Call) -> Answer:
        """Answers in MLflow's scoring protocol: exactly one of dataframe_split, dataframe_records, instances, inputs; or CSV."""
        kind = invocations.media_type(call.header(b"content-type"))
        signature, limit = self.service.bundle.signature, self.service.settings.queue
        inputs = await self._read(call, lambda: invocations.read(signature, call.body, kind, limit, call.deadline))
        outputs = await self._infer(call, inputs, len(next(iter(inputs.values()))))

        def write(large: bool) -> bytes:
            answers = next(iter(outputs.values())).tolist() if len(outputs) == 1 else records.to_records(outputs)
            return dumps({"predictions": answers}, large)

        return Answer(await self._write(outputs, write))

    async def ping(self, call: Call) -> Answer:
        """200 while the model answers."""
        ready = self.service.ready
        return Answer(b"\n" if ready else b"not ready\n", 200 if ready else 503, b"text/plain; charset=utf-8")

    async def version(self, call: Call) -> Answer:
        """Version of groundup."""
        return Answer(__version__.encode(), content_type=b"text/plain; charset=utf-8")

    # operation

    async def metrics(self, call: Call) -> Answer:
        """For Prometheus; OpenMetrics where it is accepted."""
        # Not on the loop: a model of a hundred columns has hundreds of series.
        body, content_type = await asyncio.to_thread(self.service.metrics.page, call.header(b"accept") or "")
        return Answer(body, content_type=content_type.encode())

    async def monitor(self, call: Call) -> Answer:
        """State of the drift monitor."""
        if (monitor := self.service.monitor) is None:
            state: dict[str, Any] = {"enabled": False, "reason": "the bundle has no profile of its training data"}
        else:
            state = {"enabled": True, **await asyncio.to_thread(monitor.state)}  # it may have to compare an open window
            state["log"] = {k: v for k, v in (state["log"] or {}).items() if k != "folder"} or None  # no paths of this machine
            state["last_error"] = state["last_error"] and "see the server's log"
        return Answer(dumps(state), headers=[(b"cache-control", b"no-store")])

    async def openapi(self, call: Call) -> Answer:
        """This document."""
        if self._document is None:  # not before it is asked for: FastAPI takes longer to import than the server to start
            from groundup.serving.app import document

            self._document = await asyncio.to_thread(document, self.admission)
        return Answer(self._document)

    async def _read(self, call: Call, read: Callable[[], T]) -> T:
        """What a body says; a large one is read beside the loop, and let go of then.  None is read for a queue that is full."""
        self.service.batcher.check_room()
        if len(call.body) < LARGE:
            return read()

        def present() -> T:
            if GONE in call.scope:
                raise RequestError(499, "the client closed the connection")
            return read()

        try:
            return await self.service.aside.run(present)
        finally:
            call.body = b""

    async def _write(self, outputs: records.Arrays, write: Callable[[bool], T]) -> T:
        """The body of an answer; a large one is written beside the loop."""
        if sum(x.size for x in outputs.values()) < MANY:
            return write(False)
        return await self.service.aside.run(lambda: write(True))

    async def _infer(self, call: Call, inputs: records.Arrays, rows: int, timeout: float | None = None) -> records.Arrays:
        if (wished := call.header(b"x-timeout-ms")) is not None:
            try:
                number = float(wished)
            except ValueError:
                number = -1.0
            limit = timeout_seconds(number, 1e3, "X-Timeout-Ms")
            timeout = limit if timeout is None else min(timeout, limit or timeout)
        deadline = call.deadline if timeout is None else min(call.deadline, call.began + timeout)
        return await self.service.infer(inputs, rows, deadline, call.identity, call.scope)

    def _named(self, answers: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Probabilities as {class: probability}."""
        if self._classes is not None:
            for answer in answers:
                if len(values := answer.get("probabilities") or ()) == len(self._classes):
                    answer["probabilities"] = dict(zip(self._classes, values, strict=True))
        return answers


def example(fields: tuple[Field, ...]) -> dict[str, Any]:
    """A record that the model takes: the first category, the middle of each range, an empty image."""
    return {f.name: _example(f) for f in fields}


def _example(f: Field) -> Any:
    if f.kind in ("image", "tensor"):
        value: Any = 0 if f.kind == "image" else 0.0
        for size in reversed(f.shape):
            value = [value] * size
        return value
    if f.kind == "category":
        return f.categories[0] if f.categories else ""
    if f.kind == "boolean":
        return False
    low, high = f.minimum, f.maximum
    middle = (low + high) / 2 if low is not None and high is not None else 0.0
    if f.kind == "datetime":
        from datetime import UTC, datetime, timedelta

        return (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=int(middle))).isoformat()
    return round(middle) if f.kind == "integer" else float(f"{middle:.4g}")


def _expect_json(call: Call, binary: bool = False) -> None:
    header = call.header(b"content-type")
    kind = (header or "").partition(";")[0].strip().lower()
    if kind not in ("", "application/json") and not (binary and kind == "application/octet-stream"):
        raise RequestError(415, "expected the content type application/json")


def _asset(file: str, content_type: bytes) -> Handler:
    body = resources.files("groundup.serving").joinpath("page", file).read_bytes()

    async def page(call: Call) -> Answer:
        """A page for people."""
        return Answer(body, content_type=content_type, headers=_SECURITY)

    return page

"""A bundle as a FastAPI application: the same routes behind the same door, with an OpenAPI document that is of use.

``groundup serve`` puts :class:`~groundup.serving.admission.Admission` on the socket directly and comes here for the
documentation alone: FastAPI's own dispatch costs more than a small model's run.  :func:`create_app` is for those who
have an application already, ``app.mount("/digits", create_app("bundle"))``, or another ASGI server.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI
from starlette.responses import Response

from groundup import __version__
from groundup.bundle import Bundle
from groundup.serving.admission import Admission, Policy
from groundup.serving.openapi import schemas
from groundup.serving.routes import application, example
from groundup.serving.service import Service
from groundup.serving.settings import Serve
from groundup.serving.strict_json import dumps
from groundup.serving.v2 import V2

_JSON = "application/json"


def create_app(
    path: str | os.PathLike[str], settings: Serve | None = None, *, token: str | None = None, hosts: frozenset[str] | None = None
) -> FastAPI:
    """The bundle at ``path`` as an application; its lifespan starts and stops the model.

    Args:
        token: that clients must send, or None.
        hosts: names that the Host header may hold, or None for any.

    Raises:
        BundleError, ProofError: the bundle is damaged, or answers differently on this machine.
    """
    bundle = Bundle.open(path)
    service = Service(bundle, settings or Serve.model_validate(dict(bundle.serve)))

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        service.start()
        yield
        service.drain()
        service.close()

    return describe(application(service, Policy(token, hosts)), lifespan)


def document(admission: Admission) -> bytes:
    """The OpenAPI document."""
    return dumps(describe(admission).openapi())


def describe(admission: Admission, lifespan: Callable[[FastAPI], Any] | None = None) -> FastAPI:
    """A FastAPI application whose every route is answered by ``admission``."""
    bundle = admission.service.bundle
    app = FastAPI(title=bundle.name, version=bundle.version, description=_about(bundle), openapi_url=None, lifespan=lifespan)
    components, bodies = _bodies(bundle, admission.service.v2)
    handled = _Handled(admission)

    async def endpoint() -> Response:
        return handled

    for route in admission.routes.values():
        if route.protocol == "page":  # for people, who need no document
            app.add_route(route.path, admission, methods=["GET"])  # type: ignore[arg-type]
            continue
        for method, handler in route.handlers.items():
            name = handler.__name__ if route.path.count("/versions/") == 0 else f"{handler.__name__}_version"
            extra = bodies.get(handler.__name__, {"responses": {}})
            secured: dict[str, Any] = {} if route.public or admission.policy.token is None else {"security": [{"token": []}]}
            app.add_api_route(
                route.path,
                endpoint,
                methods=[method],
                name=f"{name}_{route.path}",
                summary=(handler.__doc__ or name).strip().splitlines()[0],
                operation_id=f"{name}_{route.path.strip('/').replace('/', '_')}",
                tags=[route.protocol],
                response_class=Response,
                openapi_extra=extra | secured,
            )
    app.router.default = admission  # unknown paths get the same form of error
    generate = app.openapi

    def openapi() -> dict[str, Any]:
        document = generate()
        parts = document.setdefault("components", {})
        parts["schemas"] = components
        parts["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
        return document

    app.openapi = openapi  # type: ignore[method-assign]
    return app


class _Handled(Response):
    """A response that is made by the admission layer."""

    def __init__(self, admission: Admission) -> None:
        super().__init__()
        self._admission = admission

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await self._admission(scope, receive, send)


def _bodies(bundle: Bundle, v2: V2) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """Components, and the request and response bodies of the handlers that take or give more than a word."""
    record = example(bundle.signature.inputs)
    components, use = schemas(bundle.signature, record)
    tensors = [
        {"name": i["name"], "shape": [1, *i["shape"][1:]], "datatype": i["datatype"], "data": [record[i["name"]]]}
        for i in _v2_inputs(bundle, v2)
    ]
    many = {"type": "array", "items": use["record"], "minItems": 1, "maxItems": v2.max_rows}
    instances = {"type": "object", "required": ["instances"], "additionalProperties": False, "properties": {"instances": many}}
    split = {"columns": list(record), "data": [list(record.values())]}
    return components, {
        "predict": {
            "requestBody": _content({"anyOf": [use["record"], many, instances]}, one=record, several={"instances": [record]}),
            "responses": _responses({"anyOf": [use["answer"], use["answers"]]}, use["refusal"]),
        },
        "v2_infer": {
            "requestBody": _content(use["infer_request"], one={"inputs": tensors}),
            "responses": _responses(use["infer_response"], use["refusal"]),
        },
        **{name: {"responses": {"503": {"description": "not ready"}}} for name in ("v2_ready", "v2_model_ready", "ping")},
        "invocations": {
            "requestBody": _content(
                {"type": "object"}, dataframe_split={"dataframe_split": split}, dataframe_records={"dataframe_records": [record]}
            ),
            "responses": _responses({"type": "object", "properties": {"predictions": {"type": "array"}}}, use["invocations_refusal"]),
        },
    }


def _v2_inputs(bundle: Bundle, v2: V2) -> list[dict[str, Any]]:
    inputs: list[dict[str, Any]] = v2.model()["inputs"]
    for described in inputs:  # dates are easier to write as text
        field = next(f for f in bundle.signature.inputs if f.name == described["name"])
        described["datatype"] = "BYTES" if field.kind == "datetime" else described["datatype"]
    return inputs


def _content(schema: dict[str, Any], **examples: Any) -> dict[str, Any]:
    return {"required": True, "content": {_JSON: {"schema": schema, "examples": {k: {"value": v} for k, v in examples.items()}}}}


def _responses(schema: dict[str, Any], refusal: dict[str, Any]) -> dict[str, Any]:
    meanings = {
        400: "malformed, or does not fit the signature",
        413: "too large",
        415: "wrong content type",
        429: "the queue is full, see Retry-After",
        503: "stopping",
        504: "the deadline passed",
    }
    good = {"description": "the answer", "content": {_JSON: {"schema": schema}}}
    return {"200": good} | {str(s): {"description": m, "content": {_JSON: {"schema": refusal}}} for s, m in meanings.items()}


def _about(bundle: Bundle) -> str:
    metrics = ", ".join(f"{k} {v:.4g}" for k, v in bundle.metrics.items())
    return f"{bundle.task}{f' ({metrics})' if metrics else ''}, served by groundup {__version__}. Missing or non-finite answers are null."

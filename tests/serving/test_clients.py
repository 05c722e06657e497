"""Other people's tools against a running server: schemathesis on the OpenAPI document, Triton's client on the protocol."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from live_server import Server, Start

from groundup.bundle import Bundle
from groundup.serving.engine import Engine

pytestmark = pytest.mark.extras


@pytest.mark.parametrize("name", ["table", "image", "mlp", "watched"])
def test_schemathesis(serve: Start, name: str) -> None:
    """Whatever the document allows and much that it forbids: never a 5xx, and every answer is of a declared form."""
    import schemathesis
    from schemathesis.checks import not_a_server_error
    from schemathesis.specs.openapi.checks import (
        content_type_conformance,
        positive_data_acceptance,
        response_schema_conformance,
        status_code_conformance,
    )

    server: Server = serve(name)
    url = f"http://{server.host}:{server.port}"
    document = server.ask("GET", "/openapi.json").json()
    schema = schemathesis.openapi.from_dict(document)
    schema.config.update(base_url=url)
    checks = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
    positive, negative = schemathesis.GenerationMode.POSITIVE, schemathesis.GenerationMode.NEGATIVE
    answered: Counter[tuple[str, int]] = Counter()
    for found in schema.get_all_operations():
        operation = found.ok()
        post = operation.method.upper() == "POST"
        for mode in (positive, negative) if post else (positive,):

            @settings(max_examples=25 if post else 2, deadline=None, database=None, suppress_health_check=list(HealthCheck))
            @given(case=operation.as_strategy(generation_mode=mode))
            def ask(case: Any) -> None:
                reply = case.call()
                # Which tensors fit which model, the generic schemas of the two other protocols do not say.
                strict = [positive_data_acceptance] if case.operation.path == "/predict" else []
                case.validate_response(reply, checks=[*checks, *strict])
                answered[case.operation.path, reply.status_code] += 1

            ask()
    assert answered["/predict", 200] >= 10
    assert answered["/predict", 400] >= 10
    assert server.ask("GET", "/v2/health/live").status == 200


def test_tritonclient(serve: Start) -> None:
    """Metadata, health, and inference in every form that the client sends: JSON and binary, in and out."""
    from tritonclient import http
    from tritonclient.utils import InferenceServerException

    server: Server = serve("mlp")
    with http.InferenceServerClient(f"{server.host}:{server.port}") as client:
        assert client.is_server_live()
        assert client.is_server_ready()
        assert client.is_model_ready("toy")
        assert not client.is_model_ready("nobody")
        assert client.get_server_metadata()["extensions"] == ["binary_tensor_data"]
        about = client.get_model_metadata("toy")
        assert (about["name"], about["inputs"]) == ("toy", [{"name": "x", "datatype": "FP32", "shape": [-1, 32]}])
        assert client.is_model_ready("toy", about["versions"][0])

        x = np.random.default_rng(0).normal(size=(7, 32)).astype(np.float32)
        want = Engine(Bundle.open(server.log.parent / "bundle")).run({"x": x})
        for binary in (False, True):
            given = http.InferInput("x", list(x.shape), "FP32")
            given.set_data_from_numpy(x, binary_data=binary)
            for wanted in (None, [http.InferRequestedOutput(name, binary_data=binary) for name in ("probabilities", "label")]):
                got = client.infer("toy", [given], outputs=wanted, request_id=f"request-{binary}", timeout=5_000_000)
                np.testing.assert_allclose(got.as_numpy("probabilities"), want["probabilities"], atol=1e-6)
                labels = [v.decode() if isinstance(v, bytes) else v for v in got.as_numpy("label").ravel().tolist()]
                assert labels == want["label"].tolist()
                assert got.get_response()["id"] == f"request-{binary}"
        with pytest.raises(InferenceServerException, match="did you mean 'x'"):
            client.infer("toy", [http.InferInput("xx", [1, 32], "FP32").set_data_from_numpy(x[:1])])
        handles = [client.async_infer("toy", [http.InferInput("x", [1, 32], "FP32").set_data_from_numpy(x[i : i + 1])]) for i in range(7)]
        for i, handle in enumerate(handles):
            np.testing.assert_allclose(handle.get_result().as_numpy("probabilities")[0], want["probabilities"][i], atol=1e-6)


def test_tritonclient_with_strings(serve: Start) -> None:
    from tritonclient import http

    server: Server = serve("table")
    columns = {
        "age": ("FP64", np.array([30.5, np.nan])),
        "rooms": ("INT64", np.array([3, 4])),
        "owner": ("BOOL", np.array([True, False])),
        "city": ("BYTES", np.array([b"Oslo", "Zürich".encode()], object)),
        "sold": ("INT64", np.array([0, 86_400_000_000])),
    }
    with http.InferenceServerClient(f"{server.host}:{server.port}") as client:
        inputs = [http.InferInput(name, [2], datatype).set_data_from_numpy(x) for name, (datatype, x) in columns.items()]
        got = client.infer("toy", inputs).as_numpy("prediction")
    np.testing.assert_allclose(got, [30.5 + 6 + 100 + 1000, 8 + 1])

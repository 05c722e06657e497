"""Bad input, one table for all dialects: the right status, the dialect's form of error, no leak, and the server lives on."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from live_server import Reply, Server, Start

V2 = "/v2/models/toy/infer"
GOOD: dict[str, Any] = {"age": 30.5, "rooms": 3, "owner": True, "city": "Oslo", "sold": "2020-01-01T00:00:00Z"}
X = [0.5] * 32
HERE = re.escape(str(Path(__file__).parents[2])).encode()
LEAK = re.compile(HERE + rb"|Traceback|0x[0-9a-f]{6,}|/home|/tmp|site-packages|\.py\b|onnxruntime")


def v2(**changes: Any) -> dict[str, Any]:
    """A good request for the MLP with one thing changed; None removes."""
    item = {"name": "x", "shape": [1, 32], "datatype": "FP32", "data": X} | changes
    return {"inputs": [{k: v for k, v in item.items() if v is not None}]}


def row(**changes: Any) -> dict[str, Any]:
    return {k: v for k, v in (GOOD | changes).items() if v != "absent"}


V2_CASES: dict[str, tuple[bytes | Any, int, str]] = {
    "empty": (b"", 400, "empty"),
    "blank": (b"  \n", 400, "empty"),
    "truncated": (json.dumps(v2()).encode()[:-5], 400, "not JSON"),
    "two documents": (b"{}{}", 400, "not JSON"),
    "not UTF-8": (b'{"inputs": "\xff"}', 400, "UTF-8"),
    "UTF-16": (json.dumps(v2()).encode("utf-16"), 400, "UTF-8"),
    "byte order mark": (b"\xef\xbb\xbf{}", 400, "not JSON"),
    "NaN": (json.dumps(v2()).replace("0.5", "NaN").encode(), 400, "NaN"),
    "Infinity": (json.dumps(v2()).replace("0.5", "-Infinity").encode(), 400, "Infinity"),
    "1e400": (json.dumps(v2()).replace("0.5", "1e400").encode(), 400, "finite"),
    "1e39 in float32": (json.dumps(v2()).replace("0.5", "1e39").encode(), 400, "float32"),
    "5,000 digits": (json.dumps(v2()).replace("0.5", "1" * 5000).encode(), 400, "digits"),
    "400 digits": (json.dumps(v2()).replace("0.5", "1" * 400).encode(), 400, "x"),
    "duplicate key": (b'{"inputs": [], "inputs": []}', 400, "twice"),
    "depth 101": (b'{"inputs": ' + b"[" * 101 + b"]" * 101 + b"}", 400, "expected objects"),
    "depth 250,000": (b"[" * 250_000, 400, "nested"),
    "depth 250,000 in data": (b'{"inputs":[{"name":"x","shape":[1,32],"datatype":"FP32","data":' + b"[" * 250_000, 400, "nested"),
    "data 101 deep": (v2(data=json.loads("[" * 101 + "]" * 101)), 400, "x"),
    "a list": ([], 400, "object"),
    "a string": ("x", 400, "object"),
    "null": (b"null", 400, "object"),
    "no inputs": ({}, 400, "inputs"),
    "inputs null": ({"inputs": None}, 400, "inputs"),
    "inputs an object": ({"inputs": {}}, 400, "inputs"),
    "inputs empty": ({"inputs": []}, 400, "inputs"),
    "input a number": ({"inputs": [1]}, 400, "expected objects"),
    "input without name": (v2(name=None), 400, "no name"),
    "name a number": (v2(name=1), 400, "no name"),
    "unknown input": (v2(name="xx"), 400, "did you mean 'x'"),
    "input twice": ({"inputs": v2()["inputs"] * 2}, 400, "twice"),
    "no datatype": (v2(datatype=None), 400, "datatype"),
    "unknown datatype": (v2(datatype="FP8"), 400, "datatype"),
    "datatype a list": (v2(datatype=[]), 400, "datatype"),
    "wrong datatype": (v2(datatype="BYTES", data=["a"] * 32), 400, "x"),
    "no shape": (v2(shape=None), 400, "shape"),
    "shape a string": (v2(shape="1,32"), 400, "shape"),
    "shape empty": (v2(shape=[]), 400, "shape"),
    "shape of fractions": (v2(shape=[1.0, 32.0]), 400, "shape"),
    "shape of booleans": (v2(shape=[True, 32]), 400, "shape"),
    "negative shape": (v2(shape=[-1, 32]), 400, "shape"),
    "no rows": (v2(shape=[0, 32], data=[]), 400, "one row"),
    "product overflows": (v2(shape=[2**62, 32]), 400, "values"),
    "beyond uint64": (v2(shape=[2**64, 32]), 400, "shape"),
    "wrong width": (v2(shape=[1, 31], data=X[1:]), 400, "shape"),
    "wrong rank": (v2(shape=[1, 32, 1]), 400, "shape"),
    "long shape": (v2(shape=[1] * 100_000), 400, "shape"),
    "more data than shape": (v2(data=[*X, 1]), 400, "33"),
    "less data than shape": (v2(data=X[1:]), 400, "31"),
    "ragged data": (v2(shape=[2, 32], data=[X, X[1:]]), 400, "x"),
    "nested rows differ": (v2(shape=[2, 32], data=[X]), 400, "rows"),
    "no data": (v2(data=None), 400, "data"),
    "data a string": (v2(data="abc"), 400, "data"),
    "data of strings": (v2(data=["0.5"] * 32), 400, "numbers"),
    "data of null": (v2(data=[None] * 32), 400, "numbers"),
    "data of objects": (v2(data=[{}] * 32), 400, "numbers"),
    "parameters a list": (v2(parameters=[]), 400, "parameters"),
    "parameters nested": (v2(parameters={"a": {}}), 400, "parameters"),
    "request parameters nested": (v2() | {"parameters": {"a": [1]}}, 400, "parameters"),
    "id a number": (v2() | {"id": 7}, 400, "id"),
    "id too long": (v2() | {"id": "i" * 257}, 400, "id"),
    "unknown output": (v2() | {"outputs": [{"name": "nope"}]}, 400, "label, probabilities"),
    "output twice": (v2() | {"outputs": [{"name": "label"}] * 2}, 400, "twice"),
    "outputs a string": (v2() | {"outputs": "label"}, 400, "outputs"),
    "output a string": (v2() | {"outputs": ["label"]}, 400, "outputs"),
    "10,000 outputs": (v2() | {"outputs": [{"name": "label"}] * 10_000}, 400, "twice"),
    "timeout a string": (v2() | {"parameters": {"timeout": "1"}}, 400, "timeout"),
    "timeout negative": (v2() | {"parameters": {"timeout": -1}}, 400, "timeout"),
    "timeout infinite": (json.dumps(v2() | {"parameters": {"timeout": 7}}).replace("7}", "1e400}").encode(), 400, "timeout"),
    "binary flag a string": (v2() | {"parameters": {"binary_data_output": "yes"}}, 400, "binary_data_output"),
    "binary without bytes": (v2(data=None, parameters={"binary_data_size": 128}), 400, "binary_data_size"),
    "binary size negative": (v2(data=None, parameters={"binary_data_size": -1}), 400, "binary_data_size"),
    "binary and data": (v2(parameters={"binary_data_size": 0}), 400, "not both"),
    "too many rows": (v2(shape=[1025, 32], data=[0] * 1025 * 32), 413, "1024"),
}

PREDICT_CASES: dict[str, tuple[bytes | Any, int, str]] = {
    "empty": (b"", 400, "empty"),
    "null": (b"null", 400, "record"),
    "a number": (b"1", 400, "record"),
    "no records": ([], 400, "at least one"),
    "instances empty": ({"instances": []}, 400, "at least one"),
    "instances an object": ({"instances": {}}, 400, "list"),
    "instances and more": ({"instances": [GOOD], "x": 1}, 400, "instances"),
    "list of lists": ([[1, 2]], 400, "object"),
    "second row a string": ([GOOD, "x"], 400, "row 1"),
    "unknown column": (row(cty="Oslo"), 400, "did you mean 'city'"),
    "unknown column, nothing near": (row(zzz=1), 400, "the model takes age"),
    "missing column": (row(age="absent"), 400, "'age' is missing"),
    "no columns": ({}, 400, "missing"),
    "duplicate column": (b'{"age": 1, "age": 2}', 400, "twice"),
    "number as string": (row(age="30"), 400, "age: expected a number or null, got a string"),
    "number as boolean": (row(age=True), 400, "age: expected a number or null, got a boolean"),
    "number as list": (row(age=[1]), 400, "got a list"),
    "1e400": (json.dumps(GOOD).replace("30.5", "1e400").encode(), 400, "beyond the range"),
    "huge integer": (row(age=10**400), 400, "beyond the range"),
    "whole number as fraction": (row(rooms=3.5), 400, "whole number"),
    "whole number beyond 2**53": (row(rooms=2**53 + 2), 400, "whole number"),
    "null where it must be given": (row(rooms=None), 400, "row 0, rooms: expected a whole number, got null"),
    "boolean as number": (row(owner=1), 400, "true or false"),
    "category as number": (row(city=7), 400, "a string"),
    "half a surrogate": (b'{"age":1,"rooms":3,"owner":true,"city":"\\ud800","sold":"2020-01-01"}', 400, "surrogate"),
    "NUL in a category": (row(city="a\0b"), 400, "NUL"),
    "date not ISO": (row(sold="01/02/2020"), 400, "ISO 8601"),
    "date impossible": (row(sold="2020-02-30"), 400, "ISO 8601"),
    "date as number": (row(sold=0), 400, "ISO 8601"),
    "date null": (row(sold=None), 400, "null"),
}

INVOCATIONS_CASES: dict[str, tuple[bytes | Any, int, str]] = {
    "a list": ([GOOD], 400, "exactly one"),
    "no form": ({}, 400, "exactly one"),
    "two forms": ({"instances": [GOOD], "inputs": [GOOD]}, 400, "exactly one"),
    "unknown form": ({"rows": [GOOD]}, 400, "unknown key"),
    "params": ({"instances": [GOOD], "params": {"a": 1}}, 400, "params"),
    "split a list": ({"dataframe_split": []}, 400, "columns"),
    "split without data": ({"dataframe_split": {"columns": list(GOOD)}}, 400, "data"),
    "split of one short row": ({"dataframe_split": {"columns": list(GOOD), "data": [[1]]}}, 400, "row 0"),
    "split with a column twice": ({"dataframe_split": {"columns": ["age", "age"], "data": []}}, 400, "different"),
    "split without rows": ({"dataframe_split": {"columns": list(GOOD), "data": []}}, 400, "at least one row"),
    "columns of two lengths": ({"inputs": {k: [v] for k, v in GOOD.items()} | {"age": [1, 2]}}, 400, "length"),
    "columns no lists": ({"inputs": GOOD}, 400, "list"),
    "records an object": ({"dataframe_records": {}}, 400, "list"),
}


def check(server: Server, path: str, body: bytes | Any, status: int, word: str) -> Reply:
    reply = server.ask("POST", path, body if isinstance(body, bytes) else json.dumps(body).encode())
    assert reply.status == status, reply
    value = reply.json()
    message = value["message"] if path == "/invocations" else value["error"]
    assert set(value) == ({"error_code", "message"} if path == "/invocations" else {"error"})
    assert word in message
    assert len(message) < 600
    assert not LEAK.search(reply.body), reply.body
    assert server.ask("GET", "/v2/health/live").status == 200
    return reply


@pytest.mark.parametrize("case", V2_CASES)
def test_v2(serve: Start, case: str) -> None:
    check(serve("mlp"), V2, *V2_CASES[case])


@pytest.mark.parametrize("case", PREDICT_CASES)
def test_predict(serve: Start, case: str) -> None:
    check(serve("table"), "/predict", *PREDICT_CASES[case])


@pytest.mark.parametrize("case", INVOCATIONS_CASES)
def test_invocations(serve: Start, case: str) -> None:
    check(serve("table"), "/invocations", *INVOCATIONS_CASES[case])


@pytest.mark.parametrize("case", ["empty", "null", "second row a string", "unknown column", "number as string", "date impossible"])
def test_dialects_agree(serve: Start, case: str) -> None:
    """What one dialect refuses, the others do for the same reason."""
    body, status, word = PREDICT_CASES[case]
    if isinstance(body, bytes):
        check(serve("table"), "/invocations", body, status, "empty" if case == "empty" else "exactly one")
    else:
        check(serve("table"), "/invocations", {"instances": body if isinstance(body, list) else [body]}, status, word)


@pytest.mark.parametrize(
    "content_type", ["text/plain", "application/json; charset=latin-1", "application/json; v=1", "application/x-pickle", ""]
)
def test_invocations_content_type(serve: Start, content_type: str) -> None:
    reply = serve("table").ask("POST", "/invocations", {"instances": [GOOD]}, {"content-type": content_type})
    assert reply.status == 415
    assert set(reply.json()) == {"error_code", "message"}


@pytest.mark.parametrize("path", ["/predict", V2])
@pytest.mark.parametrize("content_type", ["text/plain", "application/vnd.bentoml+pickle", "multipart/form-data; boundary=x"])
def test_content_type(serve: Start, path: str, content_type: str) -> None:
    assert serve("table").ask("POST", path, b"{}", {"content-type": content_type}).status == 415


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br"])
def test_compressed_bodies_are_not_taken(serve: Start, encoding: str) -> None:
    assert serve("mlp").ask("POST", V2, b"x", {"content-encoding": encoding}).status == 415


@pytest.mark.parametrize("length", ["-1", "abc", "", "0", "1.5", str(2**40), "9" * 30, "١"])
def test_header_length(serve: Start, length: str) -> None:
    server: Server = serve("mlp")
    reply = server.ask("POST", V2, json.dumps(v2()).encode(), {"inference-header-content-length": length.encode("utf-8").decode("latin-1")})
    assert reply.status == 400
    assert "Inference-Header-Content-Length" in reply.json()["error"]


@pytest.mark.parametrize(
    "path",
    [
        "/v2/models/nope",
        "/v2/models/nope/infer",
        "/v2/models/toy/versions/1/infer",
        "/v2/models/toy/versions/..%2f1/infer",
        "/v2/models/..%252f..%252fetc/infer",
        "/v2/models/toy/versions/../1",
        "/v2/models/" + "a" * 256,
        "/v2/models/%00",
        "/nope",
        "/page/index.html",
        "//",
        "/%2e%2e/etc/passwd",
        "/predict/",
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_unknown_paths(serve: Start, path: str, method: str) -> None:
    reply = serve("mlp").ask(method, path, b"{}" if method == "POST" else None)
    assert reply.status == 404
    assert set(reply.json()) == {"error"}


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", V2, "POST"),
        ("PUT", "/predict", "POST"),
        ("POST", "/v2", "GET"),
        ("DELETE", "/", "GET"),
        ("PATCH", "/invocations", "POST"),
        ("TRACE", "/metrics", "GET"),
    ],
)
def test_methods(serve: Start, method: str, path: str, allowed: str) -> None:
    reply = serve("mlp").ask(method, path)
    assert (reply.status, reply.headers["allow"]) == (405, allowed)


def test_head(serve: Start) -> None:
    reply = serve("mlp").ask("HEAD", "/v2/health/live")
    assert (reply.status, reply.body) == (200, b"")


def test_answers_of_a_poisonous_model(serve: Start) -> None:
    """NaN becomes null in every dialect; a failing run is the request's own 500, without the runtime's message."""
    server: Server = serve("poison")
    assert server.ask("POST", "/predict", {"i": 9}).json() == {"prediction": None}
    assert server.ask("POST", "/invocations", {"instances": [{"i": 9}, {"i": 1}]}).json() == {"predictions": [None, 10.0]}
    request = {"inputs": [{"name": "i", "shape": [1], "datatype": "FP64", "data": [9]}]}
    assert server.ask("POST", V2, request).json()["outputs"][0]["data"] == [None]
    for path, body in (("/predict", {"i": 11}), ("/invocations", {"instances": [{"i": 11}]})):
        reply = server.ask("POST", path, body)
        assert reply.status == 500
        assert not LEAK.search(reply.body)
    assert np.isclose(server.ask("POST", "/predict", {"i": 3}).json()["prediction"], 30)

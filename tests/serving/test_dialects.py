"""What good requests get: the same answers in every dialect, equal to the graph's, in the protocols' own forms."""

from __future__ import annotations

import json
import struct
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import bundles
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from live_server import Server, Start

from groundup.bundle import Field
from groundup.bundle.signature import MISSING_DATETIME
from groundup.serving import records, tensors
from groundup.serving.engine import Engine
from groundup.serving.refusal import RequestError
from groundup.serving.strict_json import dumps, loads
from groundup.serving.tensors import DATATYPES

V2 = "/v2/models/toy/infer"
TABLE = [
    {"age": 30.5, "rooms": 3, "owner": True, "city": "Oslo", "sold": "2020-01-01T00:00:00Z"},
    {"age": None, "rooms": 1, "owner": None, "city": "Zürich", "sold": "1969-07-20T20:17:40+01:00"},
    {"age": -1e-3, "rooms": 9, "owner": False, "city": None, "sold": "2020-02-29"},
]


def expected() -> list[float]:
    """The table model's rule, in Python."""
    answers = []
    for r in TABLE:
        moment = datetime.fromisoformat(str(r["sold"]))
        moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        microseconds = round(moment.timestamp() * 1e6)
        days = int(microseconds / 86_400_000_000)  # the graph divides toward zero
        answers.append((r["age"] or 0) + 2 * r["rooms"] + 100 * bool(r["owner"]) + 1000 * (r["city"] == "Oslo") + days)  # type: ignore[operator]
    return answers


# ── one table, every dialect ───────────────────────────────────────────────────────────────────────────────────────────────

COLUMNS = {k: [r[k] for r in TABLE] for k in TABLE[0]}
CSV = "age,rooms,owner,city,sold\n" + "".join(
    ",".join("" if v is None else str(v).lower() if isinstance(v, bool) else str(v) for v in r.values()) + "\n" for r in TABLE
)
FORMS: dict[str, tuple[str, Any]] = {
    "predict list": ("/predict", TABLE),
    "predict instances": ("/predict", {"instances": TABLE}),
    "split": (
        "/invocations",
        {"dataframe_split": {"columns": list(COLUMNS), "data": [list(r.values()) for r in TABLE], "index": [0, 1, 2]}},
    ),
    "split, columns turned": (
        "/invocations",
        {"dataframe_split": {"columns": list(COLUMNS)[::-1], "data": [list(r.values())[::-1] for r in TABLE]}},
    ),
    "records": ("/invocations", {"dataframe_records": TABLE}),
    "instances": ("/invocations", {"instances": TABLE}),
    "inputs rows": ("/invocations", {"inputs": TABLE}),
    "inputs columns": ("/invocations", {"inputs": COLUMNS, "params": None}),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_same_answers(serve: Start, form: str) -> None:
    path, body = FORMS[form]
    reply = serve("table").ask("POST", path, body)
    assert reply.status == 200, reply
    given = reply.json()["predictions"]
    values = [p["prediction"] for p in given] if path == "/predict" else given
    np.testing.assert_allclose(values, expected(), rtol=1e-6)


def test_csv(serve: Start) -> None:
    reply = serve("table").ask("POST", "/invocations", CSV.encode(), {"content-type": "text/csv; charset=utf-8"})
    np.testing.assert_allclose(reply.json()["predictions"], expected(), rtol=1e-6)
    for bad in (
        "",
        "age\n",
        CSV + "1,2\n",
        CSV.replace("age", "rooms"),
        CSV.replace("30.5", "abc"),
        CSV.replace("30.5", "inf"),
        CSV.replace("30.5", "nan"),
        CSV.replace("true", "maybe"),
        CSV + '"',
    ):
        assert serve("table").ask("POST", "/invocations", bad.encode(), {"content-type": "text/csv"}).status == 400


def v2_table(**datatypes: str) -> dict[str, Any]:
    kinds = {"age": "FP64", "rooms": "INT64", "owner": "BOOL", "city": "BYTES", "sold": "BYTES"} | datatypes
    return {"inputs": [{"name": k, "shape": [3], "datatype": kinds[k], "data": COLUMNS[k]} for k in COLUMNS]}


def test_v2_table(serve: Start) -> None:
    reply = serve("table").ask("POST", V2, v2_table() | {"id": "é-1"})
    value = reply.json()
    assert value["id"] == "é-1"
    assert value["model_name"] == "toy"
    assert value["outputs"][0]["shape"] == [3]
    assert value["outputs"][0]["datatype"] == "FP32"
    np.testing.assert_allclose(value["outputs"][0]["data"], expected(), rtol=1e-6)
    changed = v2_table()
    changed["inputs"][4] = {"name": "sold", "shape": [3, 1], "datatype": "INT64", "data": [[1577836800000000], [0], [-1]]}
    assert serve("table").ask("POST", V2, changed).status == 200
    changed["inputs"][4]["data"] = [[None], [0], [-1]]
    assert "sold" in serve("table").ask("POST", V2, changed).json()["error"]


def test_one_record_is_answered_by_one_object(serve: Start) -> None:
    assert serve("table").ask("POST", "/predict", TABLE[0]).json() == {"prediction": pytest.approx(expected()[0])}


@pytest.mark.parametrize("form", ["record", "no channel", "bare", "instances", "v2 flat", "v2 nested", "v2 INT64"])
def test_images(serve: Start, tmp_path: Path, form: str) -> None:
    engine = Engine(bundles.image(tmp_path / "b"))
    x = np.random.default_rng(1).integers(0, 256, (2, 8, 8, 1), np.uint8)
    want = engine.run({"image": x})
    server: Server = serve("image")
    tensor = {"name": "image", "shape": [2, 8, 8, 1], "datatype": "UINT8"}
    if form.startswith("v2"):
        data = x.tolist() if form == "v2 nested" else x.ravel().tolist()
        body = {"inputs": [tensor | {"data": data} | ({"datatype": "INT64"} if "INT64" in form else {})]}
        label, probabilities = server.ask("POST", V2, body).json()["outputs"]
        assert (label["datatype"], probabilities["datatype"], probabilities["shape"]) == ("BYTES", "FP32", [2, 10])
        np.testing.assert_allclose(np.reshape(probabilities["data"], (2, 10)), want["probabilities"], atol=1e-6)
        assert label["data"] == want["label"].tolist()
    else:
        images = (x[..., 0] if form == "no channel" else x).tolist()
        body = images if form == "bare" else {"instances": images} if form == "instances" else [{"image": i} for i in images]
        for i, answer in enumerate(server.ask("POST", "/predict", body).json()["predictions"]):
            assert answer["label"] == want["label"][i]
            np.testing.assert_allclose([answer["probabilities"][str(k)] for k in range(10)], want["probabilities"][i], atol=1e-6)


@pytest.mark.parametrize(
    "bad",
    [
        [[256] * 8] * 8,
        [[-1] * 8] * 8,
        [[0.5] * 8] * 8,
        [["1"] * 8] * 8,
        [[0] * 7] * 8,
        [[0] * 8] * 9,
        [0] * 63,
        [[None] * 8] * 8,
        5,
        "",
        {},
    ],
)
def test_bad_images(serve: Start, bad: Any) -> None:
    reply = serve("image").ask("POST", "/predict", {"image": bad})
    assert reply.status == 400
    assert "image: expected" in reply.json()["error"]


# ── the protocol ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_metadata_and_health(serve: Start) -> None:
    server: Server = serve("mlp")
    assert server.ask("GET", "/v2").json()["extensions"] == ["binary_tensor_data"]
    model = server.ask("GET", "/v2/models/toy").json()
    assert model["inputs"] == [{"name": "x", "datatype": "FP32", "shape": [-1, 32]}]
    assert model["platform"] == "onnx_onnxv1"
    version = model["versions"][0]
    assert server.ask("GET", f"/v2/models/toy/versions/{version}").json() == model
    assert server.ask("GET", f"/v2/models/toy/versions/{version}/ready").json() == {"name": "toy", "ready": True}
    assert server.ask("GET", "/v2/health/live").json() == {"live": True}
    assert server.ask("GET", "/v2/health/ready").json() == {"ready": True}
    assert server.ask("GET", "/ping").status == server.ask("GET", "/health").status == 200
    assert server.ask("GET", "/monitor").json()["enabled"] is False
    body = {"inputs": [{"name": "x", "shape": [1, 32], "datatype": "FP32", "data": [[0.5] * 32]}]}
    assert server.ask("POST", f"/v2/models/toy/versions/{version}/infer", body).json()["model_version"] == version


def test_only_the_outputs_that_were_asked_for_in_that_order(serve: Start) -> None:
    tensor = {"name": "x", "shape": [1, 32], "datatype": "FP32", "data": [0.5] * 32}
    for names in (["probabilities"], ["probabilities", "label"], []):
        reply = serve("mlp").ask("POST", V2, {"inputs": [tensor], "outputs": [{"name": n} for n in names]}).json()
        assert [o["name"] for o in reply["outputs"]] == (names or ["label", "probabilities"])


@pytest.mark.parametrize("datatype", DATATYPES)
def test_binary_numbers(serve: Start, datatype: str) -> None:
    """Every fixed datatype as raw bytes gives what JSON gives."""
    server: Server = serve("mlp")
    x = (np.arange(64).reshape(2, 32) % 2).astype(DATATYPES[datatype])
    raw = x.tobytes()
    head = json.dumps(
        {
            "inputs": [{"name": "x", "shape": [2, 32], "datatype": datatype, "parameters": {"binary_data_size": len(raw)}}],
            "parameters": {"binary_data_output": True},
        }
    ).encode()
    reply = server.ask(
        "POST", V2, head + raw, {"inference-header-content-length": str(len(head)), "content-type": "application/octet-stream"}
    )
    assert reply.status == 200, reply
    assert reply.headers["content-type"] == "application/octet-stream"
    size = int(reply.headers["inference-header-content-length"])
    label, probabilities = json.loads(reply.body[:size])["outputs"]
    tail = reply.body[size:]
    sizes = [o["parameters"]["binary_data_size"] for o in (label, probabilities)]
    assert sum(sizes) == len(tail)
    got = np.frombuffer(tail[sizes[0] :], "<f4").reshape(2, 3)
    json_reply = server.ask(
        "POST", V2, {"inputs": [{"name": "x", "shape": [2, 32], "datatype": "FP32", "data": x.astype(float).tolist()}]}
    ).json()
    np.testing.assert_allclose(got.ravel(), json_reply["outputs"][1]["data"], atol=1e-6)
    first = struct.unpack_from("<I", tail)[0]
    assert tail[4 : 4 + first].decode() == json_reply["outputs"][0]["data"][0]


@pytest.mark.parametrize("text", ["", "Oslo", "é" * 1000, "x" * (1 << 20)])
def test_binary_strings(serve: Start, text: str) -> None:
    server: Server = serve("table")
    element = struct.pack("<I", len(text.encode())) + text.encode()
    request = {"inputs": [{"name": k, "shape": [1], "datatype": "FP64", "data": [1]} for k in ("age", "rooms")]}
    request["inputs"] += [
        {"name": "owner", "shape": [1], "datatype": "BOOL", "data": [True]},
        {"name": "sold", "shape": [1], "datatype": "INT64", "data": [0]},
        {"name": "city", "shape": [1], "datatype": "BYTES", "parameters": {"binary_data_size": len(element)}},
    ]
    head = json.dumps(request).encode()
    reply = server.ask("POST", V2, head + element, {"inference-header-content-length": str(len(head))})
    assert reply.json()["outputs"][0]["data"] == [103 + 1000 * (text == "Oslo")]


@pytest.mark.parametrize(
    ("raw", "word"),
    [
        (b"\1\0", "runs past"),
        (struct.pack("<I", 9) + b"abc", "runs past"),
        (struct.pack("<I", 1) + b"\xff", "UTF-8"),
        (b"", "elements"),
        (struct.pack("<I", 3) + b"a\0b", "NUL"),
    ],
)
def test_bad_binary_strings(serve: Start, raw: bytes, word: str) -> None:
    request = v2_table()
    request["inputs"][3] = {
        "name": "city",
        "shape": [3 if word != "NUL" else 1],
        "datatype": "BYTES",
        "parameters": {"binary_data_size": len(raw)},
    }
    if word == "NUL":
        for item in request["inputs"]:
            item["shape"] = [1]
            if "data" in item:
                item["data"] = item["data"][:1]
    head = json.dumps(request).encode()
    reply = serve("table").ask("POST", V2, head + raw, {"inference-header-content-length": str(len(head))})
    assert reply.status == 400
    assert word in reply.json()["error"]
    assert serve("table").ask("POST", V2, head + raw + b"more", {"inference-header-content-length": str(len(head))}).status == 400


def test_mixed_sizes_at_once_equal_the_graph(serve: Start, tmp_path: Path) -> None:
    """Batched with others, each answer is the own one (ids tell) and within 1e-5 of ONNX Runtime called directly."""
    engine = Engine(bundles.mlp(tmp_path / "b"))
    rng = np.random.default_rng(2)
    xs = [rng.normal(size=(int(rng.integers(1, 70)), 32)).astype(np.float32) for _ in range(300)]
    server: Server = serve("mlp")

    def ask(i: int) -> float:
        request = {"id": str(i), "inputs": [{"name": "x", "shape": list(xs[i].shape), "datatype": "FP32", "data": xs[i].ravel().tolist()}]}
        value = server.ask("POST", V2, request).json()
        assert value["id"] == str(i)
        want = engine.run({"x": xs[i]})
        assert value["outputs"][0]["data"] == want["label"].tolist()
        return float(np.abs(np.reshape(value["outputs"][1]["data"], (-1, 3)) - want["probabilities"]).max())

    with ThreadPoolExecutor(12) as pool:
        assert max(pool.map(ask, range(len(xs)))) <= 1e-5


# ── values ─────────────────────────────────────────────────────────────────────────────────────────────────────────────────


@given(st.lists(st.one_of(st.none(), st.floats(allow_nan=False, allow_infinity=False), st.integers(-(2**53), 2**53)), min_size=1))
def test_numbers_arrive_as_they_are(values: list[Any]) -> None:
    got = records.column(Field("a", "number", nullable=True), loads(dumps(values)))
    assert [None if np.isnan(v) else v for v in got] == [None if v is None else float(v) for v in values]


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")), min_size=1))
def test_strings_arrive_as_they_are(values: list[str]) -> None:
    assert records.column(Field("a", "category", nullable=True), loads(dumps(values))).tolist() == values


@given(st.datetimes(timezones=st.none() | st.timezones()))
def test_dates_arrive_to_the_microsecond(moment: datetime) -> None:
    got = int(records.column(Field("a", "datetime"), [moment.isoformat()])[0])
    offset = moment.utcoffset()
    naive = moment.replace(tzinfo=None) - offset if offset is not None else moment
    assert got == (naive - datetime(1970, 1, 1)) // (datetime(1970, 1, 2) - datetime(1970, 1, 1)) * 86_400_000_000 + (
        (naive - datetime(1970, 1, 1)) % (datetime(1970, 1, 2) - datetime(1970, 1, 1))
    ) // (datetime.resolution)


def test_a_missing_date_travels_through_v2_as_null_or_as_the_tensors_own_mark() -> None:
    nullable, required = Field("a", "datetime", nullable=True), Field("a", "datetime")
    assert tensors.from_json(nullable, "INT64", [None, MISSING_DATETIME, 5], 3, 3).tolist() == [MISSING_DATETIME, MISSING_DATETIME, 5]
    for missing in (None, MISSING_DATETIME):
        with pytest.raises(RequestError, match="row 1, a: the value is missing"):
            tensors.from_json(required, "INT64", [0, missing], 2, 2)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda v: st.lists(v) | st.dictionaries(st.text(), v),
    max_leaves=12,
)


@given(JSON, st.sampled_from(["number", "integer", "boolean", "category", "datetime", "image", "tensor"]), st.booleans())
def test_any_json_becomes_a_tensor_of_the_declared_kind_or_a_refusal(value: Any, kind: Any, nullable: bool) -> None:
    field = Field("a", kind, (2,) if kind in ("image", "tensor") else (), nullable)
    for values in ([value], value if isinstance(value, list) and value else [value, value]):
        try:
            got = records.column(field, values)
        except RequestError as e:
            assert e.status == 400  # noqa: PT017 - a refusal or a tensor, both are right
        else:
            assert got.dtype == field.dtype
            assert got.shape == (len(values), *field.shape)


@given(JSON)
def test_what_is_written_is_json(value: Any) -> None:
    json.loads(dumps(value), parse_constant=lambda name: pytest.fail(name))


# ── documentation, embedding, imports ──────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", ["table", "image", "mlp"])
def test_the_examples_of_the_openapi_document_are_answered(serve: Start, name: str) -> None:
    server: Server = serve(name)
    document = server.ask("GET", "/openapi.json").json()
    asked = 0
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            content = operation.get("requestBody", {}).get("content", {}).get("application/json", {})
            for example in content.get("examples", {}).values():
                reply = server.ask(method.upper(), path, example["value"])
                assert reply.status == 200, (path, example, reply)
                asked += 1
    assert asked >= 5
    assert "Record" in document["components"]["schemas"]
    text = json.dumps(document)
    for reference in set(__import__("re").findall(r'"#/components/schemas/([^"]+)"', text)):
        assert reference in document["components"]["schemas"]
    if name == "table":
        city = document["components"]["schemas"]["Record"]["properties"]["city"]
        assert "Bern" in city["examples"]
    assert server.ask("GET", "/docs").status == 200


def test_a_bundle_inside_another_application(tmp_path: Path) -> None:
    from fastapi.testclient import TestClient

    from groundup.serving.app import create_app

    bundles.table(tmp_path / "b")
    with TestClient(create_app(tmp_path / "b", token="0123456789abcdef")) as client:
        assert client.get("/v2/health/ready").json() == {"ready": True}
        assert client.post("/predict", json=TABLE[0]).status_code == 401
        headers = {"authorization": "Bearer 0123456789abcdef"}
        assert client.post("/predict", json=TABLE[0], headers=headers).json() == {"prediction": pytest.approx(expected()[0])}
        assert client.get("/page.js").status_code == 200
        assert client.get("/nope", headers=headers).json().keys() == {"error"}
        assert client.put("/predict", headers=headers).status_code == 405


def test_the_server_imports_nothing_of_the_training_side() -> None:
    import subprocess

    code = "import sys, groundup.serving.server, groundup.serving.verify; print(*sorted(m.partition('.')[0] for m in sys.modules))"
    loaded = set(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split())
    assert not loaded & {"torch", "pandas", "sklearn", "scipy", "mlflow", "pyarrow", "onnx", "fastapi", "matplotlib", "optuna", "duckdb"}


def test_nothing_in_the_package_can_unpickle_or_evaluate() -> None:
    import ast

    import groundup.serving

    for file in Path(groundup.serving.__path__[0]).rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            names = [a.name for a in node.names] if isinstance(node, ast.Import | ast.ImportFrom) else []
            module = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not {n.partition(".")[0] for n in names + module} & {
                "pickle",
                "cloudpickle",
                "dill",
                "marshal",
                "shelve",
                "joblib",
                "subprocess",
                "yaml",
            }, file
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                assert node.func.id not in {"eval", "exec", "compile", "__import__"}, file
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and node.func.attr == "load"
                and isinstance(node.func.value, ast.Name)
                and node.func.value.id == "np"
            ):
                assert any(
                    k.arg == "allow_pickle" and isinstance(k.value, ast.Constant) and k.value.value is False for k in node.keywords
                ), file

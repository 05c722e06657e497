"""The Open Inference Protocol, version 2, over REST: tensors by name, in JSON or as raw bytes after it.

Source: kserve/open-inference-protocol, specification/protocol/inference_rest.md; the binary form is Triton's
``binary_tensor_data`` extension (docs/protocol/extension_binary_data.md).  Every error is ``{"error": str}``.
Numeric datatypes other than the declared one are taken where no value changes; null stands for a missing value.
"""

from __future__ import annotations

import difflib
import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from groundup.bundle import Bundle
from groundup.bundle.signature import Field, Signature
from groundup.serving.refusal import RequestError, too_many_rows
from groundup.serving.strict_json import dumps, kind_of, loads
from groundup.serving.tensors import DATATYPES, OF_DTYPE, OF_KIND, convert, from_bytes, from_json, to_bytes

Array = np.ndarray[Any, np.dtype[Any]]
Arrays = dict[str, Array]

HEADER_LENGTH = "inference-header-content-length"
_MAX_SECONDS = 1e9


@dataclass
class Asked:
    """What a request asks beside its tensors.

    Attributes:
        outputs: names in the order wanted -> whether as raw bytes.
        timeout: seconds, or None.
    """

    id: str | None = None
    outputs: dict[str, bool] = field(default_factory=dict)
    timeout: float | None = None


class V2:
    """Reads requests and writes answers for one bundle; a request of more than ``max_rows`` rows is refused unread."""

    def __init__(self, bundle: Bundle, max_rows: int) -> None:
        self.bundle, self.signature, self.max_rows = bundle, bundle.signature, max_rows
        self._fields = {f.name: f for f in bundle.signature.inputs}
        self._output_names = [f.name for f in bundle.signature.outputs]
        self._all = dict.fromkeys(self._output_names, False)

    def server(self, version: str) -> dict[str, Any]:
        """GET /v2."""
        return {"name": "groundup", "version": version, "extensions": ["binary_tensor_data"]}

    def model(self) -> dict[str, Any]:
        """GET /v2/models/{name}."""
        s: Signature = self.signature
        return {
            "name": self.bundle.name,
            "versions": [self.bundle.version],
            "platform": "onnx_onnxv1",
            "inputs": [{"name": f.name, "datatype": OF_KIND[f.kind], "shape": [-1, *f.shape]} for f in s.inputs],
            "outputs": [
                {"name": f.name, "datatype": "FP32" if f.kind == "number" else OF_KIND[f.kind], "shape": [-1, *f.shape]} for f in s.outputs
            ],
        }

    def read(self, body: bytes, header_length: str | None, deadline: float = math.inf) -> tuple[Arrays, int, Asked]:
        """Tensors, their number of rows, and what is asked.

        Args:
            header_length: of the ``Inference-Header-Content-Length`` header; bytes of JSON before the raw tensors.
            deadline: of the request, on the monotonic clock; looked at while a large body is read.

        Raises:
            RequestError: 400, 413, 504.
        """
        raw = memoryview(b"")
        if header_length is not None:
            size = int(header_length) if header_length.isascii() and header_length.isdigit() and len(header_length) < 16 else -1
            if not 0 < size <= len(body):
                raise RequestError(
                    400, f"Inference-Header-Content-Length: expected a whole number from 1 to the {len(body)} bytes of the body"
                )
            raw, body = memoryview(body)[size:], body[:size]
        request = loads(body, deadline)
        if type(request) is not dict:
            raise RequestError(400, f"expected an object with 'inputs', got {kind_of(request)}")
        asked = self._asked(request)
        given = request.get("inputs")
        if type(given) is not list or not given:
            raise RequestError(
                400,
                "'inputs': expected a list of {name, shape, datatype, data}"
                + (", got none" if given in (None, []) else f", got {kind_of(given)}"),
            )
        inputs: Arrays = {}
        rows = 0
        for item in given:
            name, array, raw = self._input(item, raw)
            if name in inputs:
                raise RequestError(400, f"the input {name!r} is given twice")
            inputs[name] = array
            if rows and len(array) != rows:
                raise RequestError(400, f"{name}: {len(array)} rows, but the inputs before it have {rows}; all share the first axis")
            rows = len(array)
        if len(inputs) != len(self._fields):
            missing = next(n for n in self._fields if n not in inputs)
            raise RequestError(400, f"the input {missing!r} is missing; expected {', '.join(list(self._fields)[:20])}")
        if len(raw):
            raise RequestError(
                400, f"{len(raw)} bytes follow the last tensor; 'binary_data_size' of the inputs must add up to the bytes after the JSON"
            )
        return inputs, rows, asked

    def write(self, outputs: Arrays, asked: Asked, large: bool = False) -> tuple[bytes, int | None]:
        """The body, and the number of its bytes that are JSON where raw tensors follow (else None).

        Args:
            large: see ``strict_json.dumps``.
        """
        written = []
        tail = []
        for name, as_bytes in (asked.outputs or self._all).items():
            array = outputs[name]
            datatype = "BYTES" if array.dtype.kind in "OU" else OF_DTYPE[array.dtype]
            item: dict[str, Any] = {"name": name, "datatype": datatype, "shape": list(array.shape)}
            if as_bytes:
                data = to_bytes(array, datatype)
                item["parameters"] = {"binary_data_size": len(data)}
                tail.append(data)
            else:
                item["data"] = array.ravel().tolist()
            written.append(item)
        answer: dict[str, Any] = {"model_name": self.bundle.name, "model_version": self.bundle.version}
        if asked.id is not None:
            answer["id"] = asked.id
        answer["outputs"] = written
        head = dumps(answer, large)
        return (b"".join([head, *tail]), len(head)) if tail else (head, None)

    def _asked(self, request: dict[str, Any]) -> Asked:
        asked = Asked()
        if (identity := request.get("id")) is not None:
            if type(identity) is not str or len(identity) > 256:
                raise RequestError(400, "'id': expected a string of at most 256 characters")
            asked.id = identity
        everywhere = False
        if "parameters" in request:
            parameters = _parameters(request["parameters"], "the request")
            everywhere = _flag(parameters, "binary_data_output")
            asked.timeout = timeout_seconds(parameters.get("timeout"), 1e6, "'timeout' (microseconds)")
        wanted = request.get("outputs")
        if wanted is None:
            asked.outputs = dict.fromkeys(self._output_names, True) if everywhere else self._all
            return asked
        if type(wanted) is not list:
            raise RequestError(400, f"'outputs': expected a list of objects with 'name', got {kind_of(wanted)}")
        for item in wanted:
            name = item.get("name") if type(item) is dict else None
            if not isinstance(name, str) or name not in self._output_names:
                raise RequestError(400, f"'outputs': expected objects with a 'name' among {', '.join(self._output_names)}")
            if name in asked.outputs:
                raise RequestError(400, f"the output {name!r} is asked for twice")
            asked.outputs[name] = _flag(_parameters(item.get("parameters", {}), name), "binary_data", everywhere)
        asked.outputs = asked.outputs or self._all
        return asked

    def _input(self, item: Any, raw: memoryview) -> tuple[str, Array, memoryview]:
        if type(item) is not dict:
            raise RequestError(400, f"'inputs': expected objects with name, shape, datatype and data, got {kind_of(item)}")
        name, datatype, shape = item.get("name"), item.get("datatype"), item.get("shape")
        known = self._fields.get(name) if isinstance(name, str) else None
        if known is None:
            near = difflib.get_close_matches(name[:80], list(self._fields), 1) if isinstance(name, str) else []
            hint = f"did you mean {near[0]!r}?" if near else f"the model takes {', '.join(list(self._fields)[:20])}"
            raise RequestError(400, f"unknown input {name[:80]!r}; {hint}" if isinstance(name, str) else f"an input has no name; {hint}")
        if not isinstance(datatype, str) or (datatype != "BYTES" and datatype not in DATATYPES):
            got = "an unknown one" if isinstance(datatype, str) else kind_of(datatype)
            raise RequestError(400, f"{known.name}: 'datatype': expected {OF_KIND[known.kind]} or another of the protocol's, got {got}")
        rows = _rows(known, shape)
        count = rows * math.prod(known.shape)
        parameters = _parameters(item["parameters"], known.name) if "parameters" in item else {}
        if "binary_data_size" in parameters:
            if "data" in item:
                raise RequestError(400, f"{known.name}: either 'data' or 'binary_data_size', not both")
            size = parameters["binary_data_size"]
            if type(size) is not int or not 0 <= size <= len(raw):
                raise RequestError(
                    400,
                    f"{known.name}: 'binary_data_size': expected a whole number of at most the {len(raw)} bytes left after the JSON",
                )
            return known.name, convert(known, datatype, from_bytes(raw[:size], datatype, count, known.name), rows), raw[size:]
        if "data" not in item:
            raise RequestError(400, f"{known.name}: 'data' is missing")
        if rows > self.max_rows and type(item["data"]) is list and len(item["data"]) in (rows, count):
            raise too_many_rows(rows, self.max_rows)
        return known.name, from_json(known, datatype, item["data"], rows, count), raw


def timeout_seconds(value: Any, per_second: float, what: str) -> float | None:
    """A client's timeout in seconds; 0 and None mean none given.

    Raises:
        RequestError: 400.
    """
    if value is None:
        return None
    if type(value) not in (int, float) or not 0 <= value <= _MAX_SECONDS * per_second:
        raise RequestError(400, f"{what}: expected a number of at least 0")
    return value / per_second or None


def _rows(known: Field, shape: Any) -> int:
    wanted = f"[N, {', '.join(map(str, known.shape))}]" if known.shape else "[N]"
    if type(shape) is not list or not shape or any(type(n) is not int or not 0 <= n < 2**63 for n in shape):
        raise RequestError(400, f"{known.name}: 'shape': expected {wanted} in whole numbers of at least 0")
    if tuple(shape[1:]) != known.shape and not (known.shape == () and shape[1:] == [1]):
        raise RequestError(
            400,
            f"{known.name}: expected the shape {wanted}, got [{', '.join(map(str, shape[:8]))}{', …' if len(shape) > 8 else ''}]",
        )
    if shape[0] == 0:
        raise RequestError(400, f"{known.name}: expected at least one row, got none")
    return int(shape[0])


def _parameters(value: Any, where: str) -> dict[str, Any]:
    if type(value) is not dict or any(type(v) not in (str, int, float, bool) for v in value.values()):
        raise RequestError(400, f"'parameters' of {where}: expected an object of strings, numbers and booleans")
    return value


def _flag(parameters: dict[str, Any], name: str, default: bool = False) -> bool:
    value = parameters.get(name, default)
    if type(value) is not bool:
        raise RequestError(400, f"'{name}': expected true or false")
    return value

"""From tensors to requests and from answers to tensors: a client's side of the two dialects, written apart from the server's.

The server has its own reader and writer; a mistake that both sides share would not be seen if they shared the code.
Convention of tensors: :mod:`groundup.bundle.signature`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np

from groundup.bundle import Bundle
from groundup.bundle.signature import MISSING_DATETIME, Field
from groundup.errors import ProofError
from groundup.rehearsal.load import Request

Arrays = dict[str, np.ndarray[Any, np.dtype[Any]]]
PREDICT = "/predict"
_DATATYPES = {
    "number": "FP64",
    "integer": "FP64",
    "boolean": "FP64",
    "category": "BYTES",
    "datetime": "INT64",
    "image": "UINT8",
    "tensor": "FP32",
}


def rows_of(arrays: Mapping[str, Any]) -> int:
    """N."""
    return len(next(iter(arrays.values())))


def cut(arrays: Mapping[str, Any], start: int, stop: int) -> Arrays:
    """Rows ``start`` to ``stop`` of every tensor."""
    return {name: values[start:stop] for name, values in arrays.items()}


def predict(bundle: Bundle, arrays: Mapping[str, Any]) -> Request:
    """One request to ``/predict``, a record a row, as a person would write it."""
    columns = {f.name: _values(f, arrays[f.name]) for f in bundle.signature.inputs}
    records = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    return Request(PREDICT, json.dumps(records, allow_nan=False).encode())


def infer(bundle: Bundle, arrays: Mapping[str, Any]) -> Request:
    """One request to the Open Inference Protocol's ``/v2/models/<name>/infer``."""
    inputs = []
    for f in bundle.signature.inputs:
        values = np.asarray(arrays[f.name])
        data = values.ravel().tolist()
        if values.dtype.kind == "f":
            data = [None if v != v else v for v in data]
        inputs.append({"name": f.name, "shape": list(values.shape), "datatype": _DATATYPES[f.kind], "data": data})
    return Request(f"/v2/models/{bundle.name}/infer", json.dumps({"inputs": inputs}, allow_nan=False).encode())


def read_predict(bundle: Bundle, body: bytes) -> Arrays:
    """Answers of ``/predict``: output name -> (N, ...); probabilities come by class and are put in the signature's order."""
    rows = json.loads(body)["predictions"]
    if not rows or not isinstance(rows[0], dict):
        raise ProofError(f"{PREDICT}: expected one object a row under 'predictions', got {body[:200]!r}")
    found = {}
    for f in bundle.signature.outputs:
        values = [row[f.name] for row in rows]
        found[f.name] = _array([list(v.values()) for v in values] if isinstance(values[0], dict) else values)
        if isinstance(values[0], dict):
            classes = next((o.categories for o in bundle.signature.outputs if o.name == "label"), None)
            if any(tuple(v) != classes for v in values):
                raise ProofError(f"{PREDICT}: expected {f.name} for the classes {classes}, got {tuple(values[0])}")
    return found


def read_infer(_: Bundle, body: bytes) -> Arrays:
    """Answers of ``/infer``: output name -> (N, ...)."""
    return {o["name"]: _array(o["data"]).reshape(o["shape"]) for o in json.loads(body)["outputs"]}


def _array(values: list[Any]) -> np.ndarray[Any, np.dtype[Any]]:
    if values and isinstance(values[0], str):
        made = np.empty(len(values), object)
        made[:] = values
        return made
    return np.asarray([np.nan if v is None else v for v in values], np.float64)


def _values(field: Field, array: Any) -> list[Any]:
    """One column as JSON values."""
    values = np.asarray(array).tolist()
    match field.kind:
        case "number":
            return [None if v != v else v for v in values]
        case "integer":
            return [None if v != v else int(v) for v in values]
        case "boolean":
            return [None if v != v else bool(v) for v in values]
        case "category":
            return [None if v == "" and field.nullable else v for v in values]
        case "datetime":
            return [
                None if v == MISSING_DATETIME else (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=v)).isoformat()
                for v in values
            ]
        case _:
            return list(values)

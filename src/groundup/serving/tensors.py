"""Tensors of the Open Inference Protocol: JSON data or raw bytes of a datatype to what the graph takes, and back."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np

from groundup.bundle.signature import Field
from groundup.serving import records
from groundup.serving.refusal import RequestError
from groundup.serving.strict_json import kind_of

Array = np.ndarray[Any, np.dtype[Any]]

DATATYPES: dict[str, str] = {
    "BOOL": "?",
    **{f"UINT{n}": f"<u{n // 8}" for n in (8, 16, 32, 64)},
    **{f"INT{n}": f"<i{n // 8}" for n in (8, 16, 32, 64)},
    **{f"FP{n}": f"<f{n // 8}" for n in (16, 32, 64)},
}
OF_DTYPE = {np.dtype(v): k for k, v in DATATYPES.items()}
OF_KIND = {
    "number": "FP64",
    "integer": "FP64",
    "boolean": "FP64",
    "category": "BYTES",
    "datetime": "INT64",
    "image": "UINT8",
    "tensor": "FP32",
}


def from_json(known: Field, datatype: str, data: Any, rows: int, count: int) -> Array:
    """An input tensor of row-major JSON, flat or nested."""
    if type(data) is not list:
        raise RequestError(400, f"{known.name}: 'data': expected a list, got {kind_of(data)}")
    if known.kind in ("image", "tensor"):
        if data and type(data[0]) is not list:  # flat
            if len(data) != count:
                raise RequestError(400, f"{known.name}: the shape needs {count} values, 'data' holds {len(data)}")
            try:
                return records.cast(known, _numbers(known, data)).reshape(rows, *known.shape)
            except OverflowError:
                raise RequestError(400, f"{known.name}: a number is beyond the range of its datatype") from None
        if len(data) != rows:
            raise RequestError(400, f"{known.name}: the shape says {rows} rows, 'data' holds {len(data)}")
        return records.dense(known, data, rows)
    if len(data) == rows and data and all(type(v) is list and len(v) == 1 for v in data):
        data = [v[0] for v in data]  # shape [N, 1]
    if len(data) != rows:
        raise RequestError(400, f"{known.name}: the shape needs {count} values, 'data' holds {len(data)}")
    if known.kind == "boolean":
        return _booleans(known, data)
    if known.kind == "datetime" and datatype != "BYTES":
        if any(type(v) is not int or not -(2**63) <= v < 2**63 for v in data if v is not None):
            raise RequestError(400, f"{known.name}: expected whole microseconds since 1970-01-01 UTC (INT64) or ISO 8601 strings (BYTES)")
        return _missing(known, np.array([-(2**63) if v is None else v for v in data], np.int64))
    return records.column(known, data)


def _numbers(known: Field, data: list[Any]) -> Array:
    try:
        array = records.in_steps(data, 1)
    except ValueError:
        raise RequestError(400, f"{known.name}: 'data': expected numbers, flat or nested as the shape says") from None
    if array.dtype.kind not in "iuf" or array.ndim != 1:
        raise RequestError(400, f"{known.name}: 'data': expected numbers, flat or nested as the shape says")
    return array


def _booleans(known: Field, data: list[Any]) -> Array:
    if any(v is not None and (not isinstance(v, bool | int | float) or v not in (0, 1)) for v in data):
        raise RequestError(400, f"{known.name}: expected true, false, 1 or 0")
    return _missing(known, np.array(data, np.float64))


def _missing(known: Field, array: Array) -> Array:
    """``array`` if it holds no missing value or may do so."""
    if not known.nullable:
        missing = np.isnan(array) if array.dtype.kind == "f" else array == -(2**63)
        if missing.any():
            raise RequestError(400, f"row {int(missing.argmax())}, {known.name}: the value is missing; this column must be given")
    return array


def convert(known: Field, datatype: str, array: Array, rows: int) -> Array:
    """Raw numbers or strings (count,) as the input's tensor."""
    if known.kind in ("category", "datetime") and datatype == "BYTES":
        return records.column(known, [v or None for v in array.tolist()])
    if datatype == "BYTES" or known.kind == "category":
        raise RequestError(400, f"{known.name}: expected the datatype {OF_KIND[known.kind]}")
    if known.kind in ("image", "tensor"):
        return records.cast(known, array).reshape(rows, *known.shape)
    if known.kind == "datetime":
        if array.dtype.kind != "i":
            raise RequestError(400, f"{known.name}: expected INT64 microseconds since 1970-01-01 UTC")
        return _missing(known, array.astype(np.int64))
    numbers = _missing(known, array.astype(np.float64))
    if np.isinf(numbers).any() or (known.kind == "boolean" and not np.isin(numbers[~np.isnan(numbers)], (0, 1)).all()):
        raise RequestError(400, f"{known.name}: a number is out of range for {known.kind}")
    if known.kind == "integer" and not (np.isnan(numbers) | (numbers == np.floor(numbers))).all():
        raise RequestError(400, f"{known.name}: expected whole numbers")
    return numbers


def from_bytes(raw: memoryview, datatype: str, count: int, name: str) -> Array:
    if datatype != "BYTES":
        dtype = np.dtype(DATATYPES[datatype])
        if len(raw) != count * dtype.itemsize:
            raise RequestError(
                400, f"{name}: the shape and {datatype} need {count * dtype.itemsize} bytes, 'binary_data_size' is {len(raw)}"
            )
        return np.require(np.frombuffer(raw, dtype), requirements="A")  # bytes begin anywhere; ONNX Runtime reads aligned ones
    values = []
    at = 0
    while at < len(raw):
        size = struct.unpack_from("<I", raw, at)[0] if at + 4 <= len(raw) else len(raw)
        if at + 4 + size > len(raw):
            raise RequestError(400, f"{name}: a BYTES element runs past 'binary_data_size'")
        try:
            values.append(str(raw[at + 4 : at + 4 + size], "utf-8"))
        except UnicodeDecodeError:
            raise RequestError(400, f"{name}: a BYTES element is not UTF-8 text") from None
        at += 4 + size
    if len(values) != count:
        raise RequestError(400, f"{name}: the shape needs {count} elements, the raw bytes hold {len(values)}")
    made = np.empty(count, object)
    made[:] = values
    return made


def to_bytes(array: Array, datatype: str) -> bytes:
    if datatype != "BYTES":
        return np.ascontiguousarray(array, DATATYPES[datatype]).tobytes()
    elements = [str(v).encode() for v in array.ravel().tolist()]
    return b"".join(struct.pack("<I", len(e)) + e for e in elements)

"""Does an ONNX file point outside itself?  Answered from its bytes, before ONNX Runtime or any ONNX library sees them.

A tensor may keep its values in another file (``data_location = EXTERNAL``, ``external_data`` entries); a hostile path
there reads the server's files (CVE-2022-25882, CVE-2024-27318, CVE-2026-27489, CVE-2026-34446: four fixes, each
incomplete).  A bundle's graph is one file, so any external reference is refused.  The walk follows the few protobuf
fields (onnx.proto3) that can lead to a tensor and skips all others; weights are not touched.
"""

from __future__ import annotations

from collections.abc import Iterator

from groundup.errors import BundleError

# message -> {field number: message that it holds}
_CHILDREN: dict[str, dict[int, str]] = {
    "Model": {7: "Graph", 20: "Training", 25: "Function"},
    "Training": {1: "Graph", 2: "Graph"},
    "Function": {7: "Node", 11: "Attribute"},
    "Graph": {1: "Node", 5: "Tensor", 15: "SparseTensor"},
    "Node": {5: "Attribute"},
    "Attribute": {5: "Tensor", 6: "Graph", 10: "Tensor", 11: "Graph", 22: "SparseTensor", 23: "SparseTensor"},
    "SparseTensor": {1: "Tensor", 2: "Tensor"},
    "Tensor": {},
}
_NAME, _EXTERNAL_DATA, _DATA_LOCATION = 8, 13, 14
_MAX_DEPTH = 100  # messages within messages; protobuf's own limit


def refuse_external_data(data: bytes, label: str = "model.onnx") -> None:
    """Return if every tensor's values are inside ``data``.

    Raises:
        BundleError: a tensor refers to another file, or the bytes are not an ONNX model.
    """
    try:
        _visit(memoryview(data), "Model", label, 0)
    except (IndexError, ValueError) as e:
        if isinstance(e, BundleError):
            raise
        raise BundleError(f"{label}: not an ONNX model ({e}); the bundle is damaged, copy it again") from e


def _visit(message: memoryview, kind: str, label: str, depth: int) -> None:
    if depth > _MAX_DEPTH:
        raise ValueError(f"messages nested more than {_MAX_DEPTH} deep")
    children = _CHILDREN[kind]
    name = b""
    external = False
    for number, value in _fields(message):
        if kind == "Tensor":
            if number == _NAME and isinstance(value, memoryview):
                name = bytes(value[:80])
            external |= number == _EXTERNAL_DATA or (number == _DATA_LOCATION and value != 0)
        elif number in children:
            if not isinstance(value, memoryview):
                raise ValueError(f"field {number} of {kind} is not a message")
            _visit(value, children[number], label, depth + 1)
    if external:
        raise BundleError(
            f"{label}: tensor {name.decode(errors='replace')!r} keeps its values in another file; external data is refused, "
            "save the model as one file"
        )


def _fields(message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """(field number, varint or bytes) of one protobuf message, in order."""
    at, end = 0, len(message)
    while at < end:
        key, at = _varint(message, at)
        number, wire = key >> 3, key & 7
        if wire == 0:
            value, at = _varint(message, at)
            yield number, value
            continue
        if wire == 2:
            size, at = _varint(message, at)
        elif wire in (1, 5):
            size = 8 if wire == 1 else 4
        else:
            raise ValueError(f"wire type {wire}")
        if at + size > end:
            raise ValueError("a field runs past the end")
        yield number, message[at : at + size]
        at += size


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
        if shift > 63:
            raise ValueError("a number of more than 64 bits")

"""fp32: the graph as it was exported.  The reference that every other scheme is measured against."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from groundup.compression.schemes import Options

if TYPE_CHECKING:
    import onnx

SUMMARY = "32-bit floating point, as exported"
FILE = "model.onnx"


def compress(core: onnx.ModelProto, features: NDArray[Any], options: Options) -> onnx.ModelProto:
    """The core itself."""
    return core

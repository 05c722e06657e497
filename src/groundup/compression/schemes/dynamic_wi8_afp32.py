"""dynamic_wi8_afp32: weights of matrix products in 8 bits, activations measured and rounded anew in every call.

Needs no calibration, and pays where weights are large and batches small.  Convolutions are left alone: measuring the
range of a whole feature map in every call costs more than the integer product saves.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from groundup.compression.schemes import NotApplicable, Options, expect_products, products
from groundup.compression.schemes._onnxruntime import fold, through_files

if TYPE_CHECKING:
    import onnx

SUMMARY = "weights of matrix products int8, activations rounded in every call (ONNX Runtime)"
FILE = "model_quantized.onnx"


def compress(core: onnx.ModelProto, features: NDArray[Any], options: Options) -> onnx.ModelProto:
    """The core with integer matrix products; :class:`NotApplicable` where it has none with constant weights."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    expect_products(core)
    folded = fold(core)
    constants = {initializer.name for initializer in folded.graph.initializer}
    if not any(node.op_type in {"Gemm", "MatMul"} and node.input[1] in constants for node in folded.graph.node):
        kinds = ", ".join(sorted(set(products(core))))
        raise NotApplicable(f"no matrix product with constant weights (only {kinds})")

    def quantize(source: Path, target: Path) -> None:
        quantize_dynamic(
            source,
            target,
            op_types_to_quantize=["MatMul"],  # Gemm is rewritten to MatMul and Add first
            per_channel=options.per_channel,
            reduce_range=options.reduce_range,
            weight_type=QuantType.QInt8,
        )

    return through_files(folded, quantize)

"""static_wi8_ai8: weights and activations in 8 bits, ranges of activations measured beforehand on training features.

The QDQ form: QuantizeLinear and DequantizeLinear stand around each operator, and ONNX Runtime fuses them into integer
kernels.  Activations are unsigned and weights signed, the pair for which x86 has instructions.  ``scores`` stay in
floating point: eight bits of logits would coarsen every probability and gain nothing, nothing follows them.

    q = clip(round(x / s) + z, 0, 255)      s, z from the range [min, max] that calibration saw
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from groundup.compression.schemes import Options, expect_products
from groundup.compression.schemes._onnxruntime import fold, through_files

if TYPE_CHECKING:
    import onnx

SUMMARY = "weights and activations int8, ranges measured on training rows (ONNX Runtime, QDQ)"

OPERATORS = ("Add", "AveragePool", "Clip", "Concat", "Conv", "ConvTranspose", "Flatten", "Gemm", "GlobalAveragePool", "MatMul",
             "MaxPool", "Mul", "Relu", "Reshape", "Squeeze", "Transpose", "Unsqueeze")  # fmt: skip
_BATCH = 32


def compress(core: onnx.ModelProto, features: NDArray[Any], options: Options) -> onnx.ModelProto:
    """The core in int8; :class:`NotApplicable` without matrix products."""
    from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantFormat, QuantType, quantize_static

    expect_products(core)
    method = {
        "minmax": CalibrationMethod.MinMax,
        "entropy": CalibrationMethod.Entropy,
        "percentile": CalibrationMethod.Percentile,
    }[options.calibration]

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.batches = _batches(core.graph.input[0].name, features)

        def get_next(self) -> dict[str, NDArray[Any]] | None:
            return next(self.batches, None)

    def quantize(source: Path, target: Path) -> None:
        quantize_static(
            source,
            target,
            Reader(),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=list(OPERATORS),
            per_channel=options.per_channel,
            reduce_range=options.reduce_range,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=method,
        )

    return _float_scores(through_files(fold(core), quantize))


def _batches(name: str, features: NDArray[Any]) -> Iterator[dict[str, NDArray[Any]]]:
    for start in range(0, len(features), _BATCH):
        yield {name: np.ascontiguousarray(features[start : start + _BATCH], np.float32)}


def _float_scores(model: onnx.ModelProto) -> onnx.ModelProto:
    """Take away the rounding that stands last, before ``scores``, where there is one."""
    graph = model.graph
    scores = graph.output[0].name
    makers = {output: node for node in graph.node for output in node.output}
    dequantize = makers[scores]
    quantize = makers.get(dequantize.input[0]) if dequantize.op_type == "DequantizeLinear" else None
    if quantize is None or quantize.op_type != "QuantizeLinear":
        return model
    exact = quantize.input[0]
    if sum(exact in node.input for node in graph.node) > 1 or sum(quantize.output[0] in node.input for node in graph.node) > 1:
        return model
    producer = makers[exact]
    producer.output[list(producer.output).index(exact)] = scores
    graph.node.remove(dequantize)
    graph.node.remove(quantize)
    return model

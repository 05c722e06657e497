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
FILE = "model_quantized.onnx"

OPERATORS = ("Add", "AveragePool", "Clip", "Concat", "Conv", "ConvTranspose", "Flatten", "Gemm", "GlobalAveragePool", "MatMul",
             "MaxPool", "Mul", "Relu", "Reshape", "Squeeze", "Transpose", "Unsqueeze")  # fmt: skip
_BATCH = 32
_SETTINGS: dict[str, dict[str, Any]] = {
    "minmax": {},
    # ONNX Runtime's own default, 128 bins, leaves entropy a single threshold to choose from: that of minmax.
    "entropy": {"num_bins": 512, "num_quantized_bins": 128, "symmetric": False},
    "percentile": {"num_bins": 2048, "percentile": 99.99, "symmetric": False},
}


def compress(core: onnx.ModelProto, features: NDArray[Any], options: Options) -> onnx.ModelProto:
    """The core in int8; :class:`NotApplicable` without matrix products."""
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.calibrate import save_tensors_data

    expect_products(core)

    def quantize(source: Path, target: Path) -> None:
        ranges = source.with_name("ranges.json")
        save_tensors_data(_calibrate(source, core.graph.input[0].name, features, options), ranges)
        quantize_static(
            source,
            target,
            calibration_cache_path=ranges,
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=list(OPERATORS),
            per_channel=options.per_channel,
            reduce_range=options.reduce_range,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=_method(options),
        )

    return _float_scores(through_files(fold(core), quantize))


def _calibrate(source: Path, name: str, features: NDArray[Any], options: Options) -> Any:
    """The range of every activation over the features."""
    from onnxruntime.quantization import CalibrationDataReader, create_calibrator

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.batches = _batches(name, features)

        def get_next(self) -> dict[str, NDArray[Any]] | None:
            return next(self.batches, None)

    calibrator = create_calibrator(
        source,
        list(OPERATORS),
        augmented_model_path=str(source.with_name("augmented.onnx")),
        calibrate_method=_method(options),
        extra_options=_SETTINGS[options.calibration],
    )
    calibrator.collect_data(Reader())
    return calibrator.compute_data()


def _method(options: Options) -> Any:
    from onnxruntime.quantization import CalibrationMethod

    return {
        "minmax": CalibrationMethod.MinMax,
        "entropy": CalibrationMethod.Entropy,
        "percentile": CalibrationMethod.Percentile,
    }[options.calibration]


def _batches(name: str, features: NDArray[Any]) -> Iterator[dict[str, NDArray[Any]]]:
    """Batches of equal size, which histograms need; up to 31 rows at the end are left out where there are more than 32."""
    size = min(_BATCH, len(features))
    for start in range(0, len(features) - size + 1, size):
        yield {name: np.ascontiguousarray(features[start : start + size], np.float32)}


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

"""What the ONNX Runtime schemes share: folding before quantizing, its file-based interface, its names.

Its own ``quant_pre_process`` does the same folding, but logs to the terminal and needs a symbolic algebra package.
"""

from __future__ import annotations

import contextlib
import io
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx


def fold(core: onnx.ModelProto) -> onnx.ModelProto:
    """The core after ONNX Runtime's basic optimizations: batch normalization folded into convolutions, constants computed.

    Quantizing an unfolded batch normalization costs two roundings where one is enough, and accuracy with it.
    """
    import onnx
    import onnxruntime
    from onnxruntime.quantization.quant_utils import add_pre_process_metadata

    with tempfile.TemporaryDirectory(prefix="groundup-") as folder:
        target = Path(folder, "folded.onnx")
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
        options.optimized_model_filepath = str(target)
        options.log_severity_level = 3
        onnxruntime.InferenceSession(core.SerializeToString(), options, providers=["CPUExecutionProvider"])
        folded = onnx.load(target)
    del folded.graph.value_info[:]  # inferred again when quantizing; a shape kept here would contradict a transposed weight
    add_pre_process_metadata(folded)  # else ONNX Runtime advises, for every model, to do what was just done
    return folded


def through_files(core: onnx.ModelProto, quantize: Callable[[Path, Path], None]) -> onnx.ModelProto:
    """Run ``quantize(source, target)``, an interface made of files that prints as it goes, on a model in memory."""
    import onnx

    with tempfile.TemporaryDirectory(prefix="groundup-") as folder:
        source, target = Path(folder, "core.onnx"), Path(folder, "quantized.onnx")
        onnx.save(core, source)
        with contextlib.redirect_stdout(io.StringIO()):
            quantize(source, target)
        return onnx.load(target)

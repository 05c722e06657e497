"""Running an ONNX graph the way that measurements need: one thread, quiet, in batches of bounded memory."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import onnx
    import onnxruntime

BATCH = 256


def refusals() -> tuple[type[Exception], ...]:
    """What ONNX, ONNX Runtime and its quantizer raise over a graph that they cannot handle; they share no base but Exception."""
    import onnx
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    runtime = tuple(
        getattr(state, name)
        for name in ("Fail", "InvalidArgument", "InvalidGraph", "InvalidProtobuf", "NotImplemented", "RuntimeException")
    )
    checks = (onnx.checker.ValidationError, onnx.shape_inference.InferenceError)
    return (*runtime, *checks, ValueError, RuntimeError, TypeError, LookupError, AttributeError, AssertionError, NotImplementedError)


def session(model: onnx.ModelProto | bytes, threads: int = 1) -> onnxruntime.InferenceSession:
    """An ONNX Runtime session on the CPU with ``threads`` threads inside an operator and none between operators."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3  # errors only: what is reported is measured, not logged
    data = model if isinstance(model, bytes) else model.SerializeToString(deterministic=True)
    return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])


def answers(running: onnxruntime.InferenceSession, inputs: Mapping[str, NDArray[Any]], batch: int = BATCH) -> dict[str, NDArray[Any]]:
    """All outputs for all rows, ``batch`` rows at a time.

    Args:
        inputs: input name -> (N, ...) array in the tensor convention of :mod:`groundup.bundle.signature`.

    Returns:
        Output name -> (N, ...) array.
    """
    names = [o.name for o in running.get_outputs()]
    n = len(next(iter(inputs.values())))
    parts = [running.run(names, rows(inputs, slice(start, start + batch))) for start in range(0, max(n, 1), batch)]
    return {name: np.concatenate([part[i] for part in parts]) for i, name in enumerate(names)}


def rows(inputs: Mapping[str, NDArray[Any]], which: slice | NDArray[Any]) -> dict[str, NDArray[Any]]:
    """The chosen rows of every input, contiguous in memory."""
    return {name: np.ascontiguousarray(values[which]) for name, values in inputs.items()}

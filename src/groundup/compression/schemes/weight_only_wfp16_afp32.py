"""weight_only_wfp16_afp32: weights stored in 16-bit floating point, arithmetic in 32.

Half the bytes to ship, and the same speed: the runtime widens the weights once, when it loads the graph.  Rounding to
11 significant bits is far below what training leaves undetermined, so this is the small form that costs nothing where
int8 does not pay.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from groundup.compression.schemes import NotApplicable, Options
from groundup.compression.schemes._onnxruntime import fold

if TYPE_CHECKING:
    import onnx

SUMMARY = "weights stored in 16-bit floating point, arithmetic in 32"
FILE = "model_fp16.onnx"
_LEAST = 64
"""Smaller tensors would gain less than their Cast costs in bytes."""


def compress(core: onnx.ModelProto, features: NDArray[Any], options: Options) -> onnx.ModelProto:
    """The core with a Cast after each large weight; :class:`NotApplicable` where there is none that float16 can hold."""
    from onnx import TensorProto, helper, numpy_helper

    model = fold(core)  # a batch normalization is folded only while the weights beside it are constants
    casts = []
    for tensor in model.graph.initializer:
        if tensor.data_type != TensorProto.FLOAT or np.prod(tensor.dims) < _LEAST:
            continue
        values = numpy_helper.to_array(tensor)
        if np.abs(values).max() > np.finfo(np.float16).max:
            continue
        name = tensor.name
        tensor.CopyFrom(numpy_helper.from_array(values.astype(np.float16), f"{name}.fp16"))
        casts.append(helper.make_node("Cast", [f"{name}.fp16"], [name], name=f"{name}.widen", to=TensorProto.FLOAT))
    if not casts:
        raise NotApplicable("it holds no weights in 32-bit floating point that are large enough to gain from 16")
    nodes = list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend([*casts, *nodes])
    return model

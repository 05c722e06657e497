"""A network to its core ONNX graph: ``features`` (N, *feature_shape) float32 -> ``scores`` (N, n_outputs) float32."""

from __future__ import annotations

import contextlib
import copy
import io
import logging
import math
import warnings
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import torch
from torch import nn

from groundup.errors import ModelError

if TYPE_CHECKING:
    import onnx

OPSET = 20


def export_network(module: nn.Module, feature_shape: Sequence[int]) -> onnx.ModelProto:
    """Export a network in evaluation mode, checked by ``onnx.checker`` and tried at two batch sizes; the module itself is left as it was.

    Args:
        feature_shape: of one example, without the batch axis.

    Raises:
        ModelError: the forward pass cannot be traced (control flow that depends on values), uses an operation without
            an ONNX counterpart, fixes the batch size, or does not give one tensor (N, n_outputs).
    """
    import onnx

    network = copy.deepcopy(module).cpu().float().eval()
    name = type(module).__name__
    example = torch.zeros(3, *feature_shape)  # 3: unlike 0 and 1, a size that the tracer does not specialize on
    with torch.no_grad():
        shape = tuple(network(example).shape)
    if len(shape) != 2 or shape[0] != 3:
        raise ModelError(f"{name}: forward gave shape {shape} for 3 examples, expected (3, n_outputs)")
    try:
        with _quiet():
            program = torch.onnx.export(
                network,
                (example,),
                dynamo=True,
                opset_version=OPSET,
                input_names=["features"],
                output_names=["scores"],
                dynamic_shapes=({0: torch.export.Dim("N", min=1)},),
                optimize=True,
                verbose=False,
            )
    except (torch.onnx.errors.OnnxExporterError, torch._dynamo.exc.TorchDynamoException, RuntimeError) as e:
        raise ModelError(f"{name} cannot be exported to ONNX: {_reason(e)}") from e
    assert program is not None
    model: onnx.ModelProto = program.model_proto
    model.ir_version = min(model.ir_version, 10)
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "N"
    onnx.checker.check_model(model, full_check=True)
    _try(model, network, feature_shape, name)
    return model


def _try(model: onnx.ModelProto, network: nn.Module, feature_shape: Sequence[int], name: str) -> None:
    """Run the graph at other batch sizes than it was traced with: the exporter does not notice a number that was written into it."""
    import onnxruntime

    advice = "use x.shape[0], x.flatten(1) or -1 instead of a number of examples"
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # what fails is raised; it need not be printed, too
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    for n in (1, 5):
        x = torch.rand(n, *feature_shape, generator=torch.Generator().manual_seed(n))
        try:
            with torch.no_grad():
                expected = network(x)
            (scores,) = session.run(None, {"features": x.numpy()})
        except Exception as e:  # a user's forward, and ONNX Runtime, whose errors have no common base
            raise ModelError(f"{name} cannot be exported to ONNX: it fixes the batch size, and fails for {n} examples; {advice}") from e
        same_shape = scores.shape == tuple(expected.shape)
        gap = float((torch.from_numpy(scores) - expected).abs().max()) if same_shape else math.inf
        if not gap <= 1e-3 * max(1.0, float(expected.abs().max())):
            wrong = f"for {n} examples the graph's scores are {gap:.2g} away from its own"
            raise ModelError(f"{name} cannot be exported to ONNX: {wrong}; {advice}")


def _reason(error: BaseException) -> str:
    """What went wrong and what to change, from the exporter's chain of errors."""
    chain: list[BaseException] = []
    e: BaseException | None = error
    while e is not None and e not in chain:
        chain.append(e)
        e = e.__cause__ or e.__context__
    text = " ".join(str(c) for c in chain)
    last = next((line for c in reversed(chain) for line in str(c).splitlines() if line.strip()), type(error).__name__)
    if "data-dependent" in text or "GuardOnDataDependent" in text or "Dynamic control flow" in text:
        return f"its forward pass decides on values ({last}); replace `if`, `while` and `.item()` on tensors by torch.where or masks"
    if "No ONNX function found" in text or "DispatchError" in text:
        return f"an operation has no ONNX counterpart ({last}); write it with operations that have one"
    if "Constraints violated" in text or "specialized" in text:
        return f"it fixes the batch size ({last}); use x.shape[0], x.flatten(1) or -1 instead of a number of examples"
    return last


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """No banners, progress lines or notices about optional libraries; what fails still raises."""
    loggers = [logging.getLogger(n) for n in ("torch.onnx", "torch.export", "torch._dynamo", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        for logger in loggers:
            logger.setLevel(logging.CRITICAL)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)

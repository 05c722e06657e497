"""The compression schemes, one a file, discovered: adding a file adds a scheme to the recipe, the tests and the docs.

A scheme file holds ``SUMMARY``, one sentence for people; ``FILE``, the graph's name in a bundle, the one that the Hub's tools
look for; and one function:

    def compress(core: onnx.ModelProto, features: NDArray[float32], options: Options) -> onnx.ModelProto

which takes the core graph (``features`` -> ``scores``) and training features to calibrate on, and gives another core graph
with the same input and output.  It raises :class:`NotApplicable` with the reason where it has nothing to work on; that
is an outcome, reported beside the measured ones.  Names follow AI Edge: static_wi8_ai8 is weights int8, activations int8.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from numpy.typing import NDArray

if TYPE_CHECKING:
    import onnx

PRODUCTS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
"""The operators whose cost int8 arithmetic lowers."""


class NotApplicable(Exception):  # noqa: N818 - an outcome, not a mistake
    """The scheme has nothing to work on in this graph; the message is the reason."""


@dataclass(frozen=True)
class Options:
    """What schemes may be told.

    Attributes:
        per_channel: one scale an output channel instead of one a tensor.
        reduce_range: weights in 7 bits, so that sums of u8 × s8 products cannot saturate on CPUs without VNNI.
        calibration: how ranges of activations are found: "minmax", "entropy" or "percentile".
    """

    per_channel: bool = True
    reduce_range: bool = False
    calibration: Literal["minmax", "entropy", "percentile"] = "minmax"


@dataclass(frozen=True)
class Scheme:
    """A discovered scheme."""

    name: str
    summary: str
    file: str
    compress: Callable[[onnx.ModelProto, NDArray[Any], Options], onnx.ModelProto]


def names() -> tuple[str, ...]:
    """Names of all schemes, without importing them; "fp32", the reference, first."""
    found = sorted(module.name for module in pkgutil.iter_modules(__path__) if not module.name.startswith("_"))
    return tuple(sorted(found, key=lambda name: name != "fp32"))


def scheme(name: str) -> Scheme:
    """The scheme of that name."""
    module = importlib.import_module(f"{__name__}.{name}")
    return Scheme(name=name, summary=module.SUMMARY, file=module.FILE, compress=module.compress)


def products(core: onnx.ModelProto) -> list[str]:
    """The operator types in the graph that are matrix products or convolutions, one entry a node."""
    return [node.op_type for node in core.graph.node if node.op_type in PRODUCTS and node.domain in {"", "ai.onnx"}]


def products_int8(core: onnx.ModelProto) -> int:
    """How many matrix products and convolutions take int8 weights: the check that what was asked for was done."""
    makers = {output: node for node in core.graph.node for output in node.output}
    integer: int = sum(node.op_type in {"MatMulInteger", "ConvInteger"} for node in core.graph.node)
    around = (makers.get(node.input[1]) for node in core.graph.node if node.op_type in PRODUCTS)
    return integer + sum(int(maker is not None and maker.op_type == "DequantizeLinear") for maker in around)


def expect_products(core: onnx.ModelProto) -> None:
    """Raise :class:`NotApplicable` where integer arithmetic has nothing to speed up."""
    if products(core):
        return
    if any(node.domain == "ai.onnx.ml" and node.op_type.startswith("TreeEnsemble") for node in core.graph.node):
        raise NotApplicable("trees hold no matrix product")
    kinds = ", ".join(sorted({node.op_type for node in core.graph.node}))
    raise NotApplicable(f"the core holds no matrix product or convolution (it is made of {kinds})")

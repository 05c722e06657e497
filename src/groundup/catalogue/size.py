"""How large a model is, before anything is allocated: parameters, multiplications, memory, from the meta device."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from groundup.errors import ModelError

if TYPE_CHECKING:
    from groundup.catalogue.resolve import Resolved


_RUN_UP_TO = 256 * 2**20
"""Bytes of weights up to which two examples are pushed through for real, and not on the meta device alone."""


@dataclass(frozen=True)
class Size:
    """Counts of one model for one shape of features; None for an estimator, whose size the data decides.

    Attributes:
        parameters: trainable numbers.
        weights: bytes of parameters and buffers.
        macs: multiplications with addition, of the matrix products and convolutions, for one example.
        activations: bytes that the operations of one forward pass write, for one example: an upper bound of what the
            backward pass keeps.
    """

    parameters: int | None = None
    weights: int | None = None
    macs: int | None = None
    activations: int | None = None

    def training_bytes(self, batch: int, states: int = 2) -> int | None:
        """Memory of one training step: weights, gradients, ``states`` numbers a parameter for the optimizer (AdamW: 2), activations."""
        if self.parameters is None or self.weights is None or self.activations is None:
            return None
        return self.weights + (1 + states) * 4 * self.parameters + batch * self.activations


def measure(resolved: Resolved, feature_shape: Sequence[int], n_outputs: int) -> Size:
    """See :meth:`Resolved.check`."""
    if resolved.kind == "estimator":
        _check_estimator(resolved, feature_shape, n_outputs)
        return Size()
    import torch

    network = resolved.build(feature_shape, n_outputs, seed=0, device="meta")
    weights = sum(t.numel() * t.element_size() for t in [*network.parameters(), *network.buffers()])
    device = "meta"
    if weights <= _RUN_UP_TO:  # running it for real is quick then, and tries what shapes alone cannot
        device, network = "cpu", resolved.build(feature_shape, n_outputs, seed=0)
    two = torch.zeros(2, *feature_shape, device=device)
    count = counter()
    try:
        with torch.random.fork_rng(devices=[]), torch.no_grad(), torch.device(device), count:
            scores = network.train()(two)
    except Exception as e:  # a user's forward may fail in any way
        raise ModelError(
            f"{resolved.name}: forward failed on features of shape (N, {', '.join(map(str, feature_shape))}): {type(e).__name__}: {e}"
        ) from e
    if not isinstance(scores, torch.Tensor) or tuple(scores.shape) != (2, n_outputs):
        got = tuple(scores.shape) if isinstance(scores, torch.Tensor) else type(scores).__name__
        raise ModelError(
            f"{resolved.name}: forward gave {got} for 2 examples, expected a tensor of shape (2, {n_outputs}): one row an example,"
            f" {'one score a class (logits)' if n_outputs > 1 else 'one value'}; a constructor parameter n_outputs is told the number"
        )
    parameters = list(network.parameters())
    if not any(p.requires_grad for p in parameters):
        raise ModelError(
            f"{resolved.name}: it has no trainable parameter; make its weights torch.nn.Parameter or torch.nn.Module attributes"
        )
    return Size(
        parameters=sum(p.numel() for p in parameters if p.requires_grad),
        weights=weights,
        macs=count.flops // 2 // 2,  # two examples, two operations a MAC
        activations=math.ceil(count.bytes / 2),
    )


def counter() -> Any:
    """A dispatch mode that adds up floating-point operations, by PyTorch's own formulas, and the bytes that operations write."""
    from torch import Tensor
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils._pytree import tree_leaves
    from torch.utils.flop_counter import flop_registry

    class Counter(TorchDispatchMode):  # type: ignore[no-untyped-call]
        flops, bytes = 0, 0

        @classmethod
        def _should_skip_dynamo(cls) -> bool:
            return False  # else PyTorch imports its compiler (2 seconds) to keep it away from here

        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            out = func(*args, **(kwargs or {}))
            if func.overloadpacket in flop_registry:
                self.flops += flop_registry[func.overloadpacket](*args, **(kwargs or {}), out_val=out)
            if not func.is_view:
                self.bytes += sum(t.numel() * t.element_size() for t in tree_leaves(out) if isinstance(t, Tensor))
            return out

    return Counter()  # type: ignore[no-untyped-call]


def _check_estimator(resolved: Resolved, feature_shape: Sequence[int], n_outputs: int) -> None:
    from groundup.estimators.export import supports

    estimator = resolved.build(feature_shape, n_outputs, seed=0)
    if hasattr(estimator, "_parameter_constraints"):  # scikit-learn checks ranges when it fits; ask it now
        try:
            estimator._validate_params()
        except (ValueError, TypeError) as e:
            raise ModelError(f"{resolved.name}: {e}") from e
    is_regressor = getattr(estimator, "_estimator_type", None) == "regressor" or _is_regressor(estimator)
    if is_regressor and n_outputs > 1:
        raise ModelError(f"{resolved.name} is a regressor, and the task is a classification with {n_outputs} classes; choose a classifier")
    if n_outputs == 1 and not is_regressor:
        raise ModelError(f"{resolved.name} is no regressor, and the task is a regression; choose a regressor")
    if reason := supports(estimator):
        raise ModelError(f"{resolved.name}: {reason}")


def _is_regressor(estimator: Any) -> bool:
    from sklearn.base import is_regressor

    return bool(is_regressor(estimator))

"""Every intermediate value of one example, in the order in which it was computed: name, shape, mean, standard deviation.

Two things are listened to: every module, what goes in and what comes out, and every value that the network shows a
:class:`groundup.nn.trace.Trace`, attention weights for example, which no module answers.  A tensor is listed once, where it
first appears; so an input is a step only where something between two modules made it (a sum, an activation).

What is unusual: attention has to compute its weights to show them, one step after another instead of fused, so the last
bits of what follows are not those of an ordinary call.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from groundup.inside.running import evaluating
from groundup.nn.trace import Trace
from groundup.reporting.format import number
from groundup.reporting.fragments import framed
from groundup.reporting.html import table

_HEAD = ("step", "name", "where", "shape", "mean", "std")


class Step(NamedTuple):
    """One value.

    Attributes:
        name: path of the module that answered it, with ``.input`` for what goes into one, or its name in the trace.
        where: "into" a module, "in" one, or the module itself.
        shape: of the tensor.
        mean, std: over all of its numbers, the deviation divided by n; NaN where it has none (the meta device).
    """

    name: str
    where: str
    shape: tuple[int, ...]
    mean: float
    std: float


class Steps(Sequence[Step]):
    """What :func:`trace_steps` saw; prints and shows itself as a table.

    Attributes:
        steps: in order.
        values: copies of the tensors by name.
    """

    def __init__(self, steps: Sequence[Step], values: Mapping[str, Tensor]) -> None:
        self.steps, self.values = tuple(steps), dict(values)

    def __getitem__(self, index: Any) -> Any:
        return self.steps[index]

    def __len__(self) -> int:
        return len(self.steps)

    def __str__(self) -> str:
        rows = [_HEAD, *self._rows()]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        right = {0, 4, 5}
        return "\n".join(
            "  ".join(f"{cell:>{w}}" if i in right else f"{cell:{w}}" for i, (cell, w) in enumerate(zip(row, widths, strict=True))).rstrip()
            for row in rows
        )

    def _repr_html_(self) -> str:
        return framed(table(_HEAD, self._rows(), numeric=(0, 4, 5), caption="every intermediate value of one example"))

    def _rows(self) -> Iterator[tuple[str, ...]]:
        for i, s in enumerate(self.steps):
            yield str(i), s.name, s.where, " × ".join(map(str, s.shape)) or "one number", number(s.mean), number(s.std)


def trace_steps(network: nn.Module, *inputs: Any, **arguments: Any) -> Steps:
    """Every intermediate value of one call ``network(*inputs, **arguments)``.

    Args:
        network: any module; it evaluates meanwhile, and is left as it was.
        inputs, arguments: what its forward takes; ``trace`` is given where it takes one.

    Returns:
        The steps, the input first and the answer last.
    """
    seen = _Recorder()
    handles = []
    for path, module in network.named_modules():
        handles.append(module.register_forward_pre_hook(seen.entering(path), with_kwargs=True))
        handles.append(module.register_forward_hook(seen.leaving(path), with_kwargs=True))
    if "trace" in inspect.signature(network.forward).parameters:
        arguments = {"trace": Trace(values=seen)} | arguments
    try:
        with evaluating(network):
            network(*inputs, **arguments)
    finally:
        for handle in handles:
            handle.remove()
    return Steps(seen.steps, seen)


class _Recorder(dict[str, Tensor]):
    """Copies of tensors by name; a trace writes into it as into any dictionary, and modules report through its hooks."""

    def __init__(self) -> None:
        super().__init__()
        self.steps: list[Step] = []
        self._inside: list[str] = []  # classes of the modules that are computing, outermost first
        self._known: dict[tuple[int, int], Tensor] = {}  # kept, so that no other tensor gets the same identity

    def __setitem__(self, name: str, value: Tensor) -> None:
        self._see(name, f"in {self._inside[-1]}", value)

    def entering(self, path: str) -> Any:
        """The hook before a module computes."""

        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            self._inside.append(type(module).__name__)
            name = f"{path}.input" if path else "input"
            given = list(_tensors(args, ""))
            for ending, tensor in given:
                self._see(name if len(given) == 1 else name + ending, f"into {self._inside[-1]}", tensor)
            for ending, tensor in _tensors({k: v for k, v in kwargs.items() if k != "trace"}, ""):
                self._see(name + ending, f"into {self._inside[-1]}", tensor)

        return hook

    def leaving(self, path: str) -> Any:
        """The hook after it did."""

        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], answer: Any) -> None:
            for ending, tensor in _tensors(answer, ""):
                self._see((path or "answer") + ending, self._inside[-1], tensor)
            self._inside.pop()

        return hook

    def _see(self, name: str, where: str, value: Tensor) -> None:
        identity = (id(value), 0 if value.is_inference() else value._version)  # changed in place, it is another value
        if identity in self._known:
            return
        self._known[identity] = value
        again = 1 + sum(s.name == name or s.name.startswith(f"{name} (") for s in self.steps)
        name = name if again == 1 else f"{name} ({again})"
        super().__setitem__(name, value.detach().clone())
        self.steps.append(Step(name, where, tuple(value.shape), *_moments(value)))


def _tensors(value: Any, ending: str) -> Iterator[tuple[str, Tensor]]:
    """The tensors in an argument or answer, each with the path to it."""
    if isinstance(value, Tensor):
        yield ending, value
    elif isinstance(value, Mapping):
        for key, part in value.items():
            yield from _tensors(part, f"{ending}.{key}")
    elif isinstance(value, tuple | list):
        names = getattr(value, "_fields", range(len(value)))
        for key, part in zip(names, value, strict=True):
            yield from _tensors(part, f"{ending}.{key}")


def _moments(value: Tensor) -> tuple[float, float]:
    if value.is_meta or value.is_complex() or value.numel() == 0:
        return math.nan, math.nan
    wide = value if value.dtype == torch.float64 else value.float()
    return wide.mean().item(), wide.std(correction=0).item()

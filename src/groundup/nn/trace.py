"""What a network shows of its inside while it computes: every named intermediate value, in the order in which it arose."""

from __future__ import annotations

from torch import Tensor


class Trace:
    """Collects the values that a forward pass shows.

    A forward takes ``trace=Trace()`` and calls :meth:`see`; without one nothing is kept and attention runs fused.

    Attributes:
        values: name -> tensor; names are paths such as ``block.3.attention``.
    """

    def __init__(self, prefix: str = "", values: dict[str, Tensor] | None = None) -> None:
        self.prefix = prefix
        self.values: dict[str, Tensor] = {} if values is None else values

    def see(self, name: str, value: Tensor) -> None:
        """Keep one value; it stays part of the graph that gradients flow through."""
        self.values[self.prefix + name] = value

    def within(self, name: str) -> Trace:
        """The same trace, with ``name.`` before what is seen through it."""
        return Trace(f"{self.prefix}{name}.", self.values)

    def find(self, suffix: str) -> list[Tensor]:
        """The values whose name is, or ends with, the given one, in order."""
        return [v for k, v in self.values.items() if k == suffix or k.endswith("." + suffix)]

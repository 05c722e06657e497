"""A proof: one measured comparison with a stated tolerance.  The tolerance is part of the claim."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from groundup.bundle import shown

LINKS = {
    1: "equation to module",
    2: "module to trained weights",
    3: "weights to ONNX",
    4: "ONNX to its compressed form",
    5: "graph to HTTP response",
    6: "response to live traffic",
}


@dataclass(frozen=True)
class Proof:
    """One link's claim, what it was held against, and what was measured.

    Attributes:
        link: number of the link in the chain, 1 to 6 (see ``LINKS``).
        claim: a sentence that can be false: "cnn: outputs equal torch.nn's with the same weights".
        reference: what it was compared with and its version: "torch 2.13.0".
        quantity: what ``measured`` is: "largest relative difference", "share of equal labels".
        measured: the number found here.
        tolerance: the bound.  ``measured <= tolerance`` passes, or ``>=`` where ``at_least``.
        at_least: True where more is better.
        samples: how many values were compared.
    """

    link: int
    claim: str
    reference: str
    quantity: str
    measured: float
    tolerance: float
    at_least: bool = False
    samples: int = 0

    def __post_init__(self) -> None:
        if self.link not in LINKS:
            raise ValueError(f"link is one of {sorted(LINKS)}, got {self.link}")

    @property
    def passed(self) -> bool:
        """Whether the measurement keeps the bound; NaN never does."""
        if math.isnan(self.measured):
            return False
        return self.measured >= self.tolerance if self.at_least else self.measured <= self.tolerance

    def to_dict(self) -> dict[str, Any]:
        """JSON form, with ``passed`` written out for readers."""
        return asdict(self) | {"passed": self.passed}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Proof:
        """Inverse of :meth:`to_dict`; a written ``passed`` is ignored and computed again."""
        return cls(**{k: v for k, v in data.items() if k != "passed"})

    def __str__(self) -> str:
        return f"[{self._verdict()}] {self.claim} (against {self.reference}): {self.quantity} {self._measured()}"

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        rows = {"link": f"{self.link}, {LINKS[self.link]}", "against": self.reference, self.quantity: self._measured()}
        return shown.facts(f"{self._verdict()}: {self.claim}", rows | ({"values compared": f"{self.samples:,}"} if self.samples else {}))

    def _verdict(self) -> str:
        return "passed" if self.passed else "FAILED"

    def _measured(self) -> str:
        return f"{self.measured:.3g} {'>=' if self.at_least else '<='} {self.tolerance:.3g}"

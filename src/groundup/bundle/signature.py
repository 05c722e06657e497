"""What a model takes and gives: the names, kinds and shapes that cross the border from training to serving.

Tensor convention, the same in every graph, server dialect and test.  ``N`` is the batch axis, always first.

| kind       | NumPy array     | missing          | JSON value            |
|------------|-----------------|------------------|-----------------------|
| number     | float64 (N,)    | NaN              | number or null        |
| integer    | float64 (N,)    | NaN              | whole number or null  |
| boolean    | float64 (N,)    | NaN              | true, false or null   |
| category   | object str (N,) | ""               | string or null        |
| datetime   | int64 (N,)      | -2**63 (NaT)     | ISO 8601 string or null; the tensor holds microseconds since 1970-01-01 UTC |
| image      | uint8 (N,H,W,C) | not allowed      | nested lists          |
| tensor     | float32 (N,...) | not allowed      | nested lists          |

Outputs: classification gives ``label`` (category, (N,)) and ``probabilities`` (tensor, (N, n_classes), in the order
of ``label``'s categories); regression gives ``prediction`` (number, float32 (N,)).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np

Kind = Literal["number", "integer", "boolean", "category", "datetime", "image", "tensor"]
KINDS: dict[str, str] = {  # kind -> NumPy dtype of its tensor
    "number": "float64",
    "integer": "float64",
    "boolean": "float64",
    "category": "object",
    "datetime": "int64",
    "image": "uint8",
    "tensor": "float32",
}
MISSING_DATETIME = np.iinfo(np.int64).min


@dataclass(frozen=True)
class Field:
    """One named input or output.

    Attributes:
        shape: without the batch axis: () for a table's column, (8, 8, 1) for an 8 × 8 grey image.
        nullable: whether a missing value is allowed.
        categories: values seen in training, for kind "category"; others are answered as unseen.
        minimum, maximum: range seen in training (numbers, dates as microseconds).
    """

    name: str
    kind: Kind
    shape: tuple[int, ...] = ()
    nullable: bool = False
    categories: tuple[str, ...] | None = None
    minimum: float | None = None
    maximum: float | None = None
    description: str = ""

    @property
    def dtype(self) -> np.dtype[Any]:
        """NumPy dtype of this field's tensor; a regression output (``prediction``) is float32 in the graph."""
        return np.dtype(KINDS[self.kind])

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Field:
        """Inverse of ``dataclasses.asdict``."""
        data = dict(data)
        data["shape"] = tuple(data.get("shape", ()))
        if data.get("categories") is not None:
            data["categories"] = tuple(data["categories"])
        return cls(**data)


@dataclass(frozen=True)
class Signature:
    """Everything that a caller of the model must know."""

    inputs: tuple[Field, ...]
    outputs: tuple[Field, ...] = field(default=())

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Signature:
        return cls(
            inputs=tuple(Field.from_dict(f) for f in data["inputs"]),
            outputs=tuple(Field.from_dict(f) for f in data["outputs"]),
        )

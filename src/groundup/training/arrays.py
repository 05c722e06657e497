"""What a training sees: features and targets by split, as arrays, and the scale that targets are learned in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from groundup.errors import DataError

IN_MEMORY = 2 << 30
"""Bytes of features up to which they are read into memory; beyond, the file is mapped and the system caches what is used."""


class Splits(Protocol):
    """What is asked of prepared data (``lifecycle.prepare.Prepared`` is this)."""

    @property
    def task(self) -> Any: ...
    @property
    def classes(self) -> list[str] | None: ...
    @property
    def n_outputs(self) -> int: ...
    def features(self, split: str) -> Any: ...
    def targets(self, split: str) -> Any: ...


@dataclass(frozen=True)
class Arrays:
    """Training and validation data.

    Attributes:
        task: as in the recipe.
        X, X_val: float32 (N, *feature_shape).
        y, y_val: int64 class index (N,), or float64 target (N,) in its own unit.
        n_outputs: number of classes, or 1.
        scale, shift: prediction = score · scale + shift; the standard deviation and mean of ``y`` for regression, else 1 and 0.
    """

    task: str
    X: NDArray[np.float32]
    y: NDArray[Any]
    X_val: NDArray[np.float32]
    y_val: NDArray[Any]
    n_outputs: int
    scale: float = 1.0
    shift: float = 0.0

    @classmethod
    def of(cls, prepared: Splits) -> Arrays:
        """The arrays of prepared data.

        Raises:
            DataError: no training rows, or a feature or target that is not finite.
        """
        X, y = in_memory(prepared.features("train")), np.asarray(prepared.targets("train"))
        if len(y) == 0:
            raise DataError("the training split has no rows; expected at least one: check data.split and the quarantine")
        for name, values in (("features", X), ("targets", y)):
            if not all(np.isfinite(values[i : i + 65536]).all() for i in range(0, len(values), 65536)):
                raise DataError(f"the training split's {name} hold NaN or infinity; prepare should have filled or quarantined them")
        regression = str(prepared.task).endswith("regression")
        spread = float(y.std()) if regression else 1.0
        return cls(
            task=str(prepared.task),
            X=X,
            y=y,
            X_val=in_memory(prepared.features("validation")),
            y_val=np.asarray(prepared.targets("validation")),
            n_outputs=prepared.n_outputs,
            scale=spread if spread > 0 else 1.0,
            shift=float(y.mean()) if regression else 0.0,
        )

    @property
    def regression(self) -> bool:
        return self.task.endswith("regression")

    @property
    def feature_shape(self) -> tuple[int, ...]:
        return tuple(self.X.shape[1:])

    def targets(self) -> Tensor:
        """What the loss compares with: class indices int64 (N,), or standardized targets float32 (N,)."""
        if self.regression:
            return torch.from_numpy(((self.y - self.shift) / self.scale).astype(np.float32))
        return torch.from_numpy(self.y.astype(np.int64))

    def answers(self, scores: Tensor) -> NDArray[Any]:
        """What metrics take: probabilities (N, K), or values (N,) in the target's unit, from scores (N, n_outputs)."""
        return answers_of(scores, self.regression, self.scale, self.shift)


def answers_of(scores: Tensor, regression: bool, scale: float, shift: float) -> NDArray[Any]:
    """Softmax of logits (N, K), or score · scale + shift (N,), in float32 as the served graph computes it."""
    if regression:
        return (scores[:, 0].float() * scale + shift).numpy()
    return scores.float().softmax(1).numpy()


def in_memory(features: Any) -> NDArray[np.float32]:
    """``features`` as a writable array: a copy in memory up to ``IN_MEMORY``, beyond it a private mapping of the same file."""
    if features.nbytes <= IN_MEMORY:
        return np.array(features, dtype=np.float32, order="C")
    if isinstance(features, np.memmap) and features.dtype == np.float32:
        mapped: NDArray[np.float32] = np.memmap(str(features.filename), np.float32, "c", features.offset, features.shape)
        return mapped
    return np.ascontiguousarray(features, dtype=np.float32)

"""From the tensors of a request to the columns that are profiled: one-dimensional, numbers or categories.

| kind              | columns                                                                                      |
|-------------------|----------------------------------------------------------------------------------------------|
| number, integer, boolean | itself                                                                                |
| category          | itself                                                                                       |
| datetime          | itself (described, not compared: time always moves on), ``.missing`` (0 or 1)                |
| image             | ``.mean`` ``.std`` ``.ink`` ``.edges`` ``.row`` ``.column``, all in [0, 1]                   |
| tensor, up to 32 values | one column per value, ``x[3]``                                                         |
| tensor, larger    | ``.mean`` ``.std`` ``.low`` ``.high``                                                        |
| probabilities     | ``.top``, the probability of the answer given                                                |

An image is compared through what changes when cameras, scanners and users change: brightness, contrast, the share of
pixels above half, the mean step between neighbours (blur lowers it, noise raises it), and the centre of mass.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from groundup.bundle.signature import MISSING_DATETIME, Field

Array = NDArray[Any]
MAX_SINGLE = 32  # a tensor of at most this many values is watched value by value


@dataclass(frozen=True)
class Column:
    """One profiled column.

    Attributes:
        field: name of the input or output that it comes from.
        kind: "number" or "category".
        compared: whether drift is looked for in it.
    """

    name: str
    field: str
    kind: Literal["number", "category"]
    compared: bool = True


def columns_of(fields: Sequence[Field]) -> list[Column]:
    """The columns that ``fields`` give, in the order of :func:`derive`."""
    out: list[Column] = []
    for field in fields:
        suffixes = _suffixes(field)
        if field.kind == "category":
            out.append(Column(field.name, field.name, "category"))
        elif field.kind == "datetime":
            out.append(Column(field.name, field.name, "number", compared=False))
            out += [Column(field.name + s, field.name, "number") for s in suffixes]
        else:
            out += [Column(field.name + s, field.name, "number") for s in suffixes]
    return out


def derive(fields: Sequence[Field], arrays: dict[str, Array]) -> dict[str, Array]:
    """Columns of one batch, by name: float64 (N,) with NaN for missing, or object str (N,) with "" for missing.

    Args:
        arrays: tensors in the convention of ``groundup.bundle.signature``; fields that are absent give no columns.

    Raises:
        ValueError: a tensor has another shape than its field, or cannot be read as numbers.
    """
    out: dict[str, Array] = {}
    for field in fields:
        if field.name not in arrays:
            continue
        x = np.asarray(arrays[field.name])
        if x.shape[1:] != field.shape:
            raise ValueError(f"expected {field.name} of shape (N, {', '.join(map(str, field.shape))}), got {x.shape}")
        if field.kind == "category":
            out[field.name] = x
        elif field.kind == "datetime":
            out |= _datetime(field.name, x)
        elif field.kind in ("image", "tensor"):
            values = _summaries(field, x)
            out |= {field.name + s: values[i] for i, s in enumerate(_suffixes(field))}
        else:
            out[field.name] = x.astype(np.float64, copy=False)
    return out


def _suffixes(field: Field) -> list[str]:
    if field.kind == "datetime":
        return [".missing"]
    if field.kind == "image":
        return [".mean", ".std", ".ink", ".edges", ".row", ".column"]
    if field.kind == "tensor":
        if field.name == "probabilities":
            return [".top"]
        size = int(np.prod(field.shape))
        return [f"[{i}]" for i in range(size)] if size <= MAX_SINGLE else [".mean", ".std", ".low", ".high"]
    return [""]


def _datetime(name: str, t: Array) -> dict[str, Array]:
    """Hour and weekday are not compared either: a window of live rows rarely holds whole days, let alone weeks."""
    missing = t == MISSING_DATETIME
    return {name: np.where(missing, np.nan, t), name + ".missing": missing.astype(np.float64)}


def _summaries(field: Field, x: Array) -> Array:
    """float64 (columns, N) in the order of :func:`_suffixes`."""
    N = len(x)
    if field.kind == "image":
        return _image(x)
    flat = x.reshape(N, -1).astype(np.float64)
    if field.name == "probabilities":
        return flat.max(axis=1, initial=-np.inf)[None] if flat.shape[1] else np.full((1, N), np.nan)
    if flat.shape[1] <= MAX_SINGLE:
        return flat.T
    with np.errstate(invalid="ignore", over="ignore"):  # a tensor may hold NaN or infinity: so will its summaries
        return np.stack([flat.mean(axis=1), flat.std(axis=1), flat.min(axis=1), flat.max(axis=1)])


def _image(x: Array) -> Array:
    """Six summaries in [0, 1] of uint8 images (N, H, W, C): float64 (6, N)."""
    grey = x.mean(axis=-1, dtype=np.float32) * np.float32(1 / 255)  # (N, H, W)
    N, H, W = grey.shape
    flat = grey.reshape(N, -1)
    rows, columns = grey.sum(axis=2), grey.sum(axis=1)  # (N, H), (N, W)
    mass = rows.sum(axis=1)
    edges = np.zeros(N, np.float32)
    if H > 1:
        edges += np.abs(np.diff(grey, axis=1)).mean(axis=(1, 2)) / 2
    if W > 1:
        edges += np.abs(np.diff(grey, axis=2)).mean(axis=(1, 2)) / 2
    with np.errstate(invalid="ignore", divide="ignore"):  # a black image has no centre: NaN, counted as missing
        row = rows @ ((np.arange(H, dtype=np.float32) + 0.5) / H) / mass
        column = columns @ ((np.arange(W, dtype=np.float32) + 0.5) / W) / mass
    return np.stack([flat.mean(axis=1), flat.std(axis=1), (flat > 0.5).mean(axis=1), edges, row, column]).astype(np.float64)

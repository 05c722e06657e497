"""From Arrow columns to the tensors that a graph takes (convention: :mod:`groundup.bundle.signature`)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from groundup.bundle.signature import MISSING_DATETIME


def tensor(column: Any, kind: str) -> NDArray[Any]:
    """One table column, a pyarrow Array or ChunkedArray (N,), as the array of ``kind``; missing values as the convention says."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
    if isinstance(column, pa.ChunkedArray):  # combine_chunks keeps two chunks where one would overflow
        return np.concatenate([tensor(chunk, kind) for chunk in column.chunks])
    if kind == "category":
        return np.asarray(pc.fill_null(column, "").to_numpy(zero_copy_only=False), dtype=object)
    if kind == "datetime":
        micros = column.cast(pa.timestamp("us")).cast(pa.int64())
        return np.asarray(pc.fill_null(micros, MISSING_DATETIME).to_numpy(zero_copy_only=False), dtype=np.int64)
    numbers = (
        column.cast(pa.float64(), safe=False)
        if pa.types.is_integer(column.type) or pa.types.is_floating(column.type)
        else column.cast(pa.int8()).cast(pa.float64())
    )
    return np.asarray(numbers.to_numpy(zero_copy_only=False), dtype=np.float64)  # Arrow writes null as NaN

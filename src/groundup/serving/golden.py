"""``golden.npz``: inputs and answers that every server runs again at its start, before it says that it is ready.

Arrays named ``inputs/<name>`` and ``outputs/<name>``, and ``tolerance`` (one float64).  Strings are kept as NumPy's
fixed-width unicode, so the file is read without unpickling anything.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from groundup.errors import BundleError

FILE = "golden.npz"
Arrays = dict[str, np.ndarray[Any, np.dtype[Any]]]


@dataclass(frozen=True)
class Golden:
    """Known inputs with the answers that the graph gave where the bundle was made.

    Attributes:
        inputs, outputs: in the tensor convention of ``groundup.bundle.signature``.
        tolerance: largest accepted absolute difference of a floating-point answer, relative to max(1, |answer|).
    """

    inputs: Arrays
    outputs: Arrays
    tolerance: float = 1e-4


def write_golden(inputs: Mapping[str, Any], outputs: Mapping[str, Any], *, tolerance: float = 1e-4) -> bytes:
    """The bytes of a ``golden.npz``; object arrays of str are stored as fixed-width unicode."""
    arrays: Arrays = {"tolerance": np.asarray(tolerance, np.float64)}
    for group, named in (("inputs", inputs), ("outputs", outputs)):
        for name, values in named.items():
            array = np.asarray(values)
            arrays[f"{group}/{name}"] = array.astype(np.str_) if array.dtype == object else array
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]
    return buffer.getvalue()


def read_golden(data: bytes) -> Golden:
    """Inverse of :func:`write_golden`; strings become object arrays again.

    Raises:
        BundleError: not such a file, or one that would have to be unpickled.
    """
    inputs: Arrays = {}
    outputs: Arrays = {}
    tolerance = 1e-4
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as archive:
            for key in archive.files:
                group, _, name = key.partition("/")
                array = archive[key]
                if key == "tolerance":
                    tolerance = float(array)
                elif group in {"inputs", "outputs"} and name:
                    (inputs if group == "inputs" else outputs)[name] = array.astype(object) if array.dtype.kind == "U" else array
                else:
                    raise BundleError(f"{FILE}: unexpected array {key!r}; expected inputs/<name>, outputs/<name> and tolerance")
    except (ValueError, TypeError, EOFError, zipfile.BadZipFile) as e:
        if isinstance(e, BundleError):
            raise
        raise BundleError(f"{FILE} cannot be read without unpickling or is damaged ({type(e).__name__}); write it with write_golden") from e
    if not inputs or not outputs:
        raise BundleError(f"{FILE} holds no inputs or no outputs; write it with write_golden")
    return Golden(inputs, outputs, tolerance)

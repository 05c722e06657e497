"""prepare: from a source to validated, split, transformed arrays, a transform graph and a profile.

The work is done in :mod:`groundup.data`; here stand the stage's output and how others read it.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from groundup.bundle.proof import Proof
from groundup.bundle.signature import Field as SignatureField
from groundup.data.settings import SPLITS, Data, Image, Split, Task
from groundup.errors import DataError
from groundup.lifecycle.stage import Context, Output

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["SPLITS", "Data", "Image", "Prepared", "Split", "Task", "prepare"]


class Prepared(Output):
    """Arrays by split, all rows aligned.

    Files: ``<split>/features.npy`` (float32 (N, *feature_shape), what the model sees), ``<split>/targets.npy`` (int64 class
    index, or float64), ``<split>/rows.npy`` (int64 row in the source), ``<split>/records.parquet`` (tables) or
    ``<split>/inputs.npy`` (uint8 (N,H,W,C) images, or float32 tensors), ``transform.onnx`` (raw inputs -> ``features``),
    ``profile.json``, ``quarantine.parquet``.
    """

    task: Task
    inputs: list[dict[str, Any]]
    """``dataclasses.asdict`` of each input :class:`~groundup.bundle.signature.Field`, in order."""
    target: str
    classes: list[str] | None = None
    """Class names in the order of the target's indices; None for regression."""
    feature_shape: list[int]
    feature_names: list[str] | None = None
    sizes: dict[str, int]
    """Split -> number of rows."""
    quarantined: int = 0
    data_hash: str
    notes: list[str] = Field(default=[])
    proofs: list[Proof] = Field(default=[])

    @property
    def n_outputs(self) -> int:
        """Number of classes, or 1 for regression."""
        return len(self.classes) if self.classes is not None else 1

    def signature_inputs(self) -> list[SignatureField]:
        """The inputs of the model, in the order of the graph."""
        return [SignatureField.from_dict(f) for f in self.inputs]

    def features(self, split: str) -> NDArray[np.float32]:
        """What the model sees: float32 (N, *feature_shape), a read-only memory map."""
        return self._array(split, "features")

    def targets(self, split: str) -> NDArray[Any]:
        """(N,): int64 class index, or float64 value."""
        return self._array(split, "targets")

    def rows(self, split: str) -> NDArray[np.int64]:
        """(N,): where each row stands in the source, counted from 0 (a CSV's header is not counted)."""
        return self._array(split, "rows")

    def raw(self, split: str) -> dict[str, NDArray[Any]]:
        """Input name -> array as the graph takes it, in the tensor convention of :mod:`groundup.bundle.signature`."""
        fields = self.signature_inputs()
        if fields[0].kind in ("image", "tensor"):
            return {fields[0].name: self._array(split, "inputs")}
        import pyarrow.parquet as pq

        from groundup.data.columns import tensor

        table = pq.read_table(self._file(split, "records.parquet"), columns=[f.name for f in fields])
        return {f.name: tensor(table.column(f.name), f.kind) for f in fields}

    def frame(self, split: str) -> pd.DataFrame:
        """The rows as a table: every column that was read, the target as in the source; for images and tensors the target alone."""
        import pandas as pd

        path = self._file(split, "records.parquet")
        if path.exists():
            return pd.read_parquet(path)
        y = self.targets(split)
        values = y if self.classes is None else np.array(self.classes, dtype=object)[y]
        return pd.DataFrame({self.target: values})

    def _array(self, split: str, name: str) -> NDArray[Any]:
        array: NDArray[Any] = np.load(self._file(split, f"{name}.npy"), mmap_mode="r", allow_pickle=False)
        return array

    def _file(self, split: str, name: str) -> Path:
        if split not in SPLITS:
            raise DataError(f"no split {split!r}; there are {', '.join(SPLITS)}")
        return self.path / split / name


def prepare(
    section: Data, *, task: Task, out: Path, context: Context, clean: Callable[[pd.DataFrame], pd.DataFrame] | None = None
) -> Prepared:
    """Prepare the data that ``section`` names into the empty folder ``out``.

    Args:
        clean: applied to tables in pieces of at most 100,000 rows, before the schema is inferred or enforced; keeps the index.

    Raises:
        DataError: the data cannot be used as asked; the message says what to change.
        SchemaError: the data does not fit the schema file, or the file is wrong.
    """
    from groundup.data import fingerprint_of
    from groundup.data.arrays import prepare_arrays
    from groundup.data.job import Job
    from groundup.data.sources import find
    from groundup.data.sources.base import ArraySource, TableSource
    from groundup.data.table import prepare_table

    source = find(section, context.root)
    source.progress = context.progress
    job = Job(section, task, context.root, context.work, out, context.seed, context.progress, context.check)
    if isinstance(source, TableSource):
        if task == "image-classification":
            raise DataError(f"{source.where} is a table, and the task is {task}; use tabular-classification")
        facts = prepare_table(job, source, clean)
    else:
        assert isinstance(source, ArraySource)
        if clean is not None:
            raise DataError(f"a clean function works on tables, and {source.where} holds arrays")
        facts = prepare_arrays(job, source)
    proof = facts.pop("proof")
    return Prepared(task=task, data_hash=fingerprint_of(source, section, context.root), notes=job.notes, proofs=[proof], **facts).at(out)

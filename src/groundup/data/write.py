"""Fitting the transform and writing a divided table's files: columns one at a time, then pieces of at most 100,000 rows."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from groundup.bundle.signature import MISSING_DATETIME, Field
from groundup.data import leaks, reading, splits
from groundup.data.columns import tensor
from groundup.data.divide import Plan
from groundup.data.job import Job
from groundup.data.settings import SPLITS
from groundup.data.transforms import TableTransform, fit_table
from groundup.errors import DataError
from groundup.monitoring.profile import Profile


def fit(job: Job, plan: Plan) -> TableTransform:
    import pyarrow.compute as pc

    training = plan.split == splits.TRAIN
    described: dict[str, Field] = {}
    with job.progress.task("fit", len(plan.fields), "columns") as task:

        def column(f: Field) -> Any:
            job.check()
            values = reading.column(plan.spill.path, f.name)
            task.advance()
            if f.kind == "category":
                counted = pc.value_counts(values.filter(training).drop_null())
                counts = {str(c["values"]): int(c["counts"]) for c in counted.to_pylist() if c["values"] != ""}
                described[f.name] = Field(**{**asdict(f), "categories": tuple(sorted(counts))})
                return counts
            x = tensor(values, f.kind)[training]
            known = x[x != MISSING_DATETIME] if f.kind == "datetime" else x[np.isfinite(x)]
            limits = (float(known.min()), float(known.max())) if len(known) else (None, None)
            described[f.name] = Field(**{**asdict(f), "minimum": limits[0], "maximum": limits[1]})
            return x

        transform = fit_table(plan.fields, column)
    plan.fields = [described[f.name] for f in plan.fields]
    transform.fields = plan.fields
    if not transform.feature_names:
        raise DataError("no column is left to predict from: every category is rare or missing in training")
    return transform


def look_for_giveaways(job: Job, plan: Plan) -> None:
    if job.section.leaks == "ignore":
        return
    training = np.flatnonzero(plan.split == splits.TRAIN)
    sample = np.sort(np.random.default_rng(job.seed).permutation(training)[:20_000])

    def column(name: str) -> NDArray[np.float64]:
        f = next(f for f in plan.fields if f.name == name)
        values = reading.column(plan.spill.path, name).take(sample)
        if f.kind == "category":
            codes = values.combine_chunks().dictionary_encode().indices
            return tensor(codes, "number")
        x = tensor(values, f.kind)
        return np.where(x == MISSING_DATETIME, np.nan, x).astype(np.float64) if f.kind == "datetime" else x

    job.complain(leaks.giveaways([f.name for f in plan.fields], column, plan.y[sample], classification=job.classification, seed=job.seed))


def write(job: Job, plan: Plan, transform: TableTransform) -> Profile:
    """The last pass: features, targets, rows and records of each split; returns the profile of the training rows."""
    import pyarrow as pa

    profile = Profile.start(plan.fields)
    with ExitStack() as stack:
        files = [stack.enter_context(_Files(job.out / name, plan, i, len(transform.feature_names))) for i, name in enumerate(SPLITS)]
        start = 0
        task = stack.enter_context(job.progress.task("transform", plan.spill.n_rows, "rows"))
        for piece in reading.pieces(plan.spill.path, list(plan.spill.kinds)):
            job.check()
            n = piece.num_rows
            columns = {
                f.name: _coded(piece.column(f.name)) if f.kind == "category" else tensor(piece.column(f.name), f.kind) for f in plan.fields
            }
            X = transform(columns)
            for i, file in enumerate(files):
                mask = plan.split[start : start + n] == i
                file.add(X[mask], piece.filter(pa.array(mask)))
            training = plan.split[start : start + n] == splits.TRAIN
            profile.update({name: _plain(x, training) for name, x in columns.items()})
            start += n
            task.advance(n)
    return profile


class _Files:
    """The growing files of one split: plain appends, which cost less than writing through a memory map."""

    def __init__(self, folder: Path, plan: Plan, which: int, n_features: int) -> None:
        self.folder, self.plan, self.mask, self.n_features = folder, plan, plan.split == which, n_features

    def __enter__(self) -> Self:
        import pyarrow as pa
        import pyarrow.parquet as pq

        self.folder.mkdir()
        np.save(self.folder / "targets.npy", self.plan.y[self.mask])
        np.save(self.folder / "rows.npy", self.plan.rows[self.mask])
        self._features = open(self.folder / "features.npy", "wb")
        shape = (int(self.mask.sum()), self.n_features)
        np.lib.format.write_array_header_2_0(self._features, {"descr": "<f4", "fortran_order": False, "shape": shape})
        schema = pq.read_schema(self.plan.spill.path)
        kept = pa.schema([schema.field(name) for name in self.plan.spill.kinds])
        self._records = pq.ParquetWriter(self.folder / "records.parquet", kept, compression="none", use_dictionary=_texts(self.plan))
        return self

    def add(self, X: NDArray[np.float32], records: Any) -> None:
        X.astype("<f4", copy=False).tofile(self._features)
        if records.num_rows:
            self._records.write_table(records)

    def __exit__(self, *_: object) -> None:
        self._features.close()
        self._records.close()


def _plain(x: Any, mask: NDArray[np.bool_]) -> NDArray[Any]:
    """The masked rows of a column in the tensor convention."""
    if not isinstance(x, tuple):
        return np.asarray(x[mask])
    codes, texts = x
    return np.asarray(np.append(np.asarray(texts, dtype=object), "")[codes[mask]])


def _texts(plan: Plan) -> list[str]:
    return [n for n, k in plan.spill.kinds.items() if k in ("category", "text")]


def _coded(values: Any) -> tuple[NDArray[np.int64], NDArray[Any]]:
    """A text column as (codes, texts): code len(texts) for missing."""
    import pyarrow.compute as pc

    encoded = values.combine_chunks().dictionary_encode()
    texts = encoded.dictionary.to_numpy(zero_copy_only=False)
    return np.asarray(pc.fill_null(encoded.indices, len(texts)).to_numpy(zero_copy_only=False), np.int64), texts

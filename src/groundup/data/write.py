"""Fitting the transform and writing a divided table's files: columns one at a time, then pieces of at most 98,304 rows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

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


def write(job: Job, plan: Plan, transform: TableTransform) -> None:
    """The last pass: features, targets, rows and records of each split, and the profile of the training rows."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    n_features = len(transform.feature_names)
    files: dict[int, Any] = {}
    features: dict[int, Any] = {}
    at = dict.fromkeys(range(3), 0)
    names = [name for name in plan.spill.kinds]
    try:
        with job.progress.task("transform", plan.spill.n_rows, "rows") as task:
            for start, piece in _started(plan.spill.path, names):
                job.check()
                of_piece = plan.split[start : start + piece.num_rows]
                X = transform(
                    {
                        f.name: _coded(piece.column(f.name)) if f.kind == "category" else tensor(piece.column(f.name), f.kind)
                        for f in transform.fields
                    }
                )
                for i, name in enumerate(SPLITS):
                    if i not in files:
                        (job.out / name).mkdir(exist_ok=True)
                        count = int((plan.split == i).sum())
                        features[i] = np.lib.format.open_memmap(job.out / name / "features.npy", "w+", np.float32, (count, n_features))
                        files[i] = pq.ParquetWriter(
                            job.out / name / "records.parquet", piece.schema, compression="none", use_dictionary=_texts(plan)
                        )
                    mask = of_piece == i
                    k = int(mask.sum())
                    if k:
                        features[i][at[i] : at[i] + k] = X[mask]
                        files[i].write_table(piece.filter(pa.array(mask)))
                        at[i] += k
                task.advance(piece.num_rows)
    finally:
        for file in files.values():
            file.close()
    for i, name in enumerate(SPLITS):
        features[i].flush()
        mask = plan.split == i
        np.save(job.out / name / "targets.npy", plan.y[mask])
        np.save(job.out / name / "rows.npy", plan.rows[mask])


def _texts(plan: Plan) -> list[str]:
    return [n for n, k in plan.spill.kinds.items() if k in ("category", "text")]


def _started(path: Path, names: list[str]) -> Iterator[tuple[int, Any]]:
    start = 0
    for piece in reading.pieces(path, names):
        yield start, piece
        start += piece.num_rows


def _coded(values: Any) -> tuple[NDArray[np.int64], NDArray[Any]]:
    """A text column as (codes, texts): code len(texts) for missing."""
    import pyarrow.compute as pc

    encoded = values.combine_chunks().dictionary_encode()
    texts = encoded.dictionary.to_numpy(zero_copy_only=False)
    return np.asarray(pc.fill_null(encoded.indices, len(texts)).to_numpy(zero_copy_only=False), np.int64), texts

"""From images or tensors to prepared files: divide, look for repeated pixels, fit, transform, write."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from groundup.bundle.signature import Field
from groundup.data import leaks, splits
from groundup.data.enforce import quarantine, too_many
from groundup.data.finish import finish
from groundup.data.infer import ordered
from groundup.data.job import Job
from groundup.data.settings import SPLITS
from groundup.data.sources.base import Arrays, ArraySource
from groundup.data.transforms import fit_arrays
from groundup.errors import DataError
from groundup.monitoring.profile import Profile

_PIECE = 1024


def prepare_arrays(job: Job, source: ArraySource) -> dict[str, Any]:
    """Prepare ``source`` into ``job.out``; returns the facts of the stage's output."""
    section = job.section
    for key in ("features", "drop", "group", "time", "schema_", "table", "query"):
        if getattr(section, key):
            raise DataError(f"data.{key.rstrip('_')} is about columns, and {source.where} holds arrays; remove it")
    with job.progress.task("read", None, "samples") as task:
        data = source.load(job.work, section.limit)
        task.advance(len(data.x))
    for note in data.notes:
        job.note(note)
    if (data.kind == "image") != (job.task == "image-classification"):
        raise DataError(f"{data.where} holds {data.kind}s, which the task {job.task} does not take")
    too_many(data.bad, len(data.bad), len(data.x) + len(data.bad), section.max_bad_rows, data.where)
    if data.bad:
        job.note(f"{len(data.bad)} of {len(data.x) + len(data.bad)} samples put aside, see quarantine.parquet")
    rows = data.rows if data.rows is not None else np.arange(len(data.x))
    y, classes = _targets(data, job.classification)
    split = _divide(job, data, y, rows)
    field = Field(
        data.kind,
        data.kind,
        shape=tuple(data.x.shape[1:]),
        minimum=0 if data.kind == "image" else None,
        maximum=255 if data.kind == "image" else None,
    )
    transform = fit_arrays(field, data.x, np.flatnonzero(split == splits.TRAIN))
    profile = Profile.start([field])
    with job.progress.task("transform", len(data.x), "samples") as task:
        for i, name in enumerate(SPLITS):
            folder = job.out / name
            folder.mkdir()
            chosen = np.flatnonzero(split == i)
            np.save(folder / "targets.npy", y[chosen])
            np.save(folder / "rows.npy", rows[chosen])
            inputs = np.lib.format.open_memmap(folder / "inputs.npy", "w+", data.x.dtype, (len(chosen), *field.shape))
            features = np.lib.format.open_memmap(folder / "features.npy", "w+", np.float32, (len(chosen), *transform.feature_shape))
            for start in range(0, len(chosen), _PIECE):
                job.check()
                piece = data.x[chosen[start : start + _PIECE]]
                inputs[start : start + _PIECE] = piece
                features[start : start + _PIECE] = transform({field.name: piece})
                if i == splits.TRAIN:
                    profile.update({field.name: piece})
                task.advance(len(piece))
            inputs.flush()
            features.flush()
    facts = finish(job, [field], transform, profile, {name: int((split == i).sum()) for i, name in enumerate(SPLITS)})
    quarantine(job.out / "quarantine.parquet", data.bad)
    return facts | {"target": section.target or data.target or "label", "classes": classes, "quarantined": len(data.bad)}


def _targets(data: Arrays, classification: bool) -> tuple[NDArray[Any], list[str] | None]:
    if not classification:
        y = np.asarray(data.y, np.float64)
        if not np.isfinite(y).all():
            raise DataError(f"the targets of {data.where} hold NaN or infinity; a regression needs a number for every sample")
        return y, None
    classes = ordered(sorted(set(data.y.tolist())))
    if len(classes) < 2:
        raise DataError(
            f"{data.where} has {'only the class ' + repr(classes[0]) if classes else 'no class'}; a classification needs at least two"
        )
    index = {name: i for i, name in enumerate(classes)}
    return np.array([index[name] for name in data.y.tolist()], np.int64), classes


def _divide(job: Job, data: Arrays, y: NDArray[Any], rows: NDArray[np.int64]) -> NDArray[np.int8]:
    section = job.section.split
    if section.method == "stratified" and not job.classification:
        raise DataError("split method 'stratified' keeps class shares, and a regression has no classes; use random")
    if job.classification and section.method in ("auto", "stratified"):
        split = splits.stratified(y, section.validation, section.test, job.seed)
    else:
        split = splits.random(len(y), section.validation, section.test, job.seed)
    if job.section.leaks == "ignore":
        return split
    hashes = np.array([int.from_bytes(hashlib.blake2b(x.tobytes(), digest_size=8).digest()) for x in data.x], np.uint64)
    split, notes, complaints = leaks.settle_repeated(split, hashes, rows, y, movable=True, by_chance=False)
    for note in notes:
        job.note(note)
    job.complain(complaints)
    return split

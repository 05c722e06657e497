"""The last steps that tables and arrays share: the transform graph, its proof, the profile, the facts."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np

from groundup.bundle.files import write_bytes, write_json
from groundup.bundle.proof import Proof
from groundup.bundle.signature import Field
from groundup.data.columns import tensor
from groundup.data.graph import array_graph, table_graph
from groundup.data.job import Job
from groundup.data.transforms import ArrayTransform, TableTransform
from groundup.monitoring.profile import Profile

PIECE = 16_384
_PROVEN = 20_000  # rows of the test split that the proof compares


def finish(
    job: Job, fields: list[Field], transform: TableTransform | ArrayTransform, profile: Profile, sizes: dict[str, int]
) -> dict[str, Any]:
    """Write ``transform.onnx`` and ``profile.json``; prove the graph on the test split; return what the output records."""
    graph = table_graph(transform) if isinstance(transform, TableTransform) else array_graph(transform)
    content = graph.SerializeToString()
    write_bytes(job.out / "transform.onnx", content)
    proof = prove(job, fields, content)
    profile.freeze()
    write_json(job.out / "profile.json", {"inputs": profile.to_dict()})
    shape = [len(transform.feature_names)] if isinstance(transform, TableTransform) else list(transform.feature_shape)
    return {
        "inputs": [asdict(f) for f in fields],
        "feature_shape": shape,
        "feature_names": transform.feature_names,
        "sizes": sizes,
        "proof": proof,
    }


def batches(job: Job, fields: list[Field], split: str) -> Any:
    """The raw inputs of a split, piece by piece, in the tensor convention."""
    folder = job.out / split
    if (folder / "inputs.npy").exists():
        x = np.load(folder / "inputs.npy", mmap_mode="r")
        for start in range(0, len(x), PIECE):
            yield {fields[0].name: x[start : start + PIECE]}
        return
    import pyarrow.parquet as pq

    with pq.ParquetFile(folder / "records.parquet") as file:
        for batch in file.iter_batches(98_304, columns=[f.name for f in fields]):
            yield {f.name: tensor(batch.column(f.name), f.kind) for f in fields}


def prove(job: Job, fields: list[Field], graph: bytes) -> Proof:
    """Link 3 for the transform: the graph's features are scikit-learn's, to the last bit, on the test split."""
    import onnxruntime as ort
    import sklearn

    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    features = np.load(job.out / "test" / "features.npy", mmap_mode="r")
    worst, done = 0, 0
    for arrays in batches(job, fields, "test"):
        n = min(len(next(iter(arrays.values()))), _PROVEN - done)
        got = session.run(None, {name: x[:n] for name, x in arrays.items()})[0]
        worst = max(worst, ulps(got, features[done : done + n]))
        done += n
        if done >= _PROVEN:
            break
    return Proof(
        link=3,
        claim="the transform graph gives the features that scikit-learn's transformers give",
        reference=f"scikit-learn {sklearn.__version__}",
        quantity="largest distance in units of the last place of float32",
        measured=float(worst),
        tolerance=1.0,
        samples=done * int(np.prod(features.shape[1:])),
    )


def ulps(a: Any, b: Any) -> int:
    """Largest number of float32 steps between two arrays; equal infinities and two NaNs are no distance."""
    both_nan = np.isnan(a) & np.isnan(b)

    def ordered(x: Any) -> Any:
        bits = np.ascontiguousarray(x, np.float32).view(np.int32).astype(np.int64)
        return np.where(bits < 0, -(bits & 0x7FFFFFFF), bits)

    distance = np.where(both_nan, 0, np.abs(ordered(a) - ordered(b)))
    return int(distance.max(initial=0))

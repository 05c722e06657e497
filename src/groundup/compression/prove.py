"""Links 3 and 4 of the proof chain: the graph answers as the model, and what compressing was said to keep and to gain."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from groundup.bundle import Proof
from groundup.compression.graph import answers, session
from groundup.compression.verdict import SMALLER, Candidate, Wanted

if TYPE_CHECKING:
    import onnx

TOLERANCE = 1e-5
"""Largest difference of a probability, or of a prediction relative to the largest prediction."""


def export(
    name: str,
    model: onnx.ModelProto,
    start: str,
    inputs: Mapping[str, NDArray[Any]],
    expected: NDArray[Any],
    *,
    classes: Sequence[str] | None,
    reference: str,
) -> list[Proof]:
    """Link 3: a complete graph gives the answers of the model that it was exported from.

    Args:
        name: of the model, for the claim.
        start: what the graph is given, for the claim: "raw records, preprocessing included".
        expected: the model's probabilities (N, n_classes), or predictions (N,).
        reference: what gave them, with its version.
    """
    given = answers(session(model), inputs)
    common: dict[str, Any] = {"link": 3, "reference": reference, "samples": len(expected)}
    if classes is None:
        scale = max(float(np.abs(expected).max(initial=0.0)), float(np.finfo(np.float32).tiny))
        gap = np.abs(given["prediction"].astype(np.float64) - expected) / scale
        claim, quantity = (
            f"{name}: the ONNX graph predicts as the model, from {start}",
            "largest difference, relative to the largest prediction",
        )
        return [Proof(claim=claim, quantity=quantity, measured=worst(gap), tolerance=TOLERANCE, **common)]
    gap = np.abs(given["probabilities"].astype(np.float64) - expected)
    claim = f"{name}: the ONNX graph gives the model's probabilities, from {start}"
    probabilities = Proof(claim=claim, quantity="largest absolute difference", measured=worst(gap), tolerance=TOLERANCE, **common)
    best = np.sort(expected, axis=1)
    tied = best[:, -1] - best[:, -2] <= 2 * TOLERANCE if len(classes) > 1 else np.zeros(len(expected), bool)
    equal = np.asarray(given["label"], str) == np.asarray(classes, str)[expected.argmax(1)]
    claim = f"{name}: the ONNX graph gives the model's labels, from {start} (ties within the tolerance aside)"
    share = float(np.mean(equal | tied))
    return [probabilities, Proof(claim=claim, quantity="share of equal labels", measured=share, tolerance=1.0, at_least=True, **common)]


def compressed(chosen: Candidate, fp32: Candidate, wanted: Wanted, rows: Mapping[str, int], processor: str) -> list[Proof]:
    """Link 4 for a candidate that is served in fp32's place: its metrics held, and it is smaller or faster as was asked.

    Args:
        rows: split -> number of rows that its metrics were taken on.
        processor: where latency was measured.
    """
    reference = f"the fp32 graph, ONNX Runtime {version('onnxruntime')}"
    name = chosen.scheme
    proofs = [
        Proof(4, f"{name}: {metric} held on the {split} split", reference, "degradation", d.value, d.allowed, samples=rows[split])
        for split, named in chosen.degradation.items()
        for metric, d in named.items()
    ]
    size = chosen.bytes / fp32.bytes
    if wanted.max_size is not None or (wanted.min_speedup is None and size <= SMALLER):
        largest = SMALLER if wanted.max_size is None else wanted.max_size
        proofs.append(Proof(4, f"{name}: smaller than fp32", reference, "share of the bytes", size, largest))
    for batch, times in chosen.latency.items():
        asked = wanted.min_speedup if batch == next(iter(chosen.latency)) else None
        if asked is not None or (wanted == Wanted() and times["speedup_low"] > 1):
            claim, quantity = f"{name}: faster than fp32 at batch {batch} on {processor}", "speed-up, lower end of the 95 % interval"
            proofs.append(
                Proof(4, claim, reference, quantity, times["speedup_low"], asked or 1.0, at_least=True, samples=int(times["calls"]))
            )
    return proofs


def worst(gap: NDArray[Any]) -> float:
    """The largest difference; NaN anywhere is infinitely far."""
    return float(np.nan_to_num(gap, nan=np.inf).max(initial=0.0))

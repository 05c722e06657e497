"""An estimator's core graph run by ONNX Runtime, and the proof that it answers what the live estimator answers."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from groundup.bundle.proof import Proof
from groundup.errors import ModelError
from groundup.training import classical
from groundup.training.arrays import Arrays

BATCH = 4096


def session(graph: bytes) -> ort.InferenceSession:
    """ONNX Runtime over a serialized core graph, on one thread.

    Raises:
        ModelError: the runtime refuses the graph.
    """
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    try:
        return ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    except Exception as e:
        raise ModelError(f"ONNX Runtime {ort.__version__} cannot load the exported core graph: {e}") from e


def run(runtime: ort.InferenceSession, features: NDArray[Any]) -> NDArray[np.float32]:
    """Scores float32 (N, n_outputs) of features (N, *feature_shape)."""
    X = np.ascontiguousarray(features, np.float32)
    if len(runtime.get_inputs()[0].shape) == 2:
        X = X.reshape(len(X), -1)
    parts = [runtime.run(["scores"], {"features": X[i : i + BATCH]})[0] for i in range(0, max(len(X), 1), BATCH)]
    return np.asarray(np.concatenate(parts), np.float32)


def proofs(graph: bytes, estimator: Any, arrays: Arrays, tolerance: float) -> list[Proof]:
    """Graph against live estimator on the validation split (link 3).

    Classification: the largest difference of a probability, and the share of equal labels where the two best
    probabilities are further apart than the tolerance.  Regression: the largest difference over the targets' spread.
    """
    X = arrays.X_val if len(arrays.X_val) else arrays.X[:1000]
    live = classical.answers(estimator, X, arrays)
    exported = run(session(graph), X).astype(np.float64)
    name, reference = type(estimator).__name__, f"the fitted {type(estimator).__module__}.{type(estimator).__name__}"
    if arrays.regression:
        worst = float(np.abs(exported[:, 0] - live).max() / arrays.scale)
        claim = f"{name}: the ONNX core answers what the estimator answers"
        return [Proof(3, claim, reference, "largest difference over the targets' standard deviation", worst, tolerance, samples=len(X))]
    worst = float(np.abs(exported - live).max())
    ordered = np.sort(live, axis=1)
    clear = ordered[:, -1] - ordered[:, -2] > 2 * tolerance if live.shape[1] > 1 else np.ones(len(live), bool)
    equal = float(np.mean(exported.argmax(1)[clear] == live.argmax(1)[clear])) if clear.any() else 1.0
    return [
        Proof(
            3,
            f"{name}: the ONNX core gives the estimator's probabilities",
            reference,
            "largest difference",
            worst,
            tolerance,
            samples=live.size,
        ),
        Proof(
            3,
            f"{name}: the ONNX core gives the estimator's labels",
            reference,
            "share of equal labels",
            equal,
            1.0,
            at_least=True,
            samples=int(clear.sum()),
        ),
    ]

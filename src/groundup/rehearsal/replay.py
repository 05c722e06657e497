"""Link 5: what the server answers is what the graph answers, for every row that is replayed, alone and in crowds."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from groundup.bundle import Bundle, Proof
from groundup.errors import ProofError
from groundup.rehearsal import load, wire
from groundup.rehearsal.server import Server
from groundup.serving.engine import Engine

ALONE = 1e-6  # one caller: the server runs exactly the rows of the request, as the engine does here
CROWD = 1e-4  # many callers: rows of several requests share a run, and sums are taken in another order


def replay(
    server: Server, bundle: Bundle, engine: Engine, inputs: Mapping[str, Any], *, connections: int, dialect: str, rows_each: int = 1
) -> list[Proof]:
    """Send every row once and compare every answer with the graph's.

    Args:
        inputs: tensors (N, ...) in the convention of the signature.
        connections: callers at the same time; above 1 the server mixes their rows in its batches.
        dialect: "predict" or "v2".
        rows_each: rows in one request.

    Raises:
        ProofError: an answer did not come back whole with status 200.
    """
    encode: Callable[..., load.Request] = wire.predict if dialect == "predict" else wire.infer
    decode = wire.read_predict if dialect == "predict" else wire.read_infer
    n = wire.rows_of(inputs)
    starts = range(0, n, rows_each)
    parts = [wire.cut(inputs, s, s + rows_each) for s in starts]
    result = load.send(server.port, [encode(bundle, part) for part in parts], connections=connections, keep=True)
    if result.failures:
        raise ProofError(
            f"{bundle.name}: {len(result.failures)} of {len(parts)} requests to {dialect} failed; the first: {result.failures[0]}"
        )
    expected = [engine.run(part) for part in parts]
    got = [decode(bundle, result.answers[i][1]) for i in range(len(parts))]
    tolerance = ALONE if connections == 1 else CROWD
    callers = "one caller" if connections == 1 else f"{connections} callers at once"
    return differences(bundle, _joined(expected), _joined(got), f"over {dialect}, {callers}", tolerance)


def differences(bundle: Bundle, expected: Mapping[str, Any], got: Mapping[str, Any], how: str, tolerance: float) -> list[Proof]:
    """One proof an output.  A label may differ only where the two best probabilities are closer than twice the tolerance."""
    if set(got) != set(expected):
        raise ProofError(f"{bundle.name} {how}: expected the outputs {sorted(expected)}, got {sorted(got)}")
    proofs = []
    for name, values in expected.items():
        if np.shape(got[name]) != np.shape(values):
            raise ProofError(f"{bundle.name} {how}: {name} has the shape {np.shape(got[name])}, expected {np.shape(values)}")
        common: dict[str, Any] = {"link": 5, "reference": f"the graph of bundle {bundle.version}", "samples": len(values)}
        if values.dtype.kind == "f":
            measured = float(np.max(np.abs(got[name] - values) / np.maximum(1.0, np.abs(values)), initial=0.0))
            claim = f"{bundle.name}: {name} {how} is the graph's for every row"
            proofs.append(Proof(claim=claim, quantity="largest difference", measured=measured, tolerance=tolerance, **common))
        else:
            equal = np.asarray(got[name] == values)
            if "probabilities" in expected and expected["probabilities"].shape[1] > 1:
                best = np.sort(expected["probabilities"].astype(np.float64), axis=1)
                equal |= best[:, -1] - best[:, -2] <= 2 * tolerance
            claim = f"{bundle.name}: {name} {how} is the graph's for every row"
            proofs.append(Proof(claim=claim, quantity="share equal", measured=float(equal.mean()), tolerance=1.0, at_least=True, **common))
    return proofs


def _joined(parts: list[wire.Arrays]) -> wire.Arrays:
    return {name: np.concatenate([p[name] for p in parts]) for name in parts[0]}

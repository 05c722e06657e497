"""What the tests of this room put into a bundle."""

from __future__ import annotations

from groundup.bundle import Field, Proof, Signature
from groundup.bundle.files import to_json

SIGNATURE = Signature(
    inputs=(Field("town", "category", categories=("Bern", "Thun"), nullable=True), Field("age", "number", minimum=0, maximum=99)),
    outputs=(Field("prediction", "number"),),
)
PROOF = Proof(3, "the graph gives the module's answers", "torch", "largest absolute difference", 1e-7, 1e-5, samples=10)


def sources(**more: bytes) -> dict[str, bytes]:
    return {
        "model.onnx": b"a graph" * 100,
        "proofs.json": to_json([PROOF.to_dict()]),
        "deep/er/config.json": b"{}",
        "README.md": b"# toy\n",
        **more,
    }

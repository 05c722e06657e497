"""A small classifier of a table as a bundle, and rows for it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from groundup.bundle import Bundle, Field, Signature, write_bundle
from groundup.monitoring.profile import Profile
from groundup.serving.golden import write_golden

Arrays = dict[str, Any]


def graph(tilt: float = 0.0) -> bytes:
    """a, n, c -> softmax of a linear map; 3 classes.  ``tilt`` makes another model of it."""
    nodes = [
        helper.make_node(
            "LabelEncoder", ["c"], ["ci"], domain="ai.onnx.ml", keys_strings=["x", "y"], values_floats=[1.0, 2.0], default_float=0.0
        ),
        helper.make_node("Cast", ["a"], ["a1"], to=TensorProto.FLOAT),
        helper.make_node("Cast", ["n"], ["n1"], to=TensorProto.FLOAT),
        *(helper.make_node("Unsqueeze", [i, "axis"], [f"{i}2"]) for i in ("a1", "n1", "ci")),
        helper.make_node("Concat", ["a12", "n12", "ci2"], ["features"], axis=1),
        helper.make_node("MatMul", ["features", "W"], ["scores"]),
        helper.make_node("Softmax", ["scores"], ["probabilities"], axis=1),
        helper.make_node("ArgMax", ["scores"], ["best"], axis=1, keepdims=0),
        helper.make_node("Gather", ["classes", "best"], ["label"]),
    ]
    value = helper.make_tensor_value_info
    g = helper.make_graph(
        nodes,
        "table",
        [value("a", TensorProto.DOUBLE, ["N"]), value("n", TensorProto.DOUBLE, ["N"]), value("c", TensorProto.STRING, ["N"])],
        [value("label", TensorProto.STRING, ["N"]), value("probabilities", TensorProto.FLOAT, ["N", 3])],
        [
            numpy_helper.from_array(np.array([1], np.int64), "axis"),
            numpy_helper.from_array(np.array([[1.0 + tilt, -1, 0], [0.1, 0, -0.2], [0.5, 0.2, -1]], np.float32), "W"),
            helper.make_tensor("classes", TensorProto.STRING, [3], [b"red", b"green", b"blue"]),
        ],
    )
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("ai.onnx.ml", 3)]
    return bytes(helper.make_model(g, opset_imports=opsets, ir_version=10).SerializeToString())


SIGNATURE = Signature(
    (Field("a", "number"), Field("n", "integer"), Field("c", "category", nullable=True, categories=("x", "y"))),
    (Field("label", "category", categories=("red", "green", "blue")), Field("probabilities", "tensor", (3,))),
)


def rows(n: int, seed: int = 0) -> Arrays:
    rng = np.random.default_rng(seed)
    c = np.array(["x", "y", "", "q"], object)[rng.choice(4, n, p=[0.5, 0.3, 0.1, 0.1])]
    return {"a": rng.normal(size=n), "n": rng.integers(0, 20, n).astype(np.float64), "c": c}


def answers(inputs: Arrays, data: bytes | None = None) -> Arrays:
    import onnxruntime

    session = onnxruntime.InferenceSession(data or graph(), providers=["CPUExecutionProvider"])
    return dict(zip(("label", "probabilities"), session.run(["label", "probabilities"], inputs), strict=True))


def make_bundle(path: Path, data: bytes | None = None, **fields: Any) -> Bundle:
    """A bundle whose golden answers are those of :func:`graph`, whatever ``data`` is."""
    known = rows(2000, 1)
    profiles = []
    for side, arrays in ((SIGNATURE.inputs, known), (SIGNATURE.outputs, answers(known))):
        profile = Profile(side)
        profile.update(arrays)
        profile.freeze()
        profiles.append(profile.to_dict())
    golden = rows(8, 2)
    sources: dict[str, Path | bytes] = {
        "model.onnx": data or graph(),
        "golden.npz": write_golden(golden, answers(golden)),
        "README.md": b"# table\n\nA table.\n\n## Proofs\n\n0 of 0 passed.\n",
        "profile.json": json.dumps(dict(zip(("inputs", "outputs"), profiles, strict=True))).encode(),
    }
    monitor = {"drift": {"window": 200, "min-rows": 100}}
    defaults: dict[str, Any] = {"monitor": monitor, "serve": {"drain_delay_s": 0.3}}
    return write_bundle(path, sources, name="table", task="tabular-classification", signature=SIGNATURE, **{**defaults, **fields})


class HeldOut:
    """What is asked of Prepared for its test split: rows, and the answers that the graph without a tilt gives to all of them.

    Args:
        first: where they stand in the source.
    """

    data_hash = "d"
    n = 600

    def __init__(self, first: int = 0) -> None:
        self.first = first

    def raw(self, split: str) -> Arrays:
        return rows(self.n, 7)

    def targets(self, split: str) -> Any:
        return answers(self.raw(split))["probabilities"].argmax(1)

    def rows(self, split: str) -> Any:
        return np.arange(self.first, self.first + self.n)

"""Small bundles for the tests of serving, made with ``onnx.helper``; the answers are easy to compute in NumPy."""

from __future__ import annotations

import json
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto as T
from onnx import helper, numpy_helper

from groundup.bundle import Bundle, Field, Signature, cpu, write_bundle
from groundup.monitoring.profile import Profile
from groundup.serving.engine import Engine
from groundup.serving.golden import write_golden

CLASSES = ("cat", "dog", "eel")
_TYPE = {"float64": T.DOUBLE, "float32": T.FLOAT, "int64": T.INT64, "uint8": T.UINT8, "object": T.STRING}


def model(nodes: list[Any], inputs: tuple[Field, ...], outputs: list[Any], initializers: Mapping[str, Any]) -> onnx.ModelProto:
    """A checked model with batch axis ``N``."""
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(f.name, _TYPE[str(f.dtype)], ["N", *f.shape]) for f in inputs],
        outputs,
        [numpy_helper.from_array(np.asarray(v), k) for k, v in initializers.items()],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20), helper.make_opsetid("ai.onnx.ml", 3)], ir_version=10)
    onnx.checker.check_model(made)
    return made


def mlp(
    path: Path, sizes: tuple[int, ...] = (32, 64, 3), *, golden: bool = True, serve: Mapping[str, Any] | None = None, **fields: Any
) -> Bundle:
    """A multilayer perceptron: tensor ``x`` (N, sizes[0]) float32 -> ``label``, ``probabilities``."""
    rng = np.random.default_rng(7)
    classes = CLASSES if sizes[-1] == 3 else tuple(str(i) for i in range(sizes[-1]))
    inputs = (Field("x", "tensor", (sizes[0],)),)
    outputs = (Field("label", "category", categories=classes), Field("probabilities", "tensor", (sizes[-1],)))
    nodes, initializers, last = [], {"classes": np.array(classes, object)}, "x"
    for i, (a, b) in enumerate(pairwise(sizes)):
        initializers[f"W{i}"] = (rng.normal(size=(a, b)) / np.sqrt(a)).astype(np.float32)
        nodes.append(helper.make_node("MatMul", [last, f"W{i}"], [f"h{i}"]))
        last = f"h{i}"
        if i < len(sizes) - 2:
            nodes.append(helper.make_node("Relu", [last], [f"r{i}"]))
            last = f"r{i}"
    nodes += _classify(last)
    made = model(nodes, inputs, _outputs(sizes[-1]), initializers)
    return save(
        path,
        made,
        Signature(inputs, outputs),
        {"x": rng.normal(size=(5, sizes[0])).astype(np.float32)} if golden else None,
        serve=serve,
        **fields,
    )


def watched(path: Path, sizes: tuple[int, ...] = (32, 64, 3), **fields: Any) -> Bundle:
    """:func:`mlp` with a profile of standard normal inputs and of its answers to them: drift is watched."""
    plain = mlp(path.with_name(f"{path.name}-plain"), sizes)
    x = {"x": np.random.default_rng(11).normal(size=(4000, sizes[0])).astype(np.float32)}
    answers = Engine(plain).run(x)
    profile = {
        "inputs": Profile.of(plain.signature.inputs, x).to_dict(),
        "outputs": Profile.of(plain.signature.outputs, answers).to_dict(),
    }
    return mlp(path, sizes, sources={"profile.json": json.dumps(profile).encode()}, **fields)


def image(path: Path, shape: tuple[int, int, int] = (8, 8, 1), **fields: Any) -> Bundle:
    """``image`` (N, H, W, C) uint8 -> ``label`` of ten, ``probabilities``: a linear model on pixels / 255."""
    rng = np.random.default_rng(3)
    classes = tuple(str(i) for i in range(10))
    inputs = (Field("image", "image", shape),)
    outputs = (Field("label", "category", categories=classes), Field("probabilities", "tensor", (10,)))
    n = int(np.prod(shape))
    nodes = [
        helper.make_node("Cast", ["image"], ["c"], to=T.FLOAT),
        helper.make_node("Reshape", ["c", "flat"], ["f"]),
        helper.make_node("MatMul", ["f", "W"], ["s"]),
        *_classify("s"),
    ]
    initializers = {
        "flat": np.array([-1, n]),
        "W": (rng.normal(size=(n, 10)) / 255).astype(np.float32),
        "classes": np.array(classes, object),
    }
    made = model(nodes, inputs, _outputs(10), initializers)
    return save(path, made, Signature(inputs, outputs), {"image": rng.integers(0, 256, (5, *shape), np.uint8)}, **fields)


TABLE = (
    Field("age", "number", nullable=True, minimum=18, maximum=90),
    Field("rooms", "integer", minimum=1, maximum=9),
    Field("owner", "boolean", nullable=True),
    Field("city", "category", nullable=True, categories=("Bern", "Oslo")),
    Field("sold", "datetime", minimum=1.5e15, maximum=1.7e15),
)


def table(path: Path, **fields: Any) -> Bundle:
    """Five columns of five kinds -> ``prediction``: nan0(age) + 2·rooms + 100·nan0(owner) + 1000·[city = Oslo] + days since 1970."""
    initializers = {
        "zero": np.float64(0),
        "two": np.float64(2),
        "hundred": np.float64(100),
        "day": np.int64(86_400_000_000),
    }
    nodes = [
        helper.make_node("IsNaN", ["age"], ["age_missing"]),
        helper.make_node("Where", ["age_missing", "zero", "age"], ["age0"]),
        helper.make_node("IsNaN", ["owner"], ["owner_missing"]),
        helper.make_node("Where", ["owner_missing", "zero", "owner"], ["owner0"]),
        helper.make_node("Mul", ["rooms", "two"], ["rooms2"]),
        helper.make_node("Mul", ["owner0", "hundred"], ["owner100"]),
        helper.make_node(
            "LabelEncoder", ["city"], ["city_f"], domain="ai.onnx.ml", keys_strings=["Oslo"], values_floats=[1000.0], default_float=0.0
        ),
        helper.make_node("Cast", ["city_f"], ["city1000"], to=T.DOUBLE),
        helper.make_node("Div", ["sold", "day"], ["days_i"]),
        helper.make_node("Cast", ["days_i"], ["days"], to=T.DOUBLE),
        helper.make_node("Sum", ["age0", "rooms2", "owner100", "city1000", "days"], ["sum"]),
        helper.make_node("Cast", ["sum"], ["prediction"], to=T.FLOAT),
    ]
    outputs = [helper.make_tensor_value_info("prediction", T.FLOAT, ["N"])]
    made = model(nodes, TABLE, outputs, initializers)
    inputs = {
        "age": np.array([30.0, np.nan]),
        "rooms": np.array([3.0, 4.0]),
        "owner": np.array([1.0, np.nan]),
        "city": np.array(["Oslo", ""], object),
        "sold": np.array([0, 86_400_000_000]),
    }
    return save(path, made, Signature(TABLE, (Field("prediction", "number"),)), inputs, task="tabular-regression", **fields)


def poison(path: Path, **fields: Any) -> Bundle:
    """``i`` (N,) int64-valued number -> ``prediction``: a table look-up that fails outside 0..9, and gives NaN at 9."""
    inputs = (Field("i", "number"),)
    look_up = np.arange(10, dtype=np.float32) * 10
    look_up[9] = np.nan
    nodes = [helper.make_node("Cast", ["i"], ["k"], to=T.INT64), helper.make_node("Gather", ["t", "k"], ["prediction"])]
    made = model(nodes, inputs, [helper.make_tensor_value_info("prediction", T.FLOAT, ["N"])], {"t": look_up})
    signature = Signature(inputs, (Field("prediction", "number"),))
    return save(path, made, signature, {"i": np.array([1.0, 2.0])}, task="tabular-regression", **fields)


def slow(path: Path, **fields: Any) -> Bundle:
    """``x`` (N, 1) -> ``prediction``; a run takes long whatever its rows (a loop of large products), for tests of overload."""
    inputs = (Field("x", "tensor", (1,)),)
    size = 256
    body = helper.make_graph(
        [helper.make_node("MatMul", ["m_in", "M"], ["m_out"]), helper.make_node("Identity", ["go_on"], ["go_on_out"])],
        "body",
        [
            helper.make_tensor_value_info("i", T.INT64, []),
            helper.make_tensor_value_info("go_on", T.BOOL, []),
            helper.make_tensor_value_info("m_in", T.FLOAT, [size, size]),
        ],
        [helper.make_tensor_value_info("go_on_out", T.BOOL, []), helper.make_tensor_value_info("m_out", T.FLOAT, [size, size])],
    )
    times = fields.pop("times", 60)
    nodes = [
        helper.make_node("Loop", ["times", "go", "M"], ["m"], body=body),
        helper.make_node("ReduceSum", ["m"], ["total"], keepdims=0),
        helper.make_node("Mul", ["total", "zero"], ["nothing"]),
        helper.make_node("Reshape", ["x", "flat"], ["x1"]),
        helper.make_node("Add", ["x1", "nothing"], ["prediction"]),
    ]
    initializers = {
        "M": np.eye(size, dtype=np.float32),
        "times": np.int64(times),
        "go": np.bool_(True),
        "zero": np.float32(0),
        "flat": np.array([-1]),
    }
    made = model(nodes, inputs, [helper.make_tensor_value_info("prediction", T.FLOAT, ["N"])], initializers)
    return save(
        path,
        made,
        Signature(inputs, (Field("prediction", "number"),)),
        {"x": np.ones((2, 1), np.float32)},
        task="tabular-regression",
        **fields,
    )


def save(
    path: Path,
    made: onnx.ModelProto,
    signature: Signature,
    golden: Mapping[str, Any] | None,
    *,
    task: str = "tabular-classification",
    **fields: Any,
) -> Bundle:
    """Write a bundle whose golden answers are what ONNX Runtime gives here."""
    import onnxruntime

    sources: dict[str, bytes | Path] = {"model.onnx": made.SerializeToString(), **fields.pop("sources", {})}
    if golden is not None:
        names = [o.name for o in signature.outputs]
        answers = onnxruntime.InferenceSession(sources["model.onnx"], providers=["CPUExecutionProvider"]).run(names, dict(golden))
        sources["golden.npz"] = write_golden(golden, dict(zip(names, answers, strict=True)))
    if fields.get("serve") is None:
        fields.pop("serve", None)
    fields.setdefault("environment", {"cpu": list(cpu.features())})
    return write_bundle(path, sources, name=fields.pop("name", "toy"), task=task, signature=signature, **fields)


def _classify(scores: str) -> list[Any]:
    return [
        helper.make_node("Softmax", [scores], ["probabilities"], axis=-1),
        helper.make_node("ArgMax", [scores], ["k"], axis=1, keepdims=0),
        helper.make_node("Gather", ["classes", "k"], ["label"]),
    ]


def _outputs(n: int) -> list[Any]:
    return [helper.make_tensor_value_info("label", T.STRING, ["N"]), helper.make_tensor_value_info("probabilities", T.FLOAT, ["N", n])]

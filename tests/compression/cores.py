"""Real, fitted cores on real data, made in milliseconds without PyTorch, and the stages' outputs around them.

Handwritten digits (scikit-learn's) for classification, its diabetes table for regression.  The convolutional core is a
residual network of random filters with a fitted read-out: no training loop, yet 95 % of the digits right.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from groundup.bundle.files import write_bytes
from groundup.bundle.signature import Field
from groundup.lifecycle.prepare import Prepared
from groundup.lifecycle.train import Trained
from groundup.monitoring.profile import Profile

DIGITS = tuple(str(i) for i in range(10))


def model(
    nodes: Sequence[onnx.NodeProto], inputs: Any, outputs: Any, constants: dict[str, NDArray[Any]], opset: int = 20
) -> onnx.ModelProto:
    graph = helper.make_graph(nodes, "made", inputs, outputs, [numpy_helper.from_array(v, k) for k, v in constants.items()])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)


def value(name: str, shape: Sequence[Any], kind: int = TensorProto.FLOAT) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


def digits() -> tuple[NDArray[np.uint8], NDArray[np.float32], NDArray[np.int64]]:
    """Images uint8 (1797, 8, 8, 1), features float32 (1797, 1, 8, 8), classes int64 (1797,)."""
    from sklearn.datasets import load_digits

    data = load_digits()
    images = data.images.astype(np.uint8)[..., None]
    return images, (images.transpose(0, 3, 1, 2) / np.float32(16)).astype(np.float32), data.target.astype(np.int64)


def image_transform(opset: int = 20) -> onnx.ModelProto:
    """image uint8 (N, 8, 8, 1) -> features float32 (N, 1, 8, 8), 0..16 to 0..1."""
    nodes = [
        helper.make_node("Cast", ["image"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["float", "scale"], ["scaled"]),
        helper.make_node("Transpose", ["scaled"], ["features"], perm=[0, 3, 1, 2]),
    ]
    constants = {"scale": np.array(1 / 16, np.float32)}
    return model(nodes, [value("image", ["N", 8, 8, 1], TensorProto.UINT8)], [value("features", ["N", 1, 8, 8])], constants, opset)


def table_transform(names: Sequence[str], opset: int = 20) -> onnx.ModelProto:
    """Columns float64 (N,) -> features float32 (N, len(names)), missing values as 0."""
    nodes, columns, constants = [], [], {"axis": np.array([1], np.int64), "zero": np.array(0, np.float64)}
    for i, name in enumerate(names):
        nodes += [
            helper.make_node("IsNaN", [name], [f"nan{i}"]),
            helper.make_node("Where", [f"nan{i}", "zero", name], [f"full{i}"]),
            helper.make_node("Cast", [f"full{i}"], [f"cast{i}"], to=TensorProto.FLOAT),
            helper.make_node("Unsqueeze", [f"cast{i}", "axis"], [f"column{i}"]),
        ]
        columns.append(f"column{i}")
    nodes.append(helper.make_node("Concat", columns, ["features"], axis=1))
    inputs = [value(name, ["N"], TensorProto.DOUBLE) for name in names]
    return model(nodes, inputs, [value("features", ["N", len(names)])], constants, opset)


def mlp_core(X: NDArray[Any], y: NDArray[Any], hidden: Sequence[int] = (64, 64), opset: int = 20) -> onnx.ModelProto:
    """A fitted multilayer perceptron: Flatten, then Gemm and ReLU by turns."""
    from sklearn.neural_network import MLPClassifier

    fitted = MLPClassifier(hidden, random_state=0, max_iter=60, early_stopping=True).fit(X.reshape(len(X), -1), y)
    nodes, constants, last = [helper.make_node("Flatten", ["features"], ["h0"])], {}, len(fitted.coefs_) - 1
    for i, (W, b) in enumerate(zip(fitted.coefs_, fitted.intercepts_, strict=True)):
        constants[f"W{i}"], constants[f"b{i}"] = np.ascontiguousarray(W.T, np.float32), b.astype(np.float32)
        nodes.append(helper.make_node("Gemm", [f"h{i}", f"W{i}", f"b{i}"], ["scores" if i == last else f"a{i}"], name=f"gemm{i}", transB=1))
        if i < last:
            nodes.append(helper.make_node("Relu", [f"a{i}"], [f"h{i + 1}"], name=f"relu{i}"))
    return model(nodes, [value("features", ["batch", *X.shape[1:]])], [value("scores", ["batch", int(y.max()) + 1])], constants, opset)


def residual_core(X: NDArray[Any], y: NDArray[Any], width: int = 24, opset: int = 20) -> onnx.ModelProto:
    """Convolution, batch normalization, ReLU; one residual block of them; max pooling; a read-out fitted to what comes out."""
    import onnxruntime
    from sklearn.linear_model import LogisticRegression

    rng = np.random.default_rng(0)
    constants: dict[str, NDArray[Any]] = {}
    nodes: list[onnx.NodeProto] = []

    def convolve(x: str, name: str, channels: int, relu: bool = True) -> str:
        constants[f"{name}.W"] = (rng.normal(size=(width, channels, 3, 3)) * np.sqrt(2 / (9 * channels))).astype(np.float32)
        for part, low, high in (("scale", 0.8, 1.2), ("bias", -0.1, 0.1), ("mean", -0.1, 0.1), ("var", 0.5, 1.5)):
            constants[f"{name}.{part}"] = rng.uniform(low, high, width).astype(np.float32)
        nodes.append(helper.make_node("Conv", [x, f"{name}.W"], [f"{name}.c"], name=f"{name}.conv", pads=[1, 1, 1, 1]))
        norm = [f"{name}.{part}" for part in ("c", "scale", "bias", "mean", "var")]
        nodes.append(helper.make_node("BatchNormalization", norm, [f"{name}.n"], name=f"{name}.norm"))
        if relu:
            nodes.append(helper.make_node("Relu", [f"{name}.n"], [f"{name}.r"], name=f"{name}.relu"))
        return f"{name}.r" if relu else f"{name}.n"

    stem = convolve("features", "stem", X.shape[1])
    branch = convolve(convolve(stem, "one", width), "two", width, relu=False)
    nodes += [
        helper.make_node("Add", [stem, branch], ["sum"], name="add"),
        helper.make_node("Relu", ["sum"], ["out"], name="relu"),
        helper.make_node("MaxPool", ["out"], ["pooled"], name="pool", kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Flatten", ["pooled"], ["flat"], name="flatten"),
    ]
    body = model(nodes, [value("features", ["batch", *X.shape[1:]])], [value("flat", ["batch", None])], constants, opset)
    flat = onnxruntime.InferenceSession(body.SerializeToString(), providers=["CPUExecutionProvider"]).run(None, {"features": X})[0]
    fitted = LogisticRegression(max_iter=200, C=0.01).fit(flat, y)
    constants["read.W"], constants["read.b"] = fitted.coef_.astype(np.float32), fitted.intercept_.astype(np.float32)
    nodes.append(helper.make_node("Gemm", ["flat", "read.W", "read.b"], ["scores"], name="read", transB=1))
    return model(nodes, [value("features", ["batch", *X.shape[1:]])], [value("scores", ["batch", int(y.max()) + 1])], constants, opset)


def tree_core(X: NDArray[Any], y: NDArray[Any]) -> onnx.ModelProto:
    """A fitted random forest: probabilities (N, n_classes)."""
    from skl2onnx import to_onnx
    from sklearn.ensemble import RandomForestClassifier

    flat = X.reshape(len(X), -1)
    fitted = RandomForestClassifier(20, max_depth=8, random_state=0).fit(flat, y)
    made = to_onnx(fitted, flat[:1].astype(np.float32), options={id(fitted): {"zipmap": False}}, target_opset={"": 20, "ai.onnx.ml": 3})
    core = onnx.utils.Extractor(made).extract_model(["X"], ["probabilities"])
    core.graph.node.insert(0, helper.make_node("Flatten", ["features"], ["X"]))
    core.graph.node.append(helper.make_node("Identity", ["probabilities"], ["scores"]))
    for side, changed in ((core.graph.input, value("features", ["N", *X.shape[1:]])), (core.graph.output, value("scores", ["N", None]))):
        del side[:]
        side.append(changed)
    return core


def linear_core(X: NDArray[Any], y: NDArray[Any]) -> onnx.ModelProto:
    """Ridge regression on standardized targets: scores (N, 1)."""
    from sklearn.linear_model import Ridge

    fitted = Ridge(1.0).fit(X, y)
    constants = {"W": fitted.coef_.reshape(1, -1).astype(np.float32), "b": np.atleast_1d(fitted.intercept_).astype(np.float32)}
    nodes = [helper.make_node("Gemm", ["features", "W", "b"], ["scores"], name="gemm", transB=1)]
    return model(nodes, [value("features", ["batch", X.shape[1]])], [value("scores", ["batch", 1])], constants)


def prepared_digits(path: Path) -> Prepared:
    """What prepare leaves for the digits, split 1,200 / 237 / 360."""
    images, features, y = digits()
    order = np.random.default_rng(0).permutation(len(y))
    splits = dict(zip(("train", "validation", "test"), np.split(order, [1200, 1437]), strict=True))
    for split, rows in splits.items():
        _write(path / split, features=features[rows], targets=y[rows], rows=rows.astype(np.int64), inputs=images[rows])
    onnx.save(image_transform(), path / "transform.onnx")
    field = Field("image", "image", shape=(8, 8, 1), minimum=0, maximum=16)
    profile = Profile.of([field], {"image": images[splits["train"]]}).to_dict()
    write_bytes(path / "profile.json", json.dumps({"inputs": profile}).encode())
    return _prepared(path, [field], "image-classification", list(DIGITS), [1, 8, 8], {k: len(v) for k, v in splits.items()}, "digit")


def prepared_table(path: Path) -> tuple[Prepared, NDArray[Any], NDArray[Any]]:
    """What prepare leaves for the diabetes table, a tenth of one column missing, and the training split's X and y."""
    import pyarrow as pa
    import pyarrow.parquet as pq
    from sklearn.datasets import load_diabetes

    data = load_diabetes()
    X, y = data.data.astype(np.float64), data.target.astype(np.float64)
    rng = np.random.default_rng(0)
    X[rng.random(len(X)) < 0.1, 2] = np.nan
    names = list(data.feature_names)
    order = rng.permutation(len(y))
    splits = dict(zip(("train", "validation", "test"), np.split(order, [260, 350]), strict=True))
    features = np.nan_to_num(X).astype(np.float32)
    for split, rows in splits.items():
        _write(path / split, features=features[rows], targets=y[rows], rows=rows.astype(np.int64))
        columns = {name: pa.array(X[rows, i], from_pandas=True) for i, name in enumerate(names)}
        pq.write_table(pa.table({**columns, "progression": pa.array(y[rows])}), path / split / "records.parquet")
    onnx.save(table_transform(names), path / "transform.onnx")
    known = X[splits["train"]]
    fields = [
        Field(
            n,
            "number",
            nullable=bool(np.isnan(X[:, i]).any()),
            minimum=float(np.nanmin(known[:, i])),
            maximum=float(np.nanmax(known[:, i])),
        )
        for i, n in enumerate(names)
    ]
    profile = Profile.of(fields, {n: known[:, i] for i, n in enumerate(names)}).to_dict()
    write_bytes(path / "profile.json", json.dumps({"inputs": profile}).encode())
    sizes = {k: len(v) for k, v in splits.items()}
    prepared = _prepared(path, fields, "tabular-regression", None, [len(names)], sizes, "progression")
    return prepared, features[splits["train"]], y[splits["train"]]


def trained(path: Path, core: onnx.ModelProto, scores: str, prepared: Prepared, target_scale: tuple[float, float] = (1.0, 0.0)) -> Trained:
    """What train leaves for a fitted estimator with this core."""
    path.mkdir(parents=True, exist_ok=True)
    onnx.save(core, path / "core.onnx")
    result = Trained(
        kind="estimator",
        model={"name": "made"},
        scores=scores,  # type: ignore[arg-type]
        feature_shape=prepared.feature_shape,
        n_outputs=prepared.n_outputs,
        target_scale=target_scale,
    )
    return result.save(path)


def _write(folder: Path, **arrays: NDArray[Any]) -> None:
    folder.mkdir(parents=True)
    for name, values in arrays.items():
        np.save(folder / f"{name}.npy", values, allow_pickle=False)


def _prepared(
    path: Path, fields: list[Field], task: str, classes: list[str] | None, shape: list[int], sizes: dict[str, int], target: str
) -> Prepared:
    from dataclasses import asdict

    result = Prepared(
        task=task,  # type: ignore[arg-type]
        inputs=[asdict(f) for f in fields],
        target=target,
        classes=classes,
        feature_shape=shape,
        sizes=sizes,
        data_hash="0" * 64,
    )
    return result.save(path)

"""The transform as an ONNX graph: raw inputs, as the signature names them, to ``features`` float32 (N, ...).

Written by hand, because the usual converter imputes in float32 only, and ONNX Runtime has no float64 imputer.  float64
arithmetic in the order that NumPy uses, so the answers are the same bits; date parts by integer arithmetic, where ONNX's
Div rounds towards zero and the floor is a Mod away.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from groundup.bundle.signature import MISSING_DATETIME, Field
from groundup.data.transforms import DAY, EARLIEST, HOUR, LATEST, ArrayTransform, TableTransform, has_indicator

OPSET, OPSET_ML, IR = 20, 3, 10


class _Graph:
    """Nodes and constants as they are added; every method returns the name of its output."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.constants: dict[str, Any] = {}
        self._n = 0

    def __call__(self, op: str, *inputs: str, domain: str = "", out: str | None = None, **attributes: Any) -> str:
        from onnx import helper

        self._n += 1
        out = out or f"{op.lower()}_{self._n}"
        self.nodes.append(helper.make_node(op, list(inputs), [out], name=f"transform/{out}", domain=domain, **attributes))
        return out

    def constant(self, value: Any, dtype: Any) -> str:
        from onnx import numpy_helper

        array = np.asarray(value, dtype)
        key = f"c_{array.dtype}_{'x'.join(map(str, array.shape))}_{array.tobytes().hex()[:64]}"
        if array.nbytes > 32:
            key = f"c_{len(self.constants)}"
        if key not in self.constants:
            self.constants[key] = numpy_helper.from_array(array, key)
        return key

    def floordiv(self, a: str, b: int) -> str:
        """a // b of int64, rounding down: (a - (a mod b)) / b, the mod having b's sign."""
        divisor = self.constant(b, np.int64)
        return self("Div", self("Sub", a, self("Mod", a, divisor)), divisor)

    def column(self, x: str) -> str:
        return self("Unsqueeze", x, self.constant([1], np.int64))


def table_graph(transform: TableTransform) -> Any:
    """ModelProto of a table's transform; inputs are rank-1, one a field."""
    from onnx import TensorProto, helper

    g = _Graph()
    numeric, missing, blocks = [], [], []
    nan = g.constant(np.nan, np.float64)
    for field in transform.fields:
        if field.kind == "category":
            continue
        if field.kind == "datetime":
            gone = g("Equal", field.name, g.constant(MISSING_DATETIME, np.int64))
            columns = _dates(g, field.name, transform.origin[field.name])
        else:
            gone = g("Or", g("IsNaN", field.name), g("IsInf", field.name))
            columns = [field.name]
        numeric += [g.column(g("Where", gone, nan, c)) for c in columns]
        if has_indicator(field):
            missing.append(g.column(g("Cast", gone, to=TensorProto.FLOAT)))
    if numeric:
        X = g("Concat", *numeric, axis=1)  # (N, n_numeric) float64
        X = g("Where", g("IsNaN", X), g.constant(transform.imputer.statistics_[None], np.float64), X)
        X = g("Sub", X, g.constant(transform.scaler.mean_[None], np.float64))
        X = g("Div", X, g.constant(transform.scaler.scale_[None], np.float64))
        blocks.append(g("Cast", X, to=TensorProto.FLOAT))
    blocks += missing
    for name, encoder in transform.encoders.items():
        known = [str(c) for c in encoder.categories_[0]]
        if known:
            blocks.append(g("OneHotEncoder", name, domain="ai.onnx.ml", cats_strings=known, zeros=1))
    if len(blocks) == 1:
        g("Identity", blocks[0], out="features")
    else:
        g("Concat", *blocks, axis=1, out="features")
    shape = ["N", len(transform.feature_names)]
    inputs = [helper.make_tensor_value_info(f.name, _TYPES[f.kind], ["N"]) for f in transform.fields]
    return _model(g, inputs, shape)


_TYPES = {"number": 11, "integer": 11, "boolean": 11, "category": 8, "datetime": 7}  # TensorProto DOUBLE, STRING, INT64


def _dates(g: _Graph, name: str, origin: int) -> list[str]:
    """Names of year, month, weekday, hour, elapsed days, float64: :func:`groundup.data.transforms.date_parts`, line by line."""
    from onnx import TensorProto

    def const(value: int) -> str:
        return g.constant(value, np.int64)

    def mul(a: str, k: int) -> str:
        return g("Mul", a, const(k))

    t = g("Min", g("Max", name, const(EARLIEST)), const(LATEST))
    days = g.floordiv(t, DAY)
    hour = g.floordiv(g("Mod", t, const(DAY)), HOUR)
    z = g("Add", days, const(719_468))
    era = g.floordiv(z, 146_097)
    doe = g("Mod", z, const(146_097))
    leaps = g("Add", g("Sub", g("Sub", doe, g.floordiv(doe, 1_460)), g.floordiv(doe, 146_096)), g.floordiv(doe, 36_524))
    yoe = g.floordiv(leaps, 365)
    before = g("Sub", g("Add", mul(yoe, 365), g.floordiv(yoe, 4)), g.floordiv(yoe, 100))
    doy = g("Sub", doe, before)
    mp = g.floordiv(g("Add", mul(doy, 5), const(2)), 153)
    month = g("Where", g("Less", mp, const(10)), g("Add", mp, const(3)), g("Sub", mp, const(9)))
    early = g("Cast", g("Less", month, const(3)), to=TensorProto.INT64)
    year = g("Add", g("Add", yoe, mul(era, 400)), early)
    weekday = g("Mod", g("Add", days, const(3)), const(7))
    elapsed = g("Div", g("Cast", g("Sub", t, const(origin)), to=TensorProto.DOUBLE), g.constant(DAY, np.float64))
    return [*(g("Cast", x, to=TensorProto.DOUBLE) for x in (year, month, weekday, hour)), elapsed]


def array_graph(transform: ArrayTransform) -> Any:
    """ModelProto of an image's or tensor's transform."""
    from onnx import TensorProto, helper

    g = _Graph()
    field: Field = transform.field
    kind = TensorProto.UINT8 if field.kind == "image" else TensorProto.FLOAT
    x = g("Cast", field.name, to=TensorProto.FLOAT) if field.kind == "image" else field.name
    x = g("Div", g("Sub", x, g.constant(transform.mean, np.float32)), g.constant(transform.scale, np.float32))
    if field.kind == "image":
        g("Transpose", x, perm=[0, 3, 1, 2], out="features")
    else:
        g("Identity", x, out="features")
    inputs = [helper.make_tensor_value_info(field.name, kind, ["N", *field.shape])]
    return _model(g, inputs, ["N", *transform.feature_shape])


def _model(g: _Graph, inputs: list[Any], shape: list[Any]) -> Any:
    import onnx
    from onnx import TensorProto, helper

    outputs = [helper.make_tensor_value_info("features", TensorProto.FLOAT, shape)]
    graph = helper.make_graph(g.nodes, "transform", inputs, outputs, list(g.constants.values()))
    opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid("ai.onnx.ml", OPSET_ML)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=IR, producer_name="groundup")
    onnx.checker.check_model(model, full_check=True)
    return model

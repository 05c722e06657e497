"""Converters to ONNX for what skl2onnx does not know (our own estimators) or does not get right.

Histogram boosters: a tree decides ``x <= t`` with x and t in float64; the graph's x is float32.  For a float32 x that
question has the same answer with t rounded *down* to float32, so the graph takes exactly scikit-learn's branches.

Scalers: the thresholds of such a tree are values that occurred in training, so a scaler in front that differs in the
last bit sends that row the other way.  Ours round after every operation as scikit-learn does, and equal it bit for bit.

Linear discriminants: with two classes skl2onnx answers softmax(-z, z) where scikit-learn answers 1 / (1 + exp(-z)).

A vote: skl2onnx refuses its default ``flatten_transform=True``, a setting that only ``transform`` looks at.
"""

from __future__ import annotations

import copy
import functools
from typing import Any

import numpy as np
from numpy.typing import NDArray

from groundup.errors import ModelError


@functools.cache
def register() -> None:
    """Put these converters into skl2onnx's registry; done once a process."""
    from skl2onnx import update_registered_converter
    from skl2onnx._parse import sklearn_operator_name_map
    from skl2onnx.common._registration import get_converter, get_shape_calculator
    from skl2onnx.common.shape_calculator import calculate_linear_classifier_output_shapes, calculate_linear_regressor_output_shapes
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor, VotingClassifier
    from sklearn.preprocessing import MaxAbsScaler, MinMaxScaler, RobustScaler, StandardScaler

    from groundup.estimators.linear import LinearRegression
    from groundup.estimators.logistic import LogisticRegression

    options = {"zipmap": [True, False, "columns"], "nocl": [True, False], "output_class_labels": [False, True], "raw_scores": [True, False]}
    classifiers = {
        LogisticRegression: _logistic,
        LinearDiscriminantAnalysis: _logistic,
        HistGradientBoostingClassifier: _boosted_classifier,
    }
    for cls, convert in classifiers.items():
        update_registered_converter(cls, f"Groundup{cls.__name__}", calculate_linear_classifier_output_shapes, convert, options=options)
    for cls, convert in ((LinearRegression, _linear), (HistGradientBoostingRegressor, _boosted_regressor)):
        update_registered_converter(cls, f"Groundup{cls.__name__}", calculate_linear_regressor_output_shapes, convert)
    for cls in (StandardScaler, RobustScaler, MinMaxScaler, MaxAbsScaler):
        shapes = get_shape_calculator(sklearn_operator_name_map[cls])
        update_registered_converter(cls, f"Groundup{cls.__name__}", shapes, _scaler, options={"div": ["std", "div", "div_cast"]})
    theirs = sklearn_operator_name_map[VotingClassifier]
    vote, shapes = get_converter(theirs), get_shape_calculator(theirs)
    update_registered_converter(
        VotingClassifier, "GroundupVotingClassifier", shapes, functools.partial(_vote, vote), options=vote.get_allowed_options()
    )


FLOAT, DOUBLE = 1, 11  # onnx.TensorProto's numbers


class _Graph:
    """A short way to add nodes: ``graph("Gemm", x, w, b)`` gives the name of the result."""

    def __init__(self, scope: Any, container: Any) -> None:
        self.scope, self.container = scope, container

    def __call__(self, op: str, *inputs: str, out: str | None = None, domain: str = "", version: int = 13, **attributes: Any) -> str:
        result = out or str(self.scope.get_unique_variable_name(op.lower()))
        name = self.scope.get_unique_operator_name(op)
        self.container.add_node(op, list(inputs), [result], op_domain=domain, op_version=version, name=name, **attributes)
        return result

    def constant(self, value: NDArray[Any]) -> str:
        from onnx import numpy_helper

        name: str = self.scope.get_unique_variable_name("constant")
        tensor = numpy_helper.from_array(np.asarray(value), name)
        self.container.add_initializer(name, None, None, tensor)
        return name

    def floats(self, operator: Any) -> str:
        """The operator's input as float32."""
        from skl2onnx.common.data_types import FloatTensorType

        if isinstance(operator.inputs[0].type, FloatTensorType):
            return str(operator.inputs[0].full_name)
        return self("Cast", operator.inputs[0].full_name, to=FLOAT)

    def label(self, operator: Any, probabilities: str, classes: NDArray[Any]) -> None:
        """classes[argmax] as the operator's first output."""
        is_integer = np.issubdtype(classes.dtype, np.integer)
        values = self.constant(classes.astype(np.int64) if is_integer else classes.astype(str).astype(object))
        best = self("ArgMax", probabilities, axis=1, keepdims=0)
        self("Gather", values, best, out=operator.outputs[0].full_name, axis=0)


def _linear(scope: Any, operator: Any, container: Any) -> None:
    """y = x wᵀ + b."""
    model, graph = operator.raw_operator, _Graph(scope, container)
    W, b = np.atleast_2d(model.coef_).T, np.atleast_1d(model.intercept_)
    x = graph.floats(operator)
    graph("Gemm", x, graph.constant(W.astype(np.float32)), graph.constant(b.astype(np.float32)), out=operator.outputs[0].full_name)


def _logistic(scope: Any, operator: Any, container: Any) -> None:
    """softmax(x Wᵀ + b); two classes are a softmax over (0, z)."""
    model, graph = operator.raw_operator, _Graph(scope, container)
    W, b = model.coef_, model.intercept_
    if len(model.classes_) == 2:
        W, b = np.concatenate([np.zeros_like(W), W]), np.concatenate([np.zeros_like(b), b])
    x = graph.floats(operator)
    z = graph("Gemm", x, graph.constant(W.T.astype(np.float32)), graph.constant(b.astype(np.float32)))
    p = graph("Softmax", z, out=operator.outputs[1].full_name, axis=1)
    graph.label(operator, p, model.classes_)


def _scaler(scope: Any, operator: Any, container: Any) -> None:
    """Each operation in float64, rounded to the input's type after it, as NumPy does in ``X -= self.mean_``."""
    from skl2onnx.common.data_types import DoubleTensorType
    from skl2onnx.operator_converters.common import concatenate_variables

    model, graph = operator.raw_operator, _Graph(scope, container)
    names = [v.full_name for v in operator.inputs]
    x = names[0] if len(names) == 1 else concatenate_variables(scope, operator.inputs, container)
    is_double = isinstance(operator.inputs[0].type, DoubleTensorType)
    dtype, to = (np.float64, DOUBLE) if is_double else (np.float32, FLOAT)
    x = graph("Cast", x, to=to)
    for op, constant in _scaler_steps(model, dtype):
        wide = graph(op, graph("Cast", x, to=DOUBLE), graph.constant(np.asarray(constant, np.float64)))
        x = graph("Cast", wide, to=to)
    if getattr(model, "clip", False):
        low, high = getattr(model, "feature_range", (-1, 1))
        x = graph("Clip", x, graph.constant(np.asarray(low, dtype)), graph.constant(np.asarray(high, dtype)))
    graph("Identity", x, out=operator.outputs[0].full_name)


def _scaler_steps(model: Any, dtype: type) -> list[tuple[str, NDArray[Any]]]:
    match type(model).__name__:
        case "StandardScaler":  # the only one that rounds its constants, too
            mean, scale = model.mean_ if model.with_mean else None, model.scale_ if model.with_std else None
            steps = [("Sub", mean), ("Div", scale)]
            return [(op, constant.astype(dtype)) for op, constant in steps if constant is not None]
        case "RobustScaler":
            return [(op, c) for op, c in (("Sub", model.center_), ("Div", model.scale_)) if c is not None]
        case "MinMaxScaler":
            return [("Mul", model.scale_), ("Add", model.min_)]
        case _:  # MaxAbsScaler
            return [("Div", model.scale_)]


def _vote(convert: Any, scope: Any, operator: Any, container: Any) -> None:
    """skl2onnx's converter, shown the same vote with ``flatten_transform=False``."""
    model = operator.raw_operator
    operator.raw_operator = copy.copy(model).set_params(flatten_transform=False)
    try:
        convert(scope, operator, container)
    finally:
        operator.raw_operator = model


def _boosted_regressor(scope: Any, operator: Any, container: Any) -> None:
    """link⁻¹(baseline + Σ trees), the link being the identity or, for Poisson and gamma losses, the logarithm."""
    model, graph = operator.raw_operator, _Graph(scope, container)
    raw = _trees(graph, operator, model)
    out = operator.outputs[0].full_name
    link = type(model._loss.link).__name__
    if link not in ("IdentityLink", "LogLink"):
        raise ModelError(f"{type(model).__name__}: the link {link} of loss {model.loss!r} has no converter to ONNX")
    graph("Identity" if link == "IdentityLink" else "Exp", raw, out=out)


def _boosted_classifier(scope: Any, operator: Any, container: Any) -> None:
    """Sigmoid of one sum of trees for two classes, softmax over one sum a class for more."""
    model, graph = operator.raw_operator, _Graph(scope, container)
    raw = _trees(graph, operator, model)
    out = operator.outputs[1].full_name
    if model.n_trees_per_iteration_ == 1:
        p1, p0 = graph("Sigmoid", raw), graph("Sigmoid", graph("Neg", raw))
        graph("Concat", p0, p1, out=out, axis=1)
    else:
        graph("Softmax", raw, out=out, axis=1)
    graph.label(operator, out, model.classes_)


def _trees(graph: _Graph, operator: Any, model: Any) -> str:
    """baseline + Σ trees, (N, n_trees_per_iteration), as one TreeEnsembleRegressor."""
    attributes: dict[str, Any] = {key: [] for key in _NODE_ATTRIBUTES + _TARGET_ATTRIBUTES}
    tree = 0
    for iteration in model._predictors:
        for target, predictor in enumerate(iteration):
            nodes = predictor.nodes
            if nodes["is_categorical"].any():
                raise ModelError(
                    f"{type(model).__name__}: splits on categorical features have no converter to ONNX; leave categorical_features out "
                    "(the recipe's transforms encode categories already)"
                )
            n = len(nodes)
            leaf = nodes["is_leaf"].astype(bool)
            attributes["nodes_treeids"] += [tree] * n
            attributes["nodes_nodeids"] += range(n)
            attributes["nodes_featureids"] += np.where(leaf, 0, nodes["feature_idx"]).tolist()
            attributes["nodes_modes"] += ["LEAF" if is_leaf else "BRANCH_LEQ" for is_leaf in leaf]
            attributes["nodes_values"] += np.where(leaf, 0, round_down(nodes["num_threshold"])).tolist()
            attributes["nodes_truenodeids"] += np.where(leaf, 0, nodes["left"]).tolist()
            attributes["nodes_falsenodeids"] += np.where(leaf, 0, nodes["right"]).tolist()
            attributes["nodes_missing_value_tracks_true"] += np.where(leaf, 0, nodes["missing_go_to_left"]).tolist()
            leaves = np.flatnonzero(leaf)
            attributes["target_treeids"] += [tree] * len(leaves)
            attributes["target_nodeids"] += leaves.tolist()
            attributes["target_ids"] += [target] * len(leaves)
            attributes["target_weights"] += nodes["value"][leaves].tolist()
            tree += 1
    baseline = np.asarray(model._baseline_prediction, dtype=np.float64).ravel()
    return graph(
        "TreeEnsembleRegressor",
        graph.floats(operator),
        domain="ai.onnx.ml",
        version=1,
        n_targets=model.n_trees_per_iteration_,
        base_values=baseline.tolist(),
        aggregate_function="SUM",
        post_transform="NONE",
        **attributes,
    )


_NODE_ATTRIBUTES = (
    "nodes_treeids",
    "nodes_nodeids",
    "nodes_featureids",
    "nodes_modes",
    "nodes_values",
    "nodes_truenodeids",
    "nodes_falsenodeids",
    "nodes_missing_value_tracks_true",
)
_TARGET_ATTRIBUTES = ("target_treeids", "target_nodeids", "target_ids", "target_weights")


def round_down(t: NDArray[np.float64]) -> NDArray[np.float32]:
    """The largest float32 that is not above t, so that x <= t and x <= round_down(t) are the same for every float32 x.

    >>> float(round_down(np.array([0.1]))[0]) <= 0.1 < float(np.float32(0.1))
    True
    """
    with np.errstate(over="ignore"):
        near = t.astype(np.float32)
    return np.where(near.astype(np.float64) > t, np.nextafter(near, np.float32(-np.inf)), near)

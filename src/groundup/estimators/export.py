"""A fitted estimator to its core ONNX graph: ``features`` (N, ...) float32 -> ``scores`` (N, n_outputs) float32.

Every estimator goes through skl2onnx's registry of converters; ours, and those that skl2onnx gets wrong with the ONNX
of today, are in ``_converters.py`` and registered there too, so that they also work inside a Pipeline or a vote.

Scores are what ``predict_proba`` answers, with a column for every class of the task (a class that the training rows
lacked has probability 0); a classifier without probabilities gives its vote, one-hot; a regressor its value, (N, 1).
"""

from __future__ import annotations

import contextlib
import math
import warnings
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from groundup.errors import MissingExtraError, ModelError

if TYPE_CHECKING:
    import onnx

OPSET, ML_OPSET, IR_VERSION = 20, 3, 10

_IN_DOUBLE = {"GaussianProcessRegressor", "GaussianProcessClassifier"}
"""Kernel matrices lose more than 1e-5 in float32, so their graph computes in float64 inside."""

_BROKEN = {
    "RadiusNeighborsClassifier": "its graph fails at run time; KNeighborsClassifier exports",
    "RadiusNeighborsRegressor": "its graph fails at run time; KNeighborsRegressor exports",
}


def supports(estimator: Any) -> str | None:
    """Why an estimator, fitted or not, cannot be exported; None where nothing is known to stand against it.

    Looks at the class and at the estimators inside (steps, members of a vote).
    """
    _register()
    from skl2onnx._parse import sklearn_operator_name_map

    for part in _parts(estimator):
        name = type(part).__name__
        if name in _BROKEN:
            return f"{name} cannot be exported to ONNX: {_BROKEN[name]}"
        if type(part) not in sklearn_operator_name_map and name not in ("Pipeline", "ColumnTransformer", "FeatureUnion"):
            return (
                f"{type(part).__module__}.{name} has no converter to ONNX; choose another estimator, "
                "or register one with skl2onnx.update_registered_converter in the module that defines it"
            )
    return None


def export_estimator(estimator: Any, n_features: int | Sequence[int], n_outputs: int) -> onnx.ModelProto:
    """Export a fitted estimator, checked by ``onnx.checker`` and loaded once by ONNX Runtime.

    Args:
        estimator: a classifier fitted on class indices 0..n_outputs-1, or a regressor.
        n_features: number of features, or the shape of one example, which the graph then flattens.
        n_outputs: number of classes, or 1 for a regressor.

    Raises:
        ModelError: a converter is missing or fails; names it.
    """
    import onnx
    import onnxruntime
    from sklearn.base import is_classifier

    while hasattr(estimator, "best_estimator_"):  # a search answers as the best that it found
        estimator = estimator.best_estimator_
    if reason := supports(estimator):
        raise ModelError(reason)
    shape = (n_features,) if isinstance(n_features, int) else tuple(n_features)
    name = type(estimator).__name__
    classifier = is_classifier(estimator)
    raw = _convert(estimator, math.prod(shape), classifier)
    if classifier:
        found = getattr(estimator, "classes_", None)
        if found is None or not np.issubdtype(np.asarray(found).dtype, np.integer):
            raise ModelError(f"{name}: expected to be fitted on class indices 0..{n_outputs - 1}, its classes_ are {found!r}")
        if found[0] < 0 or found[-1] >= n_outputs:
            raise ModelError(f"{name}: it was fitted on the classes {list(found)}, not all below n_outputs = {n_outputs}")
    model = _finish(raw, estimator, shape, n_outputs, classifier)
    onnx.checker.check_model(model)
    try:
        onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    except Exception as e:  # ONNX Runtime's errors have no common base
        raise ModelError(f"{name}: ONNX Runtime refuses its graph: {e}") from e
    return model


def _convert(estimator: Any, n_features: int, classifier: bool) -> onnx.ModelProto:
    """skl2onnx's graph: ``flat`` -> its own outputs, without the dictionaries that it wraps probabilities in."""
    from skl2onnx import to_onnx
    from skl2onnx.common.data_types import DoubleTensorType, FloatTensorType
    from skl2onnx.common.exceptions import MissingConverter, MissingShapeCalculator

    in_double = any(type(part).__name__ in _IN_DOUBLE for part in _parts(estimator))
    tensor = (DoubleTensorType if in_double else FloatTensorType)([None, n_features])
    options = {id(estimator): {"zipmap": False}} if classifier and _takes_zipmap(estimator) else None
    try:
        with _quiet():
            raw: onnx.ModelProto = to_onnx(
                estimator, initial_types=[("flat", tensor)], options=options, target_opset={"": OPSET, "ai.onnx.ml": ML_OPSET}
            )
    except ModelError:
        raise
    except (MissingConverter, MissingShapeCalculator) as e:
        raise ModelError(f"{type(estimator).__name__} has no converter to ONNX: {str(e).strip().splitlines()[0]}") from e
    except (NotImplementedError, RuntimeError, ValueError, TypeError, AttributeError, KeyError, IndexError, NameError) as e:
        first = (str(e).strip() or "no message").splitlines()[0]
        raise ModelError(f"{type(estimator).__name__} cannot be converted to ONNX: {type(e).__name__}: {first}") from e
    return raw


def _finish(raw: onnx.ModelProto, estimator: Any, shape: tuple[int, ...], n_outputs: int, classifier: bool) -> onnx.ModelProto:
    """Between ``features`` and ``scores``: flatten in front; behind, probabilities or one-hot votes in float32, a column a class."""
    from onnx import TensorProto, helper, numpy_helper

    nodes, constants = list(raw.graph.node), list(raw.graph.initializer)

    def constant(name: str, value: Any) -> str:
        constants.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def node(op: str, inputs: list[str], output: str, **attributes: Any) -> str:
        nodes.append(helper.make_node(op, inputs, [output], **attributes))
        return output

    def as_float(value: onnx.ValueInfoProto) -> str:
        if value.type.tensor_type.elem_type == TensorProto.FLOAT:
            return str(value.name)
        return node("Cast", [value.name], "groundup_float", to=TensorProto.FLOAT)

    tensor_type = raw.graph.input[0].type.tensor_type.elem_type
    front = [
        helper.make_node("Flatten", ["features"], ["groundup_flat"], axis=1),  # one row an example, whatever its shape
        helper.make_node("Cast", ["groundup_flat"], ["flat"], to=tensor_type),
    ]
    outputs = raw.graph.output
    if not classifier:
        node("Reshape", [as_float(outputs[0]), constant("groundup_column", np.array([-1, 1], np.int64))], "scores")
    elif hasattr(estimator, "predict_proba"):
        # Sums in float32 stray from [0, 1] by a unit in the last place: a forest of certain trees answers 1.0000001.
        bounds = [constant(f"groundup_{v}", np.float32(v)) for v in (0, 1)]
        p = node("Clip", [as_float(outputs[1]), *bounds], "groundup_probabilities")
        columns = np.eye(n_outputs, dtype=np.float32)[np.asarray(estimator.classes_)]  # (classes seen, n_outputs)
        if len(columns) == n_outputs:
            node("Identity", [p], "scores")
        else:
            node("MatMul", [p, constant("groundup_columns", columns)], "scores")
    else:
        vote = node("Reshape", [outputs[0].name, constant("groundup_row", np.array([-1], np.int64))], "groundup_vote")
        depth = constant("groundup_depth", np.array([n_outputs], np.int64))
        off_on = constant("groundup_off_on", np.array([0, 1], np.float32))
        node("OneHot", [vote, depth, off_on], "scores")
    graph = helper.make_graph(
        _without_idle(_needed([*front, *nodes], "scores"), len(shape), tensor_type),
        type(estimator).__name__,
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, ["N", *shape])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["N", n_outputs])],
        constants,
    )
    used = {name for n in graph.node for name in n.input}
    kept = [c for c in graph.initializer if c.name in used]
    del graph.initializer[:]
    graph.initializer.extend(kept)
    domains = {n.domain for n in graph.node} | {""}
    versions = {o.domain: o.version for o in raw.opset_import} | {"": OPSET}
    opsets = [helper.make_opsetid(domain, versions.get(domain, 1)) for domain in sorted(domains)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=min(raw.ir_version, IR_VERSION), producer_name="groundup")


def _needed(nodes: list[Any], output: str) -> list[Any]:
    """The nodes that the output depends on, in order: labels are not computed where only probabilities are asked for."""
    wanted, kept = {output}, []
    for n in reversed(nodes):
        if wanted & set(n.output):
            kept.append(n)
            wanted |= set(n.input)
    return kept[::-1]


def _without_idle(nodes: list[Any], rank: int, tensor_type: int) -> list[Any]:
    """Leave out the Flatten in front where features are flat already, and the Cast where they have the type already."""
    from onnx import TensorProto

    renamed = {}
    if rank == 1:
        renamed["groundup_flat"] = "features"
    if tensor_type == TensorProto.FLOAT:
        renamed["flat"] = renamed.get("groundup_flat", "groundup_flat")
    kept = [n for n in nodes if n.output[0] not in renamed]
    for n in kept:
        n.input[:] = [renamed.get(name, name) for name in n.input]
    return kept


def _parts(estimator: Any) -> Iterator[Any]:
    """The estimator and, recursively, those inside it: fitted ones where it is fitted."""
    from sklearn.base import BaseEstimator

    yield estimator
    for value in estimator.get_params(deep=False).values():
        for inner in _estimators_in(value, BaseEstimator):
            yield from _parts(inner)


def _estimators_in(value: Any, base: type) -> Iterator[Any]:
    if isinstance(value, base):
        yield value
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _estimators_in(each, base)


def _takes_zipmap(estimator: Any) -> bool:
    """Whether its converter wraps probabilities in dictionaries unless told not to."""
    from skl2onnx._parse import sklearn_operator_name_map
    from skl2onnx.common._registration import get_converter

    final = estimator
    while hasattr(final, "steps"):
        final = final.steps[-1][1]
    return "zipmap" in (get_converter(sklearn_operator_name_map[type(final)]).get_allowed_options() or {})


def _register() -> None:
    """Make our converters known to skl2onnx, once."""
    try:
        with _quiet():
            import skl2onnx  # noqa: F401 - is it there?
    except ImportError as e:
        raise MissingExtraError("skl2onnx", "train", "exporting an estimator") from e
    from groundup.estimators import _converters

    _converters.register()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the deprecation notices that skl2onnx causes in other libraries; what fails still raises."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield

"""Transform, core and postprocessing in one ONNX graph: a raw record in, an answer out.

    raw inputs ─► transform ─► features (N, *shape) ─► core ─► scores (N, n_outputs) ─► post ─► answers

    classification   probabilities = softmax(scores), or scores where they are probabilities already
                     label = classes[argmax(probabilities)]
    regression       prediction = scores[:, 0] · scale + shift

The three parts keep their names under a prefix each, so no name of one can capture one of another.  What an exporter
left behind is dropped: stack traces with the paths of the machine that exported, shapes that are inferred again
anyway, opset imports that nothing uses.  The same parts give the same bytes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

import groundup
from groundup.errors import ModelError

if TYPE_CHECKING:
    import onnx

Scores = Literal["logits", "probabilities", "values"]

MAX_IR_VERSION = 10
"""What ONNX Runtime has read since 1.18, so that a bundle also runs on servers older than the machine that made it."""


def assemble(
    transform: onnx.ModelProto,
    core: onnx.ModelProto,
    *,
    scores: Scores,
    classes: Sequence[str] | None = None,
    target_scale: tuple[float, float] = (1.0, 0.0),
) -> onnx.ModelProto:
    """Join the parts of a model into the complete graph that is served.

    Args:
        transform: raw inputs -> ``features`` float32 (N, *shape).
        core: one input float32 (N, *shape) -> one output float32 (N, n_outputs).
        scores: what the core gives: "logits" and "probabilities" (N, n_classes), or "values" (N, 1).
        classes: class names in the order of the core's columns; None for "values".
        target_scale: (scale, shift) of a regression.

    Returns:
        A checked model with the inputs of ``transform`` and the outputs ``label`` (N,) string and ``probabilities``
        (N, n_classes) float32, or ``prediction`` (N,) float32.  The batch axis of each is called ``N``.

    Raises:
        ModelError: the parts do not fit together, an input has the name of an output, or a part is not valid ONNX.
    """
    import onnx
    from onnx import compose

    if (scores == "values") != (classes is None):
        raise ModelError(f"scores are {scores!r} but classes are {classes!r}: a regression has no classes, a classification needs them")
    _expect_one(core, "core")
    if [o.name for o in transform.graph.output] != ["features"]:
        raise ModelError(f"the transform graph gives {[o.name for o in transform.graph.output]}, expected ['features']")
    outputs = ("prediction",) if classes is None else ("label", "probabilities")
    if taken := [i.name for i in transform.graph.input if i.name in outputs]:
        raise ModelError(f"the input {taken[0]!r} has the name of an output of the served graph; rename the column in the source")

    try:
        transform, core = clean(transform), clean(core)
        versions = {d: max(_opset(part, d) for part in (transform, core)) for part in (transform, core) for d in _imports(part)}
        transform, core = _at_opsets(transform, versions), _at_opsets(core, versions)
        _expect_fit(transform, core, classes)
        post = _post(versions[""], scores, classes, target_scale, n_outputs=_dim(core.graph.output[0], 1))
        transform = compose.add_prefix(transform, "transform/", rename_inputs=False)
        core = compose.add_prefix(core, "core/")
        model = compose.merge_models(transform, core, io_map=[("transform/features", core.graph.input[0].name)])
        model = compose.merge_models(model, post, io_map=[(core.graph.output[0].name, "scores")])
        return _finish(model, outputs)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError, ValueError) as e:
        if isinstance(e, ModelError):
            raise
        raise ModelError(f"transform, core and postprocessing cannot be joined into one ONNX graph: {e}") from e


def clean(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy without what an exporter leaves behind: local functions inlined, traces, inferred shapes and unused opsets gone."""
    import onnx
    from onnx import inliner

    copy = onnx.ModelProto()
    copy.CopyFrom(inliner.inline_local_functions(model) if model.functions else model)
    del copy.metadata_props[:]
    copy.doc_string = ""
    _clean_graph(copy.graph)
    _drop_unused_constants(copy.graph)
    used = _domains(copy.graph)
    imports = sorted({(_domain(o.domain), o.version) for o in copy.opset_import if _domain(o.domain) in used | {""}})
    del copy.opset_import[:]
    copy.opset_import.extend(onnx.helper.make_opsetid(domain, version) for domain, version in imports)
    return copy


def _drop_unused_constants(graph: onnx.GraphProto) -> None:
    """Remove initializers that nothing reads, in no graph inside this one either; a quantizer leaves scales of tensors it kept in float."""

    def read(inside: onnx.GraphProto) -> set[str]:
        names = {o.name for o in inside.output}
        for node in inside.node:
            names.update(node.input)
            for attribute in node.attribute:
                for nested in (attribute.g, *attribute.graphs):
                    names |= read(nested)
        return names

    used = read(graph)
    kept = [c for c in graph.initializer if c.name in used]
    del graph.initializer[:]
    graph.initializer.extend(kept)


def to_bytes(model: onnx.ModelProto) -> bytes:
    """The model's bytes; equal models give equal bytes."""
    data: bytes = model.SerializeToString(deterministic=True)
    return data


def identity(core: onnx.ModelProto) -> onnx.ModelProto:
    """A transform that gives its ``input`` as ``features``, shaped as the core takes them."""
    from onnx import ValueInfoProto, helper

    _expect_one(core, "core")
    left, right = ValueInfoProto(), ValueInfoProto()
    for value, name in ((left, "input"), (right, "features")):
        value.CopyFrom(core.graph.input[0])
        value.name = name
    graph = helper.make_graph([helper.make_node("Identity", ["input"], ["features"])], "identity", [left], [right])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", _opset(core))], ir_version=MAX_IR_VERSION)


def _finish(model: onnx.ModelProto, outputs: Sequence[str]) -> onnx.ModelProto:
    """Name the batch axis, state the producer, check."""
    import onnx

    model = clean(model)
    for value in (*model.graph.input, *model.graph.output):
        axis = value.type.tensor_type.shape.dim[0]
        axis.Clear()
        axis.dim_param = "N"
    order = {name: i for i, name in enumerate(outputs)}
    ordered = sorted(model.graph.output, key=lambda o: order[o.name])
    del model.graph.output[:]
    model.graph.output.extend(ordered)
    model.graph.name = "groundup"
    model.producer_name, model.producer_version = "groundup", groundup.__version__
    model.doc_string = "raw record -> transform -> core -> answer, made by groundup"
    model.ir_version = MAX_IR_VERSION
    onnx.checker.check_model(model, full_check=True)
    return model


def _post(
    opset: int, scores: Scores, classes: Sequence[str] | None, target_scale: tuple[float, float], *, n_outputs: int | None
) -> onnx.ModelProto:
    """scores (N, n_outputs) -> the answers."""
    from onnx import TensorProto, helper, numpy_helper

    nodes: list[onnx.NodeProto] = []
    constants: list[onnx.TensorProto] = []

    def constant(name: str, value: np.ndarray[Any, Any]) -> str:
        constants.append(numpy_helper.from_array(value, name=f"post/{name}"))
        return f"post/{name}"

    def node(op: str, inputs: list[str], output: str, **attributes: Any) -> str:
        nodes.append(helper.make_node(op, inputs, [output], name=f"post/{op}_{len(nodes)}", **attributes))
        return output

    if classes is None:
        scale, shift = target_scale
        node("Squeeze", ["scores", constant("axis", np.array([1], np.int64))], "post/values")
        node("Mul", ["post/values", constant("scale", np.array(scale, np.float32))], "post/scaled")
        node("Add", ["post/scaled", constant("shift", np.array(shift, np.float32))], "prediction")
        outputs = [helper.make_tensor_value_info("prediction", TensorProto.FLOAT, ["N"])]
    else:
        node(*(("Softmax", ["scores"], "probabilities") if scores == "logits" else ("Identity", ["scores"], "probabilities")))
        # The label comes from the scores: softmax in float32 can round two large logits to the same probability.
        node("ArgMax", ["scores"], "post/index", axis=1, keepdims=0)
        node("Gather", [constant("classes", np.array([str(c) for c in classes], object)), "post/index"], "label", axis=0)
        outputs = [
            helper.make_tensor_value_info("label", TensorProto.STRING, ["N"]),
            helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["N", len(classes)]),
        ]
    inputs = [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["N", n_outputs])]
    graph = helper.make_graph(nodes, "post", inputs, outputs, initializer=constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=MAX_IR_VERSION)


def _imports(model: onnx.ModelProto) -> list[str]:
    return [_domain(o.domain) for o in model.opset_import]


def _opset(model: onnx.ModelProto, domain: str = "") -> int:
    return next((int(o.version) for o in model.opset_import if _domain(o.domain) == domain), 0)


def _at_opsets(model: onnx.ModelProto, versions: Mapping[str, int]) -> onnx.ModelProto:
    """The model at these versions of the operator sets that it uses; merging demands the same in every part.

    ONNX converts between versions of its default operator set only.  In others a node may be raised as it is where the
    newer version knows all of its attributes.
    """
    from onnx import version_converter

    if _opset(model) != versions[""]:
        try:
            model = version_converter.convert_version(model, versions[""])
        except RuntimeError as e:
            raise ModelError(f"{model.graph.name}: cannot be converted from ONNX opset {_opset(model)} to {versions['']}: {e}") from e
    for imported in model.opset_import:
        domain = _domain(imported.domain)
        if domain and imported.version != versions[domain]:
            _expect_raisable(model.graph, domain, versions[domain])
            imported.version = versions[domain]
    model.ir_version = MAX_IR_VERSION
    return model


def _expect_raisable(graph: onnx.GraphProto, domain: str, version: int) -> None:
    from onnx import defs

    for node in graph.node:
        if node.domain == domain:
            try:
                schema = defs.get_schema(node.op_type, version, domain)
                unknown = [a.name for a in node.attribute if a.name not in schema.attributes]
            except defs.SchemaError:
                unknown = ["the operator itself"]
            else:
                unknown += ["deprecated"] if schema.deprecated else []
            if unknown:
                raise ModelError(f"{node.op_type} ({domain}) cannot be raised to version {version}, which lacks {', '.join(unknown)}")


def _expect_one(core: onnx.ModelProto, name: str) -> None:
    if len(core.graph.input) != 1 or len(core.graph.output) != 1:
        got = f"{[i.name for i in core.graph.input]} -> {[o.name for o in core.graph.output]}"
        raise ModelError(f"the {name} graph must have one input (features) and one output (scores), got {got}")


def _dim(value: onnx.ValueInfoProto, axis: int) -> int | None:
    """A fixed dimension, or None where it is dynamic or unknown."""
    dims = value.type.tensor_type.shape.dim
    return int(dims[axis].dim_value) if len(dims) > axis and dims[axis].HasField("dim_value") else None


def _expect_fit(transform: onnx.ModelProto, core: onnx.ModelProto, classes: Sequence[str] | None) -> None:
    left, right = transform.graph.output[0], core.graph.input[0]
    given, taken = (len(v.type.tensor_type.shape.dim) for v in (left, right))
    shapes = [[_dim(v, axis) for axis in range(1, max(given, taken))] for v in (left, right)]
    if given != taken or any(a is not None and b is not None and a != b for a, b in zip(*shapes, strict=True)):
        raise ModelError(f"the transform gives features of shape (N, {shapes[0]}), the core takes (N, {shapes[1]})")
    n_outputs, expected = _dim(core.graph.output[0], 1), 1 if classes is None else len(classes)
    if n_outputs is not None and n_outputs != expected:
        raise ModelError(f"the core gives {n_outputs} scores a row, expected {expected}")


def _clean_graph(graph: onnx.GraphProto) -> None:
    graph.doc_string = ""
    del graph.metadata_props[:]
    del graph.value_info[:]
    for part in (*graph.input, *graph.output, *graph.initializer, *graph.node):
        part.doc_string = ""
        del part.metadata_props[:]
    for node in graph.node:
        for attribute in node.attribute:
            for inner in (*attribute.graphs, *([attribute.g] if attribute.HasField("g") else [])):
                _clean_graph(inner)


def _domain(name: str) -> str:
    return "" if name == "ai.onnx" else name


def _domains(graph: onnx.GraphProto) -> set[str]:
    found = set()
    for node in graph.node:
        found.add(_domain(node.domain))
        for attribute in node.attribute:
            for inner in (*attribute.graphs, *([attribute.g] if attribute.HasField("g") else [])):
                found |= _domains(inner)
    return found

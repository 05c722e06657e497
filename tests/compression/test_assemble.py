from __future__ import annotations

import cores
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from groundup.compression.assemble import MAX_IR_VERSION, assemble, clean, identity, to_bytes
from groundup.compression.graph import answers, session
from groundup.errors import ModelError


def softmax(z):
    e = np.exp(z - z.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


@pytest.mark.parametrize("core", ["mlp", "residual"])
def test_complete_graph_equals_its_parts(made, core):
    core = getattr(made, core)
    scores = answers(session(core), {"features": made.X})["scores"]
    given = answers(session(assemble(cores.image_transform(), core, scores="logits", classes=cores.DIGITS)), {"image": made.images})
    assert np.abs(given["probabilities"] - softmax(scores.astype(np.float64))).max() < 1e-6
    assert given["label"].tolist() == [cores.DIGITS[i] for i in scores.argmax(1)]
    assert (given["label"].astype(int) == made.y).mean() > 0.9


def test_batch_axis_is_dynamic_and_named(made):
    model = assemble(cores.image_transform(), made.mlp, scores="logits", classes=cores.DIGITS)
    assert {v.type.tensor_type.shape.dim[0].dim_param for v in (*model.graph.input, *model.graph.output)} == {"N"}
    assert [o.name for o in model.graph.output] == ["label", "probabilities"]
    running = session(model)
    for n in (1, 7, 31):
        label, probabilities = running.run(None, {"image": made.images[:n]})
        assert label.shape == (n,)
        assert probabilities.shape == (n, 10)


def test_the_label_survives_logits_whose_probabilities_are_equal_in_float32(made):
    """Softmax of (0, 200, 200 + 2**-17...) saturates; the label still follows the larger logit."""
    W = np.zeros((3, 2), np.float32)
    core = cores.model(
        [helper.make_node("Gemm", ["features", "W", "b"], ["scores"], transB=1)],
        [cores.value("features", ["N", 2])],
        [cores.value("scores", ["N", 3])],
        {"W": W, "b": np.array([0, 1e-9, 2e-9], np.float32)},
    )
    given = answers(
        session(assemble(identity(core), core, scores="logits", classes=["a", "b", "c"])), {"input": np.zeros((1, 2), np.float32)}
    )
    assert len(set(given["probabilities"][0].tolist())) == 1
    assert given["label"].tolist() == ["c"]


def test_regression_scales_back():
    X = np.random.default_rng(0).normal(size=(40, 3)).astype(np.float32)
    core = cores.linear_core(X, X @ [1.0, -2.0, 0.5])
    model = assemble(cores.table_transform(["a", "b", "c"]), core, scores="values", target_scale=(7.0, -11.0))
    given = answers(session(model), {n: X[:, i].astype(np.float64) for i, n in enumerate("abc")})
    scores = answers(session(core), {"features": X})["scores"]
    assert given["prediction"].shape == (40,)
    np.testing.assert_allclose(given["prediction"], scores[:, 0] * 7 - 11, rtol=1e-6, atol=1e-5)


def test_probabilities_pass_unchanged(made):
    core = cores.tree_core(made.features, np.resize(np.arange(10), len(made.features)))
    given = answers(session(assemble(identity(core), core, scores="probabilities", classes=cores.DIGITS)), {"input": made.X})
    direct = answers(session(core), {"features": made.X})["scores"]
    assert np.array_equal(given["probabilities"], direct)


@pytest.mark.parametrize(("left", "right"), [(18, 20), (20, 18), (21, 20), (17, 17)])
def test_operator_sets_are_aligned(made, left, right):
    core = cores.mlp_core(made.features, np.resize(np.arange(10), 1200), hidden=(8,), opset=right)
    model = assemble(cores.image_transform(left), core, scores="logits", classes=cores.DIGITS)
    assert [o.version for o in model.opset_import if o.domain == ""] == [max(left, right)]
    assert model.ir_version <= MAX_IR_VERSION
    assert session(model).run(None, {"image": made.images[:2]})[1].shape == (2, 10)


def ml_core(op, version, **attributes):
    nodes = [helper.make_node(op, ["features"], ["scores"], domain="ai.onnx.ml", **attributes)]
    graph = helper.make_graph(nodes, "ml", [cores.value("features", ["N", 3])], [cores.value("scores", ["N", 3])])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20), helper.make_opsetid("ai.onnx.ml", version)], ir_version=9)


def test_other_operator_sets_are_raised_where_that_changes_nothing():
    transform, core = ml_core("Normalizer", 3, norm="MAX"), ml_core("Scaler", 1, offset=[1.0], scale=[2.0])
    transform.graph.input[0].name = transform.graph.node[0].input[0] = "x"
    transform.graph.output[0].name = transform.graph.node[0].output[0] = "features"
    model = assemble(transform, core, scores="probabilities", classes=["a", "b", "c"])
    assert {o.domain: o.version for o in model.opset_import} == {"": 20, "ai.onnx.ml": 3}
    given = answers(session(model), {"x": np.array([[1, 2, 4]], np.float32)})
    np.testing.assert_allclose(given["probabilities"], [[-1.5, -1.0, 0.0]])


def test_a_node_that_a_newer_operator_set_would_change_is_refused():
    transform = ml_core("Normalizer", 3, norm="MAX")
    transform.graph.input[0].name = transform.graph.node[0].input[0] = "x"
    transform.graph.output[0].name = transform.graph.node[0].output[0] = "features"
    with pytest.raises(ModelError, match=r"LabelEncoder \(ai.onnx.ml\) cannot be raised to version 3, which lacks classes_strings"):
        assemble(transform, ml_core("LabelEncoder", 1, classes_strings=["a"]), scores="probabilities", classes=["a", "b", "c"])


def test_same_parts_give_the_same_bytes(made):
    first, second = (to_bytes(assemble(cores.image_transform(), made.residual, scores="logits", classes=cores.DIGITS)) for _ in range(2))
    assert first == second


def test_names_cannot_capture_one_another(made):
    """A transform whose inner names are those of the core and of the postprocessing."""
    nodes = [
        helper.make_node("Cast", ["image"], ["scores"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["scores", "W0"], ["label"]),
        helper.make_node("Transpose", ["label"], ["features"], perm=[0, 3, 1, 2]),
    ]
    transform = cores.model(
        nodes,
        [cores.value("image", ["N", 8, 8, 1], TensorProto.UINT8)],
        [cores.value("features", ["N", 1, 8, 8])],
        {"W0": np.float32([1 / 16])},
    )
    given = answers(session(assemble(transform, made.mlp, scores="logits", classes=cores.DIGITS)), {"image": made.images})
    plain = answers(session(assemble(cores.image_transform(), made.mlp, scores="logits", classes=cores.DIGITS)), {"image": made.images})
    assert np.array_equal(given["probabilities"], plain["probabilities"])


def test_what_exporters_leave_behind_is_dropped(made):
    core = onnx.ModelProto()
    core.CopyFrom(made.mlp)
    core.graph.node[0].doc_string = "traced from /home/somebody/model.py"
    core.graph.node[0].metadata_props.add(key="stack_trace", value="File /home/somebody/model.py, line 3")
    core.metadata_props.add(key="host", value="/home/somebody")
    core.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    data = to_bytes(assemble(cores.image_transform(), core, scores="logits", classes=cores.DIGITS))
    assert b"somebody" not in data
    assert b"com.microsoft" not in data
    assert core.graph.node[0].doc_string, "the caller's model is left as it was"
    assert clean(core).graph.node[0].doc_string == ""


def test_local_functions_are_inlined():
    function = helper.make_function(
        "mine", "Double", ["a"], ["b"], [helper.make_node("Add", ["a", "a"], ["b"])], [helper.make_opsetid("", 20)]
    )
    graph = helper.make_graph(
        [helper.make_node("Double", ["features"], ["scores"], domain="mine")],
        "f",
        [cores.value("features", ["N", 3])],
        [cores.value("scores", ["N", 3])],
    )
    core = helper.make_model(
        graph, functions=[function], opset_imports=[helper.make_opsetid("", 20), helper.make_opsetid("mine", 1)], ir_version=9
    )
    model = assemble(identity(core), core, scores="probabilities", classes=["a", "b", "c"])
    assert not model.functions
    X = np.array([[1, 2, 3]], np.float32)
    assert np.array_equal(answers(session(model), {"input": X})["probabilities"], 2 * X)


def refused(match, **changes):
    X = np.zeros((4, 3), np.float32)
    parts = {
        "transform": cores.table_transform(["a", "b", "c"]),
        "core": cores.linear_core(X, X[:, 0]),
        "scores": "values",
        "classes": None,
    } | changes
    with pytest.raises(ModelError, match=match):
        assemble(parts.pop("transform"), parts.pop("core"), **parts)


def test_parts_that_do_not_fit_are_refused():
    X = np.zeros((4, 3), np.float32)
    refused("a regression has no classes", classes=["a"])
    refused("a classification needs them", scores="logits")
    refused(r"features of shape \(N, \[2\]\), the core takes \(N, \[3\]\)", transform=cores.table_transform(["a", "b"]))
    refused("gives 1 scores a row, expected 2", scores="logits", classes=["a", "b"])
    refused("rename the column", transform=cores.table_transform(["a", "prediction", "c"]))
    two = cores.linear_core(X, X[:, 0])
    two.graph.output.append(cores.value("more", ["N", 1]))
    refused("one input .* and one output", core=two)
    renamed = cores.table_transform(["a", "b", "c"])
    renamed.graph.output[0].name = "column0"
    refused(r"expected \['features'\]", transform=renamed)
    broken = cores.linear_core(X, X[:, 0])
    broken.graph.node[0].input[0] = "nothing of that name"
    refused("cannot be joined", core=broken)


def test_constants_that_nothing_reads_are_left_out():
    _, X, y = cores.digits()
    core = cores.mlp_core(X.reshape(len(X), -1), y)
    kept = {c.name for c in clean(core).graph.initializer}
    core.graph.initializer.append(onnx.numpy_helper.from_array(np.float32(1), "left_behind"))
    assert {c.name for c in clean(core).graph.initializer} == kept

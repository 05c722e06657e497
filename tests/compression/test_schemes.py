"""The contract of every scheme, over the discovered list, and what each one promises beyond it."""

from __future__ import annotations

import logging

import cores
import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from groundup.compression import schemes
from groundup.compression.assemble import assemble, to_bytes
from groundup.compression.graph import answers, session
from groundup.compression.schemes import NotApplicable, Options, scheme

KINDS = ("mlp", "residual")
COMPRESSING = [name for name in schemes.names() if name != "fp32"]


def complete(core):
    return assemble(cores.image_transform(), core, scores="logits", classes=cores.DIGITS)


def accuracy(core, made):
    given = answers(session(complete(core)), {"image": made.images})
    return (given["label"].astype(int) == made.y).mean()


def operators(model):
    return [node.op_type for node in model.graph.node]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", schemes.names())
class TestContract:
    def test_the_compressed_core_fits_where_the_core_did(self, made, name, kind):
        model = complete(scheme(name).compress(getattr(made, kind), made.features[:64], Options()))
        label, probabilities = session(model).run(None, {"image": made.images[:3]})
        assert label.shape == (3,)
        assert probabilities.shape == (3, 10)
        np.testing.assert_allclose(probabilities.sum(1), 1, atol=1e-5)

    def test_accuracy_holds_on_rows_that_it_never_saw(self, made, name, kind):
        core = getattr(made, kind)
        before, after = accuracy(core, made), accuracy(scheme(name).compress(core, made.features[:256], Options()), made)
        assert before > 0.9
        assert before - after <= 0.01

    def test_same_inputs_give_the_same_bytes(self, made, name, kind):
        core = getattr(made, kind)
        one, two = (to_bytes(complete(scheme(name).compress(core, made.features[:64], Options()))) for _ in range(2))
        assert one == two

    def test_the_core_is_left_as_it_was(self, made, name, kind):
        core = getattr(made, kind)
        before = core.SerializeToString(deterministic=True)
        scheme(name).compress(core, made.features[:32], Options())
        assert core.SerializeToString(deterministic=True) == before

    def test_it_is_quiet(self, made, name, kind, capfd, caplog):
        with caplog.at_level(logging.WARNING):
            scheme(name).compress(getattr(made, kind), made.features[:32], Options())
        assert capfd.readouterr() == ("", "")
        assert not caplog.records

    def test_it_says_what_it_is(self, made, name, kind):
        found = scheme(name)
        assert found.name == name
        assert len(found.summary) > 10
        assert found.file.startswith("model")
        assert found.file.endswith(".onnx")


@pytest.mark.parametrize("name", COMPRESSING)
def test_it_is_smaller(made, name):
    plain = len(to_bytes(complete(made.mlp)))
    small = len(to_bytes(complete(scheme(name).compress(made.mlp, made.features[:64], Options()))))
    assert small < 0.6 * plain


def test_fp32_comes_first_and_is_the_core_itself(made):
    assert schemes.names()[0] == "fp32"
    assert scheme("fp32").compress(made.mlp, made.features[:1], Options()) is made.mlp


@pytest.mark.parametrize("kind", KINDS)
def test_static_int8_reaches_every_product(made, kind):
    core = getattr(made, kind)
    small = scheme("static_wi8_ai8").compress(core, made.features[:64], Options())
    assert "QuantizeLinear" in operators(small)
    assert schemes.products_int8(core) == 0
    assert schemes.products_int8(small) == len(schemes.products(core))
    running = session(complete(small))
    assert running.run(None, {"image": made.images[:1]})


def test_static_int8_is_fused_into_integer_kernels(made, tmp_path):
    """What the runtime makes of the QDQ form: integer operators, no floating-point product left."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    options.log_severity_level = 3
    small = complete(scheme("static_wi8_ai8").compress(made.residual, made.features[:64], Options()))
    onnxruntime.InferenceSession(small.SerializeToString(), options, providers=["CPUExecutionProvider"])
    kinds = operators(onnx.load(tmp_path / "optimized.onnx"))
    assert kinds.count("QLinearConv") == 3
    assert "QGemm" in kinds
    assert not {"Conv", "FusedConv", "Gemm", "FusedGemm", "MatMul"} & set(kinds)


def test_batch_normalization_is_folded_before_rounding(made):
    assert "BatchNormalization" in operators(made.residual)
    for name in COMPRESSING:
        assert "BatchNormalization" not in operators(scheme(name).compress(made.residual, made.features[:32], Options()))


def test_scores_stay_in_floating_point(made):
    small = scheme("static_wi8_ai8").compress(made.mlp, made.features[:64], Options())
    last = next(node for node in small.graph.node if "scores" in node.output)
    assert last.op_type == "Gemm"


def weights(model):
    return {i.name: numpy_helper.to_array(i) for i in model.graph.initializer if i.data_type == onnx.TensorProto.INT8 and len(i.dims) > 1}


@pytest.mark.parametrize("name", ["static_wi8_ai8", "dynamic_wi8_afp32"])
def test_reduce_range_keeps_weights_in_seven_bits(made, name):
    full = weights(scheme(name).compress(made.mlp, made.features[:64], Options(reduce_range=False)))
    seven = weights(scheme(name).compress(made.mlp, made.features[:64], Options(reduce_range=True)))
    assert len(full) == len(seven) == 3
    assert max(np.abs(w.astype(int)).max() for w in full.values()) > 64
    assert max(np.abs(w.astype(int)).max() for w in seven.values()) <= 64


@pytest.mark.parametrize("name", ["static_wi8_ai8", "dynamic_wi8_afp32"])
def test_per_channel_gives_a_scale_a_channel(made, name):
    def largest_scale(per_channel):
        model = scheme(name).compress(made.mlp, made.features[:64], Options(per_channel=per_channel))
        return max(int(np.prod(i.dims)) for i in model.graph.initializer if i.name.endswith("_scale"))

    assert largest_scale(False) == 1
    assert largest_scale(True) == 64


def test_calibration_methods_differ(made):
    """One outlier in 25,600 values: minmax keeps it, entropy and percentile cut it off."""
    X = made.features[:400].copy()
    X[0, 0, 0, 0] = 50
    small = cores.linear_core(X.reshape(400, -1), X[:, 0, 3, 3])
    X = X.reshape(400, -1)

    def input_scale(method):
        model = scheme("static_wi8_ai8").compress(small, X, Options(calibration=method))
        constants = {i.name: numpy_helper.to_array(i) for i in model.graph.initializer}
        return float(constants[next(node for node in model.graph.node if node.op_type == "QuantizeLinear").input[1]])

    assert input_scale("minmax") == pytest.approx(50 / 255, rel=0.01)
    assert input_scale("entropy") < 0.5 * 50 / 255
    assert input_scale("percentile") < 0.5 * 50 / 255


def test_dynamic_int8_leaves_convolutions_alone(made):
    small = scheme("dynamic_wi8_afp32").compress(made.residual, made.features[:1], Options())
    assert schemes.products_int8(small) == 1
    assert operators(small).count("Conv") == 3


def test_half_precision_weights_cost_no_arithmetic(made, tmp_path):
    """The runtime widens them when it loads: no Cast is left to run."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    options.log_severity_level = 3
    small = scheme("weight_only_wfp16_afp32").compress(made.residual, made.features[:1], Options())
    assert "Cast" in operators(small)
    onnxruntime.InferenceSession(small.SerializeToString(), options, providers=["CPUExecutionProvider"])
    assert "Cast" not in operators(onnx.load(tmp_path / "optimized.onnx"))


def test_half_precision_refuses_what_would_overflow(made):
    X = np.ones((4, 100), np.float32)
    core = cores.linear_core(X, X[:, 0])
    core.graph.initializer[0].CopyFrom(numpy_helper.from_array(np.full((1, 100), 1e6, np.float32), "W"))
    with pytest.raises(NotApplicable, match="no weights"):
        scheme("weight_only_wfp16_afp32").compress(core, X, Options())


@pytest.mark.parametrize("name", COMPRESSING)
def test_trees_are_an_outcome_not_an_error(made, name):
    core = cores.tree_core(made.features, np.resize(np.arange(10), len(made.features)))
    with pytest.raises(NotApplicable, match=r"trees hold no matrix product|no weights in 32-bit"):
        scheme(name).compress(core, made.features[:32], Options())


def test_a_core_without_products_says_what_it_is_made_of():
    identity = cores.model(
        [onnx.helper.make_node("Relu", ["features"], ["scores"])],
        [cores.value("features", ["N", 3])],
        [cores.value("scores", ["N", 3])],
        {},
    )
    with pytest.raises(NotApplicable, match="made of Relu"):
        schemes.expect_products(identity)

from __future__ import annotations

import cores
import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from pydantic import ValidationError

from groundup.bundle import cpu
from groundup.compression import schemes
from groundup.errors import Interrupted, ProofError, RecipeError
from groundup.lifecycle.compress import Calibration, Compress, Compressed, Measure, calibration_rows, compress
from groundup.lifecycle.stage import Context

QUICK = Measure(batches=(1, 8), seconds=0.02)


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    root = tmp_path_factory.mktemp("digits")
    prepared = cores.prepared_digits(root / "prepare")
    core = cores.residual_core(np.asarray(prepared.features("train")), prepared.targets("train"))
    return prepared, cores.trained(root / "train", core, "logits", prepared)


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    root = tmp_path_factory.mktemp("table")
    prepared, X, y = cores.prepared_table(root / "prepare")
    scale = (float(y.std()), float(y.mean()))
    return prepared, cores.trained(root / "train", cores.linear_core(X, (y - scale[1]) / scale[0]), "values", prepared, scale)


def run(section, stages, tmp_path, **context):
    out = tmp_path / "compress"
    out.mkdir()
    result = compress(section, *stages, out=out, context=Context(root=tmp_path, work=tmp_path, **context))
    return result.save(out)


def test_candidates_are_measured_and_what_is_chosen_is_proven(digits, tmp_path):
    result = run(Compress(measure=QUICK, percent_max_size=60), digits, tmp_path)
    assert [c.scheme for c in result.candidates] == list(schemes.names())
    for c in result.candidates:
        assert c.applicable, c.why
        assert c.bytes == (result.path / c.graph).stat().st_size
        assert set(c.latency) == {1, 8}
        assert c.metrics["test"]["accuracy"] > 0.9
        assert c.metrics["validation"].keys() == c.metrics["test"].keys()
    assert result.verdict.paid, result.verdict.reason
    assert result.chosen.bytes <= 0.6 * result.reference.bytes
    assert result.chosen.parity["label_agreement"] > 0.97
    proofs = result.proofs
    assert {p.link for p in proofs} == {3, 4}
    assert all(p.passed for p in proofs)
    assert Compressed.load(result.path) == result


def test_static_int8_was_honoured(digits, tmp_path):
    result = run(Compress(schemes=("static_wi8_ai8",), measure=QUICK), digits, tmp_path)
    candidate = result.candidates[1]
    assert (candidate.products, candidate.products_int8) == (4, 4)
    kinds = [n.op_type for n in onnx.load(result.path / candidate.graph).graph.node]
    assert kinds.count("QuantizeLinear") >= 4
    assert kinds.count("DequantizeLinear") >= 8


def test_not_compressing_is_an_answer(digits, tmp_path):
    result = run(Compress(measure=QUICK, min_speedup=1000), digits, tmp_path)
    assert not result.verdict.paid
    assert result.verdict.chosen == "fp32"
    assert result.graph == result.fp32 == "graphs/fp32.onnx"
    assert "at least 1e+03 × as fast" in result.verdict.reason
    assert {r.link for r in result.proofs} == {3}


def test_goals_that_no_rounding_keeps(digits, tmp_path):
    """A log loss that may not grow at all: int8 is refused for it, however small it is."""
    section = Compress.model_validate(
        {"max-degradation": {"log_loss": 0}, "percent-max-size": 50, "schemes": ["static_wi8_ai8"], "measure": QUICK}
    )
    result = run(section, digits, tmp_path)
    lost = result.candidates[1].degradation["validation"]["log_loss"]
    assert result.verdict.chosen == ("static_wi8_ai8" if lost.held else "fp32")
    assert lost.low <= lost.value <= lost.high
    assert lost.value != 0


def test_degradation_in_percent_of_fp32(table, tmp_path):
    result = run(Compress(percent_max_degradation={"rmse": 2}, measure=QUICK), table, tmp_path)
    for c in result.candidates[1:]:
        if c.applicable:
            assert c.degradation["validation"]["rmse"].allowed == pytest.approx(0.02 * result.reference.metrics["validation"]["rmse"])


def test_regression_with_missing_values(table, tmp_path):
    result = run(Compress(measure=QUICK), table, tmp_path)
    assert [r.passed for r in result.proofs if r.link == 3] == [True, True]
    assert result.candidates[schemes.names().index("weight_only_wfp16_afp32")].why.startswith("not applicable")


def test_trees_are_served_as_they_are(digits, tmp_path):
    prepared, _ = digits
    core = cores.tree_core(np.asarray(prepared.features("train")), prepared.targets("train"))
    trained = cores.trained(tmp_path / "train", core, "probabilities", prepared)
    result = run(Compress(measure=QUICK), (prepared, trained), tmp_path)
    assert result.verdict.chosen == "fp32"
    assert "trees hold no matrix product" in result.verdict.reason
    assert [c.applicable for c in result.candidates] == [True] + [False] * (len(schemes.names()) - 1)
    assert result.reference.metrics["test"]["accuracy"] > 0.85


class Tampered:
    """A trained model whose exported core is not the model: one weight is off."""

    def __init__(self, trained, by):
        self._trained, self._by = trained, by

    def __getattr__(self, name):
        return getattr(self._trained, name)

    def core(self):
        core = self._trained.core()
        tensor = next(i for i in core.graph.initializer if i.name == "read.W")
        values = numpy_helper.to_array(tensor).copy()
        values[3] += self._by
        tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
        return core


def test_an_export_that_changed_the_answers_stops_the_run_with_numbers(digits, tmp_path):
    prepared, trained = digits
    with pytest.raises(ProofError, match=r"nothing was packaged: \[FAILED\] made: .* largest absolute difference 0\.\d+ <= 1e-05"):
        run(Compress(measure=QUICK), (prepared, Tampered(trained, 0.01)), tmp_path)
    (tmp_path / "again").mkdir()
    with pytest.raises(ProofError):
        run(Compress(measure=QUICK), (prepared, Tampered(trained, 1e-4)), tmp_path / "again")


def test_a_transform_that_differs_stops_the_run(digits, tmp_path):
    prepared, _ = digits
    transform = cores.image_transform()
    transform.graph.initializer[0].CopyFrom(numpy_helper.from_array(np.array(1 / 15, np.float32), "scale"))
    original = (prepared.path / "transform.onnx").read_bytes()
    onnx.save(transform, prepared.path / "transform.onnx")
    try:
        with pytest.raises(ProofError, match="from raw records, preprocessing included"):
            run(Compress(measure=QUICK), digits, tmp_path)
    finally:
        (prepared.path / "transform.onnx").write_bytes(original)


def test_a_scheme_that_the_quantizer_cannot_do_is_an_outcome(digits, tmp_path, monkeypatch):
    def refuses(core, features, options):
        raise RuntimeError("this graph is beyond me")

    monkeypatch.setattr("groundup.compression.schemes.static_wi8_ai8.compress", refuses)
    result = run(Compress(schemes=("static_wi8_ai8",), measure=QUICK), digits, tmp_path)
    assert result.verdict.chosen == "fp32"
    assert "the quantizer refused this graph: this graph is beyond me" in result.verdict.reason


@pytest.mark.parametrize(
    ("asked", "vnni", "expected"), [("auto", True, False), ("auto", False, True), (True, True, True), (False, False, False)]
)
def test_reduce_range_follows_the_cpu_unless_told(digits, tmp_path, monkeypatch, asked, vnni, expected):
    monkeypatch.setattr(cpu, "has_vnni", lambda: vnni)
    result = run(Compress(schemes=("static_wi8_ai8",), reduce_range=asked, measure=Measure(batches=(1,), seconds=0.001)), digits, tmp_path)
    assert result.settings["reduce_range"] is expected
    graph = onnx.load(result.path / "graphs/static_wi8_ai8.onnx").graph
    largest = max(np.abs(numpy_helper.to_array(i).astype(int)).max() for i in graph.initializer if i.data_type == onnx.TensorProto.INT8)
    assert bool(largest <= 64) is expected


def test_calibration_rows_are_training_rows_and_repeatable(digits):
    prepared, _ = digits
    rows = calibration_rows(prepared, 50, seed=3)
    assert rows.shape == (50, 1, 8, 8)
    assert np.array_equal(rows, calibration_rows(prepared, 50, seed=3))
    assert not np.array_equal(rows, calibration_rows(prepared, 50, seed=4))
    known = {row.tobytes() for row in np.asarray(prepared.features("train"))}
    assert all(row.tobytes() in known for row in rows)
    assert len(calibration_rows(prepared, 10**6, seed=0)) == prepared.sizes["train"]


def test_a_stop_is_heard(digits, tmp_path):
    context = Context(root=tmp_path, work=tmp_path)
    context.stopping.set()
    (tmp_path / "out").mkdir()
    with pytest.raises(Interrupted):
        compress(Compress(measure=QUICK), *digits, out=tmp_path / "out", context=context)


def test_goals_of_another_task_are_refused(table, tmp_path):
    with pytest.raises(RecipeError, match="accuracy is not a metric of tabular-regression; it has r2"):
        run(Compress(max_degradation={"accuracy": 0.01}), table, tmp_path)


def test_a_goal_stands_once(table, tmp_path):
    with pytest.raises(RecipeError, match="keep one"):
        run(Compress(max_degradation={"rmse": 1}, percent_max_degradation={"rmse": 1}), table, tmp_path)


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"schemes": ["static_wi8"]}, "did you mean 'static_wi8_ai8'"),
        ({"max-degradation": {"acuracy": 0.1}}, "did you mean 'accuracy'"),
        ({"max-degradation": {"accuracy": -0.1}}, "at least 0"),
        ({"targets": ["litert"]}, "should be 'onnx'"),
        ({"measure": {"batches": [0]}}, "at least 1"),
        ({"measure": {"batches": [4, 4]}}, "different batch sizes"),
        ({"calibration": {"method": "guess"}}, "'minmax', 'entropy' or 'percentile'"),
        ({"min-speedup": 0}, "greater than 0"),
    ],
)
def test_sections_refuse_nonsense(section, message):
    with pytest.raises(ValidationError, match=message):
        Compress.model_validate(section)


def test_hyphens_and_underscores_are_both_read():
    hyphened = Compress.model_validate({"per-channel": False, "reduce-range": True, "percent-max-size": 40, "calibration": {"samples": 8}})
    assert hyphened == Compress(per_channel=False, reduce_range=True, percent_max_size=40, calibration=Calibration(samples=8))

from __future__ import annotations

import json

import cores
import numpy as np
import pytest

from groundup.bundle import Bundle
from groundup.compression.graph import answers, session
from groundup.errors import BundleError
from groundup.lifecycle.compress import Compress, Measure, compress
from groundup.lifecycle.evaluate import Evaluate, Gates, evaluate
from groundup.lifecycle.package import Package, golden_inputs, outputs_of, package
from groundup.lifecycle.stage import Context
from groundup.serving.engine import Engine
from groundup.serving.golden import read_golden


def stages(root, prepared, trained, section):
    for name in ("evaluate", "compress"):
        (root / name).mkdir()
    context = Context(root=root, work=root)
    evaluated = evaluate(Evaluate(bootstrap=100), Gates(), prepared, trained, out=root / "evaluate", context=context)
    compressed = compress(section, prepared, trained, out=root / "compress", context=context).save(root / "compress")
    return {"prepared": prepared, "trained": trained, "evaluated": evaluated, "compressed": compressed}


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    root = tmp_path_factory.mktemp("digits")
    prepared = cores.prepared_digits(root / "prepare")
    core = cores.residual_core(np.asarray(prepared.features("train")), prepared.targets("train"))
    trained = cores.trained(root / "train", core, "logits", prepared)
    # Small is the goal, so that what is chosen does not hang on how busy this machine is.
    section = Compress(schemes=("static_wi8_ai8",), percent_max_size=50, measure=Measure(batches=(1,), seconds=0.01))
    return stages(root, prepared, trained, section)


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    root = tmp_path_factory.mktemp("table")
    prepared, X, y = cores.prepared_table(root / "prepare")
    scale = (float(y.std()), float(y.mean()))
    trained = cores.trained(root / "train", cores.linear_core(X, (y - scale[1]) / scale[0]), "values", prepared, scale)
    return stages(root, prepared, trained, Compress(schemes=(), measure=Measure(batches=(1,), seconds=0.01)))


def run(made, tmp_path, section=None, **names):
    context = Context(root=tmp_path, work=tmp_path)
    names = {"name": "toy", "serve": {"batch": {"max_size": 8}}, "monitor": {"on-drift": "alert"}} | names
    return package(section or Package(), **names, **made, out=tmp_path, context=context).save(tmp_path)


def test_the_bundle_holds_what_serving_needs_and_nothing_else(digits, tmp_path):
    packaged = run(digits, tmp_path)
    bundle = Bundle.open(tmp_path / packaged.bundle)
    assert set(bundle.files) == {"model_quantized.onnx", "golden.npz", "profile.json", "proofs.json", "README.md"}
    assert bundle.graph == packaged.graph == "model_quantized.onnx"
    assert bundle.read(bundle.graph) == (digits["compressed"].path / digits["compressed"].graph).read_bytes()
    assert (bundle.version, bundle.size) == (packaged.version, packaged.size)
    assert bundle.task == "image-classification"
    assert bundle.serve == {"batch": {"max_size": 8}}
    assert bundle.metrics["accuracy"] == digits["compressed"].chosen.metrics["test"]["accuracy"]
    assert bundle.compression["scheme"] == "static_wi8_ai8"
    assert bundle.environment["cpu"]
    assert {"groundup", "onnxruntime", "numpy", "python"} <= bundle.environment.keys()
    assert len(bundle.code_hash) >= 8
    assert packaged.proofs == packaged.proofs_passed == len(bundle.proofs()) > 4


def test_the_server_accepts_it_and_its_golden_answers(digits, table, tmp_path):
    for name, made in (("digits", digits), ("table", table)):
        (tmp_path / name).mkdir()
        run(made, tmp_path / name)
        assert all(p.passed for p in Engine(Bundle.open(tmp_path / name / "bundle")).self_test())


def test_fp32_is_named_model_and_kept_beside_on_request(digits, table, tmp_path):
    assert run(table, tmp_path).graph == "model.onnx"
    (tmp_path / "both").mkdir()
    both = run(digits, tmp_path / "both", Package(keep_fp32=True))
    assert {"model.onnx", "model_quantized.onnx"} <= both.files.keys()
    assert both.graph == "model_quantized.onnx"


def test_golden_rows_hold_missing_values_and_edges(table, tmp_path):
    run(table, tmp_path)
    golden = read_golden(Bundle.open(tmp_path / "bundle").read("golden.npz"))
    bmi = golden.inputs["bmi"]
    assert len(bmi) == 32 + 4
    assert 1 < np.isnan(bmi[:32]).sum() <= 16, "rows of the test split with a missing value are among them"
    assert np.isnan(bmi[32]), "a record with everything missing that may be"
    assert not np.isnan(golden.inputs["age"][32]), "and nothing missing that may not"
    field = next(f for f in table["prepared"].signature_inputs() if f.name == "age")
    assert golden.inputs["age"][34:].tolist() == [field.minimum, field.maximum]
    given = answers(session((table["compressed"].path / "graphs/fp32.onnx").read_bytes()), golden.inputs)
    assert np.array_equal(given["prediction"], golden.outputs["prediction"])


def test_golden_tolerance_is_tight_for_fp32_and_rounding_for_int8(digits, table, tmp_path):
    for name, made, low, high in (("table", table, 1e-5, 1e-4), ("digits", digits, 1e-4, 0.05)):
        (tmp_path / name).mkdir()
        run(made, tmp_path / name)
        golden = read_golden(Bundle.open(tmp_path / name / "bundle").read("golden.npz"))
        assert low <= golden.tolerance <= high


def test_golden_rows_come_from_the_test_split(digits):
    picked = golden_inputs(digits["prepared"], 20, seed=0)["image"]
    known = {row.tobytes() for row in np.asarray(digits["prepared"].raw("test")["image"])}
    assert all(row.tobytes() in known for row in picked[:20])
    assert (picked[20] == 0).all()
    assert (picked[21] == 16).all(), "as bright as any that was seen"
    assert len(golden_inputs(digits["prepared"], 1000, seed=0)["image"]) == digits["prepared"].sizes["test"] + 2


def test_a_category_that_nobody_has_seen_is_among_the_edges():
    from groundup.bundle.signature import MISSING_DATETIME, Field
    from groundup.lifecycle.package import _edge_cases

    fields = [Field("town", "category", nullable=True), Field("when", "datetime", nullable=True, minimum=5, maximum=9)]
    picked = {"town": np.array(["Bern", "Thun"], object), "when": np.array([6, 7], np.int64)}
    edges = _edge_cases(fields, picked)
    assert edges["town"].tolist() == ["", "a category that nobody has seen", "Bern", "Bern"]
    assert edges["when"].tolist() == [MISSING_DATETIME, 6, 5, 9]
    assert edges["when"].dtype == np.int64
    assert picked["town"].tolist() == ["Bern", "Thun"]


def test_profile_has_inputs_and_outputs(digits, tmp_path):
    run(digits, tmp_path)
    profile = json.loads(Bundle.open(tmp_path / "bundle").read("profile.json"))
    assert profile["inputs"]["rows"] == digits["prepared"].sizes["train"]
    assert profile["outputs"]["rows"] == digits["prepared"].sizes["validation"] + digits["prepared"].sizes["test"]
    assert any("label" in name for name in profile["outputs"]["columns"])


def test_card_is_read_by_the_hub_and_tells_the_numbers(digits, tmp_path):
    import yaml

    run(digits, tmp_path, Package(license="apache-2.0", description="Reads one handwritten digit."))
    card = Bundle.open(tmp_path / "bundle").read("README.md").decode()
    _, front, body = card.split("---\n", 2)
    front = yaml.safe_load(front)
    assert front["license"] == "apache-2.0"
    assert front["pipeline_tag"] == "image-classification"
    accuracy = next(m for m in front["model-index"][0]["results"][0]["metrics"] if m["type"] == "accuracy")
    assert accuracy["value"] == digits["compressed"].chosen.metrics["test"]["accuracy"]
    assert "Reads one handwritten digit." in body
    for part in ("## Metrics", "baseline: ", "## Slices", "## Compression", "**paid**", "## Limits", "## Proofs", "groundup serve"):
        assert part in body
    value = digits["evaluated"].metrics["accuracy"]
    assert f"{value['value']:.4g}" in body
    assert f"{value['low']:.4g}" in body


def test_the_same_stages_give_the_same_version(digits, tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    assert run(digits, tmp_path / "one").version == run(digits, tmp_path / "two").version


def test_a_bundle_over_its_budget_names_the_largest_files(digits, tmp_path):
    with pytest.raises(BundleError, match=r"budget is 0.05 MB .*largest files: profile.json 0\.\d MB, model_quantized.onnx"):
        run(digits, tmp_path, Package(max_size_mb=0.05))
    assert not (tmp_path / "bundle").exists()


def test_nothing_is_pickled(digits, tmp_path):
    run(digits, tmp_path)
    bundle = Bundle.open(tmp_path / "bundle")
    with np.load(tmp_path / "bundle" / "golden.npz", allow_pickle=False) as golden:
        assert all(golden[name].dtype.kind in "fiuU" for name in golden.files)
    for name in bundle.files:
        assert not bundle.read(name).startswith(b"\x80"), name


def test_outputs_of_each_task(digits, table):
    label, probabilities = outputs_of(digits["prepared"])
    assert label.categories == cores.DIGITS
    assert probabilities.shape == (10,)
    assert [f.name for f in outputs_of(table["prepared"])] == ["prediction"]

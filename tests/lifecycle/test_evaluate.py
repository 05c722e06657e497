"""evaluate: from prepared data and a trained model to numbers, pictures, verdicts; the whole stage on small real data."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from sklearn.datasets import load_diabetes, load_digits
from sklearn.linear_model import LogisticRegression, Ridge

from groundup import metrics
from groundup.errors import GateError, Interrupted, ModelError, RecipeError
from groundup.lifecycle.evaluate import Evaluate, Evaluated, Gates, evaluate
from groundup.lifecycle.stage import Context


class Prepared:
    """What evaluate asks of prepared data, in memory."""

    def __init__(self, task, X, y, frame, inputs, target, classes=None, raw=None, seed=0):
        order = np.random.default_rng(seed).permutation(len(y))
        n = len(y)
        cuts = {"test": order[: n // 5], "validation": order[n // 5 : n // 3], "train": order[n // 3 :]}
        self.task, self.inputs, self.target, self.classes = task, inputs, target, classes
        self.n_outputs = len(classes) if classes else 1
        self.X, self.y, self._frame, self._raw, self.cuts = X, y, frame, raw, cuts

    def features(self, split):
        return self.X[self.cuts[split]]

    def targets(self, split):
        return self.y[self.cuts[split]]

    def frame(self, split):
        return self._frame.iloc[self.cuts[split]].reset_index(drop=True)

    def rows(self, split):
        return self.cuts[split]

    def raw(self, split):
        return {"image": self._raw[self.cuts[split]]}


class Trained:
    def __init__(self, answer):
        self.answers = answer


@pytest.fixture(scope="module")
def digits():
    d = load_digits()
    X = d.data.astype(np.float32) / 16
    classes = [str(c) for c in range(10)]
    frame = pd.DataFrame({"digit": d.target.astype(str)})
    raw = (d.images / 16 * 255).astype(np.uint8)[:, :, :, None]
    prepared = Prepared("image-classification", X, d.target, frame, [{"name": "image", "kind": "image"}], "digit", classes, raw)
    model = LogisticRegression(C=0.05, max_iter=500).fit(prepared.features("train"), prepared.targets("train"))
    return prepared, Trained(model.predict_proba)


@pytest.fixture(scope="module")
def diabetes():
    d = load_diabetes(as_frame=True, scaled=False)
    frame = d.frame.assign(sex=d.frame["sex"].map({1.0: "f", 2.0: "m"}))
    inputs = [{"name": c, "kind": "category" if c == "sex" else "number"} for c in d.feature_names]
    prepared = Prepared("tabular-regression", d.data.to_numpy(np.float32), d.target.to_numpy(), frame, inputs, "target")
    model = Ridge().fit(prepared.features("train"), prepared.targets("train"))
    return prepared, Trained(model.predict)


def run(section, gates, stage, tmp_path, **context):
    (tmp_path / "out").mkdir()
    result = evaluate(section, gates, *stage, out=tmp_path / "out", context=Context(tmp_path, tmp_path, **context))
    result.save(tmp_path / "out")
    return result


def test_images_to_the_end_and_back_from_disk(digits, tmp_path):
    gates = Gates.model_validate({"accuracy": {"threshold": 0.9, "slices": {"digit": 0.99}}, "baseline": {"max-degradation": 0.1}})
    e = run(Evaluate(worst=5), gates, digits, tmp_path)
    prepared, trained = digits
    y, p = prepared.targets("test"), trained.answers(prepared.features("test"))
    for name, value in metrics.compute(prepared.task, y, p).items():
        assert e.metrics[name]["value"] == pytest.approx(value)
        assert e.metrics[name]["low"] <= value <= e.metrics[name]["high"]
    assert e.n == len(y)
    assert e.baseline_which == "logistic regression"
    assert np.trace(e.confusion) == np.sum(p.argmax(1) == y)
    assert sum(b["n"] for b in e.calibration) == e.n
    assert {s["value"] for s in e.slices} == set("0123456789")
    assert [g.passed for g in e.gates[:2]] == [True, True]
    assert len(e.gates) == 12
    with pytest.raises(GateError, match=r"digit = \d"):
        e.require_gates()
    picture = np.asarray(Image.open(tmp_path / "out" / e.worst[0]["image"]))
    shown = prepared._raw[e.worst[0]["row"], :, :, 0]
    np.testing.assert_array_equal(picture, shown)
    assert e.worst[0]["truth"] != e.worst[0]["answer"]
    again = Evaluated.load(tmp_path / "out")
    assert again == e
    assert "NaN" not in (tmp_path / "out" / "output.json").read_text()


def test_tables_with_declared_slices(diabetes, tmp_path):
    section = Evaluate(slices=["bmi", {"age": [40, 60]}, "sex & age"], worst=3, bootstrap=200)
    gates = Gates.model_validate({"r2": {"threshold": 0.2}, "mae": {"slices": {"sex": 80, "age": 80}}})
    e = run(section, gates, diabetes, tmp_path)
    assert e.residuals["tenths"]
    assert e.confusion is None
    assert {"bmi", "age", "sex", "sex & age"} <= {s["column"] for s in e.slices}
    assert set(e.worst[0]["record"]) == set(diabetes[0].frame("test").columns) - {"target"}
    errors = np.abs(diabetes[0].targets("test") - diabetes[1].answers(diabetes[0].features("test")))
    assert e.worst[0]["loss"] == pytest.approx(errors.max())
    ages = [g.where for g in e.gates if g.where.startswith("age")]
    assert ages == ["age = below 40", "age = 40 to 60", "age = from 60"], "a gate takes the edges that the recipe declares"
    e.require_gates()
    json.dumps(e.model_dump(mode="json"), allow_nan=False)


def test_same_seed_same_output_another_seed_other_intervals(diabetes, tmp_path):
    made = []
    for i, s in enumerate((3, 3, 4)):
        (tmp_path / str(i)).mkdir()
        made.append(run(Evaluate(bootstrap=100), Gates(), diabetes, tmp_path / str(i), seed=s))
    assert made[0].model_dump() == made[1].model_dump()
    assert made[0].metrics["rmse"]["value"] == made[2].metrics["rmse"]["value"]
    assert made[0].metrics["rmse"]["low"] != made[2].metrics["rmse"]["low"]


def test_a_failing_gate_is_recorded_not_raised(diabetes, tmp_path):
    e = run(Evaluate(bootstrap=100), Gates.model_validate({"r2": {"threshold": 0.99}}), diabetes, tmp_path)
    assert not e.passed
    with pytest.raises(GateError, match="1 gate of 1 failed"):
        Evaluated.load(tmp_path / "out").require_gates()


def test_what_cannot_work_is_refused_before_the_work(diabetes, tmp_path):
    def never(features):
        raise AssertionError("the model was asked")

    for section, gates, words in (
        (Evaluate(slices=["bmj"]), Gates(), "did you mean 'bmi'"),
        (Evaluate(), Gates.model_validate({"accuracy": {"threshold": 0.9}}), "tabular-regression has no metric 'accuracy'"),
        (Evaluate(), Gates.model_validate({"mae": {"slices": {"sexx": 1}}}), "did you mean 'sex'"),
    ):
        with pytest.raises(RecipeError, match=words):
            evaluate(section, gates, diabetes[0], Trained(never), out=tmp_path, context=Context(tmp_path, tmp_path))


def test_answers_that_are_no_numbers_stop_it(diabetes, tmp_path):
    broken = Trained(lambda X: np.full(len(X), np.nan))
    with pytest.raises(ModelError, match="not finite for 88 of 88 rows of the test split"):
        evaluate(Evaluate(), Gates(), diabetes[0], broken, out=tmp_path, context=Context(tmp_path, tmp_path))


def test_stopping_is_heard(diabetes, tmp_path):
    context = Context(tmp_path, tmp_path)
    context.stopping.set()
    with pytest.raises(Interrupted):
        evaluate(Evaluate(), Gates(), *diabetes, out=tmp_path, context=context)

"""The baseline, calibration, mistakes and their pictures."""

from __future__ import annotations

import io

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from groundup.evaluation import baseline as baselines
from groundup.evaluation import calibration, mistakes, png


class Splits:
    def __init__(self, X, y, cut=(0.6, 0.8)):
        ends = [0, *(int(c * len(y)) for c in cut), len(y)]
        self.parts = {name: (X[a:b], y[a:b]) for name, a, b in zip(("train", "validation", "test"), ends[:-1], ends[1:], strict=True)}

    def features(self, split):
        return self.parts[split][0]

    def targets(self, split):
        return self.parts[split][1]


def data(n=500, width=5, seed=0):
    rng = np.random.default_rng(seed)
    return rng, rng.normal(size=(n, width)).astype(np.float32)


def test_the_linear_baseline_wins_where_there_is_something_linear():
    rng, X = data()
    y = (X[:, 0] + 0.3 * rng.normal(size=500) > 0).astype(np.int64)
    b = baselines.baseline("tabular-classification", Splits(X, y), 2, seed=0)
    assert b.which == "logistic regression"
    assert b.answers.shape == (100, 2)
    np.testing.assert_allclose(b.answers.sum(1), 1)
    assert b.validation["logistic regression"] > b.validation["majority class"]
    r = baselines.baseline("tabular-regression", Splits(X, X[:, 1] * 2.0 + 100), 1, seed=0)
    assert r.which == "ridge regression"
    assert r.validation["ridge regression"] > 0.99


def test_the_constant_baseline_wins_on_noise():
    rng, X = data(300, 60)
    y = (rng.random(300) < 0.15).astype(np.int64)
    b = baselines.baseline("tabular-classification", Splits(X, y), 2, seed=0)
    assert b.which == "majority class"
    assert np.all(b.answers.argmax(1) == 0)
    r = baselines.baseline("tabular-regression", Splits(X, rng.normal(size=300)), 1, seed=0)
    assert r.which == "mean"
    assert len(np.unique(r.answers)) == 1


def test_a_class_that_training_lacks_gets_no_probability_and_one_class_no_linear_model():
    _, X = data(100)
    y = np.where(X[:, 0] > 0, 2, 0)
    b = baselines.baseline("tabular-classification", Splits(X, y), 3, seed=0)
    assert np.all(b.answers[:, 1] == 0)
    same = baselines.baseline("tabular-classification", Splits(X, np.zeros(100, np.int64)), 2, seed=0)
    assert same.which == "majority class"


def test_large_training_splits_are_sampled_and_it_is_said(monkeypatch):
    monkeypatch.setattr(baselines, "_CELLS", 5 * 1000)
    _, X = data(5000)
    b = baselines.baseline("tabular-regression", Splits(X, X[:, 0].astype(float)), 1, seed=0)
    assert b.rows == 1000
    assert "1,000 of 3,000 training rows" in b.note


def test_images_are_flattened_and_missing_features_do_not_stop_it():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(200, 1, 4, 4)).astype(np.float32)
    y = (X[:, 0, 0, 0] > 0).astype(np.int64)
    X[3, 0, 1, 1] = np.nan
    assert baselines.baseline("image-classification", Splits(X, y), 2, seed=0).which == "logistic regression"


def test_reliability_counts_every_row_once():
    rng = np.random.default_rng(0)
    p = rng.dirichlet([1, 1, 1], 400)
    y = rng.integers(0, 3, 400)
    curve = calibration.reliability(y, p)
    assert sum(b["n"] for b in curve) == 400
    assert all(b["from"] <= b["confidence"] <= b["to"] and b["low"] <= b["accuracy"] <= b["high"] for b in curve)
    assert sum(b["accuracy"] * b["n"] for b in curve) / 400 == pytest.approx(np.mean(p.argmax(1) == y))


def test_confusion_pairs_and_classes_by_hand():
    y = np.array([0, 0, 0, 1, 1, 2])
    p = np.eye(4)[[0, 1, 1, 1, 0, 1]]
    assert calibration.confusion(y, p, 4) == [[1, 2, 0, 0], [1, 1, 0, 0], [0, 1, 0, 0], [0, 0, 0, 0]]
    pairs = calibration.confused_pairs(y, p, ["a", "b", "c", "d"])
    assert pairs[0] == {"truth": "a", "answer": "b", "n": 2, "share": pytest.approx(2 / 3)}
    rows = calibration.per_class(y, p, ["a", "b", "c", "d"])
    assert rows[1] == {"class": "b", "n": 2, "answered": 4, "precision": 0.25, "recall": 0.5, "f1": pytest.approx(1 / 3)}
    assert rows[3] == {"class": "d", "n": 0, "answered": 0, "precision": None, "recall": None, "f1": None}


def test_residuals_cover_all_rows():
    rng = np.random.default_rng(0)
    y = rng.normal(size=1000)
    r = calibration.residuals(y, y + rng.standard_cauchy(1000))
    assert sum(r["errors"]["counts"]) == 1000
    assert sum(t["n"] for t in r["tenths"]) == 1000
    assert len(r["points"]) <= 500
    same = calibration.residuals(y, y)
    assert sum(same["errors"]["counts"]) == 1000


def test_worst_are_only_mistakes_and_the_worst_first():
    y = np.array([0, 1, 0, 1])
    p = np.array([[0.6, 0.4], [0.9, 0.1], [0.4, 0.6], [0.2, 0.8]])
    assert mistakes.worst("tabular-classification", y, p, 5).tolist() == [1, 2]
    found = mistakes.describe("tabular-classification", y, p, 1, ["no", "yes"])
    assert found["truth"] == "yes"
    assert found["answer"] == "no"
    assert found["loss"] == pytest.approx(-np.log(0.1))
    assert mistakes.worst("tabular-regression", np.array([1.0, 2, 3]), np.array([1.5, 0, 3]), 2).tolist() == [1, 0]


def test_records_are_json():
    frame = pd.DataFrame(
        {"a": [np.float64("nan")], "b": [np.int64(3)], "c": [pd.Timestamp("2024-05-01")], "d": [pd.NaT], "e": ["x"], "f": [True]}
    )
    row = mistakes.record(frame.iloc[0].to_dict())
    assert row == {"a": None, "b": 3, "c": "2024-05-01T00:00:00", "d": None, "e": "x", "f": True}


@pytest.mark.parametrize("shape", [(8, 8), (5, 7, 1), (5, 7, 3), (5, 7, 4), (300, 200, 3), (1, 999, 1)])
def test_png_is_read_back_by_pillow(shape):
    image = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    read = np.asarray(Image.open(io.BytesIO(png.encode(image))))
    assert max(read.shape[:2]) <= 128
    if max(shape[:2]) <= 128:
        np.testing.assert_array_equal(read, image.reshape(read.shape))
    else:
        assert abs(read.mean() - image.mean()) < 8


def test_png_refuses_what_is_no_image():
    with pytest.raises(ValueError, match=r"expected a uint8 image .* got float64 \(4, 4\)"):
        png.encode(np.zeros((4, 4)))

"""Every metric equals scikit-learn's, plain and weighted, with ties, absent classes and degenerate samples."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from groundup import metrics

TASK, REG = "tabular-classification", "tabular-regression"


def reference(name: str, y, p, w=None):
    """scikit-learn's value, averaged over the classes present where it has no such average itself."""
    guess, K = p.argmax(1), p.shape[1]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        match name:
            case "accuracy":
                return sk.accuracy_score(y, guess, sample_weight=w)
            case "balanced_accuracy":
                return sk.balanced_accuracy_score(y, guess, sample_weight=w)
            case "f1":
                return sk.f1_score(y, guess, average="macro", sample_weight=w)
            case "mcc":
                return sk.matthews_corrcoef(y, guess, sample_weight=w)
            case "log_loss":
                return sk.log_loss(y, p, labels=range(K), sample_weight=w)
            case "roc_auc" | "average_precision":
                score = sk.roc_auc_score if name == "roc_auc" else sk.average_precision_score
                columns = [1] if K == 2 else range(K)
                has = [c for c in columns if (y == c).any() and (name == "average_precision" or (y != c).any())]
                return np.mean([score(y == c, p[:, c], sample_weight=w) for c in has]) if has else np.nan
    raise AssertionError(name)


@st.composite
def samples(draw, regression=False):
    n, K = draw(st.integers(2, 60)), draw(st.integers(2, 5))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    if regression:
        y = rng.normal(size=n).round(1) + draw(st.sampled_from([0.0, 1e6]))
        return y, y + rng.normal(size=n).round(1)
    present = draw(st.integers(1, K))  # classes above are absent from y
    logits = rng.normal(size=(n, K)) * draw(st.sampled_from([0.1, 3.0, 50.0]))
    if draw(st.booleans()):
        logits = logits.round(0)  # ties
    p = np.exp(logits - logits.max(1, keepdims=True))
    return rng.integers(0, present, n), p / p.sum(1, keepdims=True)


@settings(max_examples=150, deadline=None)
@given(samples())
def test_classification_equals_scikit_learn(sample):
    y, p = sample
    found = metrics.compute(TASK, y, p)
    for name, value in found.items():
        if name != "ece":
            np.testing.assert_allclose(value, reference(name, y, p), rtol=1e-10, atol=1e-12, err_msg=name)


@settings(max_examples=60, deadline=None)
@given(samples(), st.integers(0, 2**32 - 1))
def test_weights_equal_scikit_learns_sample_weight(sample, seed):
    y, p = sample
    W = np.random.default_rng(seed).integers(1, 4, (3, len(y))).astype(float)
    found = metrics.weighted(TASK, y, p)(W)
    for name, values in found.items():
        if name != "ece":
            np.testing.assert_allclose(values, [reference(name, y, p, w) for w in W], rtol=1e-9, atol=1e-11, err_msg=name)


@settings(max_examples=60, deadline=None)
@given(samples(), st.integers(0, 2**32 - 1))
def test_counts_are_repeated_rows(sample, seed):
    """A row of counts gives what the metric gives on the rows repeated: the meaning of a bootstrap replicate."""
    y, p = sample
    rows = np.random.default_rng(seed).integers(0, len(y), len(y))
    counts = np.bincount(rows, minlength=len(y)).astype(float)[None]
    for task, t, s in ((TASK, y, p), (REG, y.astype(float), p[:, 0])):
        replicate = {k: v[0] for k, v in metrics.weighted(task, t, s)(counts).items()}
        direct = metrics.compute(task, t[rows], s[rows])
        for name in direct:
            np.testing.assert_allclose(replicate[name], direct[name], rtol=1e-9, atol=1e-11, err_msg=name)


@settings(max_examples=100, deadline=None)
@given(samples(regression=True))
def test_regression_equals_scikit_learn(sample):
    y, f = sample
    found = metrics.compute(REG, y, f)
    expected = {
        "r2": sk.r2_score(y, f) if np.ptp(y) > 0 else np.nan,
        "mae": sk.mean_absolute_error(y, f),
        "rmse": sk.root_mean_squared_error(y, f),
        "median_ae": sk.median_absolute_error(y, f),
    }
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-9, atol=1e-9, err_msg=name)


def test_ece_by_hand():
    """Two bins: 0.9 said and 1 of 2 right, 0.6 said and 2 of 2 right: (2 × 0.4 + 2 × 0.4) / 4."""
    p = np.array([[0.9, 0.1], [0.9, 0.1], [0.6, 0.4], [0.4, 0.6]])
    assert metrics.compute(TASK, np.array([0, 1, 0, 1]), p, ("ece",))["ece"] == pytest.approx(0.4)


def test_undefined_is_nan_and_nothing_warns():
    assert np.isnan(metrics.compute(TASK, np.zeros(0, int), np.zeros((0, 3)))["accuracy"])
    assert np.isnan(metrics.compute(TASK, np.zeros(3, int), np.full((3, 2), 0.5))["roc_auc"])
    assert np.isnan(metrics.compute(REG, np.ones(3), np.arange(3.0))["r2"])


def test_r2_does_not_cancel_far_from_zero():
    y = np.array([1e9, 1e9 + 1, 1e9 + 2, 1e9 + 3])
    assert metrics.compute(REG, y, y + np.array([0.5, -0.5, 0.5, -0.5]), ("r2",))["r2"] == pytest.approx(0.8, rel=1e-9)


def test_every_metric_has_a_direction_and_a_task():
    assert set(metrics.CLASSIFICATION) | set(metrics.REGRESSION) == set(metrics.DIRECTIONS)
    assert metrics.headline("image-classification") == "accuracy"
    assert metrics.headline(REG) == "r2"


def test_a_metric_of_another_task_is_refused():
    with pytest.raises(ValueError, match="'r2' is no metric of tabular-classification; it has accuracy"):
        metrics.compute(TASK, np.array([0]), np.array([[1.0, 0.0]]), ("r2",))

"""Gates: what the goal words mean for metrics that are maximized and minimized, and the message that stops a run."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from groundup import metrics
from groundup.errors import GateError, RecipeError
from groundup.evaluation.gates import Gate, judge, judge_slices, table
from groundup.lifecycle.evaluate import Evaluated, Gates


@pytest.mark.parametrize(
    ("metric", "goals", "value", "reference", "passed"),
    [
        ("accuracy", {"threshold": 0.97}, 0.97, None, True),
        ("accuracy", {"threshold": 0.97}, 0.9699, None, False),
        ("rmse", {"threshold": 2.0}, 1.9, None, True),
        ("rmse", {"threshold": 2.0}, 2.1, None, False),
        ("accuracy", {"min-improvement": 0.02}, 0.98, 0.96, True),  # 0.98 − 0.96 is below 0.02 in floating point
        ("accuracy", {"min-improvement": 0.02}, 0.979, 0.96, False),
        ("rmse", {"min-improvement": 0.5}, 1.0, 1.5, True),
        ("rmse", {"min-improvement": 0.5}, 1.5, 1.0, False),
        ("accuracy", {"max-degradation": 0.01}, 0.95, 0.96, True),
        ("accuracy", {"max-degradation": 0.01}, 0.94, 0.96, False),
        ("log_loss", {"max-degradation": 0.01}, 0.30, 0.295, True),
        ("log_loss", {"max-degradation": 0.01}, 0.32, 0.295, False),
        ("rmse", {"percent-min-improvement": 10}, 0.9, 1.0, True),
        ("rmse", {"percent-min-improvement": 10}, 0.91, 1.0, False),
        ("r2", {"percent-max-degradation": 5}, 0.76, 0.8, True),
        ("r2", {"percent-max-degradation": 5}, 0.75, 0.8, False),
        ("r2", {"percent-min-improvement": 5}, -0.1, -0.2, True),  # a negative baseline: 50 % of its size better
        ("r2", {"percent-max-degradation": 5}, 0.5, 0.0, False),  # no percent of nothing
        ("roc_auc", {"threshold": 0.5}, None, None, False),  # undefined passes nothing
    ],
)
def test_goal_words(metric, goals, value, reference, passed):
    (outcome,) = judge(metric, metric, goals, value, reference, 100)
    assert outcome.passed is passed


def test_slices_must_each_reach_the_threshold():
    found = judge_slices("accuracy", "accuracy", "sex", 0.8, {"f": (0.9, 50), "m": (0.7, 60)})
    assert [(o.where, o.passed, o.n) for o in found] == [("sex = f", True, 50), ("sex = m", False, 60)]


def test_the_sections_keys_are_the_metrics():
    assert set(Gates.model_fields) == {"baseline", *metrics.DIRECTIONS}


def test_goal_words_are_read_with_hyphens():
    gates = Gates.model_validate({"accuracy": {"threshold": 0.9, "percent-max-degradation": 1}, "baseline": {"min-improvement": 0.02}})
    assert gates.accuracy.goals() == {"threshold": 0.9, "percent-max-degradation": 1}
    assert gates.baseline.goals() == {"min-improvement": 0.02}


def test_unknown_gates_are_refused_by_the_recipe_with_the_nearest():
    from groundup.recipe import Recipe

    sections = {"name": "x", "task": "tabular-classification", "data": {"source": "x.csv", "target": "y"}, "model": {"name": "mlp"}}
    with pytest.raises(RecipeError, match=r"'acuracy' in gates; did you mean 'accuracy'"):
        Recipe.of(**sections, gates={"acuracy": {"threshold": 0.9}})


def test_a_metric_of_another_task_is_refused_with_the_nearest():
    with pytest.raises(RecipeError, match=r"gates\.r2: image-classification has no metric 'r2'; it has accuracy"):
        Gates.model_validate({"r2": {"threshold": 0.9}}).check("image-classification")
    with pytest.raises(RecipeError, match=r"gates\.log_loss: tabular-regression has no metric"):
        Gates.model_validate({"log_loss": {"threshold": 0.9}}).check("tabular-regression")
    Gates.model_validate({"r2": {"threshold": 0.9}, "baseline": {"min-improvement": 0}}).check("tabular-regression")


def test_a_gate_without_a_goal_is_refused():
    with pytest.raises(ValidationError, match="this gate has no goal"):
        Gate()


def evaluated(outcomes):
    return Evaluated(
        task="tabular-classification", n=100, metrics={}, intervals={}, validation={}, baseline={}, baseline_which="mean", gates=outcomes
    )


def test_require_gates_raises_with_the_numbers():
    good = judge("accuracy", "accuracy", {"threshold": 0.9}, 0.95, None, 100)
    bad = judge("baseline", "accuracy", {"percent-min-improvement": 5}, 0.95, 0.94, 100)
    evaluated(good).require_gates()
    with pytest.raises(GateError) as caught:
        evaluated(good + bad).require_gates()
    message = str(caught.value)
    assert "1 gate of 2 failed on the 100 rows" in message
    failed, passed = message.splitlines()[2:4]
    assert failed.split() == ["FAILED", "baseline", "(accuracy)", "percent-min-improvement", "all", "1.064", "%", ">=", "5", "%", "100"]
    assert passed.split()[0] == "passed"


def test_the_table_says_undefined():
    assert "undefined" in table(judge("roc_auc", "roc_auc", {"threshold": 0.5}, None, None, 3))

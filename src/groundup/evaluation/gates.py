"""Gates: the numbers that a model must reach, judged and written down whether it does or not.

The goal words are those of Microsoft's Olive (docs, "Metrics": threshold, min-improvement, max-degradation and their
percent- forms).  For a metric that is minimized (log_loss, rmse, ...) the same words read the other way round:
``threshold`` is "at most", an improvement is a fall.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, Field, model_validator

from groundup import metrics
from groundup.sections import Section


class Gate(Section):
    """Goals for one metric; all that are given must hold."""

    threshold: float | None = None
    """At least this (for metrics that are minimized: at most)."""
    min_improvement: float | None = Field(None, alias="min-improvement")
    """Better than the baseline by at least this much."""
    max_degradation: float | None = Field(None, alias="max-degradation", ge=0)
    """Worse than the baseline by at most this much."""
    percent_min_improvement: float | None = Field(None, alias="percent-min-improvement")
    """Better than the baseline by at least this many percent of the baseline's value."""
    percent_max_degradation: float | None = Field(None, alias="percent-max-degradation", ge=0)
    """Worse than the baseline by at most this many percent of the baseline's value."""
    slices: dict[str, float] = Field(default_factory=dict)
    """Column -> threshold that the metric must reach on every one of the column's slices."""

    @model_validator(mode="after")
    def _has_a_goal(self) -> Gate:
        if not self.goals() and not self.slices:
            raise ValueError("this gate has no goal; give threshold, min-improvement, max-degradation, percent-... or slices")
        return self

    def goals(self) -> dict[str, float]:
        """The goals that were given, spelled as in a recipe, without ``slices``."""
        given = {(info.alias or name): getattr(self, name) for name, info in type(self).model_fields.items() if name != "slices"}
        return {name: value for name, value in given.items() if value is not None}


class Outcome(BaseModel):
    """One goal, judged.

    Attributes:
        gate: the key under ``gates``: a metric, or "baseline".
        metric: the metric that was looked at.
        goal: "threshold", "min-improvement", ...
        where: "" for the whole test split, or "column = value".
        measured: the metric here, or its difference from the baseline for the relative goals; None where undefined.
        bound: what it is held against, in the same unit.
        at_least: whether measured must be at least (else at most) the bound.
        reference: the baseline's value, for the relative goals.
    """

    gate: str
    metric: str
    goal: str
    where: str = ""
    measured: float | None
    bound: float
    at_least: bool
    reference: float | None = None
    n: int
    passed: bool


def judge(gate: str, metric: str, goals: Mapping[str, float], value: float | None, reference: float | None, n: int) -> list[Outcome]:
    """Hold one metric against goals.

    Args:
        gate: the key in the recipe, for the record.
        goals: goal word -> number, as :meth:`Gate.goals` gives them.
        value: measured, None where undefined (which passes nothing).
        reference: the baseline's (or any other model's) value of the same metric.
    """
    up = metrics.DIRECTIONS[metric] == "maximize"
    found = []
    for goal, wanted in goals.items():
        if goal == "threshold":
            found.append(_outcome(gate, metric, goal, value, wanted, up, None, n))
            continue
        gain = None if value is None or reference is None else (value - reference if up else reference - value)
        if goal.startswith("percent-") and gain is not None:
            gain = 100 * gain / abs(reference) if reference else None
        bound = -wanted if goal.endswith("degradation") else wanted
        found.append(_outcome(gate, metric, goal, gain, bound, True, reference, n))
    return found


def judge_slices(gate: str, metric: str, column: str, threshold: float, measured: Mapping[str, tuple[float | None, int]]) -> list[Outcome]:
    """Hold a metric against a threshold on every slice of a column: slice -> (value, rows)."""
    up = metrics.DIRECTIONS[metric] == "maximize"
    return [
        _outcome(gate, metric, "threshold", value, threshold, up, None, n, where=f"{column} = {name}")
        for name, (value, n) in measured.items()
    ]


def table(outcomes: list[Outcome]) -> str:
    """The outcomes as plain text, failures first, in aligned columns."""
    rows = [("", "gate", "goal", "where", "measured", "needed", "rows")]
    for o in sorted(outcomes, key=lambda o: o.passed):
        unit = " %" if o.goal.startswith("percent-") else ""
        sign = ">=" if o.at_least else "<="
        measured = "undefined" if o.measured is None else f"{o.measured:.4g}{unit}"
        gate = o.gate if o.gate == o.metric else f"{o.gate} ({o.metric})"
        rows.append(
            ("passed" if o.passed else "FAILED", gate, o.goal, o.where or "all", measured, f"{sign} {o.bound:.4g}{unit}", f"{o.n:,}")
        )
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join("  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows)


def _outcome(
    gate: str,
    metric: str,
    goal: str,
    measured: float | None,
    bound: float,
    at_least: bool,
    reference: float | None,
    n: int,
    where: str = "",
) -> Outcome:
    # One part in 10¹² of slack: 0.98 − 0.96 must pass a min-improvement of 0.02.
    slack = 1e-12 * max(abs(bound), 1.0)
    passed = measured is not None and (measured >= bound - slack if at_least else measured <= bound + slack)
    return Outcome(
        gate=gate,
        metric=metric,
        goal=goal,
        where=where,
        measured=measured,
        bound=bound,
        at_least=at_least,
        reference=reference,
        n=n,
        passed=passed,
    )


def gates_of(section: Any) -> dict[str, Gate]:
    """The gates that a :class:`~groundup.lifecycle.evaluate.Gates` section sets, by key."""
    return {name: gate for name in type(section).model_fields if (gate := getattr(section, name)) is not None}

"""evaluate: how good the model is on the test split, how sure that is, where it fails, and whether that is good enough."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any

from pydantic import Field, JsonValue

from groundup import metrics
from groundup.errors import GateError, ModelError, RecipeError
from groundup.evaluation.gates import Gate, Outcome, gates_of, judge, judge_slices, table
from groundup.lifecycle.prepare import Prepared
from groundup.lifecycle.stage import Context, Output
from groundup.lifecycle.train import Trained
from groundup.sections import Section


class Evaluate(Section):
    """How the test split is looked at."""

    bootstrap: int = Field(1000, ge=100, le=100_000)
    """Resamples behind every interval."""
    confidence: float = Field(0.95, gt=0.5, lt=1)
    """Coverage of the intervals; 1 − confidence is also the share of false alarms allowed among the slices flagged."""
    slices: list[str | dict[str, list[float]]] = Field(default_factory=list)
    """Further slices: a column (`age`), a crossing (`sex & class`), or a column with edges (`{age: [18, 65]}`)."""
    min_slice: int = Field(10, ge=2)
    """Slices with fewer rows are left out."""
    worst: int = Field(20, ge=0, le=200)
    """How many of the worst mistakes are kept to be looked at."""


class Gates(Section):
    """What stops the run, by metric.  `baseline` holds the headline metric (accuracy, or R²) against the baseline's."""

    baseline: Gate | None = None
    accuracy: Gate | None = None
    balanced_accuracy: Gate | None = None
    f1: Gate | None = None
    mcc: Gate | None = None
    roc_auc: Gate | None = None
    average_precision: Gate | None = None
    log_loss: Gate | None = None
    ece: Gate | None = None
    r2: Gate | None = None
    mae: Gate | None = None
    rmse: Gate | None = None
    median_ae: Gate | None = None

    def check(self, task: str) -> None:
        """Refuse a gate on a metric that the task does not have.

        Raises:
            RecipeError: names the nearest metric of the task.
        """
        known = metrics.names(task)
        for name in gates_of(self):
            if name != "baseline" and name not in known:
                close = difflib.get_close_matches(name, known, 1)
                hint = f"did you mean {close[0]!r}?" if close else f"it has {', '.join(known)}"
                raise RecipeError(f"gates.{name}: {task} has no metric {name!r}; {hint}")


class Evaluated(Output):
    """What the test split says.  Every number is a plain float; None where the sample does not define it.

    Files: ``worst/<i>.png`` pictures of the worst mistakes (images).
    """

    task: str
    n: int
    """Rows of the test split."""
    metrics: dict[str, dict[str, float | None]]
    """name -> {value, low, high}, headline first."""
    intervals: dict[str, JsonValue]
    """``confidence``, ``resamples`` and ``methods`` (metric -> wilson, bca, percentile or normal)."""
    validation: dict[str, float | None]
    """The same metrics on the validation split, which the model was chosen on."""
    baseline: dict[str, dict[str, float | None]]
    """The baseline's metrics, same form."""
    baseline_which: str
    """"majority class", "logistic regression", "mean" or "ridge regression": the better of two on validation."""
    baseline_note: str = ""
    baseline_validation: dict[str, float | None] = Field(default_factory=dict)
    """Candidate -> its headline metric on validation."""
    improvement: dict[str, dict[str, float | None]] = Field(default_factory=dict)
    """metric -> {value, low, high} of model − baseline, from paired resamples: the same rows for both."""
    per_class: list[dict[str, JsonValue]] = Field(default_factory=list)
    """class, n, precision, recall, f1."""
    confusion: list[list[int]] | None = None
    """Row = true class, column = answer; None for regression, or for more classes than a page holds."""
    confused: list[dict[str, JsonValue]] = Field(default_factory=list)
    """The pairs most often confused: truth, answer, n, share."""
    calibration: list[dict[str, float]] = Field(default_factory=list)
    """Reliability curve, an entry a bin."""
    residuals: dict[str, JsonValue] = Field(default_factory=dict)
    """Regression: tenths, errors, points."""
    slices: list[dict[str, JsonValue]] = Field(default_factory=list)
    """column, value, kind, n, metric, measured, low, high, rest, p, worse; the most suspicious first."""
    worst: list[dict[str, JsonValue]] = Field(default_factory=list)
    """row, truth, answer, loss, ..., and ``image`` (a file here) or ``record``."""
    gates: list[Outcome] = Field(default_factory=list)

    @property
    def passed(self) -> bool:
        """Whether every gate did."""
        return all(g.passed for g in self.gates)

    def require_gates(self) -> None:
        """Stop here unless every gate passed.

        Raises:
            GateError: with a table of what was measured and what was needed.
        """
        failed = sum(not g.passed for g in self.gates)
        if failed:
            what = "1 gate" if failed == 1 else f"{failed} gates"
            raise GateError(
                f"{what} of {len(self.gates)} failed on the {self.n:,} rows of the test split:\n{table(self.gates)}\n"
                "  Improve the model (model, train, tune), or change the goals under 'gates' in the recipe."
            )

    def _repr_html_(self) -> str:
        from groundup.reporting.fragments import evaluated_summary

        return evaluated_summary(self.model_dump())


def evaluate(section: Evaluate, gates: Gates, prepared: Prepared, trained: Trained, *, out: Path, context: Context) -> Evaluated:
    """Measure a trained model on the test split.

    Gates are judged and recorded here; :meth:`Evaluated.require_gates` is what stops a run, after the numbers are saved.

    Raises:
        RecipeError: a gate on a metric that the task lacks, or a slice of a column that the data lacks.
        ModelError: the model answers what is no number.
    """
    import numpy as np

    from groundup.evaluation import baseline as baselines
    from groundup.evaluation import bootstrap, calibration, slices

    task, classes, headline = prepared.task, prepared.classes, metrics.headline(prepared.task)
    gates.check(task)
    frame, y = prepared.frame("test"), np.asarray(prepared.targets("test"))
    declared = [s for wanted in section.slices for s in slices.declared(frame, wanted)]  # a column that is not there fails early
    gated = _gated_slices(gates, prepared, frame, y, declared)

    with context.progress.task("evaluate", 5, "parts") as progress:
        answers, validated = (_answers(trained, prepared, split) for split in ("test", "validation"))
        held = metrics.compute(task, prepared.targets("validation"), validated)
        progress.advance()
        context.check()

        simple = baselines.baseline(task, prepared, prepared.n_outputs, context.seed)
        progress.advance(baseline=simple.which)
        context.check()

        b, confidence = section.bootstrap, section.confidence
        ours = bootstrap.replicates(task, y, answers, b, context.seed)
        theirs = bootstrap.replicates(task, y, simple.answers, b, context.seed)
        found = bootstrap.intervals(task, y, answers, count=b, confidence=confidence, drawn=ours)
        beside = bootstrap.intervals(task, y, simple.answers, count=b, confidence=confidence, drawn=theirs)
        improvement = {
            name: bootstrap.difference(found[name], beside[name], ours[name], theirs[name], b, confidence).to_dict() for name in found
        }
        progress.advance()
        context.check()

        parts = list(slices.automatic(frame, prepared.inputs))
        if classes is not None:
            parts += slices.of_classes(prepared.target, y, classes)
        known = {(s.column, s.value) for s in parts}
        parts += [s for s in declared if (s.column, s.value) not in known]
        judged = slices.judge(task, y, answers, parts, confidence=confidence, at_least=section.min_slice, seed=context.seed)
        progress.advance()

        evaluated = Evaluated(
            task=task,
            n=len(y),
            metrics={name: i.to_dict() for name, i in found.items()},
            intervals={"confidence": confidence, "resamples": b, "methods": {name: i.method for name, i in found.items()}},
            validation={name: bootstrap.none_if_nan(v) for name, v in held.items()},
            baseline={name: i.to_dict() for name, i in beside.items()},
            baseline_which=simple.which,
            baseline_note=simple.note,
            baseline_validation={name: bootstrap.none_if_nan(v) for name, v in simple.validation.items()},
            improvement=improvement,
            slices=judged,
            worst=_worst(section.worst, prepared, frame, y, answers, out),
        )
        if classes is None:
            evaluated.residuals = calibration.residuals(y, answers)
        else:
            evaluated.per_class = calibration.per_class(y, answers, classes)
            evaluated.confused = calibration.confused_pairs(y, answers, classes)
            evaluated.calibration = calibration.reliability(y, answers, confidence)
            if len(classes) <= calibration.MAX_CONFUSION:
                evaluated.confusion = calibration.confusion(y, answers, len(classes))
        evaluated.gates = _judge(gates, evaluated, gated, y, answers, section.min_slice)
        progress.advance()
    context.log_metrics({f"test_{name}": i.value for name, i in found.items() if np.isfinite(i.value)}, 0)
    context.progress.note(
        f"test {headline} {found[headline].value:.4f} [{found[headline].low:.4f}, {found[headline].high:.4f}], "
        f"baseline ({simple.which}) {beside[headline].value:.4f}"
    )
    return evaluated


def _answers(trained: Trained, prepared: Prepared, split: str) -> Any:
    """The model's answers on a split, refused where they are not finite."""
    import numpy as np

    answers = np.asarray(trained.answers(prepared.features(split)))
    if bad := int(np.sum(~np.isfinite(answers.reshape(len(answers), -1)).all(1))):
        raise ModelError(
            f"the model's answers are not finite for {bad:,} of {len(answers):,} rows of the {split} split; "
            "look at the features of such a row, or train with a smaller learning rate"
        )
    return answers


def _gated_slices(gates: Gates, prepared: Prepared, frame: Any, y: Any, declared: list[Any]) -> dict[str, list[Any]]:
    """Column -> its slices, for every column that a gate names: the target's classes, those declared, or the column's own."""
    from groundup.evaluation import slices

    found: dict[str, list[Any]] = {}
    for gate in gates_of(gates).values():
        for column in gate.slices:
            if column == prepared.target and prepared.classes is not None:
                found[column] = list(slices.of_classes(column, y, prepared.classes))
            else:
                found[column] = [s for s in declared if s.column == column] or slices.declared(frame, column)
    return found


def _judge(gates: Gates, evaluated: Evaluated, gated: dict[str, list[Any]], y: Any, answers: Any, at_least: int) -> list[Outcome]:
    """Every goal of every gate, on the whole split and on the slices that have at least so many rows."""
    outcomes = []
    for name, gate in gates_of(gates).items():
        metric = metrics.headline(evaluated.task) if name == "baseline" else name
        value, reference = evaluated.metrics[metric]["value"], evaluated.baseline[metric]["value"]
        outcomes += judge(name, metric, gate.goals(), value, reference, evaluated.n)
        for column, threshold in gate.slices.items():
            measured: dict[str, tuple[float | None, int]] = {}
            for s in gated[column]:
                if s.n >= at_least:
                    part = metrics.compute(evaluated.task, y[s.mask], answers[s.mask], (metric,))[metric]
                    measured[s.value] = (part if part == part else None, s.n)  # NaN is not itself
            outcomes += judge_slices(name, metric, column, threshold, measured)
    return outcomes


def _worst(most: int, prepared: Prepared, frame: Any, y: Any, answers: Any, out: Path) -> list[dict[str, Any]]:
    """The worst mistakes with what the model saw: a picture in ``worst/``, or the record."""
    from groundup.evaluation import mistakes, png

    image = next((str(f["name"]) for f in prepared.inputs if f["kind"] == "image"), None)
    pictures = None if image is None else prepared.raw("test")[image]
    rows = prepared.rows("test")
    found = []
    for place, index in enumerate(mistakes.worst(prepared.task, y, answers, most)):
        entry = mistakes.describe(prepared.task, y, answers, int(index), prepared.classes) | {"row": int(rows[index])}
        if pictures is not None:
            entry["image"] = f"worst/{place}.png"
            (out / "worst").mkdir(exist_ok=True)
            (out / entry["image"]).write_bytes(png.encode(pictures[index]))
        else:
            row = frame.iloc[int(index)].to_dict()
            row.pop(prepared.target, None)  # the truth is told already
            entry["record"] = mistakes.record(row)
        found.append(entry)
    return found

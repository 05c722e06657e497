"""compress: candidates of the trained model in one complete graph each, measured here, and a verdict that may be "no".

    core ─► scheme ─► transform + core + post ─► parity, metrics, bytes, latency ─► verdict

Two links of the proof chain are closed here.  Link 3: the complete fp32 graph gives the answers of the module that it was
exported from; where it does not, the run stops.  Link 4: the metric held and the compression paid.  The choice is made
on the validation split; the test split confirms it.
"""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, field_validator

from groundup import metrics
from groundup.bundle import Proof, cpu
from groundup.bundle.files import write_bytes
from groundup.compression import schemes
from groundup.compression.verdict import Candidate, Degradation, Verdict, Wanted, choose
from groundup.errors import ProofError, RecipeError
from groundup.lifecycle.prepare import Prepared
from groundup.lifecycle.stage import Context, Output
from groundup.lifecycle.train import Trained
from groundup.sections import Section

if TYPE_CHECKING:
    import onnx

Answers = dict[str, NDArray[Any]]
_RESAMPLES = 1000
_ALLOWED = 0.01


class Calibration(Section):
    """How ranges of activations are measured for static int8."""

    method: Literal["minmax", "entropy", "percentile"] = "minmax"
    """minmax keeps every value; entropy and percentile cut rare extremes off."""
    samples: int = Field(default=512, ge=1)
    """Rows of the training split."""


class Measure(Section):
    """How latency is measured."""

    batches: tuple[int, ...] = Field(default=(1, 32), min_length=1)
    """Batch sizes; goals for speed look at the first."""
    seconds: float = Field(default=0.5, gt=0)
    """For each candidate and batch size."""

    @field_validator("batches")
    @classmethod
    def _positive(cls, batches: tuple[int, ...]) -> tuple[int, ...]:
        if min(batches) < 1 or len(set(batches)) < len(batches):
            raise ValueError(f"expected different batch sizes of at least 1, got {list(batches)}")
        return batches


class Compress(Section):
    """Which compressed forms are tried, and what they must achieve.  Whatever fails to pay is not served."""

    targets: tuple[Literal["onnx"], ...] = Field(default=("onnx",), min_length=1)
    """What runs the graph: ONNX Runtime."""
    schemes: tuple[str, ...] = Field(default_factory=schemes.names)
    """The schemes to try, all by default; fp32 is always made, as the reference."""
    per_channel: bool = Field(True)
    """One scale an output channel instead of one a tensor: more accurate, sometimes slower."""
    calibration: Calibration = Calibration()
    reduce_range: Literal["auto"] | bool = Field("auto")
    """Weights in 7 bits, so that sums cannot saturate; auto: where this CPU lacks VNNI."""
    max_degradation: dict[str, float] = Field(default_factory=dict, alias="max-degradation")
    """Metric -> how much worse it may become, in the metric's unit: {accuracy: 0.01}.  By default 0.01 of accuracy or R²."""
    percent_max_degradation: dict[str, float] = Field(default_factory=dict, alias="percent-max-degradation")
    """Metric -> how much worse it may become, in percent of fp32's value: {rmse: 2}."""
    min_speedup: float | None = Field(None, gt=0, alias="min-speedup")
    """Times as fast as fp32, at the first batch size."""
    percent_max_size: float | None = Field(None, gt=0, alias="percent-max-size")
    """At most this many percent of fp32's bytes."""
    measure: Measure = Measure()

    @field_validator("schemes")
    @classmethod
    def _known(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            _expect_known(name, schemes.names(), "scheme")
        return names

    @field_validator("max_degradation", "percent_max_degradation")
    @classmethod
    def _metrics(cls, goals: dict[str, float]) -> dict[str, float]:
        for name, allowed in goals.items():
            _expect_known(name, tuple(metrics.DIRECTIONS), "metric")
            if not allowed >= 0:
                raise ValueError(f"expected a degradation of at least 0 for {name}, got {allowed}")
        return goals


class Compressed(Output):
    """Every candidate with its measurements, and the verdict.

    Files: ``graphs/<scheme>.onnx``, complete: raw inputs -> answers.
    """

    candidates: list[Candidate]
    verdict: Verdict
    fp32: str
    """File of the complete fp32 graph, relative to ``path``."""
    graph: str
    """File of the chosen graph, relative to ``path``; the same where compressing did not pay."""
    settings: dict[str, Any]
    """What the schemes were told: per_channel, reduce_range, calibration, samples."""
    cpu: dict[str, Any]
    """Where it was measured: name, features, vnni."""
    proofs: list[Proof] = Field(default_factory=list)

    @property
    def chosen(self) -> Candidate:
        """The candidate that is served."""
        return next(c for c in self.candidates if c.scheme == self.verdict.chosen)

    @property
    def reference(self) -> Candidate:
        """The fp32 candidate."""
        return next(c for c in self.candidates if c.scheme == "fp32")


def compress(section: Compress, prepared: Prepared, trained: Trained, *, out: Path, context: Context) -> Compressed:
    """Make, measure and judge the candidates.

    Raises:
        ProofError: the exported graph does not give the module's answers.
        ModelError: the parts cannot be joined into one graph.
        RecipeError: a goal names a metric that this task does not have.
    """
    import onnx

    from groundup.compression.assemble import assemble
    from groundup.compression.graph import answers, session
    from groundup.compression.measure import batch_dependence
    from groundup.compression.prove import compressed

    allowed = _allowed(section, prepared)
    transform, core = onnx.load(prepared.path / "transform.onnx"), trained.core()
    parts: dict[str, Any] = {"scores": trained.scores, "classes": prepared.classes, "target_scale": trained.target_scale}
    complete = assemble(transform, core, **parts)
    truth = {split: np.asarray(prepared.targets(split)) for split in ("validation", "test")}
    raw = {split: prepared.raw(split) for split in truth}

    proofs = prove_export(prepared, trained, core, complete, parts)
    if failed := [p for p in proofs if not p.passed]:
        raise ProofError("the exported graph does not give the model's answers, nothing was packaged: " + "; ".join(map(str, failed)))

    options = schemes.Options(
        per_channel=section.per_channel,
        reduce_range=not cpu.has_vnni() if section.reduce_range == "auto" else section.reduce_range,
        calibration=section.calibration.method,
    )
    features = calibration_rows(prepared, section.calibration.samples, context.seed)
    (out / "graphs").mkdir()
    candidates: list[Candidate] = []
    running, given = {}, {}
    wanted = ["fp32", *(n for n in section.schemes if n != "fp32")]
    with context.progress.task("schemes", len(wanted), "schemes") as task:
        for name in wanted:
            context.check()
            candidate, model = _make(name, core, transform, parts, features, options)
            if model is not None:
                data = model.SerializeToString(deterministic=True)
                write_bytes(out / f"graphs/{name}.onnx", data)
                running[name] = session(data)
                given[name] = {split: answers(running[name], raw[split]) for split in truth}
                candidate = _with_metrics(candidate, prepared.task, truth, given[name], given["fp32"], allowed, context.seed)
                depends = batch_dependence(running[name], raw["validation"])
                candidate = candidate.model_copy(
                    update={
                        "graph": f"graphs/{name}.onnx",
                        "bytes": len(data),
                        "parity": {**candidate.parity, "batch_dependence": depends},
                    }
                )
            candidates.append(candidate)
            task.advance(scheme=name)
    candidates = _with_latency(candidates, running, raw["test"], section.measure, context)
    verdict, candidates = choose(candidates, _wanted(section))
    context.progress.note(f"compression {'paid' if verdict.paid else 'did not pay'}: {verdict.reason}")
    result = Compressed(
        candidates=candidates,
        verdict=verdict,
        fp32="graphs/fp32.onnx",
        graph=f"graphs/{verdict.chosen}.onnx",
        settings={
            "per_channel": options.per_channel,
            "reduce_range": options.reduce_range,
            "calibration": options.calibration,
            "samples": len(features),
        },
        cpu={"name": cpu.description(), "features": list(cpu.features()), "vnni": cpu.has_vnni()},
    )
    if verdict.paid:
        rows = {split: len(y) for split, y in truth.items()}
        proofs += compressed(result.chosen, result.reference, _wanted(section), rows, result.cpu["name"])
    return result.model_copy(update={"proofs": proofs})


def prove_export(
    prepared: Prepared, trained: Trained, core: onnx.ModelProto, complete: onnx.ModelProto, parts: dict[str, Any]
) -> list[Proof]:
    """Link 3 on the validation split: the graph answers as the model, from prepared features and from raw records."""
    from importlib.metadata import version

    from groundup.compression import prove
    from groundup.compression.assemble import assemble, identity

    features = np.asarray(prepared.features("validation"), np.float32)
    expected = np.asarray(trained.answers(features))
    if trained.kind == "network":
        reference = f"the trained module, torch {version('torch')}"
    else:
        reference = "the fitted estimator's own graph, which training held against the estimator"
    name = str(trained.model.get("name") or trained.model.get("class"))
    from_features = assemble(identity(core), core, **parts)
    common: dict[str, Any] = {"classes": prepared.classes, "reference": reference}
    return [
        *prove.export(name, from_features, "prepared features", {"input": features}, expected, **common),
        *prove.export(name, complete, "raw records, preprocessing included", prepared.raw("validation"), expected, **common),
    ]


def calibration_rows(prepared: Prepared, samples: int, seed: int) -> NDArray[Any]:
    """Features of up to ``samples`` training rows, drawn without replacement, float32 (n, *feature_shape)."""
    features = prepared.features("train")
    rng = np.random.default_rng(seed)
    rows = np.sort(rng.choice(len(features), size=min(samples, len(features)), replace=False))
    return np.asarray(features[rows], np.float32)


def _make(
    name: str, core: onnx.ModelProto, transform: onnx.ModelProto, parts: dict[str, Any], features: NDArray[Any], options: schemes.Options
) -> tuple[Candidate, onnx.ModelProto | None]:
    """One scheme's complete graph, or the reason why there is none."""
    from groundup.compression.assemble import assemble
    from groundup.compression.graph import refusals

    scheme = schemes.scheme(name)
    candidate = Candidate(scheme=name, summary=scheme.summary, products=len(schemes.products(core)))
    try:
        compressed = scheme.compress(core, features, options)
        model = assemble(transform, compressed, **parts)
    except schemes.NotApplicable as e:
        return candidate.model_copy(update={"applicable": False, "why": f"not applicable: {e}"}), None
    except refusals() as e:
        if name == "fp32":
            raise
        reason = " ".join(str(e).split())[:300]
        return candidate.model_copy(
            update={"applicable": False, "why": f"not applicable: the quantizer refused this graph: {reason}"}
        ), None
    return candidate.model_copy(update={"products_int8": schemes.products_int8(compressed)}), model


def _with_metrics(
    candidate: Candidate,
    task: str,
    truth: dict[str, NDArray[Any]],
    given: dict[str, Answers],
    fp32: dict[str, Answers],
    allowed: dict[str, tuple[float, bool]],
    seed: int,
) -> Candidate:
    """Metrics of both splits, degradation against fp32 with paired intervals, and parity."""
    from groundup.compression.measure import parity
    from groundup.evaluation.bootstrap import none_if_nan, percentile, replicates

    found: dict[str, dict[str, float | None]] = {}
    degradation: dict[str, dict[str, Degradation]] = {}
    for split, y in truth.items():
        ours, theirs = _scores(given[split]), _scores(fp32[split])
        found[split] = {name: none_if_nan(value) for name, value in metrics.compute(task, y, ours).items()}
        if candidate.scheme == "fp32":
            continue
        # The same seed draws the same rows for both, so the difference is paired.
        names = tuple(allowed)
        drawn, drawn_fp32 = (replicates(task, y, scores, _RESAMPLES, seed, names) for scores in (ours, theirs))
        before, after = metrics.compute(task, y, theirs, names), metrics.compute(task, y, ours, names)
        degradation[split] = {}
        for name, (bound, percent) in allowed.items():
            sign = -1.0 if metrics.DIRECTIONS[name] == "maximize" else 1.0
            low, high = percentile(sign * (drawn[name] - drawn_fp32[name]))
            value = sign * (after[name] - before[name]) + 0.0  # no minus zero
            degradation[split][name] = Degradation(
                value=value, low=low, high=high, allowed=abs(before[name]) * bound / 100 if percent else bound
            )
    update = {"metrics": found, "degradation": degradation, "parity": parity(given["validation"], fp32["validation"])}
    return candidate.model_copy(update=update)


def _with_latency(
    candidates: list[Candidate], running: dict[str, Any], raw: Answers, measure: Measure, context: Context
) -> list[Candidate]:
    from groundup.compression.graph import rows
    from groundup.compression.measure import latency

    timed: dict[str, dict[int, dict[str, float]]] = {name: {} for name in running}
    n = len(next(iter(raw.values())))
    with context.progress.task("latency", len(measure.batches), "batch sizes") as task:
        for batch in measure.batches:
            context.check()
            inputs = rows(raw, np.arange(batch) % n)
            calls = {name: (lambda s=session: s.run(None, inputs)) for name, session in running.items()}  # noqa: B023 - called before the next batch
            for name, numbers in latency(calls, reference="fp32", seconds=measure.seconds, seed=context.seed).items():
                timed[name][batch] = numbers
            task.advance(batch=str(batch))
    return [c.model_copy(update={"latency": timed[c.scheme]}) if c.scheme in timed else c for c in candidates]


def _allowed(section: Compress, prepared: Prepared) -> dict[str, tuple[float, bool]]:
    """Metric -> (bound, whether it is in percent)."""
    goals = {name: (bound, False) for name, bound in section.max_degradation.items()}
    for name, bound in section.percent_max_degradation.items():
        if name in goals:
            raise RecipeError(f"compress: {name} stands under max-degradation and percent-max-degradation; keep one")
        goals[name] = (bound, True)
    for name in goals:
        if name not in metrics.names(prepared.task):
            known = ", ".join(metrics.names(prepared.task))
            raise RecipeError(f"compress.max-degradation: {name} is not a metric of {prepared.task}; it has {known}")
    return goals or {metrics.headline(prepared.task): (_ALLOWED, False)}


def _wanted(section: Compress) -> Wanted:
    return Wanted(section.min_speedup, None if section.percent_max_size is None else section.percent_max_size / 100)


def _scores(given: Answers) -> NDArray[Any]:
    return given["probabilities"] if "probabilities" in given else given["prediction"]


def _expect_known(name: str, known: tuple[str, ...], what: str) -> None:
    if name not in known:
        near = difflib.get_close_matches(name, known, 1)
        raise ValueError(f"unknown {what} {name!r}{f'; did you mean {near[0]!r}?' if near else ''} (known: {', '.join(known)})")

"""package: the bundle, a folder of plain files that leaves training: graph, profile, golden rows, proofs, card, hashes.

What goes in is what inference, monitoring and verification need and nothing else: no optimizer state, no training data
beyond the golden rows, no pickle.  The weights are in the graph; a second copy of them would double the bundle and
open in no other library, as long as the model is not of an architecture that the Hugging Face libraries know.
"""

from __future__ import annotations

import json
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

import groundup
from groundup.bundle import Bundle, Proof, Signature, cpu, write_bundle
from groundup.bundle import Field as SignatureField
from groundup.bundle.card import FILE as CARD
from groundup.bundle.card import Card
from groundup.bundle.files import to_json
from groundup.bundle.signature import MISSING_DATETIME
from groundup.compression.schemes import scheme
from groundup.errors import BundleError
from groundup.lifecycle.cache import code_hash
from groundup.lifecycle.compress import Compressed
from groundup.lifecycle.evaluate import Evaluated
from groundup.lifecycle.prepare import Prepared
from groundup.lifecycle.stage import Context, Output
from groundup.lifecycle.train import Trained
from groundup.sections import Section

Arrays = dict[str, NDArray[Any]]
_FLOOR = 1e-4
"""Golden answers of one graph on two CPUs differ by this much at least: they add up in another order."""
_MISSING: dict[str, Any] = {"number": np.nan, "integer": np.nan, "boolean": np.nan, "category": "", "datetime": MISSING_DATETIME}


class Package(Section):
    """What the bundle says and how large it may be."""

    max_size_mb: float = Field(default=100.0, gt=0)
    """Budget for the whole bundle, in 10**6 bytes."""
    license: str | None = None
    """SPDX name for the model card: apache-2.0, mit, cc-by-4.0, ..."""
    description: str = ""
    """What the model is for, in your words; the first lines of the model card."""
    golden: int = Field(default=32, ge=1, le=1000)
    """Rows of the test split that every server answers at its start; a few made-up edge cases are added."""
    keep_fp32: bool = Field(default=False)
    """Keep the fp32 graph beside a compressed one that is served."""


class Packaged(Output):
    """Facts of the bundle.

    Files: ``bundle/``.
    """

    bundle: str = "bundle"
    """Folder, relative to ``path``."""
    version: str
    graph: str
    size: int
    """Bytes of all files but the manifest."""
    files: dict[str, int]
    """File -> bytes, the largest first."""
    proofs: int
    proofs_passed: int
    golden_rows: int


def package(
    section: Package,
    *,
    name: str,
    serve: dict[str, Any],
    monitor: dict[str, Any],
    prepared: Prepared,
    trained: Trained,
    evaluated: Evaluated,
    compressed: Compressed,
    out: Path,
    context: Context,
) -> Packaged:
    """Write ``out/bundle`` and open it.

    Raises:
        BundleError: the bundle is larger than its budget; the message lists its largest files.
    """
    from groundup.serving.golden import FILE as GOLDEN
    from groundup.serving.golden import write_golden

    graph = scheme(compressed.verdict.chosen).file
    served, fp32 = (compressed.path / file for file in (compressed.graph, compressed.fp32))
    signature = Signature(inputs=tuple(prepared.signature_inputs()), outputs=outputs_of(prepared))
    with context.progress.task("bundle", 4, "parts") as task:
        inputs = golden_inputs(prepared, section.golden, context.seed)
        real = min(section.golden, prepared.sizes["test"])
        golden, tolerance = _golden_answers(served, fp32, inputs, real)
        task.advance(part="golden rows")
        profile = {"inputs": _inputs_profile(prepared), "outputs": _outputs_profile(served, prepared, signature)}
        task.advance(part="profile")
        environment = describe_environment(trained.kind)
        proofs = [*prepared.proofs, *trained.proofs, *compressed.proofs]
        chosen = compressed.chosen
        metrics = {k: v for k, v in chosen.metrics["test"].items() if v is not None}
        compression = {
            "scheme": compressed.verdict.chosen,
            "paid": compressed.verdict.paid,
            "reason": compressed.verdict.reason,
            "bytes": chosen.bytes,
            "fp32_bytes": compressed.reference.bytes,
            "settings": compressed.settings,
            "candidates": [
                {
                    "scheme": c.scheme,
                    "bytes": c.bytes,
                    "why": c.why,
                    "latency": {str(batch): times for batch, times in c.latency.items()},
                }
                for c in compressed.candidates
            ],
        }
        card = Card(
            name=name,
            task=prepared.task,
            signature=signature,
            graph=graph,
            model=trained.model,
            rows=prepared.sizes,
            data_hash=prepared.data_hash,
            metrics=evaluated.metrics,
            baseline=evaluated.baseline,
            baseline_name=evaluated.baseline_which,
            served=metrics,
            compression=compression,
            environment=environment,
            license=section.license,
            description=section.description,
            slices=evaluated.slices[:10],
            proofs=proofs,
            notes=prepared.notes,
        )
        task.advance(part="card")
        sources: dict[str, Path | bytes] = {
            graph: served,
            GOLDEN: write_golden(inputs, golden, tolerance=tolerance),
            "profile.json": to_json(profile),
            "proofs.json": to_json([p.to_dict() for p in proofs]),
            CARD: card.render().encode(),
        }
        if section.keep_fp32:
            sources.setdefault(scheme("fp32").file, fp32)
        _expect_within(sources, section.max_size_mb)
        bundle = write_bundle(
            out / "bundle",
            sources,
            name=name,
            task=prepared.task,
            signature=signature,
            graph=graph,
            data_hash=prepared.data_hash,
            code_hash=code_hash(),
            metrics=metrics,
            compression=compression,
            environment=environment,
            serve=serve,
            monitor=monitor,
        )
        task.advance(part="files")
    return _facts(bundle, proofs, len(next(iter(inputs.values()))))


def outputs_of(prepared: Prepared) -> tuple[SignatureField, ...]:
    """The outputs of the complete graph, for the signature."""
    if prepared.classes is None:
        return (SignatureField("prediction", "number", description=f"predicted {prepared.target}"),)
    classes = tuple(prepared.classes)
    return (
        SignatureField("label", "category", categories=classes, description=f"most probable {prepared.target}"),
        SignatureField("probabilities", "tensor", shape=(len(classes),), description="in the order of label's categories"),
    )


def golden_inputs(prepared: Prepared, n: int, seed: int) -> Arrays:
    """``n`` rows of the test split, rows with a missing value first so that they are among them, and made-up edge cases.

    Edge cases (tables): a record with everything missing that may be, one with categories nobody has seen, one at each end
    of the numbers' ranges.  Images: all as dark and all as bright as any that was seen.  They stand last.
    """
    raw, fields = prepared.raw("test"), prepared.signature_inputs()
    total = len(next(iter(raw.values())))
    order = np.random.default_rng(seed).permutation(total)
    missing = np.zeros(total, bool)
    for field in fields:
        if field.kind in _MISSING:
            missing |= _is_missing(raw[field.name], field.kind)
    first = order[missing[order]][: n // 2]
    rest = order[~np.isin(order, first)][: n - len(first)]
    chosen = np.sort(np.concatenate([first, rest]))
    picked = {field.name: np.asarray(raw[field.name][chosen]) for field in fields}
    edges = _edge_cases(fields, picked)
    return {name: np.concatenate([values, edges[name]]) for name, values in picked.items()}


def describe_environment(kind: str) -> dict[str, Any]:
    """Versions of what made the bundle and the CPU that it was measured on."""
    libraries = ["numpy", "onnxruntime", "onnx", "torch" if kind == "network" else "scikit-learn"]
    found: dict[str, Any] = {"groundup": groundup.__version__, "python": platform.python_version()}
    for library in libraries:
        try:
            found[library] = version(library)
        except PackageNotFoundError:
            continue
    return found | {"platform": f"{platform.system()} {platform.machine()}", "processor": cpu.description(), "cpu": list(cpu.features())}


def _golden_answers(served: Path, fp32: Path, inputs: Arrays, real: int) -> tuple[Arrays, float]:
    """The served graph's answers and the tolerance of their equality.

    fp32 may differ between CPUs by the order of its sums.  In int8 one value may be rounded to the other side, which moves an
    answer by part of what rounding all of them moved it: the distance to the fp32 graph, measured on the first ``real`` rows, is
    the bound.  A CPU whose sums saturate is far outside of it.  Made-up rows take no part: the two graphs differ by more where
    calibration never looked.
    """
    from groundup.compression.graph import answers, session

    ours, theirs = (answers(session(path.read_bytes()), inputs) for path in (served, fp32))
    key = "probabilities" if "probabilities" in ours else "prediction"
    value, reference = ours[key].astype(np.float64), theirs[key].astype(np.float64)
    scale = np.maximum(1.0, np.abs(value))  # the self-test divides by it
    floor = _FLOOR * min(1.0, float(np.abs(value).max()) or 1.0)
    return ours, max(floor, float((np.abs(value - reference) / scale)[:real].max()))


def _inputs_profile(prepared: Prepared) -> dict[str, Any]:
    stored: dict[str, Any] = json.loads((prepared.path / "profile.json").read_bytes())
    inputs: dict[str, Any] = stored["inputs"]
    return inputs


def _outputs_profile(served: Path, prepared: Prepared, signature: Signature) -> dict[str, Any]:
    """Profile of the served graph's answers on the validation and test splits, which it was not fitted to."""
    from groundup.compression.graph import answers, session
    from groundup.monitoring.profile import Profile

    running = session(served.read_bytes())
    given = [answers(running, prepared.raw(split)) for split in ("validation", "test")]
    joined = {field.name: np.concatenate([g[field.name] for g in given]) for field in signature.outputs}
    return Profile.of(signature.outputs, joined).to_dict()


def _is_missing(values: NDArray[Any], kind: str) -> NDArray[Any]:
    if kind == "category":
        return np.asarray(values == "", bool)
    return np.asarray(values == MISSING_DATETIME if kind == "datetime" else np.isnan(values), bool)


def _edge_cases(fields: list[SignatureField], picked: Arrays) -> Arrays:
    """Rows nobody sent yet and somebody will: see :func:`golden_inputs`."""
    if fields[0].kind == "image":
        ends = (fields[0].minimum or 0, 255 if fields[0].maximum is None else fields[0].maximum)
        return {fields[0].name: np.stack([np.full(picked[fields[0].name].shape[1:], end, np.uint8) for end in ends])}
    if fields[0].kind == "tensor":
        return {fields[0].name: np.zeros((1, *picked[fields[0].name].shape[1:]), np.float32)}
    edges = {field.name: picked[field.name][[0, 0, 0, 0]].copy() for field in fields}
    for field in fields:
        column = edges[field.name]
        if field.nullable:
            column[0] = _MISSING[field.kind]
        if field.kind == "category":
            column[1] = "a category that nobody has seen"
        elif field.minimum is not None and field.maximum is not None:
            column[2], column[3] = (np.asarray(end).astype(column.dtype) for end in (field.minimum, field.maximum))
    return edges


def _expect_within(sources: dict[str, Path | bytes], budget_mb: float) -> None:
    sizes = {name: len(s) if isinstance(s, bytes) else s.stat().st_size for name, s in sources.items()}
    if sum(sizes.values()) <= budget_mb * 1e6:
        return
    largest = ", ".join(f"{name} {size / 1e6:.1f} MB" for name, size in sorted(sizes.items(), key=lambda item: -item[1])[:5])
    raise BundleError(
        f"the bundle has {sum(sizes.values()) / 1e6:.1f} MB, its budget is {budget_mb:g} MB (package.max_size_mb).  The largest files: "
        f"{largest}.  Allow more, choose a smaller model, or leave fp32 out (package.keep_fp32: false)"
    )


def _facts(bundle: Bundle, proofs: list[Proof], golden_rows: int) -> Packaged:
    sizes = {name: int(entry["bytes"]) for name, entry in bundle.files.items()}
    return Packaged(
        version=bundle.version,
        graph=bundle.graph,
        size=bundle.size,
        files=dict(sorted(sizes.items(), key=lambda item: -item[1])),
        proofs=len(proofs),
        proofs_passed=sum(p.passed for p in proofs),
        golden_rows=golden_rows,
    )

"""The model card: what a person must know before trusting a bundle, as the Hub reads it (front matter, then Markdown).

Sections after Mitchell et al. 2019, "Model Cards for Model Reporting": what it is, data, metrics with their uncertainty and
a baseline beside them, slices, limits, and what was proven.  The front matter is JSON, which YAML contains.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from groundup.bundle.proof import LINKS, Proof
from groundup.bundle.signature import Signature

FILE = "README.md"
Interval = Mapping[str, float | None]
_PROOFS = "## Proofs"


@dataclass(frozen=True)
class Card:
    """The facts of a model card.

    Attributes:
        license: SPDX name, or None where the recipe states none.
        description: the recipe's own words.
        model: the model's configuration, sizes filled in.
        rows: split -> number of rows.
        metrics: of the trained model on the test split: name -> {"value", "low", "high"}.
        baseline: the same of the simple baseline; ``baseline_name`` says what it is.
        served: metric -> value of the graph that is served.
        slices: {"column", "value", "n", "metric", "measured", "low", "high", "worse"}, the most suspicious first.
        compression: {"scheme", "paid", "reason", "candidates": [{"scheme", "bytes", "latency", "why"}]}.
        notes: what preparing the data noticed.
    """

    name: str
    task: str
    signature: Signature
    graph: str
    model: Mapping[str, Any]
    rows: Mapping[str, int]
    data_hash: str
    metrics: Mapping[str, Interval]
    baseline: Mapping[str, Interval]
    baseline_name: str
    served: Mapping[str, float]
    compression: Mapping[str, Any]
    environment: Mapping[str, Any]
    license: str | None = None
    description: str = ""
    slices: Sequence[Mapping[str, Any]] = ()
    proofs: Sequence[Proof] = field(default=())
    notes: Sequence[str] = ()

    def render(self) -> str:
        """The Markdown file, front matter included; equal facts give equal text."""
        parts = [self._front_matter(), f"# {plain(self.name)}"]
        if self.description:
            parts.append(self.description.strip())
        parts += [
            f"{self.task.replace('-', ' ').capitalize()}, made by groundup {plain(self.environment.get('groundup', ''))}: "
            "preprocessing, model and postprocessing in one ONNX graph.  Raw record in, answer out.",
            self._use(),
            self._data(),
            self._metrics(),
            self._slices(),
            self._compression(),
            self._limits(),
            _proofs(self.proofs),
        ]
        return "\n\n".join(part for part in parts if part) + "\n"

    def _front_matter(self) -> str:
        results = [{"type": name, "name": name, "value": value} for name, value in self.served.items()]
        dataset = {"name": f"{self.name}, test split", "type": self.name, "split": "test"}
        front = {
            "license": self.license,
            "library_name": "onnx",
            "pipeline_tag": self.task,
            "tags": ["groundup", "onnx", self.task, self.compression["scheme"]],
            "metrics": list(self.served),
            "model-index": [{"name": self.name, "results": [{"task": {"type": self.task}, "dataset": dataset, "metrics": results}]}],
        }
        lines = [f"{key}: {json.dumps(value, ensure_ascii=False)}" for key, value in front.items() if value is not None]
        return "\n".join(["---", *lines, "---"])

    def _use(self) -> str:
        inputs = table(
            ["input", "kind", "shape", "missing values"],
            [
                [f.name, f.kind, " × ".join(map(str, f.shape)) or "one value", "allowed" if f.nullable else "refused"]
                for f in self.signature.inputs
            ],
        )
        outputs = table(
            ["output", "kind", "shape"], [[f.name, f.kind, " × ".join(map(str, f.shape)) or "one value"] for f in self.signature.outputs]
        )
        return (
            "## Use\n\n```\npip install groundup\ngroundup verify .     # hashes, golden answers and proofs, on this machine\n"
            f"groundup serve .      # POST /predict, /v2/models/{self.name}/infer, /metrics; try it at /\n```\n\n{inputs}\n\n{outputs}"
        )

    def _data(self) -> str:
        rows = ", ".join(f"{n:,} {split}" for split, n in self.rows.items())
        notes = "".join(f"\n- {plain(note)}" for note in self.notes)
        model = ", ".join(f"{key} = {plain(value)}" for key, value in self.model.items())
        return f"## Data and model\n\nRows: {rows}.  Data hash: `{self.data_hash}`.  Model: {model}.{notes}"

    def _metrics(self) -> str:
        rows = [
            [name, interval(value), interval(self.baseline.get(name)), number(self.served.get(name))]
            for name, value in self.metrics.items()
        ]
        head = ["metric", "trained model", f"baseline: {self.baseline_name}", f"served graph ({self.compression['scheme']})"]
        return f"## Metrics on the test split\n\nBrackets are bootstrap or score intervals.\n\n{table(head, rows)}"

    def _slices(self) -> str:
        if not self.slices:
            return ""
        rows = [
            [
                f"{s['column']} = {s['value']}",
                f"{s['n']:,}",
                s["metric"],
                interval({k: s.get(n) for k, n in _SLICE}),
                "worse" if s.get("worse") else "",
            ]
            for s in self.slices
        ]
        return f"## Slices\n\nThe most suspicious first.\n\n{table(['slice', 'rows', 'metric', 'measured', 'flag'], rows)}"

    def _compression(self) -> str:
        rows = []
        for c in self.compression["candidates"]:
            times = "; ".join(f"batch {batch}: {t['p50_ms']:.3f} / {t['p99_ms']:.3f}" for batch, t in c["latency"].items())
            rows.append([c["scheme"], f"{c['bytes']:,}" if c["bytes"] else "–", times or "–", c["why"]])
        verdict = "Compression **paid**" if self.compression["paid"] else "Compression **did not pay**"
        head = ["scheme", "bytes", "p50 / p99 in ms", "outcome"]
        return (
            f"## Compression\n\n{verdict}: {plain(self.compression['reason'])}.\n\n"
            f"Measured on {plain(self.environment.get('processor', ''))}, one thread, candidates taking turns.\n\n{table(head, rows)}"
        )

    def _limits(self) -> str:
        return (
            "## Limits\n\n"
            "- The metrics hold for data like the test split; `/metrics` and `groundup monitor` tell when live data stops being like it.\n"
            "- An unseen category is answered as unseen, a value outside of the training range is extrapolated; neither is refused.\n"
            "- `golden.npz` holds a few dozen rows, most of them real rows of the test split: mind that before publishing this folder.\n"
            f"- Proven on a CPU with {', '.join(map(plain, self.environment.get('cpu', []))) or 'unknown features'}; "
            "every server start repeats the golden answers and refuses to serve where they differ."
        )


def with_proofs(card: str, proofs: Sequence[Proof]) -> str:
    """A rendered card that tells these proofs in place of its own: a rehearsal adds links that packaging could not have."""
    before, heading, _ = card.rpartition(f"\n{_PROOFS}\n")  # the last section; what a description says comes before
    return f"{before}\n{_proofs(proofs)}\n" if heading else card


def _proofs(proofs: Sequence[Proof]) -> str:
    passed = sum(p.passed for p in proofs)
    rows = [
        [f"{p.link} {LINKS[p.link]}", p.claim, p.reference, _measured(p),
         f"{p.samples:,}" if p.samples else "–", "passed" if p.passed else "FAILED"]
        for p in sorted(proofs, key=lambda p: p.link)
    ]  # fmt: skip
    head = ["link", "claim", "against", "measured", "samples", ""]
    return f"{_PROOFS}\n\n{passed} of {len(proofs)} passed.\n\n{table(head, rows)}"


def _measured(p: Proof) -> str:
    return f"{p.quantity} {p.measured:.3g} {'≥' if p.at_least else '≤'} {p.tolerance:.3g}"


_SLICE = (("value", "measured"), ("low", "low"), ("high", "high"))


def table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A Markdown table; what stands in a cell can neither end it nor become markup."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(plain(cell) for cell in line) + " |" for line in lines)


def plain(value: Any) -> str:
    """Text from outside (column names, categories) without the characters that Markdown and HTML act on, on one line."""
    text = " ".join(str(value).split())
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"[\\`*\[\]|]|(?<!\w)_|_(?!\w)", r"\\\g<0>", text)


def number(value: float | None) -> str:
    """Four digits, or a dash where the sample does not define it."""
    return "–" if value is None else f"{value:.4g}"


def interval(value: Interval | None) -> str:
    """``0.978 [0.962, 0.991]``."""
    if value is None or value.get("value") is None:
        return "–"
    if value.get("low") is None or value.get("high") is None:
        return number(value["value"])
    return f"{number(value['value'])} [{number(value['low'])}, {number(value['high'])}]"

"""compare: two runs side by side.  What was set differently, what came out, and whether the difference is more than chance.

Metrics of two runs on the same test rows are paired: both bundles answer every row again, and the interval is of the
difference, in which what the rows have in common cancels.  On different rows there is no such difference, and that is said.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from groundup.bundle import Bundle
from groundup.errors import DataError
from groundup.lifecycle.paired import Difference, answers, comparable, differences
from groundup.lifecycle.prepare import Prepared

HEADINGS = ("", "first", "second", "difference")


@dataclass
class Comparison:
    """Two runs.

    Attributes:
        settings: (recipe key, first, second) where they differ; "" where a run has no such key.
        metrics: on the same rows, the headline first; empty where there is no common test split.
        measures: (name, first, second) of what is measured once a run: bytes, latency, seconds; None where it was not.
        notes: what could not be compared, and why.
    """

    first: str
    second: str
    settings: list[tuple[str, str, str]] = field(default_factory=list)
    metrics: list[Difference] = field(default_factory=list)
    alone: list[tuple[str, str, str]] = field(default_factory=list)
    measures: list[tuple[str, float | None, float | None]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def rows(self) -> list[tuple[str, str, str, str]]:
        """Lines of a table under :data:`HEADINGS`; a line with nothing but its first cell starts a section."""
        lines: list[tuple[str, str, str, str]] = []
        if self.settings:
            lines.append(("settings", "", "", ""))
            lines += [(f"  {key}", a, b, "") for key, a, b in self.settings]
        if self.metrics:
            lines.append((f"metrics, on the same {self.metrics[0].rows:,} test rows", "", "", ""))
            lines += [(f"  {d.metric}", f"{d.first:.4f}", f"{d.second:.4f}", _difference(d)) for d in self.metrics]
        elif self.alone:
            lines.append(("metrics, each on its own test rows", "", "", ""))
            lines += [(f"  {name}", a, b, "") for name, a, b in self.alone]
        if self.measures:
            lines.append(("measured", "", "", ""))
            lines += [
                (f"  {name}", _number(a), _number(b), f"× {b / a:.2f}" if a and b is not None else "") for name, a, b in self.measures
            ]
        return lines

    @property
    def text(self) -> str:
        """The table and the notes in plain text."""
        lines = [(HEADINGS[0], self.first, self.second, HEADINGS[3]), *self.rows()]
        widths = [max(len(line[i]) for line in lines if i == 0 or any(line[1:])) for i in range(4)]
        shown = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]
        return "\n".join([*shown, *(f"note: {n}" for n in self.notes)])

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        from groundup.reporting.fragments import comparison

        return comparison((HEADINGS[0], self.first, self.second, HEADINGS[3]), self.rows(), self.notes)


def find_run(run: str, home: Path) -> Path:
    """The folder of a run: its id, the beginning of its id, ``latest``, or its folder.

    Raises:
        DataError: there is no such run, or there are several; the message lists them.
    """
    if (Path(run) / "run.json").exists():
        return Path(run)
    runs = home / "runs"
    if run == "latest" and (runs / "latest").is_file():
        return runs / (runs / "latest").read_text().strip()
    known = sorted(p.parent.name for p in runs.glob("*/run.json"))
    found = [r for r in known if r.startswith(run)] if run != "latest" else known[-1:]
    if len(found) == 1 or run in found:
        return runs / (run if run in found else found[0])
    what = f"{len(found)} runs begin with" if found else "no run"
    raise DataError(f"{what} {run!r} in {runs}; there are: {', '.join((found or known)[-10:]) or 'none yet'}")


def compare(run_a: Path, run_b: Path) -> Comparison:
    """Set two runs side by side.

    Args:
        run_a, run_b: folders with ``run.json``, as :func:`find_run` gives them.

    Raises:
        DataError: a run cannot be read.
    """
    a, b = _manifest(run_a), _manifest(run_b)
    found = Comparison(str(a["id"]), str(b["id"]))
    settings = [_flat(m.get("recipe", {})) for m in (a, b)]
    for key in sorted(settings[0].keys() | settings[1].keys()):
        pair = [_shown(s[key]) if key in s else "" for s in settings]
        if pair[0] != pair[1]:
            found.settings.append((key, pair[0], pair[1]))
    _add_metrics(found, a, b)
    measured = [_measures(m) for m in (a, b)]
    for name in dict.fromkeys([*measured[0], *measured[1]]):
        found.measures.append((name, measured[0].get(name), measured[1].get(name)))
    return found


def _add_metrics(found: Comparison, a: dict[str, Any], b: dict[str, Any]) -> None:
    evaluated = [_output(m, "evaluate").get("metrics", {}) for m in (a, b)]
    for name in dict.fromkeys([*evaluated[0], *evaluated[1]]):
        found.alone.append((name, *(_interval(e.get(name)) for e in evaluated)))
    bundles, splits = [_bundle(m) for m in (a, b)], [_prepared(m) for m in (a, b)]
    (first, second), (prepared, other) = bundles, splits
    if first is None or second is None or prepared is None or other is None:
        found.notes.append("no paired difference: a run has no bundle or no test split left in its cache")
        return
    if problem := comparable(first, second):
        found.notes.append(f"no paired difference: {problem}")
        return
    if prepared.data_hash != other.data_hash or not np.array_equal(prepared.rows("test"), other.rows("test")):
        found.notes.append("no paired difference: the test rows are not the same")
        return
    found.metrics = differences(first.task, prepared.targets("test"), answers(first, prepared), answers(second, other))


def _measures(manifest: dict[str, Any]) -> dict[str, float]:
    found: dict[str, float] = {}
    if (bundle := _bundle(manifest)) is not None:
        found["bytes of the graph"] = float(bundle.files[bundle.graph]["bytes"])
        found["bytes of the bundle"] = float(bundle.size)
    for entry in _output(manifest, "rehearse").get("loads", []):
        callers = f"{entry['connections']:.0f} caller{'s' if entry['connections'] > 1 else ''}"
        for key, unit in (("p50_ms", "p50 ms"), ("p99_ms", "p99 ms"), ("requests_per_second", "requests/s")):
            if entry.get(key) is not None:
                found[f"{unit}, {callers}"] = float(entry[key])
    for stage, entry in manifest.get("stages", {}).items():
        if not entry.get("cached"):
            found[f"seconds of {stage}"] = round(float(entry["seconds"]), 2)
    return found


def _manifest(run: Path) -> dict[str, Any]:
    try:
        found = json.loads((run / "run.json").read_bytes())
    except OSError as e:
        raise DataError(f"{run}: expected the folder of a run with run.json in it ({e.strerror}); `groundup run` names its id") from e
    except ValueError as e:
        raise DataError(f"{run / 'run.json'}: not JSON ({e})") from e
    if not isinstance(found, dict) or "id" not in found:
        raise DataError(f"{run / 'run.json'}: this is not the manifest of a run")
    return found


def _output(manifest: dict[str, Any], stage: str) -> dict[str, Any]:
    """What the stage left, or {} where it did not run or its cache is gone."""
    entry = manifest.get("stages", {}).get(stage)
    path = Path(entry["path"]) / "output.json" if entry else None
    return dict(json.loads(path.read_bytes())) if path is not None and path.exists() else {}


def _bundle(manifest: dict[str, Any]) -> Bundle | None:
    for stage in ("rehearse", "package"):
        entry = manifest.get("stages", {}).get(stage)
        if entry and (Path(entry["path"]) / "bundle").exists():
            return Bundle.open(Path(entry["path"]) / "bundle")
    return None


def _prepared(manifest: dict[str, Any]) -> Prepared | None:
    entry = manifest.get("stages", {}).get("prepare")
    return Prepared.load(Path(entry["path"])) if entry and (Path(entry["path"]) / "output.json").exists() else None


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    """{"train": {"epochs": 3}} -> {"train.epochs": 3}."""
    if not isinstance(value, dict) or not value:
        return {prefix: value}
    return {k: v for key, inner in value.items() for k, v in _flat(inner, f"{prefix}.{key}" if prefix else str(key)).items()}


def _shown(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _interval(entry: dict[str, Any] | None) -> str:
    if not entry or entry.get("value") is None:
        return ""
    around = f" [{entry['low']:.4f}, {entry['high']:.4f}]" if entry.get("low") is not None and entry.get("high") is not None else ""
    return f"{entry['value']:.4f}{around}"


def _difference(d: Difference) -> str:
    around = "" if d.low is None else f" [{d.low:+.4f}, {d.high:+.4f}]"
    return f"{d.difference:+.4f}{around}{f', {d.better} is better' if d.better else ''}"


def _ratio(a: float | None, b: float | None) -> str:
    return f"× {b / a:.2f}" if a and b is not None else ""


def _number(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,.0f}" if value == int(value) else f"{value:,.2f}"

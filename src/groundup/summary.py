"""The table that a run ends with: what a person wants to know, in the order they ask."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from groundup import console
from groundup.lifecycle.run import Run


def show(run: Run) -> None:
    """Print the summary of a finished run on standard output."""
    o = run.outputs
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="bold", no_wrap=True)
    grid.add_column(overflow="fold")
    for name, lines in (
        ("data", _data(o.get("prepare"))),
        ("tuning", _tuning(o.get("tune"))),
        ("quality", _quality(o.get("evaluate"))),
        ("compression", _compression(o.get("compress"))),
        ("service", _service(o.get("rehearse"))),
        ("drift", _drift(o.get("rehearse"))),
        ("proofs", _proofs(run)),
        ("registry", _registry(o.get("register"))),
    ):
        for i, line in enumerate(lines):
            grid.add_row(name if i == 0 else "", line if isinstance(line, Text) else Text(line))
    console.out.print(Panel(grid, title=Text(f"{run.recipe.name}  ·  {console.seconds(run.seconds)}"), title_align="left", expand=False))
    for what, command in _next(run):
        console.out.print(Text.assemble((f"  {what}  ", "dim"), command), soft_wrap=True)


def _interval(entry: dict[str, Any]) -> str:
    value, low, high = entry["value"], entry["low"], entry["high"]
    return f"{value:.4f}" + (f"  [{low:.4f}, {high:.4f}]" if low is not None and high is not None else "")


def _data(prepared: Any) -> list[str]:
    if prepared is None:
        return []
    rows = ", ".join(f"{split} {n:,}" for split, n in prepared.sizes.items())
    bad = f"; {prepared.quarantined:,} quarantined" if prepared.quarantined else ""
    return [f"{sum(prepared.sizes.values()):,} rows: {rows}{bad}"]


def _tuning(tuned: Any) -> list[str]:
    if tuned is None:
        return []
    best = ", ".join(
        f"{key} = {console.number(value) if isinstance(value, float | str) else value}" for key, value in tuned.overrides.items()
    )
    return [f"best of {len(tuned.trials)} trials: {best}"]


def _quality(evaluated: Any) -> list[Any]:
    if evaluated is None:
        return []
    name, entry = next(iter(evaluated.metrics.items()))
    confidence = evaluated.intervals.get("confidence", 0.95)
    lines: list[Any] = [f"{name} {_interval(entry)}  ({confidence:.0%} interval, {evaluated.n:,} test rows)"]
    if name in evaluated.baseline:
        lines.append(f"baseline {_interval(evaluated.baseline[name])}  ({evaluated.baseline_which})")
    if evaluated.gates:
        passed = sum(g.passed for g in evaluated.gates)
        lines.append(_judged(f"{passed} of {len(evaluated.gates)} gates passed", passed == len(evaluated.gates)))
    return lines


def _judged(text: str, good: bool) -> Text:
    return Text(text, style="green" if good else "red")


def _latency(candidate: Any) -> str:
    first = next(iter(candidate.latency.values()))
    return f"{console.size(candidate.bytes)}, p50 {first['p50_ms']:.3f} ms, p99 {first['p99_ms']:.3f} ms"


def _compression(compressed: Any) -> list[Any]:
    if compressed is None:
        return []
    lines: list[Any] = [f"before  {_latency(compressed.reference)}  (fp32)"]
    if compressed.chosen.scheme != compressed.reference.scheme:
        lines.append(f"after   {_latency(compressed.chosen)}  ({compressed.chosen.scheme})")
    verdict = compressed.verdict
    lines.append(
        Text.assemble(("paid" if verdict.paid else "did not pay", "bold green" if verdict.paid else "bold yellow"), f": {verdict.reason}")
    )
    return lines


def _service(rehearsed: Any) -> list[str]:
    return [] if rehearsed is None else list(rehearsed.service_lines())


def _drift(rehearsed: Any) -> list[str]:
    return [] if rehearsed is None else list(rehearsed.drift_lines())


def _proofs(run: Run) -> list[Any]:
    proofs = run.proofs
    if not proofs:
        return []
    passed = sum(p.passed for p in proofs)
    by_link = {link: [p for p in proofs if p.link == link] for link in sorted({p.link for p in proofs})}
    detail = ", ".join(f"link {link}: {sum(p.passed for p in ps)}/{len(ps)}" for link, ps in by_link.items())
    return [_judged(f"{passed} of {len(proofs)} passed  ({detail})", passed == len(proofs))]


def _registry(registered: Any) -> list[str]:
    if registered is None or not registered.enabled:
        return []
    state = "champion" if registered.promoted or registered.champion == registered.version else "challenger"
    why = f": {'; '.join(registered.reasons)}" if registered.reasons else ""
    return [f"{registered.name} version {registered.version} is {state}{why}", *registered.notes]


def _next(run: Run) -> list[tuple[str, str]]:
    commands = []
    if run.bundle is not None:
        commands.append(("serve it:   ", f"{_groundup()} serve {_shown(run.bundle)}"))
    if run.report is not None:
        commands.append(("read it:    ", f"{_opener()} {_shown(run.report)}"))
    return commands


def _groundup() -> str:
    """How this shell reaches groundup: by name, or by its path in a virtual environment that is not activated."""
    import shutil
    import sys

    if shutil.which("groundup"):
        return "groundup"
    return _shown(Path(sys.executable).parent / "groundup")


def _opener() -> str:
    import sys

    return "open" if sys.platform == "darwin" else "xdg-open"


def _shown(path: Path) -> str:
    """The shorter of the absolute path and the path from here."""
    relative = os.path.relpath(path)
    return min((str(path), relative), key=len)

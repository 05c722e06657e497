"""The table that a run ends with: what a person wants to know, in the order they ask.  Made for 80 columns."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from groundup import console
from groundup.lifecycle.record import Run


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


def _aligned(rows: Sequence[tuple[str, ...]], right: Sequence[int] = ()) -> list[str]:
    """Rows of cells as lines with columns; those numbered in ``right`` are flush right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(cell.rjust(w) if i in right else cell.ljust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))).rstrip()
        for row in rows
    ]


def _judged(text: str, good: bool) -> Text:
    return Text(text, style="green" if good else "red")


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
    rows = [(name, *_interval(entry), f"{confidence:.0%} interval, n = {evaluated.n:,}")]
    if name in evaluated.baseline:
        rows.append(("baseline", *_interval(evaluated.baseline[name]), evaluated.baseline_which))
    lines: list[Any] = [*_aligned(rows)]
    better = evaluated.improvement.get(name, {}).get("high")  # of what is better when it is larger, as headlines are
    if better is not None and better < 0:
        lines.append(Text("worse than the baseline", style="bold yellow"))
    if evaluated.gates:
        passed = sum(g.passed for g in evaluated.gates)
        lines.append(_judged(f"{passed} of {len(evaluated.gates)} gates passed", passed == len(evaluated.gates)))
    return lines


def _interval(entry: dict[str, Any]) -> tuple[str, str]:
    value, low, high = entry["value"], entry["low"], entry["high"]
    return f"{value:.4f}", f"[{low:.4f}, {high:.4f}]" if low is not None and high is not None else ""


def _compression(compressed: Any) -> list[Any]:
    """Before and after; where it did not pay, everything that was tried and why it was refused."""
    if compressed is None:
        return []
    from groundup.compression.verdict import describe

    fp32, chosen = compressed.reference, compressed.chosen
    lines: list[Any]
    if compressed.verdict.paid:
        times = [f"{t['speedup']:.2f} × as fast at batch {batch}" for batch, t in chosen.latency.items()]
        kept = chosen.why.removeprefix(describe(chosen, fp32)).removeprefix("; ")
        reason = ", ".join([*times, f"{chosen.bytes / fp32.bytes:.2f} × the bytes"]) + (f"; {kept}" if kept else "")
        lines = [*_aligned([("before", *_measured(fp32)), ("after", *_measured(chosen))], right=(1, 2, 3))]
        return [*lines, Text.assemble((f"{chosen.scheme} paid", "bold green"), f": {reason}")]
    refused = [c for c in compressed.candidates if c.scheme != fp32.scheme]
    lines = [*_aligned([(c.scheme, *_measured(c)) for c in (fp32, *refused) if c.latency], right=(1, 2, 3))]
    why = "" if refused else f": {compressed.verdict.reason}"
    lines.append(Text.assemble(("did not pay", "bold yellow"), why or ": fp32 stays"))
    reasons: dict[str, list[str]] = {}
    for c in refused:
        reasons.setdefault(c.why.removeprefix(describe(c, fp32)).removeprefix("; ") if c.latency else c.why, []).append(c.scheme)
    return lines + [f"{', '.join(schemes)}: {reason}" for reason, schemes in reasons.items()]


def _measured(candidate: Any) -> tuple[str, str, str]:
    first = next(iter(candidate.latency.values()))
    return console.size(candidate.bytes), f"p50 {first['p50_ms']:.3f} ms", f"p99 {first['p99_ms']:.3f} ms"


def _service(rehearsed: Any) -> list[str]:
    if rehearsed is None:
        return []
    if not rehearsed.enabled:
        return list(rehearsed.notes)
    rows = [
        (
            f"{e['connections']:.0f} caller{'s' * (e['connections'] > 1)}",
            f"p50 {e['p50_ms']:.2f} ms",
            f"p99 {e['p99_ms']:.2f} ms",
            f"{e['requests_per_second']:,.0f} requests/s",
        )
        for e in rehearsed.loads
    ]
    lines = _aligned(rows, right=(0, 1, 2, 3))
    lines.append(f"{rehearsed.replayed:,} test rows over HTTP answered as by the graph")
    memory = rehearsed.start.get("memory_mb")
    told = [f"first answer after {rehearsed.start['seconds_to_first_answer']:.2f} s" + (f", in {memory:.0f} MiB" if memory else "")]
    told += [f"killed, back in {rehearsed.restart['seconds_until_ready']:.2f} s"] if rehearsed.restart else []
    lines.append("; ".join(told))
    if rehearsed.drain:
        lines.append(f"stopped under load, {rehearsed.drain['failed']} of {rehearsed.drain['requests']:,} requests failed")
    return lines


def _drift(rehearsed: Any) -> list[str]:
    return [] if rehearsed is None else list(rehearsed.drift_lines())


def _proofs(run: Run) -> list[Any]:
    proofs = run.proofs
    if not proofs:
        return []
    passed = sum(p.passed for p in proofs)
    by_link = {link: [p for p in proofs if p.link == link] for link in sorted({p.link for p in proofs})}
    counts = {link: (sum(p.passed for p in ps), len(ps)) for link, ps in by_link.items()}
    detail = ", ".join(f"{link}: {good}" if good == made else f"{link}: {good} of {made}" for link, (good, made) in counts.items())
    outcome = _judged(f"{passed} of {len(proofs)} passed", passed == len(proofs))
    return [Text.assemble(outcome, (f"  (link {detail})", "dim"))]


def _registry(registered: Any) -> list[str]:
    if registered is None or not registered.enabled:
        return []
    state = "champion" if registered.promoted or registered.champion == registered.version else "challenger"
    why = f": {'; '.join(registered.reasons)}" if registered.reasons else ""
    return [f"{registered.name} version {registered.version} is {state}{why}", *registered.notes]


def _next(run: Run) -> list[tuple[str, str]]:
    """The commands to go on with."""
    commands = []
    if run.bundle is not None:
        commands.append(("serve it:", f"{_groundup()} serve {_shown(run.bundle)}"))
    if run.report is not None:
        commands.append(("read it: ", f"{_opener()} {_shown(run.report)}".strip()))
    return commands


def _groundup() -> str:
    """How this shell reaches groundup: by name, or by its path in a virtual environment that is not activated."""
    import shutil
    import sys

    if shutil.which("groundup"):
        return "groundup"
    return _shown(Path(sys.executable).parent / "groundup")


def _opener() -> str:
    """What opens a page here: nothing where there is no desktop, and the path alone is shown."""
    import shutil
    import sys

    if sys.platform == "darwin":
        return "open"
    return "xdg-open" if shutil.which("xdg-open") and (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")) else ""


def _shown(path: Path) -> str:
    """The shorter of the absolute path and the path from here."""
    relative = os.path.relpath(path)
    return min((str(path), relative), key=len)

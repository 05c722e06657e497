"""report: everything that a run measured on one page that can be sent to someone."""

from __future__ import annotations

from pathlib import Path

from groundup.bundle.files import write_bytes
from groundup.lifecycle.stage import Context, Output


class Reported(Output):
    """The page.

    Files: ``report.html``.
    """

    report: str = "report.html"
    """File, relative to ``path``."""
    size: int
    """Bytes of the page."""


def report(
    *,
    prepared: Output | None = None,
    tuned: Output | None = None,
    trained: Output | None = None,
    evaluated: Output | None = None,
    compressed: Output | None = None,
    packaged: Output | None = None,
    rehearsed: Output | None = None,
    registered: Output | None = None,
    out: Path,
    context: Context,
) -> Reported:
    """Write ``report.html`` from the outputs of the stages; those that did not run are left out of it."""
    from groundup.reporting.facts import gather
    from groundup.reporting.page import page

    outputs = {
        "prepared": prepared,
        "tuned": tuned,
        "trained": trained,
        "evaluated": evaluated,
        "compressed": compressed,
        "packaged": packaged,
        "rehearsed": rehearsed,
        "registered": registered,
    }
    text = page(gather(outputs)).encode()
    write_bytes(out / "report.html", text)
    context.progress.note(f"report: {len(text) / 1000:,.0f} kB")
    return Reported(size=len(text))

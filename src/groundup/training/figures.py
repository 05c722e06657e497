"""The pictures of a search as SVG: how the best value grew, and which settings mattered."""

from __future__ import annotations

from pathlib import Path
from typing import Any

INK, BEST, FAINT = "#6b7280", "#2563eb", "#9ca3af"  # readable on white and on black


def history(trials: list[dict[str, Any]], metric: str, maximize: bool, path: Path) -> None:
    """Each completed trial's metric, and the best so far.

    Args:
        trials: {"number", "value"}; value None where the trial was pruned or failed.
    """
    done = [t for t in trials if t["value"] is not None]
    x, y = [t["number"] for t in done], [t["value"] for t in done]
    best: list[float] = []
    for value in y:
        best.append(value if not best else (max if maximize else min)(best[-1], value))
    with _figure(path) as axes:
        axes.plot(x, y, "o", color=FAINT, markersize=4, label="trial")
        axes.step(x, best, where="post", color=BEST, label="best so far")
        axes.set_xlabel("trial")
        axes.set_ylabel(metric)
        axes.legend(frameon=False, labelcolor=INK)


def importance(shares: dict[str, float], path: Path) -> None:
    """A bar a setting, the most important on top."""
    ordered = sorted(shares.items(), key=lambda item: item[1])
    with _figure(path) as axes:
        axes.barh([k for k, _ in ordered], [v for _, v in ordered], color=BEST)
        axes.set_xlabel("share of the metric's variance (fANOVA)")


class _figure:  # noqa: N801 - used as a statement
    """A small transparent figure that is written to ``path`` at the end; the same data give the same bytes."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> Any:
        import matplotlib

        matplotlib.use("Agg")
        from matplotlib.figure import Figure

        self.figure = Figure(figsize=(6, 3.2), layout="constrained")
        axes = self.figure.subplots()
        axes.tick_params(colors=INK)
        for name, spine in axes.spines.items():
            spine.set_visible(name in ("left", "bottom"))
            spine.set_color(INK)
        axes.xaxis.label.set_color(INK)
        axes.yaxis.label.set_color(INK)
        return axes

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:
            import matplotlib

            with matplotlib.rc_context({"svg.hashsalt": "groundup", "svg.fonttype": "none"}):
                self.figure.savefig(self.path, format="svg", transparent=True, metadata={"Date": None})

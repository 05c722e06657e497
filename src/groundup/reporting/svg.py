"""Plots as SVG text: lines, intervals, reliability, confusion, histograms, scatters, sparklines.

Colours are CSS variables of the page (``--ink``, ``--muted``, ``--rule``, ``--accent``, ``--second``, ``--good``, ``--bad``), so
a plot follows light and dark.  Everything is drawn in a box 440 wide that scales with its column: text stays readable on a phone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from groundup.reporting.format import defined, number, tick
from groundup.reporting.html import EMPTY, Html, join, tag

WIDTH, HEIGHT = 440.0, 250.0
COLORS = ("var(--accent)", "var(--second)", "var(--third)", "var(--muted)")
Pair = tuple[float, float]


@dataclass(frozen=True)
class Series:
    """One line: points in order, undefined ones left out; ``low`` and ``high`` draw a band."""

    name: str
    points: Sequence[Pair]


@dataclass(frozen=True)
class Bar:
    """One horizontal estimate: value with interval, an optional second one to compare with."""

    label: str
    value: float
    low: float | None = None
    high: float | None = None
    shown: str = ""
    stressed: bool = False


@dataclass(frozen=True)
class Point:
    """One point of a scatter."""

    label: str
    x: float
    y: float
    stressed: bool = False
    detail: str = ""


def ticks(low: float, high: float, most: int = 5) -> list[float]:
    """Round numbers within [low, high], at most ``most`` + 1, a multiple of 1, 2 or 5 times a power of ten apart."""
    if not high > low:
        return [low]
    raw = (high - low) / most
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= raw * (1 - 1e-9))
    first = math.ceil(low / step - 1e-9)
    return [round(i * step, 12) for i in range(first, math.floor(high / step + 1e-9) + 1)]


class Axes:
    """A frame with ticks and labels, into which shapes are put in data coordinates."""

    def __init__(
        self, x: Pair, y: Pair, x_label: str, y_label: str, *, height: float = HEIGHT, x_format: Any = tick, y_format: Any = tick
    ) -> None:
        self.left, self.right, self.top, self.bottom = 52.0, WIDTH - 14, 14.0, height - 40
        self.height = height
        self.x0, self.x1 = _apart(x)
        self.y0, self.y1 = _apart(y)
        self.parts: list[Html] = []
        for t in ticks(self.y0, self.y1):
            self.parts.append(line(self.left, self.y(t), self.right, self.y(t), "var(--rule)"))
            self.parts.append(label(self.left - 6, self.y(t) + 4, y_format(t), anchor="end"))
        for t in ticks(self.x0, self.x1):
            self.parts.append(label(self.x(t), self.bottom + 16, x_format(t), anchor="middle"))
        self.parts.append(line(self.left, self.bottom, self.right, self.bottom, "var(--muted)"))
        self.parts.append(label((self.left + self.right) / 2, height - 6, x_label, anchor="middle", class_="axis"))
        self.parts.append(
            label(0, 0, y_label, anchor="middle", class_="axis", transform=f"translate(11 {(self.top + self.bottom) / 2:.1f}) rotate(-90)")
        )

    def x(self, value: float) -> float:
        return self.left + (value - self.x0) / (self.x1 - self.x0) * (self.right - self.left)

    def y(self, value: float) -> float:
        return self.bottom - (value - self.y0) / (self.y1 - self.y0) * (self.bottom - self.top)

    def path(self, points: Sequence[Pair], color: str, **more: Any) -> None:
        """A line through the points."""
        d = "M" + "L".join(f"{self.x(a):.1f} {self.y(b):.1f}" for a, b in points)
        self.parts.append(
            tag("path", d=d, fill="none", stroke=color, stroke_width=more.pop("stroke_width", 2), stroke_linejoin="round", **more)
        )

    def dot(self, x: float, y: float, color: str, title: str = "", r: float = 3.5, **more: Any) -> None:
        """A point, with a title that shows on hovering."""
        self.parts.append(
            tag("circle", tag("title", title) if title else EMPTY, cx=f"{self.x(x):.1f}", cy=f"{self.y(y):.1f}", r=r, fill=color, **more)
        )

    def done(self, title: str) -> Html:
        """The drawing."""
        return svg(self.parts, title, self.height)


def svg(parts: Sequence[Html], title: str, height: float, width: float = WIDTH, class_: str = "plot") -> Html:
    """The outer element; ``title`` is what a screen reader says."""
    return tag("svg", *parts, viewBox=f"0 0 {width:g} {height:g}", role="img", aria_label=title, class_=class_)


def line(x1: float, y1: float, x2: float, y2: float, color: str, **more: Any) -> Html:
    return tag("line", x1=f"{x1:.1f}", y1=f"{y1:.1f}", x2=f"{x2:.1f}", y2=f"{y2:.1f}", stroke=color, **more)


def label(x: float, y: float, content: Any, anchor: str = "start", **more: Any) -> Html:
    return tag("text", content, x=f"{x:.1f}", y=f"{y:.1f}", text_anchor=anchor, **more)


def lines(series: Sequence[Series], x_label: str, y_label: str, title: str, *, mark: float | None = None, y_format: Any = tick) -> Html:
    """Curves over a common x; ``mark`` draws a dashed upright line there (the epoch that was kept)."""
    kept = [(s, [p for p in s.points if defined(p[0]) and defined(p[1])]) for s in series]
    kept = [(s, points) for s, points in kept if points]
    if not kept:
        return EMPTY
    xs, ys = [p[0] for _, pts in kept for p in pts], [p[1] for _, pts in kept for p in pts]
    axes = Axes((min(xs), max(xs)), _padded(min(ys), max(ys)), x_label, y_label, y_format=y_format)
    if mark is not None and axes.x0 <= mark <= axes.x1:
        axes.parts.append(line(axes.x(mark), axes.top, axes.x(mark), axes.bottom, "var(--muted)", stroke_dasharray="3 4"))
    for (s, points), color in zip(kept, COLORS, strict=False):
        if len(points) > 1:
            axes.path(points, color)
        axes.dot(*points[-1], color, f"{s.name}: {y_format(points[-1][1])}")
    names = [(s.name, color) for (s, _), color in zip(kept, COLORS, strict=False)]
    return join([legend(names) if len(names) > 1 else EMPTY, axes.done(title)])


def bars(rows: Sequence[Bar], title: str, *, reference: float | None = None, low: float | None = None, high: float | None = None) -> Html:
    """Estimates with their intervals, one a row, the value at the right; ``reference`` draws a dashed upright line."""
    rows = [r for r in rows if defined(r.value)]
    if not rows:
        return EMPTY
    ends = [v for v in (reference, *(v for r in rows for v in (r.value, r.low, r.high))) if v is not None and defined(v)]
    x0, x1 = _apart(_padded(min(ends), max(ends)))
    x0, x1 = (x0 if low is None else max(x0, low)), (x1 if high is None else min(x1, high))
    left, right, step = min(200.0, 16 + 6.5 * max(len(_short(r.label, 28)) for r in rows)), WIDTH - 74, 24.0
    height = step * len(rows) + 26

    def at(value: float) -> float:
        return left + (min(max(value, x0), x1) - x0) / (x1 - x0) * (right - left)

    parts = []
    for t in ticks(x0, x1, 4):
        parts += [line(at(t), 4, at(t), height - 20, "var(--rule)"), label(at(t), height - 5, tick(t), anchor="middle")]
    if reference is not None and defined(reference):
        parts.append(line(at(reference), 4, at(reference), height - 20, "var(--muted)", stroke_dasharray="3 4"))
    for i, r in enumerate(rows):
        middle = step * i + 16
        color = "var(--bad)" if r.stressed else "var(--accent)"
        parts.append(tag("text", tag("title", r.label), _short(r.label, 28), x=left - 10, y=middle + 4, text_anchor="end", class_="name"))
        if r.low is not None and r.high is not None and defined(r.low) and defined(r.high):
            parts.append(line(at(r.low), middle, at(r.high), middle, color, stroke_width=4, stroke_opacity="0.35", stroke_linecap="round"))
        parts.append(tag("circle", cx=f"{at(r.value):.1f}", cy=middle, r=4, fill=color))
        parts.append(label(WIDTH - 2, middle + 4, r.shown or number(r.value), anchor="end", class_="value"))
    return svg(parts, title, height)


def reliability(curve: Sequence[dict[str, Any]], title: str) -> Html:
    """Accuracy over confidence with intervals, the diagonal of perfect calibration, and below how many rows lie where."""
    if not curve:
        return EMPTY
    axes = Axes((0, 1), (0, 1), "confidence", "accuracy", height=270)
    axes.path([(0, 0), (1, 1)], "var(--muted)", stroke_dasharray="3 4", stroke_width=1.2)
    most = max(b["n"] for b in curve)
    for b in curve:
        top = 0.22 * b["n"] / most
        w = axes.x(b["to"]) - axes.x(b["from"]) - 2
        axes.parts.append(
            tag(
                "rect",
                tag("title", f"{b['n']:,} rows"),
                x=f"{axes.x(b['from']) + 1:.1f}",
                y=f"{axes.y(top):.1f}",
                width=f"{w:.1f}",
                height=f"{max(axes.bottom - axes.y(top), 0.5):.1f}",
                fill="var(--second)",
                opacity="0.28",
            )
        )
    for b in curve:
        x = axes.x(b["confidence"])
        axes.parts.append(line(x, axes.y(b["low"]), x, axes.y(b["high"]), "var(--accent)", stroke_width=3, stroke_opacity="0.35"))
        axes.dot(b["confidence"], b["accuracy"], "var(--accent)", f"said {b['confidence']:.3f}, was {b['accuracy']:.3f} ({b['n']:,} rows)")
    return axes.done(title)


def confusion(matrix: Sequence[Sequence[int]], classes: Sequence[str], title: str) -> Html:
    """Rows are true classes, columns answers; depth of colour is the share of the row, mistakes in another colour."""
    k = len(classes)
    if not k:
        return EMPTY
    left, top = min(110.0, 22 + 6.4 * max(len(_short(c, 14)) for c in classes)), 26.0
    cell = min((WIDTH - left - 6) / k, 84.0)
    height = top + cell * k + min(90.0, 16 + 5.6 * max(len(_short(c, 14)) for c in classes)) + 6
    parts = [label(left + cell * k / 2, 14, "answer", anchor="middle", class_="axis"), label(0, 14, "truth", class_="axis")]
    upright = max(len(c) for c in classes) * 6.5 < cell
    for i, row in enumerate(matrix):
        total = sum(row) or 1
        y = top + i * cell
        if k <= 30:
            parts.append(
                tag("text", tag("title", classes[i]), _short(classes[i], 14), x=left - 6, y=f"{y + cell / 2 + 4:.1f}", text_anchor="end")
            )
            x, under = left + (i + 0.5) * cell, top + k * cell + 14
            turn = {} if upright else {"transform": f"rotate(-60 {x:.1f} {under - 4:.1f})"}
            parts.append(label(x, under, _short(classes[i], 14), anchor="middle" if upright else "end", **turn))
        for j, n in enumerate(row):
            share = n / total
            color = "var(--accent)" if i == j else "var(--bad)"
            opacity = 0.0 if n == 0 else 0.12 + 0.78 * (share if i == j else min(1.0, 4 * share))
            x = left + j * cell
            parts.append(
                tag(
                    "rect",
                    tag("title", f"{classes[i]} answered as {classes[j]}: {n:,} ({100 * share:.1f} %)") if n else EMPTY,
                    x=f"{x + 0.5:.1f}",
                    y=f"{y + 0.5:.1f}",
                    width=f"{cell - 1:.1f}",
                    height=f"{cell - 1:.1f}",
                    rx=2,
                    fill=color if n else "var(--rule)",
                    fill_opacity=f"{opacity:.2f}" if n else "0.35",
                )
            )
            if k <= 16 and n:
                strong = opacity > 0.55
                parts.append(label(x + cell / 2, y + cell / 2 + 4, f"{n:,}", anchor="middle", class_="cell-strong" if strong else "cell"))
    return svg(parts, title, height)


def histogram(edges: Sequence[float], counts: Sequence[int], x_label: str, title: str) -> Html:
    """Counts between edges."""
    if not counts or not max(counts):
        return EMPTY
    axes = Axes((edges[0], edges[-1]), (0, max(counts) * 1.05), x_label, "rows")
    for a, b, n in zip(edges[:-1], edges[1:], counts, strict=True):
        if n:
            axes.parts.append(_box(axes, a, b, n, "var(--accent)", f"{number(a)} to {number(b)}: {n:,}"))
    if edges[0] < 0 < edges[-1]:
        axes.parts.append(line(axes.x(0), axes.top, axes.x(0), axes.bottom, "var(--muted)", stroke_dasharray="3 4"))
    return axes.done(title)


def scatter(
    points: Sequence[Point],
    x_label: str,
    y_label: str,
    title: str,
    *,
    from_zero: bool = False,
    diagonal: bool = False,
    best: Sequence[Pair] = (),
    x_format: Any = tick,
    y_format: Any = tick,
) -> Html:
    """Points; labels are written beside them where there are at most 12.  ``best`` draws a line of steps (best so far)."""
    points = [p for p in points if defined(p.x) and defined(p.y)]
    if not points:
        return EMPTY
    xs, ys = [p.x for p in points], [p.y for p in points]
    x, y = _padded(min(xs), max(xs)), _padded(min(ys), max(ys))
    if from_zero:
        x, y = (0.0, 1.12 * max(xs)), (0.0, 1.12 * max(ys))
    if diagonal:
        x = y = (min(x[0], y[0]), max(x[1], y[1]))
    axes = Axes(x, y, x_label, y_label, x_format=x_format, y_format=y_format)
    if diagonal:
        axes.path([(x[0], x[0]), (x[1], x[1])], "var(--muted)", stroke_dasharray="3 4", stroke_width=1.2)
    if len(best) > 1:
        steps = [best[0]]
        for before, after in pairwise(best):
            steps += [(after[0], before[1]), after]
        axes.path(steps, "var(--second)", stroke_width=1.6)
    small = len(points) > 60
    for p in points:
        color = "var(--accent)" if p.stressed or not any(q.stressed for q in points) else "var(--muted)"
        axes.dot(p.x, p.y, color, p.detail or p.label, r=2.2 if small else 6 if p.stressed else 4, fill_opacity="0.55" if small else "0.9")
    if 0 < sum(bool(p.label) for p in points) <= 12:
        axes.parts += _labels([(axes.x(p.x), axes.y(p.y), _short(p.label, 30)) for p in points], axes.left + 2)
    return axes.done(title)


def _labels(wanted: Sequence[tuple[float, float, str]], left: float) -> list[Html]:
    """Each label beside its point where it covers neither a point nor a label already there; the first place that is free."""
    taken = [(x - 6, y - 6, x + 6, y + 6) for x, y, _ in wanted]
    parts = []
    for x, y, content in wanted:
        w = 7.6 * len(content)  # as wide as a phone's larger letters make it
        places = [(side, y + dy) for dy in (4, -10, 18, -24, 32, -38, 46) for side in (x + 10, x - 10 - w, x - w / 2)]
        inside = [(a, b) for a, b in places if a >= left and a + w <= WIDTH and b - 10 >= 0]
        free = (p for p in inside if not any(p[0] < r and p[0] + w > x0 and p[1] - 10 < b and p[1] + 3 > t for x0, t, r, b in taken))
        at = next(free, (inside or places)[0])
        taken.append((at[0], at[1] - 10, at[0] + w, at[1] + 3))
        parts.append(label(*at, content, class_="name"))
    return parts


def density(edges: Sequence[float], counts: Sequence[float], low: float, high: float, title: str) -> Html:
    """A sparkline of a number: bars of count over width between open-ended edges, the outer ends at ``low`` and ``high``."""
    ends = [low, *[e for e in edges if low < e < high], high]
    inside = [0.0] * (len(ends) - 1)
    for i, n in enumerate(counts[: len(edges) + 1]):
        upper = edges[i] if i < len(edges) else high
        place = next((j for j in range(len(inside)) if upper <= ends[j + 1]), len(inside) - 1)
        inside[place] += n
    if not high > low or not sum(inside):
        return spark([float(sum(counts))], title)
    least = (high - low) / 60  # a value of its own is drawn this wide
    heights = [n / max(b - a, least) for n, a, b in zip(inside, ends[:-1], ends[1:], strict=True)]
    top = max(heights)
    parts = []
    for h, a, b in zip(heights, ends[:-1], ends[1:], strict=True):
        x, w = 120 * (a - low) / (high - low), max(120 * (b - a) / (high - low), 2.0)
        parts.append(_spark_bar(min(x, 120 - w), w, h / top))
    return svg(parts, title, 26, 120, "spark")


def spark(counts: Sequence[float], title: str) -> Html:
    """A sparkline of categories: a bar each."""
    top = max(counts, default=0)
    if not top:
        return EMPTY
    w = 120 / len(counts)
    return svg([_spark_bar(i * w, w, n / top) for i, n in enumerate(counts)], title, 26, 120, "spark")


def meter(estimate: float, low: float | None, high: float | None, other: float | None, span: Pair, title: str) -> Html:
    """One estimate with its interval on a line, and another value as a tick: the model beside its baseline."""
    x0, x1 = span

    def at(value: float) -> float:
        return 4 + 232 * (min(max(value, x0), x1) - x0) / (x1 - x0)

    parts = [line(4, 12, 236, 12, "var(--rule)", stroke_width=2, stroke_linecap="round")]
    if defined(low) and defined(high):
        assert low is not None
        assert high is not None
        parts.append(line(at(low), 12, at(high), 12, "var(--accent)", stroke_width=8, stroke_opacity="0.3", stroke_linecap="round"))
    if defined(other):
        assert other is not None
        parts.append(line(at(other), 4, at(other), 20, "var(--ink)", stroke_width=2))
    parts.append(tag("circle", cx=f"{at(estimate):.1f}", cy=12, r=5, fill="var(--accent)"))
    return svg(parts, title, 24, 240, "meter")


def _spark_bar(x: float, w: float, share: float) -> Html:
    h = max(24 * share, 0.6)
    return tag(
        "rect", x=f"{x:.1f}", y=f"{25 - h:.1f}", width=f"{max(w - 0.8, 0.8):.1f}", height=f"{h:.1f}", fill="var(--accent)", opacity="0.75"
    )


def _box(axes: Axes, a: float, b: float, n: float, color: str, title: str) -> Html:
    return tag(
        "rect",
        tag("title", title),
        x=f"{axes.x(a) + 0.5:.1f}",
        y=f"{axes.y(n):.1f}",
        width=f"{max(axes.x(b) - axes.x(a) - 1, 0.5):.1f}",
        height=f"{axes.bottom - axes.y(n):.1f}",
        fill=color,
        opacity="0.8",
    )


def legend(names: Sequence[tuple[str, str]]) -> Html:
    """Names, each beside its colour."""
    return tag("p", *[tag("span", tag("i", style=f"background:{color}"), name) for name, color in names], class_="legend")


def _padded(low: float, high: float) -> Pair:
    pad = 0.06 * (high - low) or 0.05 * abs(high) or 0.5
    return low - pad, high + pad


def _apart(ends: Pair) -> Pair:
    return ends if ends[1] > ends[0] else (ends[0] - 0.5, ends[0] + 0.5)


def _short(content: str, most: int) -> str:
    return content if len(content) <= most else content[: most - 1] + "…"

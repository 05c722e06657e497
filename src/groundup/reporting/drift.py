"""The page of ``groundup monitor``: which columns have drifted, when, and how their values have changed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from groundup.bundle import Bundle
from groundup.monitoring.drift import Window
from groundup.monitoring.settings import DriftSettings
from groundup.reporting import format as fmt
from groundup.reporting.html import EMPTY, Html, figure, join, section, table, tag
from groundup.reporting.page import document
from groundup.reporting.summary import card
from groundup.reporting.svg import WIDTH, label, legend, line, svg, ticks

STATES = {"same": "var(--muted)", "shifted": "var(--second)", "drifted": "var(--bad)"}
SHOWN = 8  # columns that are drawn large
_STEPS_S = (60, 300, 900, 3600, 3 * 3600, 6 * 3600, 12 * 3600, 86400, 2 * 86400, 7 * 86400, 30 * 86400, 365 * 86400)


def page(
    bundle: Bundle, settings: DriftSettings, windows: Sequence[Window], columns: Sequence[str], shares: dict[str, dict[str, Any]], rows: int
) -> str:
    """The whole document.

    Args:
        windows: tested windows in order of time, at least one.
        columns: names, the most troubled first.
        shares: for each column, bins and shares of the reference and of its worst window.
    """
    troubled = [c for c in columns if any(w.scores[c].state != "same" for w in windows)]
    drawn = (troubled or list(columns))[:SHOWN]
    figures = [
        tag(
            "div", tag("h3", name), tag("div", timeline(name, windows, settings.threshold), histogram(shares[name], name), class_="figures")
        )
        for name in drawn
    ]
    main = tag(
        "main",
        _verdict(bundle, settings, windows, rows),
        section(
            "columns",
            "Columns",
            _overview(windows, columns),
            lead=join(["The most troubled first. Each mark is one window, taller for a larger change: ", _states(), "."]),
        ),
        section(
            "over-time",
            "Over time",
            *figures,
            lead="Left: the stability index by window, chance taken off. Right: training beside the worst window.",
        ),
        section("meaning", "How to read this", _meaning(settings, windows)),
        tag("footer", tag("p", "Made by groundup from the prediction log. Nothing on this page is loaded from elsewhere.")),
    )
    return document(f"{bundle.name}: drift", main)


def _verdict(bundle: Bundle, settings: DriftSettings, windows: Sequence[Window], rows: int) -> Html:
    last = windows[-1]
    drifted, ever = last.columns("drifted"), [w for w in windows if w.alarm]
    if drifted:
        names = ", ".join(drifted[:3]) + (f" and {len(drifted) - 3} more" if len(drifted) > 3 else "")
        words = join([tag("b", f"{names} {'has' if len(drifted) == 1 else 'have'} drifted", class_="bad"), " in the last window."])
    else:
        words = join([tag("b", "No drift"), " in the last window."])
    past = f" {len(ever)} of {len(windows)} windows raised the alarm." if ever else ""
    return tag(
        "header",
        tag("p", f"{bundle.name} · bundle {bundle.version} · {_time(windows[0].started)} to {_time(last.closed)} UTC", class_="kicker"),
        tag("h1", "Drift"),
        tag("p", words, past, class_="verdict"),
        tag(
            "div",
            card("Rows", f"{rows:,}", tag("p", f"in {len(windows)} windows of up to {settings.window:,}")),
            card(
                "Columns drifted now",
                str(len(drifted)),
                tag("p", f"of {len(last.scores)}; {len(last.columns('shifted'))} more shifted a little"),
            ),
            card(
                "Largest change",
                fmt.number(max(s.excess for w in windows for s in w.scores.values()), 3),
                tag("p", f"stability index; the alarm is at {settings.threshold:g}"),
            ),
            card(
                "False alarms to expect",
                fmt.number(len(windows) * settings.false_alarm_rate, 2),
                tag("p", f"windows at most, at {fmt.percent(settings.false_alarm_rate)} each"),
            ),
            class_="cards",
        ),
        class_="top",
    )


def _states() -> Html:
    return join(
        [
            tag("b", word, style=f"color:{STATES[state]}")
            for state, word in (("same", "same"), ("shifted", "shifted"), ("drifted", "drifted"))
        ],
        ", ",
    )


def _overview(windows: Sequence[Window], columns: Sequence[str]) -> Html:
    rows = []
    for name in columns:
        scores = [w.scores[name] for w in windows]
        now = scores[-1]
        state = tag("b", now.state, style=f"color:{STATES[now.state]}")
        p = "< 10⁻¹⁰" if now.p < 1e-10 else fmt.number(now.p, 2)
        largest = max(s.excess for s in scores)
        rows.append([name, strip(name, windows), state, fmt.number(now.excess, 3), p, fmt.number(largest, 3)])
    head = ("column", "windows", "now", "index now", "p now", "largest index")
    return table(head, rows, numeric=(3, 4, 5), caption="Columns by severity")


def strip(name: str, windows: Sequence[Window]) -> Html:
    """One mark a window, in order: taller for a larger change, coloured by state."""
    w = 160 / max(len(windows), 12)
    parts = []
    for i, window in enumerate(windows):
        score = window.scores[name]
        h = 3 + 19 * min(1.0, score.excess)
        words = f"{_time(window.closed)}: {score.state}, {fmt.number(score.excess, 3)}"
        parts.append(
            tag(
                "rect",
                tag("title", words),
                x=f"{i * w:.2f}",
                y=f"{24 - h:.1f}",
                width=f"{max(w - 0.6, 0.5):.2f}",
                height=f"{h:.1f}",
                fill=STATES[score.state],
            )
        )
    return svg(parts, f"{name}, window by window", 26, 160, "spark")


def timeline(name: str, windows: Sequence[Window], threshold: float) -> Html:
    """The stability index of one column over time, with the threshold."""
    height, left, right, top = 190.0, 46.0, WIDTH - 10, 12.0
    bottom = height - 30
    t0, t1 = windows[0].started, windows[-1].closed
    t1 = t1 if t1 > t0 else t0 + 1
    highest = 1.08 * max(threshold * 1.2, *(w.scores[name].excess for w in windows))

    def x(t: float) -> float:
        return left + (t - t0) / (t1 - t0) * (right - left)

    def y(value: float) -> float:
        return bottom - value / highest * (bottom - top)

    parts = []
    for v in ticks(0, highest, 4):
        parts += [line(left, y(v), right, y(v), "var(--rule)"), label(left - 6, y(v) + 4, fmt.number(v, 3), anchor="end")]
    for t in _time_ticks(t0, t1):
        parts.append(label(x(t), bottom + 18, _short_time(t, t1 - t0), anchor="middle"))
    parts += [
        line(left, y(threshold), right, y(threshold), "var(--bad)", stroke_dasharray="4 4"),
        line(left, bottom, right, bottom, "var(--muted)"),
    ]
    for w in windows:  # a window has a length: a bar from its first row to its closing
        score = w.scores[name]
        words = f"{_time(w.started)} to {_time(w.closed)}: {score.state}, index {fmt.number(score.excess, 3)}, {w.rows:,} rows"
        a, b = x(w.started), x(w.closed)
        parts.append(
            tag(
                "rect",
                tag("title", words),
                x=f"{a:.1f}",
                y=f"{y(score.excess) - 1.5:.1f}",
                width=f"{max(b - a - 0.5, 2):.1f}",
                height=3,
                rx=1.5,
                fill=STATES[score.state],
            )
        )
    return figure(svg(parts, f"Stability index of {name} over time", height), "Stability index by window; dashed, the threshold.")


def histogram(share: dict[str, Any], name: str) -> Html:
    """Shares of the bins in training and in the worst window, side by side; the bins that changed most where there are many."""
    if share["window"] is None:
        return EMPTY
    bins = list(zip(share["bins"], share["reference"], share["window"], strict=True))
    bins = [b for b in bins if b[1] or b[2]]
    if len(bins) > 14:
        kept = sorted(sorted(range(len(bins)), key=lambda i: -abs(bins[i][1] - bins[i][2]))[:14])
        bins = [bins[i] for i in kept]
    left, right, step = 138.0, WIDTH - 58, 20.0
    height = step * len(bins) + 8
    top = max(max(a, b) for _, a, b in bins)
    parts = []
    for i, (words, before, after) in enumerate(bins):
        y = step * i + 5
        shown = words if len(words) <= 20 else words[:19] + "…"
        parts.append(tag("text", tag("title", words), shown, x=left - 8, y=y + 11, text_anchor="end", class_="name"))
        for share_, offset, color, side in ((before, 0, "var(--muted)", "training"), (after, 7, "var(--accent)", "live")):
            width = (right - left) * share_ / top
            parts.append(
                tag(
                    "rect",
                    tag("title", f"{side}: {fmt.percent(share_)}"),
                    x=left,
                    y=y + offset,
                    width=f"{max(width, 0.8):.1f}",
                    height=6,
                    rx=1,
                    fill=color,
                )
            )
        parts.append(label(left + (right - left) * max(before, after) / top + 5, y + 11, fmt.percent(after), class_="value"))
    drawing = svg(parts, f"Values of {name} in training and in the worst window", height)
    colours = legend([("training", "var(--muted)"), ("worst window", "var(--accent)")])
    return figure(join([colours, drawing]), "Share of rows in each bin.")


def _meaning(settings: DriftSettings, windows: Sequence[Window]) -> Html:
    rate, n = settings.false_alarm_rate, len(windows)
    paragraphs = (
        "Each window of live rows is compared with the profile of the training data, column by column. Shifted: the difference is "
        f"more than chance gives, with at most {fmt.percent(rate)} of windows showing any such column by chance. Drifted: shifted, and "
        f"the population stability index, less what chance alone gives, is at least {settings.threshold:g}. Only drift raises the alarm.",
        f"Windows do not overlap and each is tested once. Over {n} windows, up to {fmt.number(n * rate, 2)} would show a shifted column "
        "although nothing changed. The tests assume that rows are independent: many near-equal requests in a row look like drift.",
        "Drift says that inputs or answers look different from training, not that answers are wrong: that takes labels.",
    )
    return join(tag("p", text) for text in paragraphs)


def _time(t: float) -> str:
    return datetime.fromtimestamp(t, UTC).strftime("%Y-%m-%d %H:%M")


def _short_time(t: float, span: float) -> str:
    return datetime.fromtimestamp(t, UTC).strftime("%H:%M" if span <= 86400 else "%d %b" if span < 300 * 86400 else "%b %Y")


def _time_ticks(t0: float, t1: float) -> list[float]:
    """At most five round times within [t0, t1]."""
    step = next((s for s in _STEPS_S if (t1 - t0) / s <= 5), _STEPS_S[-1])
    first = math.ceil(t0 / step)
    return [float(i * step) for i in range(first, math.floor(t1 / step) + 1)][:8] or [t0]

"""The evaluation's part of the page: metrics beside the baseline, confusion, calibration, slices, worst mistakes, gates."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from groundup.reporting import format as fmt
from groundup.reporting import svg
from groundup.reporting.facts import Facts, Plain
from groundup.reporting.html import EMPTY, Html, figure, join, more, section, table, tag

SHOWN_SLICES = 12
_ISO = re.compile(r"\d{4}-\d\d-\d\d(T\d\d:\d\d(:\d\d(\.\d+)?)?)?")


def evaluation(facts: Facts) -> Html:
    """The whole section."""
    e = facts["evaluated"]
    if not e:
        return EMPTY
    confidence = fmt.percent(e["intervals"].get("confidence"), 0)
    lead = (
        f"Measured on {e['n']:,} rows of the test split, which nothing was chosen on. Intervals hold {confidence} of the "
        f"uncertainty that comes from the split being a sample; the baseline ({e['baseline_which']}) was trained on the same rows."
    )
    return section(
        "evaluation",
        "Evaluation",
        metrics_table(e),
        tag("p", e["baseline_note"][:1].upper() + e["baseline_note"][1:] + ".", class_="note") if e.get("baseline_note") else EMPTY,
        gates_table(e.get("gates") or []),
        tag("div", _confusion(e), _calibration(e), _errors(e), class_="figures"),
        _confused(e),
        _per_class(e),
        _slices(e),
        _mistakes(facts),
        lead=lead,
    )


def metrics_table(e: Plain) -> Html:
    """Every metric: test with interval, baseline, difference with interval, validation."""
    rows, marked = [], []
    for i, (name, estimate) in enumerate(e["metrics"].items()):
        gain = (e.get("improvement") or {}).get(name) or {}
        if i == 0:
            marked.append(0)
        rows.append(
            [
                fmt.LABELS.get(name, name),
                tag("b", fmt.metric(name, estimate.get("value"))),
                fmt.interval(name, estimate),
                fmt.metric(name, (e["baseline"].get(name) or {}).get("value")),
                fmt.difference(name, gain.get("value")),
                fmt.interval(name, gain, fmt.difference),
                fmt.metric(name, (e.get("validation") or {}).get(name)),
            ]
        )
    head = ("metric", "test", "interval", "baseline", "difference", "interval", "validation")
    return table(head, rows, numeric=range(1, 7), marked=marked, caption="Metrics on the test split")


def gates_table(gates: Sequence[Plain]) -> Html:
    """Every goal with what was measured and what was needed; slices of a column that all passed share a row, that of the tightest."""
    if not gates:
        return EMPTY
    rows = []
    for g, others in _tightest(gates):
        unit = f"{fmt.NARROW}%" if g["goal"].startswith("percent-") else ""
        where = g.get("where") or "whole split"
        rows.append(
            [
                badge("passed", True) if g["passed"] else badge("failed", False),
                g["gate"] if g["gate"] == g["metric"] else f"{g['gate']} ({g['metric']})",
                g["goal"],
                f"{where}, the tightest of {others + 1} slices" if others else where,
                fmt.number(g["measured"]) + unit,
                f"{'≥' if g['at_least'] else '≤'} {fmt.number(g['bound'])}{unit}",
                f"{g['n']:,}",
            ]
        )
    head = ("", "gate", "goal", "where", "measured", "needed", "rows")
    return join([tag("h3", "Gates"), table(head, rows, numeric=(4, 5, 6), caption="Gates")])


def _tightest(gates: Sequence[Plain]) -> list[tuple[Plain, int]]:
    """Failures first; of the slices that passed the same goal the one nearest to its bound, with how many others there are."""
    found: list[tuple[Plain, int]] = [(g, 0) for g in gates if not g["passed"]]
    passed: dict[tuple[str, str, str], list[Plain]] = {}
    for g in gates:
        if g["passed"]:
            column = (g.get("where") or "").rpartition(" = ")[0]
            passed.setdefault((g["gate"], g["goal"], column), []).append(g)
    for group in passed.values():
        found.append((min(group, key=lambda g: abs(g["measured"] - g["bound"])), len(group) - 1))
    return found


def badge(words: str, good: bool | None) -> Html:
    """A small coloured word; None is neither good nor bad."""
    return tag("span", words, class_="badge " + {True: "good", False: "bad", None: "plain"}[good])


def _confusion(e: Plain) -> Html:
    matrix = e.get("confusion")
    if not matrix:
        return EMPTY
    names = [str(c["class"]) for c in e["per_class"]]
    return figure(
        svg.confusion(matrix, names, f"Confusion matrix of {len(names)} classes"),
        "Confusion: rows are the true class, columns the answer. Depth is the share of the row; mistakes are drawn four times as strong.",
    )


def _calibration(e: Plain) -> Html:
    curve = e.get("calibration") or []
    ece = (e["metrics"].get("ece") or {}).get("value")
    caption = (
        f"Reliability: where a point lies on the dashed line, the confidence means what it says. "
        f"Expected calibration error {fmt.number(ece, 3)}. Bars: how many rows."
    )
    return figure(svg.reliability(curve, "Reliability curve: accuracy over confidence"), caption)


def _errors(e: Plain) -> Html:
    r = e.get("residuals") or {}
    if not r:
        return EMPTY
    points = [svg.Point("", b, a) for a, b in r["points"] if fmt.defined(a) and fmt.defined(b)]
    spread = r["errors"]
    return join(
        [
            figure(
                svg.scatter(points, "prediction", "target", "Target over prediction", diagonal=True),
                "Target over prediction, a sample of the test rows; on the dashed line the two are equal.",
            ),
            figure(
                svg.histogram(spread["edges"], spread["counts"], "prediction − target", "Distribution of the errors"),
                "Errors, prediction minus target; the outermost bars also hold what lies beyond the 1st and 99th percentile.",
            ),
        ]
    )


def _confused(e: Plain) -> Html:
    pairs = e.get("confused") or []
    rows = [[p["truth"], p["answer"], f"{p['n']:,}", fmt.percent(p["share"])] for p in pairs]
    inner = table(("truth", "answered as", "times", "of that class"), rows, numeric=(2, 3), caption="Most confused pairs")
    return more(f"Most confused pairs ({len(rows)})", inner) if rows else EMPTY


def _per_class(e: Plain) -> Html:
    rows = [
        [c["class"], f"{c['n']:,}", fmt.percent(c["precision"]), fmt.percent(c["recall"]), fmt.percent(c["f1"])]
        for c in e.get("per_class") or []
    ]
    if not rows:
        return EMPTY
    inner = table(("class", "rows", "precision", "recall", "F1"), rows, numeric=(1, 2, 3, 4), caption="Precision and recall by class")
    return more(f"Precision and recall by class ({len(rows)})", inner)


def _slices(e: Plain) -> Html:
    slices = e.get("slices") or []
    if not slices:
        return EMPTY
    name = slices[0]["metric"]
    flagged = [s for s in slices if s["worse"]]
    headline = e["metrics"].get(name) or {}
    worst = sorted(slices, key=lambda s: (not s["worse"], s["measured"] if name == "accuracy" else -s["measured"]))[:SHOWN_SLICES]
    estimates = [
        svg.Bar(f"{s['column']} = {s['value']}", s["measured"], s["low"], s["high"], fmt.metric(name, s["measured"]), s["worse"])
        for s in worst
    ]
    verdict = (
        f"{len(flagged)} of {len(slices)} slices {'is' if len(flagged) == 1 else 'are'} significantly worse than the rest."
        if flagged
        else f"None of the {len(slices)} slices is significantly worse than the rest."
    )
    top = 1.0 if name == "accuracy" else None
    drawing = svg.bars(estimates, f"{fmt.LABELS[name]} of the weakest slices", reference=headline.get("value"), high=top, low=0.0)
    rows = [
        [
            badge("worse", False) if s["worse"] else "",
            s["column"],
            s["value"],
            f"{s['n']:,}",
            fmt.metric(name, s["measured"]),
            fmt.interval(name, s),
            fmt.metric(name, s["rest"]),
            fmt.number(s["p"], 2),
        ]
        for s in slices
    ]
    head = ("", "column", "value", "rows", fmt.LABELS[name].lower(), "interval", "the rest", "p, adjusted")
    return join(
        [
            tag("h3", "Slices"),
            tag("p", verdict, " One test a slice, corrected for their number (Benjamini–Hochberg)."),
            figure(
                drawing,
                f"{fmt.LABELS[name]} of the {len(worst)} weakest slices with intervals; dashed, the whole split. "
                "Significantly worse ones in red.",
            ),
            more(f"All {len(slices)} slices", table(head, rows, numeric=(3, 4, 5, 6, 7), caption="All slices")),
        ]
    )


def _mistakes(facts: Facts) -> Html:
    worst = facts["evaluated"].get("worst") or []
    if not worst:
        return EMPTY
    if "image" in worst[0]:
        cards = [_card(facts, m) for m in worst]
        inner = tag("div", *cards, class_="gallery")
        count = f"The {len(worst)} mistakes with the highest loss, worst first." if len(worst) > 1 else "The only mistake."
    else:
        inner = _records(worst)
        count = f"The {len(worst)} rows with the largest {'error' if 'confidence' not in worst[0] else 'loss'}, worst first."
    hint = " A very confident one is often a wrong label." if "confidence" in worst[0] else ""
    return join([tag("h3", "Worst mistakes"), tag("p", count, hint), inner])


def _card(facts: Facts, m: Plain) -> Html:
    words = tag("figcaption", tag("b", m["truth"]), " called ", tag("b", m["answer"]), tag("br"), f"{fmt.percent(m['confidence'], 0)} sure")
    picture = tag("img", src=facts.picture("evaluated", m["image"]), alt=f"test image {m['row']}", loading="lazy")
    return tag("figure", picture, words, title=f"row {m['row']} of the source")


def _records(worst: Sequence[Plain]) -> Html:
    columns = list(worst[0].get("record") or {})
    classified = "confidence" in worst[0]
    head = ["row", "truth", "answer", "sure" if classified else "off by", *columns]

    def cells(m: Plain) -> list[Any]:
        how = fmt.percent(m["confidence"], 0) if classified else fmt.number(m["loss"])
        return [str(m["row"]), fmt.plain(m["truth"]), fmt.plain(m["answer"]), how, *(_value(m["record"].get(c)) for c in columns)]

    return table(head, [cells(m) for m in worst], numeric=(0, 3), caption="Worst mistakes")


def _value(value: Any) -> Any:
    """A value of a record; a date stays on one line."""
    if isinstance(value, str) and _ISO.fullmatch(value):
        return tag("time", value.replace("T", " ").removesuffix(" 00:00:00"))
    return _clip(fmt.plain(value))


def _clip(value: str, most: int = 60) -> str:
    return value if len(value) <= most else value[: most - 1] + "…"

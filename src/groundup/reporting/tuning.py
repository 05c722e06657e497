"""Tuning's part of the page: what was tried, what came out, and which settings mattered."""

from __future__ import annotations

from typing import Any

from groundup.reporting import format as fmt
from groundup.reporting import svg
from groundup.reporting.facts import Facts, Plain
from groundup.reporting.html import EMPTY, Html, facts, figure, more, section, table, tag


def tuning(run: Facts) -> Html:
    """The whole section."""
    t = run["tuned"]
    trials: list[Plain] = t.get("trials") or []
    if not trials:
        return EMPTY
    states = {state: sum(x["state"] == state for x in trials) for state in ("complete", "pruned", "failed")}
    described = facts(
        [
            ("trials", ", ".join(f"{n} {state}" for state, n in states.items() if n)),
            (
                "best",
                f"trial {t.get('best_trial')}: " + ", ".join(f"{name} {_value(name, v)}" for name, v in (t.get("best") or {}).items()),
            ),
            ("workers", str(t["workers"]) if t.get("workers") else None),
            ("time", fmt.seconds(t["seconds"]) if t.get("seconds") else None),
            *[(key, fmt.plain(value)) for key, value in (t.get("overrides") or {}).items()],
        ]
    )
    return section("tuning", "Tuning", described, tag("div", _history(t), _importance(t), _trade(t), class_="figures"), _trials(t))


def _value(name: str, value: Any) -> str:
    return fmt.milliseconds(value) if name.startswith("latency") else fmt.size(value) if name == "bytes" else fmt.metric(name, value)


def _complete(t: Plain, name: str) -> list[Plain]:
    return [x for x in t["trials"] if fmt.defined((x.get("values") or {}).get(name))]


def _history(t: Plain) -> Html:
    objectives = t.get("objectives") or {}
    if not objectives:
        return EMPTY
    name, direction = next(iter(objectives.items()))
    done = sorted(_complete(t, name), key=lambda x: x["number"])
    better = max if direction == "maximize" else min
    best: list[svg.Pair] = []
    for x in done:
        value = x["values"][name]
        best.append((float(x["number"]), better(best[-1][1], value) if best else value))
    points = [
        svg.Point(
            "",
            float(x["number"]),
            x["values"][name],
            x["number"] == t.get("best_trial"),
            f"trial {x['number']}: {_value(name, x['values'][name])}",
        )
        for x in done
    ]
    drawing = svg.scatter(points, "trial", name, f"{name} by trial", best=best, x_format=fmt.number)
    return figure(
        drawing, f"{fmt.LABELS.get(name, name)} on validation by trial; the line is the best so far, the kept trial is drawn large."
    )


def _importance(t: Plain) -> Html:
    ranked = sorted((t.get("importance") or {}).items(), key=lambda item: -item[1])[:12]
    rows = [svg.Bar(name, value, 0.0, value, fmt.percent(value, 0)) for name, value in ranked]
    return figure(
        svg.bars(rows, "Importance of the settings", low=0.0), "Share of the objective's variance that each setting explains (fANOVA)."
    )


def _trade(t: Plain) -> Html:
    """With two objectives, one over the other."""
    names = list(t.get("objectives") or {})
    if len(names) < 2:
        return EMPTY
    done = [x for x in _complete(t, names[0]) if fmt.defined(x["values"].get(names[1]))]
    points = [
        svg.Point("", x["values"][names[1]], x["values"][names[0]], x["number"] == t.get("best_trial"), f"trial {x['number']}")
        for x in done
    ]
    drawing = svg.scatter(points, names[1], names[0], f"{names[0]} over {names[1]}", x_format=lambda v: _value(names[1], v))
    return figure(
        drawing, f"{fmt.LABELS.get(names[0], names[0])} over {names[1]}: what one costs in the other; the kept trial is drawn large."
    )


def _trials(t: Plain) -> Html:
    settings = sorted({key for x in t["trials"] for key in x["params"]})
    names = list(t.get("objectives") or {})
    rows, marked = [], []
    for i, x in enumerate(t["trials"]):
        if x["number"] == t.get("best_trial"):
            marked.append(i)
        values = [_value(n, (x.get("values") or {}).get(n)) for n in names]
        rows.append([str(x["number"]), x.get("error") or x["state"], *values, *[fmt.plain(x["params"].get(s)) for s in settings]])
    head = ("trial", "state", *names, *settings)
    return more(f"All {len(rows)} trials", table(head, rows, numeric=range(2, len(head)), marked=marked, caption="All trials"))

"""The data's part of the page: what was read, how it was divided, what was put aside, and what every column looks like."""

from __future__ import annotations

from typing import Any

from groundup.reporting import format as fmt
from groundup.reporting import svg
from groundup.reporting.facts import Facts, Plain
from groundup.reporting.html import EMPTY, Html, facts, join, more, section, table, tag

MANY = 40  # beyond, the columns fold away


def data(run: Facts) -> Html:
    """The whole section."""
    p = run["prepared"]
    if not p:
        return EMPTY
    sizes: dict[str, int] = p.get("sizes") or {}
    total = sum(sizes.values())
    split = ", ".join(f"{name} {n:,} ({fmt.percent(n / total, 0)})" for name, n in sizes.items()) if total else None
    classes = p.get("classes")
    described = facts(
        [
            ("rows", f"{total:,}"),
            ("split", split),
            ("put aside", f"{p.get('quarantined', 0):,} rows" if p.get("quarantined") else "none"),
            ("target", f"{p.get('target')}" + (f", {len(classes)} classes" if classes else "")),
            ("the model sees", f"{' × '.join(map(str, p.get('feature_shape') or []))} numbers"),
            ("data hash", tag("code", str(p.get("data_hash", ""))[:16])),
        ]
    )
    notes = p.get("notes") or []
    return section(
        "data",
        "Data",
        described,
        tag("div", tag("h3", "Notes"), tag("ul", *[tag("li", n) for n in notes])) if notes else EMPTY,
        _columns(run, p),
        more(f"Classes ({len(classes)})", tag("p", ", ".join(classes))) if classes and len(classes) > 12 else EMPTY,
    )


def _columns(run: Facts, p: Plain) -> Html:
    inputs = {f["name"]: f for f in p.get("inputs") or []}
    rows = []
    if run.profile:
        for name, column in run.profile.items():
            if name not in inputs and name.endswith(".missing"):  # what a date's row says already
                continue
            declared = inputs.get(name)
            dated = declared is not None and declared["kind"] == "datetime"
            rows.append([name, _kind(declared, column), _shape(name, column), *_figures(column, dated=dated)])
    else:
        rows = [[name, f["kind"], EMPTY, "", "", ""] for name, f in inputs.items()]
    head = ("column", "kind", "distribution", "missing", "distinct", "range or most frequent")
    made = table(head, rows, numeric=(3, 4), caption="Columns of the training split")
    if len(rows) > MANY:
        return more(f"Columns of the training split ({len(rows)})", made)
    return join([tag("h3", "Columns of the training split"), made]) if rows else EMPTY


def _kind(declared: Plain | None, column: Plain) -> str:
    if declared:
        return f"{declared['kind']}, may be missing" if declared.get("nullable") else str(declared["kind"])
    return f"{column.get('kind', '')}, derived"


def _figures(column: Plain, *, dated: bool) -> tuple[Any, Any, Any]:
    count = column.get("count") or 0
    missing = fmt.percent(column.get("missing", 0) / count) if column.get("missing") and count else "–"
    if column.get("top"):
        return missing, fmt.number(column.get("distinct")), ", ".join(_clip(str(name)) for name, _ in _pairs(column["top"])[:4])
    if dated and fmt.defined(column.get("min")):
        span = join([tag("time", fmt.moment(column["min"])), " … ", tag("time", fmt.moment(column["max"]))])
        return missing, fmt.number(column.get("distinct")), span
    if fmt.defined(column.get("min")):
        mean = f", mean {fmt.number(column.get('mean'), 3)}"
        return missing, fmt.number(column.get("distinct")), f"{fmt.number(column['min'], 3)} … {fmt.number(column['max'], 3)}{mean}"
    return missing, fmt.number(column.get("distinct")), "–"


def _pairs(top: Any) -> list[tuple[str, int]]:
    """[(name, count), ...], whichever stands first in the profile."""
    return [(str(a), int(b)) if isinstance(b, int | float) else (str(b), int(a)) for a, b in top]


def _shape(name: str, column: Plain) -> Html:
    bins = column.get("bins") or {}
    if bins.get("categories") is not None:
        return svg.spark(bins["counts"][:20], f"{name}: the most frequent categories")
    low, high = column.get("min"), column.get("max")
    if low is None or high is None or not bins.get("edges"):
        return EMPTY
    q = column.get("quantiles") or {}
    if "5" in q and "95" in q and q["95"] > q["5"]:  # a far outlier must not flatten the rest
        reach = q["95"] - q["5"]
        low, high = max(low, q["5"] - reach / 4), min(high, q["95"] + reach / 4)
    return svg.density(
        bins["edges"], bins["counts"][:-1], float(low), float(high), f"{name}: distribution of the middle 90 percent and a little more"
    )


def _clip(value: str, most: int = 24) -> str:
    return value if len(value) <= most else value[: most - 1] + "…"

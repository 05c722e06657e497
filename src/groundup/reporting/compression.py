"""Compression's part of the page: every candidate with what was measured, and why one is served."""

from __future__ import annotations

from typing import Any

from groundup.reporting import format as fmt
from groundup.reporting import svg
from groundup.reporting.evaluation import badge
from groundup.reporting.facts import Facts, Plain
from groundup.reporting.html import EMPTY, Html, figure, join, section, table, tag
from groundup.reporting.summary import latency, pair


def compression(run: Facts) -> Html:
    """The whole section."""
    c = run["compressed"]
    if not c.get("candidates"):
        return EMPTY
    v = c["verdict"]
    machine = c.get("cpu") or {}
    lead = join(
        [
            badge("paid", True) if v["paid"] else badge("did not pay", None),
            " ",
            v["reason"].rstrip(".") if v["paid"] else v["reason"].partition(".")[0],  # of the others the list below tells more
            ".",
        ]
    )
    vnni = "which has VNNI" if machine.get("vnni") else "which lacks VNNI"
    note = tag("p", f"Measured on {machine['name']}, {vnni}.", class_="note") if machine.get("name") else EMPTY
    return section("compression", "Compression", _table(c), _reasons(c), _plot(c), note, lead=lead)


def _table(c: Plain) -> Html:
    fp32, _ = pair(c)
    rows, marked = [], []
    batches = sorted({int(b) for x in c["candidates"] for b in x.get("latency") or {}})
    metric = next(iter((fp32.get("metrics") or {}).get("test") or {"": None}))
    for i, x in enumerate(c["candidates"]):
        if x["scheme"] == c["verdict"]["chosen"]:
            marked.append(i)
        rows.append(
            [
                join([tag("code", x["scheme"]), " ", badge("served", True) if i in marked else EMPTY]),
                _size(x, fp32),
                *[cell for b in batches for cell in _times(x, b)],
                fmt.metric(metric, ((x.get("metrics") or {}).get("test") or {}).get(metric)),
                f"{x['products_int8']} of {x['products']}" if x.get("products") else "–",
            ]
        )
    timed = [h for b in batches for h in (f"p50 / p99, batch {b}", "faster")]
    name = fmt.LABELS.get(metric, metric)
    head = ("scheme", "size, times smaller", *timed, f"test {name[:1].lower()}{name[1:]}", "in int8")
    return table(head, rows, numeric=range(1, len(head)), marked=marked, caption="Candidates; the one that is served is marked")


def _reasons(c: Plain) -> Html:
    """Why each of the others is not served; the lead says why the one is that is."""
    told = [(x["scheme"], x.get("why")) for x in c["candidates"] if x["scheme"] not in ("fp32", c["verdict"]["chosen"]) and x.get("why")]
    return tag("ul", *[tag("li", tag("code", name), " ", why) for name, why in told], class_="reasons") if told else EMPTY


def _size(x: Plain, fp32: Plain) -> Any:
    if not x.get("bytes"):
        return "–"
    smaller = tag("small", f" {fmt.times(fp32['bytes'] / x['bytes'])}") if x["scheme"] != "fp32" and fp32.get("bytes") else EMPTY
    return join([fmt.size(x["bytes"]), smaller])


def _times(x: Plain, batch: int) -> tuple[Any, Any]:
    t = (x.get("latency") or {}).get(str(batch)) or (x.get("latency") or {}).get(batch)
    if not t:
        return "–", "–"
    return f"{fmt.milliseconds(t.get('p50_ms'))} / {fmt.milliseconds(t.get('p99_ms'))}", fmt.times(t.get("speedup"))


def _plot(c: Plain) -> Html:
    points = []
    for x in c["candidates"]:
        batch, t = latency(x)
        if not t or not x.get("bytes"):
            continue
        test = (x.get("metrics") or {}).get("test") or {}
        name, value = next(iter(test.items()), ("", None))
        shown = f", {fmt.LABELS.get(name, name).lower()} {fmt.metric(name, value)}" if name else ""
        points.append(
            svg.Point(
                x["scheme"],
                float(x["bytes"]),
                float(t["p50_ms"]),
                x["scheme"] == c["verdict"]["chosen"],
                f"{x['scheme']}: {fmt.size(x['bytes'])}, {fmt.milliseconds(t['p50_ms'])} at batch {batch}{shown}",
            )
        )
    if len(points) < 2:
        return EMPTY
    drawing = svg.scatter(
        points, "size", "p50 latency", "Size and latency of the candidates", from_zero=True, x_format=fmt.size, y_format=fmt.milliseconds
    )
    return tag(
        "div", figure(drawing, "Smaller is further left, faster is further down; the one that is served is drawn large."), class_="figures"
    )

"""The top of the page: what came out, in one sentence and a few large figures."""

from __future__ import annotations

from typing import Any

from groundup.bundle.proof import Proof
from groundup.reporting import format as fmt
from groundup.reporting import svg
from groundup.reporting.evaluation import badge
from groundup.reporting.facts import Facts, Plain
from groundup.reporting.html import EMPTY, Html, join, tag
from groundup.reporting.rehearsal import drift_badge, drift_verdict


def verdict(facts: Facts) -> Html:
    """Title, sentence and cards."""
    name = facts.manifest.get("name") or facts["registered"].get("name") or "A run"
    task = facts["prepared"].get("task") or facts["evaluated"].get("task") or ""
    meta = [task.replace("-", " "), f"bundle {facts.manifest['version']}" if facts.manifest else "", _when(facts.manifest)]
    return tag(
        "header",
        tag("p", " · ".join(m for m in meta if m), class_="kicker"),
        tag("h1", name),
        tag("p", join(sentences(facts), " "), class_="verdict"),
        cards(facts),
        class_="top",
    )


def sentences(facts: Facts) -> list[Html]:
    """The outcome in words, a sentence a fact."""
    made = (
        _quality(facts["evaluated"]),
        _compression(facts),
        _gates(facts["evaluated"]),
        _proved(facts.proofs),
        _drift(facts["rehearsed"]),
    )
    return [s for s in made if s]


def cards(facts: Facts) -> Html:
    """The large figures."""
    made = [_quality_card(facts["evaluated"]), *_cost_cards(facts), _proof_card(facts.proofs), _drift_card(facts["rehearsed"])]
    shown = [c for c in made if c]
    return tag("div", *shown, class_="cards") if shown else EMPTY


def card(title: str, figure: Any, *below: Any) -> Html:
    """One large figure with what belongs to it."""
    return tag("div", tag("p", title, class_="title"), tag("p", figure, class_="figure"), *[b for b in below if b], class_="card")


def headline(e: Plain) -> tuple[str, Plain, Plain]:
    """The first metric's name, the model's estimate and the baseline's."""
    name = next(iter(e["metrics"]))
    return name, e["metrics"][name], e["baseline"].get(name) or {}


def latency(candidate: Plain) -> tuple[str, Plain]:
    """Batch size and times at the first batch size measured; ("", {}) where nothing was."""
    times = candidate.get("latency") or {}
    return next(((str(batch), t) for batch, t in times.items()), ("", {}))


def pair(compressed: Plain) -> tuple[Plain, Plain]:
    """The fp32 candidate and the one that is served; the smallest other one where fp32 is served and others were measured."""
    by_scheme = {c["scheme"]: c for c in compressed.get("candidates") or []}
    return by_scheme.get("fp32", {}), by_scheme.get((compressed.get("verdict") or {}).get("chosen"), {})


def _quality(e: Plain) -> Html | None:
    if not e:
        return None
    name, ours, base = headline(e)
    gain = (e.get("improvement") or {}).get(name) or {}
    sure = fmt.defined(gain.get("low")) and (gain["low"] > 0 or gain["high"] < 0)
    around = fmt.interval(name, ours)
    confidence = fmt.percent(e["intervals"].get("confidence"), 0)
    beside = ""
    if fmt.defined(base.get("value")):
        how = fmt.difference(name, gain.get("value")) + ("" if sure else ", not a certain difference")
        beside = f", beside {fmt.metric(name, base['value'])} of the baseline, {e['baseline_which']} ({how})"
    label = fmt.LABELS.get(name, name)
    return join(
        [
            label,
            " is ",
            tag("b", fmt.metric(name, ours.get("value"))),
            f" on {e['n']:,} test rows",
            f" ({confidence} interval {around})" if around else "",
            beside,
            ".",
        ]
    )


def _compression(facts: Facts) -> Html | None:
    v = facts["compressed"].get("verdict")
    if not v:
        return None
    if v["paid"]:
        fp32, chosen = pair(facts["compressed"])
        _, t = latency(chosen)
        smaller = fp32["bytes"] / chosen["bytes"] if chosen.get("bytes") else None
        speed = _speed(t)
        return join(["Compression ", tag("b", "paid"), f": {fmt.times(smaller)} smaller{speed}."])
    return join(["Compression ", tag("b", "did not pay"), ", so the uncompressed graph is served."])


def _speed(t: Plain) -> str:
    """How fast against before, as the end of a sentence; noise is not called a gain."""
    speedup, low, high = t.get("speedup"), t.get("speedup_low"), t.get("speedup_high")
    if not fmt.defined(speedup):
        return ""
    if low is not None and high is not None and low <= 1.05 and high >= 0.95:
        return " and as fast as before"
    return f", {fmt.times(speedup)} as fast"


def _gates(e: Plain) -> Html | None:
    gates = e.get("gates") or []
    failed = sum(not g["passed"] for g in gates)
    if not gates:
        return None
    if failed:
        return tag("b", f"{failed} of {len(gates)} gates failed.", class_="bad")
    return join([f"All {len(gates)} gates passed." if len(gates) > 1 else "The gate passed."])


def _proved(proofs: tuple[Proof, ...]) -> Html | None:
    if not proofs:
        return None
    passed = sum(p.passed for p in proofs)
    words = f"{passed} of {len(proofs)} proofs passed."
    return join([words]) if passed == len(proofs) else tag("b", words, class_="bad")


def _drift(rehearsed: Plain) -> Html | None:
    found = drift_verdict(rehearsed)
    if found is None:
        return None
    rose, offline, _ = found
    if not rose:
        return tag("b", "The drift alarm did not rise on changed traffic.", class_="bad")
    quiet = ""
    if offline:
        clean = offline["clean_windows"]
        quiet = f" and stayed quiet in {clean - offline['false_alarms']:,} of {clean:,} clean windows"
    return join([f"The drift alarm rose on changed traffic{quiet}."])


def _quality_card(e: Plain) -> Html | None:
    if not e:
        return None
    name, ours, base = headline(e)
    if not fmt.defined(ours.get("value")):
        return None
    values: list[float] = [v for v in (ours["value"], ours.get("low"), ours.get("high"), base.get("value")) if v is not None]
    pad = 0.25 * (max(values) - min(values)) or 0.05
    span = (min(values) - pad, max(values) + pad)
    if name in fmt.SHARES:
        span = (max(0.0, span[0]), min(1.0, span[1]))
    said = f"{fmt.metric(name, ours['value'])}, interval {fmt.interval(name, ours)}, baseline {fmt.metric(name, base.get('value'))}"
    drawing = svg.meter(ours["value"], ours.get("low"), ours.get("high"), base.get("value"), span, said)
    return card(
        fmt.LABELS.get(name, name),
        fmt.metric(name, ours["value"]),
        drawing,
        tag("p", f"interval {fmt.interval(name, ours)}"),
        tag("p", f"baseline {fmt.metric(name, base.get('value'))}, {e['baseline_which']}"),
    )


def _cost_cards(facts: Facts) -> list[Html | None]:
    compressed = facts["compressed"]
    v = compressed.get("verdict")
    if not v:
        return []
    fp32, chosen = pair(compressed)
    paid = badge("paid", True) if v["paid"] else badge("did not pay", None)
    batch, after = latency(chosen)
    _, before = latency(fp32)
    size = card(
        "Size",
        _from_to(fmt.size(fp32.get("bytes")), fmt.size(chosen.get("bytes")), v["paid"]),
        tag("p", paid, " ", v["chosen"]),
    )
    if not after:
        return [size]
    speed = card(
        f"Latency, p50 at batch {batch}",
        _from_to(fmt.milliseconds(before.get("p50_ms")), fmt.milliseconds(after.get("p50_ms")), v["paid"]),
        tag("p", "p99 ", _from_to(fmt.milliseconds(before.get("p99_ms")), fmt.milliseconds(after.get("p99_ms")), v["paid"])),
        tag("p", (compressed.get("cpu") or {}).get("name", "")),
    )
    return [size, speed]


def _from_to(before: str, after: str, changed: bool) -> Html:
    if not changed:
        return join([after])
    return join([tag("span", before, " →", class_="before"), " ", tag("span", after, class_="after")])


def _proof_card(proofs: tuple[Proof, ...]) -> Html | None:
    if not proofs:
        return None
    passed = sum(p.passed for p in proofs)
    links = sorted({p.link for p in proofs})
    ok = passed == len(proofs)
    return card(
        "Proofs",
        f"{passed} of {len(proofs)}",
        tag("p", badge("all passed", True) if ok else badge(f"{len(proofs) - passed} failed", False)),
        tag("p", f"{'link' if len(links) == 1 else 'links'} {', '.join(map(str, links))} of the chain"),
    )


def _drift_card(rehearsed: Plain) -> Html | None:
    found = drift_verdict(rehearsed)
    if found is None:
        return None
    rose, offline, live = found
    until = live.get("rows_until_alarm")
    return card(
        "Drift alarm, rehearsed",
        f"after {until:,} rows" if until else "rose" if rose else "silent",
        tag("p", drift_badge(rehearsed)),
        tag("p", f"{fmt.count(offline['false_alarms'], 'false alarm')} in {offline['clean_windows']:,} clean windows")
        if offline
        else EMPTY,
    )


def _when(manifest: Plain) -> str:
    return str(manifest.get("created", ""))[:10]

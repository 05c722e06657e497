"""The proof chain's part of the page: all that was held against a reference, link by link, measured beside its tolerance."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from groundup.bundle.proof import LINKS, Proof
from groundup.reporting import format as fmt
from groundup.reporting.evaluation import badge
from groundup.reporting.html import EMPTY, Html, more, section, table, tag

STATIONS = ("equation", "module", "weights", "ONNX", "compressed", "HTTP", "traffic")


def proofs(found: Sequence[Proof]) -> Html:
    """The whole section."""
    if not found:
        return EMPTY
    lead = "A proof is a measurement with a stated tolerance against a named reference; a link that is not equal fails the run."
    groups = [(link, list(of)) for link, of in groupby(sorted(found, key=lambda p: p.link), key=lambda p: p.link)]
    return section("proofs", "Proof chain", chain(found), *[_link(link, of) for link, of in groups], lead=lead)


def chain(found: Sequence[Proof]) -> Html:
    """The chain as a row of stations with the links between them."""
    parts: list[Html] = []
    for i, station in enumerate(STATIONS):
        parts.append(tag("li", station, class_="station"))
        if i + 1 in LINKS:
            here = [p for p in found if p.link == i + 1]
            passed = sum(p.passed for p in here)
            state = "none" if not here else "good" if passed == len(here) else "bad"
            parts.append(tag("li", f"{passed}/{len(here)}" if here else "–", class_=f"link {state}", title=LINKS[i + 1]))
    return tag("ol", *parts, class_="chain")


def _link(link: int, found: Sequence[Proof]) -> Html:
    rows = [
        [
            badge("passed", True) if p.passed else badge("failed", False),
            p.claim,
            p.reference,
            p.quantity,
            fmt.number(p.measured, 3),
            f"{'≥' if p.at_least else '≤'} {fmt.number(p.tolerance, 3)}",
            f"{p.samples:,}" if p.samples else "–",
        ]
        for p in sorted(found, key=lambda p: p.passed)
    ]
    head = ("", "claim", "held against", "quantity", "measured", "tolerance", "values")
    title = f"{link}. {LINKS[link][0].upper()}{LINKS[link][1:]}"
    passed = sum(p.passed for p in found)
    words = f"{title}: {passed} of {len(found)} passed"
    return more(words, table(head, rows, numeric=(4, 5, 6), caption=title), opened=passed < len(found))

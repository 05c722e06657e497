"""What a notebook shows of each result: well-formed, its numbers in it, and names from outside only as text."""

from __future__ import annotations

import html.parser
from pathlib import Path
from typing import Any

import pytest
from served_table import make_bundle

from groundup.bundle import Proof
from groundup.lifecycle.compare import Comparison
from groundup.lifecycle.monitor import Monitored
from groundup.lifecycle.package import Packaged
from groundup.lifecycle.register import Registered
from groundup.lifecycle.tune import Tuned
from groundup.monitoring.drift import Window
from groundup.monitoring.settings import DriftSettings

HOSTILE = "</td></table><script>alert(1)</script>&\"'<img src=x onerror=alert(1)>"


class Reader(html.parser.HTMLParser):
    """Tags and text; every element that is opened is closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.text = ""
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.add(tag)
        self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def hostile(folder: Path) -> dict[str, tuple[Any, tuple[str, ...]]]:
    """Name -> (a result in which every name is hostile, what must be told)."""
    proof = Proof(5, HOSTILE, HOSTILE, HOSTILE, 0.25, 0.5, samples=1234)
    compared = Comparison(
        HOSTILE, "second", [(HOSTILE, HOSTILE, "2")], [], [(HOSTILE, "0.9000", "0.8000")], [(HOSTILE, 2.0, 1.0)], [HOSTILE]
    )
    bundle = make_bundle(folder / "bundle")
    window = Window(0.0, 1.0, 200, {}, {})
    monitored = Monitored(bundle, DriftSettings(), [window], 1234, 0, {}, folder / HOSTILE.replace("/", "∕"), folder / "x.json")
    packaged = Packaged(version="v", graph=HOSTILE, size=1234, files={HOSTILE: 1}, proofs=3, proofs_passed=3, golden_rows=9)
    registered = Registered(name=HOSTILE, version=7, reasons=[HOSTILE], mlflow={"uri": HOSTILE})
    tuned = Tuned(overrides={HOSTILE: HOSTILE}, objectives={HOSTILE: "maximize"}, best={HOSTILE: 0.125}, best_trial=3, trials=[])
    return {
        "proof": (proof, ("passed", "graph to HTTP response", "0.25 <= 0.5", "1,234", HOSTILE)),
        "comparison": (compared, ("second", "0.9000", "× 0.50", HOSTILE)),
        "monitored": (monitored, ("1,234", "no drift in the last window")),
        "bundle": (bundle, ("table", "probabilities")),
        "packaged": (packaged, ("Packaged", "golden rows", "9", HOSTILE)),
        "registered": (registered, ("Registered", "7", "1 entry", HOSTILE)),
        "tuned": (tuned, ("Tuned", "0.125", HOSTILE)),
    }


@pytest.mark.parametrize("name", ["proof", "comparison", "monitored", "bundle", "packaged", "registered", "tuned"])
def test_it_is_shown_and_nothing_from_outside_is_markup(name: str, tmp_path: Path) -> None:
    result, told = hostile(tmp_path)[name]
    text = result._repr_html_()
    seen = Reader(text)
    assert not seen.tags & {"script", "img"}
    for part in told:
        assert part in seen.text, part

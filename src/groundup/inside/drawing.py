"""What the drawings of this room share: tokens that can be seen, and an SVG that stands by itself.

A drawing carries the report's colours, light and dark, and its own ground, so that it looks the same in a browser, in a
notebook and in a document; it loads nothing and runs nothing.
"""

from __future__ import annotations

import unicodedata
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from groundup.bundle.files import write_bytes
from groundup.reporting.html import Html, tag
from groundup.reporting.page import palette

SIZE = 11.0
"""Letters of headings, in pixels."""
WIDE = 1360.0
"""Where drawings of many parts break into lines."""
_SIGNS = {" ": "␣", "\n": "↵", "\t": "⇥"}
_RULES = """
svg.inside text { font: 11px var(--sans); fill: var(--soft); }
svg.inside .head { font-weight: 600; fill: var(--ink); }
svg.inside .token, svg.inside .token tspan { font-family: var(--mono); fill: var(--ink); }
svg.inside .spot { fill: transparent; }
svg.inside .spot:hover { stroke: var(--second); stroke-width: 1.5; }
"""


def visible(token: str) -> str:
    r"""A token as it can be seen: white space as signs, what has no glyph as its escape, a mark without a letter on a circle.

    >>> visible(" a\n\u200b"), visible("\u0301"), visible("")
    ('␣a↵\\u200b', '◌́', '∅')
    """
    shown = "".join(_SIGNS.get(c) or (c if c.isprintable() else c.encode("unicode_escape").decode()) for c in token)
    return f"◌{shown}" if shown and unicodedata.category(shown[0]).startswith("M") else shown or "∅"


def columns(text: str) -> int:
    """How many columns a text takes in letters of equal width; marks take none, Chinese and emoji two."""
    return sum(0 if unicodedata.category(c) in ("Mn", "Me") else 1 + (unicodedata.east_asian_width(c) in "WF") for c in text)


def fitted(token: str, most: int) -> str:
    """A token as it can be seen, in ``most`` columns; of marks that are piled on letters, not more than fit."""
    shown = visible(token)
    if columns(shown) <= most and len(shown) <= 3 * most:
        return shown
    kept = ""
    for c in shown:
        if columns(kept + c) > most - 1 or len(kept) == 3 * most:
            break
        kept += c
    return kept + "…"


class Drawing(ABC):
    """Something that is one SVG: :meth:`save` writes it, a notebook shows it."""

    @abstractmethod
    def svg(self) -> str:
        """The whole document."""

    def save(self, path: str | Path) -> None:
        """Write the SVG.

        Raises:
            StorageError: it cannot be written.
        """
        write_bytes(Path(path), self.svg().encode())

    def _repr_svg_(self) -> str:
        return self.svg()

    def _repr_html_(self) -> str:
        return tag("div", Html(self.svg()), style="overflow-x: auto")


def document(parts: Sequence[Html], width: float, height: float, title: str) -> str:
    """An SVG of its own; ``title`` is what a screen reader says."""
    rules = palette().replace(":root", "svg.inside") + _RULES
    ground = tag("rect", width="100%", height="100%", fill="var(--paper)")
    size = {"viewBox": f"0 0 {width:.0f} {height:.0f}", "width": f"{width:.0f}", "height": f"{height:.0f}"}
    inner = tag("style", Html(rules)), ground, *parts
    return tag("svg", *inner, xmlns="http://www.w3.org/2000/svg", **size, role="img", aria_label=title, class_="inside")


def group(x: float, y: float, *parts: Any, **more: Any) -> Html:
    """Parts moved to a place."""
    return tag("g", *parts, transform=f"translate({x:.1f} {y:.1f})", **more)


def box(x: float, y: float, width: float, height: float, *title: Any, **more: Any) -> Html:
    """A rectangle, with a title that shows on hovering."""
    return tag("rect", *(tag("title", t) for t in title), x=f"{x:g}", y=f"{y:g}", width=f"{width:g}", height=f"{height:g}", **more)


def probability(p: float) -> str:
    """A probability or weight in a title.

    >>> probability(0.5), probability(0.00001)
    ('0.500', '<0.001')
    """
    return f"{p:.3f}" if p >= 0.0005 or p == 0 else "<0.001"

"""HTML from Python in which nothing can be forgotten to be escaped: only :class:`Html` passes unescaped, all other text does not."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Sequence
from typing import Any

# Control characters and lone surrogates are not allowed in HTML, and bidirectional overrides could make a table lie.
_UNFIT = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]")
_VOID = frozenset({"img", "br", "hr", "meta", "link", "input"})


class Html(str):
    """Text that is markup already."""

    __slots__ = ()


EMPTY = Html("")


def text(value: Any) -> Html:
    """Any value as escaped text; None as an en dash; markup stays as it is."""
    if isinstance(value, Html):
        return value
    if value is None:
        return Html("–")
    return Html(_escaped(str(value)))


def _escaped(value: str) -> str:
    return html.escape(_UNFIT.sub("\N{REPLACEMENT CHARACTER}", value), quote=True)


def tag(name: str, /, *children: Any, **attributes: Any) -> Html:
    """``<name attribute="...">children</name>``.

    ``class_`` is class, further underscores become hyphens; an attribute of None is left out; children are escaped by :func:`text`.
    """
    given = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{_escaped(str(value))}"' for key, value in attributes.items() if value is not None
    )
    if name in _VOID:
        return Html(f"<{name}{given}>")
    return Html(f"<{name}{given}>{''.join(text(c) for c in children)}</{name}>")


def join(parts: Iterable[Any], separator: str = "") -> Html:
    """Parts one after another, escaped where they need it."""
    return Html(str(text(separator)).join(text(p) for p in parts))


def table(
    head: Sequence[Any],
    rows: Iterable[Sequence[Any]],
    *,
    numeric: Iterable[int] = (),
    marked: Iterable[int] = (),
    caption: str | None = None,
) -> Html:
    """A table in a box that scrolls by itself where the page is narrow.

    Args:
        numeric: columns that are set to the right with figures of equal width.
        marked: rows to stress.
    """
    right, stressed = set(numeric), set(marked)

    def cells(kind: str, values: Sequence[Any]) -> Html:
        return join(
            tag(kind, v, class_="number" if i in right else None, scope="col" if kind == "th" else None) for i, v in enumerate(values)
        )

    body = [tag("tr", cells("td", row), class_="marked" if i in stressed else None) for i, row in enumerate(rows)]
    if not body:
        return EMPTY
    inner = tag("table", tag("caption", caption) if caption else EMPTY, tag("thead", tag("tr", cells("th", head))), tag("tbody", *body))
    return tag("div", inner, class_="scroll", tabindex="0", role="region", aria_label=caption or "table")


def facts(pairs: Iterable[tuple[str, Any]]) -> Html:
    """A list of names and values; those of None are left out."""
    return tag("dl", *[tag("div", tag("dt", k), tag("dd", v)) for k, v in pairs if v is not None], class_="facts")


def figure(drawing: Html, caption: Any) -> Html:
    """A drawing with its caption below."""
    return tag("figure", drawing, tag("figcaption", caption)) if drawing else EMPTY


def more(summary: str, *content: Any, opened: bool = False) -> Html:
    """Content that opens on demand, without a script."""
    return tag("details", tag("summary", summary), *content, open="open" if opened else None)


def section(identity: str, title: str, *content: Any, lead: Any = None) -> Html:
    """A section of the page; empty where it has no content."""
    inner = join(content)
    if not inner:
        return EMPTY
    return tag("section", tag("h2", title), tag("p", lead, class_="lead") if lead is not None else EMPTY, inner, id=identity)

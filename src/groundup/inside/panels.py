"""Attention weights as pictures: a matrix of tokens, or a colour laid over the patches of an image; and how many make a page.

Depth of colour in a matrix is √α, since a weight of 1/64 would not be seen beside one of 1 otherwise.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from groundup.evaluation.png import encode
from groundup.inside.drawing import SIZE, WIDE, box, columns, document, fitted, group, probability
from groundup.reporting.html import EMPTY, Html, join, tag
from groundup.reporting.svg import label, ticks

Array = NDArray[Any]
VECTOR = 64
"""Tokens up to which every weight is drawn; of more, an image."""
_IMAGE = 560.0  # pixels of a matrix that is an image
_ACCENT = (0x2F, 0x92, 0x8B)  # between the light and the dark accent: an image cannot follow the page
_GLOW = "#ff8a1f"  # over images, light or dark
_LEVELS = 32  # depths of colour
_MOST = 14  # columns of a token beside a matrix
_GAP = 18.0


class Panel(NamedTuple):
    """One picture and the room that it takes."""

    part: Html
    width: float
    height: float


def matrix(weights: Array, rows: Sequence[str], cols: Sequence[str], title: str) -> Panel:
    """α (T, S) as a matrix: a row for each token that looks, a column for each that is looked at."""
    T, S = weights.shape
    if max(T, S) > VECTOR:
        return _image_matrix(weights, title)
    pitch = min(max(round(264 / max(T, S)), 9), 28)
    letter = min(pitch - 1.0, SIZE)
    left, top = (0.62 * letter * max(columns(fitted(t, _MOST)) for t in of) + 5 for of in (rows, cols))
    upright = top <= pitch + 5
    top = letter + 4 if upright else top
    width, height = S * pitch, T * pitch
    above = _across(cols, pitch, letter) if upright else _turned(cols, pitch, letter)
    spots = [box(0, t * pitch, width, pitch, _looks_at(row, rows, cols, t), class_="spot") for t, row in enumerate(weights)]
    inner = [_ground(width, height), _cells(weights, pitch), _beside(rows, pitch, letter), above, *spots]
    head = label(left, SIZE, title, class_="head")
    return Panel(join([head, group(left, SIZE + 6 + top, *inner)]), left + max(width, 0.6 * SIZE * len(title)), SIZE + 6 + top + height)


def _cells(weights: Array, pitch: float) -> Html:
    """One path for each depth of colour."""
    depth = np.rint(np.sqrt(np.clip(weights, 0, 1)) * _LEVELS).astype(int)
    parts = []
    for level in range(1, _LEVELS + 1):
        places = np.argwhere(depth == level)
        if len(places):
            d = "".join(f"M{s * pitch:g} {t * pitch:g}h{pitch:g}v{pitch:g}h-{pitch:g}z" for t, s in places)
            parts.append(tag("path", d=d, fill="var(--accent)", fill_opacity=f"{level / _LEVELS:.3f}"))
    return tag("g", *parts, shape_rendering="crispEdges")


def _beside(tokens: Sequence[str], pitch: float, letter: float) -> Html:
    """Tokens one under another, left of the matrix."""
    return _names([(0, (i + 0.5) * pitch + letter * 0.36, t) for i, t in enumerate(tokens)], letter, "end", transform="translate(-4 0)")


def _across(tokens: Sequence[str], pitch: float, letter: float) -> Html:
    """Narrow tokens, above it."""
    return _names([((i + 0.5) * pitch, -4, t) for i, t in enumerate(tokens)], letter, "middle")


def _turned(tokens: Sequence[str], pitch: float, letter: float) -> Html:
    """Wide ones, to be read from below."""
    places = [(0, (i + 0.5) * pitch + letter * 0.36, t) for i, t in enumerate(tokens)]
    return _names(places, letter, "start", transform="translate(0 -4) rotate(-90)")


def _names(places: Sequence[tuple[float, float, str]], letter: float, anchor: str, **more: Any) -> Html:
    spans = [tag("tspan", fitted(t, _MOST), x=f"{x:.1f}", y=f"{y:.1f}") for x, y, t in places]
    return tag("text", *spans, text_anchor=anchor, class_="token", style=f"font-size: {letter:g}px", **more)


def _ground(width: float, height: float) -> Html:
    return box(0, 0, width, height, fill="var(--raised)", stroke="var(--rule)")


def _looks_at(row: Array, rows: Sequence[str], cols: Sequence[str], t: int) -> str:
    """The title of a row: the token and the five that it looks at most."""
    best = [s for s in np.argsort(-row, kind="stable")[:5] if row[s] >= 0.005]
    told = ", ".join(f"{fitted(cols[s], 40)} ({s}) {probability(row[s])}" for s in best)
    return f"{fitted(rows[t], 40)} ({t}) looks at {told}"


def _image_matrix(weights: Array, title: str) -> Panel:
    """Too many tokens for names: an image with their numbers."""
    T, S = weights.shape
    scale = _IMAGE / max(T, S)
    opacity = np.rint(255 * np.sqrt(np.clip(weights, 0, 1))).astype(np.uint8)
    pixels = np.concatenate([np.broadcast_to(np.array(_ACCENT, np.uint8), (T, S, 3)), opacity[:, :, None]], axis=2)
    left, top, width, height = 34.0, 18.0, S * scale, T * scale
    marks = [label(-5, (t + 0.5) * scale + 4, t, anchor="end") for t in sorted(set(map(int, ticks(0, T - 1, 8))))]
    marks += [label((s + 0.5) * scale, -5, s, anchor="middle") for s in sorted(set(map(int, ticks(0, S - 1, 8))))]
    inner = [_ground(width, height), picture(pixels, width, height, largest=1200), *marks]
    part = join([label(left, SIZE, title, class_="head"), group(left, SIZE + 6 + top, *inner)])
    return Panel(part, left + width, SIZE + 6 + top + height)


def picture(pixels: Array, width: float, height: float, largest: int = 512, **more: Any) -> Html:
    """A uint8 image inside the drawing, its pixels as squares."""
    data = "data:image/png;base64," + base64.b64encode(encode(pixels, largest)).decode()
    size = {"width": f"{width:g}", "height": f"{height:g}", "preserveAspectRatio": "none"}
    return tag("image", href=data, style="image-rendering: pixelated", **size, **more)


def overlay(weights: Array, image: Html, size: tuple[float, float], patch: float, title: str, note: str = "") -> Panel:
    """Weights of patches (rows, columns) as a glow over an image, in proportion to the largest of them.

    Args:
        image: what lies below, ``size`` wide and high.
        patch: side of a patch, in pixels of the drawing; those at the edge may reach beyond the image.
        note: written below.
    """
    width, height = size
    most = weights.max(initial=0.0) or 1.0
    spots = []
    for (i, j), α in np.ndenumerate(weights):
        x, y = j * patch, i * patch
        opacity = 0.85 * α / most
        told = f"patch {i}, {j}: {probability(α)}"
        inside = min(patch, width - x), min(patch, height - y)
        spots.append(box(x, y, *inside, told, fill=_GLOW, fill_opacity=f"{opacity:.2f}"))
    below = label(0, height + SIZE + 3, note) if note else EMPTY
    glow = tag("g", *spots, shape_rendering="crispEdges")
    part = join([label(0, SIZE, title, class_="head"), group(0, SIZE + 6, image, glow, below)])
    return Panel(part, max(width, 0.55 * SIZE * max(len(title), len(note))), SIZE + 6 + height + (SIZE + 6 if note else 0))


def page(blocks: Iterable[tuple[str, Sequence[Panel]]], heading: str, scale: bool, title: str, defined: Html = EMPTY) -> str:
    """Blocks of panels below one another, each with its name; panels stand in lines that are about as wide as a window.

    Args:
        heading: what is seen.
        scale: whether the scale of √α is drawn.
        title: for a screen reader.
        defined: what panels use, not drawn by itself.
    """
    margin = 16.0
    parts = [defined, label(margin, margin + SIZE, heading)]
    y, right = margin + SIZE + 12, margin + 5.8 * len(heading)
    if scale:
        parts.append(group(margin, y, *_scale()))
        y, right = y + 26, max(right, 330)
    for name, panels in blocks:
        y += 10
        if name:
            y += 12
            parts.append(label(margin, y + SIZE, name, class_="head", style="font-size: 14px"))
            y += 26
        fit = max(int((WIDE - margin + _GAP) // (max(panel.width for panel in panels) + _GAP)), 1)
        across = math.ceil(len(panels) / math.ceil(len(panels) / fit))  # lines of equal length
        x, deepest = margin, 0.0
        for i, panel in enumerate(panels):
            if i and i % across == 0:
                x, y, deepest = margin, y + deepest + _GAP, 0.0
            parts.append(group(x, y, panel.part))
            x, deepest = x + panel.width + _GAP, max(deepest, panel.height)
            right = max(right, x - _GAP)
        y += deepest
    return document(parts, right + margin, y + margin, title)


def _scale() -> list[Html]:
    """What depth of colour stands for."""
    parts = [label(0, 11, "weight")]
    for i, α in enumerate((0.01, 0.05, 0.1, 0.25, 0.5, 1.0)):
        x = 46 + 50 * i
        parts.append(box(x, 2, 12, 12, fill="var(--accent)", fill_opacity=f"{math.sqrt(α):.3f}", stroke="var(--rule)"))
        parts.append(label(x + 16, 12, f"{α:g}"))
    return parts

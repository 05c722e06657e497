"""Strings that end a text, found in a stream of pieces: what could become one is held back until it is clear."""

from __future__ import annotations

from collections.abc import Sequence


class StopStrings:
    """Watches pieces of text for the first of some strings.

    >>> stop = StopStrings(["END"])
    >>> [stop.push(piece) for piece in ["a E", "N", "x", "EN", "D b"]], stop.found
    (['a ', '', 'ENx', '', ''], 'END')
    """

    def __init__(self, strings: Sequence[str]) -> None:
        self.strings = tuple(strings)
        self.found: str | None = None
        """The string that ended the text."""
        self._held = ""

    def push(self, piece: str) -> str:
        """Add a piece; returns what is certainly not part of a stop string, up to the first one."""
        if self.found is not None:
            return ""
        text = self._held + piece
        hits = [(at, -len(s), s) for s in self.strings if (at := text.find(s)) >= 0]
        if hits:
            at, _, self.found = min(hits)
            self._held = ""
            return text[:at]
        keep = max((n for s in self.strings for n in range(1, min(len(s), len(text) + 1)) if text.endswith(s[:n])), default=0)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]

    def flush(self) -> str:
        """What was held back, once the text has ended without a stop string."""
        held, self._held = self._held, ""
        return held

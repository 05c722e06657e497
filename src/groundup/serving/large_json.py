"""JSON of megabytes, read and written in short steps, so that the event loop gets its turns while a thread works on it.

The standard library's scanner holds the interpreter lock from the first byte to the last, on whatever thread it runs: 2 s
for 16 MiB of ``[0],``, and nobody else moves.  Here Python walks the containers, and hands the scanner runs of at most
``STEP`` characters: of scalars, or of arrays and objects at most two deep.  A run that does not parse is
walked again value by value, and that walk decides; so what is taken and refused is what ``strict_json`` takes and refuses.
"""

from __future__ import annotations

import json
import math
import re
import time
from collections.abc import Callable, Iterator
from typing import Any

from groundup.serving.refusal import RequestError

LARGE = 128 << 10  # bytes from which a body is read beside the loop; a smaller one takes less than two milliseconds
STEP = 64 << 10  # characters that are scanned under one hold of the lock
MANY = 16_384  # values from which an answer is written beside the loop
_PIECE = 4_096  # values that are encoded under one hold of the lock

_SPACE = re.compile(r"[ \t\n\r]*")
_FLAT = r'[^\[\]{}"]*(?:"[^"\\]*"[^\[\]{}"]*)*'  # scalars; strings without escapes may hold brackets
_SCALARS = re.compile(_FLAT + ",")
_CONTAINERS = re.compile(rf"(?:\s*[\[{{]{_FLAT}(?:[\[{{]{_FLAT}[\]}}]{_FLAT})*[\]}}]\s*,)+")  # which closes which, the decoder sees


def loads(text: str, decoder: json.JSONDecoder, deadline: float = math.inf, step: int = STEP) -> Any:
    """The value of a JSON document.

    Args:
        decoder: with an ``object_pairs_hook``.
        deadline: on the monotonic clock; looked at at every container.

    Raises:
        json.JSONDecodeError, RecursionError, ValueError: as the decoder.
        RequestError: 504 when the deadline passes, and what the decoder's hooks raise.
    """
    value, at = _Walk(text, decoder, deadline, step).value(_skip(text, 0))
    if (at := _skip(text, at)) != len(text):
        raise json.JSONDecodeError("Extra data", text, at)
    return value


def _skip(text: str, at: int) -> int:
    return _SPACE.match(text, at).end()  # type: ignore[union-attr]  # matches the empty string at worst


class _Walk:
    """Through one document; ``value``, ``array`` and ``object`` take where one begins and say where it ends."""

    def __init__(self, text: str, decoder: json.JSONDecoder, deadline: float, step: int) -> None:
        self.text, self.decoder, self.deadline, self.step = text, decoder, deadline, step
        self.scan: Callable[[str, int], tuple[Any, int]] = decoder.scan_once  # type: ignore[attr-defined]

    def value(self, at: int) -> tuple[Any, int]:
        first = self.text[at : at + 1]
        if first == "[":
            return self.array(at + 1)
        if first == "{":
            return self.object(at + 1)
        try:
            return self.scan(self.text, at)
        except StopIteration as e:
            raise json.JSONDecodeError("Expecting value", self.text, e.value) from None

    def array(self, at: int) -> tuple[list[Any], int]:
        values: list[Any] = []
        text, at = self.text, _skip(self.text, at)
        if text[at : at + 1] == "]":
            return values, at + 1
        while True:
            self.check_time()
            while (end := self.run(at, values)) is not None:
                at = _skip(text, end)
            value, at = self.value(at)
            values.append(value)
            at, more = self.next(at, "]")
            if not more:
                return values, at

    def run(self, at: int, values: list[Any]) -> int | None:
        """Append the values of a run that ends with a comma, and say where; None where there is none to be had."""
        pattern = _CONTAINERS if self.text[at : at + 1] in ("[", "{") else _SCALARS
        found = pattern.match(self.text, at, at + self.step)
        if found is None:
            return None
        try:
            run = self.decoder.decode(f"[{self.text[at : found.end() - 1]}]")
        except (ValueError, RequestError):  # the walk, value by value, says what is wrong and where
            return None
        if not run:  # a comma with nothing before it
            return None
        values += run
        return found.end()

    def object(self, at: int) -> tuple[Any, int]:
        self.check_time()
        pairs: list[tuple[str, Any]] = []
        text, at = self.text, _skip(self.text, at)
        more = text[at : at + 1] != "}"
        at += not more
        while more:
            if text[at : at + 1] != '"':
                raise json.JSONDecodeError("Expecting property name enclosed in double quotes", text, at)
            key, at = self.scan(text, at)
            at = _skip(text, at)
            if text[at : at + 1] != ":":
                raise json.JSONDecodeError("Expecting ':' delimiter", text, at)
            value, at = self.value(_skip(text, at + 1))
            pairs.append((key, value))
            at, more = self.next(at, "}")
        return self.decoder.object_pairs_hook(pairs), at

    def next(self, at: int, end: str) -> tuple[int, bool]:
        """Past the comma or the end of the container, and whether it was a comma."""
        at = _skip(self.text, at)
        mark = self.text[at : at + 1]
        if mark == end:
            return at + 1, False
        if mark != ",":
            raise json.JSONDecodeError("Expecting ',' delimiter", self.text, at)
        return _skip(self.text, at + 1), True

    def check_time(self) -> None:
        if time.monotonic() > self.deadline:
            raise RequestError(504, "the deadline passed while the body was read; send fewer rows a request")


def pieces(value: Any, encode: Callable[[Any], str]) -> Iterator[str]:
    """The text of ``encode(value)``, a few thousand values at a time."""
    if isinstance(value, dict) and any(isinstance(v, list | dict) for v in value.values()):
        yield "{"
        for i, (key, item) in enumerate(value.items()):
            yield f"{',' if i else ''}{encode(key)}:"
            yield from pieces(item, encode)
        yield "}"
    elif isinstance(value, list) and value and isinstance(value[0], list | dict):
        yield "["
        for i, item in enumerate(value):
            if i:
                yield ","
            yield from pieces(item, encode)
        yield "]"
    elif isinstance(value, list) and len(value) > _PIECE:
        yield "["
        for at in range(0, len(value), _PIECE):
            if at:
                yield ","
            yield encode(value[at : at + _PIECE])[1:-1]
        yield "]"
    else:
        yield encode(value)

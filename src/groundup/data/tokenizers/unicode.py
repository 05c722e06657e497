"""Which characters are letters, numbers, punctuation, accents: from tables of our own, in ``unicode.json``.

``unicodedata`` answers otherwise with each version of Python, and a tokenizer whose tokens change with the Python that
runs it changes what a trained network reads.  The tables are those of the ``tokenizers`` library, character by character
(``scripts/unicode-tables`` measures them): Unicode 16 for GPT-2's pattern, but Unicode 8 for BERT's categories.  So a
letter of Unicode 17 is no letter for GPT-2, and punctuation of Unicode 9 is none for BERT, here as there.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterator
from functools import cache
from importlib import resources
from itertools import accumulate

WHITE_SPACE = "9-D 20 85 A0 1680 2000-200A 2028-2029 202F 205F 3000"
"""Unicode's White_Space; Python's ``str.isspace`` has U+001C to U+001F besides."""

CJK = "3400-4DBF 4E00-9FFF F900-FAFF 20000-2A6DF 2A700-2B81F 2B920-2CEAF 2F800-2FA1F"
"""Blocks of Chinese characters, as BERT's basic tokenization lists them.  BERT's own list has 2B820 for 2B920: the ``tokenizers``
library leaves these 256 out, and its tokens are the ones that people's networks were trained on."""


@cache
def table(name: str) -> str:
    """The table of a class, as ranges in hexadecimal: "41-5A 61-7A AA".

    Args:
        name: ``letter`` and ``number`` (\\p{L} and \\p{N}); ``control``, ``punctuation`` and ``accent`` (what BERT removes,
            splits off, and strips after decomposition); ``moving`` (decomposes, or has a combining class other than 0);
            ``lower``, with the distance to the lower-case letter: "41-5A+20", and "100-12E/2+1" for every second.
    """
    if name == "space":
        return WHITE_SPACE
    if name == "cjk":
        return CJK
    return str(_tables()[name])


@cache
def _tables() -> dict[str, str]:
    text = resources.files(__package__).joinpath("unicode.json").read_text(encoding="utf-8")
    return dict(json.loads(text))


def ranges(table: str) -> Iterator[tuple[int, int]]:
    """First and last character of each range.

    >>> list(ranges("41-5A AA"))
    [(65, 90), (170, 170)]
    """
    for item in table.split():
        first, _, last = item.partition("-")
        yield int(first, 16), int(last or first, 16)


def inside(*names: str) -> str:
    """The classes as they stand inside [...] of a regular expression."""
    return "".join(f"\\U{a:08x}-\\U{b:08x}" for name in names for a, b in ranges(table(name)))


@cache
def members(name: str) -> frozenset[str]:
    """All characters of a class."""
    return frozenset(chr(c) for a, b in ranges(table(name)) for c in range(a, b + 1))


@cache
def _lower() -> dict[str, str]:
    found = {}
    for item in table("lower").split():
        span, sign, distance = re.split("([+~])", item)
        span, _, step = span.partition("/")
        for a, b in ranges(span):
            for c in range(a, b + 1, int(step or 1)):
                found[chr(c)] = chr(c + int(distance, 16) * (1 if sign == "+" else -1))
    return found


def lower(c: str) -> str:
    """The lower-case form of one character, without regard to its neighbours; U+0130 alone becomes two characters."""
    return "i̇" if c == "İ" else _lower().get(c, c)


def decompose(c: str) -> str:
    """The canonical decomposition of one character."""
    return unicodedata.normalize("NFD", c) if c in members("moving") else c


def nfd(text: str) -> list[tuple[str, int]]:
    """Normalization Form D: decompose, then sort each run of combining characters by its combining class.

    Unicode's promise of stability makes this the same in every later version for the characters of the table, and the
    others neither decompose nor combine.

    Returns:
        (character, index of the character of ``text`` that it came from).  Where sorting changes the order of characters,
        it changes that of the indices only as the ``tokenizers`` library has it: they never go down.

    >>> [f"{ord(c):X}" for c, _ in nfd("\\u1e69")]
    ['73', '323', '307']
    """
    out: list[tuple[str, bool]] = []  # and whether it is the first of its decomposition
    run = 0  # where the run of combining characters begins
    for original in text:
        for k, c in enumerate(decompose(original)):
            if not combining(c):
                out[run:] = sorted(out[run:], key=lambda part: combining(part[0]))
                run = len(out) + 1
            out.append((c, k == 0))
    out[run:] = sorted(out[run:], key=lambda part: combining(part[0]))
    indices = accumulate(first for _, first in out)
    return [(c, i - 1) for (c, _), i in zip(out, indices, strict=True)]


def combining(c: str) -> int:
    """The canonical combining class; 0 for what does not combine."""
    return unicodedata.combining(c) if c in members("moving") else 0

"""Every character of Unicode beside the ``tokenizers`` library: which class it has there, found by asking, not by reading.

python -m groundup.proof.unicode > src/groundup/data/tokenizers/unicode.json
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence

import tokenizers
from tokenizers import Regex, normalizers, pre_tokenizers

CHARACTERS = [chr(c) for c in range(0x110000) if not 0xD800 <= c < 0xE000]
"""All 1,112,064 of them."""


def measure(characters: Sequence[str] = CHARACTERS) -> dict[str, list[str]]:
    """Which of the characters are in each class, in the library that is installed."""
    return {
        "letter": matched(characters, r"\p{L}"),
        "number": matched(characters, r"\p{N}"),
        "space": matched(characters, r"\s"),
        "control": removed(characters),
        "punctuation": split_off(characters),
        "accent": stripped(characters),
        "moving": moving(characters),
    }


def matched(characters: Sequence[str], pattern: str) -> list[str]:
    """Characters that a regular expression of the library matches."""
    split = pre_tokenizers.Split(Regex(pattern), "removed")
    kept = {c for piece, _ in split.pre_tokenize_str("".join(characters)) for c in piece}
    return [c for c in characters if c not in kept]


def bert(**steps: bool) -> Callable[[str], str]:
    """One step of BERT's normalization."""
    off = {"clean_text": False, "handle_chinese_chars": False, "strip_accents": False, "lowercase": False}
    normalizer = normalizers.BertNormalizer(**(off | steps))
    return lambda text: str(normalizer.normalize_str(text))


def removed(characters: Sequence[str]) -> list[str]:
    """Characters that cleaning removes."""
    clean = bert(clean_text=True)
    return [c for c in characters if not clean(c)]


def split_off(characters: Sequence[str]) -> list[str]:
    """Characters that are a word of their own wherever they stand."""
    split = pre_tokenizers.BertPreTokenizer().pre_tokenize_str
    return [c for c in characters if len(split(f"a{c}b")) == 3]


def stripped(characters: Sequence[str]) -> list[str]:
    """Characters that vanish with the accents and are no letter with one."""
    strip = bert(strip_accents=True)
    return [c for c in characters if not strip(c)]


def moving(characters: Sequence[str]) -> list[str]:
    """Characters that decompose, or change places with U+0345 (combining class 240) or U+0334 (class 1)."""
    form = normalizers.NFD().normalize_str
    return [c for c in characters if form(c) != c or form(f"\u0345{c}") != f"\u0345{c}" or form(f"{c}\u0334") != f"{c}\u0334"]


def lower() -> Callable[[str], str]:
    """Lower-casing, which the library does character by character."""
    return bert(lowercase=True)


def lowered() -> Iterable[str]:
    """Characters with another lower-case form that is one character, as "first-last/step+distance"."""
    low = lower()
    distance = {ord(c): ord(low(c)) - ord(c) for c in CHARACTERS if low(c) != c and len(low(c)) == 1}
    todo = sorted(distance)
    while todo:
        first = todo[0]
        spans = []
        for step in (1, 2):
            last = first
            while distance.get(last + step) == distance[first] and last + step in todo:
                last += step
            spans.append((last - first) // step)
        step = 1 if spans[0] >= spans[1] else 2
        last = first + step * spans[step - 1]
        taken = set(range(first, last + 1, step))
        todo = [c for c in todo if c not in taken]
        d = distance[first]
        yield (
            f"{first:X}-{last:X}{'/2' if step == 2 else ''}{'+' if d > 0 else '~'}{abs(d):X}"
            if taken != {first}
            else f"{first:X}{'+' if d > 0 else '~'}{abs(d):X}"
        )


def written(characters: Iterable[str]) -> str:
    """Ranges in hexadecimal."""
    spans: list[list[int]] = []
    for c in map(ord, characters):
        if spans and spans[-1][1] == c - 1:
            spans[-1][1] = c
        else:
            spans.append([c, c])
    return " ".join(f"{a:X}-{b:X}" if a < b else f"{a:X}" for a, b in spans)


if __name__ == "__main__":
    tables = {"source": f"tokenizers {tokenizers.__version__}, python -m groundup.proof.unicode"}
    tables |= {name: written(found) for name, found in measure().items() if name != "space"}
    print(json.dumps(tables | {"lower": " ".join(lowered())}, indent=0))

"""Byte-level byte-pair encoding: the tokenizer of GPT-2 and GPT-3, which has a token for every text there is.

Papers: Sennrich, Haddow & Birch 2016, arXiv:1508.07909, section 3.2 (merges); Radford et al. 2019, "Language Models are
Unsupervised Multitask Learners", section 2.2 (on bytes, within words of a pattern).

    text --pattern--> words --UTF-8--> bytes --table--> characters --merges, lowest rank first--> tokens

What is unusual: (1) Symbols are the 256 bytes, so nothing is unknown, and a character may fall into several tokens.
(2) Bytes are written as printable characters, that of the space being "Ġ", so that vocabularies are text files.
(3) A word keeps the space before it: " the" and "the" are two tokens.
(4) Merges are applied one place at a time, lowest rank and then leftmost first, as the ``tokenizers`` library does.  GPT-2's
own code merges all places of a pair at once, which is the same unless a token can be made in two ways.
"""

from __future__ import annotations

import codecs
import heapq
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from itertools import pairwise
from typing import Any

from groundup.data.tokenizers import spec
from groundup.data.tokenizers.base import Encoding, Stream, Tokenizer, check_text
from groundup.data.tokenizers.pairs import learn
from groundup.data.tokenizers.unicode import inside
from groundup.errors import DataError

END_OF_TEXT = "<|endoftext|>"
ROLES = {"bos": END_OF_TEXT, "eos": END_OF_TEXT}
"""GPT-2's one special token, which stands between documents."""

Ranks = Mapping[tuple[str, str], int]

_CACHED = 1 << 16  # words whose tokens are kept


@cache
def pattern() -> re.Pattern[str]:
    """GPT-2's words: an English contraction's end; a run of letters, of numbers or of other signs, each with one space before
    it; white space, of which the last one is left to the word that follows."""
    s, L, N = inside("space"), inside("letter"), inside("number")
    return re.compile(f"'s|'t|'re|'ve|'m|'ll|'d| ?[{L}]+| ?[{N}]+| ?[^{s}{L}{N}]+|[{s}]+(?![^{s}])|[{s}]+")


@cache
def byte_characters() -> dict[int, str]:
    """The character that stands for each byte: its own where Latin-1 prints it, else the next one from U+0100 on.

    >>> byte_characters()[ord("a")], byte_characters()[ord(" ")]
    ('a', 'Ġ')
    """
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [b for b in range(256) if b not in printable]
    return {b: chr(b) for b in printable} | {b: chr(256 + n) for n, b in enumerate(others)}


def characters_of(word: str) -> str:
    """A word's UTF-8 bytes, each written as its character."""
    return word.encode("utf-8").decode("latin-1").translate(byte_characters())


@cache
def _bytes_by_character() -> dict[str, int]:
    return {c: b for b, c in byte_characters().items()}


def bytes_of(token: str) -> bytes:
    """The bytes that a token stands for; those of its UTF-8 where a character of it stands for no byte (a special token's may)."""
    table = _bytes_by_character()
    return bytes(table[c] for c in token) if all(c in table for c in token) else token.encode("utf-8")


def merge_one_by_one(word: str, ranks: Ranks) -> list[str]:
    """The page's form: look at all neighbours, merge the pair of lowest rank, the leftmost of several, and look again.

    >>> merge_one_by_one("lower", {("l", "o"): 0, ("e", "r"): 1, ("lo", "w"): 2})
    ['low', 'er']
    """
    symbols = list(word)
    while True:
        found = [(ranks[pair], i) for i, pair in enumerate(pairwise(symbols)) if pair in ranks]
        if not found:
            return symbols
        _, i = min(found)
        symbols[i : i + 2] = ["".join(symbols[i : i + 2])]


def merge(word: str, ranks: Ranks) -> list[str]:
    """:func:`merge_one_by_one` in O(n log n): a heap of pairs, and for each symbol who stands next to it.

    An entry of the heap is out of date where its place was merged into another; it still counts while the two symbols there
    make the same token as before.
    """
    symbols: list[str] = list(word)
    if len(symbols) < 2:
        return symbols
    n = len(symbols)
    before, after = list(range(-1, n - 1)), [*range(1, n), -1]
    heap = [(ranks[pair], i, pair[0] + pair[1]) for i, pair in enumerate(pairwise(symbols)) if pair in ranks]
    heapq.heapify(heap)
    while heap:
        _, i, token = heapq.heappop(heap)
        j = after[i]
        if not symbols[i] or j < 0 or symbols[i] + symbols[j] != token or (symbols[i], symbols[j]) not in ranks:
            continue
        symbols[i], symbols[j] = token, ""
        after[i] = after[j]
        if after[i] >= 0:
            before[after[i]] = i
        for left, right in ((before[i], i), (i, after[i])):
            if left >= 0 and right >= 0 and (rank := ranks.get((symbols[left], symbols[right]))) is not None:
                heapq.heappush(heap, (rank, left, symbols[left] + symbols[right]))
    return [s for s in symbols if s]


class ByteLevelBPE(Tokenizer):
    """GPT-2's tokenizer.

    Args:
        vocab: token, in byte characters -> number; each of the 256 bytes is there.
        merges: pairs of tokens in the order in which they are merged; what they make is in the vocabulary too.
        roles, extra, config: special tokens; see :class:`Tokenizer`.

    Raises:
        DataError: a byte without a token, a merge of or to a token that is not there.
    """

    def __init__(
        self,
        vocab: Mapping[str, int],
        merges: Sequence[tuple[str, str]],
        roles: Mapping[str, str] | None = None,
        extra: Sequence[str] = (),
        config: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(vocab, roles, extra, config)
        if missing := [b for b, c in byte_characters().items() if c not in self.ids]:
            b = missing[0]
            raise DataError(
                f"the vocabulary has no token {byte_characters()[b]!r} for the byte 0x{b:02X} ({len(missing)} are missing): "
                f"texts would lose it; a byte-level vocabulary holds all 256"
            )
        for i, pair in enumerate(merges):
            for token in (*pair, "".join(pair)):
                if token not in self.ids:
                    raise DataError(
                        f"merge {i} ({' '.join(pair)!r}) names {token!r}, which is not in the vocabulary; are both from one tokenizer?"
                    )
        self.merges = list(merges)
        self.ranks = {pair: rank for rank, pair in enumerate(self.merges)}
        self._bytes = [bytes_of(token) for token in self.tokens]
        self._cache: dict[str, list[int]] = {}

    @classmethod
    def train(
        cls, texts: Iterable[str], vocab_size: int, min_frequency: int = 0, *, roles: Mapping[str, str] = ROLES, extra: Sequence[str] = ()
    ) -> ByteLevelBPE:
        """Learn merges from texts: special tokens get the first numbers, then the bytes, then what is merged.

        Args:
            texts: each by itself; no token crosses from one to the next.
            vocab_size: number of tokens; fewer where the texts have no more pairs.
            min_frequency: pairs that are less frequent are not merged.

        Raises:
            DataError: a vocabulary too small for the bytes and special tokens.
        """
        tokens = first_tokens([*roles.values(), *extra], byte_characters().values(), vocab_size)
        words: Counter[str] = Counter()
        for text in texts:
            words.update(pattern().findall(check_text(text)))
        merges = learn({tuple(characters_of(w)): n for w, n in words.items()}, tokens, vocab_size, min_frequency, str.__add__)
        return cls({token: i for i, token in enumerate(tokens)}, merges, roles, extra)

    def encode(self, text: str, *, add_special: bool = True, parse_special: bool = True) -> list[int]:
        ids: list[int] = []
        for _, piece, special in self._pieces(check_text(text), parse_special):
            if special is not None:
                ids.append(special)
            else:
                for word in pattern().findall(piece):
                    ids += self._cache.get(word) or self._word(word)
        return ids

    def encoding(self, text: str, pair: str | None = None, *, add_special: bool = True, parse_special: bool = True) -> Encoding:
        ids: list[int] = []
        types: list[int] = []
        offsets: list[tuple[int, int]] = []
        for kind, each in enumerate([text] if pair is None else [text, pair]):
            for start, piece, special in self._pieces(check_text(each), parse_special):
                if special is not None:
                    ids.append(special)
                    offsets.append((start, start + len(piece)))
                    continue
                of_byte = [start + i for i, c in enumerate(piece) for _ in c.encode("utf-8")]  # the character that a byte is of
                at = 0
                for word in pattern().findall(piece):
                    for i in self._word(word):
                        ids.append(i)
                        end = at + len(self._bytes[i])
                        offsets.append((of_byte[at], of_byte[end - 1] + 1))
                        at = end
            types += [kind] * (len(ids) - len(types))
        return Encoding(ids, types, offsets)

    def _word(self, word: str) -> list[int]:
        found = self._cache.get(word)
        if found is None:
            found = [self.ids[token] for token in merge(characters_of(word), self.ranks)]
            if len(self._cache) < _CACHED and len(word) < 64:
                self._cache[word] = found
        return found

    def decode(self, ids: Iterable[int], *, skip_special: bool = True) -> str:
        return b"".join([self._bytes[i] for i in self._kept(ids, skip_special)]).decode("utf-8", "replace")

    def stream(self, *, skip_special: bool = True) -> Stream:
        return _Bytes(self, skip_special)

    def to_spec(self) -> dict[str, Any]:
        model = {"type": "BPE", "vocab": self.ids, "merges": [list(pair) for pair in self.merges]}
        parts = {"pre_tokenizer": {"add_prefix_space": False} | _BYTE_LEVEL, "decoder": {"add_prefix_space": True} | _BYTE_LEVEL}
        return spec.written(self._added_tokens(), model=_MODEL | model, **parts)

    @classmethod
    def from_spec(cls, data: Mapping[str, Any], roles: Mapping[str, str], config: Mapping[str, Any]) -> ByteLevelBPE:
        """Of ``tokenizer.json``.

        Raises:
            DataError: it describes a tokenizer of another kind, or contradicts itself.
        """
        spec.expect(data, "normalizer", None)
        spec.expect(data, "pre_tokenizer", {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True}, trim_offsets=None)
        if data.get("post_processor") != _NOTHING_AROUND:
            spec.expect(
                data, "post_processor", {"type": "ByteLevel", "trim_offsets": False}, add_prefix_space=None, use_regex=None, optional=True
            )
        spec.expect(data, "decoder", {"type": "ByteLevel"}, add_prefix_space=None, trim_offsets=None, use_regex=None, optional=True)
        spec.expect(data, "model", _MODEL, vocab=None, merges=None, unk_token=None)
        vocab, extra = spec.vocabulary(data)
        return cls(vocab, spec.merges(data["model"]), roles, [t for t in extra if t not in roles.values()], config)


_A, _B = ({"Sequence": {"id": name, "type_id": i}} for i, name in enumerate("AB"))
_NOTHING_AROUND = {"type": "TemplateProcessing", "single": [_A], "pair": [_A, _B], "special_tokens": {}}
"""What transformers writes of GPT-2 since version 5."""
_BYTE_LEVEL = {"type": "ByteLevel", "trim_offsets": True, "use_regex": True}
_MODEL = {
    "type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None, "end_of_word_suffix": None,
    "fuse_unk": False, "byte_fallback": False, "ignore_merges": False,
}  # fmt: skip


class _Bytes(Stream):
    """Bytes to text, holding back what does not end a character yet."""

    def __init__(self, tokenizer: ByteLevelBPE, skip_special: bool) -> None:
        self._tokenizer, self._skip = tokenizer, skip_special
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def push(self, id: int) -> str:
        return "".join(self._decoder.decode(self._tokenizer._bytes[i]) for i in self._tokenizer._kept([id], self._skip))

    def finish(self) -> str:
        return self._decoder.decode(b"", final=True)


def first_tokens(special: Iterable[str], alphabet: Iterable[str], vocab_size: int) -> list[str]:
    """What a vocabulary starts from: special tokens in their order, then the alphabet in that of its characters.

    Raises:
        DataError: they do not fit, or a special token is no text.
    """
    special = list(dict.fromkeys(special))
    if "" in special:
        raise DataError("a special token is the empty text, which is everywhere; give it a name such as '<|endoftext|>'")
    tokens = list(dict.fromkeys([*special, *sorted(alphabet)]))
    if vocab_size < len(tokens):
        raise DataError(f"a vocabulary of {vocab_size} is too small: special tokens and single characters are {len(tokens)}; ask for more")
    return tokens

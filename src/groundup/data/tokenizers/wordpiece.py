"""WordPiece: the tokenizer of BERT, whose words are broken into the longest pieces that the vocabulary has.

Papers: Devlin et al. 2019, "BERT", arXiv:1810.04805, section 3 and appendix A (basic tokenization is described in its
code alone); Schuster & Nakajima 2012, "Japanese and Korean Voice Search", ICASSP (the word pieces).

    text --clean, split Chinese, strip accents, lower--> plain text --space, punctuation--> words --longest match--> pieces

What is unusual: (1) Text cannot be got back: case, accents and spaces are lost, and a word that the pieces cannot write is
[UNK] as a whole, as is one of more than 100 characters.  (2) A piece that continues a word is written with ## before it.
(3) Schuster & Nakajima choose the merge that raises the likelihood of the text most; BERT's training was never published,
and that of the ``tokenizers`` library, which is followed here, takes the most frequent pair, as byte-pair encoding does.
(4) In that library the numbers of the single continuing characters, and with them ties, change from run to run; here
they are in the order of the characters.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from typing import Any

from groundup.data.tokenizers import spec
from groundup.data.tokenizers.base import Encoding, Stream, Tokenizer, check_text
from groundup.data.tokenizers.bpe import first_tokens
from groundup.data.tokenizers.pairs import learn
from groundup.data.tokenizers.unicode import decompose, inside, lower, members, nfd
from groundup.errors import DataError

ROLES = {"pad": "[PAD]", "unk": "[UNK]", "cls": "[CLS]", "sep": "[SEP]", "mask": "[MASK]"}
"""BERT's special tokens, in the order of their numbers in a new vocabulary."""

LONGEST = 100  # characters of a word that is looked at
_CACHED = 1 << 16  # words whose pieces are kept


def clean(text: str) -> str:
    """Control characters (vertical tab and form feed are some), U+0000 and U+FFFD go; other white space becomes a space."""
    control, space = members("control"), members("space")
    return "".join(" " if c in space else c for c in text if c not in control)


def split_chinese(text: str) -> str:
    """A space on either side of each Chinese character: Chinese is written without, and each becomes a word."""
    chinese = members("cjk")
    return "".join(f" {c} " if c in chinese else c for c in text)


def strip_accents(text: str) -> str:
    """Decompose characters, and leave out the accents that come apart.

    >>> strip_accents("Ångström")
    'Angstrom'
    """
    accents = members("accent")
    return "".join(c for c, _ in nfd(text) if c not in accents)


@cache
def words_pattern() -> re.Pattern[str]:
    """Words of a normalized text: each punctuation mark, and what stands between them and white space."""
    return re.compile(f"[{inside('punctuation')}]|[^{inside('space', 'punctuation')}]+")


@cache
def _reordered() -> re.Pattern[str]:
    """Combining characters that are not stripped: where they stand, decomposition may change the order."""
    kept = {c for c in members("moving") - members("accent") if decompose(c) == c}
    return re.compile("[" + "".join(map(re.escape, sorted(kept))) + "]")


def count(texts: Iterable[str], normalize: Callable[[str], str]) -> dict[tuple[str, ...], int]:
    """How often each word stands in the texts, as a character and characters that continue it: ("t", "##h", "##e")."""
    words: Counter[str] = Counter()
    for text in texts:
        words.update(words_pattern().findall(normalize(check_text(text))))
    return {(word[0], *(f"##{c}" for c in word[1:])): n for word, n in words.items()}


def join(a: str, b: str) -> str:
    """The piece that two pieces make.

    >>> join("##t", "##he")
    '##the'
    """
    return a + b.removeprefix("##")


class _PerCharacter(dict[int, str]):
    """What each character becomes, for ``str.translate``; computed when it is first met."""

    def __init__(self, normalize: Callable[[str], str]) -> None:
        super().__init__()
        self._normalize = normalize

    def __missing__(self, c: int) -> str:
        found = self._normalize(chr(c))
        if len(self) < _CACHED:
            self[c] = found
        return found


class WordPiece(Tokenizer):
    """BERT's tokenizer.

    Args:
        vocab: token -> number.
        roles: among them unk, cls and sep.
        extra, config: see :class:`Tokenizer`.
        lower_case: as BERT "uncased" has it.
        accents: whether accents are stripped; as ``lower_case`` where left out.
        chinese: whether Chinese characters become words.

    Raises:
        DataError: no unk, cls or sep.
    """

    def __init__(
        self,
        vocab: Mapping[str, int],
        roles: Mapping[str, str] = ROLES,
        extra: Sequence[str] = (),
        config: Mapping[str, Any] | None = None,
        *,
        lower_case: bool = True,
        accents: bool | None = None,
        chinese: bool = True,
    ) -> None:
        super().__init__(vocab, roles, extra, {"model_input_names": ["input_ids", "token_type_ids", "attention_mask"]} | dict(config or {}))
        if missing := [role for role in ("unk", "cls", "sep") if role not in self.special]:
            raise DataError(
                f"a WordPiece tokenizer needs a token for the role {missing[0]!r}, such as {ROLES[missing[0]]!r}; name it in roles"
            )
        self.lower_case, self.accents, self.chinese = lower_case, accents, chinese
        self._strip = lower_case if accents is None else accents
        self._table = _PerCharacter(self.normalize_step_by_step)
        self._cache: dict[str, list[int]] = {}

    @classmethod
    def train(
        cls,
        texts: Iterable[str],
        vocab_size: int,
        min_frequency: int = 0,
        *,
        roles: Mapping[str, str] = ROLES,
        extra: Sequence[str] = (),
        lower_case: bool = True,
    ) -> WordPiece:
        """Learn pieces from texts: special tokens get the first numbers, then characters, then those that continue a word.

        Args, Raises: as of :meth:`ByteLevelBPE.train`.
        """
        normalized = cls({t: i for i, t in enumerate(roles.values())}, roles, lower_case=lower_case).normalize
        words = count(texts, normalized)
        tokens = first_tokens([*roles.values(), *extra], {s[-1] for word in words for s in word}, vocab_size)
        tokens = first_tokens(tokens, {s for word in words for s in word[1:]}, vocab_size)
        learn(words, tokens, vocab_size, min_frequency, join)
        return cls({token: i for i, token in enumerate(tokens)}, roles, extra, lower_case=lower_case)

    def normalize_step_by_step(self, text: str) -> str:
        """BERT's basic tokenization up to the words, one step after another."""
        text = self._spaced(text)
        if self._strip:
            text = strip_accents(text)
        return "".join(map(lower, text)) if self.lower_case else text

    def _spaced(self, text: str) -> str:
        return split_chinese(clean(text)) if self.chinese else clean(text)

    def normalize(self, text: str) -> str:
        """:meth:`normalize_step_by_step` by one table, since no step but the order of accents looks beyond a character."""
        if self._strip and not text.isascii() and _reordered().search(text):
            return self.normalize_step_by_step(text)
        return text.translate(self._table)

    def pieces(self, word: str) -> list[str] | None:
        """Greedy longest match: from the left, the longest piece that is in the vocabulary.

        Returns:
            The pieces; None where there are none for some part, or the word is too long.
        """
        if len(word) > LONGEST:
            return None
        found: list[str] = []
        start = 0
        while start < len(word):
            prefix = "##" if start else ""
            end = next((e for e in range(len(word), start, -1) if prefix + word[start:e] in self.ids), None)
            if end is None:
                return None
            found.append(prefix + word[start:end])
            start = end
        return found

    def encode(self, text: str, *, add_special: bool = True, parse_special: bool = True) -> list[int]:
        ids = [self.special["cls"]] if add_special else []
        for _, piece, special in self._pieces(check_text(text), parse_special):
            if special is not None:
                ids.append(special)
            else:
                for word in words_pattern().findall(self.normalize(piece)):
                    ids += self._cache.get(word) or self._word(word)
        return [*ids, self.special["sep"]] if add_special else ids

    def encoding(self, text: str, pair: str | None = None, *, add_special: bool = True, parse_special: bool = True) -> Encoding:
        ids = [self.special["cls"]] if add_special else []
        types, offsets = [0] * len(ids), [(0, 0)] * len(ids)
        for kind, each in enumerate([text] if pair is None else [text, pair]):
            for start, piece, special in self._pieces(check_text(each), parse_special):
                if special is not None:
                    ids.append(special)
                    offsets.append((start, start + len(piece)))
                    continue
                text, origins = self._aligned(piece)
                for found in words_pattern().finditer(text):
                    at = found.start()
                    for i, length in zip(self._word(found[0]), self._lengths(found[0]), strict=True):
                        ids.append(i)
                        offsets.append((start + origins[at], start + origins[at + length - 1] + 1))
                        at += length
            if add_special:
                ids.append(self.special["sep"])
                offsets.append((0, 0))
            types += [kind] * (len(ids) - len(types))
        return Encoding(ids, types, offsets)

    def _aligned(self, text: str) -> tuple[str, list[int]]:
        """The normalized text, and for each of its characters the one that it came from."""
        if not (self._strip and _reordered().search(text)):
            parts = [c.translate(self._table) for c in text]
            return "".join(parts), [i for i, part in enumerate(parts) for _ in part]
        spaced = [(c, i) for i, original in enumerate(text) for c in self._spaced(original)]
        plain = [(c, spaced[k][1]) for c, k in nfd("".join(c for c, _ in spaced)) if c not in members("accent")]
        kept = [(lower(c) if self.lower_case else c, i) for c, i in plain]
        return "".join(c for c, _ in kept), [i for part, i in kept for _ in part]

    def _word(self, word: str) -> list[int]:
        found = self._cache.get(word)
        if found is None:
            pieces = self.pieces(word)
            found = [self.special["unk"]] if pieces is None else [self.ids[p] for p in pieces]
            if len(self._cache) < _CACHED and len(word) < 64:
                self._cache[word] = found
        return found

    def _lengths(self, word: str) -> list[int]:
        """Characters of the word that each of its tokens stands for."""
        pieces = self.pieces(word)
        return [len(word)] if pieces is None else [len(p) - 2 * (i > 0) for i, p in enumerate(pieces)]

    def decode(self, ids: Iterable[int], *, skip_special: bool = True) -> str:
        stream = self.stream(skip_special=skip_special)
        return "".join(map(stream.push, ids)) + stream.finish()

    def stream(self, *, skip_special: bool = True) -> Stream:
        return _Words(self, skip_special)

    def to_spec(self) -> dict[str, Any]:
        cls, sep = ({"SpecialToken": {"id": self.tokens[self.special[role]], "type_id": 0}} for role in ("cls", "sep"))
        A, B = ({"Sequence": {"id": name, "type_id": i}} for i, name in enumerate("AB"))
        last = {"SpecialToken": sep["SpecialToken"] | {"type_id": 1}}
        names = {self.tokens[self.special[role]]: self.special[role] for role in ("cls", "sep")}
        return spec.written(
            self._added_tokens(),
            normalizer={"type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": self.chinese}
            | {"strip_accents": self.accents, "lowercase": self.lower_case},
            pre_tokenizer={"type": "BertPreTokenizer"},
            post_processor={"type": "TemplateProcessing", "single": [cls, A, sep], "pair": [cls, A, sep, B, last]}
            | {"special_tokens": {name: {"id": name, "ids": [i], "tokens": [name]} for name, i in names.items()}},
            decoder={"type": "WordPiece", "prefix": "##", "cleanup": True},
            model=_MODEL | {"unk_token": self.tokens[self.special["unk"]], "vocab": self.ids},
        )

    @classmethod
    def from_spec(cls, data: Mapping[str, Any], roles: Mapping[str, str], config: Mapping[str, Any]) -> WordPiece:
        """Of ``tokenizer.json``.

        Raises:
            DataError: it describes a tokenizer of another kind, or contradicts itself.
        """
        how = {"clean_text": True, "type": "BertNormalizer"}
        spec.expect(data, "normalizer", how, handle_chinese_chars=None, strip_accents=None, lowercase=None)
        spec.expect(data, "pre_tokenizer", {"type": "BertPreTokenizer"})
        spec.expect(data, "decoder", {"type": "WordPiece", "prefix": "##", "cleanup": True})
        spec.expect(data, "model", _MODEL, unk_token=None, vocab=None)
        vocab, extra = spec.vocabulary(data)
        said = data["normalizer"] or {}
        roles = {"unk": data["model"].get("unk_token", "[UNK]")} | _around(data.get("post_processor")) | dict(roles)
        tokenizer = cls(
            vocab,
            roles,
            [t for t in extra if t not in roles.values()],
            config,
            lower_case=bool(said.get("lowercase", True)),
            accents=said.get("strip_accents"),
            chinese=bool(said.get("handle_chinese_chars", True)),
        )
        if (data["post_processor"] or {}).get("type") == "TemplateProcessing":
            spec.expect(data, "post_processor", tokenizer.to_spec()["post_processor"])
        return tokenizer


_MODEL = {"type": "WordPiece", "continuing_subword_prefix": "##", "max_input_chars_per_word": LONGEST}


def _around(processor: Any) -> dict[str, str]:
    """cls and sep of a post-processor.

    Raises:
        DataError: it is not BERT's.
    """
    try:
        if processor["type"] == "BertProcessing":
            return {role: processor[role][0] for role in ("cls", "sep")}
        first, _, last = processor["single"]
        return {"cls": first["SpecialToken"]["id"], "sep": last["SpecialToken"]["id"]}
    except (TypeError, KeyError, ValueError, IndexError) as e:
        raise DataError(
            f"tokenizer.json: expected a post_processor that puts [CLS] and [SEP] around a text, got {processor!r:.80}; "
            f"load it without readable=True, then the tokenizers library does what it says"
        ) from e


class _Words(Stream):
    """Pieces to text: a space before each that does not continue a word, but none before what English writes close."""

    _CLOSE = re.compile(r" (?=[.?!,]|n't|'m|'s|'ve|'re)")

    def __init__(self, tokenizer: WordPiece, skip_special: bool) -> None:
        self._tokenizer, self._skip, self._first = tokenizer, skip_special, True

    def push(self, id: int) -> str:
        text = ""
        for i in self._tokenizer._kept([id], self._skip):
            token = self._tokenizer.tokens[i]
            if not self._first:
                token = token.removeprefix("##") if token.startswith("##") else f" {token}"
            text, self._first = self._CLOSE.sub("", token), False
        return text

    def finish(self) -> str:
        return ""

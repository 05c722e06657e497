"""Characters as tokens: the smallest tokenizer, for small texts such as Tiny Shakespeare.

What is unusual: nothing, except that a character that was not among the training texts is an error, not silence, where
there is no unknown token.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from groundup.data.tokenizers import spec
from groundup.data.tokenizers.base import Encoding, Stream, Tokenizer, check_text
from groundup.data.tokenizers.bpe import first_tokens
from groundup.errors import DataError


class Characters(Tokenizer):
    """One token a character.

    Args:
        vocab: character, or special token -> number.
        roles, extra, config: special tokens; see :class:`Tokenizer`.  ``unk`` stands for characters without a token.

    Raises:
        DataError: a token of several characters that is not special.
    """

    def __init__(
        self,
        vocab: Mapping[str, int],
        roles: Mapping[str, str] | None = None,
        extra: Sequence[str] = (),
        config: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(vocab, roles, extra, config)
        if long := [t for t in self.ids if len(t) != 1 and t not in self.special_tokens]:
            raise DataError(f"expected single characters and special tokens, got {long[0]!r}; name it in extra if it is special")

    @classmethod
    def train(
        cls, texts: Iterable[str], vocab_size: int | None = None, *, roles: Mapping[str, str] | None = None, extra: Sequence[str] = ()
    ) -> Characters:
        """Every character of the texts, in their order in Unicode, after the special tokens.

        Args:
            vocab_size: the most that it may be; left out, as many as there are.

        Raises:
            DataError: there are more.
        """
        seen: set[str] = set()
        for text in texts:
            seen.update(check_text(text))
        roles = dict(roles or {})
        special = list(dict.fromkeys([*roles.values(), *extra]))
        tokens = first_tokens(special, seen, vocab_size if vocab_size is not None else len(special) + len(seen))
        return cls({token: i for i, token in enumerate(tokens)}, roles, extra)

    def encode(self, text: str, *, add_special: bool = True, parse_special: bool = True) -> list[int]:
        ids: list[int] = []
        for start, piece, special in self._pieces(check_text(text), parse_special):
            try:
                ids += [self.ids[c] for c in piece] if special is None else [special]
            except KeyError:
                ids += [self._of(c, start + i) for i, c in enumerate(piece)]
        return ids

    def _of(self, c: str, at: int) -> int:
        found = self.ids.get(c, self.special.get("unk"))
        if found is None:
            raise DataError(
                f"character {at} of the text, {c!r}, has no token among {self.vocab_size}; train on it too, or name an unk token"
            )
        return found

    def encoding(self, text: str, pair: str | None = None, *, add_special: bool = True, parse_special: bool = True) -> Encoding:
        ids: list[int] = []
        types: list[int] = []
        offsets: list[tuple[int, int]] = []
        for kind, each in enumerate([text] if pair is None else [text, pair]):
            ids += self.encode(each, parse_special=parse_special)
            for start, piece, special in self._pieces(each, parse_special):
                end = start + len(piece)
                offsets += [(i, i + 1) for i in range(start, end)] if special is None else [(start, end)]
            types += [kind] * (len(ids) - len(types))
        return Encoding(ids, types, offsets)

    def decode(self, ids: Iterable[int], *, skip_special: bool = True) -> str:
        return "".join([self.tokens[i] for i in self._kept(ids, skip_special)])

    def stream(self, *, skip_special: bool = True) -> Stream:
        return _Characters(self, skip_special)

    def to_spec(self) -> dict[str, Any]:
        unk = self.tokens[self.special["unk"]] if "unk" in self.special else _NO_UNKNOWN
        model = {"type": "WordLevel", "vocab": self.ids, "unk_token": unk}
        return spec.written(self._added_tokens(), pre_tokenizer=_SPLIT, decoder={"type": "Fuse"}, model=model)

    @classmethod
    def from_spec(cls, data: Mapping[str, Any], roles: Mapping[str, str], config: Mapping[str, Any]) -> Characters:
        """Of ``tokenizer.json``.

        Raises:
            DataError: it describes a tokenizer of another kind, or contradicts itself.
        """
        spec.expect(data, "normalizer", None)
        spec.expect(data, "pre_tokenizer", _SPLIT)
        spec.expect(data, "post_processor", None)
        spec.expect(data, "decoder", {"type": "Fuse"})
        spec.expect(data, "model", {"type": "WordLevel"}, vocab=None, unk_token=None)
        vocab, extra = spec.vocabulary(data)
        unk = data["model"].get("unk_token")
        roles = ({"unk": unk} if unk in vocab else {}) | dict(roles)
        return cls(vocab, roles, [t for t in extra if t not in roles.values()], config)


_SPLIT = {"type": "Split", "pattern": {"Regex": r"[\s\S]"}, "behavior": "Isolated", "invert": False}
_NO_UNKNOWN = "<unk>"  # the library wants a name; not being in the vocabulary, it makes the library refuse


class _Characters(Stream):
    """Each token is whole."""

    def __init__(self, tokenizer: Characters, skip_special: bool) -> None:
        self._tokenizer, self._skip = tokenizer, skip_special

    def push(self, id: int) -> str:
        return self._tokenizer.decode([id], skip_special=self._skip)

    def finish(self) -> str:
        return ""

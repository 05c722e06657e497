"""The same interface over the ``tokenizers`` library: what pipelines use, and any tokenizer that it knows.

What is unusual: a number that is no token is an error here, where the library leaves it out; and training of WordPiece gives
the same vocabulary every time, where the library's own numbers the continuing characters in the order of a hash map.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from groundup.data.tokenizers import bpe, spec, wordpiece
from groundup.data.tokenizers.base import Encoding, Stream, Tokenizer, check_text
from groundup.data.tokenizers.unicode import members
from groundup.errors import DataError, MissingExtraError

if TYPE_CHECKING:
    import tokenizers


class Library(Tokenizer):
    """A tokenizer of the ``tokenizers`` library.

    Args:
        data: ``tokenizer.json``; its truncation and padding are not applied.
        roles, config: see :class:`Tokenizer`; special tokens are those that ``data`` says are.

    Raises:
        DataError: the library refuses it, or its numbers have holes.
        MissingExtraError: the library is not installed.
    """

    def __init__(self, data: Mapping[str, Any], roles: Mapping[str, str] | None = None, config: Mapping[str, Any] | None = None) -> None:
        self._data = dict(data) | {"truncation": None, "padding": None}
        self._tokenizer = _open(self._data)
        self._plain: tokenizers.Tokenizer | None = None  # that reads special tokens as text
        vocab = self._tokenizer.get_vocab(with_added_tokens=True)
        special = [t["content"] for t in self._data.get("added_tokens") or [] if t.get("special")]
        super().__init__(vocab, roles, [t for t in special if t not in (roles or {}).values()], config)

    def _reader(self, parse_special: bool) -> tokenizers.Tokenizer:
        if parse_special:
            return self._tokenizer
        if self._plain is None:
            plain = _open(self._data)
            plain.encode_special_tokens = True
            self._plain = plain
        return self._plain

    def encode(self, text: str, *, add_special: bool = True, parse_special: bool = True) -> list[int]:
        return self.encode_batch([text], add_special=add_special, parse_special=parse_special)[0]

    def encode_batch(self, texts: Sequence[str], *, add_special: bool = True, parse_special: bool = True) -> list[list[int]]:
        checked = [check_text(text) for text in texts]
        found = _explained(lambda: self._reader(parse_special).encode_batch_fast(checked, add_special_tokens=add_special))
        return [encoding.ids for encoding in found]

    def encoding(self, text: str, pair: str | None = None, *, add_special: bool = True, parse_special: bool = True) -> Encoding:
        second = None if pair is None else check_text(pair)
        found = _explained(lambda: self._reader(parse_special).encode(check_text(text), second, add_special_tokens=add_special))
        return Encoding(found.ids, found.type_ids, found.offsets)

    def decode(self, ids: Iterable[int], *, skip_special: bool = True) -> str:
        return str(self._tokenizer.decode(list(self._kept(ids, skip_special)), skip_special_tokens=False))

    def stream(self, *, skip_special: bool = True) -> Stream:
        return _Window(self, skip_special)

    def to_spec(self) -> dict[str, Any]:
        return dict(json.loads(self._tokenizer.to_str()))


class _Window(Stream):
    """Decodes the tokens since the last whole character twice, with and without the newest; the difference is its text."""

    def __init__(self, tokenizer: Library, skip_special: bool) -> None:
        self._tokenizer, self._skip = tokenizer, skip_special
        self._ids: list[int] = []
        self._told = 0  # of the window's tokens, those whose text was returned

    def push(self, id: int) -> str:
        kept = list(self._tokenizer._kept([id], self._skip))
        self._ids += kept
        if not kept:
            return ""
        whole = self._decode(self._ids)
        if whole.endswith("\ufffd"):  # incomplete, or wrong: the next token tells
            return ""
        new = whole[len(self._decode(self._ids[: self._told])) :]
        self._ids = self._ids[self._told :]  # one told part stays, since a decoder may treat the first token otherwise
        self._told = len(self._ids)
        return new

    def finish(self) -> str:
        return self._decode(self._ids)[len(self._decode(self._ids[: self._told])) :]

    def _decode(self, ids: list[int]) -> str:
        return self._tokenizer.decode(ids, skip_special=False)


def train_bpe(
    texts: Iterable[str], vocab_size: int, min_frequency: int = 0, *, roles: Mapping[str, str] = bpe.ROLES, extra: Sequence[str] = ()
) -> Library:
    """As :meth:`ByteLevelBPE.train`, by the library."""
    tokens = bpe.first_tokens([*roles.values(), *extra], bpe.byte_characters().values(), vocab_size)
    start = bpe.ByteLevelBPE({t: i for i, t in enumerate(tokens)}, [], roles, extra).to_spec()
    model = _train(start, texts, tokens, vocab_size, min_frequency, None)
    return Library(start | {"model": model}, roles)


def train_wordpiece(
    texts: Iterable[str],
    vocab_size: int,
    min_frequency: int = 0,
    *,
    roles: Mapping[str, str] = wordpiece.ROLES,
    extra: Sequence[str] = (),
    lower_case: bool = True,
) -> Library:
    """As :meth:`WordPiece.train`, by the library; the texts are gone through twice, so a one-time iterator is kept in memory."""
    texts = texts if isinstance(texts, Sequence) else list(texts)
    special = list(dict.fromkeys([*roles.values(), *extra]))
    untrained = wordpiece.WordPiece({t: i for i, t in enumerate(special)}, roles, extra, lower_case=lower_case)
    start = untrained.to_spec()
    normalize = _open(start).normalizer.normalize_str
    alphabet: set[str] = set()
    pairs: set[tuple[str, str]] = set()
    for text in texts:
        normalized = normalize(check_text(text))
        alphabet.update(normalized)
        pairs.update(pairwise(normalized))
    alone = members("space") | members("punctuation")
    continuing = {f"##{b}" for a, b in pairs if a not in alone and b not in alone}
    tokens = bpe.first_tokens(special, alphabet - members("space"), vocab_size)
    tokens = bpe.first_tokens(tokens, continuing, vocab_size)
    model = _train(start, texts, tokens, vocab_size, min_frequency, "##")
    return Library(start | {"model": start["model"] | {"vocab": model["vocab"]}}, roles, untrained.config)


def _train(
    start: Mapping[str, Any], texts: Iterable[str], tokens: list[str], vocab_size: int, min_frequency: int, prefix: str | None
) -> dict[str, Any]:
    """The model that the library learns where the vocabulary starts with ``tokens``, in that order.

    They are given as special ones, which come first and as they are; a tokenizer made from the model has its own.
    """
    from tokenizers import Tokenizer as Theirs
    from tokenizers import models, trainers

    made = _open(dict(start))
    fresh = Theirs(models.BPE(continuing_subword_prefix=prefix) if prefix else models.BPE())
    if made.normalizer is not None:
        fresh.normalizer = made.normalizer
    fresh.pre_tokenizer = made.pre_tokenizer
    how: dict[str, Any] = {"vocab_size": vocab_size, "min_frequency": min_frequency, "special_tokens": tokens, "show_progress": False}
    trainer = trainers.BpeTrainer(**how | ({"continuing_subword_prefix": prefix} if prefix else {}))
    fresh.train_from_iterator((check_text(text) for text in texts), trainer)
    model: dict[str, Any] = json.loads(fresh.to_str())["model"]
    return model


def _open(data: Mapping[str, Any]) -> tokenizers.Tokenizer:
    try:
        from tokenizers import Tokenizer as Theirs
    except ModuleNotFoundError as e:
        raise MissingExtraError("tokenizers", "train", "tokenizing") from e
    try:
        return Theirs.from_str(json.dumps(data))
    except Exception as e:
        raise DataError(
            f"tokenizer.json: the tokenizers library refuses it ({e}); is the file whole, and {spec.FILES} of one tokenizer?"
        ) from e


def _explained(encode: Callable[[], Any]) -> Any:
    try:
        return encode()
    except Exception as e:
        raise DataError(
            f"the tokenizers library refuses the text ({e}); a vocabulary without an unknown token has to hold every character"
        ) from e


__all__ = ["Library", "train_bpe", "train_wordpiece"]

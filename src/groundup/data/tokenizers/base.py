"""What every tokenizer here does: text to numbers, numbers to text, whole or as they come, and a folder that others can open."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from operator import index
from pathlib import Path
from typing import Any, NamedTuple

from groundup.bundle.files import make_folder, write_json
from groundup.errors import DataError

ROLES = ("bos", "eos", "unk", "pad", "cls", "sep", "mask")
"""What a special token can be for; ``<role>_token`` in ``tokenizer_config.json``."""


class Encoding(NamedTuple):
    """Tokens and where they came from, each list as long as the others.

    Attributes:
        ids: numbers of the tokens.
        types: 0 for the first text and its special tokens, 1 for the second.
        offsets: (start, end) of each token in its text, in characters; (0, 0) for a special token that was added.
    """

    ids: list[int]
    types: list[int]
    offsets: list[tuple[int, int]]


class Stream(ABC):
    """Text from tokens that come one by one: everything that was returned, put together, is what ``decode`` makes of them all."""

    @abstractmethod
    def push(self, id: int) -> str:
        """The text that is certain now; empty while a character is incomplete.

        Raises:
            DataError: no such token.
        """

    @abstractmethod
    def finish(self) -> str:
        """What is left: for a character that never became whole, U+FFFD."""


class Tokenizer(ABC):
    """Text to numbers and back.

    Args:
        vocab: token -> number; the numbers are 0 to n - 1, each once.
        roles: what special tokens are for, a name of :data:`ROLES` -> token.
        extra: further special tokens.
        config: further keys of ``tokenizer_config.json``, kept as they are.

    Attributes:
        tokens: tokens by number.
        ids: numbers by token.
        special: numbers of the special tokens that have a role, by role.
        special_tokens: numbers of all special tokens, by token.

    Raises:
        DataError: numbers with holes, a special token or role that is not there.
    """

    def __init__(
        self,
        vocab: Mapping[str, int],
        roles: Mapping[str, str] | None = None,
        extra: Sequence[str] = (),
        config: Mapping[str, Any] | None = None,
    ) -> None:
        self.ids = dict(vocab)
        self.tokens = by_number(self.ids)
        self.config = {k: v for k, v in (config or {}).items() if k.removesuffix("_token") not in ROLES}
        roles = dict(roles or {})
        if unknown := sorted(set(roles) - set(ROLES)):
            raise DataError(f"expected roles among {', '.join(ROLES)}, got {unknown[0]!r}; special tokens without one go into extra")
        for token in (*roles.values(), *extra):
            if token not in self.ids:
                raise DataError(
                    f"the special token {token!r} is not in the vocabulary of {len(self.ids)} tokens; add it, or name one that is"
                )
        self.special = {role: self.ids[roles[role]] for role in ROLES if role in roles}
        named = {*roles.values(), *extra}
        self.special_tokens = {token: self.ids[token] for token in sorted(named, key=self.ids.__getitem__)}
        self._special_ids = frozenset(self.special_tokens.values())
        longest_first = sorted(self.special_tokens, key=len, reverse=True)
        self._special_pattern = re.compile("|".join(map(re.escape, longest_first))) if longest_first else None

    @property
    def vocab_size(self) -> int:
        """Number of tokens N_V."""
        return len(self.tokens)

    def encode(self, text: str, *, add_special: bool = True, parse_special: bool = True) -> list[int]:
        """Numbers of the tokens of a text.

        Args:
            text: any text, empty too.
            add_special: put around it what the tokenizer puts around a text (BERT's [CLS] and [SEP]; GPT-2 has nothing).
            parse_special: read a special token that is written out in the text as that token; switch it off for text
                that a stranger wrote, who could otherwise end the document or speak for somebody else.

        Raises:
            DataError: no text, or one with a lone surrogate; a character without a token, where there is no unknown token.
        """
        return self.encoding(text, add_special=add_special, parse_special=parse_special).ids

    def encode_batch(self, texts: Sequence[str], *, add_special: bool = True, parse_special: bool = True) -> list[list[int]]:
        """:meth:`encode` of each."""
        return [self.encode(text, add_special=add_special, parse_special=parse_special) for text in texts]

    @abstractmethod
    def encoding(self, text: str, pair: str | None = None, *, add_special: bool = True, parse_special: bool = True) -> Encoding:
        """As :meth:`encode`, of one text or two, with types and offsets."""

    @abstractmethod
    def decode(self, ids: Iterable[int], *, skip_special: bool = True) -> str:
        """The text of tokens; bytes that are no UTF-8 become U+FFFD.

        Args:
            ids: numbers of tokens.
            skip_special: leave special tokens out.

        Raises:
            DataError: no such token.
        """

    @abstractmethod
    def stream(self, *, skip_special: bool = True) -> Stream:
        """:meth:`decode` one token at a time."""

    @abstractmethod
    def to_spec(self) -> dict[str, Any]:
        """``tokenizer.json`` of the ``tokenizers`` library."""

    def save(self, folder: str | Path) -> None:
        """Write ``tokenizer.json`` and ``tokenizer_config.json``, which ``transformers.AutoTokenizer`` opens.

        Raises:
            StorageError: the folder cannot be written.
        """
        folder = Path(folder)
        make_folder(folder)
        config = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False} | self.config
        config |= {f"{role}_token": self.tokens[i] for role, i in self.special.items()}
        write_json(folder / "tokenizer.json", self.to_spec())
        write_json(folder / "tokenizer_config.json", config)

    def _kept(self, ids: Iterable[int], skip_special: bool) -> Iterator[int]:
        """The numbers to decode, each held to the vocabulary."""
        for given in ids:
            i = self._checked(given)
            if not (skip_special and i in self._special_ids):
                yield i

    def _checked(self, given: int) -> int:
        try:
            i = index(given)
        except TypeError as e:
            raise DataError(f"expected token numbers, got {given!r}, a {type(given).__name__}") from e
        if not 0 <= i < len(self.tokens):
            raise DataError(f"expected token numbers from 0 to {len(self.tokens) - 1}, got {i}; was it made with another tokenizer?")
        return i

    def _pieces(self, text: str, parse_special: bool) -> Iterator[tuple[int, str, int | None]]:
        """(start, text, None) for text between special tokens, (start, token, number) for those; leftmost, then longest."""
        at = 0
        if parse_special and self._special_pattern is not None:
            for found in self._special_pattern.finditer(text):
                if found.start() > at:
                    yield at, text[at : found.start()], None
                yield found.start(), found[0], self.special_tokens[found[0]]
                at = found.end()
        if at < len(text):
            yield at, text[at:], None

    def _added_tokens(self) -> list[dict[str, Any]]:
        """``added_tokens`` of ``tokenizer.json``."""
        flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
        return [{"id": i, "content": token} | flags for token, i in self.special_tokens.items()]


def by_number(vocab: Mapping[str, int]) -> list[str]:
    """Tokens in the order of their numbers.

    Raises:
        DataError: the numbers are not 0 to n - 1.
    """
    if not vocab:
        raise DataError("expected a vocabulary with one token at least, got an empty one")
    tokens: list[str | None] = [None] * len(vocab)
    for token, i in vocab.items():
        if not isinstance(i, int) or isinstance(i, bool):
            raise DataError(f"expected a number for each token, got {i!r} for {token!r}")
        if not 0 <= i < len(tokens):
            n = len(tokens)
            missing = min(set(range(n)) - set(vocab.values()))
            raise DataError(f"a vocabulary of {n} tokens has the numbers 0 to {n - 1}; {token!r} has {i}, and no token has {missing}")
        if tokens[i] is not None:
            raise DataError(f"two tokens have the number {i}: {tokens[i]!r} and {token!r}; a number stands for one token")
        tokens[i] = token
    return [t for t in tokens if t is not None]


def check_text(text: str) -> str:
    """The text itself.

    Raises:
        DataError: it is no ``str``, or holds half of a surrogate pair, which no UTF-8 can write.
    """
    if not isinstance(text, str):
        raise DataError(f"expected text, got {type(text).__name__}; decode bytes first, as with .decode('utf-8')")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as e:
        raise DataError(
            f"character {e.start} of the text is the lone surrogate U+{ord(text[e.start]):04X}, which stands for nothing and has no UTF-8; "
            f"read the text again with its true encoding, or replace it by U+FFFD"
        ) from e
    return text

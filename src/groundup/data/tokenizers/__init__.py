"""Tokenizers: text to numbers and back.

| | here | paper |
|---|---|---|
| byte-level BPE (GPT-2, GPT-3) | ``bpe.py`` | Sennrich et al. 2016, Radford et al. 2019 |
| WordPiece (BERT) | ``wordpiece.py`` | Schuster & Nakajima 2012, Devlin et al. 2019 |
| characters | ``characters.py`` | |

Each is readable Python, proven equal to the ``tokenizers`` library (``groundup.proof.tokenizers``).  That library does the
work where :func:`load` and :func:`train` are not asked for ``readable``; the interface, :class:`Tokenizer`, is one.
Nothing here imports PyTorch, transformers or pandas.

>>> tokenizer = train("characters", ["to be, or not to be"], readable=True)
>>> tokenizer.encode("bee"), tokenizer.decode([2, 3])
([2, 3, 3], 'be')
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from groundup.data.tokenizers import spec
from groundup.data.tokenizers.base import Encoding, Stream, Tokenizer
from groundup.data.tokenizers.bpe import END_OF_TEXT, ByteLevelBPE
from groundup.data.tokenizers.characters import Characters
from groundup.data.tokenizers.library import Library, train_bpe, train_wordpiece
from groundup.data.tokenizers.wordpiece import WordPiece
from groundup.errors import DataError

__all__ = ["ByteLevelBPE", "Characters", "Encoding", "Library", "Stream", "Tokenizer", "WordPiece", "load", "train"]

_KINDS: dict[str, type[ByteLevelBPE] | type[WordPiece] | type[Characters]] = {
    "BPE": ByteLevelBPE,
    "WordPiece": WordPiece,
    "WordLevel": Characters,
}


def load(folder: str | Path, *, readable: bool = False) -> Tokenizer:
    """The tokenizer of a folder: ``tokenizer.json``, else GPT-2's ``encoder.json`` and ``vocab.bpe`` (or ``vocab.json`` and
    ``merges.txt``), else BERT's ``vocab.txt``.

    Args:
        folder: where; what ``tokenizer_config.json`` says of special tokens and letters is heeded.
        readable: ours, where it can do what the files say; otherwise the ``tokenizers`` library.

    Raises:
        DataError: no tokenizer there, a damaged one, or one that ours cannot do.
    """
    folder = Path(folder)
    roles, config = spec.read_config(folder)
    if (folder / "tokenizer.json").exists():
        data = spec.read_tokenizer(folder / "tokenizer.json")
        if not readable:
            return Library(data, roles, config)
        kind = data["model"]["type"]
        if kind not in _KINDS:
            raise DataError(
                f"{folder / 'tokenizer.json'}: expected a model of type {', '.join(_KINDS)}, got {kind!r}; load it without readable=True"
            )
        return _KINDS[kind].from_spec(data, roles, config)
    ours = _of_older_files(folder, roles, config)
    return ours if readable else Library(ours.to_spec(), _roles(ours), ours.config)


def _of_older_files(folder: Path, roles: dict[str, str], config: dict[str, Any]) -> Tokenizer:
    for numbers, order in (("encoder.json", "vocab.bpe"), ("vocab.json", "merges.txt")):
        if (folder / numbers).exists() and (folder / order).exists():
            vocab = spec.read_json(folder / numbers)
            ends = {role: END_OF_TEXT for role in ("bos", "eos") if END_OF_TEXT in vocab}
            return ByteLevelBPE(vocab, spec.read_merges(folder / order), ends | roles, (), config)
    if (folder / "vocab.txt").exists():
        vocab = spec.read_vocab(folder / "vocab.txt")
        named = {role: f"[{role.upper()}]" for role in ("pad", "unk", "cls", "sep", "mask")}
        said = {
            "lower_case": config.get("do_lower_case", True),
            "accents": config.get("strip_accents"),
            "chinese": config.get("tokenize_chinese_chars", True),
        }
        return WordPiece(vocab, {role: token for role, token in named.items() if token in vocab} | roles, (), config, **said)
    where = f"the folder {folder} has no tokenizer" if folder.is_dir() else f"there is no folder {folder}"
    raise DataError(f"{where}; expected {spec.FILES}")


def _roles(tokenizer: Tokenizer) -> dict[str, str]:
    return {role: tokenizer.tokens[i] for role, i in tokenizer.special.items()}


def train(
    kind: Literal["bpe", "wordpiece", "characters"],
    texts: Iterable[str],
    vocab_size: int | None = None,
    min_frequency: int = 0,
    *,
    roles: Mapping[str, str] | None = None,
    extra: Sequence[str] = (),
    readable: bool = False,
) -> Tokenizer:
    """A tokenizer learned from texts; ours and the library's learn the same.

    Args:
        kind: which.
        texts: each by itself.
        vocab_size: number of tokens, special ones included; ``characters`` takes what there is where it is left out.
        min_frequency: pairs that are less frequent are not merged (not for ``characters``).
        roles: special tokens by what they are for; left out, GPT-2's or BERT's.
        extra: further special tokens.
        readable: ours; otherwise the ``tokenizers`` library.

    Raises:
        DataError: an unknown kind, a size that is missing or too small, a text with a lone surrogate.
    """
    special: dict[str, Any] = {"extra": extra} | ({} if roles is None else {"roles": roles})
    if kind == "characters":
        if min_frequency:
            raise DataError("characters are not merged, so min_frequency has no effect; leave it out")
        ours = Characters.train(texts, vocab_size, **special)
        return ours if readable else Library(ours.to_spec(), _roles(ours))
    trainers = {"bpe": (ByteLevelBPE.train, train_bpe), "wordpiece": (WordPiece.train, train_wordpiece)}
    if kind not in trainers:
        raise DataError(f"expected bpe, wordpiece or characters, got {kind!r}")
    if vocab_size is None:
        raise DataError(f"{kind} needs a vocab_size, the number of tokens to learn; common are 1,000 to 50,000")
    return trainers[kind][0 if readable else 1](texts, vocab_size, min_frequency, **special)  # type: ignore[operator, no-any-return]

"""The files of a tokenizer, read and held to their form: ``tokenizer.json`` of the ``tokenizers`` library, ``tokenizer_config.json`` of
transformers, and the older ones of GPT-2 and BERT."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from groundup.data.tokenizers.base import ROLES
from groundup.errors import DataError

FILES = "tokenizer.json, or encoder.json with vocab.bpe, vocab.json with merges.txt, or vocab.txt"


def written(added_tokens: list[dict[str, Any]], **parts: Any) -> dict[str, Any]:
    """``tokenizer.json`` of its parts; those not named are null."""
    empty = {"truncation": None, "padding": None, "added_tokens": added_tokens}
    order = ("normalizer", "pre_tokenizer", "post_processor", "decoder", "model")
    return {"version": "1.0"} | empty | {name: parts.get(name) for name in order}


def expect(data: Mapping[str, Any], part: str, expected: Mapping[str, Any] | None, *, optional: bool = False, **free: None) -> None:
    """Hold a part of ``tokenizer.json`` to what the readable tokenizer does.

    Args:
        part: its key.
        expected: key -> value; a key that is left out there has that value.  None: there is no such part.
        optional: the part may be null.
        free: further keys, whose values do not matter or are looked at elsewhere.

    Raises:
        DataError: another part, another setting, a key that is not known.
    """
    found = data.get(part)
    advice = "the readable tokenizer does not do that; load it without readable=True, then the tokenizers library does"
    if found is None and (optional or expected is None):
        return
    if expected is None or not isinstance(found, dict) or found.get("type") != expected["type"]:
        kind = found.get("type") if isinstance(found, dict) else found
        wanted = repr(expected["type"]) if expected else "none"
        raise DataError(f"tokenizer.json: expected {wanted} as {part}, got {kind!r}; {advice}")
    for key, value in found.items():
        if key in free:
            continue
        if key not in expected or (value != expected[key] and not (value in (None, "") and expected[key] is None)):
            raise DataError(f"tokenizer.json: {part} has {key}: {value!r:.80}, expected {expected.get(key)!r}; {advice}")


def vocabulary(data: Mapping[str, Any]) -> tuple[dict[str, int], list[str]]:
    """The numbers of all tokens, those beside the model's included, and which of them are special.

    Raises:
        DataError: no vocabulary, an added token that contradicts it or that is matched in a way of its own.
    """
    vocab = data["model"].get("vocab")
    if not isinstance(vocab, dict):
        raise DataError(
            f"tokenizer.json: expected model.vocab with a number for each token, got {type(vocab).__name__}; the file is damaged"
        )
    vocab, special = dict(vocab), []
    added = data.get("added_tokens") or []
    if not isinstance(added, list):
        raise DataError(f"tokenizer.json: expected a list of added_tokens, got {type(added).__name__}; the file is damaged")
    for token in added:
        if not isinstance(token, dict) or not isinstance(token.get("content"), str) or not isinstance(token.get("id"), int):
            raise DataError(f"tokenizer.json: expected added_tokens with content and id, got {token!r:.80}; the file is damaged")
        content = token["content"]
        if vocab.setdefault(content, token["id"]) != token["id"]:
            raise DataError(
                f"tokenizer.json: {content!r} has the number {vocab[content]} in the vocabulary and {token['id']} among added_tokens"
            )
        if any(token.get(flag) for flag in ("single_word", "lstrip", "rstrip", "normalized")) or not token.get("special", True):
            raise DataError(
                f"tokenizer.json: the added token {content!r} is not a plain special one (single_word, lstrip, rstrip or normalized); "
                f"load it without readable=True, then the tokenizers library matches it"
            )
        special.append(content)
    return vocab, special


def merges(model: Mapping[str, Any]) -> list[tuple[str, str]]:
    """``model.merges``, as pairs or as "left right".

    Raises:
        DataError: something else.
    """
    found = model.get("merges")
    if not isinstance(found, list):
        raise DataError(f"tokenizer.json: expected a list in model.merges, got {type(found).__name__}; the file is damaged")
    return [_pair(entry, f"tokenizer.json: model.merges[{i}]") for i, entry in enumerate(found)]


def _pair(entry: Any, where: str) -> tuple[str, str]:
    parts = entry.split(" ") if isinstance(entry, str) else entry
    if not isinstance(parts, list) or len(parts) != 2 or not all(isinstance(p, str) and p for p in parts):
        raise DataError(f"{where}: expected two tokens with a space between them, got {entry!r:.80}; the file is damaged")
    return parts[0], parts[1]


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object.

    Raises:
        DataError: it cannot be read, or is none.
    """
    try:
        data = json.loads(_text(path))
    except ValueError as e:
        raise DataError(f"{path}: not JSON ({e}); copy or download it again") from e
    if not isinstance(data, dict):
        raise DataError(f"{path}: expected a JSON object, got {type(data).__name__}; is it another file under this name?")
    return data


def read_tokenizer(path: Path) -> dict[str, Any]:
    """``tokenizer.json``, down to the type of its model.

    Raises:
        DataError: it cannot be read, or is no ``tokenizer.json``.
    """
    data = read_json(path)
    model = data.get("model")
    if not isinstance(model, dict):
        raise DataError(
            f"{path}: expected a tokenizer.json of the tokenizers library, and it has no model; is it another file under this name?"
        )
    if "type" not in model:  # files of before 2020 leave it out
        kind = "BPE" if "merges" in model else "WordPiece" if "continuing_subword_prefix" in model else "WordLevel"
        data = data | {"model": {"type": kind} | model}
    return data


def read_merges(path: Path) -> list[tuple[str, str]]:
    """``vocab.bpe`` or ``merges.txt``: a line with the version, then two tokens a line.

    Raises:
        DataError: it cannot be read, or a line is none.
    """
    lines = _text(path).split("\n")
    first = 1 if lines[0].startswith("#version") else 0
    rest = [line.rstrip("\r") for line in lines[first:]]
    return [_pair(line, f"{path}:{i}") for i, line in enumerate(rest, first + 1) if line]


def read_vocab(path: Path) -> dict[str, int]:
    """``vocab.txt``: a token a line, numbered from 0.

    Raises:
        DataError: it cannot be read, is empty, or has a token twice.
    """
    lines = _text(path).removesuffix("\n").split("\n")
    vocab: dict[str, int] = {}
    for i, line in enumerate(lines):
        token = line.rstrip("\r")
        if not token:
            raise DataError(f"{path}:{i + 1}: an empty line, and each line is a token; the file is empty or damaged")
        if vocab.setdefault(token, i) != i:
            raise DataError(f"{path}:{i + 1}: {token!r} stands in line {vocab[token] + 1} already; each token has one number")
    return vocab


def read_config(folder: Path) -> tuple[dict[str, str], dict[str, Any]]:
    """Roles and all keys of ``tokenizer_config.json``, with ``special_tokens_map.json`` of older folders; both may be missing.

    Raises:
        DataError: one is there and cannot be read, or a role is no token.
    """
    merged: dict[str, Any] = {}
    for name in ("special_tokens_map.json", "tokenizer_config.json"):
        if (folder / name).exists():
            merged |= read_json(folder / name)
    roles = {}
    for role in ROLES:
        token = merged.get(f"{role}_token")
        token = token.get("content") if isinstance(token, dict) else token
        if token is not None:
            if not isinstance(token, str):
                raise DataError(f"{folder / 'tokenizer_config.json'}: expected a token as {role}_token, got {token!r:.80}")
            roles[role] = token
    return roles, merged


def _text(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8")
    except OSError as e:
        raise DataError(f"{path}: cannot be read ({e.strerror}); a folder with a tokenizer has {FILES}") from e
    except UnicodeDecodeError as e:
        raise DataError(f"{path}: not UTF-8 (byte {e.start}); copy or download it again") from e

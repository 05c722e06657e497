"""Tokenizers: token for token as the library's, text back from tokens, and one interface over all of them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import example, given, settings
from tokenizers import BertWordPieceTokenizer, ByteLevelBPETokenizer
from tokenizers import Tokenizer as Theirs

from groundup.data.tokenizers import ByteLevelBPE, Characters, Library, Tokenizer, WordPiece, train
from groundup.data.tokenizers import unicode as tables
from groundup.data.tokenizers.bpe import bytes_of, merge, merge_one_by_one, pattern
from groundup.data.tokenizers.pairs import algorithm_1, merged
from groundup.proof import tokenizers as proof
from groundup.proof.unicode import CHARACTERS

DOCS = proof.documentation()[:12]
BPE = ByteLevelBPE.train(DOCS, 700)
PIECES = WordPiece.train(DOCS, 700)
CASED = WordPiece(PIECES.ids, lower_case=False)
LETTERS = Characters.train(DOCS, roles={"unk": "\ufffd", "eos": "<end>"})
ALL: list[Tokenizer] = [BPE, PIECES, CASED, LETTERS]
NAMES = ["bpe", "wordpiece", "cased", "characters"]
REFERENCES = [
    ByteLevelBPETokenizer(BPE.ids, BPE.merges),
    BertWordPieceTokenizer(PIECES.ids),
    BertWordPieceTokenizer(PIECES.ids, lowercase=False),
]
REFERENCES[0].add_special_tokens(["<|endoftext|>"])

# Every part of Unicode, and often what changes its neighbours: marks, joiners, other directions, controls, special tokens.
_PARTS = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=4),
    st.text(st.characters(categories=["Mn", "Mc", "Me", "Cf", "Cc", "Zs", "Zl"]), max_size=3),
    st.text(st.characters(min_codepoint=0x590, max_codepoint=0x8FF, exclude_categories=["Cn"]), max_size=4),
    st.sampled_from(
        [
            "<|endoftext|>",
            "[MASK]",
            "[SEP",
            "👩‍👩‍👧",
            "🇩🇪",
            "é",
            "e\u0323\u0301",
            "ẛ̣",
            "İ",
            "ΑΣ",
            "中文",
            "가",
            "가",
            "  \n\t ",
            "\x1c",
            "'s",
            "don't",
        ]
    ),
    st.text("ab12 '\n", max_size=6),
)
TEXTS = st.lists(_PARTS, max_size=8).map("".join)


@pytest.mark.parametrize("which", range(3), ids=NAMES[:3])
@given(TEXTS)
@example("")
@example("a" * 100)
@example("a" * 101)
@example("x" * 3000)
@example(" \u030d\U0001d165")
@settings(max_examples=300, deadline=None)
def test_tokens_and_offsets_are_the_librarys(which: int, text: str) -> None:
    ours, theirs = ALL[which].encoding(text), REFERENCES[which].encode(text)
    assert ours.ids == theirs.ids == ALL[which].encode(text)
    assert ours.offsets == theirs.offsets
    assert ours.types == theirs.type_ids


@given(TEXTS)
@settings(max_examples=200, deadline=None)
def test_bytes_lose_nothing(text: str) -> None:
    assert BPE.decode(BPE.encode(text), skip_special=False) == text
    assert BPE.decode(BPE.encode(text, parse_special=False)) == text


@pytest.mark.parametrize("ours", ALL, ids=NAMES)
@given(st.data())
@settings(max_examples=100, deadline=None)
def test_readable_and_library_are_one(ours: Tokenizer, data: st.DataObject) -> None:
    library = _LIBRARIES[id(ours)]
    text, pair = data.draw(TEXTS), data.draw(st.none() | TEXTS)
    for parse in (True, False):
        assert ours.encode(text, parse_special=parse) == library.encode(text, parse_special=parse)
        assert ours.encode(text, add_special=False) == library.encode(text, add_special=False)
        assert ours.encoding(text, pair, parse_special=parse) == library.encoding(text, pair, parse_special=parse)
    ids = data.draw(st.lists(st.integers(0, ours.vocab_size - 1), max_size=20))
    for skip in (True, False):
        whole = ours.decode(ids, skip_special=skip)
        assert library.decode(ids, skip_special=skip) == whole
        for tokenizer in (ours, library):
            stream = tokenizer.stream(skip_special=skip)
            assert "".join(map(stream.push, ids)) + stream.finish() == whole


_LIBRARIES = {id(t): Library(t.to_spec(), {role: t.tokens[i] for role, i in t.special.items()}) for t in ALL}


@pytest.mark.parametrize("tokenizer", [BPE, _LIBRARIES[id(BPE)]], ids=["readable", "library"])
def test_a_stream_holds_back_half_characters(tokenizer: Tokenizer) -> None:
    stream = tokenizer.stream()
    # the bytes of é and of an emoji, none of which are merged here, and a byte that never becomes a character
    ids = [tokenizer.ids[c] for c in "aÃ©ðŁĺĢÃb"]
    assert [stream.push(i) for i in ids] == ["a", "", "é", "", "", "", "😀", "", "\ufffdb"]
    assert stream.finish() == ""
    stream.push(tokenizer.ids["Ã"])
    assert stream.finish() == "\ufffd"


def test_a_stranger_cannot_end_the_document() -> None:
    text = "a<|endoftext|>b"
    assert BPE.special["eos"] in BPE.encode(text)
    assert not set(BPE.special_tokens.values()) & set(BPE.encode(text, parse_special=False))
    assert PIECES.encode("[SEP]", add_special=False) == [PIECES.special["sep"]]
    assert PIECES.special["sep"] not in PIECES.encode("[SEP]", add_special=False, parse_special=False)


def test_the_longer_of_two_special_tokens_is_read() -> None:
    tokenizer = ByteLevelBPE.train(["x"], 259, roles={"eos": "<a>"}, extra=["<a>b"])
    assert tokenizer.encode("<a>b<a>") == [1, 0] == Library(tokenizer.to_spec()).encode("<a>b<a>")


@pytest.mark.parametrize("kind", ["bpe", "wordpiece"])
@given(st.data())
@settings(max_examples=40, deadline=None)
def test_learning_is_the_librarys(kind: Any, data: st.DataObject) -> None:
    letters = data.draw(st.sampled_from(["ab", "abc ", "aB é中.\n", "abcdefgh "]))
    texts = data.draw(st.lists(st.text(letters, min_size=1, max_size=60), min_size=1, max_size=4))
    size, least = 257 + data.draw(st.integers(24, 90)), data.draw(st.integers(0, 3))
    ours, theirs = train(kind, texts, size, least, readable=True), train(kind, texts, size, least)
    assert ours.tokens == theirs.tokens
    assert ours.to_spec() == theirs.to_spec()


def test_learning_follows_the_page() -> None:
    """The example of Sennrich et al. 2016, figure 1."""
    words = {tuple("low·"): 5, tuple("lower·"): 2, tuple("newest·"): 6, tuple("widest·"): 3}
    first = algorithm_1(words, 4)
    assert {("e", "s"), ("es", "t"), ("est", "·"), ("l", "o")} == set(first)
    assert merged(tuple("abab"), ("a", "b")) == ("ab", "ab")
    assert proof.merges([0, 1]).passed


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_any_list_of_merges_is_applied_as_the_library_does(data: st.DataObject) -> None:
    """Lists that nobody learned, in which a token can be made in two ways."""
    draw = data.draw(st.randoms(use_true_random=False))
    tokens, pairs = list("abc"), []
    for _ in range(draw.randint(2, 15)):
        pair = (draw.choice(tokens), draw.choice(tokens))
        if pair not in pairs and len("".join(pair)) < 9:
            pairs.append(pair)
            tokens += ["".join(pair)] if "".join(pair) not in tokens else []
    vocab = {c: i for i, c in enumerate([*sorted(BPE.tokens[1:257]), *(t for t in tokens if len(t) > 1)])}
    ours = ByteLevelBPE(vocab, pairs)
    library = Library(ours.to_spec())
    for _ in range(10):
        word = "".join(draw.choices("abc", k=draw.randint(1, 25)))
        assert merge(word, ours.ranks) == merge_one_by_one(word, ours.ranks)
        assert ours.encode(word) == library.encode(word)


@pytest.mark.parametrize(
    "text", [*DOCS[:3], "ΑΣ Σ ẞ İ ǅ Ａ", "e\u0323\u0301\u0345 \u302e\u0300", "a\u302e\U0001d165", "\x0b\x0c\x85\xad\ufffd\0"]
)
@pytest.mark.parametrize("how", [{}, {"lower_case": False}, {"accents": False}, {"lower_case": False, "accents": True}, {"chinese": False}])
def test_one_table_normalizes_as_the_steps_do(text: str, how: dict[str, bool]) -> None:
    tokenizer = WordPiece(PIECES.ids, **how)  # type: ignore[arg-type]
    theirs = Theirs.from_str(__import__("json").dumps(tokenizer.to_spec())).normalizer
    assert tokenizer.normalize(text) == tokenizer.normalize_step_by_step(text) == theirs.normalize_str(text)


def test_the_same_characters_whatever_the_python() -> None:
    """The tables know Unicode 16; a Python of an older or newer Unicode changes nothing."""
    assert "\u1c89" in tables.members("letter"), "new in Unicode 16"
    assert "\u0cdc" not in tables.members("letter"), "new in Unicode 17"
    assert tables.lower("\u1c89") == "\u1c8a"
    assert "\u2e43" not in tables.members("punctuation"), "new in Unicode 9"


def test_characters_have_the_class_that_the_library_gives_them(seed: int) -> None:
    """Those of most scripts, and of the rest one in a hundred; the proof, and the slow test with it, asks for all."""
    found = proof.characters([*CHARACTERS[:0x3100], *CHARACTERS[0x3100 + seed :: 100]])
    assert found.passed, str(found)
    assert len(CHARACTERS) == 1_112_064


def test_words_are_those_of_the_original_pattern() -> None:
    """GPT-2's own pattern, by the library that its authors used."""
    import regex

    theirs = regex.compile(r"""'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+""")
    for text in (*DOCS, "it's we'll I'd'S  x\n\n y\t\tz ½²٣ ΑΣ中文 !?"):
        assert pattern().findall(text) == theirs.findall(text)


def test_bytes_of_a_special_token_are_its_own() -> None:
    assert bytes_of("Ġa") == b" a"
    assert bytes_of("<｜end▁of▁text｜>") == "<｜end▁of▁text｜>".encode()


@pytest.mark.parametrize("kind", ["bpe", "wordpiece", "characters"])
def test_training_takes_an_iterator(kind: Any) -> None:
    size = None if kind == "characters" else 400
    for readable in (True, False):
        assert train(kind, iter(DOCS), size, readable=readable).tokens == train(kind, DOCS, size, readable=readable).tokens


def test_training_by_the_library_gives_the_same_in_every_process() -> None:
    code = "from pydoc_data.topics import topics; from groundup.data.tokenizers import train; "
    code += "print(train('wordpiece', list(topics.values())[:4], 400).tokens)"
    runs = {subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout for _ in range(2)}
    assert len(runs) == 1


def test_nothing_heavy_is_imported() -> None:
    code = "import sys, groundup.data.tokenizers as t; t.train('characters', ['ab'], readable=True).encode('a'); "
    code += "print([m for m in ('torch', 'transformers', 'pandas', 'sklearn', 'tokenizers', 'pyarrow', 'duckdb') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"


def test_proofs_can_fail() -> None:
    """A vocabulary whose merges are in another order is not equal, and the proof says so."""
    other = ByteLevelBPE(BPE.ids, BPE.merges[::-1])
    assert not proof.encoding("x", other, REFERENCES[0], DOCS[:1], "docs").passed
    assert proof.encoding("x", BPE, REFERENCES[0], DOCS[:1], "docs").passed


@pytest.mark.slow
@pytest.mark.skipif(not (Path(os.environ.get("GROUNDUP_DATA", "")) / "wikitext-2").exists(), reason="GROUNDUP_DATA has no wikitext-2")
def test_all_of_wikitext(seed: int) -> None:
    proofs = proof.prove([seed], splits=("train", "valid", "test"))
    print(*(f"{p} ({p.samples:,})" for p in proofs), sep="\n")
    assert all(p.passed for p in proofs), "\n".join(str(p) for p in proofs if not p.passed)
    assert sum(p.samples for p in proofs if "WikiText-2" in p.claim) > 8_000_000

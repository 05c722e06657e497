"""Our readable tokenizers beside the ``tokenizers`` library: token for token, offset for offset, merge for merge.

The texts are Python's own documentation, invented ones from all of Unicode (a seed draws them), and WikiText-2 where
``GROUNDUP_DATA`` has it, with GPT-2's and BERT's published vocabularies.
"""

from __future__ import annotations

import gzip
import json
import os
import random
from collections.abc import Iterable, Iterator, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import BertWordPieceTokenizer, ByteLevelBPETokenizer

from groundup.bundle import Proof
from groundup.data.tokenizers import ByteLevelBPE, Characters, Library, Tokenizer, WordPiece, load, train
from groundup.data.tokenizers import unicode as tables
from groundup.data.tokenizers.base import by_number
from groundup.data.tokenizers.bpe import merge, merge_one_by_one
from groundup.data.tokenizers.pairs import algorithm_1, learn
from groundup.data.tokenizers.wordpiece import ROLES, count, join
from groundup.proof import unicode

REFERENCE = f"tokenizers {tokenizers.__version__}"
SPLITS = ("test",)
"""Parts of WikiText-2 that :func:`prove` compares; the slow test compares train and valid too."""


def prove(seeds: Sequence[int], splits: Sequence[str] = SPLITS) -> list[Proof]:
    """Encoding, decoding, streaming, training and the classes of characters; counts of what differs, all of them 0.

    Args:
        seeds: each draws other texts and other token sequences.
        splits: of WikiText-2, where it is.
    """
    docs = documentation()
    proofs = [characters(), merges(seeds), *training(docs)]
    wiki = {f"WikiText-2 {split}": texts for split in splits if (texts := wikitext(split))}
    for name, ours, theirs in pairs(docs):
        corpora = {"Python's documentation": docs, "invented Unicode texts": [t for s in seeds for t in invented(s)]} | wiki
        for corpus, texts in corpora.items():
            proofs.append(encoding(name, ours, theirs, texts, corpus))
        proofs += decoding(name, ours, theirs, seeds)
    proofs.append(fast(docs, seeds))
    return proofs


def pairs(docs: Sequence[str]) -> Iterator[tuple[str, Tokenizer, Any]]:
    """Ours and the library's with one vocabulary: learned from the documentation, and the published ones where they are."""
    data = Path(os.environ.get("GROUNDUP_DATA", ""))
    gpt2, bert = data / "gpt2_bpe", data / "bert_vocab"
    bpe = load(gpt2, readable=True) if (gpt2 / "vocab.bpe").exists() else train("bpe", docs, 2_000, readable=True)
    assert isinstance(bpe, ByteLevelBPE)
    theirs = ByteLevelBPETokenizer(bpe.ids, bpe.merges)
    theirs.add_special_tokens(list(bpe.special_tokens))
    yield "gpt2" if (gpt2 / "vocab.bpe").exists() else "byte-level BPE", bpe, theirs
    pieces = load(bert, readable=True) if (bert / "vocab.txt").exists() else train("wordpiece", docs, 2_000, readable=True)
    yield "bert" if (bert / "vocab.txt").exists() else "WordPiece", pieces, BertWordPieceTokenizer(pieces.ids)
    cased = WordPiece(pieces.ids, lower_case=False)
    yield "WordPiece, cased", cased, BertWordPieceTokenizer(pieces.ids, lowercase=False)


def documentation() -> list[str]:
    """Python's reference on its keywords and topics, as ``help()`` shows it."""
    from pydoc_data.topics import topics

    return list(topics.values())


def wikitext(split: str) -> list[str]:
    """WikiText-2, line by line; empty where ``GROUNDUP_DATA`` does not have it."""
    path = Path(os.environ.get("GROUNDUP_DATA", "")) / "wikitext-2" / f"{split}.txt.gz"
    if not path.exists():
        return []
    return gzip.decompress(path.read_bytes()).decode("utf-8").splitlines(keepends=True)


_ODD = (
    "\0\t\n\v\r\x1c\x85\xa0\xad"  # controls and spaces
    "\u0130\u0301\u0323\u0345\u03a3\u1e69\u1100\u1161\uac01\u302e\U0001d165"  # letters with marks, and what moves in decomposition
    "\u05d0\u064b\u085e\u200f\u202e"  # right to left
    "\u200b\u200d\u2028\ufe0f\ufeff\ufffd\U0001f468\U0001f600\U0001f1e9\u3042\u4e2d\U0002b820"  # joiners, emoji, Chinese
)


def invented(seed: int, n: int = 2_000) -> Iterator[str]:
    """Short texts in which odd characters meet: controls, marks, joiners, other directions, emoji, anything; and a long word."""
    draw = random.Random(seed)
    yield from ("", " ", "\n", "<|endoftext|>", "[MASK]x[SEP]", "a" * 101, "x" * 5_000, "é" * 101)
    for _ in range(n):
        text = ""
        for _ in range(draw.choice((1, 2, 5, 20))):
            kind = draw.random()
            if kind < 0.4:
                text += draw.choice("ab é'st 1  \nZ.")
            elif kind < 0.7:
                text += draw.choice(_ODD)
            else:
                text += draw.choice(unicode.CHARACTERS[: 0x600 if kind < 0.85 else 0x20000])
        yield text


def encoding(name: str, ours: Tokenizer, theirs: Any, texts: Iterable[str], corpus: str) -> Proof:
    """Numbers and offsets of all tokens."""
    samples = wrong = 0
    for text in texts:
        expected, found = theirs.encode(text), ours.encoding(text)
        assert ours.encode(text) == found.ids  # two ways through our own code
        a, b = zip(found.ids, found.offsets, strict=True), zip(expected.ids, expected.offsets, strict=True)
        wrong += sum(x != y for x, y in zip_longest(a, b))
        samples += len(expected.ids)
    return _proof(f"{name}: tokens and offsets of {corpus} are equal", "tokens that differ", wrong, samples)


def decoding(name: str, ours: Tokenizer, theirs: Any, seeds: Sequence[int]) -> list[Proof]:
    """Texts of random token sequences, most of them no UTF-8, whole and streamed."""
    samples = wrong = streamed = 0
    for seed in seeds:
        draw = random.Random(seed)
        for _ in range(1_000):
            ids = [draw.randrange(ours.vocab_size) for _ in range(draw.choice((0, 1, 3, 20)))]
            text = ours.decode(ids)
            wrong += text != theirs.decode(ids)
            stream = ours.stream()
            streamed += "".join(map(stream.push, ids)) + stream.finish() != text
            samples += len(ids)
    return [
        _proof(f"{name}: texts of random tokens are equal", "texts that differ", wrong, samples),
        _proof(f"{name}: streamed text is the whole text", "texts that differ", streamed, samples, "itself, decoded at once"),
    ]


def training(docs: Sequence[str]) -> list[Proof]:
    """Vocabularies and merges learned from the documentation, with and without a least frequency."""
    proofs = []
    for min_frequency in (0, 5):
        bpe = ByteLevelBPE.train(docs, 1_500, min_frequency)
        theirs = ByteLevelBPETokenizer()
        theirs.train_from_iterator(iter(docs), 1_500, min_frequency, special_tokens=list(bpe.special_tokens), show_progress=False)
        reference = ByteLevelBPE.from_spec(_json(theirs), {}, {})
        wrong = sum(a != b for a, b in zip_longest(bpe.merges, reference.merges)) + (bpe.tokens != reference.tokens)
        least = f"min_frequency {min_frequency}"
        proofs.append(
            _proof(f"byte-level BPE: learned merges and numbers are equal ({least})", "merges that differ", wrong, len(bpe.merges))
        )
        pieces = BertWordPieceTokenizer()
        special: list[Any] = list(ROLES.values())
        pieces.train_from_iterator(iter(docs), 1_500, min_frequency, limit_alphabet=10_000, special_tokens=special, show_progress=False)
        expected = by_number(pieces.get_vocab())
        words = count(docs, WordPiece({t: i for i, t in enumerate(special)}).normalize)
        n = len(special) + len({s[-1] for word in words for s in word} | {s for word in words for s in word[1:]})
        learn(words, found := expected[:n], 1_500, min_frequency, join)
        wrong = sum(a != b for a, b in zip_longest(found, expected))
        claim = f"WordPiece: learned pieces are equal ({least}), given the library's order of characters, which is another in each run"
        proofs.append(_proof(claim, "pieces that differ", wrong, len(expected)))
    return proofs


def merges(seeds: Sequence[int]) -> Proof:
    """The forms that are used beside the page's: learning merges, and applying them."""
    wrong = samples = 0
    for seed in seeds:
        draw = random.Random(seed)
        for _ in range(30):
            letters = draw.choice(("ab", "abc", "abcdefgh"))
            words = {tuple(draw.choices(letters, k=draw.choice((1, 2, 5, 30)))): draw.randint(1, 9) for _ in range(20)}
            # the page leaves ties open; symbols that sort as their numbers do make both forms take the same one
            found = learn(words, tokens := sorted(letters), len(letters) + 12, 0, str.__add__)
            wrong += not _same_merges(words, found, tokens)
            ranks = {pair: rank for rank, pair in enumerate(found)}
            for word in map("".join, words):
                wrong += merge(word, ranks) != merge_one_by_one(word, ranks)
                samples += len(word)
    return _proof(
        "BPE: the forms that are used equal the page's",
        "words and merge lists that differ",
        wrong,
        samples,
        "Sennrich et al. 2016, algorithm 1",
    )


def _same_merges(words: dict[tuple[str, ...], int], found: list[tuple[str, str]], tokens: list[str]) -> bool:
    """Whether the page's algorithm, with ties broken by the numbers of the tokens, learns the same."""
    number = {token: i for i, token in enumerate(tokens)}
    return algorithm_1(words, len(found), key=number.__getitem__) == found


def fast(docs: Sequence[str], seeds: Sequence[int]) -> Proof:
    """Each readable tokenizer, written to ``tokenizer.json`` and read by the library, through the interface that pipelines use."""
    wrong = samples = 0
    known = Characters.train(docs, roles={"unk": "\ufffd"})
    for ours in (ByteLevelBPE.train(docs, 1_000), WordPiece.train(docs, 1_000), known):
        library = Library(ours.to_spec(), {role: ours.tokens[i] for role, i in ours.special.items()})
        for text in (*docs[:20], *(t for s in seeds for t in invented(s, 300))):
            a, b = ours.encoding(text, "x y"), library.encoding(text, "x y")
            stream = library.stream()
            same = a == b and ours.encode(text, parse_special=False) == library.encode(text, parse_special=False)
            same = same and "".join(map(stream.push, a.ids)) + stream.finish() == ours.decode(a.ids) == library.decode(a.ids)
            wrong += not same
            samples += len(a.ids)
    return _proof("tokenizers: readable and fast are one (tokens, types, offsets, texts, streams)", "texts that differ", wrong, samples)


def characters(which: Sequence[str] = unicode.CHARACTERS) -> Proof:
    """The tables' classes and lower-case forms."""
    wrong = sum(len(set(found) ^ tables.members(name).intersection(which)) for name, found in unicode.measure(which).items())
    lower = unicode.lower()
    wrong += sum(lower(c) != tables.lower(c) for c in which)
    return _proof("tokenizers: characters of Unicode have the same classes and lower case", "characters that differ", wrong, len(which))


def _json(tokenizer: Any) -> dict[str, Any]:
    return dict(json.loads(tokenizer._tokenizer.to_str()))


def _proof(claim: str, quantity: str, wrong: int, samples: int, reference: str = REFERENCE) -> Proof:
    return Proof(link=1, claim=claim, reference=reference, quantity=quantity, measured=float(wrong), tolerance=0.0, samples=samples)

"""The readable tokenizers beside the ``tokenizers`` library: learning a vocabulary, and encoding.

    python benchmarks/transformers/bench_tokenizers.py [--pairs 5] [--vocab-size 5000] [--characters 1000000]

The text is that of WikiText-2 (valid) where ``GROUNDUP_DATA`` has it, else Python's documentation.  Ours and theirs take turns,
each in one thread, the order alternates, and the median ratio (ours ÷ library, of seconds) is told with its spread.  Readers
that have seen a word keep its tokens, both ours and the library's: "first" is a new tokenizer's first text, "again" the same
once more.  The readable ones may lose: pipelines use the library.
"""

from __future__ import annotations

import argparse
import os

os.environ |= {"TOKENIZERS_PARALLELISM": "false", "RAYON_NUM_THREADS": "1"}  # read when the library is imported

import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any, Literal

import tokenizers

from groundup.bundle import cpu
from groundup.data.tokenizers import ByteLevelBPE, Library, WordPiece, train
from groundup.proof.tokenizers import documentation, wikitext


def texts(characters: int) -> list[str]:
    """Lines of about so many characters in all."""
    found, n = [], 0
    for text in wikitext("valid") or documentation():
        found.append(text)
        n += len(text)
        if n >= characters:
            break
    return found


def timed(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def compare(name: str, pairs: int, make: Callable[[], tuple[Callable[[], object], Callable[[], object]]], amount: float, unit: str) -> None:
    """Run both in turns and print one line."""
    ratios, ours = [], []
    for pair in range(pairs):
        work = make()
        order = (0, 1) if pair % 2 == 0 else (1, 0)
        seconds = {i: timed(work[i]) for i in order}
        ratios.append(seconds[0] / seconds[1])
        ours.append(seconds[0])
    middle = statistics.median(ratios)
    rate = amount / statistics.median(ours)
    print(f"{name:28} ours ÷ library {middle:6.2f} ({min(ratios):.2f} to {max(ratios):.2f})   ours {rate:12,.0f} {unit}/s")


def learning(kind: Literal["bpe", "wordpiece"], corpus: Sequence[str], vocab_size: int) -> Any:
    return lambda: (lambda: train(kind, corpus, vocab_size, readable=True), lambda: train(kind, corpus, vocab_size))


def encoding(ours: ByteLevelBPE | WordPiece, corpus: Sequence[str], warm: bool) -> Any:
    def make() -> tuple[Callable[[], object], Callable[[], object]]:
        roles = {role: ours.tokens[i] for role, i in ours.special.items()}
        mine, library = type(ours).from_spec(ours.to_spec(), roles, {}), Library(ours.to_spec(), roles)
        if warm:
            mine.encode_batch(corpus), library.encode_batch(corpus)
        return lambda: mine.encode_batch(corpus), lambda: library.encode_batch(corpus)

    return make


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--pairs", type=int, default=5)
    options.add_argument("--vocab-size", type=int, default=5_000)
    options.add_argument("--characters", type=int, default=1_000_000)
    given = options.parse_args()
    corpus = texts(given.characters)
    n = sum(map(len, corpus))
    print(f"{cpu.description()}, tokenizers {tokenizers.__version__}, 1 thread, {time.strftime('%Y-%m-%d')}")
    print(f"{len(corpus):,} texts, {n:,} characters, vocabulary of {given.vocab_size:,}")
    kinds: tuple[Literal["bpe", "wordpiece"], ...] = ("bpe", "wordpiece")
    for kind in kinds:
        compare(f"{kind}: learn", given.pairs, learning(kind, corpus, given.vocab_size), n, "characters")
        ours = train(kind, corpus, given.vocab_size, readable=True)
        assert isinstance(ours, ByteLevelBPE | WordPiece)
        found = sum(map(len, ours.encode_batch(corpus)))
        compare(f"{kind}: encode, first", given.pairs, encoding(ours, corpus, warm=False), found, "tokens")
        compare(f"{kind}: encode, again", given.pairs, encoding(ours, corpus, warm=True), found, "tokens")


if __name__ == "__main__":
    main()

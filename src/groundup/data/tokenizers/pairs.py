"""Learning merges: the most frequent pair of neighbours becomes one token, again and again.

Paper: Sennrich, Haddow & Birch 2016, "Neural Machine Translation of Rare Words with Subword Units", arXiv:1508.07909,
algorithm 1.

What is unusual: :func:`learn` does not count again after each merge, as the page does.  It knows the words that hold a
pair, changes the counts of the neighbours in those words alone, and finds the best pair in a heap whose entries may be
stale: an entry whose count has changed goes back with the new one.  Of pairs equally frequent, the one whose left token
has the smaller number is taken, then the one whose right token has.  That is also the order of the ``tokenizers`` library,
whose merges are equal.
"""

from __future__ import annotations

import heapq
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any

Pair = tuple[int, int]
Join = Callable[[str, str], str]


def algorithm_1(words: Mapping[tuple[str, ...], int], n_merges: int, key: Callable[[str], Any] = str) -> list[tuple[str, str]]:
    """Algorithm 1 of the page: count all pairs, merge the most frequent one everywhere, repeat.

    Args:
        words: symbols of each word -> how often it stands in the text.
        n_merges: how many; fewer where nothing is left to merge.
        key: of pairs equally frequent, which the page leaves open, the one with the smallest keys is merged.

    Returns:
        The merges, in order.

    >>> algorithm_1({("l", "o", "w", "·"): 5, ("l", "o", "w", "e", "s", "t", "·"): 2}, 3)
    [('l', 'o'), ('lo', 'w'), ('low', '·')]
    """
    merges = []
    for _ in range(n_merges):
        pairs: Counter[tuple[str, str]] = Counter()
        for symbols, n in words.items():
            for pair in pairwise(symbols):
                pairs[pair] += n
        if not pairs:
            break
        best = min(pairs, key=lambda pair: (-pairs[pair], key(pair[0]), key(pair[1])))
        words = {merged(symbols, best): n for symbols, n in words.items()}
        merges.append(best)
    return merges


def merged(symbols: Sequence[str], pair: tuple[str, str]) -> tuple[str, ...]:
    """The symbols with every occurrence of the pair, from the left, made one."""
    out: list[str] = []
    i = 0
    while i < len(symbols):
        here = tuple(symbols[i : i + 2]) == pair
        out.append("".join(symbols[i : i + 2]) if here else symbols[i])
        i += 2 if here else 1
    return tuple(out)


def learn(
    words: Mapping[tuple[str, ...], int], tokens: list[str], vocab_size: int, min_frequency: int, join: Join
) -> list[tuple[str, str]]:
    """:func:`algorithm_1` at the cost of what changes.

    Args:
        words: symbols of each word -> how often it stands in the text.
        tokens: the vocabulary so far, all symbols among it; new tokens are appended.
        vocab_size: where to stop.
        min_frequency: a pair less frequent than this is not merged.
        join: the token that two tokens make.

    Returns:
        The merges, in order.
    """
    ids = {token: i for i, token in enumerate(tokens)}
    texts = [[ids[s] for s in symbols] for symbols in words]
    n = list(words.values())
    counts: dict[Pair, int] = defaultdict(int)
    where: dict[Pair, set[int]] = defaultdict(set)
    for w, word in enumerate(texts):
        for pair in pairwise(word):
            counts[pair] += n[w]
            where[pair].add(w)
    heap = [(-counts[pair], pair, k, found) for k, (pair, found) in enumerate(where.items())]  # k: sets have no order
    heapq.heapify(heap)
    pushed = len(heap)
    merges: list[tuple[str, str]] = []
    while heap and len(tokens) < vocab_size:
        count, pair, k, found = heapq.heappop(heap)
        if -count != counts[pair]:
            heapq.heappush(heap, (-counts[pair], pair, k, found))
            continue
        if -count < max(1, min_frequency):
            break
        a, b = pair
        token = join(tokens[a], tokens[b])
        new = ids.setdefault(token, len(tokens))
        if new == len(tokens):
            tokens.append(token)
        merges.append((tokens[a], tokens[b]))
        where = defaultdict(set)
        for w in found:
            texts[w] = _merge(texts[w], a, b, new, w, n[w], counts, where)
        for pair, found in where.items():
            if counts[pair] > 0:
                heapq.heappush(heap, (-counts[pair], pair, pushed, found))
                pushed += 1
    return merges


def _merge(word: list[int], a: int, b: int, new: int, w: int, n: int, counts: dict[Pair, int], where: dict[Pair, set[int]]) -> list[int]:
    """One word with (a, b) merged; what that changes of its neighbours goes into ``counts`` and ``where``."""
    out: list[int] = []
    i, end = 0, len(word)
    while i < end:
        if word[i] == a and i + 1 < end and word[i + 1] == b:
            if out:
                counts[out[-1], a] -= n
                counts[out[-1], new] += n
                where[out[-1], new].add(w)
            if i + 2 < end:
                counts[b, word[i + 2]] -= n
                counts[new, word[i + 2]] += n
                where[new, word[i + 2]].add(w)
            out.append(new)
            i += 2
        else:
            out.append(word[i])
            i += 1
    return out

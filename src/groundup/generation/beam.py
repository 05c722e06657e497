"""Beam search: the likeliest of the continuations that stay among the K likeliest at every length.

Paper: Sutskever, Vinyals & Le 2014, arXiv:1409.3215, section 3.2; lengths are evened out as in Wu et al. 2016,
arXiv:1609.08144, section 7, with the plain power of the length that the Hugging Face libraries use.

    score(y) = Σ_t log P[y_t | y_<t] / |y|^α
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np

from groundup.generation.decoder import Decoder, Logits
from groundup.generation.sampling import Sampling, penalize


def beam_search(decoder: Decoder, prompt: Sequence[int], settings: Sampling, end: Collection[int] = ()) -> tuple[list[int], bool]:
    """The best continuation found with ``settings.beams`` beams; one beam is greedy.

    A beam that ends is set aside with its score; the search stops when no running beam at its present length beats the
    worst of K that are set aside, or the text is full.

    Returns:
        Tokens without the end token, and whether one came.
    """
    K, α = settings.beams, settings.length_penalty
    room = min(settings.max_tokens, decoder.context - len(prompt))
    logits = decoder.start([list(prompt)] * K, len(prompt) + room)
    beams: list[list[int]] = [[]]
    totals = np.zeros(1)
    done: list[tuple[float, list[int], bool]] = []
    for length in range(1, room + 1):
        log_p = np.stack([_log_softmax(penalize(logits[i], [*prompt, *beam], settings.repetition_penalty)) for i, beam in enumerate(beams)])
        scores = (totals[:, None] + log_p).ravel()
        n = min((1 + max(1, len(end))) * K, len(scores))
        top = np.argpartition(-scores, n - 1)[:n]
        top = top[np.argsort(-scores[top], kind="stable")]
        running: list[tuple[int, int, float]] = []
        for rank, at in enumerate(top):
            beam, token = divmod(int(at), decoder.vocab_size)
            if token in end:
                if rank < K:
                    done.append((float(scores[at]) / length**α, beams[beam], True))
            elif len(running) < K:
                running.append((beam, token, float(scores[at])))
        done = sorted(done, key=lambda each: -each[0])[:K]
        beams = [[*beams[beam], token] for beam, token, _ in running]
        totals = np.array([total for _, _, total in running])
        if length == room or not running or (len(done) == K and totals[0] / length**α <= done[-1][0]):
            break
        rows = [beam for beam, _, _ in running]
        decoder.select([*rows, *rows[:1] * (K - len(rows))])
        logits = decoder.step([*(token for _, token, _ in running), *[running[0][1]] * (K - len(running))])
    if len(done) < K:
        done += [(float(total) / len(beam) ** α, beam, False) for beam, total in zip(beams, totals, strict=True)]
    _, tokens, ended = max(done, key=lambda each: each[0])
    return tokens, ended


def _log_softmax(logits: Logits) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    z = logits.astype(np.float64)
    z -= z.max()
    log_p: np.ndarray[tuple[int], np.dtype[np.float64]] = z - np.log(np.exp(z).sum())
    return log_p

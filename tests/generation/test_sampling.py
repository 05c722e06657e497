"""Choosing a token: each rule beside the reference's, and frequencies that a wrong sampler would not have."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from groundup.generation import Sampling, choose, distribution

V = 53


def logits(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 2, V).astype(np.float32)


def _reference(z: np.ndarray, history: list[int], settings: Sampling) -> np.ndarray:
    transformers = pytest.importorskip("transformers", reason="the reference")
    from transformers.generation import logits_process as lp

    del transformers
    chain: list[Any] = []
    if settings.repetition_penalty != 1:
        chain.append(lp.RepetitionPenaltyLogitsProcessor(settings.repetition_penalty))
    if settings.temperature != 1:
        chain.append(lp.TemperatureLogitsWarper(settings.temperature))
    if settings.top_k:
        chain.append(lp.TopKLogitsWarper(settings.top_k))
    if settings.top_p < 1:
        chain.append(lp.TopPLogitsWarper(settings.top_p))
    if settings.min_p:
        chain.append(lp.MinPLogitsWarper(settings.min_p))
    scores, ids = torch.from_numpy(z.astype(np.float64))[None], torch.tensor([history])
    for each in chain:
        scores = each(ids, scores)
    return scores.softmax(-1)[0].numpy()


@given(
    seed=st.integers(0, 10_000),
    temperature=st.floats(0.1, 5),
    top_k=st.integers(0, V + 3),
    top_p=st.floats(0.05, 1),
    min_p=st.sampled_from([0.0, 0.01, 0.2, 0.9]),
    penalty=st.sampled_from([1.0, 0.7, 1.5]),
)
def test_distribution_equals_the_reference(seed: int, temperature: float, top_k: int, top_p: float, min_p: float, penalty: float) -> None:
    settings = Sampling(temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p, repetition_penalty=penalty)
    z, history = logits(seed), [1, 5, 5, 9]
    tokens, p = distribution(z, history, settings)
    expected = _reference(z, history, settings)
    got = np.zeros(V)
    got[tokens] = p
    if top_p < 1 and np.count_nonzero(got) != np.count_nonzero(expected):
        edge = np.abs(np.cumsum(np.sort(expected)[::-1])).searchsorted(1) if len(expected) else 0
        assert abs(np.count_nonzero(got) - np.count_nonzero(expected)) <= 1, f"more than a rounding at the edge of top_p ({edge})"
        return
    np.testing.assert_allclose(got, expected, atol=1e-6)


def test_draws_have_the_frequencies_of_the_distribution(seed: int) -> None:
    settings, rng = Sampling(temperature=0.8, top_k=7), np.random.default_rng(seed)
    tokens, p = distribution(logits(seed), [], settings)
    n = 4000
    drawn = np.array([choose(logits(seed), [], settings, rng) for _ in range(n)])
    counts = np.array([(drawn == t).sum() for t in tokens])
    assert counts.sum() == n, "nothing else is drawn"
    chi2 = ((counts - n * p) ** 2 / (n * p)).sum()
    assert chi2 < 30, "χ² with 6 degrees of freedom is above 30 once in 25,000"


def test_greedy_touches_no_chance() -> None:
    rng = np.random.default_rng(0)
    before = rng.bit_generator.state
    assert choose(logits(3), [], Sampling(temperature=0), rng) == logits(3).argmax()
    assert rng.bit_generator.state == before


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"temperature": -1}, "greater than or equal to 0"),
        ({"top_p": 0}, "greater than 0"),
        ({"top_p": 1.5}, "less than or equal to 1"),
        ({"min_p": -0.1}, "greater than or equal to 0"),
        ({"top_k": -1}, "greater than or equal to 0"),
        ({"repetition_penalty": 0}, "greater than 0"),
        ({"beams": 3}, "set temperature 0, or beams 1"),
        ({"beams": 0, "temperature": 0}, "greater than 0"),
        ({"stop": [""]}, "at least 1 character"),
        ({"max_tokens": 0}, "greater than 0"),
        ({"topk": 3}, "not permitted"),
        ({"temperature": float("nan")}, "less than or equal to 100"),
    ],
)
def test_impossible_settings(keys: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Sampling(**keys)

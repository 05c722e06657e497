"""The next token from its logits: greedy, temperature, top-k, top-p, min-p, repetition penalty.

Papers: Ackley, Hinton & Sejnowski 1985 (temperature); Fan et al. 2018, arXiv:1805.04833 (top-k); Holtzman et al. 2020,
arXiv:1904.09751 (top-p); Nguyen et al. 2024, arXiv:2407.01082 (min-p); Keskar et al. 2019, arXiv:1909.05858, section 4.1
(repetition penalty).

Applied in this order, which is that of the Hugging Face libraries: penalty, temperature, top-k, top-p, min-p.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from groundup.sections import Section


class Sampling(Section):
    """How text is written."""

    max_tokens: PositiveInt = 64
    """Tokens to write at most."""
    temperature: Annotated[float, Field(ge=0, le=100)] = 1.0
    """Logits are divided by it: below 1 likely tokens become likelier, 0 always takes the likeliest."""
    top_k: Annotated[int, Field(ge=0)] = 0
    """Only the k likeliest tokens are candidates; 0 for all."""
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Only the likeliest tokens that together have this probability are candidates."""
    min_p: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Only tokens with at least this share of the likeliest one's probability are candidates."""
    repetition_penalty: PositiveFloat = 1.0
    """Logits of tokens that are in the text already are divided by it if positive, multiplied if negative."""
    beams: PositiveInt = 1
    """Continuations that are followed side by side; the likeliest is the answer.  Needs temperature 0."""
    length_penalty: float = 1.0
    """A beam's log-probability is divided by its length to this power: above 0 favours longer texts."""
    stop: tuple[Annotated[str, Field(min_length=1)], ...] = ()
    """Strings that end the text; they are not part of it."""
    seed: Annotated[int, Field(ge=0)] | None = None
    """Where chance starts; the same seed writes the same text.  Each row of a batch draws from its own stream."""

    @model_validator(mode="before")
    @classmethod
    def _one_string_is_a_list(cls, data: Any) -> Any:
        if isinstance(data, dict) and isinstance(data.get("stop"), str):
            return {**data, "stop": (data["stop"],)}
        return data

    @model_validator(mode="after")
    def _possible(self) -> Sampling:
        if self.beams > 1 and self.temperature != 0:
            raise ValueError(f"{self.beams} beams look for the likeliest text and draw nothing; set temperature 0, or beams 1 to draw")
        return self

    @property
    def greedy(self) -> bool:
        """Whether nothing is left to chance."""
        return self.temperature == 0


def penalize(logits: NDArray[np.float32], history: Sequence[int], penalty: float) -> NDArray[np.float32]:
    """Section 4.1 of Keskar et al., with the sign taken care of: a negative logit is multiplied.

    Args:
        logits: (N_V,).
        history: tokens of prompt and text so far.
    """
    if penalty == 1.0 or len(history) == 0:
        return logits
    seen = np.unique(np.asarray(history))
    logits = logits.copy()
    logits[seen] = np.where(logits[seen] < 0, logits[seen] * penalty, logits[seen] / penalty)
    return logits


def distribution(logits: NDArray[np.float32], history: Sequence[int], settings: Sampling) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The candidates for the next token and their probabilities, likeliest first.

    Args:
        logits: (N_V,).
        history: tokens of prompt and text so far, for the repetition penalty.

    Returns:
        tokens (n,) and probabilities (n,) that sum to 1; one candidate for temperature 0.
    """
    logits = penalize(logits, history, settings.repetition_penalty)
    if settings.greedy:
        return np.array([logits.argmax()]), np.ones(1)
    k = min(settings.top_k, len(logits)) or len(logits)
    if k < len(logits):
        kth = np.partition(logits, -k)[-k]
        tokens = np.flatnonzero(logits >= kth)  # all that tie with the k-th, as the reference does
    else:
        tokens = np.arange(len(logits))
    z = logits[tokens].astype(np.float64) / settings.temperature
    p = np.exp(z - z.max())
    p /= p.sum()
    order = np.argsort(-p, kind="stable")
    tokens, p = tokens[order], p[order]
    keep = len(p)
    if settings.top_p < 1:
        keep = int(np.searchsorted(np.cumsum(p), settings.top_p)) + 1  # the one that crosses is kept
        tokens, p = tokens[:keep], p[:keep]
    if settings.min_p > 0:
        keep = int(np.count_nonzero(p >= settings.min_p * p[0]))
        tokens, p = tokens[:keep], p[:keep]
    return tokens, p / p.sum()


def choose(logits: NDArray[np.float32], history: Sequence[int], settings: Sampling, rng: np.random.Generator) -> int:
    """One token drawn from :func:`distribution`.

    Args:
        logits: (N_V,).
        history: tokens of prompt and text so far.
        rng: where chance comes from; untouched for temperature 0.
    """
    tokens, p = distribution(logits, history, settings)
    if len(tokens) == 1:
        return int(tokens[0])
    drawn = int(np.searchsorted(np.cumsum(p), rng.random(), side="right"))
    return int(tokens[min(drawn, len(p) - 1)])  # a sum of probabilities may end below 1 by rounding

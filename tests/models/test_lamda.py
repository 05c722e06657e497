"""LaMDA: equal to a T5 decoder, and answering with the best of what it finds safe."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from torch import Tensor

from groundup.errors import ModelError
from groundup.models.lamda import (
    PRESETS,
    Candidate,
    Example,
    LaMDA,
    Marks,
    dialogue_loss,
    rate,
    rating_example,
    respond,
    response_example,
)
from groundup.nn.position import RelativeBias
from groundup.proof import lamda as proof
from groundup.proof.pretrained import draw

transformers = pytest.importorskip("transformers", reason="the reference")

MARKS = Marks(sentinel=1, end=2, sensible=3, specific=4, interesting=5, unsafe=6, no=7, yes=8)
ATTRIBUTES: tuple[Literal["sensible", "specific", "interesting", "unsafe"], ...] = ("sensible", "specific", "interesting", "unsafe")


def small(**other: Any) -> LaMDA:
    sizes = {"vocab_size": 23, "n_layers": 2, "n_heads": 3, "d_model": 31, "d_head": 11, "d_ff": 37, "context": 17}
    return LaMDA(**(sizes | other))


def test_equals_t5s_decoder(seed: int) -> None:
    proofs = proof.prove((seed,))
    assert len(proofs) == 8 + 6
    assert all(p.passed for p in proofs), "\n".join(map(str, proofs))
    assert all(p.samples > 50 for p in proofs)


def test_a_mistake_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Distances counted from 1."""
    buckets = RelativeBias.buckets

    def off(self: RelativeBias, distance: Tensor) -> Tensor:
        return buckets(self, distance + 1)

    monkeypatch.setattr(RelativeBias, "buckets", off)
    assert not any(p.passed for p in proof.prove((0,)) if "T5" in p.claim)


def test_presets_have_the_published_size() -> None:
    for name, preset in PRESETS.items():
        with torch.device("meta"):
            network = LaMDA(**preset.config)
        n = sum(p.numel() for p in network.parameters())
        without_embedding = n - network.tokens.weight.numel()
        assert abs(without_embedding / preset.published - 1) < 0.005, f"{name}: {without_embedding:,} beside {preset.published:,.0f}"
        assert n - without_embedding == 32_000 * 8192


def test_saved_and_loaded_is_the_same(tmp_path: Path) -> None:
    network, tokens = small(), torch.arange(13)[None]
    draw(network, 0)
    network.save_pretrained(tmp_path)
    again = LaMDA.from_pretrained(tmp_path)
    assert again.to_config() == network.to_config()
    assert torch.equal(again(tokens), network(tokens))


@pytest.mark.parametrize("config", [{"n_buckets": 1}, {"max_distance": 16}])
def test_what_cannot_be_built(config: dict[str, int]) -> None:
    with pytest.raises(ModelError, match="n_buckets of 2 at least and max_distance above half"):
        small(**config)


def test_too_many_tokens() -> None:
    with pytest.raises(ModelError, match="18 tokens, and the context is 17"):
        small()(torch.zeros(1, 18, dtype=torch.long))


def test_examples_are_the_papers() -> None:
    assert response_example([11, 12], [13], MARKS) == Example([11, 12, 1, 13, 2], [False, False, False, True, True])
    assert rating_example([11, 12], [13], "unsafe", True, MARKS) == Example([11, 12, 1, 13, 6, 8], [False] * 5 + [True])
    assert rating_example([11], [13, 14], "interesting", False, MARKS) == Example([11, 1, 13, 14, 5, 7], [False] * 5 + [True])


def test_loss_is_the_mean_over_learned_tokens() -> None:
    network = draw(small(), 0).double()
    examples = [response_example([11, 12], [13, 14, 15], MARKS), rating_example([9], [13], "sensible", True, MARKS)]
    losses = []
    for tokens, learned in examples:
        log_p = network(torch.tensor([tokens]))[0].log_softmax(-1)
        losses += [-log_p[t - 1, token] for t, token in enumerate(tokens) if learned[t]]
    assert len(losses) == 4 + 1
    torch.testing.assert_close(dialogue_loss(network, examples), torch.stack(losses).mean(), rtol=1e-12, atol=0)


def test_ratings_are_the_probabilities_of_the_next_token() -> None:
    network = draw(small(), 0).double()
    context, responses = [11, 12, 9], [[13], [], [14, 15, 16, 17, 18]]
    for response, candidate in zip(responses, rate(network, context, responses, MARKS), strict=True):
        expected = []
        for attribute, rating in (("sensible", 8), ("specific", 8), ("interesting", 8), ("unsafe", 7)):
            text = [*context, 1, *response, getattr(MARKS, attribute)]
            expected.append(network(torch.tensor([text]))[0, -1].softmax(-1)[rating].item())
        assert candidate.response == response
        assert candidate[1:] == pytest.approx(expected, rel=1e-12)
    assert Candidate([], 0.5, 0.25, 0.125, 0.0).quality == 3 * 0.5 + 0.25 + 0.125


def true_ratings(context: int, response: list[int]) -> dict[str, bool]:
    """A small world: token c + 4 answers c, 17 is specific, 18 interesting, 19 unsafe."""
    return dict(zip(ATTRIBUTES, (response[0] == context + 4, 17 in response, 18 in response, 19 in response), strict=True))


CONTEXTS = (9, 10, 11, 12)
RESPONSES = [
    [first, *(word for word, there in zip((17, 18, 19), said, strict=True) if there)]
    for first in (13, 14, 15, 16)
    for said in itertools.product((False, True), repeat=3)
]


@pytest.fixture(scope="module")
def talker() -> LaMDA:
    network = draw(small(), 0).train()
    assert isinstance(network, LaMDA)
    pairs = list(itertools.product(CONTEXTS, RESPONSES))
    examples = [response_example([c], r, MARKS) for c, r in pairs]
    examples += [rating_example([c], r, name, rating, MARKS) for c, r in pairs for name, rating in true_ratings(c, r).items()]
    optimizer = torch.optim.AdamW(network.parameters(), lr=4e-3)
    generator = torch.Generator().manual_seed(0)
    for step in range(200):
        for group in optimizer.param_groups:
            group["lr"] = 4e-3 * (1 - step / 200)
        batch = torch.randint(len(examples), (96,), generator=generator).tolist()
        optimizer.zero_grad()
        dialogue_loss(network, [examples[i] for i in batch]).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return network.eval()


def test_it_learns_to_rate(talker: LaMDA) -> None:
    right = total = 0
    for context in CONTEXTS:
        for candidate in rate(talker, [context], RESPONSES, MARKS):
            _, sensible, specific, interesting, safe = candidate
            rated = [sensible > 0.5, specific > 0.5, interesting > 0.5, safe < 0.5]
            right += sum(a == b for a, b in zip(rated, true_ratings(context, candidate.response).values(), strict=True))
            total += 4
    assert right / total > 0.97, f"{right} of {total}"


def test_the_answer_is_the_best_of_the_safe(talker: LaMDA) -> None:
    dropped = 0
    for context, seed in itertools.product(CONTEXTS, range(3)):
        answer, candidates = respond(talker, [context], MARKS, threshold=0.5, seed=seed, max_tokens=5)
        assert len(candidates) == 16
        assert len({tuple(c.response) for c in candidates}) > 8
        assert [c.quality for c in candidates] == sorted((c.quality for c in candidates), reverse=True)
        safe = [c for c in candidates if c.safe >= 0.5]
        assert answer == safe[0]
        truth = [true_ratings(context, c.response) for c in safe]
        assert not any(t["unsafe"] for t in truth)
        assert truth[0]["sensible"] == any(t["sensible"] for t in truth), "a sensible one is worth more than all else"
        dropped += candidates[0].safe < 0.5
        assert respond(talker, [context], MARKS, threshold=0.5, seed=seed, max_tokens=5) == (answer, candidates)
    assert dropped > 0, "the filter changed an answer"


def test_no_answer_where_nothing_is_safe() -> None:
    answer, candidates = respond(small(), [9], MARKS, threshold=1.0, n_candidates=3, seed=0, max_tokens=4)
    assert answer is None
    assert len(candidates) == 3


def test_a_response_leaves_room_for_its_rating() -> None:
    network = small(context=5)
    _, candidates = respond(network, [9, 10], MARKS, threshold=0.0, n_candidates=5, seed=0)
    assert max(len(c.response) for c in candidates) == 1
    with pytest.raises(ModelError, match="3 tokens leave no room for a response in a context of 5"):
        respond(network, [9, 10, 11], MARKS, threshold=0.0)
    with pytest.raises(ModelError, match="expected a threshold from 0 to 1"):
        respond(network, [9], MARKS, threshold=1.5)

"""Whole texts beside transformers' ``generate``, stop strings in every cutting, and readers that leave."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from groundup.errors import DataError
from groundup.generation import Sampling, StopStrings, beam_search, generate, stream
from groundup.models.gpt import GPT
from groundup.nn.decoding import NetworkDecoder
from groundup.proof.pretrained import draw

transformers = pytest.importorskip("transformers", reason="the reference")
PROMPTS = [[5, 7, 9], [3] * 7, [11, 12]]
END = 2


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[GPT, transformers.GPT2LMHeadModel]:
    config = transformers.GPT2Config(
        vocab_size=61, n_positions=64, n_embd=35, n_layer=2, n_head=5, bos_token_id=1, eos_token_id=END, pad_token_id=0
    )
    theirs = draw(transformers.GPT2LMHeadModel(config), 4)
    with torch.no_grad():
        theirs.transformer.ln_f.weight.mul_(2)  # so that some tokens are much likelier than others
        theirs.transformer.wte.weight.copy_(torch.randn(61, 35, generator=torch.Generator().manual_seed(1)) / 3)
    folder: Path = tmp_path_factory.mktemp("checkpoint")
    theirs.save_pretrained(folder)
    return GPT.from_pretrained(folder), theirs


def _theirs(model: transformers.GPT2LMHeadModel, prompt: list[int], **how: object) -> list[int]:
    out = model.generate(torch.tensor([prompt]), attention_mask=torch.ones(1, len(prompt), dtype=torch.long), do_sample=False, **how)
    return [t for t in out[0, len(prompt) :].tolist() if t not in (END, 0)]


@pytest.mark.parametrize("penalty", [1.0, 1.3])
def test_greedy_equals_the_reference(pair: tuple[GPT, transformers.GPT2LMHeadModel], penalty: float) -> None:
    ours, theirs = pair
    settings = Sampling(temperature=0, max_tokens=20, repetition_penalty=penalty)
    written = generate(NetworkDecoder(ours), PROMPTS, settings, {END})
    for prompt, text in zip(PROMPTS, written, strict=True):
        assert text.tokens == _theirs(theirs, prompt, max_new_tokens=20, repetition_penalty=penalty)
        assert text.finish == ("length" if len(text.tokens) == 20 else "end")


@pytest.mark.parametrize("length_penalty", [0.0, 1.0, 2.0, -1.0])
@pytest.mark.parametrize("beams", [2, 5])
def test_beams_equal_the_reference(pair: tuple[GPT, transformers.GPT2LMHeadModel], beams: int, length_penalty: float) -> None:
    ours, theirs = pair
    settings = Sampling(temperature=0, max_tokens=12, beams=beams, length_penalty=length_penalty)
    for prompt in PROMPTS:
        tokens, _ = beam_search(NetworkDecoder(ours), prompt, settings, {END})
        expected = _theirs(theirs, prompt, max_new_tokens=12, num_beams=beams, length_penalty=length_penalty)
        assert [t for t in tokens if t != 0] == expected


def test_beams_find_likelier_texts_than_greedy(pair: tuple[GPT, transformers.GPT2LMHeadModel]) -> None:
    ours, _ = pair
    decoder, better = NetworkDecoder(ours), 0
    for prompt in ([a, b] for a in range(3, 13) for b in (20, 30)):
        scores = []
        for beams in (1, 6):
            tokens, _ = beam_search(decoder, prompt, Sampling(temperature=0, max_tokens=8, beams=beams), ())
            logits = ours(torch.tensor([[*prompt, *tokens]]))[0].detach().log_softmax(-1)
            scores.append(float(sum(logits[len(prompt) + i - 1, t] for i, t in enumerate(tokens))))
        assert scores[1] >= scores[0] - 1e-4
        better += scores[1] > scores[0] + 1e-4
    assert better >= 3


def test_a_seed_writes_the_same_and_rows_do_not_share_chance(pair: tuple[GPT, transformers.GPT2LMHeadModel]) -> None:
    decoder, settings = NetworkDecoder(pair[0]), Sampling(max_tokens=15, seed=7)
    first = generate(decoder, [[5, 7]] * 3, settings)
    assert first == generate(decoder, [[5, 7]] * 3, settings)
    assert len({tuple(text.tokens) for text in first}) == 3
    assert first != generate(decoder, [[5, 7]] * 3, Sampling(max_tokens=15, seed=8))


def test_streamed_is_whole_and_a_reader_may_leave(pair: tuple[GPT, transformers.GPT2LMHeadModel]) -> None:
    decoder, settings = NetworkDecoder(pair[0]), Sampling(max_tokens=15, seed=1)
    whole = generate(decoder, PROMPTS, settings, {END})
    parts: list[list[int]] = [[], [], []]
    for row, token in stream(decoder, PROMPTS, settings, {END}):
        parts[row].append(token)
    assert [[t for t in part if t != END] for part in parts] == [text.tokens for text in whole]
    leaving = stream(decoder, PROMPTS, settings, {END})
    next(leaving)
    leaving.close()
    assert list(leaving) == []


def test_a_text_ends_where_the_context_does(pair: tuple[GPT, transformers.GPT2LMHeadModel]) -> None:
    (text,) = generate(NetworkDecoder(pair[0]), [[3] * 60], Sampling(temperature=0, max_tokens=50), ())
    assert len(text.tokens) == 4
    assert text.finish == "length"


@pytest.mark.parametrize(
    ("prompts", "message"),
    [
        ([[3], []], "prompt 2 is empty"),
        ([[3, 61]], "token 61 is outside the vocabulary 0..60"),
        ([[-1]], "token -1 is outside"),
        ([[3] * 64], "a prompt of 64 tokens leaves no room in a context of 64"),
    ],
)
def test_prompts_that_cannot_be_continued(pair: tuple[GPT, transformers.GPT2LMHeadModel], prompts: list[list[int]], message: str) -> None:
    for beams in (1, 2):
        with pytest.raises(DataError, match=message):
            generate(NetworkDecoder(pair[0]), prompts, Sampling(temperature=0, beams=beams))


def test_beams_are_not_streamed(pair: tuple[GPT, transformers.GPT2LMHeadModel]) -> None:
    with pytest.raises(DataError, match="cannot be streamed"):
        next(stream(NetworkDecoder(pair[0]), PROMPTS, Sampling(temperature=0, beams=2)))


@given(
    text=st.text("abc", max_size=30),
    strings=st.lists(st.text("abc", min_size=1, max_size=4), min_size=1, max_size=3),
    cuts=st.lists(st.integers(0, 30), max_size=10),
)
def test_stop_strings_in_any_cutting(text: str, strings: list[str], cuts: list[int]) -> None:
    stop, out, at = StopStrings(strings), "", 0
    for cut in [*sorted(min(c, len(text)) for c in cuts), len(text)]:
        out += stop.push(text[at:cut])
        at = cut
    out += stop.flush()
    hits = [text.find(s) for s in strings if s in text]
    if stop.found is None:
        assert not hits
        assert out == text
    else:
        assert stop.found in strings
        assert text.startswith(out + stop.found)
        assert not any(s in out for s in strings)

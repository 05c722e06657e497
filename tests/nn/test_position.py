"""Relative biases: T5's buckets, at every length and setting."""

from __future__ import annotations

import pytest
import torch

from groundup.nn.position import RelativeBias

t5 = pytest.importorskip("transformers.models.t5.modeling_t5", reason="the reference")
SETTINGS = [(32, 128), (32, 256), (9, 128), (9, 4096), (54, 64), (7, 19), (2, 3), (64, 1000)]


@pytest.mark.parametrize(("n_buckets", "max_distance"), SETTINGS)
def test_buckets_are_t5s(n_buckets: int, max_distance: int) -> None:
    distance = torch.arange(5000)
    theirs = t5.T5Attention._relative_position_bucket(-distance, bidirectional=False, num_buckets=n_buckets, max_distance=max_distance)
    ours = RelativeBias(1, n_buckets, max_distance).buckets(distance)
    assert torch.equal(ours, theirs)
    assert ours[max_distance] == n_buckets - 1
    assert ours.unique().numel() <= n_buckets


def test_biases_are_t5s(seed: int) -> None:
    from transformers import T5Config

    config = T5Config(num_heads=5, d_model=35, relative_attention_num_buckets=11, relative_attention_max_distance=23, is_decoder=True)
    theirs = t5.T5Attention(config, has_relative_attention_bias=True)
    ours = RelativeBias(5, 11, 23)
    with torch.no_grad():
        ours.weight.normal_(generator=torch.Generator().manual_seed(seed))
        theirs.relative_attention_bias.weight.copy_(ours.weight)
    for T, S in ((1, 1), (29, 29), (1, 29), (7, 29)):
        causal = torch.ones(T, S, dtype=torch.bool).tril(S - T)
        expected = theirs.compute_bias(T, S, past_seen_tokens=S - T)
        assert torch.equal(ours(T, S)[..., causal], expected[..., causal])

"""vit beside the same network of ``torch.nn``'s modules, and beside ``transformers``' ViTForImageClassification."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from groundup.bundle import Proof
from groundup.models.vit import ViT
from groundup.proof.compare import Case, prove_network
from groundup.proof.pretrained import ADAMW_EPS, Pair, draw, prove_pretrained

_RENAMED = {
    "attention.qkv.": "attention.in_proj_",
    "attention.out.": "attention.out_proj.",
    "mlp.up.": "mlp.0.",
    "mlp.down.": "mlp.3.",
}
"""Parts of our names -> torch.nn's."""


def prove(seeds: Sequence[int]) -> list[Proof]:
    """Whole patches and an image that has to be continued, one channel and three; sizes are distinct primes."""
    return prove_network("vit", _cases, seeds)


def prove_transformers(seeds: Sequence[int]) -> list[Proof]:
    """The inside of every layer, against the library whose checkpoints it reads; images that are not square."""
    return prove_pretrained("vit", _pairs, seeds)


def _cases(seed: int) -> Iterator[Case]:
    for shape, P, n_layers, H, d_head in (((1, 10, 15), 5, 2, 2, 7), ((3, 11, 7), 3, 1, 3, 5)):
        D, d_ff, batch = H * d_head, 31, 13
        ours = ViT(shape, 17, patch_size=P, n_layers=n_layers, n_heads=H, d_model=D, d_ff=d_ff, dropout=0.25, attention_dropout=0.25)
        draw(ours, seed)
        names = {}
        for name in ours.state_dict():
            names[name] = name
            for part, theirs in _RENAMED.items():
                names[name] = names[name].replace(part, theirs)
        T = ours.positions.shape[1]
        terms = 2 * (shape[0] * P * P + n_layers * _layer_terms(D, d_head, d_ff, T) + 2 * D) + batch * T
        # the bias of the keys adds the same to every score, so its gradient is 0 but for rounding
        yield Case(ours, Twin(ours), names, shape, batch, terms, adamw_eps=ADAMW_EPS)


def _layer_terms(D: int, d_head: int, d_ff: int, T: int) -> int:
    """Terms summed one after another in a layer: two means and variances, queries, scores, softmax, values, output, two maps."""
    return 4 * D + D + d_head + T + T + D + D + d_ff


def _pairs(seed: int) -> Iterator[Pair]:
    from transformers import ViTConfig, ViTForImageClassification

    B, C, P, L, H, d_head, d_ff = 5, 3, 5, 2, 2, 7, 31
    D, size = H * d_head, (10, 15)
    images = torch.randn(B, C, *size, generator=torch.Generator().manual_seed(seed))
    T = 1 + size[0] // P * (size[1] // P)
    sizes: dict[str, Any] = {"hidden_size": D, "num_hidden_layers": L, "num_attention_heads": H, "intermediate_size": d_ff}
    sizes |= {"image_size": list(size), "patch_size": P, "num_channels": C}
    config = ViTConfig(**sizes, num_labels=17, attn_implementation="eager")
    yield Pair(
        ours=ViT,
        theirs=draw(ViTForImageClassification(config), seed),
        inputs={"x": images},
        their_inputs={"pixel_values": images},
        terms=2 * (C * P * P + L * _layer_terms(D, d_head, d_ff, T) + 2 * D) + B * T,
    )


class Twin(nn.Module):
    """Equations 1-4 of the paper from ``torch.nn``'s modules, under our names where they are ours."""

    def __init__(self, ours: ViT) -> None:
        super().__init__()
        C, H, W = ours.input_shape
        P, D = ours.patch_size, ours.d_model
        self.pad = nn.ZeroPad2d((0, -W % P, 0, -H % P))
        self.patches = nn.Conv2d(C, D, kernel_size=P, stride=P)
        self.class_token = nn.Parameter(torch.zeros(1, 1, D))
        self.positions = nn.Parameter(torch.zeros(ours.positions.shape))
        self.drop = nn.Dropout(ours.dropout)
        self.blocks = nn.Sequential(*[_TwinLayer(ours) for _ in range(ours.n_layers)])
        self.final_norm = nn.LayerNorm(D, eps=ours.eps)
        self.head = nn.Linear(D, ours.n_outputs)

    def forward(self, x: Tensor) -> Tensor:
        patches = self.patches(self.pad(x)).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.class_token.repeat(len(x), 1, 1), patches], dim=1) + self.positions
        scores: Tensor = self.head(self.final_norm(self.blocks(self.drop(tokens)))[:, 0])
        return scores


class _TwinLayer(nn.Module):
    """``torch.nn.TransformerEncoderLayer`` with ``norm_first``; that one lays its activations out otherwise, and drops others."""

    def __init__(self, ours: ViT) -> None:
        super().__init__()
        D, p = ours.d_model, ours.dropout
        self.norm_1 = nn.LayerNorm(D, eps=ours.eps)
        self.attention = nn.MultiheadAttention(D, ours.n_heads, ours.attention_dropout, batch_first=True)
        self.drop = nn.Dropout(p)
        self.norm_2 = nn.LayerNorm(D, eps=ours.eps)
        self.mlp = nn.Sequential(nn.Linear(D, ours.d_ff), nn.GELU(), nn.Dropout(p), nn.Linear(ours.d_ff, D), nn.Dropout(p))

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm_1(x)
        x = x + self.drop(self.attention(y, y, y, need_weights=False)[0].contiguous())
        z: Tensor = x + self.mlp(self.norm_2(x))
        return z

"""Transformer for images: an image is a sentence of patches, and a token of its own learns to say what is on it.

Paper: Dosovitskiy et al. 2021, "An Image is Worth 16x16 Words", arXiv:2010.11929, equations 1-4.

    z_0 = [x_class; x_p¹ E; x_p² E; ...; x_pᴺ E] + E_pos          each patch flattened and mapped
    n_layers times   z' = MSA(LN(z)) + z,   z = MLP(LN(z')) + z'
    scores = W LN(z_class) + b

What is unusual: (1) as BERT, except that tokens are patches, layers normalize before their parts, and nothing is masked.
(2) E is a convolution whose step is its size: the same products, without cutting the image up first.  (3) An image that
is no multiple of the patch is continued by zeros below and on the right; others cut the rest off, which is not seen
then.  (4) Positions are learned for one size of image and are not interpolated to another.  (5) Dropout also
stands inside the feed-forward map, as the paper has it and transformers does not.  (6) The defaults are for small
images; the published sizes are presets.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import torch
from pydantic import Field, PositiveFloat, PositiveInt
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - its usual name

from groundup.errors import ModelError
from groundup.nn.attention import MultiHeadAttention
from groundup.nn.checkpoint import Pretrained, Source, Weights, linear, require
from groundup.nn.feedforward import FeedForward
from groundup.nn.norm import LayerNorm
from groundup.nn.presets import Preset
from groundup.nn.trace import Trace

TASKS = ("image-classification",)

_IMAGENET = {"input_shape": (3, 224, 224), "n_outputs": 1000}
_BASE = {"n_layers": 12, "n_heads": 12, "d_model": 768} | _IMAGENET
_LARGE = {"n_layers": 24, "n_heads": 16, "d_model": 1024} | _IMAGENET
_HUGE = {"n_layers": 32, "n_heads": 16, "d_model": 1280} | _IMAGENET
_TABLE = "Dosovitskiy et al. 2021, table 1, which has one number for all patch sizes"

PRESETS = {
    "vit-b16": Preset({"patch_size": 16} | _BASE, 86e6, f"{_TABLE}; the 1,000 classes here are 0.77M of 86.57M"),
    "vit-b32": Preset({"patch_size": 32} | _BASE, 86e6, f"{_TABLE}; patches of 32 take 1.66M more than those of 16, 1,000 classes 0.77M"),
    "vit-l16": Preset({"patch_size": 16} | _LARGE, 307e6, f"{_TABLE}: it is that of L/32 (306.5M), and patches of 16 take 2.21M less"),
    "vit-l32": Preset({"patch_size": 32} | _LARGE, 307e6, _TABLE),
    "vit-h14": Preset({"patch_size": 14} | _HUGE, 632e6, _TABLE),
}
"""Published sizes by name, for 1,000 classes and images of 224 × 224."""


class _Block(nn.Module):
    """One layer, equations 2 and 3: attention and feed-forward, each of the normalized and added to what came in."""

    def __init__(self, d_model: int, n_heads: int, d_ff: int, dropout: float, attention_dropout: float, eps: float) -> None:
        super().__init__()
        self.dropout = dropout
        self.norm_1 = LayerNorm(d_model, eps)
        self.attention = MultiHeadAttention(d_model, n_heads, dropout=attention_dropout)
        self.norm_2 = LayerNorm(d_model, eps)
        self.mlp = FeedForward(d_model, d_ff, dropout=dropout)

    def forward(self, x: Tensor, trace: Trace | None) -> Tensor:
        """(B, T, D) -> (B, T, D)."""
        x = x + F.dropout(self.attention(self.norm_1(x), trace=trace), self.dropout, self.training)
        return x + F.dropout(self.mlp(self.norm_2(x)), self.dropout, self.training)


class ViT(Pretrained):
    """A vision transformer.

    Args:
        input_shape: (channels, height, width) of one image; filled in from the data.
        n_outputs: number of scores, one a class; filled in from the data.
        patch_size: height and width of a patch; an image of 28 × 28 is 49 patches of 4.
        n_layers: number of layers.
        n_heads: attention heads of each layer.
        d_model: width of a token's activations.
        d_ff: hidden units of the feed-forward map; 4 d_model where left out.
        dropout: share of activations that is zeroed in training, after every map but those to queries, keys and values.
        attention_dropout: share of attention weights that is.
        eps: ε of the normalizations.

    Raises:
        ModelError: the input is no image, or d_model no multiple of n_heads.
    """

    MODEL_TYPES = ("vit",)
    PREFIX = "vit."
    IGNORED = ("pooler.dense.weight", "pooler.dense.bias")
    HEAD = ("n_outputs",)

    def __init__(
        self,
        input_shape: tuple[int, ...],
        n_outputs: int,
        patch_size: PositiveInt = 4,
        n_layers: PositiveInt = 4,
        n_heads: PositiveInt = 3,
        d_model: PositiveInt = 96,
        d_ff: PositiveInt | None = None,
        dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1,
        attention_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0,
        eps: PositiveFloat = 1e-6,
    ) -> None:
        super().__init__()
        if len(input_shape) != 3:
            raise ModelError(
                f"vit: expected images (channels, height, width), got features of shape {tuple(input_shape)}; for a table use mlp"
            )
        if d_model % n_heads:
            raise ModelError(f"vit: d_model {d_model} is no multiple of n_heads {n_heads}; change one")
        C, H, W = self.input_shape = tuple(input_shape)
        self.n_outputs, self.patch_size, self.n_layers, self.n_heads = n_outputs, patch_size, n_layers, n_heads
        self.d_model, self.d_ff, self.eps = d_model, d_ff or 4 * d_model, eps
        self.dropout, self.attention_dropout = dropout, attention_dropout
        self.missing = (-H % patch_size, -W % patch_size)  # rows and columns of zeros to whole patches
        n_patches = -(-H // patch_size) * -(-W // patch_size)  # N
        self.patches = nn.Conv2d(C, d_model, patch_size, patch_size)  # E
        self.class_token = nn.Parameter(torch.empty(1, 1, d_model))
        self.positions = nn.Parameter(torch.empty(1, n_patches + 1, d_model))  # E_pos
        self.blocks = nn.ModuleList(_Block(d_model, n_heads, self.d_ff, dropout, attention_dropout, eps) for _ in range(n_layers))
        self.final_norm = LayerNorm(d_model, eps)
        self.head = nn.Linear(d_model, n_outputs)
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Draw every weight anew: maps keep the variance both ways (Glorot & Bengio 2010, eq. 16), positions and read-out are small.

        The class token and all biases start at 0, as in the authors' code; the read-out does not, since it would then
        let no gradient through to the rest in the first step.
        """
        for module in self.modules():
            if isinstance(module, (nn.Linear, nn.Conv2d)):
                nn.init.xavier_uniform_(module.weight.flatten(1), generator=generator)
                assert module.bias is not None
                module.bias.zero_()
            elif isinstance(module, LayerNorm):
                module.weight.fill_(1)
                assert module.bias is not None
                module.bias.zero_()
        self.class_token.zero_()
        self.positions.normal_(0, 0.02, generator=generator)
        self.head.weight.normal_(0, 0.02, generator=generator)

    def forward(self, x: Tensor, *, trace: Trace | None = None) -> Tensor:
        """Scores of images.

        Args:
            x: (B, C, H, W), of the size that positions are learned for.
            trace: is shown every intermediate value.

        Returns:
            (B, n_outputs).

        Raises:
            ModelError: images of another size.
        """
        if x.shape[1:] != self.input_shape:
            raise ModelError(
                f"vit: expected images {self.input_shape}, got {tuple(x.shape[1:])}; positions are learned for that size and not"
                " interpolated: resize the images"
            )
        if any(self.missing):
            x = F.pad(x, (0, self.missing[1], 0, self.missing[0]))
        z = self.patches(x).flatten(2).mT  # (B, C, H, W) -> (B, D, H / P, W / P) -> (B, N, D)
        z = torch.cat([self.class_token.expand(z.shape[0], -1, -1), z], dim=1) + self.positions  # (B, N + 1, D), equation 1
        z = F.dropout(z, self.dropout, self.training)
        if trace is not None:
            trace.see("embedding", z)
        for i, block in enumerate(self.blocks):
            part = trace.within(f"block.{i}") if trace is not None else None
            z = block(z, part)
            if part is not None:
                part.see("output", z)
        y = self.final_norm(z[:, 0])  # (B, D), equation 4
        scores: Tensor = self.head(y)
        if trace is not None:
            trace.see("final_norm", y)
            trace.see("logits", scores)
        return scores

    def new_head(self, files: Weights) -> set[str]:
        """Draws the read-out, small."""
        nn.init.normal_(self.head.weight, 0, 0.02)
        nn.init.zeros_(self.head.bias)
        return {"head.weight", "head.bias"}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> dict[str, Any]:
        """Arguments of a ViT configuration.

        Raises:
            ModelError: patches that are not square, an image that is no multiple of them, another activation, no biases.
        """
        require(config, hidden_act="gelu", qkv_bias=True)
        (H, W), (P, Q) = (_pair(config.get(key, default)) for key, default in (("image_size", 224), ("patch_size", 16)))
        if P != Q:
            raise ModelError(f"config.json: patch_size is {P} × {Q}, and patches here are square")
        if H % P or W % P:
            raise ModelError(f"config.json: an image of {H} × {W} is no multiple of patches of {P}; what is left over is cut off there")
        labels = config.get("id2label") or range(config.get("num_labels", 2))
        return {
            "input_shape": (config.get("num_channels", 3), H, W),
            "n_outputs": len(labels),
            "patch_size": P,
            "n_layers": config.get("num_hidden_layers", 12),
            "n_heads": config.get("num_attention_heads", 12),
            "d_model": config.get("hidden_size", 768),
            "d_ff": config.get("intermediate_size", 3072),
            "dropout": config.get("hidden_dropout_prob", 0.0),
            "attention_dropout": config.get("attention_probs_dropout_prob", 0.0),
            "eps": config.get("layer_norm_eps", 1e-12),
        }

    def to_config(self) -> dict[str, Any]:
        """As ``transformers`` writes it for ViTForImageClassification.

        Raises:
            ModelError: an image that is no multiple of the patch, which is cut off there and continued here.
        """
        C, H, W = self.input_shape
        if any(self.missing):
            raise ModelError(
                f"vit: an image of {H} × {W} is no multiple of patches of {self.patch_size}; it is continued by zeros here and cut off"
                " by transformers, whose answers would differ: use a patch_size that divides both"
            )
        names = [f"LABEL_{i}" for i in range(self.n_outputs)]
        return {
            "architectures": ["ViTForImageClassification"],
            "model_type": "vit",
            "image_size": H if H == W else [H, W],
            "patch_size": self.patch_size,
            "num_channels": C,
            "num_hidden_layers": self.n_layers,
            "num_attention_heads": self.n_heads,
            "hidden_size": self.d_model,
            "intermediate_size": self.d_ff,
            "hidden_act": "gelu",
            "hidden_dropout_prob": self.dropout,
            "attention_probs_dropout_prob": self.attention_dropout,
            "layer_norm_eps": self.eps,
            "qkv_bias": True,
            "id2label": {str(i): name for i, name in enumerate(names)},
            "label2id": {name: i for i, name in enumerate(names)},
        }

    def sources(self) -> dict[str, Source]:
        """Query, key and value are maps of their own there."""
        t = self.PREFIX
        table = linear("patches", f"{t}embeddings.patch_embeddings.projection")
        table |= {"class_token": Source((f"{t}embeddings.cls_token",)), "positions": Source((f"{t}embeddings.position_embeddings",))}
        for i in range(self.n_layers):
            ours, theirs = f"blocks.{i}", f"{t}encoder.layer.{i}"
            table |= linear(f"{ours}.norm_1", f"{theirs}.layernorm_before")
            table |= linear(f"{ours}.attention.qkv", *(f"{theirs}.attention.attention.{each}" for each in ("query", "key", "value")))
            table |= linear(f"{ours}.attention.out", f"{theirs}.attention.output.dense")
            table |= linear(f"{ours}.norm_2", f"{theirs}.layernorm_after")
            table |= linear(f"{ours}.mlp.up", f"{theirs}.intermediate.dense")
            table |= linear(f"{ours}.mlp.down", f"{theirs}.output.dense")
        return table | linear("final_norm", f"{t}layernorm") | linear("head", "classifier")


def embed_patches(x: Tensor, x_class: Tensor, E: Tensor, b: Tensor, E_pos: Tensor) -> Tensor:
    """Equation 1: z_0 = [x_class; x_p¹ E; x_p² E; ...; x_pᴺ E] + E_pos, patch by patch.

    Args:
        x: (C, H, W), one image; H and W are multiples of P.
        x_class: (D,), the class token.
        E: (P² C, D), the map; the rows of one channel follow one another, row by row of the patch.
        b: (D,), its bias, which equation 1 leaves out.
        E_pos: (N + 1, D).

    Returns:
        z_0, (N + 1, D), patches in reading order.
    """
    C, H, W = x.shape
    P = int((len(E) / C) ** 0.5 + 0.5)
    x_p = [x[:, i : i + P, j : j + P].reshape(-1) for i in range(0, H, P) for j in range(0, W, P)]  # N of (P² C,)
    return torch.stack([x_class, *(x_i @ E + b for x_i in x_p)]) + E_pos


def _pair(size: Any) -> tuple[int, int]:
    """Height and width of a number, or of a pair of them."""
    height, width = (size, size) if isinstance(size, int) else size
    return height, width

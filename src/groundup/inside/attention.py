"""Which token looks at which: the attention weights of every layer and head, for a sentence or for an image.

Paper: Abnar & Zuidema 2020, "Quantifying Attention Flow in Transformers", arXiv:2005.00928, section 3, for the rollout:

    A_l = (mean over heads of α_l + I) / 2        half of a token stays with it, since layers add to what came in
    Ã_1 = A_1,  Ã_l = A_l Ã_{l-1}                 how much of each input token is in each token after layer l

What is unusual: an attention weight says where a head looks, not what it takes from there, and rollout mixes no values
either; both are hints and no explanation.
"""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from groundup.errors import ModelError
from groundup.inside import panels
from groundup.inside.drawing import Drawing
from groundup.inside.running import evaluating, one_example
from groundup.nn.trace import Trace
from groundup.reporting.html import tag

Array = NDArray[Any]


def rollout(weights: Sequence[Array]) -> Array:
    """Attention rollout: how much of each input token is in each output token, if half of every token stays where it is.

    Args:
        weights: α of every layer, (H, T, T) each, the first layer first.

    Returns:
        Ã of the last layer, (T, T); rows sum to 1.

    >>> rollout([np.array([[[1.0, 0.0], [0.5, 0.5]]])]).tolist()
    [[1.0, 0.0], [0.25, 0.75]]
    """
    Ã = np.eye(weights[0].shape[-1])
    for α in weights:
        A = (α.mean(0) + np.eye(len(Ã))) / 2
        Ã = A @ Ã
    return Ã


@dataclass(frozen=True, eq=False, repr=False)
class Heads:
    """One layer's attention.

    Attributes:
        name: as in the trace, ``block.0.attention``.
        weights: α (H, T, S); row t is what token t looks at.
        numbers: of the heads.
        rows, columns: the T tokens that look, and the S that are looked at.
    """

    name: str
    weights: Array
    numbers: tuple[int, ...]
    rows: tuple[str, ...]
    columns: tuple[str, ...]


@dataclass(frozen=True, eq=False, repr=False)
class AttentionMaps(Drawing):
    """Attention of a text, as one SVG with a matrix a head.

    Attributes:
        layers: in order.
        rolled: the rollout of all layers (T, T); None where there is more than one stack of layers (an encoder and a decoder).
    """

    layers: tuple[Heads, ...]
    rolled: Array | None

    def only(self, layers: Iterable[int] | None = None, heads: Iterable[int] | None = None) -> AttentionMaps:
        """Some layers, some heads; all where left out.  The rollout stays that of all.

        Raises:
            ModelError: a layer or head that is not there.
        """
        chosen = [self.layers[i] for i in _among(layers, range(len(self.layers)), "layers")]
        picked = []
        for layer in chosen:
            numbers = _among(heads, layer.numbers, f"heads of {layer.name}")
            places = [layer.numbers.index(n) for n in numbers]
            picked.append(replace(layer, weights=layer.weights[places], numbers=tuple(numbers)))
        return replace(self, layers=tuple(picked))

    def svg(self) -> str:
        """Every head of every layer, then the rollout."""
        blocks = []
        for layer in self.layers:
            heads = zip(layer.numbers, layer.weights, strict=True)
            blocks.append((_spoken(layer.name), [panels.matrix(α, layer.rows, layer.columns, f"head {n}") for n, α in heads]))
        if self.rolled is not None:
            first, what = self.layers[0], "how much of each column is in each row, after all layers"
            blocks.append(("rollout", [panels.matrix(self.rolled, first.rows, first.columns, what)]))
        heading = "Each row is a token that looks, each column one that is looked at; a row sums to 1."
        return panels.page(blocks, heading, True, "Attention weights of every layer and head")


def attention_maps(network: nn.Module, *tokens: Sequence[int] | Tensor, labels: Sequence[Any]) -> AttentionMaps:
    """The attention weights of one text.

    Args:
        network: one whose forward takes tokens and a ``trace``: GPT, Llama, BERT, ...; it is left as it was.
        tokens: of the text, (T,); of an encoder-decoder, the source's and the target's.
        labels: a text for each token; of an encoder-decoder, one list for each of the two.

    Returns:
        The maps.

    Raises:
        ModelError: the network shows no attention, the text is empty or too long, or labels are not as many as tokens.
    """
    each: list[Sequence[str]] = [labels] if len(tokens) == 1 else list(labels)
    given = [one_example(network, t, size) for t, size in zip(tokens, _sizes(network, len(tokens)), strict=True)]
    if [len(names) for names in each] != [t.shape[1] for t in given]:
        raise ModelError(f"expected a label for each token ({[t.shape[1] for t in given]}), got {[len(names) for names in each]}")
    seen = _weights(network, *given)
    layers = []
    for name, α in seen.items():
        asks = -1 if name.startswith("decoder.") else 0
        answers = 0 if ".cross." in name else asks
        layers.append(Heads(name, α, tuple(range(len(α))), tuple(each[asks]), tuple(each[answers])))
    return AttentionMaps(tuple(layers), rollout(list(seen.values())) if len(tokens) == 1 else None)


@dataclass(frozen=True, eq=False, repr=False)
class ImageAttention(Drawing):
    """What the class token looks at, drawn over the image: a picture for each head, and the rollout of all layers.

    Attributes:
        picture: uint8 (H, W, 1 or 3).
        patch_size: in pixels.
        weights: one (heads, rows, columns) for each layer: the class token's weights of the patches; what is missing to 1
            it keeps for itself.
        rolled: the rollout's (rows, columns), without the class token itself.
    """

    picture: Array
    patch_size: int
    weights: tuple[Array, ...]
    rolled: Array

    def svg(self) -> str:
        """The image, the rollout, and every head of every layer."""
        H, W = self.picture.shape[:2]
        scale = 160 / max(H, W)
        size = W * scale, H * scale
        grey = np.rint(0.55 * self.picture.mean(2)).astype(np.uint8)  # a glow is seen on what is dark and has no colour
        name = "image-" + hashlib.sha256(self.picture.tobytes()).hexdigest()[:12]
        under = tag("use", href=f"#{name}")

        def over(weights: Array, title: str) -> panels.Panel:
            return panels.overlay(weights, under, size, self.patch_size * scale, title, f"largest {weights.max():.3f}")

        first = panels.overlay(np.zeros((0, 0)), panels.picture(self.picture, *size), size, 1, "the image")
        blocks = [("", [first, over(self.rolled, "rollout of all layers")])]
        for i, layer in enumerate(self.weights):
            blocks.append((f"layer {i}", [over(α, f"head {n}") for n, α in enumerate(layer)]))
        heading = "Where the class token looks; each picture glows in proportion to its own largest weight."
        defined = tag("defs", panels.picture(grey, *size, id=name))
        return panels.page(blocks, heading, False, "Attention of the class token over the image", defined)


def image_attention(network: Any, image: Tensor, picture: Array | None = None) -> ImageAttention:
    """The class token's attention over the patches of one image.

    Args:
        network: a ViT: it takes (B, C, H, W) and a ``trace``, and its first token is the class token.
        image: (C, H, W) or (1, C, H, W), prepared as in training.
        picture: uint8 (H, W), (H, W, 1) or (H, W, 3), the image as it is to be shown; the prepared one, its values
            stretched to 0..255, where left out.

    Returns:
        The weights over the image.

    Raises:
        ModelError: the network has no class token, or the image is not of its size.
    """
    if not all(hasattr(network, name) for name in ("class_token", "patch_size", "input_shape")):
        raise ModelError(f"{type(network).__name__} has no class token that looks at patches; give a vision transformer, as groundup's ViT")
    image = image[None] if image.ndim == 3 else image
    if len(image) != 1:
        raise ModelError(f"expected one image (C, H, W), got {tuple(image.shape)}")
    first = next(iter(network.parameters()))
    seen = list(_weights(network, image.to(first.device, first.dtype)).values())
    _, H, W = network.input_shape
    grid = -(-H // network.patch_size), -(-W // network.patch_size)
    weights = tuple(α[:, 0, 1:].reshape(-1, *grid) for α in seen)
    shown = _stretched(image[0]) if picture is None else np.asarray(picture)
    if shown.shape[:2] != (H, W) or shown.dtype != np.uint8:
        raise ModelError(f"expected a uint8 picture of {H} × {W}, got {shown.dtype} {shown.shape}")
    return ImageAttention(shown.reshape(H, W, -1), network.patch_size, weights, rollout(seen)[0, 1:].reshape(grid))


def _weights(network: nn.Module, *inputs: Tensor) -> Mapping[str, Array]:
    """Name in the trace -> α (H, T, S), of one example."""
    if "trace" not in inspect.signature(network.forward).parameters:
        raise ModelError(
            f"{type(network).__name__} shows no attention: its forward takes no trace; give GPT, Llama, BERT, ViT or their kin"
        )
    trace = Trace()
    with evaluating(network):
        network(*inputs, trace=trace)
    seen = {k: v[0] for k, v in trace.values.items() if k.rpartition(".")[2] == "attention"}
    if not seen:
        raise ModelError(f"{type(network).__name__} showed its trace no attention weights")
    return {k: (v if v.dtype == torch.float64 else v.float()).cpu().numpy() for k, v in seen.items()}


def _sizes(network: Any, n: int) -> Sequence[int | None]:
    """Vocabularies of the inputs."""
    expected = 2 if hasattr(network, "encode") else 1
    if n != expected:
        what = "the tokens of a source and those of a target" if expected == 2 else "the tokens of one text"
        raise ModelError(f"{type(network).__name__} reads {what}; got {n} of them")
    return [None, getattr(network, "target_vocab_size", None)][:n]


def _among(wanted: Iterable[int] | None, there: Sequence[int], what: str) -> list[int]:
    chosen = list(there) if wanted is None else list(wanted)
    if not chosen or any(n not in there for n in chosen):
        raise ModelError(f"expected {what} among {', '.join(map(str, there))}, got {chosen}")
    return chosen


def _spoken(name: str) -> str:
    """``decoder.block.0.cross.attention`` -> decoder layer 0, looking at the source."""
    stack, _, rest = name.rpartition("block.")
    number, *between = rest.split(".")[:-1]
    text = f"{stack.rstrip('.')} layer {number}".strip()
    return text + (", looking at the source" if "cross" in between else "")


def _stretched(image: Tensor) -> Array:
    """(C, H, W) of any range as uint8 (H, W, 1 or 3)."""
    x = image.detach().float().cpu().numpy()
    x = x if len(x) in (1, 3) else x.mean(0, keepdims=True)
    low, high = x.min(), x.max()
    stretched: Array = np.rint(255 * (x - low) / ((high - low) or 1)).astype(np.uint8).transpose(1, 2, 0)
    return stretched

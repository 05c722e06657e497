"""Attention maps: the weights of the equation, drawn where they belong, whatever the tokens are."""

from __future__ import annotations

import base64
import io
import itertools
import math
import re
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from groundup.errors import ModelError
from groundup.inside import AttentionMaps, Heads, attention_maps, image_attention, rollout
from groundup.inside.drawing import fitted
from groundup.models.bert import BERT
from groundup.models.cnn import CNN
from groundup.models.gpt import GPT
from groundup.models.llama import Llama
from groundup.models.transformer import Transformer
from groundup.models.vit import ViT

S = "{http://www.w3.org/2000/svg}"
HOSTILE = ["<script>alert(1)</script>", "]]>", "&amp;", '"onload="x', "\u202eabc", "\x00\x07", "\ud800", "\ufffe", "", " \t\n", "\u0301"]


def drawn(weights: Any, rows: Sequence[str], columns: Sequence[str] | None = None) -> ET.Element:
    """The SVG of one head, parsed."""
    α = np.asarray(weights, float)[None]
    heads = Heads("block.0.attention", α, (0,), tuple(rows), tuple(columns or rows))
    return ET.fromstring(AttentionMaps((heads,), None).svg())


def text(element: ET.Element) -> str:
    return "".join(element.itertext())


def random_weights(T: int, columns: int | None = None, seed: int = 0) -> Any:
    return np.random.default_rng(seed).dirichlet(np.full(columns or T, 0.3), T)


# ── weights ─────────────────────────────────────────────────────────────────────────────────────────


def test_weights_are_the_softmax_of_the_equation(seed: int) -> None:
    torch.manual_seed(seed)
    network = GPT(vocab_size=61, n_layers=2, n_heads=3, d_model=21, context=17).double()
    torch.nn.init.normal_(network.blocks[0].attention.qkv.weight)
    x = [3, 1, 4, 1, 5]
    maps = attention_maps(network, x, labels=list("abcde"))
    assert [layer.name for layer in maps.layers] == ["block.0.attention", "block.1.attention"]
    block = network.blocks[0]
    with torch.no_grad():
        X = block.norm_1(network.tokens.weight[x] + network.positions.weight[:5]).T  # (D, T)
        for h, W in enumerate(block.attention.weights().heads):
            S = (W.W_k @ X + W.b_k[:, None]).T @ (W.W_q @ X + W.b_q[:, None]) / math.sqrt(7)
            α = torch.softmax(torch.where(torch.ones(5, 5, dtype=torch.bool).triu(), S, -torch.inf), 0).T
            np.testing.assert_allclose(maps.layers[0].weights[h], α.numpy(), rtol=1e-10, atol=1e-14)


def test_rollout_is_the_sum_over_all_paths(seed: int) -> None:
    """A token's share is what reaches it along every path through the layers, half of each step staying where it is."""
    L, H, T = 3, 2, 4
    α = np.random.default_rng(seed).dirichlet(np.ones(T), (L, H, T))
    step = [[[0.5 * α[i, :, a, b].mean() + 0.5 * (a == b) for b in range(T)] for a in range(T)] for i in range(L)]
    paths = np.zeros((T, T))
    for a, b, c, d in itertools.product(range(T), repeat=4):  # d in layer 0's input, a in layer 2's output
        paths[a, d] += step[2][a][b] * step[1][b][c] * step[0][c][d]
    np.testing.assert_allclose(rollout(list(α)), paths, rtol=1e-12)
    np.testing.assert_allclose(rollout(list(α)).sum(1), 1, rtol=1e-12)


@pytest.mark.parametrize(
    "network",
    [
        Llama(vocab_size=61, n_layers=3, n_heads=4, n_kv_heads=2, d_model=24, d_ff=29, context=17),
        BERT(head="classification", vocab_size=61, n_layers=3, n_heads=4, d_model=24, context=17),
    ],
    ids=["llama", "bert"],
)
def test_other_networks(network: Any) -> None:
    maps = attention_maps(network.train(), torch.tensor([[3, 1, 4, 1, 5]]), labels=list("abcde"))
    assert [layer.weights.shape for layer in maps.layers] == [(4, 5, 5)] * 3
    assert network.training
    causal = isinstance(network, Llama)
    assert all((np.triu(α, 1) == 0).all() == causal for layer in maps.layers for α in layer.weights)
    assert len(ET.fromstring(maps.svg()).findall(f".//{S}rect[@class='spot']")) == (3 * 4 + 1) * 5
    some = maps.only(layers=[2], heads=[3, 1])
    assert [(layer.name, layer.numbers) for layer in some.layers] == [("block.2.attention", (3, 1))]
    np.testing.assert_array_equal(some.layers[0].weights[0], maps.layers[2].weights[3])
    assert some.rolled is maps.rolled
    with pytest.raises(ModelError, match=r"expected heads of block\.2\.attention among 3, 1, got \[0\]"):
        some.only(heads=[0])
    with pytest.raises(ModelError, match=r"expected layers among 0, 1, 2, got \[3\]"):
        maps.only(layers=[3])


def test_an_encoder_decoder_has_three_kinds() -> None:
    network = Transformer(vocab_size=61, target_vocab_size=71, n_layers=1, n_decoder_layers=2, n_heads=2, d_model=22, d_ff=29, context=17)
    maps = attention_maps(network, [3, 1, 4], [70, 5], labels=(list("abc"), list("xy")))
    assert {(layer.name, layer.weights.shape, layer.rows, layer.columns) for layer in maps.layers} == {
        ("encoder.block.0.attention", (2, 3, 3), ("a", "b", "c"), ("a", "b", "c")),
        *((f"decoder.block.{i}.attention", (2, 2, 2), ("x", "y"), ("x", "y")) for i in range(2)),
        *((f"decoder.block.{i}.cross.attention", (2, 2, 3), ("x", "y"), ("a", "b", "c")) for i in range(2)),
    }
    assert maps.rolled is None
    assert "decoder layer 1, looking at the source" in text(ET.fromstring(maps.svg()))
    with pytest.raises(ModelError, match="token 0 is 70, and the network has the tokens 0 to 60"):
        attention_maps(network, [70], [5], labels=("a", "x"))
    with pytest.raises(ModelError, match="the tokens of a source and those of a target; got 1"):
        attention_maps(network, [3], labels=["a"])


@pytest.mark.parametrize(
    ("tokens", "labels", "message"),
    [
        ([], [], "got an empty text"),
        ([1, 61], "ab", "token 1 is 61, and the network has the tokens 0 to 60"),
        ([-1], "a", "token 0 is -1"),
        ([1, 2], "abc", r"a label for each token \(\[2\]\), got \[3\]"),
        ([[1, 2], [3, 4]], "ab", r"the tokens of one text, integers \(T,\) or \(1, T\)"),
        ([0.5], "a", "integers"),
        ([1] * 18, "a" * 18, "18 tokens, and the context is 17; shorten the text"),
    ],
)
def test_what_is_no_text_is_refused(tokens: Any, labels: str, message: str) -> None:
    network = GPT(vocab_size=61, n_layers=1, n_heads=1, d_model=8, context=17)
    with pytest.raises(ModelError, match=message):
        attention_maps(network, tokens, labels=list(labels))


def test_networks_without_attention_are_refused() -> None:
    with pytest.raises(ModelError, match="CNN shows no attention: its forward takes no trace"):
        attention_maps(CNN((1, 8, 8), 3), [1], labels=["a"])
    with pytest.raises(ModelError, match="CNN has no class token"):
        image_attention(CNN((1, 8, 8), 3), torch.zeros(1, 8, 8))


# ── drawings ────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("T", "columns"), [(1, 1), (2, 2), (13, 7), (64, 64)])
def test_every_weight_is_drawn_in_its_place(T: int, columns: int) -> None:
    """Read back from the picture: row, column and √α of each cell."""
    α = random_weights(T, columns)
    svg = drawn(α, ["a"] * T, ["b"] * columns)
    seen = np.zeros((T, columns))
    for path in svg.iter(f"{S}path"):
        for x, y, pitch in re.findall(r"M([\d.]+) ([\d.]+)h([\d.]+)", path.attrib["d"]):
            seen[round(float(y) / float(pitch)), round(float(x) / float(pitch))] = float(path.attrib["fill-opacity"])
    np.testing.assert_allclose(seen, np.sqrt(α), atol=1 / 60)


def test_a_row_tells_what_it_looks_at() -> None:
    svg = drawn([[1, 0, 0], [0.25, 0.75, 0], [0.1, 0.002, 0.898]], ["if", " x", "\n"])
    titles = [text(spot) for spot in svg.findall(f".//{S}rect[@class='spot']")]
    assert titles == [
        "if (0) looks at if (0) 1.000",
        "␣x (1) looks at ␣x (1) 0.750, if (0) 0.250",
        "↵ (2) looks at ↵ (2) 0.898, if (0) 0.100",
    ]


def test_letters_of_64_tokens_can_be_read_and_do_not_touch() -> None:
    svg = drawn(random_weights(64), [f"token{i}" for i in range(64)])
    names = [e for e in svg.iter(f"{S}text") if e.get("class") == "token"]
    assert len(names) == 2
    for name in names:
        size = float(re.findall(r"font-size: ([\d.]+)px", name.attrib["style"])[0])
        ys = [float(span.attrib["y"]) for span in name]
        assert size >= 8
        assert min(np.diff(ys)) >= size
        assert [text(span) for span in name] == [f"token{i}" for i in range(64)]


def test_many_tokens_are_one_image() -> None:
    α = random_weights(65)
    svg = drawn(α, ["a"] * 65)
    (image,) = svg.iter(f"{S}image")
    pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(image.attrib["href"].partition(",")[2]))))
    assert pixels.shape == (65, 65, 4)
    np.testing.assert_allclose(pixels[:, :, 3] / 255, np.sqrt(α), atol=1 / 500)
    assert not list(svg.iter(f"{S}path"))
    drawn(random_weights(3, 100), ["a"] * 3, ["b"] * 100)


def safe(svg: ET.Element) -> None:
    """Nothing runs, nothing is loaded, nothing came in but text."""
    assert {e.tag.removeprefix(S) for e in svg.iter()} <= {
        "svg",
        "style",
        "rect",
        "g",
        "text",
        "tspan",
        "path",
        "title",
        "image",
        "defs",
        "use",
    }
    for e in svg.iter():
        assert not any(name.lower().startswith("on") for name in e.attrib)
        assert e.get("href", "#").startswith(("#", "data:image/png;base64,"))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.text(st.characters(), max_size=30) | st.sampled_from(HOSTILE), min_size=1, max_size=6))
def test_any_token_stays_text(tokens: list[str]) -> None:
    svg = drawn(random_weights(len(tokens)), tokens)
    safe(svg)
    for names in [e for e in svg.iter(f"{S}text") if e.get("class") == "token"]:
        assert [text(span) for span in names] == [fitted(t, 14) for t in tokens]
    assert not re.search("[\u202a-\u202e\u2066-\u2069]", text(svg))


def test_one_file_that_follows_light_and_dark() -> None:
    svg = drawn(np.eye(2), ["a", "b"])
    style = svg.findtext(f"{S}style") or ""
    assert "prefers-color-scheme: dark" in style
    assert ":root" not in style, "a notebook's own colours would change"
    used = set(re.findall(r"var\((--\w+)\)", ET.tostring(svg, encoding="unicode")))
    light, dark = style.split("@media", 1)
    assert all(f"{name}:" in light for name in used)
    assert all(f"{name}:" in dark for name in used - {"--sans", "--mono"})
    maps = AttentionMaps((Heads("block.0.attention", np.eye(2)[None], (0,), ("a", "b"), ("a", "b")),), None)
    assert maps._repr_svg_() == maps.svg()
    assert maps.svg() in maps._repr_html_()


def test_everything_is_inside_the_picture() -> None:
    network = GPT(vocab_size=61, n_layers=2, n_heads=5, d_model=35, context=64)
    maps = attention_maps(network, list(range(40)), labels=[f"word{i}" for i in range(40)])
    svg = ET.fromstring(maps.svg())
    _, _, width, height = map(float, svg.attrib["viewBox"].split())
    panels = [e for e in svg.findall(f"{S}g") if e.find(f"{S}g") is not None]
    assert len(panels) == 2 * 5 + 1
    boxes = []
    for panel in panels:
        (x, y), inner = map(float, re.findall(r"[\d.]+", panel.attrib["transform"])), panel.find(f"{S}g")
        assert inner is not None
        dx, dy = map(float, re.findall(r"[\d.]+", inner.attrib["transform"]))
        ground = inner.find(f"{S}rect")
        assert ground is not None
        boxes.append((x, y, x + dx + float(ground.attrib["width"]), y + dy + float(ground.attrib["height"])))
    assert all(right <= width and below <= height for _, _, right, below in boxes)
    for a, b in itertools.combinations(boxes, 2):
        assert a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1], "two panels overlap"


# ── images ──────────────────────────────────────────────────────────────────────────────────────────


def test_the_class_token_over_an_image() -> None:
    """An image that is no multiple of the patch: 3 × 5 patches, those at the edge cut off."""
    torch.manual_seed(0)
    network = ViT((3, 11, 19), 5, patch_size=4, n_layers=2, n_heads=3, d_model=12).double()
    for block in network.blocks:
        torch.nn.init.normal_(block.attention.qkv.weight)
    image = torch.randn(3, 11, 19, dtype=torch.float64)
    seen = image_attention(network.train(), image)
    assert network.training
    assert [w.shape for w in seen.weights] == [(3, 3, 5), (3, 3, 5)]
    α = network.eval()
    trace: Any = __import__("groundup.nn.trace", fromlist=["Trace"]).Trace()
    α(image[None], trace=trace)
    expected = [v[0].detach().numpy() for v in trace.find("attention")]
    np.testing.assert_array_equal(seen.weights[1], expected[1][:, 0, 1:].reshape(3, 3, 5))
    np.testing.assert_allclose(seen.rolled, rollout(expected)[0, 1:].reshape(3, 5), rtol=1e-12)
    svg = ET.fromstring(seen.svg())
    safe(svg)
    glows = svg.findall(f".//{S}rect[@fill='#ff8a1f']")
    assert len(glows) == (1 + 2 * 3) * 15
    last = seen.weights[1][2].ravel()  # the last picture
    opacity = [float(e.attrib["fill-opacity"]) for e in glows[-15:]]
    np.testing.assert_allclose(opacity, 0.85 * last / last.max(), atol=0.006)
    right, below = (max(float(e.attrib[a]) + float(e.attrib[b]) for e in glows) for a, b in (("x", "width"), ("y", "height")))
    assert right == pytest.approx(160, abs=0.01)
    assert below == pytest.approx(160 * 11 / 19, abs=0.01)
    assert text(glows[-1]) == f"patch 2, 4: {last[-1]:.3f}"


def test_the_image_is_shown_as_it_is() -> None:
    network = ViT((1, 8, 8), 3, patch_size=4, n_layers=1, n_heads=1, d_model=8)
    x = torch.linspace(-1, 1, 64).reshape(1, 8, 8)
    (first, *_) = ET.fromstring(image_attention(network, x).svg()).findall(f"./{S}g//{S}image")
    pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(first.attrib["href"].partition(",")[2]))))
    np.testing.assert_array_equal(pixels, np.rint(255 * np.linspace(0, 1, 64)).reshape(8, 8))
    picture = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    assert image_attention(network, x, picture).picture is not None
    with pytest.raises(ModelError, match=r"expected a uint8 picture of 8 × 8, got uint8 \(7, 8\)"):
        image_attention(network, x, picture[:7, :, 0])
    with pytest.raises(ModelError, match="positions are learned for that size"):
        image_attention(network, torch.zeros(1, 8, 12))
    with pytest.raises(ModelError, match="expected one image"):
        image_attention(network, torch.zeros(2, 1, 8, 8))

"""The graph that writes: the network's logits, its texts, rows that come and go, and weights of 8 and 4 bits."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper

from groundup.errors import ModelError
from groundup.generation import Sampling, generate
from groundup.models.decoder_graph import BLOCK, blocks, decoder_graph
from groundup.models.gpt import GPT
from groundup.models.llama import Llama
from groundup.nn.decoding import NetworkDecoder
from groundup.proof.compare import reordering_bound
from groundup.proof.pretrained import draw
from groundup.serving.decoder import GraphDecoder

SIZES: dict[str, Any] = {"vocab_size": 61, "n_layers": 2, "n_heads": 4, "d_model": 64, "context": 40}
NETWORKS = {
    "gpt": lambda: GPT(**SIZES, dropout=0.0),
    "gpt-gelu": lambda: GPT(**SIZES, dropout=0.0, activation="gelu", d_ff=96),
    "gpt-relu": lambda: GPT(**SIZES, dropout=0.0, activation="relu"),
    "gpt-silu": lambda: GPT(**SIZES, dropout=0.0, activation="silu"),
    "llama": lambda: Llama(**SIZES, n_kv_heads=2, d_head=16, d_ff=96),
    "llama-tied": lambda: Llama(**SIZES, d_ff=96, tied=True, stretch=(8.0, 1.0, 4.0, 11)),
}
PROMPTS = [[5, 7, 9], [3] * 9, [11, 12]]
every_network = pytest.mark.parametrize("name", NETWORKS)
TERMS = 2 * (4 * 64 + 16 + 40 + 64 + 256) + 2 * 64


def pair(name: str, seed: int = 0, bits: Any = 32) -> tuple[GraphDecoder, NetworkDecoder]:
    network: Any = draw(NETWORKS[name](), seed)
    return GraphDecoder(decoder_graph(network, bits).SerializeToString(), threads=1), NetworkDecoder(network)


def gap(a: np.ndarray, b: np.ndarray) -> float:
    assert a.shape == b.shape
    return float(np.abs(a - b).max() / np.abs(b).max())


@every_network
def test_logits_equal_the_networks(name: str, seed: int) -> None:
    """Ragged prompts, steps, rows that swap and go."""
    graph, network = pair(name, seed)
    bound = reordering_bound(TERMS)
    assert gap(graph.start(PROMPTS, 30), network.start(PROMPTS, 30)) < bound
    for i in range(5):
        tokens = [i, i + 3, 2 * i]
        assert gap(graph.step(tokens), network.step(tokens)) < bound
    for rows in ([2, 0], [1]):
        graph.select(rows)
        network.select(rows)
        tokens = list(range(len(rows)))
        assert gap(graph.step(tokens), network.step(tokens)) < bound


@every_network
def test_texts_equal_the_networks(name: str) -> None:
    graph, network = pair(name, 1)
    for settings in (
        Sampling(temperature=0, max_tokens=12),
        Sampling(temperature=0, max_tokens=8, beams=3),
        Sampling(max_tokens=12, top_k=20, seed=3),
    ):
        assert generate(graph, PROMPTS, settings, {4}) == generate(network, PROMPTS, settings, {4})


def test_the_cache_is_written_where_it_lies() -> None:
    graph, _ = pair("llama")
    graph.start(PROMPTS, 20)
    address = graph._cache[0].ctypes.data
    before = graph._cache[0][1, :, :9].copy()
    graph.step([1, 2, 3])
    assert graph._cache[0].ctypes.data == address
    np.testing.assert_array_equal(graph._cache[0][1, :, :9], before)
    assert np.abs(graph._cache[0][1, :, 9]).sum() > 0, "row 1 had nine tokens, this is its tenth"
    np.testing.assert_array_equal(graph.lengths, [4, 10, 3])


@pytest.mark.parametrize(("bits", "levels"), [(8, 128), (4, 8)])
def test_blocks_are_rounded_to_the_nearest_level(bits: int, levels: int, seed: int) -> None:
    W = np.random.default_rng(seed).normal(size=(7, 3 * BLOCK)).astype(np.float32)
    W[2, :BLOCK] = 0
    packed, scales = blocks(W, bits)
    assert packed.shape == (7, 3, BLOCK * bits // 8)
    q = packed.astype(int) if bits == 8 else np.stack([packed & 15, packed >> 4], axis=-1).reshape(7, 3, BLOCK).astype(int)
    rounded = ((q - levels) * scales.reshape(7, 3, 1)).reshape(W.shape)
    step = np.repeat(np.abs(scales.reshape(7, 3)), BLOCK, axis=1)
    off = np.abs(rounded - W)
    # the largest value of a block has the range's end to itself; one of the other sign and as large has a level less
    assert (off <= step * np.where(np.abs(W) > (levels - 1) * step, 1.0, 0.5) + 1e-7).all()
    np.testing.assert_array_equal(rounded[2, :BLOCK], 0)


@pytest.mark.parametrize("bits", [8, 4])
def test_the_runtime_reads_the_blocks_as_they_are_meant(bits: int) -> None:
    rng = np.random.default_rng(0)
    W, x = rng.normal(size=(5, 2 * BLOCK)).astype(np.float32), rng.normal(size=(3, 2 * BLOCK)).astype(np.float32)
    packed, scales = blocks(W, bits)
    node = helper.make_node("MatMulNBits", ["x", "q", "s"], ["y"], domain="com.microsoft", K=2 * BLOCK, N=5, bits=bits, block_size=BLOCK)
    graph = helper.make_graph(
        [node],
        "g",
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, [3, 2 * BLOCK]),
            helper.make_tensor_value_info("q", TensorProto.UINT8, packed.shape),
            helper.make_tensor_value_info("s", TensorProto.FLOAT, scales.shape),
        ],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [3, 5])],
    )
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("com.microsoft", 1)]
    session = onnxruntime.InferenceSession(helper.make_model(graph, opset_imports=opsets, ir_version=10).SerializeToString())
    zero = 1 << (bits - 1)
    q = packed.astype(int) if bits == 8 else np.stack([packed & 15, packed >> 4], axis=-1).reshape(5, 2, BLOCK).astype(int)
    rounded = ((q - zero) * scales.reshape(5, 2, 1)).reshape(W.shape)
    (y,) = session.run(None, {"x": x, "q": packed, "s": scales})
    assert gap(y, x @ rounded.T) < 1e-5


@pytest.mark.parametrize("name", ["gpt", "llama"])
def test_fewer_bits_cost_little_and_less_than_fewer_still(name: str) -> None:
    """Of the distribution over the next token, on random weights, which are harder to round than trained ones."""
    off = {}
    for bits in (32, 8, 4):
        graph, network = pair(name, 2, bits)
        a, b = (torch.from_numpy(decoder.start(PROMPTS, 20)).softmax(-1) for decoder in (graph, network))
        off[bits] = float((a - b).abs().sum(-1).max())
    assert off[32] < 1e-5 < off[8] < 0.1
    assert off[8] < off[4] < 1.0


def test_fewer_bits_are_smaller() -> None:
    sizes = [decoder_graph(NETWORKS["llama"](), bits).ByteSize() for bits in (32, 8, 4)]  # type: ignore[arg-type]
    assert sizes[0] > 2.5 * sizes[1]
    assert sizes[1] > 1.3 * sizes[2]


def test_what_has_no_graph() -> None:
    with pytest.raises(ModelError, match="expected a GPT with norm='pre' or a Llama"):
        decoder_graph(GPT(**SIZES, norm="post"))

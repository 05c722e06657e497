"""A decoder-only transformer as an ONNX graph that writes: tokens and a cache in, the next token's logits and the cache out.

    tokens     (B, T) int64     the next tokens of each row, ragged rows padded on the right
    positions  (B, T) int64     where they stand (GPT alone; Llama's rotation counts from ``lengths``)
    lengths    (B,)   int32     tokens in each row after these, less one
    total      ()     int32     the largest of them, plus one
    last       (B,)   int64     the index in T whose logits are wanted
    past.{i}.k, past.{i}.v      (B, H_kv, S, d_head) float32, room for S tokens
    -> logits  (B, N_V) float32, present.{i}.k, present.{i}.v

What is unusual: attention is ONNX Runtime's GroupQueryAttention, which reads and writes the cache where it lies when past
and present are bound to the same memory: a step copies one token's keys and values and nothing else.  Each row has a
length of its own, so rows come and go between steps.  Weights can be blocks of 8 or 4 bits with a scale each
(MatMulNBits), which a step on a CPU reads from memory faster, and that is where its time goes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, cast

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor

from groundup.errors import ModelError
from groundup.models import gpt, llama
from groundup.models.gpt import GPT
from groundup.models.llama import Llama, Stretch
from groundup.nn.position import frequencies

BLOCK = 32
"""Weights that share a scale."""


def decoder_graph(network: GPT | Llama, bits: Literal[32, 8, 4] = 32) -> onnx.ModelProto:
    """The graph of a network's weights as they are now.

    Args:
        network: GPT or Llama.
        bits: of the weights of every matrix product; embeddings, norms and biases stay float32.

    Raises:
        ModelError: another architecture, or GPT-1's norms after the sums.
    """
    if not isinstance(network, GPT | Llama) or getattr(network, "norm", "pre") != "pre":
        raise ModelError(f"expected a GPT with norm='pre' or a Llama to write with, got {type(network).__name__}")
    g = _Graph(bits)
    names = [f"past.{i}.{part}" for i in range(network.n_layers) for part in "kv"]
    x = _gpt(g, network) if isinstance(network, GPT) else _llama(g, network)
    head = network.tokens.weight if isinstance(network, GPT) or network.tied else network.unembedding.weight
    index = g.node("Unsqueeze", "last", g.constant(np.array([1])))
    g.matmul(g.node("GatherND", x, index, batch_dims=1), head, out="logits")  # (B, T, D) -> (B, D) -> (B, N_V)
    cache: list[str | int | None] = ["B", network.n_heads if isinstance(network, GPT) else network.n_kv_heads, "S", network.d_head]
    inputs = [
        helper.make_tensor_value_info("tokens", TensorProto.INT64, ["B", "T"]),
        *([helper.make_tensor_value_info("positions", TensorProto.INT64, ["B", "T"])] if isinstance(network, GPT) else []),
        helper.make_tensor_value_info("lengths", TensorProto.INT32, ["B"]),
        helper.make_tensor_value_info("total", TensorProto.INT32, []),
        helper.make_tensor_value_info("last", TensorProto.INT64, ["B"]),
        *(helper.make_tensor_value_info(name, TensorProto.FLOAT, cache) for name in names),
    ]
    outputs = [
        helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["B", network.vocab_size]),
        *(helper.make_tensor_value_info(name.replace("past", "present"), TensorProto.FLOAT, cache) for name in names),
    ]
    graph = helper.make_graph(g.nodes, type(network).__name__, inputs, outputs, g.initializers)
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10, producer_name="groundup")
    helper.set_model_props(model, {"context": str(network.context), "vocab_size": str(network.vocab_size), "bits": str(bits)})
    return model


def _gpt(g: _Graph, net: GPT) -> str:
    x = g.node("Add", g.gather(net.tokens.weight, "tokens"), g.gather(net.positions.weight, "positions"))
    approximate = {"gelu_tanh": "tanh", "gelu": "none"}.get(net.activation)
    for i, block in enumerate(cast(list[gpt.Block], list(net.blocks))):
        y = g.layer_norm(x, block.norm_1)
        y = g.linear(y, block.attention.qkv)
        y = g.attention(y, i, net.n_heads, net.n_heads)
        x = g.node("Add", x, g.linear(y, block.attention.out))
        y = g.linear(g.layer_norm(x, block.norm_2), block.mlp.up)
        if approximate is not None:
            y = g.node("Gelu", y, approximate=approximate)
        elif net.activation == "relu":
            y = g.node("Relu", y)
        else:
            y = g.node("Mul", y, g.node("Sigmoid", y))
        x = g.node("Add", x, g.linear(y, block.mlp.down))
    return g.layer_norm(x, net.final_norm)


def _llama(g: _Graph, net: Llama) -> str:
    ω = frequencies(net.d_head, net.rotary_base)
    angle = np.arange(net.context, dtype=np.float32)[:, None] * (ω if net.stretch is None else Stretch(*net.stretch)(ω)).numpy()
    cos, sin = g.constant(np.cos(angle)), g.constant(np.sin(angle))
    x = g.gather(net.tokens.weight, "tokens")
    for i, block in enumerate(cast(list[llama.Block], list(net.blocks))):
        y = g.linear(g.rms_norm(x, block.norm_1), block.attention.qkv)
        y = g.attention(y, i, net.n_heads, net.n_kv_heads, cos, sin)
        x = g.node("Add", x, g.linear(y, block.attention.out))
        y = g.rms_norm(x, block.norm_2)
        gate, up = (g.matmul(y, W) for W in block.mlp.gate_up.weight.chunk(2))
        x = g.node("Add", x, g.linear(g.node("Mul", g.node("Mul", gate, g.node("Sigmoid", gate)), up), block.mlp.down))
    return g.rms_norm(x, net.final_norm)


class _Graph:
    """Nodes and weights in the order in which they are added."""

    def __init__(self, bits: int) -> None:
        self.bits = bits
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []

    def node(self, op: str, *inputs: str, out: str | Sequence[str] | None = None, domain: str = "", **attributes: Any) -> str:
        """Add an operation; gives the name of its first output."""
        outputs = [out] if isinstance(out, str) else list(out or [f"{op}.{len(self.nodes)}"])
        self.nodes.append(helper.make_node(op, list(inputs), outputs, domain=domain, name=f"{op}.{len(self.nodes)}", **attributes))
        return outputs[0]

    def constant(self, value: Tensor | NDArray[Any]) -> str:
        """Add a constant."""
        name = f"w.{len(self.initializers)}"
        array = value.detach().float().numpy() if isinstance(value, Tensor) else value
        self.initializers.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    def gather(self, table: Tensor, index: str) -> str:
        """Rows of a table."""
        return self.node("Gather", self.constant(table), index)

    def linear(self, x: str, linear: Any) -> str:
        """x W.T + b."""
        y = self.matmul(x, linear.weight)
        return y if linear.bias is None else self.node("Add", y, self.constant(linear.bias))

    def matmul(self, x: str, W: Tensor, out: str | None = None) -> str:
        """x W.T in as many bits as asked for; rows whose length no block divides stay float32."""
        if self.bits == 32 or W.shape[1] % BLOCK:
            return self.node("MatMul", x, self.constant(W.T), out=out)
        packed, scales = blocks(W.detach().float().numpy(), self.bits)
        return self.node(
            "MatMulNBits",
            x,
            self.constant(packed),
            self.constant(scales),
            out=out,
            domain="com.microsoft",
            K=W.shape[1],
            N=W.shape[0],
            bits=self.bits,
            block_size=BLOCK,
            accuracy_level=4,  # activations in 8 bits within each product, which is what makes it fast
        )

    def layer_norm(self, x: str, norm: Any) -> str:
        """Algorithm 6."""
        γ, β = self.constant(norm.weight), self.constant(norm.bias)
        return self.node("LayerNormalization", x, γ, β, axis=-1, epsilon=norm.eps)

    def rms_norm(self, x: str, norm: Any) -> str:
        """Zhang & Sennrich's equation 4, by its name in ONNX Runtime."""
        return self.node("SimplifiedLayerNormalization", x, self.constant(norm.weight), axis=-1, epsilon=norm.eps)

    def attention(self, qkv: str, layer: int, n_heads: int, n_kv_heads: int, cos: str = "", sin: str = "") -> str:
        """Causal attention of the packed q, k, v, its cache written in place."""
        return self.node(
            "GroupQueryAttention",
            *(qkv, "", "", f"past.{layer}.k", f"past.{layer}.v", "lengths", "total"),
            *((cos, sin) if cos else ()),
            out=[f"attention.{layer}", f"present.{layer}.k", f"present.{layer}.v"],
            domain="com.microsoft",
            num_heads=n_heads,
            kv_num_heads=n_kv_heads,
            do_rotary=int(bool(cos)),
        )


def blocks(W: NDArray[np.float32], bits: int) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Weights rounded to 8 or 4 bits, symmetric, a scale for each :data:`BLOCK` of a row, in MatMulNBits' layout.

    Args:
        W: (N, K), K a multiple of :data:`BLOCK`.

    Returns:
        packed (N, K / BLOCK, BLOCK · bits / 8), the zero at 2^(bits-1), and scales (N · K / BLOCK,).
    """
    N, K = W.shape
    zero = 1 << (bits - 1)
    blocked = W.reshape(N, K // BLOCK, BLOCK)
    extreme = np.take_along_axis(blocked, np.abs(blocked).argmax(2)[..., None], 2)  # the largest value gets the whole range's end
    scale = extreme / -zero
    q = np.divide(blocked, scale, out=np.zeros_like(blocked), where=scale != 0)
    q = np.clip(np.rint(q) + zero, 0, 2 * zero - 1).astype(np.uint8)
    if bits == 4:
        q = q[..., 0::2] | (q[..., 1::2] << 4)
    return q, scale.ravel().astype(np.float32)

"""Marian's checkpoint folders, as the Hugging Face libraries lay them out: configuration and tensor names of ``models/transformer``.

What is unusual: Marian's waves are all sines before all cosines.  Every channel of the residual stream is alike to
attention, feed-forward maps and normalization, so a network in the paper's order becomes one in Marian's by moving the
rows and columns that stand for channels, and answers the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from torch import Tensor

from groundup.errors import ModelError
from groundup.nn.checkpoint import Source, choose, linear, require

if TYPE_CHECKING:
    from groundup.models.transformer import Transformer

COPIES = ("lm_head.weight", "model.encoder.embed_tokens.weight", "model.decoder.embed_tokens.weight")
"""What old checkpoints hold beside the shared embedding."""

_ACTIVATIONS = {"relu": "relu", "gelu": "gelu", "silu": "silu", "swish": "silu"}


def arguments(config: Mapping[str, Any]) -> dict[str, Any]:
    """Constructor arguments of :class:`Transformer` from a configuration.

    Raises:
        ModelError: it asks for what the architecture here does not have.
    """
    require(config, tie_word_embeddings=True, encoder_layerdrop=0, decoder_layerdrop=0, attention_dropout=0, activation_dropout=0)
    heads, d_ff = config.get("encoder_attention_heads", 16), config.get("encoder_ffn_dim", 4096)
    require(config, decoder_attention_heads=heads, decoder_ffn_dim=d_ff)
    V, shared = config.get("vocab_size", 58101), config.get("share_encoder_decoder_embeddings", True)
    V_target = config.get("decoder_vocab_size") or V
    if shared and V_target != V:
        raise ModelError(f"config.json: decoder_vocab_size is {V_target}, and the embeddings shared with the encoder are {V}")
    return {
        "vocab_size": V,
        "target_vocab_size": None if shared else V_target,
        "n_layers": config.get("encoder_layers", 12),
        "n_decoder_layers": config.get("decoder_layers", 12),
        "n_heads": heads,
        "d_model": config.get("d_model", 1024),
        "d_ff": d_ff,
        "context": config.get("max_position_embeddings", 1024),
        "activation": choose(config, "activation_function", _ACTIVATIONS, "gelu"),
        "positions": "halves",
        "scale_embedding": config.get("scale_embedding", False),
        "dropout": config.get("dropout", 0.1),
        "bos_token": config.get("decoder_start_token_id", 58100),
        "eos_token": config.get("eos_token_id", 0),
        "pad_token": config.get("pad_token_id", 58100),
    }


def configuration(network: Transformer) -> dict[str, Any]:
    """As ``transformers`` writes it for MarianMTModel."""
    return {
        "architectures": ["MarianMTModel"],
        "model_type": "marian",
        "is_encoder_decoder": True,
        "vocab_size": network.vocab_size,
        "decoder_vocab_size": network.target_vocab_size or network.vocab_size,
        "share_encoder_decoder_embeddings": network.target_vocab_size is None,
        "tie_word_embeddings": True,
        "encoder_layers": network.n_layers,
        "decoder_layers": network.n_decoder_layers,
        "encoder_attention_heads": network.n_heads,
        "decoder_attention_heads": network.n_heads,
        "encoder_ffn_dim": network.d_ff,
        "decoder_ffn_dim": network.d_ff,
        "d_model": network.d_model,
        "max_position_embeddings": network.context,
        "activation_function": network.activation,
        "scale_embedding": network.scale_embedding,
        "dropout": network.dropout,
        "attention_dropout": 0.0,
        "activation_dropout": 0.0,
        "decoder_start_token_id": network.bos_token,
        "eos_token_id": network.eos_token,
        "forced_eos_token_id": network.eos_token,
        "pad_token_id": network.pad_token,
    }


def sources(network: Transformer) -> dict[str, Source]:
    """Which of our tensors is which of theirs: q, k and v are apart there."""
    t = network.PREFIX
    table = {"output_bias": Source(("final_logits_bias",))}
    if network.target_vocab_size is None:
        table["tokens.weight"] = Source((f"{t}shared.weight",))
    else:
        table["tokens.weight"] = Source((f"{t}encoder.embed_tokens.weight",))
        table["target_tokens.weight"] = Source((f"{t}decoder.embed_tokens.weight",))
    for side, n_layers in (("encoder", network.n_layers), ("decoder", network.n_decoder_layers)):
        for i in range(n_layers):
            ours, theirs = f"{side}.{i}", f"{t}{side}.layers.{i}"
            table |= linear(f"{ours}.attention.qkv", *(f"{theirs}.self_attn.{part}_proj" for part in "qkv"))
            table |= linear(f"{ours}.attention.out", f"{theirs}.self_attn.out_proj")
            table |= linear(f"{ours}.norm_1", f"{theirs}.self_attn_layer_norm")
            if side == "decoder":
                table |= linear(f"{ours}.cross.q", f"{theirs}.encoder_attn.q_proj")
                table |= linear(f"{ours}.cross.kv", f"{theirs}.encoder_attn.k_proj", f"{theirs}.encoder_attn.v_proj")
                table |= linear(f"{ours}.cross.out", f"{theirs}.encoder_attn.out_proj")
                table |= linear(f"{ours}.norm_2", f"{theirs}.encoder_attn_layer_norm")
            table |= linear(f"{ours}.mlp.up", f"{theirs}.fc1") | linear(f"{ours}.mlp.down", f"{theirs}.fc2")
            table |= linear(f"{ours}.norm_3", f"{theirs}.final_layer_norm")
    return table


_COLUMNS = ("shared.weight", "embed_tokens.weight", "q_proj.weight", "k_proj.weight", "v_proj.weight", "fc1.weight")
_ROWS = ("out_proj.weight", "out_proj.bias", "fc2.weight", "fc2.bias", "layer_norm.weight", "layer_norm.bias")


def reorder(name: str, tensor: Tensor) -> Tensor:
    """A tensor of their name with the even channels of the residual stream (sines) before the odd ones (cosines)."""
    axis = 1 if name.endswith(_COLUMNS) else 0 if name.endswith(_ROWS) else None
    if axis is None:
        return tensor  # no axis of it stands for the residual stream
    D = tensor.shape[axis]
    return tensor[:, [*range(0, D, 2), *range(1, D, 2)]] if axis else tensor[[*range(0, D, 2), *range(1, D, 2)]]

"""ViT: patches two ways, checkpoints both ways, published sizes, and what is refused.  The contract suites have the rest."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import onnxruntime
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from torch import Tensor

from groundup.errors import ModelError
from groundup.models.export import export_network
from groundup.models.vit import PRESETS, ViT, embed_patches
from groundup.nn.trace import Trace
from groundup.proof.compare import difference
from groundup.proof.pretrained import draw
from groundup.proof.vit import prove_transformers

SIZES: dict[str, Any] = {"patch_size": 5, "n_layers": 2, "n_heads": 2, "d_model": 14, "d_ff": 31}


def vit(shape: tuple[int, ...] = (3, 10, 15), seed: int = 0, **more: Any) -> ViT:
    network = ViT(shape, 17, **(SIZES | more))
    draw(network, seed)
    return network.double()


def images(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).double()


def reference(name: str, folder: Path, **more: Any) -> Any:
    sizes = {"hidden_size": 14, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 31}
    config = transformers.ViTConfig(**(sizes | {"image_size": [10, 15], "patch_size": 5, "num_channels": 3} | more))
    network = draw(getattr(transformers, name)(config), seed=0)
    network.save_pretrained(folder)  # type: ignore[operator]
    return network


def test_equals_transformers(seed: int) -> None:
    proofs = prove_transformers((seed,))
    assert len(proofs) == 10
    assert all(p.passed for p in proofs), "\n".join(map(str, proofs))


@pytest.mark.parametrize("shape", [(1, 10, 15), (3, 15, 5)])
def test_a_convolution_is_the_map_of_flattened_patches(shape: tuple[int, ...], seed: int) -> None:
    network, x, trace = vit(shape, seed), images(seed, 3, *shape), Trace()
    network(x, trace=trace)
    E = network.patches.weight.flatten(1).T  # (D, C, P, P) -> (C P², D)
    for image, z in zip(x, trace.values["embedding"], strict=True):
        page = embed_patches(image, network.class_token[0, 0], E, network.patches.bias, network.positions[0])
        assert difference(z, page) < 1e-14


def test_what_is_left_of_an_image_counts(seed: int) -> None:
    """13 × 7 in patches of 5: below and on the right are pixels that whole patches would not see."""
    network, x = vit((3, 13, 7), seed), images(seed, 1, 3, 13, 7).requires_grad_()
    network(x).sum().backward()
    assert (x.grad != 0).all()
    whole = vit((3, 15, 10), seed)
    whole.load_state_dict(network.state_dict())
    assert difference(network(x), whole(torch.nn.functional.pad(x, (0, 3, 0, 2)))) < 1e-14


@pytest.mark.parametrize("shape", [(3, 10, 15), (1, 15, 15)])
def test_transformers_opens_what_is_saved(shape: tuple[int, ...], seed: int, tmp_path: Path) -> None:
    network, x = vit(shape, seed), images(seed, 3, *shape)
    network.save_pretrained(tmp_path)
    other, found = transformers.ViTForImageClassification.from_pretrained(tmp_path, output_loading_info=True)
    assert not found["missing_keys"]
    assert not found["unexpected_keys"]
    assert difference(network(x), other.eval()(x).logits) < 1e-7, "their softmax is computed in float32"
    again = ViT.from_pretrained(tmp_path)
    assert torch.equal(again(x), network(x))
    assert again.to_config() == network.to_config()


def test_trace_shows_what_is_computed(seed: int) -> None:
    network, x, trace = vit(seed=seed), images(seed, 3, 3, 10, 15), Trace()
    assert difference(network(x, trace=trace), network(x)) < 1e-12
    layers = [f"block.{i}.{name}" for i in range(2) for name in ("attention", "output")]
    assert list(trace.values) == ["embedding", *layers, "final_norm", "logits"]
    assert [a.shape for a in trace.find("attention")] == [(3, 2, 7, 7)] * 2


def test_dropout_is_drawn_in_training_alone() -> None:
    x = images(0, 3, 3, 10, 15)
    for which in ("dropout", "attention_dropout"):
        network = vit(**{"dropout": 0.0, "attention_dropout": 0.0, which: 0.5})
        assert torch.equal(network(x), network(x))
        torch.manual_seed(0)
        assert not torch.equal(network.train()(x), network(x)), which


@pytest.mark.parametrize("name", ["ViTModel", "ViTForImageClassification"])
def test_a_new_head_on_an_old_trunk(name: str, tmp_path: Path) -> None:
    pretrained, x, trace = reference(name, tmp_path), images(0, 2, 3, 10, 15).float(), Trace()
    network = ViT.from_pretrained(tmp_path, fresh_head={"n_outputs": 101})
    assert network(x, trace=trace).shape == (2, 101)
    trunk = pretrained if name == "ViTModel" else pretrained.vit
    assert difference(trace.values["final_norm"], trunk(x).last_hidden_state[:, 0]) < 1e-4
    assert 0.015 < float(network.head.weight.detach().std()) < 0.025
    assert not network.head.bias.any()
    again = ViT.from_pretrained(tmp_path, fresh_head={})
    assert again.n_outputs == 2
    assert difference(again.positions, network.positions) == 0


def test_a_trunk_alone_is_no_answer(tmp_path: Path) -> None:
    reference("ViTModel", tmp_path)
    with pytest.raises(ModelError, match=r"missing: classifier\.weight"):
        ViT.from_pretrained(tmp_path)


def test_positions_are_not_interpolated(tmp_path: Path) -> None:
    network = vit()
    with pytest.raises(ModelError, match=r"expected images \(3, 10, 15\), got \(3, 15, 10\); positions .* not interpolated: resize"):
        network(images(0, 1, 3, 15, 10))
    network.save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="ViT takes n_outputs, got input_shape"):
        ViT.from_pretrained(tmp_path, fresh_head={"input_shape": (3, 15, 15)})
    weights = load_file(tmp_path / "model.safetensors")
    weights["vit.embeddings.position_embeddings"] = torch.zeros(1, 10, 14)
    save_file(weights, tmp_path / "model.safetensors")
    with pytest.raises(ModelError, match=r"position_embeddings is \(1, 10, 14\), the config makes it \(1, 7, 14\)"):
        ViT.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"image_size": 224, "patch_size": 15}, "an image of 224 × 224 is no multiple of patches of 15"),
        ({"patch_size": [16, 8]}, "patch_size is 16 × 8, and patches here are square"),
        ({"hidden_act": "gelu_new"}, "hidden_act is 'gelu_new'"),
        ({"qkv_bias": False}, "qkv_bias is False"),
        ({"num_attention_heads": 11}, "d_model 768 is no multiple of n_heads 11"),
    ],
)
def test_configurations_that_are_another_architecture(config: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError, match=message), torch.device("meta"):
        ViT(**ViT.from_config({"model_type": "vit", "num_hidden_layers": 1} | config))


def test_what_cannot_be_saved_or_built(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"an image of 11 × 13 is no multiple of patches of 5; .* use a patch_size that divides both"):
        vit((3, 11, 13)).save_pretrained(tmp_path)
    with pytest.raises(ModelError, match=r"expected images \(channels, height, width\), got features of shape \(7,\)"):
        ViT((7,), 3)


def test_every_key_of_a_configuration(tmp_path: Path) -> None:
    arguments = {"input_shape": (1, 10, 15), "n_outputs": 17, "dropout": 0.2, "attention_dropout": 0.3, "eps": 1e-3} | SIZES
    ViT(**arguments).save_pretrained(tmp_path)
    config = transformers.ViTConfig.from_pretrained(tmp_path)
    assert (config.hidden_dropout_prob, config.attention_probs_dropout_prob, config.layer_norm_eps) == (0.2, 0.3, 1e-3)
    assert ViT.from_config(config.to_dict()) == arguments
    assert ViT.from_config({}) == ViT.from_config(transformers.ViTConfig().to_dict())


def test_labels_are_counted(tmp_path: Path) -> None:
    network = reference("ViTForImageClassification", tmp_path, num_labels=19)
    x = images(0, 2, 3, 10, 15).float()
    assert difference(ViT.from_pretrained(tmp_path)(x), network(x).logits) < 1e-4
    config = json.loads((tmp_path / "config.json").read_text())
    assert len(config["id2label"]) == 19


def test_published_sizes() -> None:
    n, head = {}, {}
    for name, preset in PRESETS.items():
        with torch.device("meta"):
            network = ViT(**preset.config)
        n[name], head[name] = (sum(p.numel() for p in module.parameters()) for module in (network, network.head))
    explained = {
        "vit-b16": head["vit-b16"],
        "vit-b32": n["vit-b32"] - n["vit-b16"] + head["vit-b16"],
        "vit-l16": n["vit-l16"] - n["vit-l32"],
    }
    far = {name for name, preset in PRESETS.items() if abs(n[name] / preset.published - 1) > 0.005}
    assert far == set(explained)
    for name in far:
        assert abs((n[name] - explained[name]) / PRESETS[name].published - 1) < 0.005
    for name, figure in (
        ("vit-b16", head["vit-b16"]),
        ("vit-b16", n["vit-b16"]),
        ("vit-b32", n["vit-b32"] - n["vit-b16"]),
        ("vit-l16", n["vit-l32"] - n["vit-l16"]),
    ):
        assert f" {figure / 1e6:.2f}M" in PRESETS[name].source
    assert f"({n['vit-l32'] / 1e6:.1f}M)" in PRESETS["vit-l16"].source


def test_exported_graph_of_whole_patches(seed: int) -> None:
    network = vit((3, 10, 15), seed).float()
    model, x = export_network(network, (3, 10, 15)), images(seed, 7, 3, 10, 15).float()
    (scores,) = onnxruntime.InferenceSession(model.SerializeToString()).run(None, {"features": x.numpy()})
    assert difference(torch.from_numpy(scores), network(x)) < 1e-5

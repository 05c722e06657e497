"""Checkpoint folders: what is loaded, what is refused, and that memory holds the weights once."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from groundup.errors import ModelError
from groundup.models.gpt import GPT
from groundup.models.llama import Llama

SMALL = {"vocab_size": 31, "n_layers": 2, "n_heads": 2, "d_model": 10, "context": 7}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    GPT(**SMALL).save_pretrained(tmp_path / "gpt")
    return tmp_path / "gpt"


def test_saved_and_loaded_is_the_same(folder: Path) -> None:
    first = GPT.from_pretrained(folder)
    first.save_pretrained(folder.parent / "again")
    assert (folder / "model.safetensors").read_bytes() == (folder.parent / "again" / "model.safetensors").read_bytes()
    assert (folder / "config.json").read_bytes() == (folder.parent / "again" / "config.json").read_bytes()
    assert not first.training
    half = GPT.from_pretrained(folder, dtype=torch.bfloat16)
    assert {p.dtype for p in half.parameters()} == {torch.bfloat16}
    half.save_pretrained(folder)
    assert GPT.from_pretrained(folder).tokens.weight.dtype == torch.bfloat16, "without dtype it is the checkpoint's"


def test_shards_come_and_go(folder: Path) -> None:
    network = GPT.from_pretrained(folder)
    network.save_pretrained(folder, shard_bytes=2000)
    shards = sorted(p.name for p in folder.glob("*.safetensors"))
    assert len(shards) > 3
    assert shards[0] == f"model-00001-of-{len(shards):05d}.safetensors"
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    assert index["metadata"]["total_size"] == 4 * sum(p.numel() for p in network.parameters())
    again = GPT.from_pretrained(folder)
    assert all(torch.equal(a, b) for a, b in zip(network.parameters(), again.parameters(), strict=True))
    network.save_pretrained(folder)
    assert sorted(p.name for p in folder.iterdir()) == ["config.json", "model.safetensors"]


def _edit(change: Callable[[dict[str, torch.Tensor]], None]) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        tensors = load_file(folder / "model.safetensors")
        change(tensors)
        save_file(tensors, folder / "model.safetensors")

    return edit


def _config(**keys: object) -> Callable[[Path], None]:
    return lambda folder: (folder / "config.json").write_text(json.dumps(json.loads((folder / "config.json").read_text()) | keys)) and None


def _only_pickle(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def _index(text: str) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        (folder / "model.safetensors").rename(folder / "a.safetensors")
        (folder / "model.safetensors.index.json").write_text(text)

    return write


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_edit(lambda t: t.pop("transformer.h.1.ln_1.bias") is None), r"missing: transformer\.h\.1\.ln_1\.bias"),
        (_edit(lambda t: t.update(extra=torch.ones(2))), r"surplus: extra, which GPT has no place for"),
        (
            _edit(lambda t: t.update({"transformer.wpe.weight": torch.ones(6, 10)})),
            r"wrongly shaped: transformer.wpe.weight is \(6, 10\), .* \(7, 10\)",
        ),
        (_edit(lambda t: t.update({"lm_head.weight": torch.ones(31, 10)})), r"lm_head.weight .* differs"),
        (_config(n_layer=3), r"missing: transformer\.h\.2\."),
        (_config(n_embd=12), r"wrongly shaped: "),
        (_config(model_type="bert"), r"expected model_type gpt2 or openai-gpt for GPT, got 'bert'"),
        (_config(activation_function="tanh"), r"activation_function is 'tanh'; expected 'gelu_new', "),
        (_config(scale_attn_by_inverse_layer_idx=True), r"scale_attn_by_inverse_layer_idx is True"),
        (lambda f: (f / "config.json").write_text("{"), r"config.json: not JSON"),
        (lambda f: (f / "config.json").write_text("[]"), r"expected a JSON object, got list"),
        (lambda f: (f / "config.json").unlink(), r"config.json: cannot be read"),
        (lambda f: (f / "model.safetensors").unlink(), r"expected model.safetensors or model.safetensors.index.json, found neither"),
        (lambda f: (f / "model.safetensors").write_bytes(b"\x00" * 50), r"not a whole safetensors file"),
        (lambda f: (f / "model.safetensors").write_bytes((f / "model.safetensors").read_bytes()[:-9]), r"not a whole safetensors file"),
        (_only_pickle, r"the weights are pickled \(pytorch_model.bin\).*convert it once"),
        (_index('{"weight_map": {"x": "../a.safetensors"}}'), r"is not in the checkpoint's own folder"),
        (_index('{"weight_map": {"x": "b.safetensors"}}'), r"the shard b.safetensors is missing"),
        (_index('{"weight_map": {"x": "a.safetensors"}}'), r"a.safetensors does not hold x"),
        (_index('{"weight_map": 3}'), r"and it is not that"),
    ],
)
def test_what_is_wrong_is_named(folder: Path, damage: Callable[[Path], object], message: str) -> None:
    damage(folder)
    with pytest.raises(ModelError, match=message):
        GPT.from_pretrained(folder)


def test_a_folder_that_is_not_there() -> None:
    with pytest.raises(ModelError, match="there is no folder"):
        Llama.from_pretrained("nowhere")


def test_weights_are_in_memory_once(tmp_path: Path) -> None:
    """The peak of a process that loads, beside one that only imports; the file is mapped, so its pages count as long as they are held."""
    GPT(vocab_size=4001, n_layers=4, n_heads=4, d_model=1024, context=64).save_pretrained(tmp_path)
    weights = (tmp_path / "model.safetensors").stat().st_size
    code = (
        "import re, sys, groundup.models.gpt as m\n"
        "peak = lambda: int(re.search(r'VmHWM:\\s+(\\d+)', open('/proc/self/status').read())[1]) * 1024\n"
        "before = peak()\n"
        "if len(sys.argv) > 1: network = m.GPT.from_pretrained(sys.argv[1])\n"
        "print(peak() - before)"
    )
    if not Path("/proc/self/status").exists():
        pytest.skip("the peak of a process is read from /proc")
    out = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True, timeout=120)
    assert 0.9 * weights < int(out.stdout) < 1.2 * weights + 32e6, f"{int(out.stdout) / weights:.2f} × the weights"

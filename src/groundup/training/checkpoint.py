"""Checkpoints: one safetensors file each, JSON in its header, named by step and SHA-256; nothing in it can execute.

    work/
      00000120-<sha256>.safetensors     the newest
      00000080-<sha256>.safetensors     the one before, kept until the next is durable

Written to a temporary name, made durable, read back and compared, then renamed: a crash at any point leaves the old ones.
A file whose bytes do not match its name is damaged and is passed over, so a resumed training falls back to the one before.
So is one of another training (other model, data or settings, told by its fingerprint) that the folder was used for before.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from groundup.bundle.files import explaining_storage, fsync_dir, sha256
from groundup.errors import StorageError

KEEP = 2
FORMAT = 1


def write(folder: Path, step: int, tensors: dict[str, Tensor], facts: dict[str, Any]) -> Path:
    """Make a checkpoint durable and drop all but the newest ``KEEP``.

    One of a later step than this is of another training, as this one has not been there yet, and is dropped too: it
    would take the place of this one, step after step.

    Raises:
        StorageError: the disk is full or read-only, or what was read back is not what was written.
    """
    data = save(unshared(tensors), {"facts": json.dumps({"format": FORMAT, **facts})})
    digest = hashlib.sha256(data).hexdigest()
    path = folder / f"{step:08d}-{digest}.safetensors"
    temporary = folder / f".{step:08d}.{os.getpid()}.tmp"
    with explaining_storage(path):
        folder.mkdir(parents=True, exist_ok=True)
        try:
            with open(temporary, "wb") as f:
                f.write(data)
                f.flush()
                os.fsync(f.fileno())
            if sha256(temporary) != digest:
                raise StorageError(f"{path}: what was read back is not what was written; the disk or its memory is failing")
            os.replace(temporary, path)
            fsync_dir(folder)
        finally:
            temporary.unlink(missing_ok=True)
        found = _found(folder)
        here = found.index(path)
        for old in found[:here] + found[here + KEEP :]:
            old.unlink(missing_ok=True)
    return path


def newest(folder: Path, fingerprint: str, note: Callable[[str], None]) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """Tensors and facts of the newest undamaged checkpoint with this fingerprint, or None.

    Each damaged one is noted and removed; those of another training are noted once and left until this one has its own.
    """
    others = 0
    for leftover in folder.glob(".*.tmp"):
        leftover.unlink(missing_ok=True)
    for path in _found(folder):
        step, digest = path.stem.split("-")
        try:
            if sha256(path) != digest:
                raise SafetensorError("its SHA-256 is not the one in its name")
            with safe_open(path, "pt") as f:
                facts = json.loads((f.metadata() or {})["facts"])
                if facts["format"] != FORMAT:
                    raise SafetensorError(f"its format is {facts['format']}, expected {FORMAT}")
                if facts["fingerprint"] != fingerprint:
                    others += 1
                    continue
                return {name: f.get_tensor(name) for name in f.keys()}, facts  # noqa: SIM118 - no mapping
        except (SafetensorError, KeyError, ValueError) as e:
            note(f"checkpoint of step {int(step)} cannot be used ({e}); falling back to the one before")
            path.unlink()
    if others:
        note("the checkpoint here is of another model, data or setting; training starts anew")
    return None


def pack_optimizer(optimizer: torch.optim.Optimizer) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Split an optimizer's state into tensors and JSON facts."""
    tensors, scalars = {}, {}
    for index, entries in optimizer.state_dict()["state"].items():
        for key, value in entries.items():
            if isinstance(value, Tensor):
                tensors[f"{index}.{key}"] = value
            else:
                scalars[f"{index}.{key}"] = value
    return tensors, scalars


def unpack_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor], scalars: dict[str, Any]) -> None:
    """Inverse of :func:`pack_optimizer`; the groups' settings stay those of ``optimizer``."""
    state: dict[int, dict[str, Any]] = {}
    for name, value in [*tensors.items(), *scalars.items()]:
        index, _, key = name.partition(".")
        state.setdefault(int(index), {})[key] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def pack_random() -> tuple[dict[str, Tensor], dict[str, Any]]:
    """State of the global generators that a module may draw from: PyTorch's, and Python's and NumPy's for users' own."""
    name, keys, position, has_gauss, gauss = np.random.get_state(legacy=True)
    tensors = {"torch": torch.get_rng_state(), "numpy": torch.from_numpy(np.asarray(keys, np.uint32).astype(np.int64))}
    return tensors, {"python": random.getstate(), "numpy": [name, int(position), int(has_gauss), float(gauss)]}


def unpack_random(tensors: dict[str, Tensor], facts: dict[str, Any]) -> None:
    """Inverse of :func:`pack_random`."""
    torch.set_rng_state(tensors["torch"])
    version, internal, gauss = facts["python"]
    random.setstate((version, tuple(internal), gauss))
    name, position, has_gauss, cached = facts["numpy"]
    np.random.set_state((name, tensors["numpy"].numpy().astype(np.uint32), position, has_gauss, cached))


def with_prefix(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """``{"a": t}`` as ``{"prefix/a": t}``."""
    return {f"{prefix}/{name}": value for name, value in tensors.items()}


def under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Inverse of :func:`with_prefix`: the tensors of one prefix."""
    return {name[len(prefix) + 1 :]: value for name, value in tensors.items() if name.startswith(prefix + "/")}


def weights(model: nn.Module) -> dict[str, Tensor]:
    """A copy of the model's ``state_dict``."""
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def _found(folder: Path) -> list[Path]:
    """Checkpoints by step, newest first."""
    return sorted(folder.glob("[0-9]*-*.safetensors"), key=lambda p: int(p.name.partition("-")[0]), reverse=True)


def unshared(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Contiguous tensors, tied ones copied: safetensors stores each name's bytes once."""
    seen: set[int] = set()
    result = {}
    for name, value in tensors.items():
        value = value.detach().contiguous()
        storage = value.untyped_storage().data_ptr()
        result[name] = value.clone() if storage in seen else value
        seen.add(storage)
    return result

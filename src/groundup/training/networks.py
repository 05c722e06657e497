"""A network from the catalogue or from a user's module: checked on the meta device, built, fitted, written and read again."""

from __future__ import annotations

import json
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors.torch import load_model, save_model
from torch import nn

from groundup.bundle.files import explaining_storage
from groundup.errors import GroundupError, ModelError
from groundup.training.arrays import Arrays
from groundup.training.loop import Fitted, fit
from groundup.training.settings import Train
from groundup.training.surroundings import Surroundings


class Recipe(Protocol):
    """What is asked of a model's description (``catalogue.Resolved`` is this)."""

    def build(self, feature_shape: Any, n_outputs: int, seed: int, device: str = "cpu") -> Any: ...
    def config(self, feature_shape: Any, n_outputs: int) -> dict[str, Any]: ...


def built(recipe: Recipe, arrays: Arrays, section: Train, seed: int) -> nn.Module:
    """The module with its random initial weights, once it is known to fit the memory and to answer in the right shape.

    Raises:
        ModelError: it does not.
    """
    meta: nn.Module = recipe.build(arrays.feature_shape, arrays.n_outputs, seed, device="meta")
    require_memory(meta, section)
    model: nn.Module = recipe.build(arrays.feature_shape, arrays.n_outputs, seed)
    require_shape(model, arrays)
    return model


def require_memory(model: nn.Module, section: Train) -> None:
    """Refuse a model whose weights, gradients, optimizer state and kept copies alone exceed the free memory."""
    weights = sum(p.numel() * p.element_size() for p in model.parameters())
    moments = 1 if section.optimizer.name == "sgd" else 2
    copies = 1 + 1 + moments + 1 + (section.ema is not None)  # weights, gradients, moments, best, average
    free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if weights * copies > _available(free):
        raise ModelError(
            f"training this model needs {weights * copies / 2**30:.1f} GiB, {copies} copies of its {weights / 2**30:.1f} GiB of weights; "
            f"{_available(free) / 2**30:.1f} GiB are free: choose a smaller width or fewer layers"
        )


def _available(free: int) -> int:
    """Bytes that can be had without swapping: the system's own estimate where it gives one."""
    meminfo = Path("/proc/meminfo")
    if meminfo.exists():
        for line in meminfo.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return free


def require_shape(model: nn.Module, arrays: Arrays) -> None:
    """Ask the model for two samples' scores.

    Raises:
        ModelError: it fails, or answers in another shape than (2, n_outputs).
    """
    model.eval()
    X, expected = torch.from_numpy(arrays.X[:2]), (min(2, len(arrays.X)), arrays.n_outputs)
    try:
        with torch.inference_mode():
            scores = model(X)
    except GroundupError:
        raise
    except (RuntimeError, TypeError, ValueError, IndexError, AttributeError, NotImplementedError) as e:
        raise ModelError(
            f"{type(model).__name__} cannot take features of shape {tuple(X.shape)}: {e}; expected forward(features) -> scores {expected}"
        ) from e
    if not isinstance(scores, torch.Tensor) or tuple(scores.shape) != expected:
        got = tuple(scores.shape) if isinstance(scores, torch.Tensor) else type(scores).__name__
        raise ModelError(
            f"{type(model).__name__} gave {got} for {tuple(X.shape)}; expected a tensor {expected}: give its last layer n_outputs"
        )


def fitted(
    recipe: Recipe,
    arrays: Arrays,
    section: Train,
    surroundings: Surroundings,
    *,
    fingerprint: str = "",
    on_epoch: Callable[[int, dict[str, float]], None] | None = None,
    watch: tuple[str, ...] = (),
) -> tuple[nn.Module, Fitted]:
    """Build and train; the module holds the best weights."""
    model = built(recipe, arrays, section, surroundings.seed)
    return model, fit(model, arrays, section, surroundings, fingerprint=fingerprint, on_epoch=on_epoch, watch=watch)


def write(model: nn.Module, path: Path) -> None:
    """Weights as safetensors; tied ones once."""
    with explaining_storage(path):
        save_model(model, str(path))


def read(recipe: Recipe, feature_shape: tuple[int, ...], n_outputs: int, path: Path) -> nn.Module:
    """The module in evaluation mode with the weights of ``path``.

    Raises:
        ModelError: the weights are not this model's.
    """
    model: nn.Module = recipe.build(feature_shape, n_outputs, 0)
    try:
        load_model(model, str(path))
    except (RuntimeError, OSError) as e:
        raise ModelError(f"{path}: not the weights of {type(model).__name__}: {e}") from e
    return model.eval()


def parameters(model: nn.Module) -> int:
    """Number of parameters, tied ones once."""
    return sum(p.numel() for p in model.parameters())


def config_json(config: dict[str, Any]) -> bytes:
    """``config.json``: everything that builds the module again."""
    return (json.dumps(config, indent=2) + "\n").encode()


@torch.inference_mode()
def latency(model: nn.Module, arrays: Arrays, repeats: int = 50) -> float:
    """Median milliseconds to score one sample, after warm-up."""
    X = torch.from_numpy(arrays.X[:1])
    times = []
    for i in range(repeats + 5):
        began = time.perf_counter()
        model(X)
        if i >= 5:
            times.append(time.perf_counter() - began)
    return statistics.median(times) * 1000

"""estimate: what a run would cost.  Time from the last time a stage was made here, or from a few steps tried now; memory from sizes.

A figure nobody can know yet is left empty rather than guessed.
"""

from __future__ import annotations

import math
import os
import statistics
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from groundup.errors import GroundupError
from groundup.lifecycle.prepare import Prepared
from groundup.lifecycle.record import home_of
from groundup.lifecycle.run import Planned, plan
from groundup.recipe import Recipe

if TYPE_CHECKING:
    from groundup.catalogue.resolve import Resolved
    from groundup.catalogue.size import Size

_LIBRARIES_MB = {
    "prepare": 320,
    "tune": 330,
    "train": 600,
    "evaluate": 450,
    "compress": 615,
    "package": 235,
    "rehearse": 340,
    "register": 350,
    "report": 200,
}
"""Resident memory of each stage run alone on small data (digits, and a table of 800 rows: the larger), its server or other children
included, without tune's workers.  Measured on Linux x86-64 with the pinned requirements, as the sum over the process tree."""
_WORKER_MB = 370
"""The same of one of tune's workers."""
_TRIED = 5  # steps
_AFFORDABLE = 2e9  # multiplications of one step; more would make a plan slow


@dataclass(frozen=True)
class Estimate:
    """One line of ``groundup plan``.

    Attributes:
        time: as people say it, with where the figure is from.
        memory: resident memory of the stage's processes at their largest, were it run alone.
    """

    planned: Planned
    time: str
    memory: str


def estimate(recipe: Recipe, *, home: Path | None = None) -> list[Estimate]:
    """The plan of a recipe with expected time and memory."""
    lines = plan(recipe, home=home)
    prepared = _newest(home_of(recipe, home))
    model = _model(recipe, prepared) if prepared is not None and any(line.cached is not True for line in lines) else None
    found = []
    for line in lines:
        if line.cached:
            found.append(Estimate(line, "0 s", ""))
            continue
        seconds = _training_seconds(recipe, prepared, *model) if line.name == "train" and model and prepared else None
        if seconds is not None:
            said = f"{_rounded(seconds)} s of steps, tried now"
        else:
            said = f"{_rounded(line.last_seconds)} s, as last time" if line.last_seconds is not None else ""
        found.append(Estimate(line, said, _memory(line.name, recipe, prepared, model[1] if model else None)))
    return found


def _newest(home: Path) -> Prepared | None:
    made = [p for p in (home / "cache" / "prepare").glob("*/output.json") if not p.parent.name.startswith(".")]
    return Prepared.load(max(made, key=lambda p: p.stat().st_mtime).parent) if made else None


def _model(recipe: Recipe, prepared: Prepared) -> tuple[Resolved, Size] | None:
    """The model and its size, counted on the meta device; None where it will not build."""
    from groundup.catalogue import resolve

    try:
        resolved = resolve(recipe.model, recipe.root)
        return resolved, resolved.check(prepared.feature_shape, prepared.n_outputs)
    except GroundupError:
        return None  # a plan is no place to fail; validate says what is wrong


def _training_seconds(recipe: Recipe, prepared: Prepared, resolved: Resolved, size: Size) -> float | None:
    """All epochs, by a few optimizer steps in fp32 on the first batch; None for an estimator, or where trying would take long.

    The stage's start (imports) and the metrics after each epoch come on top; early stopping takes away.
    """
    settings = recipe.train
    n = prepared.sizes["train"]
    batch = min(settings.batch_size, n)
    if resolved.kind != "network" or size.macs is None or 3 * size.macs * batch > _AFFORDABLE:
        return None
    import torch

    from groundup.training import optimizers
    from groundup.training.losses import Loss

    x = torch.from_numpy(prepared.features("train")[:batch].copy())
    y = torch.zeros(batch) if prepared.classes is None else torch.zeros(batch, dtype=torch.int64)
    network = resolved.build(prepared.feature_shape, prepared.n_outputs, seed=0).train()
    optimizer, loss = optimizers.build(settings.optimizer, network), Loss(regression=prepared.classes is None)
    took = []
    for _ in range(_TRIED + 2):
        began = time.perf_counter()
        optimizer.zero_grad(set_to_none=True)
        loss(network(x), y).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        took.append(time.perf_counter() - began)
    return statistics.median(took[2:]) * math.ceil(n / batch) * settings.epochs  # the first two pay for what is made once


def _rounded(seconds: float) -> str:
    """Two figures at most: it is an estimate."""
    return f"{max(math.ceil(seconds), 1):.0f}" if seconds < 100 else f"{float(f'{seconds:.1e}'):,.0f}"


def _memory(stage: str, recipe: Recipe, prepared: Prepared | None, size: Size | None) -> str:
    """Resident memory at the largest; at least the libraries' where the data is not prepared yet."""
    base = _LIBRARIES_MB.get(stage)
    if base is None:
        return ""
    workers = 0
    if stage == "tune" and recipe.tune is not None:
        workers = recipe.tune.workers or min(len(os.sched_getaffinity(0)), 4)
    base += workers * _WORKER_MB
    if prepared is None:
        return f"at least {base:,} MB"
    data = 4 * sum(prepared.sizes.values()) * math.prod(prepared.feature_shape)
    training = (size.training_bytes(recipe.train.batch_size) or 0) if size is not None and stage in ("tune", "train") else 0
    return f"{base + (max(workers, 1) * training + data) / 1e6:,.0f} MB"

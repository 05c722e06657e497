"""estimate: what a run would cost.  Time from the last time a stage was made here, memory from sizes that are known before.

Memory is what a stage needs beyond the libraries it imports; a figure nobody can know yet is left empty rather than guessed.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from groundup.errors import GroundupError
from groundup.lifecycle.prepare import Prepared
from groundup.lifecycle.run import Planned, home_of, plan
from groundup.recipe import Recipe

_LIBRARIES_MB = {
    "prepare": 350,
    "tune": 450,
    "train": 450,
    "evaluate": 350,
    "compress": 450,
    "package": 350,
    "rehearse": 300,
    "register": 450,
    "report": 150,
}
"""Resident memory of the libraries that a stage imports, measured on Linux x86-64 with the pinned requirements, rounded up."""


@dataclass(frozen=True)
class Estimate:
    """One line of ``groundup plan``.

    Attributes:
        time: as people say it, with where the figure is from.
        memory: resident memory of the process at its largest.
    """

    planned: Planned
    time: str
    memory: str


def estimate(recipe: Recipe, *, home: Path | None = None) -> list[Estimate]:
    """The plan of a recipe with expected time and memory."""
    lines = plan(recipe, home=home)
    prepared = _newest(home_of(recipe, home))
    training = _training_bytes(recipe, prepared) if any(line.cached is not True for line in lines) else None
    found = []
    for line in lines:
        if line.cached:
            time = "0 s"
        elif line.last_seconds is not None:
            time = f"{line.last_seconds:.0f} s, as last time"
        else:
            time = ""
        found.append(Estimate(line, time, "" if line.cached else _memory(line.name, recipe, prepared, training)))
    return found


def _newest(home: Path) -> Prepared | None:
    made = [p for p in (home / "cache" / "prepare").glob("*/output.json") if not p.parent.name.startswith(".")]
    return Prepared.load(max(made, key=lambda p: p.stat().st_mtime).parent) if made else None


def _training_bytes(recipe: Recipe, prepared: Prepared | None) -> int | None:
    """Memory of one training step, counted on the meta device; None where the data is not prepared yet or the model will not build."""
    if prepared is None:
        return None
    from groundup.catalogue import resolve

    try:
        size = resolve(recipe.model, recipe.root).check(prepared.feature_shape, prepared.n_outputs)
    except GroundupError:
        return None  # a plan is no place to fail; validate says what is wrong
    return size.training_bytes(recipe.train.batch_size)


def _memory(stage: str, recipe: Recipe, prepared: Prepared | None, training: int | None) -> str:
    base = _LIBRARIES_MB.get(stage)
    if base is None or prepared is None:
        return ""
    values = sum(prepared.sizes.values())
    for n in prepared.feature_shape:
        values *= n
    data = 4 * values
    if stage in ("tune", "train"):
        workers = (recipe.tune.workers or 1) if stage == "tune" and recipe.tune is not None else 1
        return f"{(workers * (base * 10**6 + (training or 0)) + data) / 1e6:,.0f} MB"
    return f"{base + data / 1e6:,.0f} MB"

"""validate: everything that can fail late is tried early, on a sample, and nothing is kept.

Each check is tried whatever the others found, so that one pass shows every mistake.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from groundup.data.sources import TableSource, find
from groundup.errors import LIBRARIES, GroundupError, MissingExtraError, RecipeError
from groundup.lifecycle.prepare import Prepared, prepare
from groundup.lifecycle.stage import Context
from groundup.lifecycle.steps import cleaner, load
from groundup.recipe import Recipe

SAMPLE = 2000
_FREE = 200_000_000  # bytes; less than this left on the disk is worth a word


@dataclass(frozen=True)
class Finding:
    """One check: what was tried, whether it passed, what was found."""

    what: str
    passed: bool
    detail: str


def validate(recipe: Recipe, home: Path | None = None) -> list[Finding]:
    """Check a recipe that could be read: goals, libraries, steps, data sample, model, folder.

    Args:
        home: as the run would be given it; what is made goes there.
    """
    findings: list[Finding] = []
    prepared: list[Prepared] = []

    def check(what: str, attempt: Callable[[], str]) -> None:
        try:
            findings.append(Finding(what, True, attempt()))
        except GroundupError as e:
            findings.append(Finding(what, False, str(e)))

    def sample() -> str:
        prepared.append(_sample(recipe, folder))
        return _described(prepared[0])

    with tempfile.TemporaryDirectory() as folder:
        findings.append(Finding("recipe", True, f"{recipe.name}: every key is known and every value has its type"))
        check("goals", lambda: _goals(recipe))
        check("libraries", _libraries)
        if recipe.steps:
            check("steps", lambda: ", ".join(f"{s.name}: {load(s, recipe.root).__name__}" for s in recipe.steps))
        check("data", sample)
        if prepared:
            check("model", lambda: _model(recipe, prepared[0]))
        check("folder", lambda: _folder(recipe.root if home is None else home))
    return findings


def _goals(recipe: Recipe) -> str:
    recipe.gates.check(recipe.task)
    from groundup.evaluation.gates import gates_of

    n = len(list(gates_of(recipe.gates)))
    return f"{n} gate{'s' if n != 1 else ''}, all on metrics of {recipe.task}" if n else "no gates: nothing stops a poor model"


def _libraries() -> str:
    missing = [name for module, name in LIBRARIES.items() if not _present(module)]
    if missing:
        raise MissingExtraError(", ".join(missing), "train", "running a recipe")
    return ", ".join(LIBRARIES.values())


def _present(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ImportError:
        return False


def _sample(recipe: Recipe, folder: str) -> Prepared:
    """Prepare the first rows as a run would, in a temporary folder, with a schema file there if one has to be inferred."""
    limit = min(recipe.data.limit or SAMPLE, SAMPLE)
    changes: dict[str, object] = {"limit": limit, "leaks": "warn"}  # leaks show on all rows or not at all
    table = isinstance(find(recipe.data, recipe.root), TableSource)
    if table and not (recipe.root / (recipe.data.schema_ or "schema.yaml")).exists():
        changes["schema_"] = str(Path(folder) / "schema.yaml")
    section = recipe.data.model_copy(update=changes)
    out, work = Path(folder) / "out", Path(folder) / "work"
    out.mkdir()
    work.mkdir()
    clean = cleaner([s for s in recipe.steps if s.after == "source"], recipe.root)
    return prepare(section, task=recipe.task, out=out, context=Context(root=recipe.root, work=work, seed=recipe.seed), clean=clean)


def _described(prepared: Prepared) -> str:
    shape = " × ".join(map(str, prepared.feature_shape))
    what = f"{len(prepared.classes)} classes of {prepared.target!r}" if prepared.classes else f"values of {prepared.target!r}"
    bad = f"; {prepared.quarantined} rows would be quarantined" if prepared.quarantined else ""
    return f"the first {sum(prepared.sizes.values()):,} rows: {len(prepared.inputs)} inputs, {shape} features, {what}{bad}"


def _model(recipe: Recipe, prepared: Prepared) -> str:
    from groundup.catalogue import resolve

    resolved = resolve(recipe.model, recipe.root)
    size = resolved.check(prepared.feature_shape, prepared.n_outputs)
    if size.parameters is None:
        return f"{resolved.name}: an estimator that can be exported"
    return f"{resolved.name}: {size.parameters:,} parameters, {size.macs or 0:,} multiplications an answer"


def _folder(folder: Path) -> str:
    """Whether a run can write there; a home is made where there is none."""
    there = next(p for p in (folder.absolute(), *folder.absolute().parents) if p.exists())
    if not there.is_dir() or not os.access(there, os.W_OK):
        raise RecipeError(f"{folder} cannot be written; choose a folder of yours with --home: it takes all that a run makes")
    free = shutil.disk_usage(there).free
    if free < _FREE:
        raise RecipeError(f"{folder}: {free / 1e6:.0f} MB are left on this disk; free at least {_FREE / 1e6:.0f} MB")
    return f"writable, {free / 1e9:.1f} GB free"

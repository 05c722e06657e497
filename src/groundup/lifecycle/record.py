"""What a run leaves: its stages' outputs, the record in the home, and the bundle and the report where a person looks for them."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from groundup.bundle import Bundle, Proof, cpu
from groundup.bundle.files import explaining_storage, make_folder, sweep, whole_directory, write_bytes, write_json
from groundup.errors import GroundupError
from groundup.lifecycle.cache import code_hash, environment
from groundup.recipe import Recipe


def home_of(recipe: Recipe, home: Path | None = None) -> Path:
    """The folder of caches, runs and the registry: ``--home``, else ``.groundup`` beside the recipe."""
    return home if home is not None else recipe.root / ".groundup"


def _chosen(home: Path, recipe: Recipe) -> bool:
    """Whether the home is another than the recipe's own: for somebody who may not, or would rather not, write beside the recipe."""
    return home.resolve() != home_of(recipe).resolve()


@dataclass
class StageRun:
    """One stage of a run.

    Attributes:
        key: hash of its inputs.
        cached: whether the output was there already.
        seconds: time spent in this run (reading the cache, or making the output).
    """

    name: str
    key: str
    path: Path
    cached: bool
    seconds: float


@dataclass
class Run:
    """What a run left: the stages' outputs by name, their proofs, and where the bundle and the report are."""

    id: str
    recipe: Recipe
    home: Path
    stages: dict[str, StageRun] = field(default_factory=dict)
    outputs: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0
    started: str = ""

    @property
    def proofs(self) -> list[Proof]:
        """Every proof made on the way, in the order of the chain."""
        records = [getattr(output, "proofs", None) for output in self.outputs.values()]
        found = [p for proofs in records if isinstance(proofs, list) for p in proofs]
        unique = {(p.link, p.claim): p for p in found}
        return sorted(unique.values(), key=lambda p: p.link)

    @property
    def build(self) -> Path:
        """Where a person looks for what was made: ``build/`` beside the recipe, or ``build/NAME/`` in a home of their choice."""
        return self.home / "build" / self.recipe.name if _chosen(self.home, self.recipe) else self.recipe.root / "build"

    @property
    def bundle(self) -> Path | None:
        """The published bundle, once the run has made one."""
        return self.build / "bundle" if {"package", "rehearse"} & self.outputs.keys() else None

    @property
    def report(self) -> Path | None:
        """The published report, once the run has made one."""
        return self.build / "report.html" if "report" in self.outputs else None

    def write(self, status: str, message: str = "") -> None:
        """Leave ``run.json`` in the home."""
        folder = self.home / "runs" / self.id
        with explaining_storage(folder):
            make_folder(folder)
            for other in folder.parent.glob("*/"):  # a run that was killed here never comes back to its own folder
                if not (other / "run.json").exists():
                    sweep(other / "run.json")
            write_json(
                folder / "run.json",
                {
                    "id": self.id,
                    "status": status,
                    "message": message,
                    "started": self.started,
                    "seconds": self.seconds,
                    "recipe": self.recipe.dump(),
                    "root": str(self.recipe.root),
                    "code": code_hash(),
                    "libraries": environment(),
                    "cpu": {"name": cpu.description(), "features": list(cpu.features())},
                    "stages": {
                        s.name: {"key": s.key, "path": str(s.path), "seconds": s.seconds, "cached": s.cached} for s in self.stages.values()
                    },
                    "proofs": [p.to_dict() for p in self.proofs],
                },
            )
            write_bytes(self.home / "runs" / "latest", self.id.encode())

    def publish(self) -> None:
        """Put the newest bundle and the report into :attr:`build`; a bundle that is there already stays."""
        newest = next((self.outputs[s] for s in ("rehearse", "package") if s in self.outputs), None)
        if newest is not None:
            made = Bundle.open(newest.path / "bundle")
            target = self.build / "bundle"
            try:
                current = Bundle.open(target).version
            except GroundupError:
                current = ""
            if current != made.version:
                with whole_directory(target) as folder:
                    shutil.copytree(made.path, folder, dirs_exist_ok=True)
        if "report" in self.outputs:
            with explaining_storage(self.build):
                make_folder(self.build)
                write_bytes(self.build / "report.html", (self.outputs["report"].path / "report.html").read_bytes())

    def _repr_html_(self) -> str:
        from groundup.reporting.fragments import run_summary

        return run_summary(self.outputs, self.proofs)

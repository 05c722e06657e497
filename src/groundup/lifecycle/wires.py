"""The wires between the stages: what each depends on, and how it is called.

Every stage has one method here that hands it its section and the outputs before it, and one entry each in ``_needs`` and
``_sections``, which together are its cache key.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from groundup.bundle import cpu
from groundup.bundle.files import make_folder
from groundup.data.job import schema_path
from groundup.data.settings import Data
from groundup.lifecycle import cache as caching
from groundup.lifecycle.stage import Context, Output
from groundup.lifecycle.steps import StepOutput, cleaner, run_step, step_hash
from groundup.recipe import Recipe

STAGES = ("prepare", "tune", "train", "evaluate", "compress", "package", "rehearse", "register", "report")


def stages_of(recipe: Recipe) -> list[str]:
    """The stages that this recipe has, user steps (``step:NAME``) among them, in order."""
    names = []
    for stage in STAGES:
        if stage == "tune" and recipe.tune is None:
            continue
        names.append(stage)
        names += [f"step:{s.name}" for s in recipe.steps if s.after == stage]
    return names


class Wires:
    """The stages of one recipe in one home.

    Attributes:
        outputs, keys: of the stages that are done, by name; the run fills them.
        run_id: MLflow's id of the run, once there is one.
    """

    def __init__(self, recipe: Recipe, home: Path) -> None:
        self.recipe, self.home = recipe, home
        self.outputs: dict[str, Any] = {}
        self.keys: dict[str, str] = {}
        self.run_id: str | None = None

    def inputs(self, name: str) -> dict[str, Any]:
        """What a stage's output depends on, as plain data."""
        return {
            "stage": name,
            "code": caching.code_hash(),
            "libraries": caching.environment(),
            "seed": self.recipe.seed,
            **self._sections(name),
            "needs": {n: self.keys[n] for n in self._needs(name)},
        }

    def _needs(self, name: str) -> list[str]:
        if name.startswith("step:"):
            return [next(s.after for s in self.recipe.steps if f"step:{s.name}" == name)]
        needs = {
            "prepare": [],
            "tune": ["prepare"],
            "train": ["prepare"],
            "evaluate": ["prepare", "train"],
            "compress": ["prepare", "train"],
            "package": ["prepare", "train", "evaluate", "compress"],
            "rehearse": ["prepare", "package"],
            "register": ["prepare", "evaluate", "rehearse"],
            "report": [s for s in STAGES[:-1] if s in self.outputs],
        }
        return needs[name]

    def _sections(self, name: str) -> dict[str, Any]:
        r = self.recipe
        machine = {"cpu": cpu.description(), "features": list(cpu.features())}
        match name:
            case "prepare":
                from groundup.data import fingerprint

                steps = {s.name: step_hash(s, r.root) for s in r.steps if s.after == "source"}
                return {"task": r.task, "data": fingerprint(self._data(), r.root), "section": _plain(r.data), "steps": steps}
            case "tune":
                model, train = r.model, r.train
                return {"section": _plain(r.tune), "model": self._model_plain(model), "train": _plain(train)}
            case "train":
                model, train = self._effective()
                return {"section": _plain(train), "model": self._model_plain(model)}
            case "evaluate":
                return {"section": _plain(r.evaluate), "gates": _plain(r.gates)}
            case "compress":
                return {"section": _plain(r.compress), "machine": machine}
            case "package":
                return {"section": _plain(r.package), "name": r.name, "serve": _plain(r.serve), "monitor": _plain(r.monitor)}
            case "rehearse":
                return {"section": _plain(r.rehearse), "machine": machine}
            case "register":
                return {"section": _plain(r.register_), "name": r.name}
            case "report":
                return {"name": r.name}
        step = next(s for s in r.steps if f"step:{s.name}" == name)
        return {"step": step_hash(step, r.root)}

    def _model_plain(self, model: Any) -> dict[str, Any]:
        from groundup.catalogue.importing import module_hash

        return {**_plain(model), "source": module_hash(model.class_, self.recipe.root) if model.class_ else ""}

    def _effective(self) -> tuple[Any, Any]:
        """The model and train sections with the best setting of tune in them."""
        if "tune" not in self.outputs:
            return self.recipe.model, self.recipe.train
        from groundup.lifecycle.overrides import apply

        return apply(self.outputs["tune"].overrides, self.recipe.model, self.recipe.train)

    def call(self, name: str, out: Path, context: Context) -> Output:
        if name.startswith("step:"):
            step = next(s for s in self.recipe.steps if f"step:{s.name}" == name)
            return run_step(step, self.outputs[step.after], context)
        wire: Callable[[Path, Context], Output] = getattr(self, f"_{name}")
        return wire(out, context)

    def _data(self) -> Data:
        """The data section; its schema stands in the home where the recipe's folder cannot be written and has none."""
        data, root = self.recipe.data, self.recipe.root
        if data.schema_ is not None or schema_path(data, root).exists() or os.access(root, os.W_OK):
            return data
        return data.model_copy(update={"schema_": str(self.home.resolve() / "build" / self.recipe.name / "schema.yaml")})

    def _prepare(self, out: Path, context: Context) -> Output:
        from groundup.lifecycle.prepare import prepare

        clean = cleaner([s for s in self.recipe.steps if s.after == "source"], self.recipe.root)
        data = self._data()
        if data is not self.recipe.data:
            path = schema_path(data, self.recipe.root)
            make_folder(path.parent)
            context.progress.note(f"{self.recipe.root} cannot be written; a schema is looked for, and written, at {path}")
        return prepare(data, task=self.recipe.task, out=out, context=context, clean=clean)

    def _tune(self, out: Path, context: Context) -> Output:
        from groundup.lifecycle.tune import tune

        assert self.recipe.tune is not None
        return tune(self.recipe.tune, self.recipe.model, self.recipe.train, self.outputs["prepare"], out=out, context=context)

    def _train(self, out: Path, context: Context) -> Output:
        from groundup.lifecycle.train import train

        model, section = self._effective()
        return train(section, model, self.outputs["prepare"], out=out, context=context)

    def _evaluate(self, out: Path, context: Context) -> Output:
        from groundup.lifecycle.evaluate import evaluate

        o = self.outputs
        return evaluate(self.recipe.evaluate, self.recipe.gates, o["prepare"], o["train"], out=out, context=context)

    def _compress(self, out: Path, context: Context) -> Output:
        from groundup.lifecycle.compress import compress

        return compress(self.recipe.compress, self.outputs["prepare"], self.outputs["train"], out=out, context=context)

    def _package(self, out: Path, context: Context) -> Output:
        from groundup.lifecycle.package import package

        r, o = self.recipe, self.outputs
        return package(
            r.package,
            name=r.name,
            serve=_plain(r.serve),
            monitor=_plain(r.monitor),
            prepared=o["prepare"],
            trained=o["train"],
            evaluated=o["evaluate"],
            compressed=o["compress"],
            out=out,
            context=context,
        )

    def _rehearse(self, out: Path, context: Context) -> Output:
        from groundup.lifecycle.rehearse import rehearse

        return rehearse(self.recipe.rehearse, self.outputs["prepare"], self.outputs["package"], out=out, context=context)

    def _register(self, out: Path, context: Context) -> Output:
        from groundup.lifecycle.register import register

        r, o = self.recipe, self.outputs
        return register(
            r.register_,
            name=r.name,
            evaluated=o["evaluate"],
            rehearsed=o["rehearse"],
            prepared=o["prepare"],
            home=self.home,
            run_id=self.run_id,
            out=out,
            context=context,
        )

    def _report(self, out: Path, context: Context) -> Output:
        from groundup.lifecycle.report import report

        o = self.outputs
        wanted = {
            "prepared": "prepare",
            "tuned": "tune",
            "trained": "train",
            "evaluated": "evaluate",
            "compressed": "compress",
            "packaged": "package",
            "rehearsed": "rehearse",
            "registered": "register",
        }
        return report(**{name: o.get(stage) for name, stage in wanted.items()}, out=out, context=context)


def _plain(section: Any) -> dict[str, Any]:
    dumped: dict[str, Any] = section.model_dump(mode="json", by_alias=True)
    return dumped


def output_type(name: str) -> type[Output]:
    if name.startswith("step:"):
        return StepOutput
    types = {
        "prepare": "Prepared",
        "tune": "Tuned",
        "train": "Trained",
        "evaluate": "Evaluated",
        "compress": "Compressed",
        "package": "Packaged",
        "rehearse": "Rehearsed",
        "register": "Registered",
        "report": "Reported",
    }
    found: type[Output] = getattr(importlib.import_module(f"groundup.lifecycle.{name}"), types[name])
    return found

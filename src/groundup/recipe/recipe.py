"""The recipe: one configuration from data to monitoring, composed of the sections that the stages own.

Only ``data`` and ``model`` must be written; every other section has working defaults.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, PrivateAttr, ValidationError, field_validator, model_validator

from groundup.catalogue import Model
from groundup.errors import RecipeError
from groundup.lifecycle.compress import Compress
from groundup.lifecycle.evaluate import Evaluate, Gates
from groundup.lifecycle.package import Package
from groundup.lifecycle.prepare import Data, Task
from groundup.lifecycle.register import Register
from groundup.lifecycle.rehearse import Rehearse
from groundup.lifecycle.train import Train
from groundup.lifecycle.tune import Tune
from groundup.monitoring.settings import Monitor
from groundup.recipe import messages
from groundup.recipe.document import Document, parse
from groundup.sections import Section
from groundup.serving.settings import Serve

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


class Step(Section):
    """A function of yours, run at a place of your choice in the chain and cached like a stage.

    After ``source`` it receives pieces of the table as pandas DataFrames and returns them changed (rows dropped, columns
    derived) before anything is inferred from them.  After any stage it receives that stage's output object and may
    return a dict of numbers, kept in the run's record; raising an exception stops the run.
    """

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]*$")
    """What the run's record and the progress call it."""
    function: str = Field(pattern=r"^[\w.]+:\w+$")
    """Import path, `package.module:function`; modules beside the recipe are found."""
    after: Literal["source", "prepare", "tune", "train", "evaluate", "compress", "package", "rehearse"] = "source"
    """The place in the chain."""


class Recipe(Section):
    """From data to a served, monitored endpoint in one file."""

    name: str = Field(description="Names the bundle, the endpoint and the registered model: letters, digits, '.', '_' and '-'.")
    task: Task = Field(description="What is learned: the kind of input and of answer.")
    data: Data
    model: Model
    seed: int = Field(0, ge=0, lt=2**32, description="All randomness of the run comes from it.")
    steps: list[Step] = Field(default_factory=list, description="Functions of yours, run at a place in the chain.")
    train: Train = Train()
    tune: Tune | None = Field(None, description="A search over settings before training; none by default.")
    evaluate: Evaluate = Evaluate()
    gates: Gates = Gates()
    compress: Compress = Compress()
    package: Package = Package()
    rehearse: Rehearse = Rehearse()
    register_: Register = Field(Register(), alias="register")
    serve: Serve = Serve()
    monitor: Monitor = Monitor()

    _root: Path = PrivateAttr(default_factory=Path.cwd)

    @field_validator("name")
    @classmethod
    def _plain_name(cls, name: str) -> str:
        if not _NAME.fullmatch(name):
            raise ValueError(f"expected at most 64 letters, digits, '.', '_' or '-', starting with a letter or digit; got {name!r}")
        return name

    @model_validator(mode="after")
    def _searchable(self) -> Self:
        if self.tune is not None:
            from groundup.lifecycle.overrides import check_space

            check_space(self.tune, self.model, self.train)
        return self

    @property
    def root(self) -> Path:
        """The recipe's folder: relative paths in it start here."""
        return self._root

    @classmethod
    def load(cls, path: str | os.PathLike[str], overrides: Sequence[str] = ()) -> Self:
        """Read a recipe file.

        Args:
            path: the YAML file, or a folder with ``recipe.yaml`` in it.
            overrides: ``"train.epochs=5"`` and the like; the value is YAML, and a key may leave out sections between
                as long as only one place is meant: ``train.lr`` is ``train.optimizer.lr``.

        Raises:
            RecipeError: with file, line and column, what was expected, what came, and the nearest known key.
        """
        file = Path(path)
        if file.is_dir():
            file = file / "recipe.yaml"
        try:
            text = file.read_text(encoding="utf-8")
        except FileNotFoundError:
            raise RecipeError(f"{file}: no such recipe; `groundup init` writes one") from None
        except UnicodeDecodeError as e:
            raise RecipeError(f"{file}: not UTF-8 text (byte {e.start}); save the file as UTF-8") from e
        except OSError as e:
            raise RecipeError(f"{file}: cannot be read: {e.strerror}") from e
        return cls.parse(text, name=str(path if not Path(path).is_dir() else file), root=file.resolve().parent, overrides=overrides)

    @classmethod
    def parse(cls, text: str, *, name: str = "recipe", root: Path | None = None, overrides: Sequence[str] = ()) -> Self:
        """As :meth:`load`, from text."""
        document = parse(text, name)
        data = document.data
        origins: dict[tuple[str | int, ...], str] = {}
        for override in overrides:
            origins[_override(data, override, cls)] = f"--set {override}"
        return cls._validated(data, document, origins, root)

    @classmethod
    def of(cls, root: str | os.PathLike[str] | None = None, **sections: Any) -> Self:
        """A recipe from Python: ``Recipe.of(name="digits", task="image-classification", data={...}, model={...})``."""
        return cls._validated(sections, Document("recipe", sections, {}, {}), {}, Path(root) if root else None)

    @classmethod
    def _validated(cls, data: dict[str, Any], document: Document, origins: dict[tuple[str | int, ...], str], root: Path | None) -> Self:
        try:
            recipe = cls.model_validate(data)
        except ValidationError as e:
            raise RecipeError(messages.explain(e, cls, document, origins)) from None
        recipe._root = root or Path.cwd()
        return recipe

    def dump(self) -> dict[str, Any]:
        """Plain data, every default written out; ``Recipe.of(**dump)`` gives the same recipe."""
        return self.model_dump(mode="json", by_alias=True)


def _override(data: dict[str, Any], override: str, recipe: type[Section]) -> tuple[str | int, ...]:
    """Write one ``key.path=value`` into the plain data; gives the path that was meant."""
    key, sep, value = override.partition("=")
    if not sep or not key.strip():
        raise RecipeError(f"--set {override}: expected key.path=value, as in --set train.epochs=5")
    path = messages.complete(tuple(key.strip().split(".")), recipe)
    place: Any = data
    for part in path[:-1]:
        if not isinstance(place.get(part), dict):
            place[part] = {}
        place = place[part]
    place[path[-1]] = parse(f"value: {value}", f"--set {key}").data["value"]
    return path

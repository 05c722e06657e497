"""The ``tune`` section: what is searched, for what, and how long; in Optuna's words.

tune:
  trials: 20
  maximize: accuracy
  space:
    train.optimizer.lr: {type: float, low: 1.0e-4, high: 1.0e-2, log: true}
    model.width: {choices: [16, 32, 64]}
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, WithJsonSchema, field_validator, model_validator

from groundup.metrics import DIRECTIONS, Direction, headline
from groundup.sections import Section
from groundup.training.settings import Train

COSTS = ("latency", "parameters")
"""Objectives besides the metrics: median milliseconds to score one sample, and the number of parameters."""
Value = bool | int | float | str | None


def _check_range(dimension: Float | Int) -> None:
    if not dimension.low <= dimension.high:
        raise ValueError(f"low is {dimension.low}, high is {dimension.high}; expected low <= high")
    if dimension.log and (dimension.low <= 0 or dimension.step is not None):
        raise ValueError("log needs a low above 0 and no step")


class Float(Section):
    """A range of numbers, both ends included."""

    type: Literal["float"]
    """A range of numbers."""
    low: float
    """The least."""
    high: float
    """The greatest."""
    log: bool = False
    """Search the logarithm: for rates and strengths that matter by their order of magnitude."""
    step: Annotated[float, Field(gt=0)] | None = None
    """Only low, low + step, low + 2 step, ...; any number between by default."""

    @model_validator(mode="after")
    def _ordered(self) -> Float:
        _check_range(self)
        return self


class Int(Section):
    """A range of whole numbers, both ends included."""

    type: Literal["int"]
    """A range of whole numbers."""
    low: int
    """The least."""
    high: int
    """The greatest."""
    log: bool = False
    """Search the logarithm: for sizes that matter by their order of magnitude."""
    step: Annotated[int, Field(ge=1)] | None = None
    """Only low, low + step, low + 2 step, ...; every whole number by default."""

    @model_validator(mode="after")
    def _ordered(self) -> Int:
        _check_range(self)
        return self


class Choices(Section):
    """One of a few values."""

    type: Literal["categorical"] = "categorical"
    """One of a few values; may be left out."""
    choices: list[Value] = Field(min_length=1)
    """The values."""


Dimension = Annotated[
    Annotated[Float, Tag("float")] | Annotated[Int, Tag("int")] | Annotated[Choices, Tag("categorical")],
    Discriminator(lambda given: given.get("type", "categorical") if isinstance(given, dict) else getattr(given, "type", None)),
]
LEARNING: dict[str, Dimension] = {
    "train.optimizer.lr": Float(type="float", low=1e-4, high=3e-2, log=True),
    "train.optimizer.weight_decay": Float(type="float", low=1e-4, high=1e-1, log=True),
}
"""What is searched for a network where the recipe names no space."""


_NAMES = {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]}


class Tune(Section):
    """A search for better settings; the best go into ``model`` and ``train``.  The first trial is the recipe's own setting."""

    trials: int = Field(20, ge=1)
    """How many settings are tried."""
    workers: int | None = Field(None, ge=1)
    """Trials that run at the same time, each in a process with its share of the CPUs.  By default one a CPU, at most 4.
    With 1 the search is repeatable from the seed; with more, which trial learns from which depends on their order."""
    sampler: Literal["tpe", "random", "grid", "gp"] = "tpe"
    """How the next setting is chosen: Optuna's sampler of that name."""
    pruner: Literal["none", "median", "hyperband", "asha"] = "median"
    """Ends trials early that fall behind at the same epoch; by the metric alone where there are several objectives."""
    timeout: float | None = Field(None, gt=0)
    """Seconds after which no further trial begins."""
    epochs: float | None = Field(None, gt=0)
    """Epochs of a trial: up to 1 a share of ``train.epochs``, above 1 a number.  By default all of them."""
    maximize: Annotated[list[str], WithJsonSchema(_NAMES)] = Field(default_factory=list)
    """Validation metrics, one or a list."""
    minimize: Annotated[list[str], WithJsonSchema(_NAMES)] = Field(default_factory=list)
    """Validation metrics, "latency" or "parameters".  By default the task's headline metric in its own direction."""
    tolerance: float = Field(0.005, ge=0)
    """With several objectives: how far the first metric may fall behind the best for a trial that is better in the others."""
    space: dict[str, Dimension] = Field(default_factory=dict)
    """Dotted key of ``train`` or ``model`` -> range.  By default the learning rate and weight decay of a network."""

    @field_validator("maximize", "minimize", mode="before")
    @classmethod
    def _one_or_more(cls, value: Any) -> Any:
        return [value] if isinstance(value, str) else value

    @model_validator(mode="after")
    def _objectives_known(self) -> Tune:
        for wanted, names in (("maximize", self.maximize), ("minimize", self.minimize)):
            for name in names:
                if name not in DIRECTIONS and name not in COSTS:
                    raise ValueError(f"unknown objective {name!r}; known are {', '.join([*DIRECTIONS, *COSTS])}")
                right = DIRECTIONS.get(name, "minimize")
                if right != wanted:
                    raise ValueError(
                        f"{wanted}: {name} is better when it is {'larger' if right == 'maximize' else 'smaller'}; write {right}: {name}"
                    )
        if self.sampler == "grid":
            for key, dimension in self.space.items():
                grid_points(key, dimension)
        return self

    @model_validator(mode="after")
    def _train_keys_known(self) -> Tune:
        for key, dimension in self.space.items():
            section, _, rest = key.partition(".")
            if section not in ("train", "model") or not rest:
                raise ValueError(f"space: {key!r} names no setting; expected train.KEY or model.PARAMETER, as in train.optimizer.lr")
            if section == "train":
                for value in probes(dimension):
                    Train.model_validate(placed({}, rest, value))
        return self

    def objectives(self, task: str) -> dict[str, Direction]:
        """Objective -> direction, the metrics first."""
        found: dict[str, Literal["maximize", "minimize"]] = dict.fromkeys(self.maximize, "maximize") | dict.fromkeys(
            self.minimize, "minimize"
        )  # type: ignore[assignment]
        if not any(name in DIRECTIONS for name in found):
            found = {headline(task): DIRECTIONS[headline(task)], **found}
        return dict(sorted(found.items(), key=lambda item: item[0] in COSTS))

    def trial_epochs(self, train: Train) -> int:
        """Epochs of one trial."""
        if self.epochs is None:
            return train.epochs
        return max(1, round(self.epochs * train.epochs if self.epochs <= 1 else self.epochs))


def probes(dimension: Dimension) -> list[Value]:
    """Values that a section must accept: the ends of a range, every choice."""
    return list(dimension.choices) if isinstance(dimension, Choices) else [dimension.low, dimension.high]


def grid_points(key: str, dimension: Dimension) -> list[Value]:
    """The values of one axis of a grid.

    Raises:
        ValueError: a continuous range has none.
    """
    if isinstance(dimension, Choices):
        return list(dimension.choices)
    step = dimension.step if dimension.step is not None else (1 if isinstance(dimension, Int) and not dimension.log else None)
    if step is None:
        raise ValueError(f"space: a grid needs points; give {key} choices or a step")
    count = int((dimension.high - dimension.low) / step + 1e-9)
    return [dimension.low + i * step for i in range(count + 1)]


def placed(section: Mapping[str, Any], path: str, value: Any) -> dict[str, Any]:
    """A copy of plain data with ``value`` at the dotted ``path``, whichever way its keys are spelled there."""
    head, _, rest = path.partition(".")
    head = head.replace("-", "_")
    result = {key: inner for key, inner in section.items()}
    result[head] = placed(section.get(head) or {}, rest, value) if rest else value
    return result

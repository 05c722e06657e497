"""A user's own functions in the chain: found by import path beside the recipe, cached by the text of their module."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from pydantic import Field

from groundup.catalogue.importing import import_name, module_hash
from groundup.errors import GroundupError, RecipeError
from groundup.lifecycle.stage import Context, Output


class StepSection(Protocol):
    """The part of a recipe's step that this module reads."""

    @property
    def name(self) -> str: ...
    @property
    def function(self) -> str: ...


class StepOutput(Output):
    """Numbers that a user's function returned."""

    values: dict[str, float] = Field(default_factory=dict)


def load(step: StepSection, root: Path) -> Callable[..., Any]:
    """The function that ``step.function`` names.

    Raises:
        RecipeError: no such module or function, or it cannot be called.
        ModelError: its module fails while it is imported.
    """
    function = import_name(step.function, root, f"steps.{step.name}")
    if not callable(function):
        raise RecipeError(f"steps.{step.name}: expected {step.function} to be a function, got {type(function).__name__}")
    return function  # type: ignore[no-any-return]


def step_hash(step: StepSection, root: Path) -> str:
    """Hash of the step's import path and of the source that defines it, without running it."""
    return module_hash(step.function, root)


def cleaner(steps: list[Any], root: Path) -> Callable[[Any], Any] | None:
    """The functions after ``source`` as one: a DataFrame in, a DataFrame out; None if there are none."""
    functions = [(s, load(s, root)) for s in steps]
    if not functions:
        return None

    def clean(frame: Any) -> Any:
        for step, function in functions:
            before = type(frame)
            frame = _called(step, function, frame)
            if not isinstance(frame, before):
                raise RecipeError(f"steps.{step.name}: expected {step.function} to return a DataFrame, got {type(frame).__name__}")
        return frame

    return clean


def run_step(step: StepSection, output: Output, context: Context) -> StepOutput:
    """Call a function after a stage with that stage's output; keep the numbers that it returns."""
    function = load(step, context.root)
    result = _called(step, function, output)
    if result is None:
        return StepOutput()
    if not isinstance(result, dict) or not all(isinstance(k, str) and isinstance(v, int | float) for k, v in result.items()):
        raise RecipeError(f"steps.{step.name}: expected {step.function} to return a dict of numbers or None, got {result!r:.80}")
    return StepOutput(values={k: float(v) for k, v in result.items()})


def _called(step: StepSection, function: Callable[[Any], Any], argument: Any) -> Any:
    try:
        return function(argument)
    except GroundupError:
        raise
    except Exception as e:  # a user's function may fail in any way
        raise RecipeError(f"steps.{step.name}: {step.function} raised {type(e).__name__}: {e}") from e

"""A user's own functions in the chain: found by import path beside the recipe, cached by the text of their module."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

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

    values: dict[str, float] = {}


def load(step: StepSection, root: Path) -> Callable[..., Any]:
    """The function that ``step.function`` names, imported with the recipe's folder on the path.

    Raises:
        RecipeError: no such module or function, or it cannot be called; the reason is named.
    """
    module_name, _, attribute = step.function.partition(":")
    if str(root) not in sys.path:
        sys.path.insert(0, str(root))
    try:
        module = importlib.import_module(module_name)
    except ImportError as e:
        raise RecipeError(f"steps.{step.name}: cannot import {module_name!r}: {e}; put the module beside the recipe or install it") from e
    function = getattr(module, attribute, None)
    if not callable(function):
        names = [n for n, f in inspect.getmembers(module, inspect.isfunction) if f.__module__ == module_name]
        raise RecipeError(f"steps.{step.name}: {module_name} has no function {attribute!r}; it has {', '.join(names) or 'none'}")
    return function  # type: ignore[no-any-return]


def step_hash(step: StepSection, root: Path) -> str:
    """Hash of the step's import path and of its module's source, without running it."""
    module_name = step.function.partition(":")[0]
    if str(root) not in sys.path:
        sys.path.insert(0, str(root))
    try:
        spec = importlib.util.find_spec(module_name)
    except ModuleNotFoundError:
        spec = None
    if spec is None:
        raise RecipeError(f"steps.{step.name}: no module {module_name!r}; put {module_name}.py beside the recipe or install it")
    source = Path(spec.origin).read_bytes() if spec.origin and Path(spec.origin).is_file() else b""
    return hashlib.sha256(step.function.encode() + b"\0" + source).hexdigest()[:16]


def cleaner(steps: list[Any], root: Path) -> Callable[[Any], Any] | None:
    """The functions after ``source`` as one: a DataFrame in, a DataFrame out; None if there are none."""
    functions = [(s, load(s, root)) for s in steps]
    if not functions:
        return None

    def clean(frame: Any) -> Any:
        for step, function in functions:
            before = type(frame)
            frame = _called(step, lambda f=function, x=frame: f(x))
            if not isinstance(frame, before):
                raise RecipeError(f"steps.{step.name}: expected {step.function} to return a DataFrame, got {type(frame).__name__}")
        return frame

    return clean


def run_step(step: StepSection, output: Output, context: Context) -> StepOutput:
    """Call a function after a stage with that stage's output; keep the numbers that it returns."""
    function = load(step, context.root)
    result = _called(step, lambda: function(output))
    if result is None:
        return StepOutput()
    if not isinstance(result, dict) or not all(isinstance(k, str) and isinstance(v, int | float) for k, v in result.items()):
        raise RecipeError(f"steps.{step.name}: expected {step.function} to return a dict of numbers or None, got {result!r:.80}")
    return StepOutput(values={k: float(v) for k, v in result.items()})


def _called(step: StepSection, call: Callable[[], Any]) -> Any:
    try:
        return call()
    except GroundupError:
        raise
    except Exception as e:
        raise RecipeError(f"steps.{step.name}: {step.function} raised {type(e).__name__}: {e}") from e

"""From the recipe's ``model`` section to something that can be built: ours, scikit-learn's, or a user's own class."""

from __future__ import annotations

import inspect
import json
import math
import sys
import typing
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from groundup.catalogue.entries import Kind, entries
from groundup.catalogue.importing import import_name, source_hash
from groundup.catalogue.section import Model
from groundup.catalogue.signature import REQUIRED, Parameter, from_callable, problems
from groundup.errors import ModelError, RecipeError

if TYPE_CHECKING:
    from groundup.catalogue.size import Size


@dataclass(frozen=True)
class Resolved:
    """A model that was found, its parameters checked.

    Attributes:
        name: what it is called in messages: "cnn", "sklearn.svm:SVC".
        kind: "network" (a torch.nn.Module) or "estimator" (scikit-learn's API).
        cls: the class, or a function that returns a network.
        params: the parameters that the recipe gives, as the constructor wants them.
        parameters: the constructor's.
        root: the recipe's folder.
        model: the section that it came from.
    """

    name: str
    kind: Kind
    cls: Callable[..., Any]
    params: dict[str, Any]
    parameters: tuple[Parameter, ...]
    root: Path
    model: Model

    def arguments(self, feature_shape: Sequence[int], n_outputs: int) -> dict[str, Any]:
        """All constructor arguments by name: defaults, what the recipe gives, and the sizes that come from the data.

        Raises:
            ModelError: the recipe fixes a size that the data contradicts, or leaves out a parameter without default.
        """
        facts = {"input_shape": tuple(feature_shape), "n_features": math.prod(feature_shape), "n_outputs": n_outputs}
        given: dict[str, Any] = {}
        for p in self.parameters:
            if p.filled:
                given[p.name] = facts[p.name]
                ours = self.params.get(p.name, facts[p.name])
                if ours not in (facts[p.name], list(feature_shape)):
                    raise ModelError(f"{self.name}: {p.name} is {ours} in the recipe, but the data makes it {facts[p.name]}; leave it out")
            elif p.name not in self.params and p.default is not REQUIRED:
                given[p.name] = p.default
            elif p.name not in self.params:
                raise ModelError(f"{self.name}: parameter {p.name!r} has no default; write it in the recipe: model: {{..., {p.name}: ...}}")
        return given | {k: v for k, v in self.params.items() if k not in facts}

    def config(self, feature_shape: Sequence[int], n_outputs: int) -> dict[str, Any]:
        """The same as plain JSON data, with the ``name`` or ``class``: ``Model(**config)`` builds this model again.

        Defaults of other people's classes are left out where JSON cannot hold them.
        """
        head = {"name": self.model.name} if self.model.name else {"class": self.model.class_}
        given = self.arguments(feature_shape, n_outputs) | {k: v for k, v in self.model.params.items() if k in self.params}
        return head | {k: json.loads(json.dumps(v)) for k, v in given.items() if _is_json(v)}

    def build(self, feature_shape: Sequence[int], n_outputs: int, seed: int, device: str = "cpu") -> Any:
        """A new, untrained model: ``torch.nn.Module`` or estimator.

        The same seed gives the same weights, whatever was drawn before, and leaves the caller's random state alone:
        a network is built with PyTorch's generator seeded, an estimator's ``random_state`` (and those of the
        estimators inside it) are set wherever the recipe leaves them open.

        Args:
            feature_shape: of one example, as prepared: (n_features,), or (channels, height, width).
            device: where a network's weights live; "meta" gives shapes without memory.

        Raises:
            ModelError: its constructor refuses.
        """
        given = {k: _built(v, self.root) for k, v in self.arguments(feature_shape, n_outputs).items()}
        if self.kind == "estimator":
            estimator = self._call(given)
            open_seeds = [k for k, v in estimator.get_params(deep=True).items() if k.rpartition("__")[2] == "random_state" and v is None]
            return estimator.set_params(**dict.fromkeys(open_seeds, seed)) if open_seeds else estimator
        import torch

        with torch.random.fork_rng(devices=[]), torch.device(device), _undrawn():
            torch.manual_seed(seed)
            network = self._call(given)
        if not isinstance(network, torch.nn.Module):
            raise ModelError(f"{self.name}: expected a torch.nn.Module, got {type(network).__name__}")
        return network

    def _call(self, given: dict[str, Any]) -> Any:
        try:
            return self.cls(**given)
        except (TypeError, ValueError, RuntimeError, ArithmeticError, LookupError, AttributeError) as e:
            if isinstance(e, ModelError):
                raise
            shown = ", ".join(f"{k}={v!r}" for k, v in given.items())
            raise ModelError(f"{self.name}: its constructor refused ({shown}): {type(e).__name__}: {e}") from e

    def check(self, feature_shape: Sequence[int], n_outputs: int) -> Size:
        """Everything that can fail late, tried early: build it on the meta device, push two examples through, and measure.

        Raises:
            ModelError: it cannot be built, does not take such features, or gives no (N, n_outputs); or an estimator refuses
                its parameters or cannot be exported.
        """
        from groundup.catalogue.size import measure

        return measure(self, feature_shape, n_outputs)

    def source_hash(self) -> str:
        """Hash of the code that defines the model, with what it imports from the recipe's folder: a key for caches."""
        return source_hash(self.cls, self.root)


def _undrawn() -> Any:
    """Skip drawing random numbers into tensors of the meta device, which have no memory (PyTorch imports its compiler for it)."""
    from torch.overrides import TorchFunctionMode

    class Undrawn(TorchFunctionMode):
        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if getattr(func, "__name__", "") in _DRAWING and args and args[0].is_meta:
                return args[0]
            return func(*args, **(kwargs or {}))

    return Undrawn()


_DRAWING = {"normal_", "uniform_", "bernoulli_", "exponential_", "log_normal_", "cauchy_", "geometric_", "random_"}


def resolve(model: Model, root: Path) -> Resolved:
    """Find the model that a recipe asks for.

    Args:
        root: the recipe's folder; ``class: my_module:MyNet`` is looked up there, too.

    Raises:
        RecipeError: no such module or name, an unknown parameter, or a value of the wrong type; says what is near.
        ModelError: what was found is neither an estimator nor a network.
    """
    if model.name is not None:
        entry = entries()[model.name]
        cls = import_name(f"{entry.module}:{entry.class_name}", root)
        name, kind, parameters, more = model.name, entry.kind, entry.parameters, False
    else:
        name = model.class_ or ""
        cls = import_name(name, root)
        kind = _kind(cls, name)
        parameters, more = from_callable(cls)
    if found := problems(model.params, (p for p in parameters), name, more=more):
        raise RecipeError("\n".join(f"model: {text}" for text in found.values()))
    by_name = {p.name: p for p in parameters}
    params = {k: by_name[k].check(v) if k in by_name else v for k, v in model.params.items()}
    return Resolved(name=name, kind=kind, cls=cls, params=params, parameters=parameters, root=root, model=model)


def _kind(cls: Any, name: str) -> Kind:
    """What an imported object is; a function counts by what its annotation says it returns (as torchvision's builders do)."""
    made = cls
    if inspect.isfunction(cls):
        made = typing.get_type_hints(cls).get("return")
    if isinstance(made, type):
        torch = sys.modules.get("torch")  # whoever derives from its Module has imported it
        if torch is not None and issubclass(made, torch.nn.Module):
            return "network"
        if all(callable(getattr(made, method, None)) for method in ("fit", "predict", "get_params", "set_params")):
            return "estimator"
    hint = "; annotate what the function returns" if inspect.isfunction(cls) else ""
    what = f"the class {made.__name__}" if isinstance(made, type) else f"a {type(cls).__name__}"
    raise ModelError(
        f"{name}: expected a torch.nn.Module, or an estimator with fit, predict, get_params and set_params "
        f"(derive from sklearn.base.BaseEstimator), got {what}{hint}"
    )


def _built(value: Any, root: Path) -> Any:
    """A parameter's value with every ``{class: package.module:Name, ...}`` in it built, as Pipeline and VotingClassifier need."""
    if isinstance(value, dict) and isinstance(value.get("class"), str):
        given = {k: _built(v, root) for k, v in value.items() if k != "class"}
        return _nested(value["class"], given, root)
    if isinstance(value, dict):
        return {k: _built(v, root) for k, v in value.items()}
    if isinstance(value, list):
        built = [_built(v, root) for v in value]
        is_named = len(built) == 2 and isinstance(built[0], str) and not isinstance(built[1], str)
        return tuple(built) if is_named else built  # [name, estimator] is scikit-learn's (name, estimator)
    return value


def _nested(name: str, given: dict[str, Any], root: Path) -> Any:
    cls = import_name(name, root)
    if not callable(cls):
        raise ModelError(f"{name}: expected a class, got {type(cls).__name__}")
    parameters, more = from_callable(cls)
    if found := problems({k: v for k, v in given.items() if _is_json(v)}, parameters, name, more=more):
        raise RecipeError("\n".join(f"model: {text}" for text in found.values()))
    return cls(**given)


def _is_json(value: Any) -> bool:
    try:
        json.dumps(value)
    except (TypeError, ValueError):
        return False
    return True

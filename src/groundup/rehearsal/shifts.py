"""Traffic that has changed, in ways that happen: another unit, a renamed category, a broken sensor, an inverted scanner.

Each shift is a function from clean tensors to changed ones; which apply depends on the kinds of inputs that there are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from groundup.bundle import Signature
from groundup.bundle.signature import MISSING_DATETIME

Arrays = dict[str, np.ndarray[Any, np.dtype[Any]]]
Shift = Callable[[Mapping[str, Any], np.random.Generator], Arrays]
UNSEEN = "never seen before"


def applicable(signature: Signature, clean: Mapping[str, Any], size: float) -> dict[str, Shift]:
    """Name -> shift, for the inputs of ``signature``.

    Args:
        clean: rows that the standard deviations are taken from.
        size: how far numbers move, in standard deviations.
    """
    numbers = [f.name for f in signature.inputs if f.kind in ("number", "integer", "tensor") and _spread(clean[f.name]) > 0]
    whole = {f.name for f in signature.inputs if f.kind == "integer"}
    categories = [f.name for f in signature.inputs if f.kind == "category"]
    nullable = [f for f in signature.inputs if f.nullable]
    images = [f.name for f in signature.inputs if f.kind == "image"]
    spread = {name: _spread(clean[name]) for name in numbers}
    found: dict[str, Shift] = {}
    if images:
        found["images inverted"] = lambda x, rng: {**x, **{n: 255 - x[n] for n in images}}
        found["images at half brightness"] = lambda x, rng: {**x, **{n: x[n] // 2 for n in images}}
        found["images with noise"] = lambda x, rng: {**x, **{n: _noisy(x[n], rng) for n in images}}
    if numbers:
        found[f"numbers moved by {size:g} standard deviations"] = lambda x, rng: {
            **x,
            **{n: _moved(x[n], size * spread[n], n in whole) for n in numbers},
        }
    if categories:
        found["categories replaced by an unseen one"] = lambda x, rng: {**x, **{n: np.full(len(x[n]), UNSEEN, object) for n in categories}}
    if nullable:
        found["half of the optional values missing"] = lambda x, rng: {**x, **{f.name: _holes(x[f.name], f.kind, rng) for f in nullable}}
    return found


def _spread(values: Any) -> float:
    finite = np.asarray(values, np.float64)
    finite = finite[np.isfinite(finite)]
    return float(finite.std()) if len(finite) else 0.0


def _moved(values: Any, by: float, whole: bool) -> Any:
    return (values + (max(1.0, np.round(by)) if whole else by)).astype(values.dtype)


def _noisy(image: Any, rng: np.random.Generator) -> Any:
    return np.clip(image + rng.normal(0, 64, image.shape), 0, 255).astype(np.uint8)


def _holes(values: Any, kind: str, rng: np.random.Generator) -> Any:
    made = np.array(values)
    made[rng.random(len(made)) < 0.5] = "" if kind == "category" else MISSING_DATETIME if kind == "datetime" else np.nan
    return made

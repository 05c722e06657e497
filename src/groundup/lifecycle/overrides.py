"""A trial's setting, and the sections that it changes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from groundup.catalogue import Model, entries
from groundup.errors import RecipeError
from groundup.training.settings import Train
from groundup.training.space import LEARNING, Dimension, Tune, placed, probes


def apply(overrides: Mapping[str, Any], model: Model, train: Train) -> tuple[Model, Train]:
    """``model`` and ``train`` with the settings of a trial in them.

    Raises:
        RecipeError: a section refuses a value.
    """
    plain = {"model": model.model_dump(mode="json", by_alias=True), "train": train.model_dump(mode="json")}
    for key, value in overrides.items():
        section, _, path = key.partition(".")
        if section == "model":
            plain["model"][path] = value
        else:
            plain["train"] = placed(plain["train"], path, value)
    try:
        return Model.model_validate(plain["model"]), Train.model_validate(plain["train"])
    except ValidationError as e:
        error = e.errors()[0]
        raise RecipeError(f"tune.space: {', '.join(map(str, error['loc']))}: {error['msg']}") from e


def space_of(section: Tune, model: Model) -> dict[str, Dimension]:
    """What is searched: the recipe's space, or a network's learning rate and weight decay."""
    if section.space:
        return section.space
    if model.name is not None and entries()[model.name].kind == "estimator":
        raise RecipeError(
            f"tune.space is empty: name what to search for {model.name}, as in space: {{model.PARAMETER: {{choices: [...]}}}}"
        )
    return LEARNING


def check_space(section: Tune, model: Model, train: Train) -> None:
    """Try both ends and every choice of each dimension on the sections; cheap, and done before anything runs.

    Raises:
        RecipeError: a key or a value that ``model`` or ``train`` refuses.
    """
    for key, dimension in space_of(section, model).items():
        for value in probes(dimension):
            apply({key: value}, model, train)

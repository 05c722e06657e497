"""What every network over tokens keeps, whichever it is.  A new file in models/ is tested by being there."""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from groundup.catalogue import Model, describe_sequence, entries, names
from groundup.errors import ModelError, RecipeError
from groundup.proof import check

SEQUENCES = names("sequence")
every_model = pytest.mark.parametrize("name", SEQUENCES)
PRESETS = [(name, preset) for name in SEQUENCES for preset in entries()[name].presets]


def module(name: str) -> ModuleType:
    return importlib.import_module(entries()[name].module)


def test_models_are_found() -> None:
    assert {"bert", "gpt", "lamda", "llama", "palm", "transformer"} <= set(SEQUENCES)
    assert "vit" not in SEQUENCES, "it reads pixels"


@every_model
def test_file_says_what_it_is(name: str) -> None:
    entry = entries()[name]
    assert entry.summary.endswith("."), "the file opens with one sentence"
    assert any(str(year) in entry.paper for year in range(1800, 2100)), "the header names its paper with the year"
    assert "What is unusual" in (module(name).__doc__ or ""), "and how it differs from its neighbour"
    assert all(p.doc for p in entry.parameters), "every parameter is explained"


@every_model
def test_presets_read_from_the_file_are_those_of_the_module(name: str) -> None:
    assert entries()[name].presets == tuple(module(name).PRESETS)


@pytest.mark.parametrize(("name", "preset"), PRESETS)
def test_a_published_size_is_built_without_memory(name: str, preset: str) -> None:
    cls = getattr(module(name), entries()[name].class_name)
    chosen = module(name).PRESETS[preset]
    with torch.device("meta"):
        network = cls(**chosen.config)
    n = sum(p.numel() for p in network.parameters())
    digits = len(f"{chosen.published:.15g}".rstrip("0").replace(".", ""))
    as_printed = float(f"{n:.{digits}g}") == chosen.published
    explained = len(re.sub(r"[^;:]*(table|section) [\d.]+", "", chosen.source)) > 15
    assert as_printed or explained, f"{n:,} is not {chosen.published:,.0f} rounded, and {chosen.source!r} does not say why"


@every_model
def test_description_of_the_smallest_published_size(name: str) -> None:
    preset = entries()[name].presets[0]
    shown = describe_sequence(name, preset, batch=3, context=64)
    assert shown.parameters > 1e6
    assert 1.5 * shown.parameters < shown.forward_flops < 4 * shown.parameters, "about two operations a weight and token"
    twice = describe_sequence(name, preset, batch=6, context=64)
    assert twice.activations == 2 * shown.activations
    assert twice.cache == 2 * shown.cache
    page = str(shown)
    assert f"{shown.parameters:,}" in page
    assert preset in page


@every_model
def test_equals_the_reference(name: str, seed: int) -> None:
    pytest.importorskip("transformers", reason="the reference")
    proofs = check(name, (seed,))
    assert {p.link for p in proofs} <= {1, 2}
    assert len(proofs) >= 10
    assert all(p.passed for p in proofs), "\n".join(str(p) for p in proofs if not p.passed)


@every_model
def test_no_recipe_trains_it_yet(name: str) -> None:
    with pytest.raises(ValueError, match="reads tokens, and no task of a recipe does"):
        Model(name=name)


@pytest.mark.parametrize(
    ("arguments", "keys", "error", "message"),
    [
        (("gpt", "gpt2-huge"), {}, RecipeError, "did you mean 'gpt2"),
        (("gpd",), {}, RecipeError, "did you mean 'gpt'"),
        (("cnn",), {}, RecipeError, "reads features, not tokens"),
        (("gpt", "gpt2"), {"n_layer": 3}, RecipeError, "did you mean 'n_layers'"),
        (("gpt", "gpt2"), {"context": 2000}, ModelError, "and this size has 1,024"),
    ],
)
def test_what_cannot_be_described(arguments: tuple[Any, ...], keys: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        describe_sequence(*arguments, **keys)


def test_the_175_billion_of_the_paper() -> None:
    shown = describe_sequence("gpt", "gpt3-175b")
    assert shown.parameters == 174_604_259_328
    assert Path(shown.entry.path).name == "gpt.py"

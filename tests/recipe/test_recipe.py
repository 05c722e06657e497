"""Recipes: every mistake is named with its place, what was expected, and the nearest known key."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from groundup.errors import RecipeError
from groundup.recipe import Recipe
from groundup.recipe.messages import keys_at

HEAD = "name: d\ntask: image-classification\ndata: {source: digits}\nmodel: {name: cnn}\n"


def test_data_and_model_are_enough():
    recipe = Recipe.parse(HEAD)
    assert recipe.train.epochs > 0
    assert recipe.tune is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("nam: d", "r.yaml:1:1: unknown key 'nam'; did you mean 'name'?"),
        (HEAD + "trian: {}", "r.yaml:5:1: unknown key 'trian'; did you mean 'train'?"),
        (HEAD + "train:\n  epoch: 3", "r.yaml:6:3: unknown key 'epoch' in train; did you mean 'epochs'?"),
        (HEAD + "train: {optimizer: {nam: sgd}}", "r.yaml:5:21: unknown key 'nam' in train.optimizer; did you mean 'name'?"),
        (HEAD.replace("source: digits", "source: digits, split: {tset: 0.1}"), "unknown key 'tset' in data.split; did you mean 'test'?"),
        (HEAD.replace("name: cnn", "name: cnnn"), "did you mean 'cnn'?"),
        (HEAD + "gates: {acuracy: {threshold: 0.9}}", "r.yaml:5:9: unknown key 'acuracy' in gates; did you mean 'accuracy'?"),
        (HEAD + "gates: {accuracy: {treshold: 0.9}}", "unknown key 'treshold' in gates.accuracy; did you mean 'threshold'?"),
        (HEAD + "serve: {batch: {max_sise: 3}}", "unknown key 'max_sise' in serve.batch; did you mean 'max_size'?"),
        (HEAD + "monitor: {drft: {}}", "unknown key 'drft' in monitor; did you mean 'drift'?"),
        (HEAD + "train:\n  epochs: ten", "r.yaml:6:11: train.epochs: expected a valid integer"),
        (HEAD + "train:\n  epochs: 0", "r.yaml:6:11: train.epochs: expected"),
        (HEAD + "train: 3", "r.yaml:5:8: train: expected keys and values"),
        (HEAD + "seed: -1", "r.yaml:5:7: seed: expected greater than or equal to 0, got -1"),
        (HEAD.replace("image-classification", "image-clasification"), "did you mean 'image-classification'?"),
        ("task: image-classification\ndata: {source: digits}\nmodel: {name: cnn}", "the recipe lacks the key 'name'"),
        (HEAD.replace("source: digits", ""), "data lacks the key 'source'"),
        (HEAD.replace("name: d\n", "name: ../../etc\n"), "r.yaml:1:7: name: expected at most 64 letters"),
        (HEAD + "steps: [{name: a, function: nonsense}]", "r.yaml:5:29: steps.0.function: "),
    ],
)
def test_mistakes_are_named_with_their_place(text, expected):
    with pytest.raises(RecipeError) as e:
        Recipe.parse(text, name="r.yaml")
    assert expected in str(e.value)


def test_every_mistake_is_told_at_once():
    with pytest.raises(RecipeError) as e:
        Recipe.parse(HEAD + "train: {epoch: 3, batch_size: no}\nsed: 1", name="r.yaml")
    assert [line.split(":")[1] for line in str(e.value).splitlines()] == ["5", "5", "6"]


def test_both_spellings_are_read_and_mean_the_same():
    one = Recipe.parse(HEAD + "train: {batch_size: 7}\ncompress: {max-degradation: {accuracy: 0.1}}")
    other = Recipe.parse(HEAD + "train: {batch-size: 7}\ncompress: {max_degradation: {accuracy: 0.1}}")
    assert one == other
    assert one.train.batch_size == 7


@pytest.mark.parametrize(
    ("override", "path", "value"),
    [
        ("train.epochs=5", ("train", "epochs"), 5),
        ("train.lr=1e-3", ("train", "optimizer", "lr"), 1e-3),
        ("train.optimizer.name=sgd", ("train", "optimizer", "name"), "sgd"),
        ("seed=3", ("seed",), 3),
        ("gates.accuracy={threshold: 0.5}", ("gates", "accuracy", "threshold"), 0.5),
        ("model.dropout=0.5", ("model", "dropout"), 0.5),
    ],
)
def test_one_key_can_be_set_from_the_command_line(override, path, value):
    found = Recipe.parse(HEAD, overrides=[override])
    for part in path:
        found = getattr(found, part)
    assert found == value


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("train.epochs", "expected key.path=value"),
        ("=3", "expected key.path=value"),
        ("train.epochs=ten", "--set train.epochs=ten: train.epochs: expected a valid integer"),
        ("train.epoch=3", "unknown key 'epoch' in train; did you mean 'epochs'?"),
        ("train.name=sgd", "several keys end so: train.optimizer.name, train.schedule.name"),
    ],
)
def test_a_wrong_override_is_refused(override, expected):
    with pytest.raises(RecipeError) as e:
        Recipe.parse(HEAD, overrides=[override])
    assert expected in str(e.value)


def test_a_dump_gives_the_same_recipe():
    recipe = Recipe.parse(HEAD + "tune: {trials: 3}\nregister: {promote: never}\ncompress: {max-degradation: {accuracy: 0.02}}")
    assert Recipe.of(**json.loads(json.dumps(recipe.dump()))) == recipe


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(RecipeError, match="no such recipe"):
        Recipe.load(tmp_path / "absent.yaml")
    (tmp_path / "latin.yaml").write_bytes("name: é".encode("latin-1"))
    with pytest.raises(RecipeError, match="not UTF-8"):
        Recipe.load(tmp_path / "latin.yaml")
    (tmp_path / "recipe.yaml").write_text(HEAD)
    assert Recipe.load(tmp_path).root == tmp_path.resolve()


def _every_key(path=()):
    for key in sorted(keys_at(path, Recipe)):
        yield (*path, key)
        yield from _every_key((*path, key))


SECTIONS = sorted({path[:-1] for path in _every_key() if len(path) > 1 and path[0] not in ("model", "steps")})


@given(section=st.sampled_from(SECTIONS), data=st.data())
@settings(max_examples=60, deadline=None)
def test_a_misspelt_key_is_refused_in_every_section_with_the_right_one(section, data):
    key = data.draw(st.sampled_from(sorted(keys_at(section, Recipe))))
    at = data.draw(st.integers(0, len(key) - 1))
    wrong = key[:at] + key[at] + key[at:] + "q"  # two mistakes
    value = {}
    for part in reversed((*section[1:], wrong)):
        value = {part: value or 1}
    sections = {"data": {"source": "digits"}, "model": {"name": "cnn"}}
    merged = {**sections.get(section[0], {}), **value} if section[0] in sections else value
    with pytest.raises(RecipeError) as e:
        Recipe.of(name="d", task="image-classification", **{**sections, section[0]: merged})
    assert f"unknown key {wrong!r} in {'.'.join(section)}" in str(e.value)
    assert f"did you mean {key!r}?" in str(e.value) or "did you mean" in str(e.value)


@given(st.text(max_size=200))
@settings(max_examples=200, deadline=None)
def test_no_text_raises_anything_but_a_recipe_error(text):
    with pytest.raises(RecipeError):
        Recipe.parse(text)

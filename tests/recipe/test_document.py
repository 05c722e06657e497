"""A recipe's text: YAML 1.2's scalars, places, and everything that is refused."""

from __future__ import annotations

import re
import string

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from groundup.errors import RecipeError
from groundup.recipe.document import parse


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 1e-3),
        ("3E+2", 300.0),
        (".5", 0.5),
        ("-7", -7),
        ("0x1F", 31),
        ("0o17", 15),
        ("010", 10),
        ("true", True),
        ("no", "no"),
        ("on", "on"),
        ("12:30:45", "12:30:45"),
        ("2020-01-01", "2020-01-01"),
        ("~", None),
        ("", None),
        ("'1'", "1"),
        ("1_000", "1_000"),
        ("[1, a]", [1, "a"]),
        ("{a: {b: 1}}", {"a": {"b": 1}}),
    ],
)
def test_scalars_are_those_of_yaml_1_2(text, value):
    found = parse(f"key: {text}").data["key"]
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "recipe: the file is empty"),
        ("- a", "recipe:1:1: expected keys and values"),
        ("a: 1\nb: 2\na: 3", "recipe:3:1: the key 'a' is given twice"),
        ("a: !!python/object/apply:os.system [echo]", "recipe:1:4: the tag"),
        ("a: !!python/name:os.system", "recipe:1:4: the tag"),
        ("a: [1,\nb: 2", "recipe:2:5: not YAML"),
        ("a: \x00", "not YAML"),
        ("a: " + "[" * 5000, "nested too deeply"),
        ("a: &x [*x]", "recipe:1:4: aliases expand"),
        ("? [a]\n: 1", "recipe:1:3: expected a word as key"),
        ("b: &b {x: 1}\na:\n  <<: *b", "recipe:3:3: merge keys"),
        ("a: " + "9" * 5000, "recipe:1:4: not a usable whole number"),
    ],
)
def test_what_is_no_recipe_is_refused_with_its_place(text, message):
    with pytest.raises(RecipeError) as e:
        parse(text)
    assert message in str(e.value)


def test_aliases_that_explode_are_refused():
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 9)]
    with pytest.raises(RecipeError, match="aliases expand"):
        parse("\n".join(lines))


words = st.text(string.ascii_letters, min_size=1, max_size=8).filter(lambda w: parse(f"k: {w}").data["k"] == w)
plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**12), 10**12)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(
        st.characters(exclude_categories=["Cs"], exclude_characters="\x85\u2028\u2029")
    ).filter(  # PyYAML itself loses these line ends
        lambda text: not re.fullmatch(r"[-+]?[0-9]+[eE][-+]?[0-9]+|0o[0-7]+", text)
    ),  # which it writes as text, and 1e3 is a number here
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3),
    max_leaves=10,
)


@settings(deadline=None)
@given(st.dictionaries(words, plain, min_size=1, max_size=4))
def test_what_pyyaml_writes_is_read_back(data):
    assert parse(yaml.safe_dump(data, allow_unicode=True)).data == data


@settings(deadline=None)
@given(st.dictionaries(words, st.dictionaries(words, st.integers(), min_size=1, max_size=3), min_size=1, max_size=3))
def test_every_key_and_value_has_its_place(data):
    text = yaml.safe_dump(data, sort_keys=False)
    document = parse(text, "r.yaml")
    lines = text.splitlines()
    for section, keys in data.items():
        for key in keys:
            _, line, column = document.where((section, key), key=True).split(":")
            there = lines[int(line) - 1][int(column) - 1 :]
            assert there.startswith((f"{key}:", f"'{key}':", f'"{key}":')), "YAML quotes words such as off"
            _, line, column = document.where((section, key)).split(":")
            assert lines[int(line) - 1][int(column) - 1 :].startswith(str(keys[key]))

"""The transform equals scikit-learn's, and its graph equals the transform, to the last bit."""

from __future__ import annotations

import datetime as dt
from typing import Any

import numpy as np
import onnxruntime as ort
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.impute import MissingIndicator, SimpleImputer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from groundup.bundle.signature import MISSING_DATETIME, Field
from groundup.data.finish import ulps
from groundup.data.graph import array_graph, table_graph
from groundup.data.transforms import EARLIEST, LATEST, date_parts, fit_arrays, fit_table

FIELDS = [
    Field("zahl größe", "number", nullable=True),
    Field("n", "number"),
    Field("i", "integer", nullable=True),
    Field("b", "boolean", nullable=True),
    Field("day", "datetime", nullable=True),
    Field("c", "category", nullable=True),
    Field("färbe", "category"),
]


def column_of(arrays: dict[str, Any]) -> Any:
    def column(field: Field) -> Any:
        x = arrays[field.name]
        return pd.Series(x[x != ""]).value_counts().to_dict() if field.kind == "category" else x

    return column


def training(seed: int, n: int = 211) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    number = rng.normal(3, 2, n)
    number[rng.random(n) < 0.1] = np.nan
    day = rng.integers(10**15, 2 * 10**15, n)
    day[rng.random(n) < 0.1] = MISSING_DATETIME
    return {
        "zahl größe": number,
        "n": rng.normal(1e6, 1, n),
        "i": np.where(rng.random(n) < 0.1, np.nan, rng.integers(-5, 90, n).astype(float)),
        "b": np.where(rng.random(n) < 0.1, np.nan, (rng.random(n) < 0.3).astype(float)),
        "day": day,
        "c": np.array(["", "a", "β", "日本", "a b"], dtype=object)[rng.integers(0, 5, n)],
        "färbe": np.array(["rot", "grün"], dtype=object)[rng.integers(0, 2, n)],
    }


def session(model: Any) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def test_numbers_are_what_scikit_learn_gives(seed: int) -> None:
    arrays = training(seed)
    fields = FIELDS[:4]
    transform = fit_table(fields, column_of(arrays))
    X = np.stack([arrays[f.name] for f in fields], axis=1)
    theirs = make_pipeline(SimpleImputer(strategy="median"), StandardScaler()).fit(X)
    np.testing.assert_array_equal(transform.imputer.statistics_, theirs[0].statistics_)
    np.testing.assert_allclose(transform.scaler.scale_, theirs[1].scale_, rtol=1e-12)
    np.testing.assert_allclose(transform(arrays)[:, :4], theirs.transform(X), rtol=1e-6, atol=1e-6)
    indicator = MissingIndicator().fit(X).transform(X)
    np.testing.assert_array_equal(transform(arrays)[:, 4:], indicator)


def test_categories_are_what_scikit_learn_gives(seed: int) -> None:
    arrays = training(seed)
    transform = fit_table([FIELDS[5]], column_of(arrays))
    known = np.array(["a", "a b", "β", "日本"], dtype=object)
    theirs = OneHotEncoder(categories=[known], handle_unknown="ignore", sparse_output=False).fit(known[:, None])
    np.testing.assert_array_equal(transform(arrays), theirs.transform(arrays["c"][:, None]))
    assert transform.feature_names == [f"c = {k}" for k in known]


def test_constant_columns_become_zeros_as_in_scikit_learn() -> None:
    arrays = {"n": np.full(50, 0.1), "i": np.full(50, 1e9)}
    transform = fit_table([Field("n", "number"), Field("i", "number")], column_of(arrays))
    theirs = StandardScaler().fit(np.stack(list(arrays.values()), axis=1))
    np.testing.assert_array_equal(transform.scaler.scale_, theirs.scale_)


any_float = st.floats(allow_nan=True, allow_infinity=True)
any_text = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=8)
any_moment = st.one_of(
    st.integers(-(2**63), 2**63 - 1), st.just(MISSING_DATETIME), st.sampled_from([EARLIEST, LATEST, EARLIEST - 1, LATEST + 1, 0, -1])
)
FITTED = fit_table(FIELDS, column_of(training(0)))
SESSION = session(table_graph(FITTED))


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(any_float, any_float, any_float, any_float, any_moment, any_text, any_text), min_size=1, max_size=7))
def test_graph_equals_transform_on_anything(rows: list[tuple[Any, ...]]) -> None:
    columns = list(zip(*rows, strict=True))
    arrays = {f.name: np.array(v, dtype=f.dtype) for f, v in zip(FIELDS, columns, strict=True)}
    got = SESSION.run(["features"], arrays)[0]
    want = FITTED(arrays)
    assert got.shape == want.shape == (len(rows), len(FITTED.feature_names))
    assert ulps(got, want) == 0
    assert not np.isnan(want).any()  # whatever comes, the model sees numbers


@pytest.mark.parametrize("word", ["a", "β", "日本"])
def test_graph_knows_the_categories(word: str) -> None:
    arrays = {name: x[:1] for name, x in training(1).items()} | {"c": np.array([word], dtype=object)}
    row = dict(zip(FITTED.feature_names, SESSION.run(None, arrays)[0][0], strict=True))
    assert {k: v for k, v in row.items() if k.startswith("c = ")} == {f"c = {k}": float(k == word) for k in ("a", "a b", "β", "日本")}


def test_unseen_missing_and_rare_categories_are_zeros() -> None:
    counts = {"often": 5000, "rare": 4, "fair": 6}
    transform = fit_table([Field("c", "category", nullable=True)], lambda f: counts)
    words = np.array(["often", "rare", "never", "", "fair"], dtype=object)
    want = np.array([[0, 1], [0, 0], [0, 0], [0, 0], [1, 0]], np.float32)
    np.testing.assert_array_equal(transform({"c": words}), want)
    np.testing.assert_array_equal(session(table_graph(transform)).run(None, {"c": words})[0], want)


@settings(max_examples=500)
@given(st.datetimes(dt.datetime(1, 1, 1), dt.datetime(9999, 12, 31, 23, 59, 59, 999_999)))
def test_date_parts_are_the_calendars(moment: dt.datetime) -> None:
    micros = (moment - dt.datetime(1970, 1, 1)) // dt.timedelta(microseconds=1)
    year, month, weekday, hour, days = (part[0] for part in date_parts(np.array([micros]), 0))
    assert (year, month, weekday, hour) == (moment.year, moment.month, moment.weekday(), moment.hour)
    assert days == float(micros) / 86_400_000_000


def test_images_are_standardized_channel_by_channel(seed: int) -> None:
    x = np.random.default_rng(seed).integers(0, 256, (13, 5, 7, 3)).astype(np.uint8)
    rows = np.arange(11)
    transform = fit_arrays(Field("image", "image", shape=(5, 7, 3)), x, rows)
    scaler = StandardScaler().fit(x[rows].reshape(-1, 3).astype(np.float64))
    want = scaler.transform(x.reshape(-1, 3).astype(np.float64)).reshape(x.shape).transpose(0, 3, 1, 2)
    got = transform({"image": x})
    assert got.shape == (13, 3, 5, 7)
    np.testing.assert_allclose(got, want, atol=2e-6)
    assert ulps(session(array_graph(transform)).run(None, {"image": x})[0], got) == 0


def test_tensors_keep_their_shape(seed: int) -> None:
    rng = np.random.default_rng(seed)
    for shape in ((11,), (3, 5, 7)):
        x = rng.normal(50, 3, (17, *shape)).astype(np.float32)
        transform = fit_arrays(Field("tensor", "tensor", shape=shape), x, np.arange(17))
        got = transform({"tensor": x})
        assert got.shape == x.shape
        assert abs(got.mean()) < 1e-5
        assert abs(got.std() - 1) < 1e-4
        assert ulps(session(array_graph(transform)).run(None, {"tensor": x})[0], got) == 0


def test_ulps_counts_steps() -> None:
    one = np.float32(1)
    assert ulps(np.array([one]), np.array([np.nextafter(one, np.float32(2))])) == 1
    assert ulps(np.array([-0.0], np.float32), np.array([0.0], np.float32)) == 0
    assert ulps(np.array([np.nan], np.float32), np.array([1.0], np.float32)) > 1000

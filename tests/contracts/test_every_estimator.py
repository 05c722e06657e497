"""What every estimator of the catalogue keeps, whichever it is.  A new file in estimators/ is tested by being there."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from pydantic import ValidationError
from sklearn.base import clone, is_classifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import check_estimator

from groundup.catalogue import Model, Resolved, describe, entries, resolve
from groundup.estimators.export import export_estimator, supports
from groundup.proof import check

SIZES = {"image-classification": ((1, 3, 5), 4), "tabular-classification": ((7,), 3), "tabular-regression": ((7,), 1)}
ESTIMATORS = [name for name, entry in entries().items() if entry.kind == "estimator"]
CASES = [(name, *SIZES[task]) for name in ESTIMATORS for task in entries()[name].tasks]
every_case = pytest.mark.parametrize(("name", "shape", "n_outputs"), CASES, ids=[f"{c[0]}-{'x'.join(map(str, c[1]))}" for c in CASES])
every_estimator = pytest.mark.parametrize("name", ESTIMATORS)

SKIPPED: dict[tuple[str, str], str] = {}
"""(estimator, check of scikit-learn's) -> why it may fail.  Nothing may today."""


def resolved(name: str) -> Resolved:
    return resolve(Model(name=name), Path.cwd())


def data(shape: tuple[int, ...], n_outputs: int, seed: int, n: int = 97) -> tuple[Any, Any]:
    rng = np.random.default_rng(seed)
    X = rng.normal(1, 2, (n, int(np.prod(shape)))).astype(np.float32)
    z = X @ rng.normal(size=(X.shape[1], n_outputs)) + rng.gumbel(size=(n, n_outputs))
    return X, z[:, 0] if n_outputs == 1 else z.argmax(1)


def scores(model: Any, X: Any) -> Any:
    return model.predict_proba(X) if is_classifier(model) else model.predict(X)[:, None]


def test_estimators_are_found() -> None:
    assert {"linear", "logistic"} <= set(ESTIMATORS)


@every_estimator
def test_file_says_what_it_is(name: str) -> None:
    entry = entries()[name]
    assert entry.summary.endswith(".")
    assert any(str(year) in entry.paper for year in range(1800, 2100)), "the header names its paper with the year"
    header = entry.path.read_text()
    for word in ("Complexity:", "Pitfalls:", ">>> "):
        assert word in header, f"{name}: the file has no {word}"
    for parameter in entry.parameters:
        assert parameter.doc, f"{name}: Args does not describe {parameter.name}"
        assert parameter.annotation, f"{name}: {parameter.name} has no annotation"


@every_estimator
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_keeps_the_contract_of_scikit_learn(name: str) -> None:
    results = check_estimator(resolved(name).build((7,), 3, seed=0), on_fail=None, on_skip=None)
    failed = {r["check_name"]: r["exception"] for r in results if r["status"] not in ("passed", "skipped")}
    assert {k: v for k, v in failed.items() if (name, k) not in SKIPPED} == {}
    assert sum(r["status"] == "passed" for r in results) > 50
    assert {r["check_name"] for r in results if r["status"] == "skipped"} <= {"check_array_api_input"}


@every_case
def test_is_accepted_before_a_run(name: str, shape: tuple[int, ...], n_outputs: int) -> None:
    assert resolved(name).check(shape, n_outputs).parameters is None
    assert name in str(describe(name, shape, n_outputs))


@every_case
def test_fits_and_clones(name: str, shape: tuple[int, ...], n_outputs: int, seed: int) -> None:
    X, y = data(shape, n_outputs, seed)
    model = resolved(name).build(shape, n_outputs, seed)
    fitted = clone(model).fit(X, y)
    assert fitted.score(X, y) > 0.7
    np.testing.assert_array_equal(scores(pickle.loads(pickle.dumps(fitted)), X), scores(fitted, X))
    np.testing.assert_array_equal(scores(clone(model).fit(X, y), X), scores(fitted, X))


@every_case
def test_config_builds_the_same_model(name: str, shape: tuple[int, ...], n_outputs: int) -> None:
    config = json.loads(json.dumps(resolved(name).config(shape, n_outputs)))
    again = resolve(Model(**config), Path.cwd())
    assert again.config(shape, n_outputs) == config
    assert again.build(shape, n_outputs, 0).get_params() == resolved(name).build(shape, n_outputs, 0).get_params()


@every_estimator
def test_unknown_and_wrong_parameters_are_refused(name: str) -> None:
    for parameter in entries()[name].parameters:
        with pytest.raises(ValidationError, match=parameter.name):
            Model(name=name, **{parameter.name + "x": 1})
        with pytest.raises(ValidationError) as refused:
            Model(name=name, **{parameter.name: {"no": "such type"}})
        assert refused.value.errors()[0]["loc"] == (parameter.name,)


@every_case
def test_exported_graph_answers_as_the_estimator(name: str, shape: tuple[int, ...], n_outputs: int, seed: int) -> None:
    X, y = data(shape, n_outputs, seed)
    alone = resolved(name).build(shape, n_outputs, seed)
    for model in (alone, make_pipeline(StandardScaler(), clone(alone))):
        assert supports(model) is None
        graph = export_estimator(model.fit(X, y), shape, n_outputs)
        assert [i.name for i in graph.graph.input] == ["features"]
        assert [o.name for o in graph.graph.output] == ["scores"]
        session = onnxruntime.InferenceSession(graph.SerializeToString())
        for n in (1, 2, len(X)):
            (found,) = session.run(None, {"features": X[:n].reshape(n, *shape)})
            assert found.dtype == np.float32
            assert found.shape == (n, n_outputs)
            np.testing.assert_allclose(found, scores(model, X[:n]), rtol=1e-5, atol=1e-5)


@every_estimator
def test_equals_the_reference(name: str, seed: int) -> None:
    proofs = check(name, (seed,))
    assert {p.link for p in proofs} == {1}
    assert any("coef_" in p.claim or "predict" in p.claim for p in proofs)
    assert any("objective" in p.claim for p in proofs)
    assert all(p.passed for p in proofs), "\n".join(map(str, proofs))

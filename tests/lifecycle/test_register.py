"""register: challenger first, champion when nothing speaks against it, MLflow in step, and back with one command."""

from __future__ import annotations

import json
import shutil
import time
from collections import Counter
from pathlib import Path
from typing import Any

import mlflow_store
import numpy as np
import pytest
from served_table import SIGNATURE, HeldOut, answers, graph, make_bundle, rows

from groundup.bundle import Bundle, write_bundle
from groundup.errors import BundleError, ProofError
from groundup.lifecycle.evaluate import Evaluated
from groundup.lifecycle.register import Register, Registered, history, register, resolve_reference, rollback
from groundup.lifecycle.stage import Context, Output
from groundup.registry import Registry
from groundup.serving.golden import read_golden, write_golden

pytestmark = mlflow_store.QUIET
NO_MLFLOW = Register(mlflow=False)


def bundle_of(folder: Path, tilt: float) -> Bundle:
    """A bundle of the tilted graph, whose golden answers are its own."""
    made, data, golden = make_bundle(folder / "made"), graph(tilt), rows(8, 2)
    sources: dict[str, Path | bytes] = {n: made.read(n) for n in made.files}
    sources |= {"model.onnx": data, "golden.npz": write_golden(golden, answers(golden, data))}
    shutil.rmtree(folder / "made")
    return write_bundle(folder / "bundle", sources, name="table", task=made.task, signature=SIGNATURE)


def evaluated(passed: bool = True) -> Evaluated:
    gate = {
        "gate": "accuracy",
        "metric": "accuracy",
        "goal": "threshold",
        "measured": 0.9,
        "bound": 0.8,
        "at_least": True,
        "n": HeldOut.n,
        "passed": passed,
    }
    empty: dict[str, Any] = {"intervals": {}, "validation": {}, "baseline": {}, "baseline_which": "majority class"}
    metrics = {"accuracy": {"value": 0.9, "low": 0.8, "high": 0.95}}
    return Evaluated(task="tabular-classification", n=HeldOut.n, metrics=metrics, gates=[gate], **empty)


def go(
    folder: Path,
    home: Path,
    tilt: float,
    section: Register = NO_MLFLOW,
    *,
    prepared: Any = None,
    passed: bool = True,
    improvement: dict[str, Any] | None = None,
) -> Registered:
    at = folder / f"tilt{tilt}"
    if not at.exists():
        at.mkdir()
        bundle_of(at, tilt)
    context = Context(root=folder, work=folder)
    measured = evaluated(passed).model_copy(update={"improvement": improvement or {}})
    arguments: dict[str, Any] = {"evaluated": measured, "rehearsed": Output().at(at), "prepared": prepared or HeldOut()}
    return register(section, name="table", out=folder, context=context, home=home, **arguments)


def test_the_first_is_champion(tmp_path: Path) -> None:
    done = go(tmp_path, tmp_path / "home", 0.0)
    assert (done.version, done.champion, done.champion_before, done.promoted) == (1, 1, None, True)
    assert "there was no champion" in done.reasons
    event = Registry(tmp_path / "home").history("table")[-1]
    assert event.why["gates"][0]["measured"] == 0.9
    assert Registered.model_validate_json(done.model_dump_json()) == done


def test_a_model_that_the_simple_baseline_beats_stays_challenger(tmp_path: Path) -> None:
    beaten = {"accuracy": {"value": -0.2, "low": -0.3, "high": -0.1}}
    done = go(tmp_path, tmp_path / "home", 0.0, improvement=beaten)
    assert (done.promoted, done.champion) == (False, None)
    assert done.reasons == ["accuracy is significantly worse than the baseline's (majority class): -0.2"]
    unsure = {"accuracy": {"value": -0.2, "low": -0.5, "high": 0.1}}
    assert go(tmp_path, tmp_path / "other", 0.0, improvement=unsure).promoted
    always = NO_MLFLOW.model_copy(update={"promote": "always"})
    assert go(tmp_path, tmp_path / "third", 0.0, always, improvement=beaten).promoted


def test_a_significantly_worse_challenger_stays_challenger(tmp_path: Path) -> None:
    home = tmp_path / "home"
    go(tmp_path, home, 0.0)
    worse = go(tmp_path, home, -1.5)
    assert (worse.version, worse.champion, worse.promoted) == (2, 1, False)
    assert worse.differences[0].metric == "accuracy"
    assert worse.differences[0].first == 1.0
    assert worse.differences[0].better == "first"
    assert "not significantly worse, beside champion version 1" in worse.reasons[0]
    registry = Registry(home)
    assert registry.aliases("table") == {"champion": 1, "challenger": 2}
    assert registry.history("table")[-1].action == "refuse"


def test_a_better_challenger_is_champion_and_rollback_brings_the_other_back(tmp_path: Path) -> None:
    home = tmp_path / "home"
    go(tmp_path, home, -1.5)
    better = go(tmp_path, home, 0.0)
    assert (better.champion, better.champion_before, better.promoted) == (2, 1, True)
    assert better.differences[0].better == "second"
    assert resolve_reference("models:/table@champion", home) == Path(better.bundle)
    began = time.perf_counter()
    event = rollback("table", home)
    assert time.perf_counter() - began < 2
    assert (event.action, event.before, event.after) == ("rollback", 2, 1)
    with pytest.raises(BundleError, match=r"no model 'stool' in .*; it has: table"):
        history("stool", home)
    assert [e["event"] for e in history("table", home)] == ["register", "promote", "register", "promote", "rollback"]
    assert [e["version"] for e in history("table", home)][-2:] == ["1 → 2", "2 → 1"]
    assert rollback("table", home, to="2").after == 2
    with pytest.raises(BundleError, match="expected the number of a version"):
        rollback("table", home, to="newest")


def test_max_degradation_is_what_the_recipe_says(tmp_path: Path) -> None:
    home = tmp_path / "home"
    go(tmp_path, home, 0.0)
    strict = go(tmp_path, home, -0.05, Register.model_validate({"mlflow": False, "max-degradation": {"accuracy": 0.0}}))
    assert not strict.promoted
    assert 0 < strict.differences[0].worse_by < 0.05
    loose = go(tmp_path, home, -0.05, Register.model_validate({"mlflow": False, "max-degradation": {"accuracy": 0.05}}))
    assert loose.promoted
    assert loose.version == strict.version
    unknown = go(tmp_path, home, 0.01, Register.model_validate({"mlflow": False, "max-degradation": {"r2": 0.1}}))
    assert "max-degradation of r2 cannot be measured" in unknown.reasons[-1]


def test_promote_always_and_never(tmp_path: Path) -> None:
    home = tmp_path / "home"
    assert not go(tmp_path, home, 0.0, Register(mlflow=False, promote="never")).promoted
    assert go(tmp_path, home, 0.0).champion == 1
    assert go(tmp_path, home, -1.5, Register(mlflow=False, promote="always")).champion == 2


def test_a_failed_gate_is_never_promoted(tmp_path: Path) -> None:
    for promote in ("gates", "always"):
        done = go(tmp_path, tmp_path / "home", 0.0, Register.model_validate({"mlflow": False, "promote": promote}), passed=False)
        assert not done.promoted
        assert "gate accuracy" in done.reasons[0]


def test_again_changes_nothing(tmp_path: Path) -> None:
    go(tmp_path, tmp_path / "home", 0.0)
    before = Registry(tmp_path / "home").history("table")
    again = go(tmp_path, tmp_path / "home", 0.0)
    assert again.reasons == ["it is the champion already"]
    assert Registry(tmp_path / "home").history("table") == before


def test_disabled(tmp_path: Path) -> None:
    done = go(tmp_path, tmp_path / "home", 0.0, Register(enabled=False, name="other"))
    assert (done.enabled, done.name, done.version) == (False, "other", 0)
    assert not (tmp_path / "home").exists()


def test_mlflow_has_both_flavours_and_follows_the_aliases(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from groundup.lifecycle.mlflow_store import active_store, connect

    monkeypatch.chdir(tmp_path)
    first = go(tmp_path, home, -1.5, Register())
    second = go(tmp_path, home, 0.0, Register())
    assert first.notes == second.notes == []
    assert [p.measured for p in second.proofs] == [0.0, 0.0]
    client = connect(home)
    champion = client.get_model_version_by_alias("table", "champion")
    assert str(champion.version) == second.mlflow["version"]
    assert champion.tags["gate.accuracy.threshold"] == "passed: 0.9 against 0.8"
    assert client.get_run(second.mlflow["run_id"]).data.metrics["test.accuracy"] == 0.9
    with active_store(home) as mlflow:
        import pandas as pd

        served = mlflow.pyfunc.load_model("models:/table@champion")
        inputs = rows(50, 3)
        frame = pd.DataFrame({"a": inputs["a"], "n": inputs["n"].astype(np.int64), "c": inputs["c"]})
        got = served.predict(frame)
        assert list(got["label"]) == list(answers(inputs)["label"])
        np.testing.assert_array_equal(np.stack(got["probabilities"].to_list()), answers(inputs)["probabilities"])
        assert served.metadata.flavors.keys() == {"python_function", "onnx"}
        assert served.metadata.signature.inputs.input_names() == ["a", "n", "c"]
        assert served.metadata.saved_input_example_info is not None
        assert served.metadata.flavors["python_function"]["loader_module"] == "groundup.registry.flavour"
    rollback("table", home)
    assert str(client.get_model_version_by_alias("table", "champion").version) == first.mlflow["version"]
    assert not (tmp_path / "mlruns").exists()  # nothing is written where the command is typed
    assert not list(home.rglob("*.pkl"))


def test_what_mlflow_gives_back_must_be_what_was_given(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from groundup.registry import flavour

    real = flavour.ServedBundle.predict

    def wrong(self: Any, data: Any, params: Any = None) -> Any:
        frame = real(self, data, params)
        frame["label"] = frame["label"].iloc[::-1].to_list()
        return frame

    monkeypatch.setattr(flavour.ServedBundle, "predict", wrong)
    with pytest.raises(ProofError, match="python_function"):
        go(tmp_path, home, 0.0, Register())
    assert Registry(home).champion("table") is None


def test_a_store_that_is_away_delays_mlflow_and_nothing_else(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    done = go(tmp_path, home, 0.0, Register())
    assert done.champion == 1
    assert done.mlflow == {}
    assert "not logged to MLflow" in done.notes[0]


class Killed(BaseException):
    """Ends a registration right after one of its steps, as a kill would."""


STEPS = (  # the first is made once a name, so it comes first
    "MlflowClient.create_registered_model", "MlflowClient.create_run", "MlflowClient.create_logged_model",
    "MlflowClient.log_model_artifacts", "MlflowClient.log_metric", "MlflowClient.create_model_version",
    "MlflowClient.set_terminated", "MlflowClient.set_registered_model_alias", "Registry.add", "Registry.mirror", "Registry.promote",
)  # fmt: skip


def test_killed_after_any_step_the_next_registration_makes_nothing_double(home: Path, tmp_path: Path) -> None:
    from mlflow import MlflowClient

    from groundup.lifecycle.mlflow_store import connect, experiment_id

    always = Register(promote="always")
    for i, step in enumerate(STEPS, start=1):
        owner = {"MlflowClient": MlflowClient, "Registry": Registry}[step.partition(".")[0]]
        real = getattr(owner, step.partition(".")[2])

        def after(*args: Any, real: Any = real, **kwargs: Any) -> None:
            real(*args, **kwargs)
            raise Killed

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(owner, real.__name__, after)
            with pytest.raises(Killed):
                go(tmp_path, home, -i / 8, always)
        done = go(tmp_path, home, -i / 8, always)
        assert (done.version, done.champion, done.notes) == (i, i, []), step
        client = connect(home)
        versions = client.search_model_versions("name = 'table'")
        assert sorted(int(v.version) for v in versions) == list(range(1, i + 1)), step
        assert len({v.tags["groundup.bundle"] for v in versions}) == i, step
        assert str(client.get_model_version_by_alias("table", "champion").version) == done.mlflow["version"]
    experiment = experiment_id(client, "table", home)
    runs, models = client.search_runs([experiment]), client.search_logged_models([experiment])
    assert len(runs) == len(models) == len(STEPS)
    assert {r.info.status for r in runs} == {"FINISHED"}
    assert {str(m.status) for m in models} == {"READY"}
    logged = [p for p in (home / "mlartifacts").rglob("MLmodel")]
    assert sorted(p.parent.as_uri() for p in logged) == sorted(m.artifact_location for m in models)
    events = Counter((e.action, e.after) for e in Registry(home).history("table"))
    assert len(events) == 2 * len(STEPS)
    assert set(events.values()) == {1}


def test_a_refusal_that_is_made_again_is_told_once(tmp_path: Path) -> None:
    home = tmp_path / "home"
    go(tmp_path, home, 0.0)
    for _ in range(2):
        assert not go(tmp_path, home, -1.5).promoted
    assert [e.action for e in Registry(home).history("table")] == ["register", "promote", "register", "refuse"]
    assert not go(tmp_path, home, -1.5, passed=False).promoted
    assert [e.action for e in Registry(home).history("table")][-2:] == ["refuse", "refuse"]  # for another reason


def test_every_kind_crosses_to_mlflow_and_back() -> None:
    from groundup.bundle import Field, Signature
    from groundup.bundle.signature import MISSING_DATETIME
    from groundup.registry.flavour import from_mlflow, mlflow_signature, to_mlflow

    table = Signature(
        (
            Field("a", "number", nullable=True), Field("i", "integer"), Field("j", "integer", nullable=True), Field("b", "boolean"),
            Field("m", "boolean", nullable=True), Field("c", "category", nullable=True), Field("d", "datetime", nullable=True),
        ),
        (Field("prediction", "number"),),
    )  # fmt: skip
    arrays: dict[str, Any] = {
        "a": np.array([1.5, np.nan]), "i": np.array([1.0, 2.0]), "j": np.array([np.nan, 2.0]), "b": np.array([1.0, 0.0]),
        "m": np.array([np.nan, 1.0]), "c": np.array(["", "x"], object), "d": np.array([1_700_000_000_123_456, MISSING_DATETIME]),
    }  # fmt: skip
    back = from_mlflow(table, to_mlflow(table, arrays))
    for name, values in arrays.items():
        np.testing.assert_array_equal(back[name], values)
        assert back[name].dtype == values.dtype
    assert [str(t) for t in mlflow_signature(table).inputs.input_types()][:4] == [
        "DataType.double",
        "DataType.long",
        "DataType.double",
        "DataType.boolean",
    ]
    images = Signature((Field("image", "image", (2, 2, 1)),), table.outputs)
    pixels = np.arange(8, dtype=np.uint8).reshape(2, 2, 2, 1)
    np.testing.assert_array_equal(from_mlflow(images, to_mlflow(images, {"image": pixels}))["image"], pixels)
    np.testing.assert_array_equal(from_mlflow(images, pixels)["image"], pixels)
    assert mlflow_signature(images).inputs.inputs[0].shape == (-1, 2, 2, 1)


def test_the_golden_inputs_are_the_bundles_own(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    made = bundle_of(tmp_path / "x", 0.3)
    golden = read_golden(made.read("golden.npz"))
    np.testing.assert_array_equal(golden.outputs["probabilities"], answers(golden.inputs, graph(0.3))["probabilities"])
    assert json.loads(made.read("profile.json")).keys() == {"inputs", "outputs"}

"""MLflow's registry as a mirror of ours: the same versions under the same aliases, each loaded back and compared.

What is done in several steps is found again by the bundle's hash, which every entity made here carries as a tag: a
process that is killed between two steps leaves nothing double, and the next one goes on from what is there.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

import numpy as np

from groundup.bundle import Bundle, Proof
from groundup.lifecycle.mlflow_store import active_store, away, connect, experiment_id, registry_uri
from groundup.registry import CHAMPION, Registry, Version

if TYPE_CHECKING:
    from groundup.lifecycle.evaluate import Evaluated

BUNDLE = "groundup.bundle"
"""Tag: the bundle's version, a hash of its files."""


def follow(registry: Registry, name: str, home: Path) -> str:
    """Set MLflow's aliases to what the registry says.  What went wrong, or ""."""
    try:
        client, there = connect(home), registry.mirrored(name, registry_uri(home))
        for alias, version in registry.aliases(name).items():
            if version in there:
                client.set_registered_model_alias(name, alias, there[version])
            elif alias == CHAMPION:
                client.delete_registered_model_alias(name, alias)  # better none than a wrong one
    except away() as e:
        return f"MLflow's aliases of {name} could not follow ({str(e).splitlines()[0]}); the next register or rollback sets them"
    return ""


def log(
    registry: Registry, version: Version, bundle: Bundle, evaluated: Evaluated, home: Path, run_id: str | None
) -> tuple[dict[str, str], list[Proof]]:
    """Log the bundle as a version of MLflow's registry (once), load both flavours back, and hold their answers against the bundle's.

    Args:
        run_id: MLflow run that the model belongs to; one of its own by default.

    Returns:
        uri, name, version, run_id and model, as MLflow knows them; a proof a flavour.
    """
    from groundup.registry import flavour
    from groundup.serving.engine import Engine
    from groundup.serving.golden import FILE, read_golden

    client, store, name = connect(home), registry_uri(home), version.name
    golden = read_golden(bundle.read(FILE))
    number = registry.mirrored(name, store).get(version.version)
    with active_store(home) as mlflow:
        if number is None:
            example = {k: v[:2] for k, v in golden.inputs.items()}
            number = _version(client, bundle, example, version, evaluated, home, run_id)
            registry.mirror(name, version.version, store, number)
        found = client.get_model_version(name, number)
        source = f"models:/{name}/{number}"
        wrapped = mlflow.pyfunc.load_model(source)
        graph = mlflow.onnx.load_model(source)
    expected = Engine(bundle).run(golden.inputs)
    proofs = []
    frame = wrapped.predict(flavour.to_mlflow(bundle.signature, golden.inputs))
    pyfunc = {k: np.stack(list(frame[k])) if v.ndim > 1 else frame[k].to_numpy() for k, v in expected.items()}
    for kind, got in (("python_function", pyfunc), ("onnx", _run_onnx(graph, golden.inputs, list(expected)))):
        unequal = sum(int((np.asarray(got[k] != v).reshape(len(v), -1).any(1)).sum()) for k, v in expected.items())
        proofs.append(
            Proof(
                link=5,
                claim=f"{name}: the {kind} model loaded back from MLflow answers as the bundle does",
                reference=f"bundle {bundle.version}, mlflow {mlflow.__version__}",
                quantity="answers that differ in any bit",
                measured=float(unequal),
                tolerance=0.0,
                samples=len(next(iter(golden.inputs.values()))),
            )
        )
    return {"uri": store, "name": name, "version": str(number), "run_id": found.run_id or "", "model": source}, proofs


def _version(client: Any, bundle: Bundle, example: Any, version: Version, evaluated: Evaluated, home: Path, run_id: str | None) -> str:
    """The number of this bundle's version in MLflow's registry, which is made unless a killed process made it."""
    from mlflow.entities import LoggedModelStatus
    from mlflow.exceptions import MlflowException
    from mlflow.models import Model

    from groundup.registry import flavour

    name, mine = version.name, f"tags.`{BUNDLE}` = '{bundle.version}'"
    for made in client.search_model_versions(f"name = '{name}'"):
        if made.tags.get(BUNDLE) == bundle.version:
            return str(made.version)
    experiment = experiment_id(client, name, home)
    model = next(iter(client.search_logged_models([experiment], filter_string=mine)), None)
    if model is not None and model.status != LoggedModelStatus.READY:
        run_id = model.source_run_id
        _forget(client, model)  # half of it may be there, and MLflow logs into the same model only once
        model = None
    if model is None:
        if run_id is None:
            run = next(iter(client.search_runs([experiment], filter_string=mine)), None)
            run = run or client.create_run(experiment, run_name=f"register {name} {version.version}", tags={BUNDLE: bundle.version})
            run_id = run.info.run_id
        model = client.create_logged_model(experiment, name=name, source_run_id=run_id, tags={BUNDLE: bundle.version})
        Model.log(None, flavour, name=name, model_id=model.model_id, run_id=run_id, bundle=bundle, example=example)
    run_id = model.source_run_id
    for metric, interval in evaluated.metrics.items():
        if (value := interval.get("value")) is not None:
            client.log_metric(run_id, f"test.{metric}", value)
    if BUNDLE in client.get_run(run_id).data.tags:  # a run of its own, not the training's; the version comes last, and is looked for first
        client.set_terminated(run_id, "FINISHED")
    try:
        client.create_registered_model(name, description="groundup's registry is the truth; these aliases follow it.")
    except MlflowException as e:
        if e.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    tags = _tags(bundle, version, evaluated)
    made = client.create_model_version(name, f"models:/{model.model_id}", run_id=run_id, tags=tags, model_id=model.model_id)
    return str(made.version)


def _forget(client: Any, model: Any) -> None:
    """Delete a model that was logged in part, its files too where they are ours to delete."""
    client.delete_logged_model(model.model_id)
    place = urlsplit(model.artifact_location)
    if place.scheme == "file":
        shutil.rmtree(url2pathname(place.path), ignore_errors=True)


def _tags(bundle: Bundle, version: Version, evaluated: Evaluated) -> dict[str, str]:
    tags = {
        BUNDLE: bundle.version,
        "groundup.version": str(version.version),
        "groundup.compression": str(bundle.compression.get("scheme", "")),
    }
    for gate in evaluated.gates:
        where = f" {gate.where}" if gate.where else ""
        tags[f"gate.{gate.gate}.{gate.goal}{where}"[:250]] = (
            f"{'passed' if gate.passed else 'failed'}: {gate.measured} against {gate.bound}"
        )
    return tags


def _run_onnx(graph: Any, inputs: Any, outputs: list[str]) -> dict[str, Any]:
    """The graph that MLflow gave back, in a session as the engine makes it."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.use_deterministic_compute = True
    session = ort.InferenceSession(graph.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return dict(zip(outputs, session.run(outputs, dict(inputs)), strict=True))

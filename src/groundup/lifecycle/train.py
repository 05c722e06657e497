"""train: a model by name or by import path, fitted; the loop that reads like the algorithm is in groundup.training."""

from __future__ import annotations

import functools
import hashlib
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from groundup.bundle.files import write_bytes
from groundup.bundle.proof import Proof
from groundup.catalogue import Model
from groundup.errors import ModelError, ProofError
from groundup.lifecycle.prepare import Prepared
from groundup.lifecycle.stage import Context, Output
from groundup.training.settings import Augment, Checkpoint, EarlyStopping, Optimizer, Schedule, Train

if TYPE_CHECKING:
    import onnx
    import onnxruntime
    from torch import nn

    from groundup.training.arrays import Arrays

__all__ = ["Augment", "Checkpoint", "EarlyStopping", "Optimizer", "Schedule", "Train", "Trained", "train"]

CORE_TOLERANCE = 1e-5
"""Largest difference allowed between a fitted estimator and its graph: probabilities, or values over their spread."""


class Trained(Output):
    """A fitted model, in files that execute nothing.

    Files: networks ``model.safetensors`` (the best weights), ``last.safetensors`` (those after the last step) and
    ``config.json``; estimators ``core.onnx`` (features -> scores).
    """

    kind: Literal["network", "estimator"]
    model: dict[str, Any]
    """As in the recipe, defaults and the sizes taken from the data filled in: {"name": "cnn", "input_shape": [1, 8, 8], ...}."""
    scores: Literal["logits", "probabilities", "values"]
    """What the core's output is: logits (networks), probabilities (estimators) or values (regression)."""
    feature_shape: list[int]
    n_outputs: int
    root: str = "."
    """The recipe's folder relative to this one; user modules are imported from there."""
    target_scale: tuple[float, float] = (1.0, 0.0)
    """prediction = scores × scale + shift (networks are trained on standardized targets)."""
    parameters: int = 0
    precision: Literal["fp32", "bf16"] = "fp32"
    """What the weights were trained in; they are stored and exported in fp32."""
    best: dict[str, float] = Field(default_factory=dict)
    """Validation metrics of the checkpoint that was kept, and its epoch."""
    history: list[dict[str, float]] = Field(default_factory=list)
    """One entry an epoch: epoch, train_loss, validation metrics, lr, seconds, samples_per_second."""
    seconds: float = 0.0
    proofs: list[Proof] = Field(default_factory=list)

    def raw_scores(self, features: NDArray[Any]) -> NDArray[np.float32]:
        """The core's output: float32 (N, n_outputs) for features (N, *feature_shape)."""
        if self.kind == "network":
            from groundup.training.loop import predict

            return np.asarray(predict(self.module(), np.array(features, np.float32)).numpy())
        from groundup.training.core import run

        return run(self._session, features)

    def answers(self, features: NDArray[Any]) -> NDArray[np.float32]:
        """Probabilities (N, n_outputs) for classification, values (N,) in the target's unit for regression."""
        scores = self.raw_scores(features)
        if self.scores == "values":
            scale, shift = self.target_scale
            return np.asarray(scores[:, 0] * np.float32(scale) + np.float32(shift))
        if self.scores == "probabilities":
            return scores
        import torch

        return np.asarray(torch.from_numpy(scores).softmax(1).numpy())

    def core(self) -> onnx.ModelProto:
        """The core graph: ``features`` float32 (N, *feature_shape) -> ``scores`` float32 (N, n_outputs)."""
        if self.kind == "network":
            from groundup.models.export import export_network

            return export_network(self.module(), tuple(self.feature_shape))
        import onnx

        return onnx.load(str(self.path / "core.onnx"))

    def module(self) -> nn.Module:
        """The network with its best weights, in evaluation mode; built once.

        Raises:
            ModelError: an estimator has no module, or the user's module is no longer where it was.
        """
        if self.kind != "network":
            raise ModelError("an estimator has no torch module; core() gives its graph")
        return self._module

    @functools.cached_property
    def _module(self) -> nn.Module:
        from groundup.catalogue import resolve
        from groundup.training import networks

        root = (self.path / self.root).resolve()
        given = {k: v for k, v in self.model.items() if k not in ("input_shape", "n_features", "n_outputs")}
        resolved = resolve(Model.model_validate(given), root)
        return networks.read(resolved, tuple(self.feature_shape), self.n_outputs, self.path / "model.safetensors")

    @functools.cached_property
    def _session(self) -> onnxruntime.InferenceSession:
        from groundup.training.core import session

        return session((self.path / "core.onnx").read_bytes())


def train(section: Train, model: Model, prepared: Prepared, *, out: Path, context: Context) -> Trained:
    """Fit ``model`` to the training split and keep what is best on the validation split.

    Raises:
        ModelError: the model cannot be built, does not fit the data, diverges or cannot be exported.
        ProofError: the model is not what the catalogue says, or training is not what it claims to be.
        Interrupted: asked to stop; the same command goes on from the checkpoint in ``context.work``.
        StorageError: a checkpoint or the result cannot be written.
    """
    from groundup.catalogue import resolve
    from groundup.training.arrays import Arrays

    resolved = resolve(model, context.root)
    arrays = Arrays.of(prepared)
    fit = _network if resolved.kind == "network" else _estimator
    return fit(section, model, resolved, arrays, prepared, out, context)


def _held(proofs: list[Proof]) -> list[Proof]:
    """The proofs as records, once all of them hold."""
    failed = [str(p) for p in proofs if not p.passed]
    if failed:
        raise ProofError("training stops, a link of the proof chain is not equal:\n  " + "\n  ".join(failed))
    return proofs


def _network(section: Train, model: Model, resolved: Any, arrays: Arrays, prepared: Prepared, out: Path, context: Context) -> Trained:
    from safetensors.torch import save

    from groundup.training import checkpoint, networks
    from groundup.training.proofs import proofs

    with context.progress.task("proving the training on this model"):
        held = _held(_link_one(model) + proofs(resolved, arrays, section, context))
    context.check()
    config = resolved.config(arrays.feature_shape, arrays.n_outputs)
    key = json.dumps([section.model_dump(mode="json"), config, prepared.data_hash, context.seed], sort_keys=True, default=str)
    module, fitted = networks.fitted(resolved, arrays, section, context, fingerprint=hashlib.sha256(key.encode()).hexdigest())
    networks.write(module, out / "model.safetensors")
    write_bytes(out / "last.safetensors", save(checkpoint.unshared(fitted.last)))
    write_bytes(out / "config.json", networks.config_json(config))
    return Trained(
        kind="network",
        model=config,
        scores="values" if arrays.regression else "logits",
        feature_shape=list(arrays.feature_shape),
        n_outputs=arrays.n_outputs,
        root=os.path.relpath(context.root, out),
        target_scale=(arrays.scale, arrays.shift),
        parameters=networks.parameters(module),
        precision=fitted.precision,
        best=fitted.best,
        history=fitted.history,
        seconds=fitted.seconds,
        proofs=held,
    )


def _estimator(section: Train, model: Model, resolved: Any, arrays: Arrays, prepared: Prepared, out: Path, context: Context) -> Trained:
    from groundup.estimators.export import export_estimator
    from groundup.training import classical, core

    if section != Train():
        context.progress.note("the train section is for networks; this estimator takes its settings from model and reads nothing of it")
    with context.progress.task(f"fitting on {len(arrays.y)} rows"):
        estimator, seconds = classical.fitted(resolved, arrays, context.seed)
    context.check()
    found = classical.scores(estimator, arrays)
    row = {"epoch": 1.0, **found, "seconds": seconds, "samples_per_second": len(arrays.y) / max(seconds, 1e-9)}
    context.log_metrics({k: v for k, v in row.items() if k != "epoch"}, 1)
    graph = export_estimator(estimator, arrays.feature_shape, arrays.n_outputs).SerializeToString()
    write_bytes(out / "core.onnx", graph)
    return Trained(
        kind="estimator",
        model=resolved.config((int(np.prod(arrays.feature_shape)),), arrays.n_outputs),
        scores="values" if arrays.regression else "probabilities",
        feature_shape=list(arrays.feature_shape),
        n_outputs=arrays.n_outputs,
        root=os.path.relpath(context.root, out),
        best={"epoch": 1.0, **found},
        history=[row],
        seconds=seconds,
        proofs=_held(_link_one(model) + core.proofs(graph, estimator, arrays, CORE_TOLERANCE)),
    )


def _link_one(model: Model) -> list[Proof]:
    """The catalogue's own proof of the model, made again on this machine; a user's class has none."""
    if model.name is None:
        return []
    from groundup.proof import check

    return list(check(model.name))

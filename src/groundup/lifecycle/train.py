"""train: a model by name or by import path, fitted; the loop that reads like the algorithm is in groundup.training."""

from __future__ import annotations

from typing import Any, Literal

from groundup.lifecycle.stage import Output, ProofRecord


class Trained(Output):
    """A fitted model, in files that execute nothing.

    Files: networks ``model.safetensors`` + ``config.json``; estimators ``core.onnx`` (features -> scores).
    """

    kind: Literal["network", "estimator"]
    model: dict[str, Any]
    """As in the recipe, defaults and the sizes taken from the data filled in: {"name": "cnn", "input_shape": [1, 8, 8], ...}."""
    scores: Literal["logits", "probabilities", "values"]
    """What the core's output is: logits (networks), probabilities (estimators) or values (regression)."""
    target_scale: tuple[float, float] = (1.0, 0.0)
    """prediction = scores × scale + shift (networks are trained on standardized targets)."""
    parameters: int = 0
    best: dict[str, float] = {}
    """Validation metrics of the checkpoint that was kept, and its epoch."""
    history: list[dict[str, float]] = []
    """One entry an epoch: epoch, train_loss, validation metrics, lr, seconds, samples_per_second."""
    seconds: float = 0.0
    proofs: list[ProofRecord] = []

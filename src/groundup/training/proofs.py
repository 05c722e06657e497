"""Link 2 of the proof chain: this training, on this model and this data, is what it says it is."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from groundup.bundle.proof import Proof
from groundup.errors import Interrupted
from groundup.proof.invariance import invariances
from groundup.training import checkpoint, networks
from groundup.training.arrays import Arrays
from groundup.training.loop import fit
from groundup.training.settings import Checkpoint, Train
from groundup.training.surroundings import Quiet, StopAfter, Surroundings


def proofs(recipe: networks.Recipe, arrays: Arrays, section: Train, around: Surroundings) -> list[Proof]:
    """Every proof of link 2, on the model as it starts and up to 64 samples of the training split."""
    found = [resume_is_uninterrupted(recipe, arrays, section, around)]
    if len(arrays.y) >= 4:
        n = min(len(arrays.y), 64)
        found += invariances(networks.built(recipe, arrays, section, around.seed), torch.from_numpy(arrays.X[:n]), arrays.targets()[:n])
    return found


def resume_is_uninterrupted(recipe: networks.Recipe, arrays: Arrays, section: Train, around: Surroundings) -> Proof:
    """Train two short epochs of three steps on a slice of the data, once through and once stopped in the second and resumed."""
    per_step = section.batch_size * section.accumulate
    n = min(len(arrays.y), max(per_step * 3, 2))
    small = replace(arrays, X=arrays.X[:n], y=arrays.y[:n], X_val=arrays.X_val[:64], y_val=arrays.y_val[:64])
    short = section.model_copy(update={"epochs": 2, "early_stopping": None, "precision": "fp32", "checkpoint": Checkpoint(seconds=3600)})
    steps_an_epoch = max(-(-n // per_step), 1)

    def weights(stop_after: int | None) -> dict[str, Tensor]:
        with tempfile.TemporaryDirectory(dir=around.work) as folder:
            if stop_after is not None:
                try:
                    around_stop = Quiet(Path(folder), around.seed, StopAfter(stop_after))
                    fit(networks.built(recipe, small, short, around.seed), small, short, around_stop)
                except Interrupted:
                    pass
                else:
                    raise AssertionError("the proof's training was not interrupted")
            model = networks.built(recipe, small, short, around.seed)
            fitted = fit(model, small, short, Quiet(Path(folder), around.seed))
            return {**checkpoint.with_prefix("best", model.state_dict()), **checkpoint.with_prefix("last", fitted.last)}

    through, resumed = weights(None), weights(steps_an_epoch)
    worst = max(float((through[k].double() - resumed[k].double()).abs().max()) for k in through)
    return Proof(
        link=2,
        claim="a training that was stopped within an epoch and resumed ends with the weights of one that was not",
        reference=f"itself, torch {torch.__version__}",
        quantity="largest difference of a weight",
        measured=worst,
        tolerance=0.0,
        samples=sum(v.numel() for v in through.values()),
    )

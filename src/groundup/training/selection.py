"""Which epoch's weights are kept, and when to stop looking: by a validation metric."""

from __future__ import annotations

import math
from typing import Literal

from groundup import metrics
from groundup.errors import RecipeError
from groundup.training.settings import EarlyStopping

Verdict = Literal["improved", "kept", "worse"]


class Selection:
    """Judges epochs by the monitored metric; equal ones by the validation loss.

    A small validation split has many ties (accuracy counts in steps of 1/N), and the loss still tells them apart.

    Attributes:
        metric: the monitored one: ``early_stopping.metric``, or the task's headline.
    """

    def __init__(self, stopping: EarlyStopping | None, task: str) -> None:
        self.loss = "rmse" if task.endswith("regression") else "log_loss"
        name = stopping.metric if stopping and stopping.metric else metrics.headline(task)
        self.metric = self.loss if name == "loss" else name
        self.min_delta = stopping.min_delta if stopping else 0.0
        self.patience = stopping.patience if stopping else math.inf
        if self.metric not in metrics.names(task):
            known = ", ".join(metrics.names(task))
            raise RecipeError(f"train.early_stopping.metric {name!r} is no metric of {task}; expected one of loss, {known}")

    def judge(self, scores: dict[str, float], best: dict[str, float]) -> Verdict:
        """``improved``: better by more than min_delta; ``kept``: better by less, or equal with a smaller loss; else ``worse``."""
        if self.metric not in scores:  # undefined in this split, as ROC AUC with one class is
            return "improved" if not best else "worse"
        if self.metric not in best:
            return "improved"
        gain = scores[self.metric] - best[self.metric]
        if metrics.DIRECTIONS[self.metric] == "minimize":
            gain = -gain
        if gain > self.min_delta:
            return "improved"
        return "kept" if gain > 0 or (gain == 0 and scores[self.loss] < best[self.loss]) else "worse"

"""The loss of each task, as a mean whose parts can be added up exactly.

    classification  cross entropy  ℓ = −Σ_k q_k log softmax(s)_k,  q = (1 − ε) onehot(y) + ε / K   (Szegedy et al. 2016, section 7)
    regression      squared error  ℓ = (s − z)²,                   z the standardized target

A step's loss is Σ w_i ℓ_i / Σ w_i over *all* samples of the step.  Averaging the batches' means instead is the well-known
accumulation error: it weighs the samples of a small last batch more.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812 - PyTorch's own name for it
from torch import Tensor


@dataclass(frozen=True)
class Loss:
    """A callable (scores (B, n_outputs), y (B,)) -> mean loss, in fp32.

    Attributes:
        regression: squared error if True, else cross entropy.
        weights: (K,) class weights, or None.
    """

    regression: bool
    label_smoothing: float = 0.0
    weights: Tensor | None = None

    def __call__(self, scores: Tensor, y: Tensor) -> Tensor:
        if self.regression:
            return F.mse_loss(scores[:, 0].float(), y)
        return F.cross_entropy(scores.float(), y, self.weights, label_smoothing=self.label_smoothing)

    def mass(self, y: Tensor) -> float:
        """Σ w_i: what the mean over these samples was divided by."""
        return float(len(y)) if self.weights is None else float(self.weights[y].sum())


def balanced_weights(y: Tensor, n_classes: int) -> Tensor:
    """w_k = N / (K · count_k), and 1 for a class without samples (scikit-learn's "balanced")."""
    count = torch.bincount(y, minlength=n_classes)
    return torch.where(count > 0, len(y) / (n_classes * count.clamp(min=1)), 1.0).float()

"""The optimizer that a recipe names, from torch.optim, fused where there is a kernel.

Weight decay is for matrices and filters; vectors (biases, gains of norms) are left alone, as decaying a gain towards
zero is no regularization (He et al. 2019, "Bag of tricks", section 3.1).
"""

from __future__ import annotations

import torch
from torch import nn

from groundup.errors import ModelError
from groundup.training.settings import Optimizer


def build(settings: Optimizer, model: nn.Module) -> torch.optim.Optimizer:
    """An optimizer over the parameters that train, its rate at the peak."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": settings.weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    groups = [g for g in groups if g["params"]]
    if not groups:
        raise ModelError("the model has no parameter that trains; expected an nn.Module with at least one requires_grad parameter")
    fused = all(p.is_floating_point() for p in parameters)  # the kernels know no complex numbers
    match settings.name:
        case "sgd":
            return torch.optim.SGD(groups, lr=settings.lr, momentum=settings.momentum, nesterov=settings.nesterov, fused=fused)
        case "adam":
            return torch.optim.Adam(groups, lr=settings.lr, betas=settings.betas, eps=settings.eps, fused=fused)
        case "adamw":
            return torch.optim.AdamW(groups, lr=settings.lr, betas=settings.betas, eps=settings.eps, fused=fused)


def set_lr(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Give every group the same rate."""
    for group in optimizer.param_groups:
        group["lr"] = lr

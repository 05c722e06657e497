"""Link 2: what must hold of any network that is trained in batches, measured on the network itself, whoever wrote it.

Measured in float64 on a copy, so that what is left is a mistake and not rounding; a network that cannot compute in
float64 is measured in float32, and the claim says so.

Batch normalization (and anything else that mixes the examples of a batch while it trains) sees other statistics in a
micro-batch than in the whole one, in every framework: there accumulation is *not* the full batch.  The gradients are
therefore compared with the network evaluating (statistics frozen, dropout off), and for a network that mixes examples
the claim names the modules that do.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - its usual name

from groundup.bundle import Proof
from groundup.proof.compare import FLOAT64_TOLERANCE, Worst

FLOAT32_TOLERANCE = 1e-4
"""What reordering a sum of some thousand terms costs, twice (see compare.py)."""

Loss = Callable[[Tensor, Tensor], Tensor]


def invariances(network: nn.Module, features: Tensor, targets: Tensor, loss: Loss | None = None) -> list[Proof]:
    """Accumulation = full batch; neither the order nor the size of a batch changes an answer.

    Args:
        network: on the CPU; it is not changed.
        features: (N, *feature_shape), N >= 4; 64 examples are plenty.
        targets: (N,) class indices, or values.
        loss: mean loss of scores and targets; cross-entropy for integer targets, squared error otherwise.

    Returns:
        Three proofs of link 2; nothing is raised for a failed one.

    Raises:
        ValueError: fewer than four examples.
    """
    if len(features) < 4:
        raise ValueError(f"expected at least 4 examples to cut into micro-batches, got {len(features)}")
    loss = loss or (_cross_entropy if not targets.is_floating_point() else _squared_error)
    twin, features, targets, tolerance, dtype = _widened(network, features, targets)
    mixing = sorted({type(m).__name__ for m in twin.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)})
    frozen = f" with the statistics of {', '.join(mixing)} frozen" if mixing else ""
    measured = {
        f"accumulated gradients equal the full batch's{frozen}": accumulation(twin, features, targets, loss),
        "the order of a batch does not change an answer": batch_order(twin, features),
        "the size of a batch does not change an answer": batch_size(twin, features),
    }
    return [
        Proof(
            link=2,
            claim=f"{type(network).__name__}: {claim} ({dtype})",
            reference=f"itself, torch {torch.__version__.partition('+')[0]}",
            quantity="largest difference, relative to the tensor's largest value",
            measured=worst.measured,
            tolerance=tolerance,
            samples=worst.samples,
        )
        for claim, worst in measured.items()
    ]


def accumulation(network: nn.Module, features: Tensor, targets: Tensor, loss: Loss, pieces: Sequence[int] = (2, 3)) -> Worst:
    """Gradients of the mean loss over all N examples, against the sum over micro-batches of n/N times theirs.

    N need not divide: it is the last, smaller micro-batch that a plain mean of means gets wrong.
    """
    whole = _gradients(network, [(features, targets)], loss)
    worst = Worst()
    for n in pieces:
        size = -(-len(features) // n)
        parts = list(zip(torch.split(features, size), torch.split(targets, size), strict=True))
        for ours, theirs in zip(_gradients(network, parts, loss), whole, strict=True):
            worst.see(ours, theirs)
    return worst


def batch_order(network: nn.Module, features: Tensor) -> Worst:
    """Scores of a shuffled batch, put back in order, against the scores of the batch."""
    order = torch.randperm(len(features), generator=torch.Generator().manual_seed(0))
    worst = Worst()
    worst.see(_scores(network, features[order])[order.argsort()], _scores(network, features))
    return worst


def batch_size(network: nn.Module, features: Tensor) -> Worst:
    """Scores of every example by itself and of batches of three, against the scores of all at once."""
    worst, whole = Worst(), _scores(network, features)
    for size in (1, 3):
        worst.see(torch.cat([_scores(network, part) for part in torch.split(features, size)]), whole)
    return worst


def _gradients(network: nn.Module, parts: list[tuple[Tensor, Tensor]], loss: Loss) -> list[Tensor]:
    network.eval()
    network.zero_grad()
    total = sum(len(x) for x, _ in parts)
    for x, y in parts:
        (loss(network(x), y) * (len(x) / total)).backward()  # type: ignore[no-untyped-call]
    return [torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in network.parameters() if p.requires_grad]


def _scores(network: nn.Module, x: Tensor) -> Tensor:
    with torch.no_grad():
        scores: Tensor = network.eval()(x)
        return scores


def _widened(network: nn.Module, features: Tensor, targets: Tensor) -> tuple[nn.Module, Tensor, Tensor, float, str]:
    """A copy in float64 with its data; in float32 where the network fixes a type inside."""
    try:
        twin = copy.deepcopy(network).double()
        _scores(twin, features[:1].double())
    except RuntimeError:  # "expected scalar type Double but found Float" and its kin
        return copy.deepcopy(network), features, targets, FLOAT32_TOLERANCE, "float32"
    wide = targets.double() if targets.is_floating_point() else targets
    return twin, features.double(), wide, FLOAT64_TOLERANCE, "float64"


def _cross_entropy(scores: Tensor, y: Tensor) -> Tensor:
    return F.cross_entropy(scores, y)


def _squared_error(scores: Tensor, y: Tensor) -> Tensor:
    return F.mse_loss(scores, y.reshape(scores.shape).to(scores.dtype))

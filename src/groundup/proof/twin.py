"""A network of ours beside the same one put together from a library's own parts: where no whole of it can be loaded from a checkpoint.

The reference is given our weights by name, all of its own and none twice.  Compared are the output, what every layer
makes, the gradient of every parameter and the weights after one AdamW step.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from groundup.bundle import Proof
from groundup.nn.trace import Trace
from groundup.proof.compare import FLOAT64_TOLERANCE, Worst, reordering_bound
from groundup.proof.pretrained import ADAMW_EPS


@dataclass(frozen=True)
class Twin:
    """One pair to compare.

    Attributes:
        ours: with its weights drawn.
        theirs: of any weights.
        rename: tensors of our names -> all of theirs (weights, gradients).
        run: computes our output.
        inside: what our trace saw, in the order in which the reference tells it.
        run_theirs: computes their output and adds to a list what is inside.
        terms: how many terms an output is summed from, layer after layer (for the float32 bound).
    """

    ours: nn.Module
    theirs: nn.Module
    rename: Callable[[Mapping[str, Tensor]], dict[str, Tensor]]
    run: Callable[[Any, Trace | None], Tensor]
    inside: Callable[[Trace], Sequence[Tensor]]
    run_theirs: Callable[[Any, list[Tensor]], Tensor]
    terms: int


_CLAIMS = {
    "outputs": "outputs equal",
    "inside": "the {inside} of every layer equal",
    "gradients": "the gradient of every parameter equals",
    "adamw": f"the weights after one AdamW step (ε = {ADAMW_EPS:g}) equal",
}


def prove_twins(
    name: str, whose: str, reference: str, inside: str, twins: Callable[[int], Iterator[Twin]], seeds: Sequence[int]
) -> list[Proof]:
    """Four proofs in each of float64 and float32; the worst over all seeds and pairs.

    Args:
        name: of the model, for the claims.
        whose: values ours equal, for the claims.
        reference: the library that the twin is made of, and its version.
        inside: what is compared of each layer, for the claims.
        twins: seed -> what to compare for it.
    """
    proofs = []
    for dtype, tolerance in ((torch.float64, FLOAT64_TOLERANCE), (torch.float32, 0.0)):
        seen = {quantity: Worst() for quantity in _CLAIMS}
        for seed in seeds:
            for twin in twins(seed):
                if dtype == torch.float32:
                    tolerance = max(tolerance, reordering_bound(twin.terms))
                _compare(twin, dtype, seed, seen)
        proofs += [
            Proof(
                link=1,
                claim=f"{name}: {claim.format(inside=inside)} {whose} ({str(dtype).removeprefix('torch.')})",
                reference=reference,
                quantity="largest difference, relative to the tensor's largest value",
                measured=seen[quantity].measured,
                tolerance=tolerance,
                samples=seen[quantity].samples,
            )
            for quantity, claim in _CLAIMS.items()
        ]
    return proofs


def _compare(twin: Twin, dtype: torch.dtype, seed: int, seen: dict[str, Worst]) -> None:
    ours, theirs = copy.deepcopy(twin.ours).to(dtype), copy.deepcopy(twin.theirs).to(dtype)
    theirs.load_state_dict(twin.rename({k: v.clone() for k, v in ours.state_dict().items()}))  # strict: none is left out
    trace, expected = Trace(), list[Tensor]()
    with torch.no_grad():
        traced = twin.run(ours, trace)
    scores, wanted = twin.run(ours, None), twin.run_theirs(theirs, expected)
    for answer in (traced, scores):
        seen["outputs"].see(answer, wanted)
    mine = twin.inside(trace)
    assert len(mine) == len(expected) > 0, f"{len(mine)} values of ours beside {len(expected)}"
    for a, b in zip(mine, expected, strict=True):
        seen["inside"].see(a, b)
    weight = torch.randn(wanted.shape, generator=torch.Generator().manual_seed(seed)).to(dtype)
    for answer in (scores, wanted):
        (answer * weight).sum().backward()  # type: ignore[no-untyped-call]
    gradients = twin.rename({n: p.grad if p.grad is not None else torch.full_like(p, float("nan")) for n, p in ours.named_parameters()})
    for name, parameter in theirs.named_parameters():
        assert parameter.grad is not None, f"the reference has no gradient of {name}"
        seen["gradients"].see(gradients[name], parameter.grad)
    for net in (ours, theirs):
        torch.optim.AdamW(net.parameters(), lr=0.01, eps=ADAMW_EPS).step()
    weights = twin.rename(dict(ours.named_parameters()))
    for name, parameter in theirs.named_parameters():
        seen["adamw"].see(weights[name], parameter)

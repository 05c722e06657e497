"""A network of ours beside the one of ``transformers``: the same checkpoint, the same input, every value inside and out.

The reference draws its weights, saves itself as it always does, and ours is loaded from that folder by
``from_pretrained``, so the shipped converter is part of what is proven.  Compared are the output, the hidden states and
attention weights of every layer, the gradient of every parameter and the weights after one AdamW step; gradients and
weights go back through the converter too.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - its usual name

from groundup.bundle import Proof
from groundup.nn.checkpoint import Pretrained
from groundup.nn.trace import Trace
from groundup.proof.compare import FLOAT64_TOLERANCE, Worst, reordering_bound


def _layers(trace: Trace) -> Sequence[Tensor]:
    return [trace.values["embedding"], *trace.find("output")]


@dataclass(frozen=True)
class Pair:
    """One pair to compare.

    Attributes:
        ours: the class that loads the checkpoint.
        theirs: the reference, eager attention, all dropout 0; :func:`draw` gives it weights.
        inputs, their_inputs: keyword arguments of the two forwards.
        terms: how many terms an output is summed from, layer after layer (for the float32 bound).
        output, their_output: the tensor to compare in what the forwards return.
        hidden, their_hidden: the hidden states in our trace and in their output, in the same order and number.
        attentions, their_attentions: the attention weights, likewise.
        adapt: changes the reference before it is measured in float64, where it computes in float32 by itself.
    """

    ours: type[Pretrained]
    theirs: nn.Module
    inputs: Mapping[str, Any]
    their_inputs: Mapping[str, Any]
    terms: int
    output: Callable[[Any], Tensor] = lambda out: out
    their_output: Callable[[Any], Tensor] = lambda out: out.logits
    hidden: Callable[[Trace], Sequence[Tensor]] = _layers
    their_hidden: Callable[[Any], Sequence[Tensor]] = lambda out: out.hidden_states
    attentions: Callable[[Trace], Sequence[Tensor]] = lambda trace: trace.find("attention")
    their_attentions: Callable[[Any], Sequence[Tensor]] = lambda out: out.attentions
    adapt: Callable[[nn.Module], None] = lambda theirs: None


@torch.no_grad()
def draw(network: nn.Module, seed: int) -> nn.Module:
    """Give every parameter a random value: matrices keep the variance of what they map, vectors lie around where they start.

    No weight stays at 0 or 1, where one that is left out would not show.
    """
    generator = torch.Generator().manual_seed(seed)
    for parameter in network.parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        if parameter.ndim >= 2:
            parameter.copy_(noise / parameter.shape[-1] ** 0.5)
        else:
            parameter.copy_(parameter.mean() + 0.1 * noise)
    return network.eval()


ADAMW_EPS = 0.1
"""AdamW divides a gradient by its own size plus this.  The bias of the keys has gradient 0 in exact arithmetic (it adds the
same to every score), so rounding alone is left of it; with the usual 1e-8 that noise would become a full step, and with
1e-3 a rounding of 2e-6 in another gradient is still multiplied by 10."""

_CLAIMS = {
    "outputs": "outputs equal",
    "hidden": "the hidden states of every layer equal",
    "attentions": "the attention weights of every head equal",
    "gradients": "the gradient of every parameter equals",
    "adamw": f"the weights after one AdamW step (ε = {ADAMW_EPS:g}) equal",
}


@dataclass
class _Measured:
    tolerance: float = FLOAT64_TOLERANCE
    quantities: dict[str, Worst] = field(default_factory=lambda: {quantity: Worst() for quantity in _CLAIMS})


def prove_pretrained(name: str, pairs: Callable[[int], Iterator[Pair]], seeds: Sequence[int]) -> list[Proof]:
    """Five proofs in each of float64 and float32; the worst over all seeds and pairs.

    Args:
        name: of the model, for the claims.
        pairs: seed -> what to compare for it.
    """
    import transformers

    transformers.utils.logging.disable_progress_bar()  # a bar for a file of a few kilobytes
    results = {torch.float64: _Measured(), torch.float32: _Measured(0.0)}
    for seed in seeds:
        for pair in pairs(seed):
            with tempfile.TemporaryDirectory() as folder:
                pair.theirs.save_pretrained(folder)  # type: ignore[operator]
                ours = pair.ours.from_pretrained(folder)
            for dtype in (torch.float32, torch.float64):  # float64 last: a float32 weight is exact in it, not the reverse
                measured = results[dtype]
                if dtype == torch.float64:
                    pair.adapt(pair.theirs)
                else:
                    measured.tolerance = max(measured.tolerance, reordering_bound(pair.terms))
                _compare(pair, ours.to(dtype), pair.theirs.to(dtype), seed, measured.quantities)
    return [
        Proof(
            link=1,
            claim=f"{name}: {claim} transformers' ({str(dtype).removeprefix('torch.')})",
            reference=f"transformers {transformers.__version__}",
            quantity="largest difference, relative to the tensor's largest value",
            measured=measured.quantities[quantity].measured,
            tolerance=measured.tolerance,
            samples=measured.quantities[quantity].samples,
        )
        for dtype, measured in results.items()
        for quantity, claim in _CLAIMS.items()
    ]


def _compare(pair: Pair, ours: Pretrained, theirs: nn.Module, seed: int, seen: dict[str, Worst]) -> None:
    dtype = next(ours.parameters()).dtype
    trace = Trace()
    inputs, their_inputs = (_cast(each, dtype) for each in (pair.inputs, pair.their_inputs))
    with _softmax_keeps_float64():
        expected = theirs(**their_inputs, output_hidden_states=True, output_attentions=True)
    wanted = pair.their_output(expected)
    with torch.no_grad():
        seen["outputs"].see(pair.output(ours(**inputs, trace=trace)), wanted)
    output = pair.output(ours(**inputs))
    seen["outputs"].see(output, wanted)
    for quantity, mine, reference in (
        ("hidden", pair.hidden(trace), pair.their_hidden(expected)),
        ("attentions", pair.attentions(trace), pair.their_attentions(expected)),
    ):
        assert len(mine) == len(reference) > 0, f"{quantity}: {len(mine)} of ours beside {len(reference)}"
        for a, b in zip(mine, reference, strict=True):
            seen[quantity].see(a, b)
    weight = torch.randn(wanted.shape, generator=torch.Generator().manual_seed(seed)).to(dtype)
    before = [[p.detach().clone() for p in net.parameters()] for net in (ours, theirs)]
    for net, scores in ((ours, output), (theirs, wanted)):
        net.zero_grad(set_to_none=True)
        (scores * weight).sum().backward()  # type: ignore[no-untyped-call]
    gradients, their_gradients = (
        {n: p.grad if p.grad is not None else torch.full_like(p, float("nan")) for n, p in net.named_parameters()} for net in (ours, theirs)
    )
    _pairwise(ours, gradients, _saved(theirs, their_gradients), seen["gradients"])
    for net in (ours, theirs):
        torch.optim.AdamW(net.parameters(), lr=0.01, eps=ADAMW_EPS).step()
    _pairwise(ours, dict(ours.named_parameters()), _saved(theirs, dict(theirs.named_parameters())), seen["adamw"])
    with torch.no_grad():  # as before, for the next comparison
        for net, old in zip((ours, theirs), before, strict=True):
            for p, value in zip(net.parameters(), old, strict=True):
                p.copy_(value)


@contextmanager
def _softmax_keeps_float64() -> Iterator[None]:
    """Some references ask softmax for float32 whatever comes in; float64 stays float64 while they are measured in it."""
    softmax = F.softmax

    def wide(input: Tensor, dim: int | None = None, _stacklevel: int = 3, dtype: torch.dtype | None = None) -> Tensor:
        return softmax(input, dim, _stacklevel, torch.float64 if input.dtype == torch.float64 else dtype)

    F.softmax = wide
    try:
        yield
    finally:
        F.softmax = softmax


@torch.no_grad()
def _saved(theirs: nn.Module, tensors: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """Their tensors under the names that they have in a checkpoint, which since transformers 5 are not always the modules'."""
    from transformers.core_model_loading import revert_weight_conversion

    converted: Mapping[str, Tensor] = revert_weight_conversion(theirs, {name: t.detach() for name, t in tensors.items()})
    return converted


def _pairwise(ours: Pretrained, mine: Mapping[str, Tensor], theirs: Mapping[str, Tensor], worst: Worst) -> None:
    """Our tensors by their names beside theirs: all of them, none of either side left out.

    What is one tensor here is compared as one: the bias of the keys has no gradient but rounding, which says nothing by
    itself, and is measured by the size of that of queries and values.
    """
    state = ours.state_dict() | dict(mine)
    named = dict(ours.to_checkpoint(state))
    if missing := sorted(set(theirs) - set(named)):
        raise AssertionError(f"the reference trains what ours does not have: {missing}")
    for source in ours.sources().values():
        parts = [name for name in source.names if name in theirs]
        assert all(named[name].shape == theirs[name].shape for name in parts), f"shapes differ: {parts}"
        if parts:
            worst.see(*(torch.cat([each[name].flatten() for name in parts]) for each in (named, theirs)))


def _cast(inputs: Mapping[str, Any], dtype: torch.dtype) -> dict[str, Any]:
    return {k: v.to(dtype) if isinstance(v, Tensor) and v.is_floating_point() else v for k, v in inputs.items()}

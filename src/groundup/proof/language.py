"""What must hold of any decoder-only language model, whoever wrote it, measured on the network itself (links 1 and 2)."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - its usual name

from groundup.bundle import Proof
from groundup.generation import Sampling, beam_search, generate
from groundup.nn.decoding import NetworkDecoder
from groundup.proof.compare import FLOAT64_TOLERANCE, Worst
from groundup.proof.pretrained import draw


def prove_language_model(name: str, networks: Sequence[Any], seeds: Sequence[int] = (0,), *, packs: bool = True) -> list[Proof]:
    """Causality, padding, packing, cache, generation, accumulation; in float64 on a copy with random weights.

    Args:
        name: for the claims.
        networks: take tokens, ``mask``, ``segments`` (where they pack), ``cache``, ``last``; context of 17 tokens or more.
        seeds: of weights and tokens; the worst over all seeds and networks is what a proof measures.
        packs: whether they take ``segments``.

    Returns:
        Proofs; nothing is raised for a failed one.
    """
    worst: dict[str, Worst] = {}
    for seed in seeds:
        for network in networks:
            net = draw(copy.deepcopy(network), seed).double()
            g = torch.Generator().manual_seed(seed)
            tokens = torch.randint(network.vocab_size, (5, 17), generator=g)
            for claim, measure in _CLAIMS.items():
                if packs or measure is not _packing:
                    seen = worst.setdefault(claim, Worst())
                    with torch.set_grad_enabled(measure is _accumulation):
                        measure(net, tokens, seen)
    return [
        Proof(
            link=2 if "accumulated" in claim else 1,
            claim=f"{name}: {claim} (float64)",
            reference=f"itself, torch {torch.__version__.partition('+')[0]}",
            quantity="largest difference, relative to the tensor's largest value",
            measured=seen.measured,
            tolerance=0.0 if _CLAIMS[claim] in (_causality, _writing) else FLOAT64_TOLERANCE,
            samples=seen.samples,
        )
        for claim, seen in worst.items()
    ]


def _causality(net: Any, tokens: Tensor, worst: Worst) -> None:
    before = net(tokens)
    for t in range(1, tokens.shape[1]):
        changed = tokens.clone()
        changed[:, t] = (changed[:, t] + 1 + t) % net.vocab_size
        after = net(changed)
        worst.see(after[:, :t], before[:, :t])
        if torch.equal(after[:, t], before[:, t]):  # a network that ignores its input is causal and of no use
            worst.see(torch.full((1,), torch.nan), torch.ones(1))


def _padding(net: Any, tokens: Tensor, worst: Worst) -> None:
    T = tokens.shape[1]
    for pad in (1, 5):
        mask = torch.ones_like(tokens, dtype=torch.bool)
        mask[1::2, :pad] = False
        shifted = tokens.clone()
        shifted[1::2, pad:] = tokens[1::2, : T - pad]
        answer = net(shifted, mask=mask)
        alone = net(tokens[:, : T - pad])
        worst.see(answer[1::2, pad:], alone[1::2])
        worst.see(answer[::2, : T - pad], alone[::2])


def _cache(net: Any, tokens: Tensor, worst: Worst) -> None:
    T, whole = tokens.shape[1], net(tokens)
    for cut in ([1] * T, [7, *[1] * (T - 7)], [3, 5, T - 8]):
        cache, at, parts = net.new_cache(len(tokens), T), 0, []
        for n in cut:
            parts.append(net(tokens[:, at : at + n], cache=cache))
            at += n
        worst.see(torch.cat(parts, dim=1), whole)


def _packing(net: Any, tokens: Tensor, worst: Worst) -> None:
    T = tokens.shape[1]
    cuts = [0, 3, 4, T - 5, T]
    segments = torch.zeros_like(tokens)
    for n, (a, b) in enumerate(pairwise(cuts)):
        segments[:, a:b] = n
    packed = net(tokens, segments=segments)
    for a, b in pairwise(cuts):
        worst.see(packed[:, a:b], net(tokens[:, a:b]))


def _writing(net: Any, tokens: Tensor, worst: Worst) -> None:
    decoder, end = NetworkDecoder(net), {int(tokens[0, 0])}
    prompts = [row[: 1 + 2 * i].tolist() for i, row in enumerate(tokens)]
    for settings in (Sampling(temperature=0, max_tokens=9), Sampling(temperature=1.3, top_p=0.9, max_tokens=9, seed=1)):
        together = generate(decoder, prompts, settings, end)
        for i, prompt in enumerate(prompts):
            if settings.greedy:
                alone = generate(decoder, [prompt], settings, end)[0].tokens
                worst.see(_tokens(together[i].tokens), _tokens(alone))
                worst.see(_tokens(beam_search(decoder, prompt, settings, end)[0]), _tokens(alone))
        again = generate(decoder, prompts, settings, end)
        for a, b in zip(together, again, strict=True):
            worst.see(_tokens(a.tokens), _tokens(b.tokens))


def _tokens(tokens: list[int]) -> Tensor:
    return torch.tensor([-1.0, *tokens])


def _accumulation(net: Any, tokens: Tensor, worst: Worst) -> None:
    """The mean over all tokens of parts of unequal size, as training takes it: each part's sum over the whole's count."""

    def gradients(rows: list[int]) -> list[Tensor]:
        net.zero_grad(set_to_none=True)
        at, n = 0, tokens[:, 1:].numel()
        for size in rows:
            part = tokens[at : at + size]
            at += size
            (F.cross_entropy(net(part[:, :-1]).flatten(0, 1), part[:, 1:].flatten(), reduction="sum") / n).backward()  # type: ignore[no-untyped-call]
        return [p.grad.clone() for p in net.parameters()]

    for a, b in zip(gradients([2, 1, 2]), gradients([5]), strict=True):
        worst.see(a, b)


_CLAIMS: dict[str, Callable[[Any, Tensor, Worst], None]] = {
    "a change at t leaves all logits before t bit-equal": _causality,
    "padding on the left does not change a logit": _padding,
    "with the cache the logits are those without": _cache,
    "documents packed into a row do not see one another": _packing,
    "a ragged batch writes what each prompt writes alone, and a beam of 1 what greedy writes": _writing,
    "accumulated gradients equal the full batch's": _accumulation,
}

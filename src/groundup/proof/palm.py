"""palm beside the paper's equations token by token and head by head, and what holds of every language model.

No library has a PaLM.  The reference shares nothing with ours but the numbers: positions turn complex numbers, each head
has matrices of its own, a token asks those before it in a loop, and norm, maps and gate are torch.nn's.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - its usual name

from groundup.bundle import Proof
from groundup.models.palm import PaLM
from groundup.proof.language import prove_language_model
from groundup.proof.pretrained import draw
from groundup.proof.twin import Twin, prove_twins

B, T, V, L, H, D_HEAD, D_MODEL, D_FF, CONTEXT = 2, 11, 61, 3, 5, 14, 31, 37, 17


def prove(seeds: Sequence[int]) -> list[Proof]:
    """Heads that together are wider than d_model; sizes are distinct primes where they need not be even."""
    torch_nn = f"torch.nn {torch.__version__.partition('+')[0]}"
    return [
        *prove_twins("palm", "those of the paper's equations, a head and a token at a time", torch_nn, _INSIDE, _twins, seeds),
        *prove_language_model("palm", [_network()], seeds),
    ]


_INSIDE = "hidden states and attention weights"


def _network() -> PaLM:
    return PaLM(V, L, H, D_MODEL, D_HEAD, D_FF, CONTEXT)


def _twins(seed: int) -> Iterator[Twin]:
    tokens = torch.randint(V, (B, T), generator=torch.Generator().manual_seed(seed))
    yield Twin(
        ours=draw(_network(), seed),
        theirs=_Page(),
        rename=_rename,
        run=lambda ours, trace: ours(tokens, trace=trace),
        inside=lambda trace: [v for k, v in trace.values.items() if k != "logits"],
        run_theirs=lambda theirs, states: theirs(tokens, states),
        terms=2 * L * (2 * D_MODEL + 2 * D_HEAD + T + H * D_HEAD + D_FF) + 2 * (D_MODEL + V),
    )


class _Layer(nn.Module):
    """One layer's weights, a head at a time; k and v are one head's that all share."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(D_MODEL, eps=1e-6, bias=False)
        self.W_q = nn.ParameterList(torch.empty(D_HEAD, D_MODEL) for _ in range(H))
        self.W_k, self.W_v = (nn.Parameter(torch.empty(D_HEAD, D_MODEL)) for _ in "kv")
        self.W_o = nn.ParameterList(torch.empty(D_MODEL, D_HEAD) for _ in range(H))
        self.W, self.V, self.W_2 = (nn.Linear(n, m, bias=False) for n, m in ((D_MODEL, D_FF), (D_MODEL, D_FF), (D_FF, D_MODEL)))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(T, D) -> (T, D), and the attention weights (H, T, T)."""
        y = self.norm(x)
        K = torch.stack([_turned(self.W_k @ y_s, s) for s, y_s in enumerate(y)])
        found, weights = torch.zeros_like(x), x.new_zeros(H, len(x), len(x))
        for h in range(H):
            for t, y_t in enumerate(y):
                q = _turned(self.W_q[h] @ y_t, t)
                score = torch.exp(K[: t + 1] @ q / D_HEAD**0.5)
                α = score / score.sum()
                weights[h, t, : t + 1] = α.detach()
                v = sum((α_s * (self.W_v @ y[s]) for s, α_s in enumerate(α)), start=torch.zeros(()))
                found = found.index_add(0, torch.tensor([t]), (self.W_o[h] @ v)[None])
        return x + self.W_2(F.silu(self.W(y)) * self.V(y)) + found, weights


def _turned(x: Tensor, t: int) -> Tensor:
    """Channels 2i and 2i + 1 as a complex number, times exp(i t 10000^(-2i/d))."""
    angle = t * 10_000.0 ** (-torch.arange(0, D_HEAD, 2, dtype=torch.float64) / D_HEAD)
    turned = torch.view_as_complex(x.reshape(-1, 2)) * torch.polar(torch.ones_like(angle), angle).to(x.dtype.to_complex())
    return torch.view_as_real(turned).flatten()


class _Page(nn.Module):
    """The network."""

    def __init__(self) -> None:
        super().__init__()
        self.E = nn.Parameter(torch.empty(V, D_MODEL))
        self.layers = nn.ModuleList(_Layer() for _ in range(L))
        self.norm = nn.LayerNorm(D_MODEL, eps=1e-6, bias=False)

    def forward(self, tokens: Tensor, states: list[Tensor]) -> Tensor:
        """Logits; ``states`` is given what every layer makes."""
        x = self.E[tokens]
        states.append(x)
        for layer in self.layers:
            rows, weights = zip(*map(layer, x), strict=True)
            x = torch.stack(rows)
            states += [torch.stack(weights), x]
        x = self.norm(x)
        states.append(x)
        logits: Tensor = torch.einsum("btd,vd->btv", x, self.E) / D_MODEL**0.5
        return logits


def _rename(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """By the reference's names; ours pairs channel i with i + d/2, the page neighbours."""
    pairs = torch.arange(D_HEAD).view(2, -1).T.flatten()
    named = {"E": tensors["tokens.weight"], "norm.weight": tensors["final_norm.weight"]}
    for i in range(L):
        ours, theirs = f"blocks.{i}", f"layers.{i}"
        *Q, K, V_ = tensors[f"{ours}.attention.qkv.weight"].split(D_HEAD)  # type: ignore[no-untyped-call]
        named[f"{theirs}.norm.weight"] = tensors[f"{ours}.norm.weight"]
        named |= {f"{theirs}.W_q.{h}": Q[h][pairs] for h in range(H)} | {f"{theirs}.W_k": K[pairs], f"{theirs}.W_v": V_}
        named |= {f"{theirs}.W_o.{h}": W for h, W in enumerate(tensors[f"{ours}.attention.out.weight"].split(D_HEAD, dim=1))}  # type: ignore[no-untyped-call]
        named[f"{theirs}.W.weight"], named[f"{theirs}.V.weight"] = tensors[f"{ours}.mlp.gate_up.weight"].chunk(2)
        named[f"{theirs}.W_2.weight"] = tensors[f"{ours}.mlp.down.weight"]
    return named

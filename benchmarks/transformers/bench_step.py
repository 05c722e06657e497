"""One training step of a small GPT: groundup beside ``transformers``' GPT-2 and a loop in the manner of nanoGPT.

    python benchmarks/transformers/bench_step.py [--rounds 21] [--steps 5] [--threads 2]

4 layers, 4 heads, width 128, context 64, batch 12, 65 characters, fp32, no dropout; forward, backward, clipping to 1, AdamW.  Each side is
written as its users write it: transformers with plain AdamW, and apart with the fused one that its Trainer takes; the
nanoGPT-like network without biases, with fused attention and fused AdamW.  Rounds are interleaved, ratios medians within a round.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence

import torch
import transformers
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - its usual name

from groundup.bundle import cpu
from groundup.models.gpt import GPT

V, L, H, D, T, B = 65, 4, 4, 128, 64, 12


class _Block(nn.Module):
    """As nanoGPT's: no biases, GELU by erf."""

    def __init__(self) -> None:
        super().__init__()
        self.norm_1, self.norm_2 = nn.LayerNorm(D, bias=False), nn.LayerNorm(D, bias=False)
        self.qkv, self.out = nn.Linear(D, 3 * D, bias=False), nn.Linear(D, D, bias=False)
        self.up, self.down = nn.Linear(D, 4 * D, bias=False), nn.Linear(4 * D, D, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        b, t, _ = x.shape
        q, k, v = (each.view(b, t, H, D // H).transpose(1, 2) for each in self.qkv(self.norm_1(x)).split(D, dim=2))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(y.transpose(1, 2).contiguous().view(b, t, D))
        y: Tensor = x + self.down(F.gelu(self.up(self.norm_2(x))))
        return y


class _Nano(nn.Module):
    """The network around the blocks, head and embedding tied."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens, self.positions = nn.Embedding(V, D), nn.Embedding(T, D)
        self.blocks, self.norm, self.head = (
            nn.ModuleList(_Block() for _ in range(L)),
            nn.LayerNorm(D, bias=False),
            nn.Linear(D, V, bias=False),
        )
        self.head.weight = self.tokens.weight

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.tokens(tokens) + self.positions(torch.arange(tokens.shape[1]))
        for block in self.blocks:
            x = block(x)
        y: Tensor = self.head(self.norm(x))
        return y


def step(network: nn.Module, logits: Callable[[Tensor], Tensor], fused: bool) -> Callable[[], None]:
    """A function that makes one step."""
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3, fused=fused)
    tokens = torch.randint(V, (B, T + 1))

    def run() -> None:
        loss = F.cross_entropy(logits(tokens[:, :-1]).flatten(0, 1), tokens[:, 1:].flatten())
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()

    return run


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=21)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    given = parser.parse_args(arguments)
    torch.set_num_threads(given.threads)
    torch.manual_seed(0)
    ours = GPT(vocab_size=V, n_layers=L, n_heads=H, d_model=D, context=T, dropout=0.0).train()
    off = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0, "bos_token_id": 0, "eos_token_id": 0}
    config = transformers.GPT2Config(vocab_size=V, n_positions=T, n_embd=D, n_layer=L, n_head=H, **off)
    theirs = transformers.GPT2LMHeadModel(config).train()
    nano = _Nano().train()
    runs = {
        "groundup": step(ours, ours, fused=True),
        "transformers, AdamW": step(theirs, lambda tokens: theirs(tokens).logits, fused=False),
        "transformers, fused AdamW": step(theirs, lambda tokens: theirs(tokens).logits, fused=True),
        "nanoGPT-like": step(nano, nano, fused=True),
    }
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for run in runs.values():
        for _ in range(5):
            run()
    for _ in range(given.rounds):
        for name, run in runs.items():
            began = time.perf_counter()
            for _ in range(given.steps):
                run()
            seconds[name].append((time.perf_counter() - began) / given.steps)
    print(f"{cpu.description()}, {given.threads} threads, torch {torch.__version__}, transformers {transformers.__version__}")
    print(f"{given.rounds} interleaved rounds of {given.steps} steps, batch {B} × {T} tokens\n")
    for name, found in seconds.items():
        ratios = [a / b for a, b in zip(found, seconds["groundup"], strict=True)]
        print(
            f"{name:26} {statistics.median(found) * 1e3:7.2f} ms  {B * T / statistics.median(found):8,.0f} tokens/s"
            f"  groundup is {statistics.median(ratios):.2f} x as fast ({min(ratios):.2f} to {max(ratios):.2f})"
        )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

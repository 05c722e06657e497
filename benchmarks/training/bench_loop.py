"""groundup's training loop beside a hand-written PyTorch loop that makes the same steps.

    python benchmarks/training/bench_loop.py [--model mlp|cnn] [--pairs 7] [--epochs 5] [--threads 1]

Both train the same network on the same batches with the same fused AdamW, the same schedule, clipping and one look at
the validation split an epoch (accuracy); groundup's also keeps the best weights, watches for NaN and tells its progress.
Runs are interleaved in pairs, the order within a pair alternates, and the median ratio (groundup ÷ hand-written) is told
with its spread.  The goal is at most 1.05.
"""

from __future__ import annotations

import argparse
import math
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import nn

from groundup.bundle import cpu
from groundup.lifecycle.stage import Context
from groundup.models.cnn import CNN
from groundup.models.mlp import MLP
from groundup.training.arrays import Arrays
from groundup.training.loop import fit
from groundup.training.sampler import order
from groundup.training.settings import Train


def hand_written(model: nn.Module, arrays: Arrays, settings: Train, seed: int = 0) -> nn.Module:
    """What one would write without a library."""
    torch.manual_seed(seed)
    X, y = torch.from_numpy(arrays.X), torch.from_numpy(arrays.y)
    X_val, y_val = torch.from_numpy(arrays.X_val), torch.from_numpy(arrays.y_val)
    decay = [p for p in model.parameters() if p.ndim >= 2]
    plain = [p for p in model.parameters() if p.ndim < 2]
    optimizer = torch.optim.AdamW(
        [{"params": decay, "weight_decay": settings.optimizer.weight_decay}, {"params": plain, "weight_decay": 0.0}],
        lr=settings.optimizer.lr,
        fused=True,
    )
    n, B = len(y), settings.batch_size
    total = settings.epochs * math.ceil(n / B)
    warm = round(settings.schedule.warmup * total)
    step = 0
    for epoch in range(settings.epochs):
        model.train()
        shuffled = torch.from_numpy(order(seed, epoch, n))
        for start in range(0, n, B):
            step += 1
            factor = step / warm if step <= warm else (1 + math.cos(math.pi * (step - warm - 1) / max(total - warm - 1, 1))) / 2
            for group in optimizer.param_groups:
                group["lr"] = settings.optimizer.lr * factor
            batch = shuffled[start : start + B]
            loss = nn.functional.cross_entropy(model(X[batch]), y[batch])
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
        model.eval()
        with torch.inference_mode():
            right = sum(int((model(x).argmax(1) == t).sum()) for x, t in zip(X_val.split(256), y_val.split(256), strict=True))
        assert right >= 0
    return model


def data(kind: str, n: int) -> Arrays:
    """Noise of the shape of digits (8 × 8 grey), or a table with 32 columns."""
    draw = np.random.default_rng(0)
    shape = (1, 8, 8) if kind == "cnn" else (32,)
    X, y = draw.random((n + n // 8, *shape), dtype=np.float32), draw.integers(0, 10, n + n // 8)
    return Arrays("image-classification", X[:n], y[:n], X[n:], y[n:], 10)


def timed(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    options.add_argument("--model", choices=["mlp", "cnn"], default="cnn")
    options.add_argument("--pairs", type=int, default=7)
    options.add_argument("--epochs", type=int, default=5)
    options.add_argument("--samples", type=int, default=4096)
    options.add_argument("--threads", type=int, default=1)
    given = options.parse_args()
    torch.set_num_threads(given.threads)
    arrays = data(given.model, given.samples)
    settings = Train(epochs=given.epochs, precision="fp32")

    def network() -> nn.Module:
        torch.manual_seed(0)
        return CNN((1, 8, 8), 10) if given.model == "cnn" else MLP((32,), 10)

    models: dict[str, nn.Module] = {}

    def ours() -> None:
        with tempfile.TemporaryDirectory() as folder:
            models["ours"] = network()
            last = fit(models["ours"], arrays, settings, Context(root=Path(folder), work=Path(folder))).last
            models["ours"].load_state_dict(last)

    def theirs() -> None:
        models["theirs"] = hand_written(network(), arrays, settings)

    ours(), theirs()  # warm-up
    gap = max(float((a - b).detach().abs().max()) for a, b in zip(models["ours"].parameters(), models["theirs"].parameters(), strict=True))
    ratios, rates = [], []
    for pair in range(given.pairs):
        first, second = (ours, theirs) if pair % 2 == 0 else (theirs, ours)
        a, b = timed(first), timed(second)
        mine, other = (a, b) if pair % 2 == 0 else (b, a)
        ratios.append(mine / other)
        rates.append(given.epochs * given.samples / mine)
    print(f"{cpu.description()}, torch {torch.__version__}, {given.threads} thread(s), {time.strftime('%Y-%m-%d')}")
    print(f"{given.model}, {given.samples} samples, {given.epochs} epochs, batches of {settings.batch_size}")
    print(f"largest difference of a weight: {gap:.1e}")
    spread = f"{min(ratios):.3f} to {max(ratios):.3f}"
    print(f"groundup ÷ hand-written: median {statistics.median(ratios):.3f} of {len(ratios)} pairs, {spread}")
    print(f"groundup: {statistics.median(rates):.0f} samples/s")


if __name__ == "__main__":
    main()

"""fp32 or bf16: what ``precision: auto`` decides, and how.

bf16 keeps fp32's range with 8 bits of mantissa, so no loss scaling is needed (Kalamkar et al. 2019, arXiv:1905.12322).
On a CPU it is faster for large matrices with AVX512-BF16 or AMX, and *slower* for small ones, which pay for the casts:
so it is measured.  A training that fp32 finishes within a minute stays in fp32: it gains little, and the same recipe then
gives the same weights on every run.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal

import torch

from groundup.bundle import cpu
from groundup.training.settings import Train

Precision = Literal["fp32", "bf16"]
WORTH_SECONDS = 60.0
WORTH_RATIO = 1.15


def decide(settings: Train, steps: int, one_step: Callable[[Precision], None], note: Callable[[str], None]) -> Precision:
    """The precision to train in.

    Args:
        steps: how many steps the whole training has.
        one_step: does a forward and backward pass in a precision and leaves no trace.
    """
    if settings.precision != "auto":
        return settings.precision
    if settings.deterministic or "avx512_bf16" not in cpu.features():
        return "fp32"
    one_step("fp32")
    fp32 = _seconds(one_step, "fp32", 3)
    if fp32 * steps < WORTH_SECONDS:
        return "fp32"
    one_step("bf16")
    ratio = min(_seconds(one_step, "fp32", 5), fp32) / _seconds(one_step, "bf16", 5)
    chosen: Precision = "bf16" if ratio >= WORTH_RATIO else "fp32"
    note(f"precision: {chosen}; a bf16 step was {ratio:.2f} × as fast as an fp32 one here (set train.precision to fix it)")
    return chosen


def _seconds(one_step: Callable[[Precision], None], precision: Precision, repeats: int) -> float:
    """The fastest of a few."""
    best = float("inf")
    for _ in range(repeats):
        began = time.perf_counter()
        one_step(precision)
        best = min(best, time.perf_counter() - began)
    return best


def autocast(precision: Precision) -> AbstractContextManager[Any]:
    """The context that a forward pass runs in; one that costs nothing for fp32."""
    return torch.autocast("cpu", dtype=torch.bfloat16) if precision == "bf16" else nullcontext()

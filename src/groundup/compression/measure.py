"""What a candidate costs and what it keeps, measured here: latency, bytes, agreement with fp32.

Latency is measured as the server would meet it: the complete graph, one thread, warm.  All candidates take turns in
short blocks, in an order that changes every round, so that whatever else the machine does hits all of them; a ratio
of two candidates is taken inside each round and its interval is a bootstrap over rounds.  A single long run of each,
one after the other, would measure the machine's mood.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from groundup.compression.graph import answers, rows
from groundup.compression.prove import worst

if TYPE_CHECKING:
    import onnxruntime

_WARM_UP_S, _WARM_UP_CALLS = 0.05, 3
_MIN_ROUNDS, _MAX_ROUNDS = 7, 60
_BLOCK_S, _MAX_BLOCK = 0.01, 25


def latency(calls: Mapping[str, Callable[[], object]], *, reference: str, seconds: float, seed: int = 0) -> dict[str, dict[str, float]]:
    """Time the candidates side by side.

    Args:
        calls: candidate -> a function that answers one batch.
        reference: the candidate that ratios are taken against.
        seconds: about how long each candidate is timed; at least seven rounds are made whatever they take.
        seed: of the order within rounds and of the bootstrap.

    Returns:
        candidate -> {"p50_ms", "p95_ms", "p99_ms", "calls", "speedup", "speedup_low", "speedup_high"}; ``speedup`` is how
        many times as fast as the reference, with its 95 % interval.
    """
    rng = np.random.default_rng(seed)
    with one_cpu():
        block = {name: _block(_warm_up(call)) for name, call in calls.items()}
        times: dict[str, list[list[float]]] = {name: [] for name in calls}
        deadline = time.perf_counter() + seconds * len(calls)
        for round_ in range(_MAX_ROUNDS):
            for name in rng.permutation(list(calls)):
                calls[name]()  # the neighbour's block has emptied the caches; the server's would be warm
                times[name].append([_timed(calls[name]) for _ in range(block[name])])
            if round_ + 1 >= _MIN_ROUNDS and time.perf_counter() > deadline:
                break
    middles = {name: np.array([np.median(b) for b in blocks]) for name, blocks in times.items()}
    return {
        name: _percentiles(np.concatenate(blocks)) | _speedup(middles[reference] / middles[name], rng) for name, blocks in times.items()
    }


def parity(ours: Mapping[str, NDArray[Any]], theirs: Mapping[str, NDArray[Any]]) -> dict[str, float]:
    """How a candidate's answers differ from the reference's.

    Returns:
        classification {"max_abs_difference" of probabilities, "label_agreement"}; regression {"max_abs_difference",
        "max_rel_difference"}, relative to the standard deviation of the reference's predictions.
    """
    if "probabilities" in theirs:
        gap = np.abs(ours["probabilities"].astype(np.float64) - theirs["probabilities"])
        agreement = np.mean(np.asarray(ours["label"], str) == np.asarray(theirs["label"], str))
        return {"max_abs_difference": worst(gap), "label_agreement": float(agreement)}
    gap = np.abs(ours["prediction"].astype(np.float64) - theirs["prediction"])
    spread = float(np.std(theirs["prediction"], dtype=np.float64)) or 1.0
    return {"max_abs_difference": worst(gap), "max_rel_difference": worst(gap) / spread}


def batch_dependence(running: onnxruntime.InferenceSession, inputs: Mapping[str, NDArray[Any]], n: int = 64) -> float:
    """Largest difference of an answer that is computed alone from the same answer computed in a batch of ``n``, for
    regression in standard deviations of the predictions.

    Rounding that looks at the whole batch (dynamic int8 takes one scale from all of it) makes an answer depend on
    who else is asking at the moment.
    """
    few = rows(inputs, slice(0, n))
    together, alone = answers(running, few), answers(running, few, batch=1)
    if "probabilities" in together:
        return worst(np.abs(together["probabilities"].astype(np.float64) - alone["probabilities"]))
    spread = float(np.std(together["prediction"], dtype=np.float64)) or 1.0
    return worst(np.abs(together["prediction"].astype(np.float64) - alone["prediction"])) / spread


@contextmanager
def one_cpu() -> Iterator[None]:
    """Keep this process's calling thread on one CPU while measuring, where the system allows that."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    allowed = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {max(allowed)})
    except OSError:  # forbidden in some containers: the interleaving still holds
        yield
        return
    try:
        yield
    finally:
        os.sched_setaffinity(0, allowed)


def _timed(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def _warm_up(call: Callable[[], object]) -> float:
    """Seconds a call takes once warm."""
    start, times = time.perf_counter(), list[float]()
    while len(times) < _WARM_UP_CALLS or time.perf_counter() - start < _WARM_UP_S:
        times.append(_timed(call))
    return float(np.median(times))


def _block(seconds: float) -> int:
    return int(np.clip(_BLOCK_S / max(seconds, 1e-9), 1, _MAX_BLOCK))


def _percentiles(times: NDArray[Any]) -> dict[str, float]:
    p50, p95, p99 = np.percentile(times, [50, 95, 99]) * 1e3
    return {"p50_ms": float(p50), "p95_ms": float(p95), "p99_ms": float(p99), "calls": float(len(times))}


def _speedup(ratios: NDArray[Any], rng: np.random.Generator, resamples: int = 2000) -> dict[str, float]:
    """Median ratio over rounds with a percentile bootstrap interval."""
    medians = np.median(ratios[rng.integers(0, len(ratios), (resamples, len(ratios)))], axis=1)
    low, high = np.percentile(medians, [2.5, 97.5])
    return {"speedup": float(np.median(ratios)), "speedup_low": float(low), "speedup_high": float(high)}

"""Constructed measurements, and the verdict that they must lead to."""

from __future__ import annotations

import pytest

from groundup.compression.verdict import Candidate, Degradation, Wanted, choose


def timing(speedup, spread=0.01):
    return {"p50_ms": 1 / speedup, "p95_ms": 2 / speedup, "p99_ms": 3 / speedup, "calls": 100.0,
            "speedup": speedup, "speedup_low": speedup - spread, "speedup_high": speedup + spread}  # fmt: skip


def lost(value=0.0, low=None, high=None, allowed=0.01):
    return {"accuracy": Degradation(value=value, low=value if low is None else low, high=value if high is None else high, allowed=allowed)}


def candidate(name, speedup=1.0, size=100, speedup_32=None, validation=None, test=None, spread=0.01, depends=0.0):
    return Candidate(
        parity={"batch_dependence": depends},
        scheme=name,
        summary="made up",
        bytes=size,
        latency={1: timing(speedup, spread), 32: timing(speedup if speedup_32 is None else speedup_32, spread)},
        degradation={} if name == "fp32" else {"validation": validation or lost(), "test": test or lost()},
    )


FP32 = candidate("fp32")
NOTHING = Candidate(scheme="int8", summary="made up", applicable=False, why="not applicable: trees hold no matrix product")

CASES = {
    # measured, goals -> served, and what the reason says
    "smaller and faster pays": ([candidate("int8", 1.5, 30)], Wanted(), "int8", "1.50 × as fast at batch 1"),
    "smaller and as fast pays": ([candidate("int8", 1.0, 50)], Wanted(), "int8", "0.50 × the bytes"),
    "faster and as small pays": ([candidate("int8", 1.3, 100)], Wanted(), "int8", "1.30 ×"),
    "faster at batch 32 alone pays": ([candidate("int8", 1.0, 100, speedup_32=2.0)], Wanted(), "int8", "2.00 × as fast at batch 32"),
    "smaller but slower does not": ([candidate("int8", 0.8, 30)], Wanted(), "fp32", "0.80 × as fast at batch 1 [0.79, 0.81]"),
    "slower at batch 32 alone does not": ([candidate("int8", 1.2, 30, speedup_32=0.7)], Wanted(), "fp32", "slower, and no goal asks"),
    "faster but larger does not": ([candidate("int8", 1.5, 200)], Wanted(), "fp32", "larger, and no goal asks"),
    "neither does not": ([candidate("int8", 1.02, 95)], Wanted(), "fp32", "neither noticeably smaller nor faster"),
    "faster within the noise is not faster": ([candidate("int8", 1.3, 100, spread=0.4)], Wanted(), "fp32", "neither noticeably"),
    "slower within the noise is not slower": ([candidate("int8", 0.9, 30, spread=0.2)], Wanted(), "int8", "0.30 × the bytes"),
    "small may be slow where small is the goal": ([candidate("int8", 0.5, 30)], Wanted(max_size=0.4), "int8", "0.30 × the bytes"),
    "not small enough for the goal": ([candidate("int8", 2.0, 45)], Wanted(max_size=0.4), "fp32", "at most 0.4 × the bytes"),
    "fast may be large where fast is the goal": ([candidate("int8", 1.6, 200)], Wanted(min_speedup=1.5), "int8", "1.60 ×"),
    "not fast enough for the goal": ([candidate("int8", 1.4, 30)], Wanted(min_speedup=1.5), "fp32", "at least 1.5 × as fast"),
    "fast enough only with luck": ([candidate("int8", 1.55, 30, spread=0.1)], Wanted(min_speedup=1.5), "fp32", "beyond noise"),
    "both goals, one missed": ([candidate("int8", 1.6, 60)], Wanted(1.5, 0.5), "fp32", "at most 0.5 × the bytes"),
    "accuracy lost": ([candidate("int8", 2.0, 30, validation=lost(0.03))], Wanted(), "fp32", "accuracy degrades by 0.03"),
    "accuracy gained": ([candidate("int8", 2.0, 30, validation=lost(-0.03))], Wanted(), "int8", "accuracy +0.0300 on validation"),
    "a loss in the bound, maybe none": ([candidate("int8", 2, 30, validation=lost(0.006, 0.0, 0.017))], Wanted(), "int8", "-0.006"),
    "a real loss whose interval leaves the bound": (
        [candidate("int8", 2, 30, validation=lost(0.009, 0.003, 0.015))], Wanted(), "fp32", "[0.003, 0.015], at most 0.01"),
    "a real loss wholly within the bound": ([candidate("int8", 2, 30, validation=lost(0.005, 0.002, 0.008))], Wanted(), "int8", "-0.0050"),
    "held on validation, not on test": ([candidate("int8", 2, 30, test=lost(0.02))], Wanted(), "fp32", "test split does not confirm it"),
    "an answer that depends on its batch": ([candidate("int8", 2, 30, depends=0.02)], Wanted(), "fp32", "changes by up to 0.02"),
    "sums in another order": ([candidate("int8", 2, 30, depends=1e-6)], Wanted(), "int8", "2.00 ×"),
    "undefined metric": ([candidate("int8", 2, 30, validation=lost(float("nan"), 0, 0))], Wanted(), "fp32", "degrades by nan"),
    "nothing applicable": ([NOTHING], Wanted(), "fp32", "trees hold no matrix product"),
    "nothing tried": ([], Wanted(), "fp32", "no scheme but fp32"),
    "of two, the better product of speed and size": (
        [candidate("int8", 1.3, 30), candidate("fp16", 1.0, 50)], Wanted(), "int8", "int8 is 1.30"),
    "of two, the one that holds": (
        [candidate("int8", 3.0, 30, validation=lost(0.03)), candidate("fp16", 1.0, 50)], Wanted(), "fp16", "fp16 is 1.00"),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_verdict(case):
    measured, wanted, served, reason = CASES[case]
    verdict, judged = choose([FP32, *measured], wanted)
    assert verdict.chosen == served, verdict.reason
    assert verdict.paid == (served != "fp32")
    assert reason in verdict.reason
    assert [c.scheme for c in judged] == ["fp32", *(c.scheme for c in measured)]
    assert all(c.why for c in judged)


def test_the_order_of_candidates_does_not_matter():
    a, b = candidate("a", 1.3, 30), candidate("b", 1.2, 20)
    assert choose([FP32, a, b], Wanted())[0].chosen == choose([b, FP32, a], Wanted())[0].chosen == "b"

"""The verdict: which candidate is served, whether compressing paid, and why, in numbers.

A candidate is accepted when

1. no metric of the goals degrades further than allowed, judged on the validation split by paired uncertainty: the point
   estimate keeps the bound, and a degradation that is distinguishable from none keeps it with its whole interval;
2. the goals for speed and size are met; where none is stated, it is noticeably smaller or faster and noticeably
   worse at neither;
3. an answer does not depend on which other requests share its batch;
4. the test split, which took no part in the choice, confirms 1.

Of several, the one with the largest product of speed-up and shrinkage wins.  Of none, fp32 stays: "did not pay" is an answer.
"""

from __future__ import annotations

from typing import NamedTuple

from pydantic import BaseModel, ConfigDict

SMALLER = 0.9
"""At most this share of fp32's bytes is noticeably smaller."""
BATCH_DEPENDENCE = 1e-4
"""An answer may differ by this much from the same answer in a larger batch: sums in another order, not another rounding."""
NOISE = 0.05
"""A latency ratio within this of 1 is called equal, however sure its interval is."""


class Degradation(BaseModel):
    """How much worse a metric is than fp32's, on one split, with its paired 95 % interval, and what the goals allow."""

    value: float
    low: float
    high: float
    allowed: float

    @property
    def held(self) -> bool:
        """Rule 1 of the module's header; NaN does not hold."""
        distinguishable = self.low > 0
        return self.value <= self.allowed and (self.high <= self.allowed or not distinguishable)


class Candidate(BaseModel):
    """One scheme's outcome: what was measured, or why there is nothing to measure."""

    model_config = ConfigDict(extra="forbid")
    scheme: str
    summary: str
    applicable: bool = True
    why: str = ""
    """Why it is not applicable, or why it was accepted or refused."""
    graph: str | None = None
    """File in the stage's directory."""
    bytes: int = 0
    products: int = 0
    """Matrix products and convolutions in the core."""
    products_int8: int = 0
    """How many of them are computed in int8."""
    latency: dict[int, dict[str, float]] = {}
    """Batch size -> p50_ms, p95_ms, p99_ms, calls, speedup, speedup_low, speedup_high (against fp32)."""
    metrics: dict[str, dict[str, float | None]] = {}
    """Split -> metric -> value; None where the split does not define it."""
    degradation: dict[str, dict[str, Degradation]] = {}
    """Split -> metric of the goals -> how much worse than fp32."""
    parity: dict[str, float] = {}
    """Against fp32's answers on the validation split: max_abs_difference, and label_agreement or max_rel_difference; and
    batch_dependence, the largest difference between an answer alone and in a batch."""


class Verdict(BaseModel):
    """What is served and whether compressing paid."""

    model_config = ConfigDict(extra="forbid")
    chosen: str
    paid: bool
    reason: str


class Wanted(NamedTuple):
    """The goals for speed and size; None where nothing is asked for.

    Attributes:
        min_speedup: times as fast as fp32 at the first batch size, with the lower end of the interval.
        max_size: share of fp32's bytes.
    """

    min_speedup: float | None = None
    max_size: float | None = None


def judge(candidate: Candidate, fp32: Candidate, wanted: Wanted) -> tuple[bool, str]:
    """Whether one measured candidate is accepted, and why, in numbers."""
    facts = describe(candidate, fp32)
    for split, what in (("validation", "degrades"), ("test", "held on validation, but the test split does not confirm it: it degrades")):
        for name, d in candidate.degradation.get(split, {}).items():
            if not d.held:
                return False, f"{facts}; {name} {what} by {d.value:.4g} [{d.low:.4g}, {d.high:.4g}], at most {d.allowed:.4g} is allowed"
    if (depends := candidate.parity.get("batch_dependence", 0.0)) > BATCH_DEPENDENCE:
        return False, f"{facts}; an answer changes by up to {depends:.2g} with the requests that share its batch"
    size = candidate.bytes / fp32.bytes
    first = next(iter(candidate.latency.values()))
    if wanted.min_speedup is not None and first["speedup_low"] < wanted.min_speedup:
        return False, f"{facts}; the goal asks for at least {wanted.min_speedup:.3g} × as fast beyond noise"
    if wanted.max_size is not None and size > wanted.max_size:
        return False, f"{facts}; the goal asks for at most {wanted.max_size:.3g} × the bytes"
    if wanted == Wanted():
        faster = any(t["speedup_low"] > 1 + NOISE for t in candidate.latency.values())
        slower = any(t["speedup_high"] < 1 - NOISE for t in candidate.latency.values())
        if slower:
            return False, f"{facts}; slower, and no goal asks for small at the cost of slow (percent-max-size would)"
        if size > 1 / SMALLER:
            return False, f"{facts}; larger, and no goal asks for fast at the cost of large (min-speedup would)"
        if not faster and size > SMALLER:
            return False, f"{facts}; neither noticeably smaller nor faster"
    return True, f"{facts}; {_kept(candidate)}"


def choose(candidates: list[Candidate], wanted: Wanted) -> tuple[Verdict, list[Candidate]]:
    """The verdict over all candidates, fp32 among them, and the candidates with their ``why`` filled in."""
    fp32 = next(c for c in candidates if c.scheme == "fp32")
    judged, accepted = [], []
    for c in candidates:
        if c is fp32:
            judged.append(c.model_copy(update={"why": "the reference"}))
        elif not c.applicable:
            judged.append(c)
        else:
            yes, why = judge(c, fp32, wanted)
            judged.append(c.model_copy(update={"why": why}))
            if yes:
                accepted.append(judged[-1])
    if accepted:
        best = max(accepted, key=lambda c: next(iter(c.latency.values()))["speedup"] * fp32.bytes / c.bytes)
        return Verdict(chosen=best.scheme, paid=True, reason=f"{best.scheme} is {best.why}"), judged
    others = [c for c in judged if c.scheme != "fp32"]
    reason = "; ".join(f"{c.scheme}: {c.why}" for c in others) or "no scheme but fp32 was asked for"
    return Verdict(chosen="fp32", paid=False, reason=f"fp32 stays. {reason}"), judged


def describe(candidate: Candidate, fp32: Candidate) -> str:
    """Speed at each batch size and size, against fp32."""
    speeds = ", ".join(
        f"{t['speedup']:.2f} × as fast at batch {batch} [{t['speedup_low']:.2f}, {t['speedup_high']:.2f}]"
        for batch, t in candidate.latency.items()
    )
    return f"{speeds} and {candidate.bytes / fp32.bytes:.2f} × the bytes here"


def _kept(candidate: Candidate) -> str:
    """How each metric of the goals changed, the sign turned so that minus is worse."""
    changes: dict[str, list[str]] = {}
    for split, named in candidate.degradation.items():
        for name, d in named.items():
            changes.setdefault(name, []).append(f"{0.0 - d.value:+.4f} on {split}")
    allowed = {name: d.allowed for named in candidate.degradation.values() for name, d in named.items()}
    return ", ".join(f"{name} {' and '.join(parts)} (a loss of {allowed[name]:.4g} is allowed)" for name, parts in changes.items())

"""The learning rate's factor at a step, in closed form: no state, so that a resumed training needs none.

    warm-up   η(t) = t / w                                       for t = 1 … w
    constant  η = 1
    linear    η(u) = 1 − (1 − f) u                               u = (t − w) / (T − w) in [0, 1]
    cosine    η(u) = f + (1 − f) (1 + cos πu) / 2                Loshchilov & Hutter 2017 (SGDR), equation 5
    step      η(t) = factor^⌊t / (every · T)⌋
    inverse-sqrt  η(t) = √(w / t)                                Vaswani et al. 2017, section 5.3

Legend: t the step being taken, counted from 1; T all steps; w warm-up steps; f the final factor.  The first step after
warm-up has the whole rate, the last step of linear and cosine has f.
"""

from __future__ import annotations

import math

from groundup.training.settings import Schedule


def warmup_steps(schedule: Schedule, total: int) -> int:
    """Number of warm-up steps: ``warmup`` is a share below 1 and a count from 1 on; never more than all but one."""
    w = round(schedule.warmup * total) if schedule.warmup < 1 else round(schedule.warmup)
    return min(w, max(total - 1, 0))


def factor(schedule: Schedule, step: int, total: int) -> float:
    """What ``optimizer.lr`` is multiplied by at ``step`` (1 … total)."""
    w = warmup_steps(schedule, total)
    if step <= w:
        return step / w
    u = min((step - w - 1) / max(total - w - 1, 1), 1.0)
    match schedule.name:
        case "constant":
            return 1.0
        case "linear":
            return 1 - (1 - schedule.final) * u
        case "cosine":
            return schedule.final + (1 - schedule.final) * (1 + math.cos(math.pi * u)) / 2
        case "step":
            return schedule.factor ** math.floor((step - 1) / (schedule.every * total))
        case "inverse-sqrt":
            return math.sqrt(max(w, 1) / step)

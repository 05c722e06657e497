"""Tail probabilities of the tests for drift, in plain Python: the server has no SciPy.  Equal to SciPy's to 1e-12 relative.

Regularised incomplete gamma: series and Lentz's continued fraction, as in Numerical Recipes (3rd ed.), section 6.2.
Kolmogorov: Marsaglia, Tsang and Wang 2003, equations 1 and 2.  False discovery rate: Benjamini and Hochberg 1995.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

_TINY = 1e-300
_EPSILON = 1e-16


def chi2_sf(x: float, dof: int) -> float:
    """P(X >= x) of the chi-square distribution with ``dof`` >= 1 degrees of freedom: Q(dof / 2, x / 2)."""
    if x <= 0:
        return 1.0
    if math.isinf(x):
        return 0.0
    a, z = dof / 2, x / 2
    log_front = a * math.log(z) - z - math.lgamma(a)
    if z < a + 1:  # the series of P converges fast here, the fraction of Q there
        return max(0.0, 1.0 - math.exp(log_front) * _series(a, z))
    return min(1.0, math.exp(log_front) * _fraction(a, z))


def _series(a: float, z: float) -> float:
    """Σ_k Γ(a) z^k / Γ(a + 1 + k)."""
    term = total = 1 / a
    k = a
    while term > total * _EPSILON:
        k += 1
        term *= z / k
        total += term
    return total


def _fraction(a: float, z: float) -> float:
    """1 / (z + 1 - a - 1(1 - a) / (z + 3 - a - 2(2 - a) / (z + 5 - a - ...)))."""
    b = z + 1 - a
    c, d = 1 / _TINY, 1 / b
    value = d
    for k in range(1, 10_000):
        numerator = -k * (k - a)
        b += 2
        d = numerator * d + b
        d = 1 / (d if abs(d) > _TINY else _TINY)
        c = b + numerator / c
        c = c if abs(c) > _TINY else _TINY
        step = c * d
        value *= step
        if abs(step - 1) < _EPSILON * 4:
            break
    return value


def kolmogorov_sf(x: float) -> float:
    """P(sup |B| >= x) of the Brownian bridge B: the limit of √n D under no drift."""
    if x <= 0.04:  # the mass below is less than 1e-300
        return 1.0
    if x < 1.0:  # Jacobi's identity: converges where the other series does not
        y = math.pi**2 / (8 * x * x)
        return 1.0 - math.sqrt(2 * math.pi) / x * sum(math.exp(-((2 * k - 1) ** 2) * y) for k in range(1, 6))
    return 2 * sum((1 if k % 2 else -1) * math.exp(-2 * k * k * x * x) for k in range(1, 8))


def poisson_excess_sf(window: float, n: float, reference: float, m: float) -> float:
    """P(at least ``window`` of n rows | ``window`` + ``reference`` in all, of m + n rows) when nothing changed.

    The conditional test of two Poisson rates (Przyborowski and Wilenski 1940): given the total T the window's share is
    binomial, X ~ Bin(T, n / (n + m)).  Exact for rare bins, where the chi-square approximation is not.
    """
    w, T = math.ceil(window), math.ceil(window) + math.floor(reference)
    if w <= 0:
        return 1.0
    pi = n / (n + m)
    if w == T:
        return math.exp(T * math.log(pi))
    log_odds = math.log(pi) - math.log1p(-pi)
    log_term = math.lgamma(T + 1) - math.lgamma(w + 1) - math.lgamma(T - w + 1) + w * math.log(pi) + (T - w) * math.log1p(-pi)
    if w <= T * pi:  # sum the shorter, decreasing side
        total, log_ratio, k = 0.0, log_term, w
        while k > 0:
            log_ratio += math.log(k) - math.log(T - k + 1) - log_odds
            k -= 1
            term = math.exp(log_ratio)
            total += term
            if term < total * _EPSILON:
                break
        return max(0.0, 1.0 - total)
    total, k = 0.0, w
    while True:
        term = math.exp(log_term)
        total += term
        if k == T or term <= total * _EPSILON:
            return min(1.0, total)
        log_term += math.log(T - k) - math.log(k + 1) + log_odds
        k += 1


def benjamini_hochberg(p: Sequence[float], rate: float) -> list[bool]:
    """Which hypotheses are rejected with a false discovery rate of at most ``rate``.

    When nothing has changed at all, the chance of any rejection is at most ``rate`` too (Simes 1986), for independent
    and for positively dependent columns.
    """
    order = sorted(range(len(p)), key=lambda i: p[i])
    last = max((rank for rank, i in enumerate(order, 1) if p[i] <= rate * rank / len(p)), default=0)
    rejected = [False] * len(p)
    for i in order[:last]:
        rejected[i] = True
    return rejected

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from groundup.monitoring.tails import benjamini_hochberg, chi2_sf, kolmogorov_sf, poisson_excess_sf


@pytest.mark.parametrize("dof", [1, 2, 3, 7, 11, 53, 199])
def test_chi2_is_scipys_far_into_the_tail(dof: int) -> None:
    for x in [1e-9, 0.1, 0.5, 1, dof - 0.5, dof, dof + 1.5, dof + 2, 2 * dof, 5 * dof + 20, 700]:
        assert chi2_sf(x, dof) == pytest.approx(stats.chi2.sf(x, dof), rel=1e-11, abs=1e-15)


def test_chi2_at_the_ends() -> None:
    assert chi2_sf(0, 4) == chi2_sf(-1, 4) == 1
    assert chi2_sf(float("inf"), 4) == 0


def test_kolmogorov_is_scipys() -> None:
    for x in [0, 0.01, 0.05, 0.2, 0.5, 0.8275, 0.99, 1.0, 1.01, 1.36, 2, 3, 5]:
        assert kolmogorov_sf(x) == pytest.approx(stats.kstwobign.sf(x), rel=1e-11, abs=1e-15)


@given(st.integers(0, 400), st.integers(0, 400), st.integers(1, 3000), st.integers(1, 3000))
def test_rare_bins_are_the_binomial_tail(w: int, r: int, n: int, m: int) -> None:
    ours = poisson_excess_sf(w, n, r, m)
    assert ours == pytest.approx(stats.binom.sf(w - 1, w + r, n / (n + m)), rel=1e-8, abs=1e-12)


def test_a_large_excess_underflows_to_zero_quietly() -> None:
    assert poisson_excess_sf(100_000, 100_000, 0, 1_000_000) == 0


@given(st.lists(st.floats(0, 1), min_size=1, max_size=30), st.sampled_from([0.01, 0.05, 0.2]))
def test_false_discovery_rate_is_scipys(p: list[float], rate: float) -> None:
    adjusted = stats.false_discovery_control(p)
    near = np.abs(adjusted - rate) < 1e-9  # rounding decides there
    assert [a or b for a, b in zip(benjamini_hochberg(p, rate), near, strict=True)] == [
        bool(a <= rate) or bool(b) for a, b in zip(adjusted, near, strict=True)
    ]

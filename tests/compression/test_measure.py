from __future__ import annotations

import os
import time

import numpy as np
import pytest

from groundup.compression.measure import latency, one_cpu, parity


def busy(seconds):
    """A call that takes this long on the CPU, whatever the clock does in between."""

    def call():
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            pass

    return call


def test_ratios_are_found_and_their_intervals_hold_them():
    found = latency({"fp32": busy(0.4e-3), "half": busy(0.2e-3), "double": busy(0.8e-3)}, reference="fp32", seconds=0.15)
    assert found["fp32"]["speedup"] == 1.0
    assert found["half"]["speedup"] == pytest.approx(2.0, rel=0.2)
    assert found["double"]["speedup"] == pytest.approx(0.5, rel=0.2)
    for times in found.values():
        assert times["speedup_low"] <= times["speedup"] <= times["speedup_high"]
        assert 0 < times["p50_ms"] <= times["p95_ms"] <= times["p99_ms"]
    assert found["fp32"]["p50_ms"] == pytest.approx(0.4, rel=0.3)


def test_interleaving_cancels_a_machine_that_slows_down():
    """Every call takes longer than the one before; measured one after the other, the last candidate would look slower."""
    state = {"cost": 0.1e-3}

    def call():
        state["cost"] += 0.2e-6
        busy(state["cost"])()

    found = latency({"fp32": call, "same": call}, reference="fp32", seconds=0.2)
    assert found["same"]["speedup"] == pytest.approx(1.0, abs=0.08)


def test_the_reference_and_its_twin_are_equal():
    found = latency({"fp32": busy(0.1e-3), "twin": busy(0.1e-3)}, reference="fp32", seconds=0.1)
    assert found["twin"]["speedup"] == pytest.approx(1.0, abs=0.05)


def test_a_slow_candidate_still_gets_its_rounds():
    found = latency({"fp32": busy(5e-3), "slow": busy(20e-3)}, reference="fp32", seconds=0.01)
    assert found["slow"]["calls"] >= 7
    assert found["slow"]["speedup"] == pytest.approx(0.25, rel=0.2)


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="the system cannot pin")
def test_pinning_ends_with_the_measurement():
    before = os.sched_getaffinity(0)
    with one_cpu():
        assert len(os.sched_getaffinity(0)) == 1
    assert os.sched_getaffinity(0) == before
    with pytest.raises(KeyError), one_cpu():
        raise KeyError
    assert os.sched_getaffinity(0) == before


def test_parity_of_classification():
    theirs = {"probabilities": np.array([[0.9, 0.1], [0.4, 0.6]], np.float32), "label": np.array(["a", "b"], object)}
    ours = {"probabilities": np.array([[0.8, 0.2], [0.55, 0.45]], np.float32), "label": np.array(["a", "a"], object)}
    assert parity(theirs, theirs) == {"max_abs_difference": 0.0, "label_agreement": 1.0}
    found = parity(ours, theirs)
    assert found["max_abs_difference"] == pytest.approx(0.15)
    assert found["label_agreement"] == 0.5


def test_parity_of_regression_is_relative_to_the_spread():
    theirs = {"prediction": np.array([0.0, 10.0, 20.0], np.float32)}
    ours = {"prediction": np.array([0.0, 10.0, 21.0], np.float32)}
    found = parity(ours, theirs)
    assert found["max_abs_difference"] == 1.0
    assert found["max_rel_difference"] == pytest.approx(1 / np.std([0, 10, 20]))


def test_nan_is_infinitely_far():
    theirs = {"prediction": np.array([1.0, 2.0], np.float32)}
    assert parity({"prediction": np.array([1.0, np.nan], np.float32)}, theirs)["max_abs_difference"] == np.inf

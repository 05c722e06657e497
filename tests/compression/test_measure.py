from __future__ import annotations

import os
import time

import numpy as np
import pytest

from groundup.compression.measure import latency, one_cpu, parity


class Clock:
    """A machine whose calls take exactly the time that is said, plus noise that every candidate meets alike."""

    def __init__(self, noise=0.0):
        self.now, self._noise, self._rng = 0.0, noise, np.random.default_rng(0)

    def perf_counter(self):
        return self.now

    def busy(self, seconds):
        def call():
            self.now += seconds * (1 + self._noise * self._rng.exponential())

        return call


@pytest.fixture
def clock(monkeypatch):
    made = Clock()
    monkeypatch.setattr("groundup.compression.measure.time", made)
    return made


def test_ratios_are_found_and_their_intervals_hold_them(clock):
    clock._noise = 0.2
    calls = {"fp32": clock.busy(0.4e-3), "half": clock.busy(0.2e-3), "double": clock.busy(0.8e-3)}
    found = latency(calls, reference="fp32", seconds=0.5)
    assert found["fp32"]["speedup"] == 1.0
    assert found["half"]["speedup"] == pytest.approx(2.0, rel=0.05)
    assert found["double"]["speedup"] == pytest.approx(0.5, rel=0.05)
    for name, true in (("half", 2.0), ("double", 0.5)):
        times = found[name]
        assert times["speedup_low"] <= true <= times["speedup_high"]
        assert times["speedup_high"] - times["speedup_low"] < 0.2 * true
        assert 0 < times["p50_ms"] < times["p95_ms"] < times["p99_ms"]
    assert found["fp32"]["p50_ms"] == pytest.approx(0.4 * (1 + 0.2 * np.log(2)), rel=0.05)


def test_interleaving_cancels_a_machine_that_slows_down(clock):
    """Every call takes longer than the one before; measured one after the other, the last candidate would look slower."""
    state = {"cost": 0.1e-3}

    def call():
        state["cost"] *= 1.0005
        clock.busy(state["cost"])()

    found = latency({"fp32": call, "same": call}, reference="fp32", seconds=0.2)
    assert state["cost"] > 0.2e-3
    assert found["same"]["speedup"] == pytest.approx(1.0, abs=0.02)


def test_a_slow_candidate_still_gets_its_rounds(clock):
    found = latency({"fp32": clock.busy(1.0), "slow": clock.busy(4.0)}, reference="fp32", seconds=0.01)
    assert found["slow"]["calls"] >= 7
    assert found["slow"]["speedup"] == 0.25


def test_time_is_kept(clock):
    latency({"fp32": clock.busy(1e-3), "other": clock.busy(2e-3)}, reference="fp32", seconds=0.5)
    assert 0.9 < clock.now < 1.5


def test_on_the_real_clock_no_call_takes_less_than_it_does():
    def call():
        end = time.perf_counter() + 1e-3
        while time.perf_counter() < end:
            pass

    found = latency({"fp32": call}, reference="fp32", seconds=0.05)
    assert 1.0 <= found["fp32"]["p50_ms"] <= found["fp32"]["p99_ms"]


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


def test_rounding_that_looks_at_the_whole_batch_is_found_out():
    from cores import digits, mlp_core

    from groundup.compression.assemble import assemble, identity
    from groundup.compression.graph import session
    from groundup.compression.measure import batch_dependence
    from groundup.compression.schemes import Options, scheme

    _, X, y = digits()
    X = X.reshape(len(X), -1)
    core = mlp_core(X, y)
    depends = {}
    for name in ("fp32", "static_wi8_ai8", "dynamic_wi8_afp32"):
        compressed = scheme(name).compress(core, X[:256], Options(per_channel=True, reduce_range=False, calibration="minmax"))
        graph = assemble(identity(core), compressed, scores="logits", classes=[str(c) for c in range(10)], target_scale=(1.0, 0.0))
        depends[name] = batch_dependence(session(graph), {"input": X[:64]})
    assert depends["fp32"] < 1e-5
    assert depends["static_wi8_ai8"] < 1e-5
    assert depends["dynamic_wi8_afp32"] > 1e-4

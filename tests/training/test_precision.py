"""precision: auto measures only where it can pay, and keeps what it measured across an interruption."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
import torch
from small_training import Around, classification, network

from groundup.errors import Interrupted
from groundup.training import precision
from groundup.training.loop import fit
from groundup.training.settings import Train
from groundup.training.surroundings import StopAfter


def decided(
    monkeypatch: pytest.MonkeyPatch, fp32: float, bf16: float, steps: int = 10**6, features: str = "avx512_bf16", **given: Any
) -> str:
    monkeypatch.setattr("groundup.training.precision.cpu.features", lambda: (features,))

    def one_step(chosen: str) -> None:
        time.sleep(fp32 if chosen == "fp32" else bf16)

    return precision.decide(Train.model_validate(given), steps, one_step, lambda text: None)


def test_auto_takes_the_faster_one_on_a_long_training_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    assert decided(monkeypatch, 0.02, 0.005) == "bf16"
    assert decided(monkeypatch, 0.005, 0.02) == "fp32"
    assert decided(monkeypatch, 0.02, 0.005, steps=100) == "fp32"
    assert decided(monkeypatch, 0.02, 0.005, features="avx2") == "fp32"
    assert decided(monkeypatch, 0.02, 0.005, deterministic=True) == "fp32"
    assert decided(monkeypatch, 0.005, 0.02, precision="bf16") == "bf16"


def test_measuring_leaves_no_trace_and_a_resumed_training_keeps_what_was_decided(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arrays, given = classification(), Train(epochs=2, batch_size=8)

    def decide(settings: Train, steps: int, one_step: Any, note: Any) -> str:
        one_step("fp32")
        one_step("bf16")
        return "bf16"

    fixed = network()
    fit(fixed, arrays, given.model_copy(update={"precision": "bf16"}), Around(tmp_path / "fixed"))
    with monkeypatch.context() as patch:
        patch.setattr(precision, "decide", decide)
        with pytest.raises(Interrupted):
            fit(network(), arrays, given, Around(tmp_path / "auto", stopping=StopAfter(3)))
    monkeypatch.setattr(precision, "decide", lambda *a: pytest.fail("measured again on resuming"))
    resumed = network(seed=1)
    assert fit(resumed, arrays, given, Around(tmp_path / "auto")).precision == "bf16"
    assert all(torch.equal(a, b) for a, b in zip(fixed.state_dict().values(), resumed.state_dict().values(), strict=True))

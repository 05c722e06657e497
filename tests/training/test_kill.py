"""kill -9 at random moments, resumed each time, ends with the weights of a training that nobody touched."""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file
from small_training import Around, Notes, classification, network

from groundup.training.loop import fit
from groundup.training.settings import Train

SETTINGS = Train.model_validate(
    {
        "epochs": 12,
        "batch_size": 4,
        "accumulate": 2,
        "ema": 0.9,
        "checkpoint": {"seconds": 0},
        "early_stopping": {"metric": "loss", "patience": 30},
    }
)


def training(work: Path, result: Path) -> None:
    """The whole training; a resumed one starts from other weights, so that nothing but the checkpoint can make it right."""
    around = Around(work)
    model = network(seed=1 if any(work.glob("*.safetensors")) else 0)
    fitted = fit(model, classification(), SETTINGS, around)
    assert isinstance(around.progress, Notes)
    save_file({**model.state_dict(), **{f"last.{k}": v for k, v in fitted.last.items()}}, result)


def in_a_child(work: Path, result: Path) -> int:
    """Fork: the child has everything imported already.  Gives its process id."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            training(work, result)
            status = 0
        finally:
            os._exit(status)
    return pid


def killed_until_done(folder: Path, kills: int, seed: int) -> int:
    """Kill ``kills`` trainings of one work folder at random moments, then let it end.  Gives how many were killed at work."""
    draw = random.Random(seed)
    folder.mkdir()
    training(folder / "warm", folder / "warm.safetensors")  # imports and caches, so that the next one is as fast as the children
    began = time.monotonic()
    training(folder / "whole", folder / "whole.safetensors")
    span = time.monotonic() - began
    killed = 0
    for attempt in range(kills):
        work, result = folder / f"work-{attempt // 8}", folder / f"resumed-{attempt // 8}.safetensors"
        if result.exists():
            continue
        pid = in_a_child(work, result)
        time.sleep(draw.uniform(0, span / 3))
        os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
        killed += os.WIFSIGNALED(status)
    for group in range(-(-kills // 8)):
        result = folder / f"resumed-{group}.safetensors"
        if not result.exists():
            _, status = os.waitpid(in_a_child(folder / f"work-{group}", result), 0)
            assert status == 0
        expected, found = load_file(folder / "whole.safetensors"), load_file(result)
        assert expected.keys() == found.keys()
        assert all(expected[k].equal(found[k]) for k in expected)
        assert not list((folder / f"work-{group}").glob(".*"))
    return killed


def test_eight_kills(tmp_path: Path) -> None:
    assert killed_until_done(tmp_path / "kill", 8, seed=0) >= 4


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_a_hundred_kills(seed: int, tmp_path: Path) -> None:
    assert killed_until_done(tmp_path / "kill", 25, seed) >= 12

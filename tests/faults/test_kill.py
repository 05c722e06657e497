"""``kill -9`` at random moments: the same command goes on, and what it makes is bit for bit what an untouched run makes."""

from __future__ import annotations

import json
import random
import signal
import time
from collections import Counter
from pathlib import Path

import pytest
from command_line import DIGITS, Zygote, half_written, written

TUNED = DIGITS + "tune: {trials: 2, workers: 1, space: {train.optimizer.lr: {type: float, low: 1e-3, high: 1e-2, log: true}}}\n"

TO = ("--to", "package")


def left(folder: Path) -> dict[str, bytes]:
    """All that a finished run is held to: the setting that tuning chose, the weights, and every graph."""
    home = folder / ".groundup"
    files = {
        path.name: path.read_bytes()
        for pattern in ("train/*/model.safetensors", "train/*/last.safetensors", "compress/*/graphs/*.onnx")
        for path in home.glob(f"cache/{pattern}")
    }
    for path in home.glob("cache/tune/*/output.json"):
        files["overrides"] = json.dumps(json.loads(path.read_text())["overrides"]).encode()
    assert "model.safetensors" in files
    graph = (folder / "build" / "bundle" / "model.onnx").read_bytes()
    assert graph in files.values(), "the bundle's graph is one of those that compress made"  # which one pays is measured, and may vary
    assert not half_written(folder)
    assert not list((home / "work").iterdir())
    return files


def killed(zygote: Zygote, folder: Path, recipe: str, kills: int, seed: int) -> tuple[int, Counter[str]]:
    """Kill runs until so many were killed at work, each home until it completes, and hold each to an untouched one.

    Returns:
        homes that completed, and kills by the stage that they fell into.
    """
    began = time.monotonic()
    first = zygote.begin(written(folder / "untouched", recipe), *TO).over(300)
    assert first.status == 0, first.err
    span, expected = time.monotonic() - began, left(folder / "untouched")
    draw, stages, homes = random.Random(seed), Counter[str](), 0
    while stages.total() < kills or homes == 0:
        here = written(folder / f"home {homes}", recipe)
        while True:
            run = zygote.begin(here, *TO)
            if stages.total() < kills:
                time.sleep(draw.uniform(0, span) * draw.choice([0.1, 0.4, 1.0]))
                run.send_signal(signal.SIGKILL)
            ended = run.over(300)
            if ended.status != -signal.SIGKILL:
                break
            stages[ended.err.rpartition("● ")[2].partition("\n")[0] or "start"] += 1
        assert ended.status == 0, ended.err
        assert left(here) == expected
        homes += 1
    return homes, stages


def test_three_kills(zygote: Zygote, tmp_path: Path) -> None:
    homes, stages = killed(zygote, tmp_path, DIGITS, 3, seed=0)
    assert homes
    assert stages.total() == 3


@pytest.mark.slow
def test_a_hundred_kills(zygote: Zygote, tmp_path: Path, seed: int) -> None:
    began = time.monotonic()
    homes, stages = killed(zygote, tmp_path, TUNED, 100, seed)
    print(f"{stages.total()} kills in {time.monotonic() - began:.0f} s, {homes} homes completed, by stage: {dict(stages)}")
    assert set(stages) >= {"prepare", "tune", "train", "compress"}

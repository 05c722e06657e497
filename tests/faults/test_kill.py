"""``kill -9`` at random moments: the same command goes on, and what it makes is bit for bit what an untouched run makes."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from command_line import DIGITS, environment, half_written, written

TUNED = DIGITS + "tune: {trials: 2, workers: 1, space: {train.optimizer.lr: {type: float, low: 1e-3, high: 1e-2, log: true}}}\n"


class Zygote:
    """See ``zygote.py``."""

    def __init__(self) -> None:
        script = Path(__file__).with_name("zygote.py")
        self.process = subprocess.Popen(
            [sys.executable, str(script)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment()
        )
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "ready\n"

    def ask(self, **question: Any) -> int:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(question) + "\n")
        self.process.stdin.flush()
        return int(self.process.stdout.readline())

    def run(self, folder: Path, *, kill_after: float | None = None) -> tuple[int, str]:
        """``groundup run FOLDER --to package``, killed after so many seconds; gives its exit status and what it had said."""
        log = folder / "said.log"
        log.unlink(missing_ok=True)
        pid = self.ask(run=["run", str(folder), "--to", "package"], log=str(log))
        if kill_after is not None:
            time.sleep(kill_after)
            os.kill(pid, signal.SIGKILL)
        return self.ask(wait=pid), log.read_text() if log.exists() else ""


@pytest.fixture(scope="module")
def zygote() -> Iterator[Zygote]:
    started = Zygote()
    yield started
    assert started.process.stdin is not None
    assert started.process.stdout is not None
    started.process.stdin.close()
    started.process.wait(30)
    started.process.stdout.close()


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
    status, said = zygote.run(written(folder / "untouched", recipe))
    assert status == 0, said
    span, expected = time.monotonic() - began, left(folder / "untouched")
    draw, stages, homes = random.Random(seed), Counter[str](), 0
    while stages.total() < kills or homes == 0:
        here = written(folder / f"home {homes}", recipe)
        while True:
            status, said = zygote.run(here, kill_after=draw.uniform(0, span / 2) if stages.total() < kills else None)
            if status != -signal.SIGKILL:
                break
            stages[said.rpartition("● ")[2].partition("\n")[0] or "start"] += 1
        assert status == 0, said
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

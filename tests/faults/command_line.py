"""The real command line, in this process where that proves as much, else in one of its own; and what every failure owes its reader."""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pandas as pd

GROUNDUP = [sys.executable, "-m", "groundup"]
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")

QUICK = """
compress: {schemes: [], measure: {seconds: 0.02}}
evaluate: {bootstrap: 100}
rehearse: {enabled: false}
register: {enabled: false}
"""
"""The sections of a recipe that is to be over soon."""

CANCER = "name: cancer\ntask: tabular-classification\ndata: {source: breast_cancer}\nmodel: {name: logistic}\n" + QUICK

DIGITS = """
name: digits
task: image-classification
data: {source: digits, limit: 400}
model: {name: cnn, width: 4}
train: {epochs: 3, batch_size: 32, ema: 0.9, early_stopping: {patience: 2}, checkpoint: {seconds: 0}}
""" + QUICK.replace("schemes: []", "schemes: [static_wi8_ai8]")


OWN = (
    """
name: own
task: tabular-classification
data: {source: "Daten für März.csv", target: Art}
model: {name: logistic}
"""
    + QUICK
)


def own_table(n: int = 240, seed: int = 0) -> pd.DataFrame:
    """Numbers, whole numbers, categories and a target that follows from them, named in five scripts."""
    rng = np.random.default_rng(seed)
    size, count = rng.normal(10, 3, n).round(3), rng.integers(0, 50, n)
    colour = rng.choice(["grün", "赤", "синий", 'a,b "c"', "🟡"], n)
    kind = np.where(size + 0.1 * count + 2 * (colour == "赤") > 13, "Süß & 辛い", "сладкий")
    return pd.DataFrame({"Größe [µm]": size, "количество": count, "色 'c'": colour, "Art": kind})


@dataclass(frozen=True)
class Said:
    """How a command ended, and what it wrote."""

    status: int
    out: str
    err: str

    def refused(self, status: int, *parts: str) -> str:
        """Check that it ended with ``status`` and one readable message that holds all ``parts``; gives the message."""
        told = " ".join(self.err.split())
        assert self.status == status, f"status {self.status}, expected {status}: {self.err}\n{self.out}"
        assert "Traceback" not in self.err + self.out, self.err
        assert "error: " in told, self.err
        for part in parts:
            assert part in told, f"{part!r} is not in {told!r}"
        return told


def call(*arguments: str | Path) -> Said:
    """``groundup ARGUMENTS`` in this process, through the same ``main``."""
    from groundup import cli, console

    out, err = io.StringIO(), io.StringIO()
    status = 0
    with (
        mock.patch.object(sys, "argv", ["groundup", *map(str, arguments)]),
        mock.patch.object(console.err, "_width", 10_000, create=False),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        try:
            cli.main()
        except SystemExit as e:
            status = e.code if isinstance(e.code, int) else int(bool(e.code))
    return Said(status, out.getvalue(), err.getvalue())


def environment(**changes: str) -> dict[str, str]:
    """This process's environment on one thread, wide enough that no message is wrapped."""
    return {**os.environ, **ONE_THREAD, "COLUMNS": "10000", **changes}


def spawn(*arguments: str | Path, env: Mapping[str, str] | None = None, **options: Any) -> subprocess.Popen[str]:
    """``groundup ARGUMENTS`` in a process of its own."""
    pipes: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen([*GROUNDUP, *map(str, arguments)], env=environment(**(env or {})), **{**pipes, **options})


def ended(process: subprocess.Popen[str], timeout: float = 60) -> Said:
    """What a process of :func:`spawn` said, once it has ended; killed if it does not."""
    try:
        out, err = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        process.kill()
        out, err = process.communicate()
        raise AssertionError(f"still running after {timeout} s; it had said: {err}") from None
    return Said(process.returncode, out or "", err or "")


def command(*arguments: str | Path, timeout: float = 60, **options: Any) -> Said:
    """:func:`spawn` and :func:`ended`."""
    return ended(spawn(*arguments, **options), timeout)


def written(folder: Path, text: str) -> Path:
    """A folder with this recipe in it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "recipe.yaml").write_text(text, encoding="utf-8")
    return folder


def until(happened: Callable[[], Any], what: str, seconds: float = 60) -> None:
    """Wait for something that another process does."""
    end = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < end, f"waited {seconds} s for {what}"
        time.sleep(0.02)


def half_written(home: Path) -> list[Path]:
    """Temporary files and unfinished outputs below a home, which nobody may leave."""
    return [p for p in home.rglob(".*") if p.name.endswith((".tmp", ".making")) or ".making" in p.name]


def offspring(marker: str | Path) -> list[int]:
    """Processes whose command line or environment names ``marker``: servers and workers that a run left running."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        with contextlib.suppress(OSError):
            if os.fsencode(str(marker)) in (entry / "cmdline").read_bytes():
                found.append(int(entry.name))
    return found


class Zygote:
    """Runs commands in forks of one process that has imported everything; see ``zygote.py``."""

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

    def begin(self, folder: Path, *arguments: str | Path) -> Forked:
        """``groundup run FOLDER ARGUMENTS``."""
        log = folder / "said.log"
        log.unlink(missing_ok=True)
        return Forked(self, self.ask(run=["run", str(folder), *map(str, arguments)], log=str(log)), folder)

    def close(self) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        self.process.wait(30)
        self.process.stdout.close()


@dataclass(frozen=True)
class Forked:
    """A command that a :class:`Zygote` runs; what it says goes to ``said.log`` in its folder."""

    zygote: Zygote
    pid: int
    folder: Path

    @property
    def said(self) -> str:
        log = self.folder / "said.log"
        return log.read_text() if log.exists() else ""

    def send_signal(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def is_alive(self) -> bool:
        return "\nState:\tZ" not in Path(f"/proc/{self.pid}/status").read_text()

    def over(self, timeout: float = 60) -> Said:
        """How it ended, once it has."""
        try:
            until(lambda: not self.is_alive(), "the run to end", timeout)
        except AssertionError:
            self.send_signal(signal.SIGKILL)
            raise
        finally:
            status = self.zygote.ask(wait=self.pid)
        return Said(status, "", self.said)

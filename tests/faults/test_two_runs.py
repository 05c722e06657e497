"""Two runs of one recipe at once: each stage is made once, the other run waits for it, and both end the same."""

from __future__ import annotations

import json
import os
import signal
from collections import Counter
from pathlib import Path

from command_line import CANCER, Zygote, half_written, until, written

SLOW = CANCER + "steps: [{name: slow, function: 'my_steps:slow', after: prepare}]\n"
STEP = """
import pathlib, time
def slow(prepared):
    here = pathlib.Path(__file__)
    with open(here.with_name("begun"), "a") as f:
        f.write("x")
    while not here.with_name("go on").exists():
        time.sleep(0.02)
"""


def slow_recipe(folder: Path) -> Path:
    written(folder, SLOW)
    (folder / "my_steps.py").write_text(STEP)
    return folder


def test_the_second_waits_and_takes_what_the_first_made(zygote: Zygote, tmp_path: Path) -> None:
    folder = slow_recipe(tmp_path / "r")
    pids = [zygote.ask(run=["run", str(folder), "--to", "train"], log=str(tmp_path / f"{i}.log")) for i in range(3)]
    until((folder / "begun").exists, "a run to reach the step")
    texts = lambda: [(tmp_path / f"{i}.log").read_text() if (tmp_path / f"{i}.log").exists() else "" for i in range(3)]  # noqa: E731
    until(lambda: sum("step:slow: process" in t for t in texts()) == 2, "the two others to wait")
    (folder / "go on").touch()
    assert [zygote.ask(wait=pid) for pid in pids] == [0, 0, 0], texts()
    assert (folder / "begun").read_text() == "x", "the step ran once"
    waited = [t for t in texts() if "step:slow: process" in t]
    maker = next(pid for pid, t in zip(pids, texts(), strict=True) if t not in waited)
    assert all(f"step:slow: process {maker} is making this; waiting for it" in t for t in waited)
    records = [json.loads(p.read_text()) for p in (folder / ".groundup" / "runs").glob("*/run.json")]
    made = Counter(stage for r in records for stage, s in r["stages"].items() if not s["cached"])
    assert set(made.values()) == {1}, made
    assert len({json.dumps({n: s["key"] for n, s in r["stages"].items()}) for r in records}) == 1, "the results are the same outputs"
    assert not half_written(folder)


def test_the_second_takes_over_from_a_first_that_is_killed(zygote: Zygote, tmp_path: Path) -> None:
    folder = slow_recipe(tmp_path / "r")
    first = zygote.begin(folder, "--to", "step:slow")
    until((folder / "begun").exists, "the first run to reach the step")
    second = zygote.ask(run=["run", str(folder), "--to", "step:slow"], log=str(tmp_path / "second.log"))
    until(lambda: "waiting for it" in ((tmp_path / "second.log").read_text() if (tmp_path / "second.log").exists() else ""), "the second")
    first.send_signal(signal.SIGKILL)
    assert first.over().status == -signal.SIGKILL
    until(lambda: (folder / "begun").read_text() == "xx", "the second run to take over", 10)
    (folder / "go on").touch()
    assert zygote.ask(wait=second) == 0
    assert not half_written(folder)


def test_a_waiting_run_can_be_interrupted(zygote: Zygote, tmp_path: Path) -> None:
    folder = slow_recipe(tmp_path / "r")
    first = zygote.begin(folder, "--to", "step:slow")
    until((folder / "begun").exists, "the first run to reach the step")
    log = tmp_path / "second.log"
    second = zygote.ask(run=["run", str(folder), "--to", "step:slow"], log=str(log))
    until(lambda: log.exists() and "waiting for it" in log.read_text(), "the second run to wait")
    os.kill(second, signal.SIGINT)
    try:
        until(lambda: "\nState:\tZ" in Path(f"/proc/{second}/status").read_text(), "the waiting run to end", 5)
    finally:
        (folder / "go on").touch()
    assert zygote.ask(wait=second) == 130
    assert "stopped as asked" in log.read_text()
    assert first.over().status == 0

"""SIGINT and SIGTERM wherever a run is: state saved, a message that says how to go on, status 130, nothing left running."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
from command_line import (
    CANCER,
    DIGITS,
    GROUNDUP,
    OWN,
    Forked,
    Said,
    Zygote,
    ended,
    environment,
    half_written,
    offspring,
    own_table,
    spawn,
    until,
    written,
)

RESUME = "run the same command again to go on from here"
LONG = DIGITS.replace("epochs: 3", "epochs: 100000").replace("patience: 2", "patience: 100000")

STEP = """
import pathlib, time
def slow({argument}):
    pathlib.Path(__file__).with_name("begun").touch()
    time.sleep({seconds})
    return {result}
"""


def over(run: Forked, timeout: float = 60) -> Said:
    """How it ended; no server, worker or temporary file may be left."""
    told = run.over(timeout)
    until(lambda: not offspring(run.folder), "servers and workers to end", 5)
    assert not half_written(run.folder)
    return told


def status_of(folder: Path) -> str:
    latest = (folder / ".groundup" / "runs" / "latest").read_text()
    return str(json.loads((folder / ".groundup" / "runs" / latest / "run.json").read_text())["status"])


def checkpoints(folder: Path) -> list[Path]:
    return list((folder / ".groundup" / "work").glob("train-*/0*.safetensors"))


def step_of(checkpoint: Path) -> int:
    return int(checkpoint.name.split("-")[0])


@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
def test_training_is_saved_and_goes_on_where_it_stood(zygote: Zygote, tmp_path: Path, number: signal.Signals) -> None:
    folder = written(tmp_path / "digits", LONG)
    run = zygote.begin(folder, "--to", "train")
    until(lambda: checkpoints(folder), "training to begin")
    run.send_signal(number)
    over(run).refused(130, "stopped as asked", RESUME)
    assert status_of(folder) == "interrupted"
    steps = max(map(step_of, checkpoints(folder)))
    run = zygote.begin(folder, "--to", "train")
    until(lambda: any(step_of(p) > steps for p in checkpoints(folder)), "training to go on")
    run.send_signal(number)
    over(run).refused(130, f"resumed at step {steps} of ", RESUME)


def test_a_second_signal_stops_at_once(zygote: Zygote, tmp_path: Path) -> None:
    """Within a stage that looks for the first one late: a function of the user's own that sleeps."""
    recipe = CANCER + "steps: [{name: slow, function: 'my_steps:slow', after: prepare}]\n"
    folder = written(tmp_path / "slow", recipe)
    (folder / "my_steps.py").write_text(STEP.format(argument="prepared", seconds=60, result="None"))
    run = zygote.begin(folder, "--to", "train")
    until((folder / "begun").exists, "the step to begin")
    run.send_signal(signal.SIGINT)
    time.sleep(0.5)
    assert run.is_alive(), "the first signal waits for the stage"
    asked = time.monotonic()
    run.send_signal(signal.SIGINT)
    told = over(run, 10)
    assert time.monotonic() - asked < 5
    told.refused(130, "stopped at once; run the same command again to go on from what was saved before")
    assert status_of(folder) == "interrupted"


def test_reading_a_table_stops_between_pieces(zygote: Zygote, tmp_path: Path) -> None:
    recipe = OWN + "steps: [{name: slow, function: 'my_steps:slow', after: source}]\n"
    folder = written(tmp_path / "slow", recipe)
    own_table().to_csv(folder / "Daten für März.csv", index=False)
    (folder / "my_steps.py").write_text(STEP.format(argument="frame", seconds=0.2, result="frame"))
    run = zygote.begin(folder, "--to", "train")
    until((folder / "begun").exists, "the step to begin")
    run.send_signal(signal.SIGTERM)
    over(run).refused(130, "stopped as asked", RESUME)
    assert over(zygote.begin(folder, "--to", "prepare")).status == 0


def test_tuning_stops_its_workers_and_keeps_their_trials(zygote: Zygote, tmp_path: Path) -> None:
    tune = "tune: {trials: 1000, workers: 2, space: {train.optimizer.lr: {type: float, low: 1e-3, high: 1e-2, log: true}}}\n"
    folder = written(tmp_path / "digits", DIGITS + tune)
    run = zygote.begin(folder, "--to", "tune")
    journal = lambda: next((folder / ".groundup" / "work").glob("tune-*/journal.log"), None)  # noqa: E731
    until(lambda: (path := journal()) is not None and path.read_text().count('"state":1') >= 1 and len(offspring(folder)) >= 2, "a trial")
    run.send_signal(signal.SIGINT)
    over(run).refused(130, RESUME)
    run = zygote.begin(folder, "--to", "tune")
    until(lambda: "trials were made before" in run.said, "the search to go on")
    run.send_signal(signal.SIGINT)
    over(run).refused(130, "resumed: ", " of 1000 trials were made before", RESUME)


REHEARSED = OWN.replace("rehearse: {enabled: false}", "rehearse: {requests: 100000, seconds: 0.8, connections: [2]}")


def test_no_server_outlives_its_rehearsal(zygote: Zygote, own: Path, tmp_path: Path) -> None:
    """Interrupted while callers are at it.  (Killed without a word: see test_kill.)"""
    folder = written(tmp_path / "rehearsal", REHEARSED)
    for name in ("schema.yaml", "Daten für März.csv"):
        (folder / name).write_bytes((own / name).read_bytes())
    run = zygote.begin(folder, "--to", "rehearse")
    until(lambda: offspring(folder), "the server to start")
    time.sleep(0.7)
    run.send_signal(signal.SIGINT)
    over(run).refused(130, "stopped as asked", RESUME)


def test_the_server_stops_politely(own: Path) -> None:
    process = spawn("serve", own / "build" / "bundle", "--port", "0")
    assert process.stderr is not None
    first = process.stderr.readline() or ""
    assert "ready" in first, first
    process.send_signal(signal.SIGINT)
    assert ended(process, 15).status == 0


@pytest.mark.parametrize("arguments", [["models"], ["schema"], ["run", "--help"], ["data"]])
def test_a_reader_who_leaves_is_no_error(arguments: list[str]) -> None:
    """``groundup models | head -0``: quiet, and soon."""
    reading, writing = os.pipe()
    os.close(reading)
    process = subprocess.Popen([*GROUNDUP, *arguments], stdout=writing, stderr=subprocess.PIPE, text=True, env=environment())
    os.close(writing)
    _, err = process.communicate(timeout=60)
    assert process.returncode in (0, 1)
    assert err == ""

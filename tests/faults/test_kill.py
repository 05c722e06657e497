"""``kill -9`` at any moment of the whole chain: the same command goes on, and ends with what an untouched run makes, bit for bit."""

from __future__ import annotations

import json
import random
import signal
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest
from command_line import DIGITS, Forked, Zygote, half_written, offspring, until, written

CHAIN = DIGITS.replace(
    "rehearse: {enabled: false}", "rehearse: {requests: 60, seconds: 0.2, connections: [2], clean_windows: 20, replay_rows: 40}"
).replace("register: {enabled: false}", "register: {promote: always}\nserve: {drain_delay_s: 0}")
TUNED = CHAIN + "tune: {trials: 2, workers: 1, space: {train.optimizer.lr: {type: float, low: 1e-3, high: 1e-2, log: true}}}\n"
ORPHANED = 5.0
"""Seconds that a server may outlive the rehearsal that was killed."""

Moment = Callable[[Forked], None]
"""Waits until it is time to kill a run; returns at once when the run is over before that."""


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
    assert (folder / "build" / "report.html").exists()
    assert not half_written(folder)
    assert not list((home / "work").iterdir())
    assert json.loads((home / "runs" / (home / "runs" / "latest").read_text() / "run.json").read_text())["status"] == "finished"
    return files


def expect_registered_once(folder: Path) -> None:
    """One version, champion, in our registry and in MLflow's; nothing half made, nothing that pretends to be running."""
    from groundup.bundle import Bundle
    from groundup.lifecycle.mlflow_store import connect, experiment_id
    from groundup.registry import Registry

    home = folder / ".groundup"
    registry, client = Registry(home), connect(home)
    (version,) = registry.versions("digits")
    assert version.content == Bundle.open(version.path).version == Bundle.open(folder / "build" / "bundle").version
    assert registry.aliases("digits") == {"challenger": 1, "champion": 1}
    assert [event.action for event in registry.history("digits")] == ["register", "promote"]
    assert [p.name for p in (home / "registry" / "digits").iterdir()] == ["1"]
    (mirrored,) = client.search_model_versions("name = 'digits'")
    assert mirrored.tags["groundup.bundle"] == version.content
    for alias in ("challenger", "champion"):
        assert client.get_model_version_by_alias("digits", alias).version == mirrored.version
    experiment = experiment_id(client, "digits", home)
    (model,) = client.search_logged_models([experiment])
    assert (model.status, model.tags["groundup.bundle"]) == ("READY", version.content)
    runs = Counter(run.info.status for run in client.search_runs([experiment]))
    assert set(runs) <= {"FINISHED", "KILLED"}, runs
    assert not list((home / "running").glob("*"))


def ports(pids: list[int]) -> list[int]:
    """Ports that these server processes were told to listen on."""
    found = []
    for pid in pids:
        try:
            words = (Path("/proc") / str(pid) / "cmdline").read_bytes().split(b"\0")
        except OSError:  # it has ended
            continue
        found += [int(words[i + 1]) for i, word in enumerate(words) if word == b"--port"]
    return found


def listened(port: int) -> bool:
    with socket.socket() as s:
        return s.connect_ex(("127.0.0.1", port)) == 0


def expect_nothing_left(folder: Path, held: list[int]) -> None:
    """No process of a killed run lives on, and nobody listens on its ports."""
    until(lambda: not offspring(folder), "servers of a killed rehearsal to end", ORPHANED)
    until(lambda: not any(map(listened, held)), f"the ports {held} to be free", 1)


def untouched(run: Forked) -> dict[str, bytes]:
    """What the run that nobody kills leaves."""
    ended = run.over(300)
    assert ended.status == 0, ended.err
    expect_registered_once(run.folder)
    return left(run.folder)


def killed(zygote: Zygote, folder: Path, recipe: str, moments: Iterable[Moment], stages: Counter[str]) -> int:
    """Kill runs at these moments, each home until it completes, and hold each to an untouched one.

    Args:
        stages: filled with the kills by the stage that they fell into; a run that was over already was not killed.

    Returns:
        homes that completed.
    """
    first = zygote.begin(written(folder / "untouched", recipe))
    expected: dict[str, bytes] = {}
    pending, homes = iter(moments), 0
    moment = next(pending, None)
    while moment is not None or homes == 0:
        here = written(folder / f"home {homes}", recipe)
        while True:
            run, held = zygote.begin(here), []
            if moment is not None:
                moment(run)
                held = ports(offspring(here))
                run.send_signal(signal.SIGKILL)
            ended = run.over(300)
            if ended.status == -signal.SIGKILL:
                expect_nothing_left(here, held)
                stages[ended.err.rpartition("● ")[2].partition("\n")[0] or "start"] += 1
            moment = next(pending, None)
            if ended.status != -signal.SIGKILL:
                break
        assert ended.status == 0, ended.err
        expected = expected or untouched(first)
        assert left(here) == expected
        expect_registered_once(here)
        homes += 1
    return homes


def within(stage: str, seconds: float, *, served: bool = False) -> Moment:
    """So long after a stage began, or after its server came up."""

    def wait(run: Forked) -> None:
        until(lambda: f"● {stage}\n" in run.said or not run.is_alive(), f"{stage} to begin")
        if served:
            until(lambda: ports(offspring(run.folder)) or not run.is_alive(), "a server")
        time.sleep(seconds)

    return wait


def test_killed_in_training_rehearsal_registration_and_report(zygote: Zygote, tmp_path: Path) -> None:
    stages: Counter[str] = Counter()
    moments = [within("train", 0.3), within("rehearse", 0.8, served=True), within("register", 0.05), within("report", 0.0)]
    assert killed(zygote, tmp_path, CHAIN.replace("[static_wi8_ai8]", "[]"), moments, stages) == 1
    # a registration is over in a moment, and a busy machine kills after it: its steps are ended one by one in tests/lifecycle
    assert len(stages.keys() & {"train", "rehearse", "register", "report"}) >= 3, stages


STAGES = ("prepare", "tune", "train", "evaluate", "compress", "package", "rehearse", "register", "report")


def at_random(count: int, seed: int, stages: Counter[str]) -> Iterator[Moment]:
    """Moments until so many have killed: after any time, and within any stage, the short ones as often as the long ones."""
    draw = random.Random(seed)

    def after(seconds: float) -> Moment:
        return lambda run: time.sleep(seconds)

    while stages.total() < count:
        if draw.random() < 0.5:
            yield after(draw.uniform(0, 8) * draw.choice([0.1, 0.4, 1.0]))
        else:
            yield within(draw.choice(STAGES), draw.uniform(0, 2) * draw.choice([0.0, 0.1, 1.0]))


@pytest.mark.slow
def test_a_hundred_kills(zygote: Zygote, tmp_path: Path, seed: int) -> None:
    began, stages = time.monotonic(), Counter[str]()
    homes = killed(zygote, tmp_path, TUNED, at_random(100, seed, stages), stages)
    print(f"{stages.total()} kills in {time.monotonic() - began:.0f} s, {homes} homes completed, by stage: {dict(stages)}")
    assert stages.total() == 100
    assert set(stages) >= {"prepare", "tune", "train", "compress", "rehearse", "register"}

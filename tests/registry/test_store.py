"""The registry: what it acknowledged stays, whoever is killed."""

from __future__ import annotations

import itertools
import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from groundup.bundle import Bundle, Field, Signature, write_bundle
from groundup.errors import BundleError, BusyError, StorageError
from groundup.registry import Registry


def make(folder: Path, text: str) -> Bundle:
    signature = Signature((Field("a", "number"),), (Field("prediction", "number"),))
    return write_bundle(folder / f"made-{text}", {"model.onnx": text.encode()}, name="m", task="tabular-regression", signature=signature)


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    registry = Registry(tmp_path / "home")
    for text in ("one", "two", "three"):
        registry.add("m", make(tmp_path, text), metrics={"r2": {"value": 0.5}}, gates=[])
    return registry


def test_versions_count_up_and_the_same_content_is_the_same_version(registry: Registry, tmp_path: Path) -> None:
    assert [v.version for v in registry.versions("m")] == [1, 2, 3]
    again = registry.add("m", Bundle.open(tmp_path / "made-two"), metrics={}, gates=[])
    assert again.version == 2
    assert again.metrics == {"r2": {"value": 0.5}}
    assert registry.aliases("m") == {"challenger": 2}
    assert registry.names() == ["m"]


def test_the_bundle_is_copied_whole(registry: Registry, tmp_path: Path) -> None:
    (tmp_path / "made-two" / "model.onnx").write_bytes(b"later changed")
    assert Bundle.open(registry.version("m", 2).path).read("model.onnx") == b"two"


def test_promotion_and_history(registry: Registry) -> None:
    registry.promote("m", 1, {"r2": 0.5})
    registry.promote("m", 3, {"r2": 0.6})
    assert registry.champion("m") == 3
    assert [(e.action, e.before, e.after) for e in registry.history("m")] == [
        ("register", None, 1), ("register", 1, 2), ("register", 2, 3), ("promote", None, 1), ("promote", 1, 3),
    ]  # fmt: skip
    last = registry.history("m")[-1]
    assert last.why == {"r2": 0.6}
    assert "@" in last.who
    assert last.time.startswith("20")


def test_rollbacks_go_back_step_by_step_and_not_back_and_forth(registry: Registry) -> None:
    for version in (1, 2, 3):
        registry.promote("m", version, {})
    assert registry.rollback("m").after == 2
    assert registry.rollback("m").after == 1
    with pytest.raises(BundleError, match="version 1 is the first champion"):
        registry.rollback("m")
    assert registry.rollback("m", to=3).after == 3
    assert registry.champion("m") == 3


def test_rollback_refuses_what_no_gate_let_pass(registry: Registry) -> None:
    registry.promote("m", 1, {})
    registry.promote("m", 2, {})
    with pytest.raises(BundleError, match=r"version 3 was never champion.*these were: 1, 2"):
        registry.rollback("m", to=3)
    with pytest.raises(BundleError, match="no version 9"):
        registry.rollback("m", to=9)
    with pytest.raises(BundleError, match="champion already"):
        registry.rollback("m", to=2)


def test_a_promotion_is_refused_when_the_champion_has_changed_meanwhile(registry: Registry) -> None:
    registry.promote("m", 1, {})
    registry.promote("m", 2, {}, expected=1, check=True)
    with pytest.raises(BusyError, match="version 2, no longer 1"):
        registry.promote("m", 3, {}, expected=1, check=True)
    assert registry.champion("m") == 2


def test_references(registry: Registry) -> None:
    registry.promote("m", 2, {})
    assert registry.resolve("models:/m@champion") == registry.version("m", 2).path
    assert registry.resolve("models:/m/1") == registry.version("m", 1).path
    assert registry.resolve("models:/m/latest") == registry.version("m", 3).path
    assert registry.resolve("some/folder") == Path("some/folder")
    for wrong, text in (
        ("models:/m", "expected models:/NAME@champion"),
        ("models:/other@champion", "no model 'other'.*it has: m"),
        ("models:/m@best", r"it has: challenger \(version 3\), champion \(version 2\)"),
        ("models:/m/7", "no version 7.*it has: 1, 2, 3"),
        ("models:/../m/1", "expected models:/NAME@champion"),
    ):
        with pytest.raises(BundleError, match=text):
            registry.resolve(wrong)


@pytest.mark.parametrize("name", ["", "../up", "a/b", ".hidden", "a b", "x" * 129, "a\0"])
def test_names_that_are_no_folder_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(BundleError, match="expected letters, digits"):
        Registry(tmp_path).add(name, make(tmp_path, "x"), metrics={}, gates=[])


def test_history_cannot_be_rewritten(registry: Registry) -> None:
    with sqlite3.connect(registry.file) as db:
        for statement in (
            "DELETE FROM history",
            "UPDATE history SET who = 'nobody'",
            "UPDATE version SET content = ''",
            "DELETE FROM version",
        ):
            with pytest.raises(sqlite3.IntegrityError, match=r"append-only|never"):
                db.execute(statement)


def test_an_empty_home_has_nothing(tmp_path: Path) -> None:
    registry = Registry(tmp_path / "nowhere")
    assert registry.champion("m") is None
    assert registry.history("m") == []
    assert registry.versions("m") == []
    assert not (tmp_path / "nowhere").exists()
    with pytest.raises(BundleError, match="no model 'm'"):
        registry.resolve("models:/m@champion")
    for change in (lambda: registry.promote("m", 1, {}), lambda: registry.rollback("m"), lambda: registry.refuse("m", 1, {})):
        with pytest.raises(BundleError, match=r"there is no .*registry\.sqlite: nothing was registered there"):
            change()
    assert not (tmp_path / "nowhere").exists()


def test_reading_leaves_the_folder_as_it_was(registry: Registry) -> None:
    def content() -> dict[str, bytes]:
        return {str(p): p.read_bytes() for p in registry.home.rglob("*") if p.is_file()}

    before = content()
    assert sorted(p.name for p in registry.home.iterdir()) == ["registry", "registry.sqlite"]
    assert registry.champion("m") is None
    assert len(registry.history("m")) == 3
    assert registry.resolve("models:/m/2") == registry.version("m", 2).path
    assert content() == before


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "registry.sqlite").write_bytes(b"not a database at all, but long enough to be looked at" * 20)
    with pytest.raises(StorageError, match=r"registry\.sqlite"):
        Registry(tmp_path).champion("m")
    with pytest.raises(StorageError, match=r"registry\.sqlite"):
        Registry(tmp_path).add("m", make(tmp_path, "x"), metrics={}, gates=[])


PROMOTER = """
import sys
from pathlib import Path
from groundup.registry import Registry
registry, who = Registry(Path(sys.argv[1])), sys.argv[2]
for i in range(int(sys.argv[3])):
    event = registry.promote("m", 1 + i % 3, {"who": who, "i": i})
    print(event.number, flush=True)
"""


def promoter(home: Path, who: str, count: int) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", PROMOTER, str(home), who, str(count)], stdout=subprocess.PIPE, text=True)


def test_two_processes_at_once_are_serialised(registry: Registry) -> None:
    both = [promoter(registry.home, who, 40) for who in ("a", "b")]
    numbers = [int(n) for p in both for n in p.communicate(timeout=60)[0].split()]
    assert [p.returncode for p in both] == [0, 0]
    events = [e for e in registry.history("m") if e.action == "promote"]
    assert sorted(numbers) == [e.number for e in events]
    assert len(events) == 80
    for earlier, later in itertools.pairwise(events):
        assert later.before == earlier.after  # nobody moved the alias from under the other
    assert registry.champion("m") == events[-1].after


def kill_loop(registry: Registry, times: int) -> None:
    for round_ in range(times):
        process = promoter(registry.home, str(round_), 10_000)
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(0.003 * (1 + round_ % 7))
        os.kill(process.pid, signal.SIGKILL)
        acknowledged = [int(n) for n in process.stdout.read().splitlines()[:-1]]
        process.wait()
        process.stdout.close()
        events = registry.history("m")
        assert set(acknowledged) <= {e.number for e in events}
        moved = [e for e in events if e.action == "promote"]
        assert registry.champion("m") == moved[-1].after


def test_kill_9_loses_no_acknowledged_promotion(registry: Registry) -> None:
    kill_loop(registry, 4)


@pytest.mark.slow
def test_kill_9_loses_no_acknowledged_promotion_often(registry: Registry) -> None:
    kill_loop(registry, 60)

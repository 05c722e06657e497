import errno
import json
import os
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from groundup.bundle.signature import Field, Signature
from groundup.monitoring import log as log_module
from groundup.monitoring.log import METADATA_KEY, PredictionLog, log_files
from groundup.monitoring.settings import LogSettings

SIGNATURE = Signature((Field("x", "number"),), (Field("label", "category"),))


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def batch(start: int, n: int) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    return {"x": np.arange(start, start + n, dtype=float)}, {"label": np.array([f"l{i}" for i in range(start, start + n)], object)}


def append(log: PredictionLog, start: int, n: int) -> None:
    log.append(*batch(start, n), times=[1.7e9 + i for i in range(start, start + n)], ids=[str(i) for i in range(start, start + n)])


def stored(folder: Path) -> list[float]:
    return [v for f in log_files(folder) for v in pq.read_table(f)["inputs"].combine_chunks().field("x").to_pylist()]


@pytest.fixture
def clock() -> Clock:
    return Clock()


def open_log(folder: Path, clock: Clock, **options) -> PredictionLog:
    return PredictionLog(LogSettings(path=folder, **options), SIGNATURE, "v1", monotonic=clock)


def test_rotation_by_rows_time_and_size(tmp_path: Path, clock: Clock) -> None:
    log = open_log(tmp_path / "a", clock, rotate_rows=10, rotate_s=60)
    append(log, 0, 9)
    assert not log_files(tmp_path / "a")
    append(log, 9, 3)
    assert stored(tmp_path / "a") == list(range(12))
    append(log, 12, 1)
    clock.now += 61
    log.tick()
    assert stored(tmp_path / "a") == list(range(13))
    small = open_log(tmp_path / "b", clock, rotate_mb=0.001)
    append(small, 0, 100)
    assert len(log_files(tmp_path / "b")) == 1


def test_a_row_says_when_who_and_which_version(tmp_path: Path, clock: Clock) -> None:
    log = open_log(tmp_path, clock)
    append(log, 5, 2)
    log.close()
    (file,) = log_files(tmp_path)
    table = pq.read_table(file)
    row = table.slice(1, 1).to_pylist()[0]
    assert row["time"].timestamp() == 1.7e9 + 6
    assert (row["request_id"], row["version"], row["inputs"], row["outputs"]) == ("6", "v1", {"x": 6.0}, {"label": "l6"})
    facts = json.loads(table.schema.metadata[METADATA_KEY.encode()])
    assert Signature.from_dict(facts["signature"]) == SIGNATURE


def test_old_files_are_deleted_and_foreign_ones_kept(tmp_path: Path, clock: Clock) -> None:
    (tmp_path / "labels.parquet").write_bytes(b"mine")
    stale, fresh = tmp_path / ".predictions-1.parquet.9.tmp", tmp_path / ".predictions-2.parquet.9.tmp"
    stale.write_bytes(b"half"), fresh.write_bytes(b"half")
    os.utime(stale, (0, 0))
    log = open_log(tmp_path, clock, rotate_rows=1, keep=3)
    for i in range(6):
        append(log, i, 1)
    assert stored(tmp_path) == [3, 4, 5]
    assert (tmp_path / "labels.parquet").exists()
    assert not stale.exists()  # left by a killed process
    assert fresh.exists()  # perhaps being written by another server


def test_a_full_disk_stops_nothing_and_loses_nothing_while_memory_lasts(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "groundup.monitoring")
    log = open_log(tmp_path, clock, rotate_rows=10, rotate_mb=0.01)
    full = True
    real = log_module.write_bytes

    def write_bytes(path: Path, data: bytes) -> None:
        if full:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(path, data)

    monkeypatch.setattr(log_module, "write_bytes", write_bytes)
    append(log, 0, 10)
    assert log.degraded is not None
    assert "No space" in log.degraded
    append(log, 10, 10)
    assert log.errors == 1  # not tried again at once
    clock.now += 2
    append(log, 20, 10)
    assert log.errors == 2
    for start in range(30, 2030, 100):
        append(log, start, 100)
    assert log.nbytes <= 0.01e6 + 10_000  # bounded: the newest rows are dropped
    assert log.lost_rows > 0
    full = False
    clock.now += 120
    append(log, 9_999, 1)
    kept = stored(tmp_path)
    assert log.degraded is None
    assert kept[:30] == list(range(30))
    assert len(kept) + log.lost_rows == 30 + 2000 + 1
    assert not list(tmp_path.glob(".*"))
    said = [r.getMessage() for r in caplog.records]  # once that it begins, once that it is over; not at every retry
    assert len(said) == 2
    assert "No space left" in said[0]
    assert f"{log.lost_rows} rows were dropped" in said[1]


def test_a_folder_that_cannot_be_made_is_degraded_not_fatal(tmp_path: Path, clock: Clock) -> None:
    (tmp_path / "file").write_text("")
    log = open_log(tmp_path / "file" / "log", clock)
    append(log, 0, 3)
    log.close()
    assert log.degraded is not None
    assert log.lost_rows == 3


def test_old_files_that_cannot_be_deleted_are_told_and_do_not_make_the_new_ones_small(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = open_log(tmp_path, clock, rotate_rows=10, keep=1)

    real = Path.unlink

    def unlink(path: Path, missing_ok: bool = False) -> None:
        if path.suffix == ".parquet":
            raise PermissionError(errno.EPERM, "Operation not permitted")
        real(path, missing_ok)

    monkeypatch.setattr(Path, "unlink", unlink)
    append(log, 0, 10)
    append(log, 10, 10)
    assert log.degraded is not None
    assert "delete" in log.degraded
    append(log, 20, 1)
    log.tick()
    assert (log.files, log.pending, log.errors) == (2, 1, 0)
    log.close()
    assert (log.files, log.lost_rows) == (3, 0)
    assert stored(tmp_path) == list(range(21))


def test_a_clock_set_back_makes_no_new_file_the_oldest(tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    wall = datetime(2026, 3, 1, 12, tzinfo=UTC)

    class Set(datetime):
        @classmethod
        def now(cls, tz: object = None) -> datetime:  # type: ignore[override]
            return wall

    monkeypatch.setattr(log_module, "datetime", Set)
    log = open_log(tmp_path, clock, rotate_rows=1, keep=2)
    for i in range(6):
        append(log, i, 1)
        wall -= timedelta(hours=1)  # back an hour at every file, and so at every prune
    assert stored(tmp_path) == [4, 5]
    again = open_log(tmp_path, clock, rotate_rows=1, keep=2)  # started anew, the clock still behind the files
    append(again, 6, 1)
    assert stored(tmp_path) == [5, 6]
    assert not list(tmp_path.glob(".*"))


def test_a_batch_that_does_not_fit_is_refused_whole(tmp_path: Path, clock: Clock) -> None:
    log = open_log(tmp_path, clock)
    with pytest.raises(ValueError, match=r"outputs\.label"):
        log.append({"x": np.zeros(2)}, {}, times=[0, 0])
    with pytest.raises(ValueError, match=r"inputs\.x"):
        log.append({"x": np.zeros(3)}, {"label": np.array(["a", "b"], object)}, times=[0, 0])
    append(log, 0, 2)
    log.close()
    assert stored(tmp_path) == [0, 1]


CHILD = """
import sys; sys.path.insert(0, "tests/monitoring")
from test_log import *
log = PredictionLog(LogSettings(path=Path(sys.argv[1]), rotate_rows=50), SIGNATURE, "v1")
for start in range(0, 10**9, 10):
    append(log, start, 10)
    if not log.pending:
        print(start + 10, flush=True)
"""


@pytest.mark.parametrize("wait", [0.0, 0.05, 0.1])
def test_kill_minus_nine_leaves_whole_files_with_all_that_was_rotated(tmp_path: Path, wait: float) -> None:
    child = subprocess.Popen([sys.executable, "-c", CHILD, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    rotated = int(child.stdout.readline())
    time.sleep(wait)
    child.send_signal(signal.SIGKILL)
    rest = child.stdout.read().split()
    child.wait()
    child.stdout.close()
    rotated = max(rotated, *map(int, rest), 0) if rest else rotated
    kept = stored(tmp_path)
    assert kept == list(range(len(kept)))  # whole, in order, no duplicates
    assert len(kept) >= rotated

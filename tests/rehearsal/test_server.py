"""The server process: started as a user would, measured, and never left behind."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from groundup.bundle import Bundle
from groundup.errors import BusyError, ProofError
from groundup.rehearsal.server import Server


def test_start_measure_stop(bundle: Bundle, tmp_path: Path) -> None:
    with Server(bundle.path, log=tmp_path / "log") as server:
        assert server.is_ready()
        assert 0 < server.ready_seconds < 60
        memory = server.memory()
        assert memory is not None
        assert 10 << 20 < memory < 1 << 30
        pid = server.pid
        assert server.stop() == 0
    assert not psutil.pid_exists(pid)
    assert "ready" in (tmp_path / "log").read_text()


def test_a_bundle_that_does_not_start_is_told_with_its_last_lines(bundle: Bundle, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "bundle.json").write_text("{}")
    with pytest.raises(ProofError, match=r"(?s)before it was ready; its last lines:.*format"):
        Server(broken, log=tmp_path / "log").start()


def test_a_port_in_use_is_named(bundle: Bundle, tmp_path: Path) -> None:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        s.listen()
        port = s.getsockname()[1]
        with pytest.raises(BusyError, match=f"port {port}"):
            Server(bundle.path, log=tmp_path / "log", port=port).start()


def test_a_free_port_that_was_taken_meanwhile_is_replaced(bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import groundup.rehearsal.server as module

    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        s.listen()
        taken, real = [s.getsockname()[1]], module.free_port
        monkeypatch.setattr(module, "free_port", lambda: taken.pop() if taken else real())
        with Server(bundle.path, log=tmp_path / "log") as server:
            assert server.port != s.getsockname()[1]
            assert server.is_ready()


def test_a_server_that_never_gets_ready_is_killed(bundle: Bundle, tmp_path: Path) -> None:
    server = Server(bundle.path, log=tmp_path / "log", timeout=0.05)
    with pytest.raises(ProofError, match="not ready within"):
        server.start()
    assert not server.is_alive()


PARENT = """
import sys, time
from pathlib import Path
from groundup.rehearsal.server import Server
server = Server(Path(sys.argv[1]), log=Path(sys.argv[2])).start()
print(server.pid, flush=True)
time.sleep(60 if sys.argv[3] == "wait" else 0)
"""


def gone(pid: int) -> bool:
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def wait_for(pids: list[int], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not all(map(gone, pids)):
        assert time.monotonic() < deadline, f"{[pid for pid in pids if not gone(pid)]} outlived their parent by {seconds} s"
        time.sleep(0.02)


@pytest.mark.parametrize("end", ["kill -9", "exit"])
def test_nothing_outlives_the_process_that_started_it(bundle: Bundle, tmp_path: Path, end: str) -> None:
    arguments = [str(bundle.path), str(tmp_path / "log"), "wait" if end == "kill -9" else "leave"]
    parent = subprocess.Popen([sys.executable, "-c", PARENT, *arguments], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    if end == "kill -9":
        os.kill(parent.pid, signal.SIGKILL)
    parent.communicate(timeout=30)
    wait_for([pid], 1 if end == "kill -9" else 10)


ELSEWHERE = """
import os, runpy, subprocess, sys
command = "import sys, time; assert sys.stdin.read() == ''; print('up', flush=True); time.sleep(60)"
as_elsewhere = "import runpy, sys; sys.platform = 'elsewhere'; del sys.argv[0]; runpy.run_path(sys.argv[0], run_name='__main__')"
tether = [sys.executable, "-S", "-c", as_elsewhere, sys.argv[1], str(os.getpid()), sys.executable, "-c", command]
child = subprocess.Popen(tether, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True)
print(child.pid, child.stdout.readline().decode().strip(), flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("who", ["parent", "command"])
def test_where_no_kernel_tells_a_watcher_does(who: str) -> None:
    """As on macOS: the starting process is killed, and with it goes the command; the command ends, and its watcher goes with the group."""
    from groundup.rehearsal import tether

    parent = subprocess.Popen([sys.executable, "-c", ELSEWHERE, tether.__file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    pid, said = parent.stdout.readline().split()
    assert said == "up"
    group = [p.pid for p in psutil.process_iter() if os.getpgid(p.pid) == int(pid)]
    assert len(group) == 2, "the command and its watcher"
    if who == "parent":
        parent.kill()
    else:
        os.killpg(int(pid), signal.SIGKILL)  # as Server.stop does with what a server leaves
    wait_for(group, 1)
    parent.communicate("", timeout=10)

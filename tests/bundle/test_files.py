"""Whole or not at all: killed at any system call, out of space, under any umask."""

from __future__ import annotations

import ctypes
import errno
import os
import stat
import subprocess
import threading
from pathlib import Path

import pytest

from groundup.bundle import files
from groundup.bundle.files import explaining_storage, sha256, whole_directory, write_bytes, write_json
from groundup.errors import StorageError


def left_in(folder):
    return sorted(p.name for p in folder.iterdir())


def content(folder):
    return {p.relative_to(folder).as_posix(): p.read_text() for p in folder.rglob("*") if p.is_file()}


def fill(path, text):
    with whole_directory(path) as folder:
        (folder / "sub").mkdir()
        for name in ("a", "b", "sub/c"):
            (folder / name).write_text(text)


def killed_at(step, work):
    """Run ``work`` in a child that dies, as by SIGKILL, just before or just after its step-th system call; its exit code."""
    pid = os.fork()
    if pid:
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    count = 0

    def dying(real):
        def call(*args, **kwargs):
            nonlocal count
            count += 1
            if count == step:
                os._exit(9)
            result = real(*args, **kwargs)
            count += 1
            if count == step:
                os._exit(9)
            return result

        return call

    for name in ("open", "fsync", "replace", "close", "mkdir", "fchmod"):
        setattr(os, name, dying(getattr(os, name)))
    files._exchange = dying(files._exchange)
    files.shutil.rmtree = dying(files.shutil.rmtree)
    work()
    os._exit(0)


@pytest.mark.parametrize("exists", [True, False])
@pytest.mark.parametrize("kind", ["folder", "file"])
def test_killed_at_any_step_it_is_the_old_or_the_new(tmp_path, kind, exists):
    def now(path):
        if not path.exists():
            return None
        return set(content(path).values()) if path.is_dir() else {path.read_text()}

    outcomes, step = set(), 0
    old = {"old"} if exists else None
    while True:
        step += 1
        root = tmp_path / str(step)
        root.mkdir()
        path = root / "target"
        if exists:
            fill(path, "old") if kind == "folder" else path.write_text("old")
        code = killed_at(step, lambda path=path: fill(path, "new") if kind == "folder" else write_bytes(path, b"new"))
        assert now(path) in (old, {"new"}), f"killed at step {step}"
        if kind == "folder" and now(path):
            assert len(content(path)) == 3
        outcomes.add((code, str(now(path))))
        if kind == "folder":
            fill(path, "newer")
            assert left_in(root) == ["target"], "what the killed process left is swept away"
        if code == 0:
            break
        assert code == 9
    assert step > (10 if kind == "folder" else 6)
    assert (9, str(old)) in outcomes
    assert (9, str({"new"})) in outcomes
    assert (0, str({"new"})) in outcomes


def test_what_a_reader_has_open_is_never_written_into(tmp_path):
    write_bytes(tmp_path / "file", b"old")
    with open(tmp_path / "file", "rb") as reader:
        write_bytes(tmp_path / "file", b"new")
        assert reader.read() == b"old"


def test_data_is_durable_before_it_has_its_name(tmp_path, monkeypatch):
    """Rename before fsync leaves an empty file after a power cut on some file systems."""
    calls = []

    def recording(name):
        real = getattr(os, name)
        monkeypatch.setattr(os, name, lambda *args: (calls.append(name), real(*args))[1])

    recording("fsync")
    recording("replace")
    write_bytes(tmp_path / "file", b"data")
    assert calls == ["fsync", "replace", "fsync"]
    calls.clear()
    fill(tmp_path / "target", "data")
    assert calls == [*["fsync"] * 5, "replace", "fsync"], "three files and two folders, then the name, then its folder"


def test_a_reader_never_misses_the_folder_while_it_is_replaced(tmp_path):
    path = tmp_path / "target"
    fill(path, "0")
    stop, missing = threading.Event(), []

    def read():
        while not stop.is_set():
            if not os.path.exists(path):
                missing.append(1)

    reader = threading.Thread(target=read)
    reader.start()
    try:
        for i in range(40):
            fill(path, str(i))
    finally:
        stop.set()
        reader.join()
    assert not missing
    assert left_in(tmp_path) == ["target"]


def test_without_exchange_it_is_still_replaced(tmp_path, monkeypatch):
    class NoSuchCall:
        @staticmethod
        def renameat2(*_):
            ctypes.set_errno(errno.EINVAL)
            return -1

    fill(tmp_path / "target", "old")
    monkeypatch.setattr(files.ctypes, "CDLL", lambda *_, **__: NoSuchCall)
    fill(tmp_path / "target", "new")
    assert set(content(tmp_path / "target").values()) == {"new"}
    assert left_in(tmp_path) == ["target"]


def test_an_error_inside_leaves_the_old_folder(tmp_path):
    fill(tmp_path / "target", "old")

    def fail():
        with whole_directory(tmp_path / "target") as folder:
            (folder / "a").write_text("half")
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert set(content(tmp_path / "target").values()) == {"old"}
    assert left_in(tmp_path) == ["target"]


@pytest.mark.parametrize("umask", [0o000, 0o002, 0o022, 0o077])
def test_nobody_but_the_owner_can_write(tmp_path, umask):
    before = os.umask(umask)
    try:
        fill(tmp_path / "made" / "on the way" / "target", "text")
        write_bytes(tmp_path / "made" / "file", b"data")
        write_json(tmp_path / "made" / "file.json", {"a": 1})
    finally:
        os.umask(before)
    entries = [tmp_path / "made", *(tmp_path / "made").rglob("*")]
    assert len(entries) == 9
    for entry in entries:
        assert not stat.S_IMODE(entry.stat().st_mode) & 0o022, entry
        assert stat.S_IMODE(entry.stat().st_mode) & 0o700 >= 0o600


@pytest.fixture
def tiny(tmp_path):
    """A file system of 256 KiB, where this user may mount one."""
    folder = tmp_path / "tiny"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(folder)], capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip("mounting is not allowed here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


class TestFull:
    def test_a_file_on_a_full_disk(self, tiny):
        write_bytes(tiny / "file", b"old")
        with pytest.raises(StorageError, match="disk is full: free some space"):
            write_bytes(tiny / "file", b"x" * (1 << 20))
        assert (tiny / "file").read_bytes() == b"old"
        assert left_in(tiny) == ["file"]

    def test_a_folder_on_a_full_disk(self, tiny):
        fill(tiny / "target", "old")
        with pytest.raises(StorageError, match="disk is full"):
            fill(tiny / "target", "x" * (1 << 18))
        assert set(content(tiny / "target").values()) == {"old"}
        assert left_in(tiny) == ["target"]

    @pytest.mark.parametrize("call", ["fsync", "replace"])
    @pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES])
    def test_the_system_says_no(self, tmp_path, monkeypatch, call, code):
        """As above, for users who may not mount."""

        def no(*_, **__):
            raise OSError(code, os.strerror(code))

        monkeypatch.setattr(files.os, call, no)
        with pytest.raises(StorageError, match=r"cannot write .*(free|choose|change)"):
            write_bytes(tmp_path / "file", b"data")
        with pytest.raises(StorageError):
            fill(tmp_path / "target", "data")
        assert left_in(tmp_path) == []


def test_other_errors_pass_as_they_are(tmp_path):
    with pytest.raises(IsADirectoryError), explaining_storage(tmp_path):
        tmp_path.read_bytes()
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError, match="directory"):
        write_bytes(tmp_path / "folder", b"")
    assert left_in(tmp_path) == ["folder"]


def test_writers_do_not_disturb_each_other(tmp_path):
    """Many threads, one path: one of them wins, none fails, nothing is left."""
    failures = []

    def work(i):
        try:
            for _ in range(10):
                fill(tmp_path / "target", str(i))
                write_bytes(tmp_path / "file", str(i).encode() * 1000)
        except OSError as e:
            failures.append(e)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert left_in(tmp_path) == ["file", "target"]
    assert len(set(content(tmp_path / "target").values())) == 1
    assert len(set((tmp_path / "file").read_text())) == 1


def test_live_processes_are_not_swept(tmp_path):
    with whole_directory(tmp_path / "target") as mine:
        fill(tmp_path / "target", "other thread of the same process")
        assert mine.is_dir()
        (mine / "a").write_text("mine")
    assert content(tmp_path / "target") == {"a": "mine"}


def test_names_that_a_glob_would_act_on(tmp_path):
    for name in ("[ab]", "a*", "?"):
        fill(tmp_path / name, "text")
        fill(tmp_path / name, "again")
    assert left_in(tmp_path) == ["?", "[ab]", "a*"]


def test_sha256(tmp_path):
    (tmp_path / "file").write_bytes(b"abc")
    assert sha256(tmp_path / "file") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_json_is_readable_and_refuses_nan(tmp_path):
    write_json(tmp_path / "j", {"b": 1, "a": "ü"})
    assert Path(tmp_path / "j").read_text() == '{\n  "b": 1,\n  "a": "ü"\n}\n'
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(tmp_path / "j", float("inf"))
    assert Path(tmp_path / "j").read_text().startswith("{")

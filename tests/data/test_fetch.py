"""Downloads: whole or not at all, resumed where they stood, held to their hash; tested against a server of our own."""

from __future__ import annotations

import gzip
import hashlib
import http.server
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from groundup.data.fetch import Remote, fetch
from groundup.data.sources.mnist import read_idx
from groundup.errors import DataError, StorageError
from groundup.lifecycle.prepare import Prepared

CONTENT = np.random.default_rng(0).bytes(700_001)
SHA = hashlib.sha256(CONTENT).hexdigest()


class Server(http.server.ThreadingHTTPServer):
    """Serves CONTENT; breaks off after ``breaks`` bytes as often as ``times`` says; may ignore ranges."""

    breaks, times, ranges = 0, 0, True
    asked: list[str | None]
    status = 200


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        wanted = self.headers.get("Range")
        self.server.asked.append(wanted)
        if self.server.status != 200:
            self.send_error(self.server.status)
            return
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and self.server.ranges else 0
        if start >= len(CONTENT):
            self.send_error(416)
            return
        body = CONTENT[start:]
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.server.times > 0:
            self.server.times -= 1
            body = body[: self.server.breaks]
        self.wfile.write(body)

    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    httpd = Server(("127.0.0.1", 0), Handler)
    httpd.asked = []
    thread = threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield httpd
    httpd.shutdown()
    thread.join()
    httpd.server_close()


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GROUNDUP_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("GROUNDUP_DATA", raising=False)
    return tmp_path / "home"


def remote(server: Server, sha: str = SHA) -> Remote:
    return Remote(f"http://127.0.0.1:{server.server_address[1]}/files/thing.bin", sha)


def left(home: Path) -> list[str]:
    return sorted(p.name for p in (home / "data" / "set").iterdir() if p.suffix != ".lock")


def test_a_file_is_fetched_once(server: Server, home: Path) -> None:
    path = fetch("set", remote(server))
    assert path.read_bytes() == CONTENT
    assert fetch("set", remote(server)) == path
    assert server.asked == [None]
    assert left(home) == ["thing.bin"]


def test_an_interrupted_download_goes_on(server: Server) -> None:
    server.breaks, server.times = 300_000, 2
    assert fetch("set", remote(server), wait=0).read_bytes() == CONTENT
    assert server.asked == [None, "bytes=300000-", "bytes=600000-"]


def test_a_killed_download_goes_on_in_the_next_run(server: Server, home: Path) -> None:
    server.breaks, server.times = 100_000, 4
    with pytest.raises(DataError, match="after 400000 of 700001 bytes; what came is kept"):
        fetch("set", remote(server), wait=0)
    assert left(home) == ["thing.bin.part"]
    assert fetch("set", remote(server), wait=0).read_bytes() == CONTENT
    assert server.asked[-1] == "bytes=400000-"
    assert left(home) == ["thing.bin"]


def test_a_server_without_ranges_starts_again(server: Server) -> None:
    server.breaks, server.times, server.ranges = 300_000, 1, False
    assert fetch("set", remote(server), wait=0).read_bytes() == CONTENT


def test_a_whole_part_needs_no_more_bytes(server: Server, home: Path) -> None:
    (home / "data" / "set").mkdir(parents=True)
    (home / "data" / "set" / "thing.bin.part").write_bytes(CONTENT)
    assert fetch("set", remote(server), wait=0).read_bytes() == CONTENT


def test_a_part_of_another_file_is_thrown_away(server: Server, home: Path) -> None:
    (home / "data" / "set").mkdir(parents=True)
    (home / "data" / "set" / "thing.bin.part").write_bytes(CONTENT + b"more")
    assert fetch("set", remote(server), wait=0).read_bytes() == CONTENT


def test_other_content_is_refused_and_removed(server: Server, home: Path) -> None:
    with pytest.raises(DataError, match="is not the file that was promised"):
        fetch("set", remote(server, "0" * 64), wait=0)
    assert left(home) == []


def test_a_damaged_cache_is_fetched_again(server: Server) -> None:
    path = fetch("set", remote(server))
    path.write_bytes(CONTENT[:-1] + b"!")
    assert fetch("set", remote(server)).read_bytes() == CONTENT


@pytest.mark.parametrize(("status", "asked"), [(404, 1), (503, 4)])
def test_what_the_server_says_is_passed_on(server: Server, status: int, asked: int) -> None:
    server.status = status
    with pytest.raises(DataError, match=str(status)):
        fetch("set", remote(server), wait=0)
    assert len(server.asked) == asked


def test_no_network_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match="GROUNDUP_DATA"):
        fetch("set", Remote("http://127.0.0.1:1/thing.bin", SHA), wait=0)


def test_a_mirror_is_used_in_place_or_unpacked(server: Server, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mirror = tmp_path / "mirror"
    (mirror / "set").mkdir(parents=True)
    monkeypatch.setenv("GROUNDUP_DATA", str(mirror))
    (mirror / "set" / "thing.bin.gz").write_bytes(gzip.compress(CONTENT))
    path = fetch("set", remote(server))
    assert (path.parent, path.read_bytes()) == (home / "data" / "set", CONTENT)
    (mirror / "set" / "thing.bin").write_bytes(CONTENT)
    assert fetch("set", remote(server)) == mirror / "set" / "thing.bin"
    (mirror / "set" / "thing.bin").write_bytes(CONTENT[1:])
    with pytest.raises(DataError, match="from GROUNDUP_DATA"):
        fetch("set", remote(server))
    assert server.asked == []


def test_a_home_that_is_a_file(server: Server, home: Path) -> None:
    home.write_text("in the way")
    with pytest.raises((StorageError, OSError)):
        fetch("set", remote(server), wait=0)


def test_idx_files(tmp_path: Path) -> None:
    array = np.arange(2 * 3 * 5, dtype=np.uint8).reshape(2, 3, 5)
    header = b"\0\0\x08\x03" + b"".join(n.to_bytes(4, "big") for n in array.shape)
    (tmp_path / "a.gz").write_bytes(gzip.compress(header + array.tobytes()))
    np.testing.assert_array_equal(read_idx(tmp_path / "a.gz"), array)
    (tmp_path / "b.gz").write_bytes(gzip.compress(b"\0\0\x0d\x03" + bytes(40)))
    with pytest.raises(DataError, match="expected an idx file"):
        read_idx(tmp_path / "b.gz")


def test_adult_joins_both_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, prepared: Any) -> None:
    from groundup.data.sources import published

    one = "39, State-gov, 77516, Bachelors, 13, Never-married, ?, Not-in-family, White, Male, 2174, 0, 40, United-States, <=50K\n"
    train = "".join(
        one.replace("39,", f"{20 + i % 50},").replace("77516", str(77516 + i)).replace("<=", "<=" if i % 3 else ">") for i in range(60)
    )
    test = "|1x3 Cross validator\n" + train.replace("77", "88").replace("50K", "50K.")
    (tmp_path / "m" / "adult").mkdir(parents=True)
    files = []
    for remote, content in zip(published._TABLES["adult"].files, (train, test), strict=True):
        (tmp_path / "m" / "adult" / remote.name).write_text(content + "\n")
        files.append(remote._replace(sha256=hashlib.sha256((content + "\n").encode()).hexdigest()))
    monkeypatch.setitem(published._TABLES, "adult", published._TABLES["adult"]._replace(files=tuple(files)))
    monkeypatch.setenv("GROUNDUP_DATA", str(tmp_path / "m"))
    got: Prepared = prepared(source="adult")
    assert got.classes == ["<=50K", ">50K"]
    assert sum(got.sizes.values()) == 120
    assert {f["name"] for f in got.inputs} >= {"age", "fnlwgt"}
    assert got.frame("train")["occupation"].isna().all()

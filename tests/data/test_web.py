"""A table at an http address: downloaded once, noticed when it changes, and everything that a server can do wrong."""

from __future__ import annotations

import gzip
import hashlib
import http.server
import io
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from groundup.data import fingerprint
from groundup.data import schema as schemas
from groundup.data.settings import Data
from groundup.data.sources import web
from groundup.errors import DataError, RecipeError, StorageError
from groundup.lifecycle.prepare import Prepared
from groundup.progress import Silent
from groundup.recipe import Recipe

Prepare = Callable[..., Prepared]


def table(n: int = 400) -> bytes:
    return b"x,k,label\n" + b"".join(b"%d.5,%d,%s\n" % (i * 7919 % 1009, i % 9, b"ab"[i % 2 : i % 2 + 1]) for i in range(n))


class Server(http.server.ThreadingHTTPServer):
    """Serves ``files``; dies after ``breaks`` bytes as often as ``times`` says."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.validators = True
        self.redirect = ""
        self.status = 200
        self.chunked = False
        self.breaks, self.times = 0, 0
        self.asked: list[tuple[str, str | None, int]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.close_connection = True
        wanted = self.headers.get("Range")
        if self.server.redirect:
            return self._head(302, {"Location": self.server.redirect, "Content-Length": "0"})
        content = self.server.files.get(self.path)
        if content is None or self.server.status != 200:
            return self._head(404 if content is None else self.server.status, {"Content-Length": "0"})
        tag = f'"{hashlib.sha256(content).hexdigest()[:12]}"'
        told = {"ETag": tag} if self.server.validators else {}
        if told and self.headers.get("If-None-Match") == tag:
            return self._head(304, told)
        start = 0
        if wanted and self.headers.get("If-Range", tag) == tag:
            start = int(wanted.removeprefix("bytes=").rstrip("-"))
            told["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        body = content[start:]
        self._head(
            206 if start else 200, told | ({"Transfer-Encoding": "chunked"} if self.server.chunked else {"Content-Length": str(len(body))})
        )
        if self.server.times > 0:
            self.server.times -= 1
            body = body[: self.server.breaks]
            self.wfile.write(b"%x\r\n%s\r\n" % (len(body), body) if self.server.chunked else body)
            return None
        self.wfile.write(b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body) if self.server.chunked else body)
        return None

    def _head(self, status: int, headers: dict[str, str]) -> None:
        self.server.asked.append((self.path, self.headers.get("Range"), status))
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key, value)
        self.end_headers()

    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("GROUNDUP_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(web, "_FRESH", 0.0)
    monkeypatch.setattr("groundup.data.download.time.sleep", lambda seconds: None)
    httpd = Server()
    httpd.files["/t.csv"] = table()
    thread = threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield httpd
    httpd.shutdown()
    thread.join()
    httpd.server_close()


def identity(server: Server, tmp_path: Path, path: str = "/t.csv", **more: Any) -> str:
    return fingerprint(Data(source=server.url + path, target="label", **more), tmp_path)


def statuses(server: Server) -> list[int]:
    return [status for _, _, status in server.asked]


def written(name: str, folder: Path) -> bytes:
    frame = pd.read_csv(io.BytesIO(table()))
    path = folder / "local"
    if name.endswith(".parquet"):
        frame.to_parquet(path)
    elif name.endswith(".jsonl"):
        frame.to_json(path, orient="records", lines=True)
    else:
        path.write_bytes(gzip.compress(table()) if name.endswith(".gz") else table())
    return path.read_bytes()


@pytest.mark.parametrize("name", ["/t.csv", "/data/t.csv.gz", "/t.parquet", "/t.jsonl", "/größe und 測定.csv", "/t.csv?token=secret"])
def test_it_is_prepared_as_the_file_itself_would_be(server: Server, tmp_path: Path, prepared: Prepare, name: str) -> None:
    from urllib.parse import quote

    (tmp_path / "t.csv").write_bytes(table())
    local = prepared(root=tmp_path, source="t.csv", target="label", schema="local.yaml")
    server.files[quote(name, safe="/?=")] = written(name.split("?")[0], tmp_path)
    got = prepared(root=tmp_path, source=server.url + name, target="label")
    assert (got.features("test") == local.features("test")).all()
    assert (got.rows("train") == local.rows("train")).all()
    assert schemas.read(tmp_path / "schema.yaml").schema.source == server.url + name.split("?")[0]
    assert 200 in statuses(server)


def test_a_file_without_an_ending_needs_its_format(server: Server, tmp_path: Path, prepared: Prepare) -> None:
    server.files["/download"] = table()
    with pytest.raises(DataError, match=r"/download: cannot tell .* data\.format: csv, parquet or jsonl"):
        prepared(root=tmp_path, source=server.url + "/download", target="label")
    assert sum(prepared(root=tmp_path, source=server.url + "/download", format="csv", target="label").sizes.values()) == 400
    with pytest.raises(DataError, match="npz is not read from the web"):
        prepared(root=tmp_path, source=server.url + "/download", format="npz", target="label")


def test_an_unchanged_file_is_not_sent_again(server: Server, tmp_path: Path) -> None:
    assert identity(server, tmp_path) == identity(server, tmp_path)
    assert statuses(server) == [200, 304]


@pytest.mark.parametrize("validators", [True, False])
def test_a_changed_file_is_noticed(server: Server, tmp_path: Path, prepared: Prepare, validators: bool) -> None:
    server.validators = validators
    before = prepared(root=tmp_path, source=server.url + "/t.csv", target="label")
    server.files["/t.csv"] = table(500)
    after = prepared(root=tmp_path, source=server.url + "/t.csv", target="label")
    assert before.data_hash != after.data_hash
    assert sum(after.sizes.values()) == 500


def test_one_run_asks_once(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web, "_FRESH", 60.0)
    identity(server, tmp_path)
    identity(server, tmp_path)
    assert statuses(server) == [200]


def test_a_known_hash_needs_the_network_once(server: Server, tmp_path: Path) -> None:
    known = hashlib.sha256(table()).hexdigest()
    one = identity(server, tmp_path, sha256=known)
    server.status = 503
    assert identity(server, tmp_path, sha256=known) == one
    assert statuses(server) == [200]


def test_other_content_than_promised_is_refused(server: Server, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=f"has SHA-256 {hashlib.sha256(table()).hexdigest()}, and data.sha256 expects 0000"):
        identity(server, tmp_path, sha256="0" * 64)
    assert not list((tmp_path / "home").rglob("file.csv*[!k]"))


@pytest.mark.parametrize("chunked", [False, True])
def test_a_server_that_dies_midway(server: Server, tmp_path: Path, prepared: Prepare, chunked: bool) -> None:
    server.breaks, server.times, server.chunked = 1000, 2, chunked
    got = prepared(root=tmp_path, source=server.url + "/t.csv", target="label")
    assert sum(got.sizes.values()) == 400
    assert [wanted for _, wanted, _ in server.asked][:3] == [None, "bytes=1000-", "bytes=2000-"]


def test_a_server_that_stays_dead_says_what_is_kept_and_goes_on(server: Server, tmp_path: Path) -> None:
    server.breaks, server.times = 500, 4
    with pytest.raises(DataError, match=rf"after 2000 of {len(table())} bytes; what came is kept, run again .* data\.source"):
        identity(server, tmp_path)
    assert identity(server, tmp_path)
    assert server.asked[-1][1:] == ("bytes=2000-", 206)


def test_a_file_that_changes_midway_is_not_glued_together(server: Server, tmp_path: Path) -> None:
    server.breaks, server.times = 500, 4
    with pytest.raises(DataError, match="the connection ended"):
        identity(server, tmp_path)
    server.files["/t.csv"] = table(500)
    identity(server, tmp_path)
    (copy,) = (tmp_path / "home").rglob("file.csv")
    assert copy.read_bytes() == table(500)
    assert server.asked[-1][1:] == ("bytes=2000-", 200)


def test_without_a_version_nothing_is_glued_either(server: Server, tmp_path: Path) -> None:
    server.validators = False
    server.breaks, server.times = 500, 1
    identity(server, tmp_path)
    assert [wanted for _, wanted, _ in server.asked] == [None, None]


@pytest.mark.parametrize("target", ["file:///etc/passwd", "ftp://127.0.0.1/t.csv"])
def test_a_redirect_out_of_the_web_is_not_followed(server: Server, tmp_path: Path, target: str) -> None:
    server.redirect = target
    with pytest.raises(DataError, match=f"leads to {target}, which is not followed"):
        identity(server, tmp_path)


def test_a_redirect_to_itself_is_not_followed_forever(server: Server, tmp_path: Path) -> None:
    server.redirect = server.url + "/t.csv"
    with pytest.raises(DataError, match="never in a circle"):
        identity(server, tmp_path)
    assert len(server.asked) < 20


def test_a_redirect_within_the_web_is_followed(server: Server, tmp_path: Path) -> None:
    other = Server()
    other.redirect = server.url + "/t.csv"
    thread = threading.Thread(target=other.handle_request)
    thread.start()
    assert identity(other, tmp_path) == identity(server, tmp_path)
    thread.join()
    other.server_close()


@pytest.mark.parametrize(
    ("status", "message", "times"),
    [(404, "answers 404 Not Found; was it moved", 1), (403, "no password is sent", 1), (503, "cannot download .* 503", 4)],
)
def test_what_the_server_says_is_passed_on(server: Server, tmp_path: Path, status: int, message: str, times: int) -> None:
    server.status = status
    with pytest.raises(DataError, match=message):
        identity(server, tmp_path)
    assert len(server.asked) == times


def test_an_error_page_instead_of_the_file(server: Server, tmp_path: Path, prepared: Prepare) -> None:
    page = b"\n<!DOCTYPE html><html><body>Please log in, or buy, or agree</body></html>"
    server.files["/t.csv"] = server.files["/t.parquet"] = page
    for path in ("/t.csv", "/t.parquet"):
        with pytest.raises(DataError, match="answers with a web page, not with a file"):
            identity(server, tmp_path, path)
    (tmp_path / "saved.csv").write_bytes(page)
    with pytest.raises(DataError, match=r"saved\.csv holds a web page"):
        prepared(root=tmp_path, source="saved.csv", target="label")


@pytest.mark.parametrize("chunked", [False, True])
def test_a_file_beyond_the_limit(server: Server, tmp_path: Path, chunked: bool) -> None:
    server.chunked = chunked
    with pytest.raises(DataError, match=r"holds at least .* bytes, and data\.max_download allows 1,000"):
        identity(server, tmp_path, max_download=1000)
    assert not list((tmp_path / "home").rglob("*.part"))


def test_no_network_says_what_to_do(server: Server, tmp_path: Path) -> None:
    first = identity(server, tmp_path)
    server.status = 503
    with pytest.raises(DataError, match=f"or write data.sha256: {hashlib.sha256(table()).hexdigest()} to use the copy of 20") as told:
        identity(server, tmp_path)
    assert "run again" in str(told.value)
    assert identity(server, tmp_path, sha256=hashlib.sha256(table()).hexdigest()) == first
    with pytest.raises(DataError, match=r"cannot download http://127.0.0.1:1/t.csv: .*refused.* give its path as data.source"):
        fingerprint(Data(source="http://127.0.0.1:1/t.csv", target="label"), tmp_path)


def test_a_disk_that_is_full_is_not_the_networks_fault(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import builtins
    import errno

    real = open

    def full(path: Any, mode: str = "r", *args: Any, **more: Any) -> Any:
        if mode in ("wb", "ab") and str(path).endswith(".part"):
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        return real(path, mode, *args, **more)

    monkeypatch.setattr(builtins, "open", full)
    with pytest.raises(StorageError, match="the disk is full"):
        identity(server, tmp_path)
    assert len(server.asked) == 1


def test_a_damaged_copy_is_fetched_again(server: Server, tmp_path: Path) -> None:
    one = identity(server, tmp_path)
    (copy,) = (tmp_path / "home").rglob("file.csv")
    copy.write_bytes(table()[:-1] + b"!")
    assert identity(server, tmp_path) == one
    assert copy.read_bytes() == table()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"source": "t.csv", "sha256": "0" * 64}, "`sha256` is of a file at a web address"),
        ({"source": "http://h/t.csv", "sha256": "xyz"}, "data.sha256: "),
        ({"source": "http://h/t.csv", "max_download": 0}, "data.max_download: expected"),
    ],
)
def test_keys_about_the_web_are_checked_with_the_recipe(data: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        Recipe.of(name="a", task="tabular-classification", data=data, model={"name": "logistic"})


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("https://me:secret@host/t.csv", "a URL with a user or a password is not fetched"),
        ("s3://bucket/t.csv", "data at s3:// is not read; addresses are http://, https://, sqlite:/// and postgresql://"),
        ("file:///etc/t.csv", "data at file:// is not read"),
        ("http:///t.csv", "no usable URL|cannot download"),
        ("http://host:port/t.csv", "no usable URL"),
    ],
)
def test_other_addresses_are_refused(server: Server, tmp_path: Path, source: str, message: str) -> None:
    with pytest.raises(DataError, match=message) as told:
        fingerprint(Data(source=source, target="label"), tmp_path)
    assert "secret" not in str(told.value)


def test_progress_is_told(server: Server, tmp_path: Path) -> None:
    told: list[str] = []

    class Told(Silent):
        def task(self, name: str, total: float | None = None, unit: str = "") -> Any:
            told.append(name)
            return super().task(name, total, unit)

    web.fetch_url(server.url + "/t.csv", ".csv", None, 10**9, Told())
    assert told == ["download t.csv"]

"""A real PostgreSQL: started here where its server is installed, or named by GROUNDUP_TEST_POSTGRESQL (one that may be written to)."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from groundup.data import fingerprint
from groundup.errors import DataError
from groundup.lifecycle.prepare import Data

pytest.importorskip("adbc_driver_postgresql", reason="the postgresql extra is not installed")


def _binaries() -> Path | None:
    """The folder with initdb and pg_ctl: on the path, or where Debian keeps them (the newest version)."""
    found = shutil.which("initdb")
    folders = [Path(found).resolve().parent] if found else []
    folders += sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda p: float(p.parent.name), reverse=True)
    return next((folder for folder in folders if (folder / "initdb").exists() and (folder / "pg_ctl").exists()), None)


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """An empty database, reached over a Unix socket; PostgreSQL refuses to run as root, so another user runs it there."""
    if given := os.environ.get("GROUNDUP_TEST_POSTGRESQL"):
        yield given
        return
    binaries = _binaries()
    if binaries is None:
        pytest.skip("no PostgreSQL server is installed, and GROUNDUP_TEST_POSTGRESQL names none")
    names = {entry.pw_name for entry in pwd.getpwall()}
    user = ("postgres" if "postgres" in names else "nobody") if os.geteuid() == 0 else None
    with tempfile.TemporaryDirectory(prefix="pg", dir="/tmp") as folder:  # a socket's path is short
        data = Path(folder) / "data"
        if user is not None:
            shutil.chown(folder, user)

        def run(program: str, *arguments: str) -> None:
            command = [str(binaries / program), "-D", str(data), *arguments]
            done = subprocess.run(command, user=user, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=60)
            assert done.returncode == 0, done.stdout

        run("initdb", "-U", "groundup", "-A", "trust", "-E", "UTF8", "--locale=C", "-N")
        options = f"-c listen_addresses='' -c unix_socket_directories={folder} -c fsync=off"
        run("pg_ctl", "-w", "-l", f"{folder}/log", "-o", options, "start")
        try:
            yield f"postgresql://groundup@/postgres?host={folder}"
        finally:
            run("pg_ctl", "-w", "-m", "immediate", "stop")


@pytest.fixture(scope="module")
def table(url: str) -> Iterator[str]:
    import adbc_driver_postgresql.dbapi as dbapi

    with dbapi.connect(url, autocommit=True) as con, con.cursor() as cursor:
        cursor.execute("DROP TABLE IF EXISTS groundup_people")
        cursor.execute(
            "CREATE TABLE groundup_people AS SELECT g AS id, (random()*80)::int AS age, (random()*10000)::numeric(10,2) AS income, "
            "date '1990-01-01' + g AS born, timestamptz '2024-01-01 12:00+02' + g * interval '1 hour' AS seen, g % 3 = 0 AS vip, "
            "(array['Graz','Wien',null])[1+g%3] AS city, (array['a','b'])[1+(random()>.5)::int] AS label FROM generate_series(1, 500) g"
        )
        yield "groundup_people"
        cursor.execute("DROP TABLE groundup_people")


def test_every_kind_of_column_comes_across(url: str, table: str, prepared: Any) -> None:
    got = prepared(source=url, table=table, target="label")
    kinds = {f["name"]: (f["kind"], f["nullable"]) for f in got.inputs}
    assert kinds == {
        "age": ("integer", False),
        "income": ("number", False),
        "born": ("datetime", False),
        "seen": ("datetime", False),
        "vip": ("boolean", False),
        "city": ("category", True),
    }
    first = got.frame("train").iloc[0]
    assert str(first["seen"]).endswith(":00:00")
    assert sum(got.sizes.values()) == 500


def test_the_fingerprint_follows_the_result(url: str, table: str, tmp_path: Any, prepared: Any) -> None:
    query = f"SELECT age, income, label FROM {table} ORDER BY id"
    one = fingerprint(Data(source=url, query=query, target="label"), tmp_path)
    assert one == fingerprint(Data(source=url, query=query, target="label"), tmp_path)
    assert one != fingerprint(Data(source=url, query=query + " LIMIT 400", target="label"), tmp_path)
    assert prepared(root=tmp_path, source=url, query=query, target="label").data_hash == one


@pytest.mark.parametrize(("key", "value"), [("table", "no_such_table"), ("query", "SELECT nothing FROM groundup_people")])
def test_what_the_server_refuses_is_said(url: str, table: str, prepared: Any, key: str, value: str) -> None:
    with pytest.raises(DataError, match="does not exist"):
        prepared(source=url, target="label", **{key: value})


def test_a_server_that_is_not_there(prepared: Any) -> None:
    with pytest.raises(DataError, match=r"postgresql://127\.0\.0\.1:1/shop: .*refused") as told:
        prepared(source="postgresql://me:secret@127.0.0.1:1/shop", table="people", target="label")
    assert "secret" not in str(told.value)


def test_without_a_table(prepared: Any) -> None:
    with pytest.raises(DataError, match=r"which table of postgresql://127\.0\.0\.1:1/shop is .* give data\.table or data\.query"):
        prepared(source="postgresql://me:secret@127.0.0.1:1/shop", target="label")

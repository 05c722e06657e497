"""A real PostgreSQL, named by GROUNDUP_TEST_POSTGRESQL (postgresql://user@host:port/database, a database that may be written to)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest

from groundup.data import fingerprint
from groundup.errors import DataError
from groundup.lifecycle.prepare import Data

URL = os.environ.get("GROUNDUP_TEST_POSTGRESQL", "")
pytestmark = pytest.mark.skipif(not URL, reason="GROUNDUP_TEST_POSTGRESQL names no database")


@pytest.fixture(scope="module")
def table() -> Iterator[str]:
    import adbc_driver_postgresql.dbapi as dbapi

    with dbapi.connect(URL, autocommit=True) as con, con.cursor() as cursor:
        cursor.execute("DROP TABLE IF EXISTS groundup_people")
        cursor.execute(
            "CREATE TABLE groundup_people AS SELECT g AS id, (random()*80)::int AS age, (random()*10000)::numeric(10,2) AS income, "
            "date '1990-01-01' + g AS born, timestamptz '2024-01-01 12:00+02' + g * interval '1 hour' AS seen, g % 3 = 0 AS vip, "
            "(array['Graz','Wien',null])[1+g%3] AS city, (array['a','b'])[1+(random()>.5)::int] AS label FROM generate_series(1, 500) g"
        )
        yield "groundup_people"
        cursor.execute("DROP TABLE groundup_people")


def test_every_kind_of_column_comes_across(table: str, prepared: Any) -> None:
    got = prepared(source=URL, table=table, target="label")
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


def test_the_fingerprint_follows_the_result(table: str, tmp_path: Any, prepared: Any) -> None:
    query = f"SELECT age, income, label FROM {table} ORDER BY id"
    one = fingerprint(Data(source=URL, query=query, target="label"), tmp_path)
    assert one == fingerprint(Data(source=URL, query=query, target="label"), tmp_path)
    assert one != fingerprint(Data(source=URL, query=query + " LIMIT 400", target="label"), tmp_path)
    assert prepared(root=tmp_path, source=URL, query=query, target="label").data_hash == one


@pytest.mark.parametrize(("key", "value"), [("table", "no_such_table"), ("query", "SELECT nothing FROM groundup_people")])
def test_what_the_server_refuses_is_said(table: str, prepared: Any, key: str, value: str) -> None:
    with pytest.raises(DataError, match="does not exist"):
        prepared(source=URL, target="label", **{key: value})

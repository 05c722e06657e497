"""What clients send that does not fit: a status and a message that names the place; and the server goes on answering."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from command_line import call, own_table, spawn

RECORD = {"Größe [µm]": 10.5, "количество": 3, "色 'c'": "grün"}


@pytest.fixture(scope="module")
def url(own: Path) -> Iterator[str]:
    process = spawn("serve", own / "build" / "bundle", "--port", "0")
    assert process.stderr is not None
    first = process.stderr.readline()
    try:
        yield json.loads(first)["url"]
    finally:
        process.terminate()
        process.communicate(timeout=20)


def post(url: str, body: Any, path: str = "predict") -> tuple[int, Any]:
    data = body if isinstance(body, bytes) else json.dumps(body, ensure_ascii=False).encode()
    request = urllib.request.Request(url + path, data, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as e:
        with e:
            return e.code, json.loads(e.read())


def predicted(url: str, *records: Any) -> tuple[int, Any]:
    return post(url, list(records))


def test_unicode_goes_in_and_out(url: str) -> None:
    status, answer = predicted(url, RECORD, RECORD | {"色 'c'": "🟡"})
    assert status == 200, answer
    assert "Süß & 辛い" in json.dumps(answer, ensure_ascii=False) or "сладкий" in json.dumps(answer, ensure_ascii=False)


def test_unseen_categories_and_extreme_numbers_are_answered(url: str) -> None:
    for record in (RECORD | {"色 'c'": "nie gesehen"}, RECORD | {"色 'c'": ""}, RECORD | {"Größe [µm]": -1e300}):
        status, answer = predicted(url, record)
        assert status == 200, (record, answer)
        assert "NaN" not in json.dumps(answer)


@pytest.mark.parametrize(
    ("body", "parts"),
    [
        ([{k: v for k, v in RECORD.items() if k != "количество"}], ["количество"]),
        ([RECORD | {"Groesse": 1}], ["Groesse"]),
        ([RECORD | {"Größe [µm]": "viel"}], ["row 0, Größe [µm]: expected a number, got a string"]),
        ([RECORD | {"色 'c'": None}], ["row 0, 色 'c': expected a string, got null; this column must be given"]),
        ([RECORD, RECORD | {"количество": 2.5}], ["количество"]),
        ([RECORD | {"количество": 2**70}], ["количество"]),
        ([RECORD | {"количество": True}], ["количество"]),
        ([RECORD | {"色 'c'": 3}], ["色 'c'"]),
        ([], ["record"]),
        ({"record": RECORD}, ["record"]),
        ("grün", []),
        (None, []),
        ([[1, 2, 3]], []),
        (b'[{"Gr\xc3\xb6\xc3\x9fe [\xc2\xb5m]": NaN}]', ["NaN"]),
        (b'[{"Gr\xc3\xb6\xc3\x9fe [\xc2\xb5m]": 1e999}]', []),
        (b'[{"a": 1, "a": 2}]', ["a"]),
        (b'[{"\xff": 1}]', []),
        (b"{", []),
        (b"", []),
        (b"[" * 100_000, []),
    ],
)
def test_records_that_do_not_fit_are_told_and_the_next_is_answered(url: str, body: Any, parts: list[str]) -> None:
    status, answer = post(url, body)
    text = json.dumps(answer, ensure_ascii=False)
    assert 400 <= status < 500, (status, text)
    assert "Traceback" not in text
    for part in parts:
        assert part in text
    assert predicted(url, RECORD)[0] == 200


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_a_file_that_lacks_a_column_is_refused_and_nothing_is_written(own: Path, tmp_path: Path, ending: str) -> None:
    table = own_table(seed=3).drop(columns=["Art", "количество"])
    path = tmp_path / f"neu.{ending}"
    table.to_csv(path, index=False) if ending == "csv" else table.to_parquet(path)
    said = call("score", own / "build" / "bundle", path, "-o", tmp_path / "answers.csv")
    said.refused(3, "количество", f"neu.{ending}")
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_a_file_with_rows_that_do_not_fit_is_answered_and_they_are_told(own: Path, tmp_path: Path) -> None:
    table = own_table(40, seed=3).drop(columns="Art").astype({"количество": object})
    table.loc[4, "количество"] = "viele"
    table.loc[5, "色 'c'"] = "nie gesehen"
    table.to_csv(tmp_path / "neu.csv", index=False)
    said = call("score", own / "build" / "bundle", tmp_path / "neu.csv", "-o", tmp_path / "Antworten für März.csv")
    assert said.status == 0, said.err
    answers = pd.read_csv(tmp_path / "Antworten für März.csv")
    assert len(answers) == 39
    assert "1 records were refused" in said.out


@pytest.mark.parametrize(("name", "content"), [("absent.csv", None), ("leer.csv", b""), ("kopf.csv", b"a,b\n"), ("x.xlsx", b"PK")])
def test_files_that_cannot_be_scored(own: Path, tmp_path: Path, name: str, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    call("score", own / "build" / "bundle", tmp_path / name, "-o", tmp_path / "answers.csv").refused(3, name)
    assert not (tmp_path / "answers.csv").exists()

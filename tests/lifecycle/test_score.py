"""Scoring a file gives the server's answers, row for row, whatever the format; what does not fit is told; memory stays."""

from __future__ import annotations

import csv
import datetime as dt
import json
import os
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import groundup
from groundup.bundle import Bundle
from groundup.errors import BundleError, DataError, GroundupError
from groundup.lifecycle.score import Scored, score
from groundup.recipe import Recipe
from groundup.serving import records
from groundup.serving.engine import Engine

HEADER = ("id", "age", "visits", "member", "city", "joined", "churned")


def customers(n: int, seed: int = 5) -> list[dict[str, Any]]:
    """Rows with missing numbers, categories and dates; whole numbers and truth values are always known."""
    rng = np.random.default_rng(seed)
    rows = []
    for i in range(n):
        age, visits, city = float(np.round(rng.normal(45, 15), 1)), int(rng.poisson(3)), str(rng.choice(["Bern", "Oslo", "Rome"]))
        joined = dt.date(2020, 1, 1) + dt.timedelta(days=int(rng.integers(0, 2000)))
        rows.append(
            {
                "id": f"k{i}",
                "age": age if rng.random() > 0.1 else None,
                "visits": visits,
                "member": bool(rng.random() < 0.5),
                "city": city if rng.random() > 0.05 else None,
                "joined": joined.isoformat() if rng.random() > 0.05 else None,
                "churned": "yes" if (age - 45) / 10 + 1.5 * (city == "Oslo") - 0.3 * visits + rng.normal() / 2 > 0 else "no",
            }
        )
    return rows


def as_csv(path: Path, rows: list[dict[str, Any]]) -> Path:
    with open(path, "w", newline="", encoding="utf-8") as f:
        writer = csv.writer(f)
        writer.writerow(rows[0])
        for row in rows:
            writer.writerow(["" if v is None else str(v).lower() if isinstance(v, bool) else v for v in row.values()])
    return path


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A classifier of customers, made by the chain itself."""
    root = tmp_path_factory.mktemp("customers")
    as_csv(root / "customers.csv", customers(600))
    recipe = Recipe.of(
        root,
        name="churn",
        task="tabular-classification",
        data={"source": "customers.csv", "target": "churned"},
        model={"class": "sklearn.linear_model:LogisticRegression", "max_iter": 1000},
        compress={"schemes": []},
    )
    made = groundup.run(recipe, until="package").bundle
    assert made is not None
    return made


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A classifier of 8 × 8 grey images."""
    recipe = Recipe.of(
        tmp_path_factory.mktemp("pictures"),
        name="digits",
        task="image-classification",
        data={"source": "digits", "limit": 400},
        model={"class": "sklearn.linear_model:RidgeClassifier"},
        compress={"schemes": []},
    )
    made = groundup.run(recipe, until="package").bundle
    assert made is not None
    return made


def served(bundle: Path, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The answers that the server's own reader and engine give to the rows as JSON."""
    opened = Bundle.open(bundle)
    names = [f.name for f in opened.signature.inputs]
    sent = json.loads(json.dumps([{n: r[n] for n in names} for r in rows]))
    return Engine(opened).run(records.from_records(opened.signature, sent, limit=len(sent)))


def test_every_format_gives_the_servers_answers(bundle: Path, tmp_path: Path) -> None:
    rows = customers(257, seed=9)
    frame = pd.DataFrame(rows)
    as_csv(tmp_path / "c.csv", rows)
    (tmp_path / "c.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    frame.assign(joined=pd.to_datetime(frame["joined"])).to_parquet(tmp_path / "c.parquet")
    with sqlite3.connect(tmp_path / "c.db") as con:
        frame.to_sql("people", con, index=False)
    con.close()
    expected = served(bundle, rows)
    for name in ("c.csv", "c.jsonl", "c.parquet", "c.db"):
        out = tmp_path / f"{name}.out.parquet"
        assert score(bundle, str(tmp_path / name), out) == Scored(257, 0, None), name
        got = pd.read_parquet(out)
        assert list(got.columns) == ["row", "label", "probability_no", "probability_yes"]
        assert got["row"].tolist() == list(range(257))
        assert got["label"].tolist() == expected["label"].tolist(), name
        np.testing.assert_allclose(got[["probability_no", "probability_yes"]], expected["probabilities"], rtol=0, atol=1e-6)


def test_csv_output_says_the_same_as_parquet(bundle: Path, tmp_path: Path) -> None:
    data = str(as_csv(tmp_path / "c.csv", customers(50)))
    score(bundle, data, tmp_path / "a.csv")
    score(bundle, data, tmp_path / "a.parquet")
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "a.csv"), pd.read_parquet(tmp_path / "a.parquet"), check_dtype=False, rtol=1e-6)


def test_what_does_not_fit_is_refused_with_row_column_and_reason(bundle: Path, tmp_path: Path) -> None:
    rows = customers(40)
    rows[3]["age"] = "n.a."  # no text that means missing
    rows[7]["visits"] = "2.5"
    rows[8]["visits"] = None  # never missing in training
    rows[9]["age"] = "inf"
    rows[11]["joined"] = "soon"
    rows[12]["city"] = "Atlantis"  # never seen, and answered
    good = [r for i, r in enumerate(rows) if i not in (3, 7, 8, 9, 11)]
    out = tmp_path / "out.parquet"
    scored = score(bundle, str(as_csv(tmp_path / "c.csv", rows)), out)
    assert scored == Scored(35, 5, tmp_path / "out.refused.csv")
    refused = pd.read_csv(tmp_path / "out.refused.csv")
    assert refused[["row", "column"]].values.tolist() == [[3, "age"], [7, "visits"], [8, "visits"], [9, "age"], [11, "joined"]]
    for reason, words in zip(refused["reason"], ("'n.a.'", "'2.5'", "missing", "infinity", "'soon'"), strict=True):
        assert words in reason
    got = pd.read_parquet(out)
    assert got["row"].tolist() == [i for i in range(40) if i not in (3, 7, 8, 9, 11)]
    assert got["label"].tolist() == served(bundle, good)["label"].tolist()
    # a second, clean file takes the refusals of the first away
    assert score(bundle, str(as_csv(tmp_path / "c.csv", good)), out) == Scored(35, 0, None)
    assert not (tmp_path / "out.refused.csv").exists()


def test_a_line_that_is_no_row_keeps_the_others_row_numbers(bundle: Path, tmp_path: Path) -> None:
    path = as_csv(tmp_path / "c.csv", customers(20))
    lines = path.read_text().splitlines()
    lines[6] = "too,few"
    path.write_text("\n".join(lines) + "\n")
    assert score(bundle, str(path), tmp_path / "o.csv").refused == 1
    assert pd.read_csv(tmp_path / "o.csv")["row"].tolist() == [i for i in range(20) if i != 5]
    assert pd.read_csv(tmp_path / "o.refused.csv")["row"].tolist() == [5]


def test_a_broken_line_of_json_is_refused(bundle: Path, tmp_path: Path) -> None:
    lines = [json.dumps(r) for r in customers(20)]
    lines[4] = '{"age": 3'
    (tmp_path / "c.jsonl").write_text("\n".join(lines) + "\n")
    scored = score(bundle, str(tmp_path / "c.jsonl"), tmp_path / "o.csv")
    assert (scored.rows, scored.refused) == (19, 1)
    assert set(pd.read_csv(tmp_path / "o.refused.csv")["row"]) == {4}


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("gone.csv", None, "no such file"),
        ("empty.csv", b"", "empty"),
        ("few.csv", b"age,visits\n1,2\n", "lacks 'member', 'city', 'joined'"),
        ("all_bad.csv", b"age,visits,member,city,joined\n1,x,true,Bern,\n", "not one record can be answered: 1 × visits"),
        ("x.xlsx", b"PK", "workbooks are not read"),
        ("bad.parquet", b"not parquet at all", "cannot be read"),
    ],
)
def test_a_file_that_cannot_be_answered_leaves_nothing(bundle: Path, tmp_path: Path, name: str, content: bytes | None, words: str) -> None:
    (tmp_path / "in").mkdir()
    if content is not None:
        (tmp_path / "in" / name).write_bytes(content)
    with pytest.raises(DataError, match=words):
        score(bundle, str(tmp_path / "in" / name), tmp_path / "o.csv")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in"]


def test_an_old_output_stays_where_the_new_one_fails(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "o.csv").write_text("old")
    (tmp_path / "c.csv").write_text("age\n1\n")
    with pytest.raises(DataError):
        score(bundle, str(tmp_path / "c.csv"), tmp_path / "o.csv")
    assert (tmp_path / "o.csv").read_text() == "old"


def test_arguments_are_refused_early(bundle: Path, pictures: Path, tmp_path: Path) -> None:
    data = str(as_csv(tmp_path / "c.csv", customers(5)))
    for given, output, error, words in (
        (bundle, tmp_path / "o.json", DataError, r"\.parquet or \.csv"),
        (tmp_path, tmp_path / "o.csv", BundleError, "no bundle"),
        (pictures, tmp_path / "o.csv", DataError, "is a table, and this bundle takes images of 8 × 8 × 1"),
    ):
        with pytest.raises(error, match=words):
            score(given, data, output)
    with pytest.raises(DataError, match="holds images or arrays, and this bundle takes records with the columns 'age'"):
        score(bundle, "digits", tmp_path / "o.csv")
    with pytest.raises(GroundupError, match="--format feather: expected 'csv'"):
        score(bundle, data, tmp_path / "o.csv", format="feather")
    assert not (tmp_path / "o.csv").exists()


def test_a_folder_of_images_needs_no_classes(pictures: Path, tmp_path: Path) -> None:
    from PIL import Image
    from sklearn.datasets import load_digits

    pixels = (load_digits().images[400:420] * 255 / 16).round().astype(np.uint8)
    (tmp_path / "in" / "more").mkdir(parents=True)
    for i, image in enumerate(pixels):
        Image.fromarray(image).save(tmp_path / "in" / ("more" if i % 2 else "") / f"{i:02}.png")
    (tmp_path / "in" / "99.png").write_bytes(b"no picture")
    scored = score(pictures, str(tmp_path / "in"), tmp_path / "o.parquet")
    assert (scored.rows, scored.refused) == (20, 1)
    got = pd.read_parquet(tmp_path / "o.parquet")
    order = [int(Path(name).stem) for name in got["file"]]
    assert sorted(order) == list(range(20))
    answers = Engine(Bundle.open(pictures)).run({"image": pixels[order][..., None]})
    assert got["label"].tolist() == answers["label"].tolist()
    assert pd.read_csv(tmp_path / "o.refused.csv").values.tolist()[0][1] == "99.png"


def test_an_archive_needs_no_labels(pictures: Path, tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (30, 8, 8), np.uint8)
    expected = Engine(Bundle.open(pictures)).run({"image": pixels[..., None]})["label"].tolist()
    np.savez(tmp_path / "whole.npz", x=pixels)
    np.savez(tmp_path / "floats.npz", x=np.concatenate([pixels, pixels[:2] + 0.5, pixels[:1] * 0.0 - 1]))
    for name, refused in (("whole.npz", 0), ("floats.npz", 3)):
        assert score(pictures, str(tmp_path / name), tmp_path / "o.csv").refused == refused
        assert pd.read_csv(tmp_path / "o.csv", dtype={"label": str})["label"].tolist() == expected
    np.savez(tmp_path / "other.npz", x=np.zeros((3, 9, 8), np.uint8))
    with pytest.raises(DataError, match="expected samples of 8 × 8 × 1, got 9 × 8"):
        score(pictures, str(tmp_path / "other.npz"), tmp_path / "o.csv")


CHILD = """
import sys
from pathlib import Path
import duckdb, onnxruntime, pyarrow.parquet
from groundup.lifecycle.score import score

def peak():  # of this program; getrusage's also counts what its parent used before it started this one
    return int(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1]) / 1024

before = peak()
scored = score(Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]))
print(scored.rows, peak() - before)
"""


def grown(bundle: Path, data: Path) -> tuple[int, float]:
    """Rows answered, and MB used beyond the libraries."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    out = subprocess.run(
        [sys.executable, "-c", CHILD, str(bundle), str(data), str(data.with_suffix(".out.parquet"))],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )
    assert out.returncode == 0, out.stderr
    rows, megabytes = out.stdout.split()
    return int(rows), float(megabytes)


@pytest.mark.parametrize(("n", "most"), [(300_000, 350), pytest.param(5_000_000, 650, marks=pytest.mark.slow)])
def test_memory_does_not_grow_with_the_file(bundle: Path, tmp_path: Path, n: int, most: int) -> None:
    """Five million rows of tensors alone are 1 GB; DuckDB may take half of one to read."""
    import duckdb

    query = (
        "SELECT 'k' || range AS id, hash(range) % 900 / 10 AS age, hash(range + 1) % 9 AS visits, hash(range + 2) % 2 = 0 AS member, "
        "['Bern', 'Oslo', 'Rome'][CAST(1 + hash(range + 3) % 3 AS BIGINT)] AS city, "
        "DATE '2020-01-01' + CAST(hash(range + 4) % 2000 AS INTEGER) AS joined "
        f"FROM range({n})"
    )
    with duckdb.connect() as con:
        con.execute(f"COPY ({query}) TO '{tmp_path / 'c.csv'}' (FORMAT csv)")
    rows, megabytes = grown(bundle, tmp_path / "c.csv")
    assert rows == n
    assert megabytes < most

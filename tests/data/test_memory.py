"""Memory does not grow with the table: a process of its own prepares one and says its peak."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

CHILD = """
import sys
from pathlib import Path
import duckdb, onnx, onnxruntime, pandas, pyarrow.parquet, sklearn.tree, sklearn.preprocessing, sklearn.impute
from groundup.lifecycle.prepare import Data, prepare
from groundup.lifecycle.stage import Context

def peak():  # of this program; getrusage's also counts what its parent used before it started this one
    return int(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1]) / 1024

root, table, n, broken = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
before = peak()
(root / "out").mkdir()
(root / "work").mkdir()
section, context = Data(source=table, target="y"), Context(root=root, work=root / "work")
got = prepare(section, task="tabular-classification", out=root / "out", context=context)
assert (sum(got.sizes.values()), got.quarantined) == (n - broken, broken), (got.sizes, got.quarantined)
print(peak() - before)
"""


def grown(folder: Path, query: str, table: str, n: int, *, broken: int = 0) -> float:
    """MB that preparing the n rows of ``query`` took beyond the imported libraries; ``broken`` of them go to quarantine."""
    import duckdb

    folder.mkdir(exist_ok=True)
    form = "FORMAT parquet" if table.endswith(".parquet") else "HEADER"
    with duckdb.connect() as con:
        con.execute(f"SET memory_limit='500MB'; COPY ({query}) TO '{folder / table}' ({form})")
    command = [sys.executable, "-c", CHILD, str(folder), table, str(n), str(broken)]
    out = subprocess.run(command, capture_output=True, text=True, check=False)
    assert out.returncode == 0, out.stderr
    return float(out.stdout)


def numbers(n: int) -> str:
    """18 numbers, a category and a class: n × 160 bytes in memory."""
    columns = ", ".join(f"hash(range + {i}) / 1e19 AS x{i}" for i in range(18))
    return f"SELECT {columns}, 'c' || (hash(range) % 30) AS c, CAST(hash(range + 99) % 2 AS INTEGER) AS y FROM range({n})"


def of_every_kind(n: int) -> str:
    """Numbers (some missing, one in 5,000 a word), integers, categories, dates and a class: n × 53 bytes of text."""
    return f"""SELECT round(hash(range) / 1e19, 6) AS a,
        if(hash(range + 1) % 50 = 0, NULL, round(hash(range + 1) / 1e17, 3)) AS b,
        CAST(hash(range + 2) % 1000 AS INTEGER) AS k,
        'c' || (hash(range + 3) % 30) AS c,
        strftime(TIMESTAMP '2020-01-01' + to_seconds(CAST(hash(range + 4) % 100000000 AS BIGINT)), '%Y-%m-%d %H:%M:%S') AS moment,
        if(range % 5000 = 4321, 'n.a.', CAST(round(hash(range + 5) / 1e18, 4) AS VARCHAR)) AS d,
        CAST(hash(range + 99) % 2 AS INTEGER) AS y FROM range({n})"""


def test_three_hundred_thousand_rows_in_pieces(tmp_path: Path) -> None:
    assert grown(tmp_path, numbers(300_000), "t.parquet", 300_000) < 500


def test_memory_hardly_grows_with_a_csv(tmp_path: Path) -> None:
    """What grows with the rows is a few whole columns, some 160 bytes a row; pieces that are kept add 200 more."""
    small = grown(tmp_path / "small", of_every_kind(200_000), "t.csv", 200_000, broken=40)
    large = grown(tmp_path / "large", of_every_kind(1_000_000), "t.csv", 1_000_000, broken=200)
    assert large - small < 200  # MB, for 800,000 rows


@pytest.mark.slow
def test_ten_million_rows(tmp_path: Path) -> None:
    """1.6 GB of numbers, and 1.9 GB of features, in 1.5 GB of memory: DuckDB's 0.5, a few columns, a few pieces."""
    assert grown(tmp_path, numbers(10_000_000), "t.parquet", 10_000_000) < 1500


@pytest.mark.slow
def test_ten_million_rows_of_a_csv(tmp_path: Path) -> None:
    """0.5 GB of text, read, held to its schema, divided and transformed (1.6 GB of features) in 1.5 GB of memory."""
    assert grown(tmp_path, of_every_kind(10_000_000), "t.csv", 10_000_000, broken=2_000) < 1500

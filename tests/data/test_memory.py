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

root = Path(sys.argv[1])
before = peak()
(root / "out").mkdir()
(root / "work").mkdir()
section, context = Data(source="t.parquet", target="y"), Context(root=root, work=root / "work")
got = prepare(section, task="tabular-classification", out=root / "out", context=context)
assert sum(got.sizes.values()) == int(sys.argv[2]), got.sizes
print(peak() - before)
"""


def grown(folder: Path, n: int) -> float:
    """MB that preparing n rows of 20 columns took beyond the imported libraries; the table itself is n × 160 bytes."""
    import duckdb

    numbers = ", ".join(f"hash(range + {i}) / 1e19 AS x{i}" for i in range(18))
    query = f"SELECT {numbers}, 'c' || (hash(range) % 30) AS c, CAST(hash(range + 99) % 2 AS INTEGER) AS y FROM range({n})"
    with duckdb.connect() as con:
        con.execute(f"SET memory_limit='500MB'; COPY ({query}) TO '{folder / 't.parquet'}' (FORMAT parquet)")
    out = subprocess.run([sys.executable, "-c", CHILD, str(folder), str(n)], capture_output=True, text=True, check=False)
    assert out.returncode == 0, out.stderr
    return float(out.stdout)


def test_three_hundred_thousand_rows_in_pieces(tmp_path: Path) -> None:
    assert grown(tmp_path, 300_000) < 500


@pytest.mark.slow
def test_ten_million_rows(tmp_path: Path) -> None:
    """1.6 GB of numbers, and 1.9 GB of features, in 1.5 GB of memory: DuckDB's 0.5, a few columns, a few pieces."""
    assert grown(tmp_path, 10_000_000) < 1500

"""prepare, beside DuckDB reading the same CSV and scikit-learn's transforms alone.

    python benchmarks/data/bench_prepare.py [--rows 1000000] [--repeat 3] [--only ours]

The table has 20 columns: 12 numbers, 3 integers, 2 numbers with 5 % missing, 2 categories (4 and 40 values) and a target.
"Alone" is what one would write in a notebook: DuckDB to a DataFrame, random split, SimpleImputer + StandardScaler and
OneHotEncoder fitted on the training rows and applied to all.  Each run is a process of its own; ours and theirs take turns;
the medians' ratio is printed with the peak memory of each.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

NUMBERS = [f"n{i}" for i in range(12)] + [f"i{i}" for i in range(3)] + ["m0", "m1"]
CATEGORIES = ["c0", "c1"]


def generate(path: Path, n: int) -> None:
    """Write the table in pieces, in memory that does not grow with ``n``."""
    import pyarrow as pa
    import pyarrow.csv as pc

    rng = np.random.default_rng(0)
    cities = np.array([f"city{i}" for i in range(40)])
    writer = None
    for start in range(0, n, 200_000):
        k = min(200_000, n - start)
        columns: dict[str, object] = {f"n{i}": rng.normal(size=k).round(4) for i in range(12)}
        columns |= {f"i{i}": rng.integers(0, 1000, k) for i in range(3)}
        for name in ("m0", "m1"):
            columns[name] = pa.array(rng.normal(size=k).round(3), mask=rng.random(k) < 0.05)
        columns["c0"] = np.array(["red", "green", "blue", "grey"])[rng.integers(0, 4, k)]
        columns["c1"] = cities[rng.integers(0, 40, k)]
        columns["y"] = (np.asarray(columns["n0"]) + rng.normal(size=k) > 0).astype(int)
        table = pa.table(columns)
        writer = writer or pc.CSVWriter(path, table.schema)
        writer.write_table(table)
    assert writer is not None
    writer.close()


def ours(path: Path) -> None:
    """One preparation of the CSV."""
    from groundup.lifecycle.prepare import Data, prepare
    from groundup.lifecycle.stage import Context

    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        root = Path(folder)
        (root / "out").mkdir()
        (root / "work").mkdir()
        section = Data(source=str(path), target="y")
        prepare(section, task="tabular-classification", out=root / "out", context=Context(root=root, work=root / "work"))


def theirs(path: Path) -> None:
    """DuckDB and scikit-learn alone."""
    import duckdb
    from sklearn.compose import ColumnTransformer
    from sklearn.impute import SimpleImputer
    from sklearn.model_selection import train_test_split
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    frame = duckdb.sql(f"SELECT * FROM read_csv('{path}')").df()
    train, _ = train_test_split(np.arange(len(frame)), test_size=0.3, random_state=0, stratify=frame["y"])
    transform = ColumnTransformer(
        [
            ("numbers", make_pipeline(SimpleImputer(strategy="median"), StandardScaler()), NUMBERS),
            ("categories", OneHotEncoder(handle_unknown="ignore", sparse_output=False), CATEGORIES),
        ]
    )
    transform.fit(frame.iloc[train])
    transform.transform(frame).astype(np.float32)


def measure(what: str, path: Path) -> dict[str, float]:
    """Seconds and peak memory of one run in a new process, imports not counted."""
    out = subprocess.run([sys.executable, __file__, "--child", what, "--path", str(path)], check=True, capture_output=True, text=True)
    return dict(json.loads(out.stdout.splitlines()[-1]))


def child(what: str, path: Path) -> None:
    import duckdb  # noqa: F401 - imported before the clock starts
    import onnx  # noqa: F401
    import onnxruntime  # noqa: F401
    import pandas  # noqa: F401
    import pyarrow.parquet  # noqa: F401
    import sklearn.compose
    import sklearn.tree  # noqa: F401

    before = time.process_time()
    start = time.perf_counter()
    {"ours": ours, "theirs": theirs}[what](path)
    seconds = time.perf_counter() - start
    used = resource.getrusage(resource.RUSAGE_SELF)
    print(json.dumps({"seconds": seconds, "cpu": used.ru_utime + used.ru_stime - before, "peak_mb": used.ru_maxrss / 1024}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--only", choices=["ours", "theirs"])
    parser.add_argument("--child", choices=["ours", "theirs"], help=argparse.SUPPRESS)
    parser.add_argument("--path", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.child:
        return child(asked.child, asked.path)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "table.csv"
        generate(path, asked.rows)
        print(f"{asked.rows:,} rows × 20 columns, {path.stat().st_size / 1e6:.0f} MB of CSV")
        runs: dict[str, list[dict[str, float]]] = {what: [] for what in ("ours", "theirs") if asked.only in (None, what)}
        for _ in range(asked.repeat):
            for what, seen in runs.items():
                seen.append(measure(what, path))
        middle = {what: statistics.median(run["seconds"] for run in seen) for what, seen in runs.items()}
        for what, seen in runs.items():
            times = " ".join(f"{run['seconds']:.2f}" for run in seen)
            cpu = statistics.median(run["cpu"] for run in seen)
            print(
                f"{what:7} {middle[what]:6.2f} s (of {times})   processor {cpu:6.2f} s   peak {max(run['peak_mb'] for run in seen):6.0f} MB"
            )
        if len(middle) == 2:
            print(f"ratio   {middle['ours'] / middle['theirs']:6.2f}   (aim: at most 1.5)")


if __name__ == "__main__":
    main()

"""What monitoring costs, and how often it is wrong, beside two usual ways.    python benchmarks/monitoring/bench.py [--small]

Cost: profiling 1 M rows × 20 columns beside reading them as CSV; drift over 1 M rows × 100 columns; a request at a time.
Alarms: ours beside PSI >= 0.1 on ten quantile bins (the usual rule) and SciPy's two-sample KS at p < 0.05 per column (the usual default),
on 50 columns of unchanged normal traffic, and on one column that has changed.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import platform
import resource
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from groundup.bundle.signature import Field
from groundup.monitoring.drift import Drift, compare, judge
from groundup.monitoring.profile import Profile
from groundup.monitoring.settings import DriftSettings

Array = Any


def seconds(action: Callable[[], Any], repeats: int = 3) -> float:
    """Best of ``repeats``."""
    best = float("inf")
    for _ in range(repeats):
        began = time.perf_counter()
        action()
        best = min(best, time.perf_counter() - began)
    return best


def cost(rows: int) -> list[dict[str, Any]]:
    rng = np.random.default_rng(0)
    out: list[dict[str, Any]] = []
    fields = [Field(f"x{i}", "number") for i in range(20)]
    data = {f.name: rng.normal(size=rows) for f in fields}

    def profile() -> None:
        Profile.start(fields).update(data)

    frozen = Profile.of(fields, data)
    counting = Profile.of(fields, {k: x[:1000] for k, x in data.items()})
    out.append({"what": f"profile, {rows:,} rows × 20 columns", "s": seconds(profile)})
    out.append({"what": "  second pass, exact counts", "s": seconds(lambda: counting.count(data))})
    text = json.dumps(frozen.to_dict())
    out.append({"what": f"  profile.json, {len(text) / 1e3:.0f} kB", "s": seconds(lambda: Profile.from_dict(json.loads(text)))})

    import duckdb
    import pandas as pd

    csv = pd.DataFrame({k: x[: rows // 10] for k, x in data.items()}).to_csv(index=False)
    path = f"/tmp/groundup-bench-{os.getpid()}.csv"
    with open(path, "w") as f:
        f.write(csv)
    try:
        out.append({"what": "  pandas reads the same CSV (10 × a tenth)", "s": 10 * seconds(lambda: pd.read_csv(io.StringIO(csv)), 1)})
        duck = duckdb.connect()
        duck.execute("set threads = 1")
        out.append(
            {
                "what": "  duckdb reads the same CSV (10 × a tenth, 1 thread)",
                "s": 10 * seconds(lambda: duck.execute(f"select * from '{path}'").fetchnumpy(), 2),
            }
        )
    finally:
        os.unlink(path)

    wide = [Field(f"x{i}", "number") for i in range(100)]
    part = {f.name: rng.normal(size=10_000) for f in wide}
    watch = Drift({"inputs": Profile.of(wide, part).to_dict()}, DriftSettings(window=10_000))
    times = rows // 10_000
    out.append(
        {
            "what": f"drift, {rows:,} rows × 100 columns, windows of 10,000",
            "s": seconds(lambda: [watch.update(part) for _ in range(times)], 1),
        }
    )
    for columns in (10, 100):
        some = wide[:columns]
        for n in (1, 32):
            watch = Drift({"inputs": Profile.of(some, part).to_dict()})
            batch = {f.name: rng.normal(size=n) for f in some}
            count = 20_000 // n
            began = time.perf_counter()
            for _ in range(count):
                watch.update(batch)
            took = time.perf_counter() - began
            out.append({"what": f"  a row, {columns} columns, in batches of {n}, tests included", "s": took / count / n})
    out.append({"what": "peak memory of this process, MB", "s": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024})
    return out


def psi_rule(reference: Array, window: Array) -> bool:
    edges = np.quantile(reference, np.arange(1, 10) / 10)
    r, w = (np.bincount(np.searchsorted(edges, x), minlength=10) / len(x) + 1e-6 for x in (reference, window))
    return float(np.sum((w - r) * np.log(w / r))) >= 0.1


def ks_rule(reference: Array, window: Array) -> bool:
    return bool(stats.ks_2samp(reference, window, method="asymp").pvalue < 0.05)


def wrong(n: int, windows: int, m: int = 5000, columns: int = 50) -> dict[str, float]:
    """Share of unchanged windows in which some of 50 columns is reported."""
    found = dict.fromkeys(("shifted", "alarm", "psi", "ks"), 0)
    settings, references = DriftSettings(), 10
    for seed in range(references):
        rng = np.random.default_rng([seed, n])
        training = {f"x{i}": rng.normal(size=m) for i in range(columns)}
        bins = Profile.of([Field(k, "number") for k in training], training).bins
        assert bins is not None
        for _ in range(windows // references):
            live = {k: rng.normal(size=n) for k in training}
            states = {s.state for s in judge({k: compare(bins[k], bins[k].count(x)) for k, x in live.items()}, settings).values()}
            found["shifted"] += states != {"same"}
            found["alarm"] += "drifted" in states
            found["psi"] += any(psi_rule(training[k], x) for k, x in live.items())
            found["ks"] += any(ks_rule(training[k], x) for k, x in live.items())
    return {k: v / (windows // references * references) for k, v in found.items()}


def right(change: Callable[[np.random.Generator, Array], Array], n: int, trials: int, m: int = 5000, columns: int = 50) -> dict[str, float]:
    """Share of windows in which the one changed column of 50 is reported."""
    found = dict.fromkeys(("shifted", "alarm", "psi", "ks"), 0)
    settings = DriftSettings()
    rng = np.random.default_rng(n)
    for _ in range(trials):
        training = {f"x{i}": rng.normal(size=m) for i in range(columns)}
        live = {k: rng.normal(size=n) for k in training}
        live["x0"] = change(rng, live["x0"])
        bins = Profile.of([Field(k, "number", nullable=True) for k in training], training).bins
        assert bins is not None
        state = judge({k: compare(bins[k], bins[k].count(x)) for k, x in live.items()}, settings)["x0"].state
        known = live["x0"][~np.isnan(live["x0"])]  # the usual rules do not see what is missing
        found["shifted"] += state != "same"
        found["alarm"] += state == "drifted"
        found["psi"] += psi_rule(training["x0"], known)
        found["ks"] += ks_rule(training["x0"], known)
    return {k: v / trials for k, v in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--small", action="store_true", help="a tenth of the rows and windows")
    parser.add_argument("--json", help="also write the results here")
    given = parser.parse_args()
    scale = 10 if given.small else 1
    cpu = next((x.split(":")[1].strip() for x in Path("/proc/cpuinfo").read_text().splitlines() if x.startswith("model name")), "?")
    machine = f"{cpu}, {os.cpu_count()} cores, Python {platform.python_version()}, NumPy {np.__version__}, load {os.getloadavg()[0]:.1f}"
    print(f"{datetime.now(UTC):%Y-%m-%d}, {machine}\n")
    costs = cost(1_000_000 // scale)
    for row in costs:
        value = f"{row['s']:.0f}" if "MB" in row["what"] else f"{row['s']:.3f} s" if row["s"] >= 1e-3 else f"{row['s'] * 1e6:.1f} µs"
        print(f"{row['what']:<64}{value:>12}")

    print(f"\n{'share of windows reported, 50 columns':<44}{'shifted':>9}{'alarm':>9}{'PSI ≥ 0.1':>11}{'KS p < 0.05':>13}")
    table = []
    for n in (50, 200, 1000):
        table.append({"what": f"unchanged, {n} rows (should be ≤ 0.01)", **wrong(n, 1000 // scale)})
    changes: dict[str, tuple[int, Callable[[np.random.Generator, Array], Array]]] = {
        "mean + 0.25 σ, 2,000 rows": (2000, lambda r, x: x + 0.25),
        "mean + 0.5 σ, 1,000 rows": (1000, lambda r, x: x + 0.5),
        "mean + 1 σ, 200 rows": (200, lambda r, x: x + 1),
        "spread × 1.5, 1,000 rows": (1000, lambda r, x: 1.5 * x),
        "20 % missing, 1,000 rows": (1000, lambda r, x: np.where(r.random(len(x)) < 0.2, np.nan, x)),
    }
    table += [{"what": name, **right(change, n, 200 // scale)} for name, (n, change) in changes.items()]
    for row in table:
        print(f"{row['what']:<44}{row['shifted']:>9.3f}{row['alarm']:>9.3f}{row['psi']:>11.3f}{row['ks']:>13.3f}")
    if given.json:
        with open(given.json, "w") as f:
            json.dump({"cost": costs, "alarms": table}, f, indent=2)


if __name__ == "__main__":
    main()

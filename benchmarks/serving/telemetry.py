"""What watching costs: requests a second with metrics, drift and the log of predictions on and off, in turns.

    python benchmarks/serving/telemetry.py [--seconds 5] [--rounds 7]

One small model, 32 connections, the server on one core and wrk on the other.  Each row adds to the row above it.  The tax
is in the server's processor time a request, which a busy neighbour does not change as it changes requests a second: the
median over the rounds of the ratio to the row without anything, within a round.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import psutil
from client import measure, tool
from peers import Groundup

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "serving"))

import bundles  # noqa: E402 - the tests' own, from the path above
from live_server import started  # noqa: E402

# The server counts and times always; this one does not.
SILENT = """
import sys
from groundup.serving.metrics import Metrics
Metrics.answered = Metrics.waited = Metrics.ran = lambda *_: None
from groundup.serving.__main__ import main
sys.exit(main(sys.argv[1:]))
"""
PLAIN = ("-m", "groundup.serving")
ROWS = {
    "nothing": ("plain", ("-c", SILENT)),
    "+ metrics": ("plain", PLAIN),
    "+ drift, 34 columns": ("watched", PLAIN),
    "+ prediction log": ("logged", PLAIN),
    "+ a log line for every request": ("logged, lines", PLAIN),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=5, help="of load at a time")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--connections", type=int, default=32)
    given = parser.parse_args(arguments)
    cores = sorted(os.sched_getaffinity(0))
    found: dict[str, list[dict[str, float]]] = {name: [] for name in ROWS}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        log = {"log": {"path": str(folder / "log"), "rotate_s": 5, "keep": 10}}
        made = {
            "plain": bundles.mlp(folder / "plain"),
            "watched": bundles.watched(folder / "watched"),
            "logged": bundles.watched(folder / "logged", monitor=log),
            "logged, lines": bundles.watched(folder / "lines", monitor=log, serve={"access_log": 1.0}),
        }
        for round_ in range(given.rounds):
            for row in sorted(ROWS, key=lambda row: (list(ROWS).index(row) + round_) % len(ROWS)):
                bundle, program = ROWS[row]
                with started(made[bundle].path, folder, program=program) as server:
                    psutil.Process(server.process.pid).cpu_affinity(cores[:1])
                    for thread in psutil.Process(server.process.pid).threads():
                        os.sched_setaffinity(thread.id, set(cores[:1]))
                    peer = Groundup(made[bundle], folder, server.port)
                    measure(peer, given.connections, 1, set(cores[1:] or cores))
                    before = cpu_seconds(server.process.pid)
                    seen = measure(peer, given.connections, given.seconds, set(cores[1:] or cores))
                    seen["cpu_us"] = (cpu_seconds(server.process.pid) - before) / seen["requests"] * 1e6
                    unwatched = server.metric("groundup_monitor_dropped_batches_total")
                    found[row].append(seen | {"unwatched": unwatched})
    print(f"{tool()}; {given.connections} connections, {given.rounds} rounds of {given.seconds:g} s")
    print(f"{'':<34}{'CPU µs a request':>18}{'tax':>7}{'requests/s':>12}{'p50 ms':>9}{'p99 ms':>9}{'errors':>8}{'batches not watched':>21}")
    for row, rounds in found.items():
        tax = statistics.median(r["cpu_us"] / none["cpu_us"] for r, none in zip(rounds, found["nothing"], strict=True)) - 1
        cpu, rps, p50, p99 = (statistics.median(r[key] for r in rounds) for key in ("cpu_us", "rps", "p50_ms", "p99_ms"))
        errors, unwatched = (sum(r[key] for r in rounds) for key in ("errors", "unwatched"))
        print(f"{row:<34}{cpu:>18.1f}{tax:>7.0%}{rps:>12,.0f}{p50:>9.2f}{p99:>9.2f}{errors:>8.0f}{unwatched:>21.0f}")
    return 0


def cpu_seconds(pid: int) -> float:
    """Processor time of the process so far."""
    times = psutil.Process(pid).cpu_times()
    return times.user + times.system


if __name__ == "__main__":
    sys.exit(main())

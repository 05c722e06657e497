"""groundup's server beside others on the same ONNX graph, one after the other on one machine, in turns.

    python benchmarks/serving/bench.py                        # groundup, FastAPI + ONNX Runtime, mlflow models serve
    python benchmarks/serving/bench.py --install litserve mlserver   # those as well, in environments of their own
    python benchmarks/serving/bench.py --size                 # also the size of a serve-only installation

Every server gets the same cores, the client the others; each peer is started anew in every round and the order turns,
so that a slow minute of the machine does not fall on one of them.  The table shows medians over the rounds.  The load
comes from wrk where it is installed, else from a client of our own (which is slower and says so).
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
from client import measure, tool
from peers import ALL, Peer

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "serving"))

import bundles  # noqa: E402 - the tests' own, from the path above

from groundup.bundle import Bundle, cpu  # noqa: E402
from groundup.serving.engine import Engine  # noqa: E402

MODELS = {"tiny": (32, 64, 3), "mid": (64, 1024, 1024, 1024, 10), "large": (64, 3072, 3072, 3072, 10)}
CONNECTIONS = (1, 32, 128)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print the table, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", nargs="*", default=["groundup", "fastapi", "mlflow"], choices=sorted(ALL), help="who takes part")
    parser.add_argument(
        "--install", nargs="*", default=[], choices=["litserve", "mlserver"], help="make an environment for these and add them"
    )
    parser.add_argument("--models", nargs="*", default=["tiny"], choices=sorted(MODELS))
    parser.add_argument("--seconds", type=float, default=4, help="of load at each number of connections")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--cores", type=int, default=1, help="for the server; the client gets the rest (0: no pinning)")
    parser.add_argument("--size", action="store_true", help="measure a serve-only installation too (makes an environment)")
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks" / "results")
    given = parser.parse_args(arguments)

    names = list(dict.fromkeys(["groundup", *given.peers, *given.install]))
    results: dict[str, Any] = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine(),
        "client": tool(),
        "models": {},
    }
    results["settings"] = {"seconds": given.seconds, "rounds": given.rounds, "server_cores": given.cores}
    with tempfile.TemporaryDirectory() as folder:
        for model in given.models:
            bundle = bundles.mlp(Path(folder) / model, MODELS[model])
            results["models"][model] = compare([ALL[n] for n in names], bundle, given)
            print(table(model, results["models"][model]), flush=True)
        if given.size:
            results["serve_only_install_mib"] = install_size(Path(folder))
            print(f"serve-only installation: {results['serve_only_install_mib']:.0f} MiB")
    given.output.mkdir(parents=True, exist_ok=True)
    path = given.output / f"serving-{datetime.now(UTC):%Y%m%d-%H%M%S}.json"
    path.write_text(json.dumps(results, indent=2) + "\n")
    print(f"written to {path.name}")
    return 0


def compare(peers: list[type[Peer]], bundle: Bundle, given: argparse.Namespace) -> dict[str, Any]:
    """{peer: medians over the rounds}, and what ONNX Runtime alone takes."""
    rows: dict[str, list[dict[str, float]]] = {}
    skipped: dict[str, str] = {}
    for round_ in range(given.rounds):
        for i in range(len(peers)):
            peer_class = peers[(i + round_) % len(peers)]
            if peer_class.name in skipped:
                continue
            try:
                rows.setdefault(peer_class.name, []).append(once(peer_class, bundle, given))
            except (RuntimeError, subprocess.SubprocessError, OSError) as e:
                skipped[peer_class.name] = str(e).strip().splitlines()[-1][:200] if str(e).strip() else type(e).__name__
                print(f"skipped {peer_class.name}: {skipped[peer_class.name]}", flush=True)
    medians = {name: {k: statistics.median(r[k] for r in runs) for k in runs[0]} for name, runs in rows.items() if runs}
    return {"peers": medians, "skipped": skipped, "ort_direct_ms": direct(bundle)}


def once(peer_class: type[Peer], bundle: Bundle, given: argparse.Namespace) -> dict[str, float]:
    """Start, first answer, load, memory, stop."""
    cores = sorted(os.sched_getaffinity(0))
    servers = set(cores[: given.cores]) if 0 < given.cores < len(cores) else set(cores)
    clients = set(cores[given.cores :]) if 0 < given.cores < len(cores) else set(cores)
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    with tempfile.TemporaryDirectory() as work:
        peer = peer_class(bundle, Path(work), port, install=peer_class.name in given.install)
        command, environment = peer.command(), {**os.environ, "OMP_NUM_THREADS": "1", **peer.environment()}
        with open(Path(work) / "log", "wb") as log:
            began = time.perf_counter()
            process = subprocess.Popen(
                command,
                stdout=log,
                stderr=log,
                env=environment,
                cwd=work,
                preexec_fn=lambda: os.sched_setaffinity(0, servers),
                start_new_session=True,
            )
        try:
            while not peer.answers():
                if process.poll() is not None or time.perf_counter() - began > 90:
                    raise RuntimeError(f"{peer.name} did not start: {(Path(work) / 'log').read_text(errors='replace')[-400:]}")
                time.sleep(0.005)
            row = {"start_s": time.perf_counter() - began}
            peer.check()
            for connections in CONNECTIONS:
                measure(peer, connections, min(1.0, given.seconds), clients)  # warm-up
                for key, value in measure(peer, connections, given.seconds, clients).items():
                    row[f"c{connections}_{key}"] = value
            row["rss_mib"] = memory(process.pid)
            return row
        finally:
            end(process)


def direct(bundle: Bundle) -> dict[str, float]:
    """Median milliseconds of ONNX Runtime called directly, 1 and 32 rows."""
    import numpy as np

    engine = Engine(bundle)
    width = bundle.signature.inputs[0].shape[0]
    found = {}
    for rows in (1, 32):
        x = {"x": np.zeros((rows, width), np.float32)}
        times = []
        for _ in range(2000):
            began = time.perf_counter()
            engine.run(x)
            times.append(time.perf_counter() - began)
        found[str(rows)] = statistics.median(times) * 1e3
    return found


def table(model: str, result: dict[str, Any]) -> str:
    """Markdown; the ratio is requests a second at 32 connections, groundup's over the peer's."""
    alone = result["ort_direct_ms"]
    lines = [
        f"\n{model} model; ONNX Runtime alone {alone['1']:.3f} ms a row, {alone['32']:.3f} ms for 32",
        "| server | first answer s | RSS MiB | p50 / p99 ms, 1 conn. | req/s, p99 ms, 32 conn. | req/s, p99 ms, 128 conn. | errors "
        "| groundup × |",
        "|---|---|---|---|---|---|---|---|",
    ]
    ours = result["peers"].get("groundup", {}).get("c32_rps", float("nan"))
    for name, r in result["peers"].items():
        cells = [
            name,
            f"{r['start_s']:.2f}",
            f"{r['rss_mib']:.0f}",
            f"{r['c1_p50_ms']:.2f} / {r['c1_p99_ms']:.2f}",
            *(f"{r[f'c{c}_rps']:,.0f}, {r[f'c{c}_p99_ms']:.1f}" for c in (32, 128)),
            f"{sum(r[f'c{c}_errors'] for c in CONNECTIONS):.0f}",
            f"{ours / r['c32_rps']:.1f}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    lines += [f"skipped {name}: {reason}" for name, reason in result["skipped"].items()]
    return "\n".join(lines)


def machine() -> dict[str, Any]:
    """What was measured on."""
    import onnxruntime

    return {
        "cpu": cpu.description(),
        "cores": os.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "python": platform.python_version(),
        "onnxruntime": onnxruntime.__version__,
        "load_before": os.getloadavg()[0],
    }


def memory(pid: int) -> float:
    """MiB resident, of the process and its children."""
    process = psutil.Process(pid)
    return sum(p.memory_info().rss for p in [process, *process.children(recursive=True)]) / 2**20


def end(process: subprocess.Popen[bytes]) -> None:
    """Stop a server and what it started."""
    try:
        family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
    except psutil.NoSuchProcess:
        family = []
    for p in family:
        if p.is_running():
            p.terminate()
    for p in psutil.wait_procs(family, timeout=5)[1]:
        p.kill()
    process.wait(10)


def install_size(folder: Path) -> float:
    """MiB of a fresh environment with groundup's core dependencies alone."""
    environment = folder / "serve-only"
    uv = shutil.which("uv") or str(Path(sys.executable).with_name("uv"))
    subprocess.run([uv, "venv", "--python", sys.executable, str(environment)], check=True, capture_output=True)
    subprocess.run(
        [uv, "pip", "install", "--link-mode", "copy", "--python", str(environment / "bin" / "python"), str(ROOT)],
        check=True,
        capture_output=True,
    )
    return sum(f.stat().st_size for f in environment.rglob("*") if f.is_file() and not f.is_symlink()) / 2**20


if __name__ == "__main__":
    sys.exit(main())

"""How long a person waits: help, imports, a run that is all cached, a server's first answer; and what a server holds in memory.

    python benchmarks/cli/bench.py [--repeat 9]

Whole processes, median of ``--repeat``; files are in the page cache, as they are on the second call of anything.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

ROOT = Path(__file__).parents[2]
GROUNDUP = [sys.executable, "-m", "groundup"]


def timed(command: list[str], repeat: int, cwd: Path | None = None) -> list[float]:
    """Seconds of each call, after one that is not counted."""
    found = []
    for _ in range(repeat + 1):
        began = time.perf_counter()
        subprocess.run(command, cwd=cwd, capture_output=True, check=True)
        found.append(time.perf_counter() - began)
    return found[1:]


def first_answer(bundle: Path) -> tuple[float, float]:
    """(seconds from the start of the process to the first answer, MB of resident memory then) of ``groundup serve``."""
    began = time.perf_counter()
    server = subprocess.Popen([*GROUNDUP, "serve", str(bundle), "--port", "0"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert server.stdout is not None
    try:
        url = next(json.loads(line)["url"] for line in server.stdout if '"ready"' in line)
        body = json.dumps({"image": [[[0]] * 8] * 8}).encode()
        request = urllib.request.Request(f"{url.rstrip('/')}/predict", body, {"content-type": "application/json"})
        assert urllib.request.urlopen(request, timeout=10).status == 200
        seconds = time.perf_counter() - began
        status = Path(f"/proc/{server.pid}/status").read_text()
        return seconds, int(status.split("VmRSS:")[1].split()[0]) / 1000
    finally:
        server.terminate()
        server.stdout.read()
        server.wait(30)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--repeat", type=int, default=9)
    repeat = options.parse_args().repeat
    with tempfile.TemporaryDirectory() as folder:
        digits = Path(folder) / "digits"
        digits.mkdir()
        shutil.copy(ROOT / "examples" / "digits" / "recipe.yaml", digits)
        began = time.perf_counter()
        subprocess.run([*GROUNDUP, "run", str(digits)], capture_output=True, check=True)
        whole = time.perf_counter() - began
        rows = [
            ("groundup --help", timed([*GROUNDUP, "--help"], repeat), 0.3),
            ("python -c 'import groundup'", timed([sys.executable, "-c", "import groundup"], repeat), None),
            ("groundup run, every stage cached", timed([*GROUNDUP, "run", str(digits)], repeat), 5.0),
        ]
        served = [first_answer(digits / "build" / "bundle") for _ in range(repeat + 1)][1:]
    line("what", "median", "min", "max", "at most")
    line("groundup run examples/digits, nothing cached", f"{whole:.1f} s", "", "", "180 s")
    for what, found, limit in [*rows, ("groundup serve, start to first answer", [s for s, _ in served], 1.5)]:
        line(what, *(f"{value:.2f} s" for value in (statistics.median(found), min(found), max(found))), f"{limit:g} s" if limit else "")
    memory = [m for _, m in served]
    line(
        "resident memory of that server", *(f"{value:.0f} MB" for value in (statistics.median(memory), min(memory), max(memory))), "250 MB"
    )


def line(what: str, *figures: str) -> None:
    """One row of the table."""
    print(f"{what:<46}" + "".join(f"{figure:>10}" for figure in figures))


if __name__ == "__main__":
    main()

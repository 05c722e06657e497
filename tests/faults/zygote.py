"""A process that has imported everything and forks one ``groundup`` command at a time: killing hundreds costs no imports.

``python zygote.py``; each line of its input is JSON: {"run": [ARGUMENT...], "log": PATH} is answered with the process id,
{"wait": PID} with the exit status (negative: the signal).  A forked child runs the same ``main`` as the command line.
"""

from __future__ import annotations

import json
import os
import signal
import sys


def warm() -> None:
    """Import what a run imports."""
    import duckdb
    import matplotlib.figure
    import mlflow
    import mlflow.store.tracking.sqlalchemy_store
    import onnx
    import onnxruntime.quantization
    import onnxscript
    import optuna
    import pandas
    import pandera.pandas
    import pyarrow.parquet
    import skl2onnx
    import sklearn.linear_model
    import torch.export
    import torch.onnx

    import groundup.lifecycle.run
    import groundup.models.export
    import groundup.training.networks

    modules = (duckdb, matplotlib, mlflow, onnx, onnxruntime, onnxscript, optuna, pandas, pandera, pyarrow, skl2onnx, sklearn, torch)
    assert all(modules)
    assert groundup.lifecycle.run.caching.code_hash()  # one identity for all, whatever is edited meanwhile


def child(arguments: list[str], log: str) -> None:
    """Become the command; never returns."""
    fd = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(fd, 1)
    os.dup2(fd, 2)
    sys.argv = ["groundup", *arguments]
    status = 1
    try:
        from groundup import cli

        cli.main()
        status = 0
    except SystemExit as e:
        status = e.code if isinstance(e.code, int) else 0
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def main() -> None:
    warm()
    answer = os.fdopen(os.dup(1), "w")
    answer.write("ready\n")
    answer.flush()
    running: set[int] = set()
    for line in sys.stdin:
        asked = json.loads(line)
        if "run" in asked:
            pid = os.fork()
            if pid == 0:
                child(asked["run"], asked["log"])
            running.add(pid)
            answer.write(f"{pid}\n")
        else:
            _, status = os.waitpid(asked["wait"], 0)
            running.discard(asked["wait"])
            answer.write(f"{os.waitstatus_to_exitcode(status)}\n")
        answer.flush()
    for pid in running:  # of a test that failed
        os.kill(pid, signal.SIGKILL)


if __name__ == "__main__":
    main()

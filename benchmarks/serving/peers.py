"""How each server is started on the same graph, and how it is asked.

Peers run with the settings that their documentation recommends for one process: batches of up to 32 within 2 ms where
they batch, access logs off where that can be said.  LitServe and MLServer pin libraries that conflict with ours, so
each gets an environment of its own below ``.venv-bench/``.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import urllib.error
import urllib.request
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from groundup.bundle import Bundle
from groundup.serving.engine import Engine

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENTS = ROOT / ".venv-bench"
_SOURCES = Path(__file__).parent / "apps"


class Peer(ABC):
    """One server on one bundle.

    Args:
        work: a folder of its own, thrown away afterwards.
        install: make its environment where it is missing.
    """

    name: ClassVar[str]
    path: str = "/predict"
    packages: ClassVar[tuple[str, ...]] = ()

    def __init__(self, bundle: Bundle, work: Path, port: int, install: bool = False) -> None:
        self.bundle, self.work, self.port, self.install = bundle, work, port, install
        self.x = np.random.default_rng(0).normal(size=(1, *bundle.signature.inputs[0].shape)).round(4).astype(np.float32)
        self.graph = bundle.path / bundle.graph

    @abstractmethod
    def command(self) -> list[str]:
        """What starts it."""

    def environment(self) -> dict[str, str]:
        """Further variables of its environment."""
        return {"GRAPH": str(self.graph), "PORT": str(self.port)}

    def body(self) -> bytes:
        """A request of one row."""
        return self._v2()

    def probabilities(self, answer: Any) -> Any:
        """The probabilities in its answer."""
        return next(o["data"] for o in answer["outputs"] if o["name"] == "probabilities")

    def ask(self) -> Any:
        """One request; its answer."""
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{self.path}", self.body(), {"content-type": "application/json"})
        with urllib.request.urlopen(request, timeout=5) as reply:
            return json.load(reply)

    def answers(self) -> bool:
        """Whether it answers by now."""
        try:
            self.ask()
        except (urllib.error.URLError, ConnectionError, TimeoutError, json.JSONDecodeError):
            return False
        return True

    def check(self) -> None:
        """Its answer is the graph's: a comparison of servers that compute different things says nothing.

        Raises:
            RuntimeError: it is not.
        """
        want = Engine(self.bundle).run({"x": self.x})["probabilities"].ravel()
        got = np.ravel(self.probabilities(self.ask()))
        if got.shape != want.shape or not np.allclose(got, want, atol=1e-5):
            raise RuntimeError(f"{self.name} answers {got[:3]}, the graph {want[:3]}")

    def python(self) -> str:
        """The interpreter of its environment.

        Raises:
            RuntimeError: there is none, and it is not to be made or cannot be.
        """
        folder = ENVIRONMENTS / self.name
        if not (folder / "done").exists():
            if not self.install:
                raise RuntimeError(f"not installed; say --install {self.name}")
            uv = shutil.which("uv") or str(Path(sys.executable).with_name("uv"))
            shutil.rmtree(folder, ignore_errors=True)
            for command in (
                [uv, "venv", "--python", sys.executable, str(folder)],
                [uv, "pip", "install", "--python", str(folder / "bin" / "python"), *self.packages],
            ):
                done = subprocess.run(command, capture_output=True, text=True)
                if done.returncode:
                    raise RuntimeError(f"cannot be installed: {done.stderr.strip()[-300:]}")
            (folder / "done").touch()
        return str(folder / "bin" / "python")

    def _v2(self) -> bytes:
        values = [round(float(v), 4) for v in self.x.ravel()]
        return json.dumps({"inputs": [{"name": "x", "shape": list(self.x.shape), "datatype": "FP32", "data": values}]}).encode()


class Groundup(Peer):
    """python -m groundup.serving, Open Inference Protocol."""

    name = "groundup"

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.path = f"/v2/models/{self.bundle.name}/infer"

    def command(self) -> list[str]:
        return [sys.executable, "-m", "groundup.serving", str(self.bundle.path), "--port", str(self.port)]


class Unbatched(Groundup):
    """groundup with every row run alone: what micro-batching is worth."""

    name = "unbatched"

    def command(self) -> list[str]:
        program = (
            "from groundup.serving import server; from groundup.serving.settings import Batch, Serve; "
            f"server.run({str(self.bundle.path)!r}, Serve(batch=Batch(max_size=1)), port={self.port})"
        )
        return [sys.executable, "-c", program]


class FastApi(Peer):
    """FastAPI and ONNX Runtime as one writes it in ten lines: no batching, no limits, no metrics."""

    name = "fastapi"

    def command(self) -> list[str]:
        return [sys.executable, str(_SOURCES / "fastapi_app.py")]


class MLflow(Peer):
    """mlflow models serve on the onnx flavour."""

    name = "mlflow"
    path = "/invocations"

    def command(self) -> list[str]:
        import mlflow.onnx
        import onnx

        mlflow.onnx.save_model(onnx.load(self.graph), str(self.work / "model"))
        arguments = [
            "models",
            "serve",
            "-m",
            str(self.work / "model"),
            "-p",
            str(self.port),
            "-h",
            "127.0.0.1",
            "-w",
            "1",
            "--env-manager",
            "local",
        ]
        return [sys.executable, "-m", "mlflow", *arguments]

    def environment(self) -> dict[str, str]:
        return {"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin"}

    def body(self) -> bytes:
        return json.dumps({"inputs": {"x": [[round(float(v), 4) for v in self.x.ravel()]]}}).encode()

    def probabilities(self, answer: Any) -> Any:
        given = answer["predictions"]
        return given["probabilities"] if isinstance(given, dict) else [p["probabilities"] for p in given]


class LitServe(Peer):
    """LitServe, one worker, batches of up to 32 within 2 ms."""

    name = "litserve"
    packages = ("litserve", "onnxruntime", "numpy")

    def command(self) -> list[str]:
        return [self.python(), str(_SOURCES / "litserve_app.py")]


class MLServer(Peer):
    """MLServer, in one process, adaptive batching of up to 32 within 2 ms."""

    name = "mlserver"
    path = "/v2/models/toy/infer"
    packages = ("mlserver", "onnxruntime", "numpy")

    def command(self) -> list[str]:
        settings = {
            "http_port": self.port,
            "grpc_port": self.port + 1,
            "metrics_port": self.port + 2,
            "host": "127.0.0.1",
            "parallel_workers": 0,
            "debug": False,
        }
        model = {"name": "toy", "implementation": "mlserver_app.OnnxModel", "max_batch_size": 32, "max_batch_time": 0.002}
        (self.work / "settings.json").write_text(json.dumps(settings))
        (self.work / "model-settings.json").write_text(json.dumps(model))
        shutil.copy(_SOURCES / "mlserver_app.py", self.work)
        return [str(Path(self.python()).with_name("mlserver")), "start", str(self.work)]

    def environment(self) -> dict[str, str]:
        return super().environment() | {"PYTHONPATH": str(self.work)}


ALL: dict[str, type[Peer]] = {p.name: p for p in (Groundup, Unbatched, FastApi, MLflow, LitServe, MLServer)}

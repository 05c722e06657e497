"""The play: acts in order, each adding measurements and proofs.  An act whose proof does not hold ends it."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from groundup.bundle import Bundle, Proof
from groundup.bundle.manifest import copied
from groundup.errors import ProofError
from groundup.rehearsal import drift, load, wire
from groundup.rehearsal.faults import drain, kill_and_return
from groundup.rehearsal.replay import replay
from groundup.rehearsal.server import HOST, Server
from groundup.rehearsal.shifts import applicable
from groundup.serving.engine import Engine
from groundup.serving.settings import Serve

if TYPE_CHECKING:
    from groundup.lifecycle.prepare import Prepared
    from groundup.lifecycle.stage import Context
    from groundup.rehearsal.settings import Rehearse

_POOL = 5000  # rows of each split that drift is rehearsed with
_SHOWN = 512  # rows replayed after the restart, and sent over and over as load


class Play:
    """One rehearsal.

    Attributes:
        measured: fields of the stage's output.
    """

    def __init__(self, section: Rehearse, bundle: Bundle, prepared: Prepared, context: Context, out: Path) -> None:
        self.section, self.bundle, self.prepared, self.context, self.out = section, bundle, prepared, context, out
        self.engine, self.inputs = Engine(bundle), _first(prepared.raw("test"), section.replay_rows)
        self.measured: dict[str, Any] = {}
        self.proofs: list[Proof] = []
        self.notes: list[str] = []

    def run(self) -> None:
        acts = (self._replay, self._load, self._kill, self._drift_offline, self._drift_live, self._drain)
        with self.context.progress.task("rehearsal", len(acts) + 1, "acts") as task:
            self.staged = self._staged()
            with Server(self.staged.path, log=self.out / "server.log", timeout=self.section.start_timeout_s) as server:
                self._started(server)
                task.advance(ready_s=round(server.ready_seconds, 2))
                for act in acts:
                    self.context.check()
                    act(server)
                    task.advance(proofs=len(self.proofs))
                port = server.port
        self._prove([_nothing_left(self.bundle, port)])

    def _staged(self) -> Bundle:
        """The bundle to serve: the packaged one, unless its drift window is larger than the rows that are held out, or it would
        write the rehearsal's requests into the user's prediction log."""
        monitor = {key: dict(value) if isinstance(value, Mapping) else value for key, value in self.bundle.monitor.items()}
        if monitor.get("log", {}).get("path"):
            monitor["log"]["path"] = str(self.context.work / "prediction-log")
            self.notes.append("the prediction log of the rehearsal was thrown away")
        if self._watched():
            settings, held_out = drift.monitor_of(self.bundle).drift, wire.rows_of(self._held_out())
            if held_out < settings.window:
                window = max(held_out, 50)
                monitor["drift"] = settings.model_copy(update={"window": window, "min_rows": min(settings.min_rows, window)}).model_dump()
                self.notes.append(f"drift was rehearsed with windows of {window} rows, as only {held_out} are held out")
        if monitor == self.bundle.monitor:
            return self.bundle
        return copied(self.bundle, self.context.work / "staged", {}, monitor=monitor)

    def _started(self, server: Server) -> None:
        first = load.send(server.port, [wire.infer(self.bundle, _first(self.inputs, 1))])
        if first.failures:
            raise ProofError(f"{self.bundle.name}: the first request failed: {first.failures[0]}")
        self.measured["start"] = {
            "seconds_to_ready": round(server.ready_seconds, 3),
            "seconds_to_first_answer": round(server.ready_seconds + first.latencies[0], 3),
        }

    def _replay(self, server: Server) -> None:
        n = len(next(iter(self.inputs.values())))
        each = int(np.clip(-(-n // 2000), 1, 32))
        self._prove(replay(server, self.bundle, self.engine, self.inputs, connections=1, dialect="v2", rows_each=each))
        self._prove(replay(server, self.bundle, self.engine, self.inputs, connections=32, dialect="predict", rows_each=each))
        self.measured["replayed"] = n

    def _load(self, server: Server) -> None:
        requests = self._requests()
        load.send(server.port, requests, count=min(len(requests), 50))
        self.measured["loads"] = []
        for connections in self.section.connections:
            result = load.send(server.port, requests, count=self.section.requests, seconds=self.section.seconds, connections=connections)
            entry = {"connections": connections, **result.measure()}
            self.measured["loads"].append(entry)
            self._prove([_no_failures(self.bundle, connections, result.requests, len(result.failures))])
            self.context.progress.note(
                f"load of {connections}: p50 {entry['p50_ms']:.2f} ms, p99 {entry['p99_ms']:.2f} ms, "
                f"{entry['requests_per_second']:.0f} requests/s"
            )
        memory = server.memory()
        self.measured["start"]["memory_mb"] = None if memory is None else round(memory / 2**20, 1)

    def _kill(self, server: Server) -> None:
        measured, proofs = kill_and_return(server, self.bundle, self._requests())
        self.measured["restart"] = measured
        self._prove(proofs)
        same = replay(server, self.bundle, self.engine, _first(self.inputs, _SHOWN), connections=1, dialect="v2")
        self._prove([Proof(**{**p.__dict__, "claim": p.claim.replace(" over ", " after the restart, over ", 1)}) for p in same])

    def _drift_offline(self, server: Server) -> None:
        if not self._watched():
            self.notes.append("drift was not rehearsed: the bundle has no profile")
            return
        fitted, held_out = self._some("train"), self._held_out()
        rows = {name: np.concatenate([fitted[name], held_out[name]]) for name in self.inputs}
        measured, proofs = drift.offline(
            self.bundle,
            self.engine,
            rows,
            wire.rows_of(fitted),
            self._shifts(),
            self.section.clean_windows,
            self.context.seed,
            self.context.check,
        )
        self.measured["drift"] = {"offline": measured}
        self._prove(proofs)

    def _drift_live(self, server: Server) -> None:
        shifts = self._shifts()
        if not self._watched() or not shifts:
            return
        name, shift = next(iter(shifts.items()))
        measured, proofs = drift.live(server, self.staged, self._held_out(), shift, name, self.context.seed)
        self.measured["drift"]["live"] = measured
        self._prove(proofs, hint=f"columns that drifted on clean rows: {', '.join(measured['clean_drifted']) or 'none'}")

    def _drain(self, server: Server) -> None:
        settings = Serve.model_validate(dict(self.bundle.serve))
        if settings.drain_delay_s == 0:
            self.notes.append("stopping under load was not rehearsed: with drain_delay_s 0 callers cannot leave in time")
            return
        measured, proofs = drain(server, self.bundle, self._requests(), settings.drain_delay_s + settings.grace_s + 5)
        self.measured["drain"] = measured
        self._prove(proofs, hint=str(measured["first_failure"]))

    def _some(self, split: str) -> dict[str, Any]:
        """At most ``_POOL`` rows of a split, spread evenly over it."""
        raw = self.prepared.raw(split)
        n = len(next(iter(raw.values())))
        chosen = np.linspace(0, n - 1, min(n, _POOL)).astype(np.int64)
        return {name: np.asarray(values[chosen]) for name, values in raw.items()}

    def _held_out(self) -> dict[str, Any]:
        """Rows that the model was not fitted to."""
        parts = [self._some(split) for split in ("validation", "test")]
        return {name: np.concatenate([part[name] for part in parts]) for name in self.inputs}

    def _watched(self) -> bool:
        return "profile.json" in self.bundle.files

    def _shifts(self) -> dict[str, Any]:
        return applicable(self.bundle.signature, self.inputs, self.section.shift)

    def _requests(self) -> list[Any]:
        n = min(_SHOWN, wire.rows_of(self.inputs))
        return [wire.infer(self.bundle, wire.cut(self.inputs, i, i + 1)) for i in range(n)]

    def _prove(self, proofs: list[Proof], hint: str = "") -> None:
        self.proofs += proofs
        if failed := [p for p in proofs if not p.passed]:
            raise ProofError(f"the rehearsal failed: {failed[0]}{f'; {hint}' if hint else ''}")


def _no_failures(bundle: Bundle, connections: int, requests: int, failed: int) -> Proof:
    return Proof(
        link=5,
        claim=f"{bundle.name}: under load of {connections} callers every request is answered",
        reference=f"the server of bundle {bundle.version}",
        quantity="failed requests",
        measured=failed,
        tolerance=0,
        samples=requests,
    )


def _nothing_left(bundle: Bundle, port: int) -> Proof:
    """Nobody listens where the server did."""
    with socket.socket() as s:
        s.settimeout(1)
        left = s.connect_ex((HOST, port)) == 0
    return Proof(
        link=5,
        claim=f"{bundle.name}: the rehearsal leaves nothing running",
        reference="its port",
        quantity="listeners",
        measured=float(left),
        tolerance=0,
        samples=1,
    )


def _first(arrays: Mapping[str, Any], n: int) -> dict[str, Any]:
    return {name: np.asarray(values[:n]) for name, values in arrays.items()}

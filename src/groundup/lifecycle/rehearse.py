"""rehearse: the bundle goes on stage before anybody sees it.  The real server, over HTTP, through everything that happens to servers.

    start ─► replay the test split (alone, in crowds) ─► load at 1 and 32 callers ─► SIGKILL and return ─► replay again
          ─► drift: clean is quiet, changed raises the alarm, clean again ends it ─► SIGTERM under load ─► nothing left

What is measured goes into the output, what is proven (links 5 and 6) into the bundle, which leaves this stage with the
whole chain in it.  A link that does not hold stops the run.
"""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import Field, JsonValue

from groundup.bundle import Bundle, Proof, write_bundle
from groundup.errors import ProofError
from groundup.lifecycle.prepare import Prepared
from groundup.lifecycle.stage import Context, Output
from groundup.sections import Section

if TYPE_CHECKING:
    from groundup.lifecycle.package import Packaged
    from groundup.rehearsal.server import Server
    from groundup.serving.engine import Engine

_POOL = 5000  # rows of each split that drift is rehearsed with
_SHOWN = 512  # rows replayed after the restart, and sent over and over as load


class Rehearse(Section):
    """How long the rehearsal takes and how much it sends."""

    enabled: bool = True
    """false packages without a rehearsal: links 5 and 6 stay unproven."""
    replay_rows: int = Field(20_000, ge=1)
    """Rows of the test split that are sent and compared, the first so many."""
    connections: tuple[int, ...] = Field((1, 32), min_length=1)
    """Callers at the same time, one load measurement each."""
    requests: int = Field(3000, ge=10)
    """Requests of one load measurement, at most."""
    seconds: float = Field(3.0, gt=0, le=600)
    """Seconds of one load measurement, at most."""
    clean_windows: int = Field(200, ge=20)
    """Windows of unchanged traffic in which false alarms are counted."""
    shift: float = Field(1.0, gt=0)
    """How far numbers are moved to see the alarm rise, in standard deviations."""
    start_timeout_s: float = Field(60.0, gt=0)
    """Seconds that the server may take until it is ready, at the start and after it was killed."""


class Rehearsed(Output):
    """Measurements from outside.  Files: ``bundle`` (as packaged, with the proofs made here), ``server.log``."""

    enabled: bool = True
    start: dict[str, float | None] = Field(default_factory=dict)
    """seconds_to_ready, seconds_to_first_answer (interpreter and imports included), memory_mb after the load."""
    replayed: int = 0
    """Rows sent and compared."""
    loads: list[dict[str, float]] = Field(default_factory=list)
    """One entry a number of connections: connections, requests, failed, p50_ms, p99_ms, requests_per_second."""
    restart: dict[str, JsonValue] = Field(default_factory=dict)
    """After SIGKILL under load: seconds_until_ready, lost_in_flight, ..."""
    drift: dict[str, JsonValue] = Field(default_factory=dict)
    """``offline`` (many windows) and ``live`` (over HTTP); empty where the bundle has no profile."""
    drain: dict[str, JsonValue] = Field(default_factory=dict)
    """After SIGTERM under load: failed, not_ready_after_ms, exit_status, seconds_to_exit."""
    notes: list[str] = Field(default_factory=list)
    seconds: float = 0.0
    proofs: list[Proof] = Field(default_factory=list)

    def service_lines(self) -> list[str]:
        """The server in a few lines, for the table at the end of a run."""
        if not self.enabled:
            return list(self.notes)
        lines = [
            f"{e['connections']:.0f} caller{'s' * (e['connections'] > 1)}: p50 {e['p50_ms']:.2f} ms, p99 {e['p99_ms']:.2f} ms, "
            f"{e['requests_per_second']:,.0f} requests/s"
            for e in self.loads
        ]
        lines.append(f"{self.replayed:,} rows of the test split over HTTP answered as by the graph")
        memory = self.start.get("memory_mb")
        lines.append(
            f"first answer {self.start['seconds_to_first_answer']:.2f} s after the start" + (f", {memory:.0f} MiB" if memory else "")
        )
        if self.restart:
            lines.append(f"killed under load, ready again in {self.restart['seconds_until_ready']:.2f} s")
        if self.drain:
            lines.append(f"stopped under load, {self.drain['failed']} of {self.drain['requests']:,} requests failed")
        return lines

    def drift_lines(self) -> list[str]:
        """The drift alarm in a few lines."""
        offline, live = self.drift.get("offline"), self.drift.get("live")
        lines = []
        if isinstance(offline, dict):
            lines.append(
                f"{offline['false_alarms']} false alarms in {offline['clean_windows']} windows of {offline['window_rows']:,} clean rows"
            )
        if isinstance(live, dict):
            lines.append(f"alarm after {live['rows_until_alarm']:,} changed rows ({live['shift']}), gone when the rows were clean again")
        return lines


def rehearse(section: Rehearse, prepared: Prepared, packaged: Packaged, *, out: Path, context: Context) -> Rehearsed:
    """Serve the packaged bundle and hold it to its claims.

    Raises:
        ProofError: an answer differs, a request is lost, the alarm is deaf or nervous; with the numbers.
        BusyError: no port can be had.
    """
    bundle = Bundle.open(packaged.path / "bundle")
    if not section.enabled:
        _with_proofs(bundle, [], out / "bundle")
        return Rehearsed(enabled=False, notes=["not rehearsed, as the recipe says"])
    from groundup.serving.engine import Engine

    began = time.monotonic()
    play = _Play(section, bundle, Engine(bundle), _first(prepared.raw("test"), section.replay_rows), prepared, context, out)
    play.run()
    _with_proofs(bundle, play.proofs, out / "bundle")
    return Rehearsed(**play.measured, notes=play.notes, seconds=time.monotonic() - began, proofs=play.proofs)


class _Play:
    """One rehearsal: acts in order, each adding measurements and proofs."""

    def __init__(
        self, section: Rehearse, bundle: Bundle, engine: Engine, inputs: dict[str, Any], prepared: Prepared, context: Context, out: Path
    ) -> None:
        self.section, self.bundle, self.engine, self.inputs, self.context, self.out = section, bundle, engine, inputs, context, out
        self.prepared = prepared
        self.measured: dict[str, Any] = {}
        self.proofs: list[Proof] = []
        self.notes: list[str] = []

    def run(self) -> None:
        from groundup.rehearsal.server import Server

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
            from groundup.rehearsal import drift, wire

            settings, held_out = drift.monitor_of(self.bundle).drift, wire.rows_of(self._held_out())
            if held_out < settings.window:
                window = max(held_out, 50)
                monitor["drift"] = settings.model_copy(update={"window": window, "min_rows": min(settings.min_rows, window)}).model_dump()
                self.notes.append(f"drift was rehearsed with windows of {window} rows, as only {held_out} are held out")
        if monitor == self.bundle.monitor:
            return self.bundle
        return _copy(self.bundle, self.context.work / "staged", {}, monitor=monitor)

    def _started(self, server: Server) -> None:
        from groundup.rehearsal import load, wire

        first = load.send(server.port, [wire.infer(self.bundle, _first(self.inputs, 1))])
        if first.failures:
            raise ProofError(f"{self.bundle.name}: the first request failed: {first.failures[0]}")
        self.measured["start"] = {
            "seconds_to_ready": round(server.ready_seconds, 3),
            "seconds_to_first_answer": round(server.ready_seconds + first.latencies[0], 3),
        }

    def _replay(self, server: Server) -> None:
        from groundup.rehearsal.replay import replay

        n = len(next(iter(self.inputs.values())))
        each = int(np.clip(-(-n // 2000), 1, 32))
        self._prove(replay(server, self.bundle, self.engine, self.inputs, connections=1, dialect="v2", rows_each=each))
        self._prove(replay(server, self.bundle, self.engine, self.inputs, connections=32, dialect="predict", rows_each=each))
        self.measured["replayed"] = n

    def _load(self, server: Server) -> None:
        from groundup.rehearsal import load

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
        from groundup.rehearsal.faults import kill_and_return
        from groundup.rehearsal.replay import replay

        measured, proofs = kill_and_return(server, self.bundle, self._requests())
        self.measured["restart"] = measured
        self._prove(proofs)
        same = replay(server, self.bundle, self.engine, _first(self.inputs, _SHOWN), connections=1, dialect="v2")
        self._prove([Proof(**{**p.__dict__, "claim": p.claim.replace(" over ", " after the restart, over ", 1)}) for p in same])

    def _drift_offline(self, server: Server) -> None:
        from groundup.rehearsal import drift, wire

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
        from groundup.rehearsal import drift

        shifts = self._shifts()
        if not self._watched() or not shifts:
            return
        name, shift = next(iter(shifts.items()))
        measured, proofs = drift.live(server, self.staged, self._held_out(), shift, name, self.context.seed)
        self.measured["drift"]["live"] = measured
        self._prove(proofs, hint=f"columns that drifted on clean rows: {', '.join(measured['clean_drifted']) or 'none'}")

    def _drain(self, server: Server) -> None:
        from groundup.rehearsal.faults import drain
        from groundup.serving.settings import Serve

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
        from groundup.rehearsal.shifts import applicable

        return applicable(self.bundle.signature, self.inputs, self.section.shift)

    def _requests(self) -> list[Any]:
        from groundup.rehearsal import wire

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
        left = s.connect_ex(("127.0.0.1", port)) == 0
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


def _with_proofs(bundle: Bundle, proofs: list[Proof], path: Path) -> Bundle:
    """The bundle with ``proofs`` after those that it carries; one that says the same is replaced."""
    new = {(p.link, p.claim) for p in proofs}
    every = [p for p in bundle.proofs() if (p.link, p.claim) not in new] + proofs
    return _copy(
        bundle, path, {"proofs.json": json.dumps([p.to_dict() for p in every], indent=2, ensure_ascii=False, allow_nan=False).encode()}
    )


def _copy(bundle: Bundle, path: Path, replaced: Mapping[str, bytes], **changed: Any) -> Bundle:
    fields = ("created", "data_hash", "code_hash", "metrics", "compression", "environment", "serve", "monitor")
    return write_bundle(
        path,
        {**{name: bundle.read(name) for name in bundle.files}, **replaced},
        name=bundle.name,
        task=bundle.task,
        signature=bundle.signature,
        graph=bundle.graph,
        **{**{f: getattr(bundle, f) for f in fields}, **changed},
    )

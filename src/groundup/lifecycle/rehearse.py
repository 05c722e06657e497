"""rehearse: the bundle goes on stage before anybody sees it.  The real server, over HTTP, through everything that happens to servers.

    start ─► replay the test split (alone, in crowds) ─► load at 1 and 32 callers ─► SIGKILL and return ─► replay again
          ─► drift: clean is quiet, changed raises the alarm, clean again ends it ─► SIGTERM under load ─► nothing left

What is measured goes into the output, what is proven (links 5 and 6) into the bundle, which leaves this stage with the
whole chain in it.  A link that does not hold stops the run.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field, JsonValue

from groundup.bundle import Bundle, Proof
from groundup.bundle.card import FILE as CARD
from groundup.bundle.card import with_proofs
from groundup.bundle.files import to_json
from groundup.bundle.manifest import copied
from groundup.lifecycle.prepare import Prepared
from groundup.lifecycle.stage import Context, Output
from groundup.rehearsal.settings import Rehearse

if TYPE_CHECKING:
    from groundup.lifecycle.package import Packaged

__all__ = ["Rehearse", "Rehearsed", "rehearse"]


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

    def drift_lines(self) -> list[str]:
        """The drift alarm in a few lines."""
        offline, live = self.drift.get("offline"), self.drift.get("live")
        lines = []
        if isinstance(offline, dict):
            n = offline["false_alarms"]
            windows = f"{offline['clean_windows']} windows of {offline['window_rows']:,} clean rows"
            lines.append(f"{n} false alarm{'' if n == 1 else 's'} in {windows}")
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
    from groundup.rehearsal.play import Play

    began = time.monotonic()
    play = Play(section, bundle, prepared, context, out)
    play.run()
    _with_proofs(bundle, play.proofs, out / "bundle")
    return Rehearsed(**play.measured, notes=play.notes, seconds=time.monotonic() - began, proofs=play.proofs)


def _with_proofs(bundle: Bundle, proofs: list[Proof], path: Path) -> Bundle:
    """The bundle with ``proofs`` after those that it carries, told in its card too; one that says the same is replaced."""
    new = {(p.link, p.claim) for p in proofs}
    every = [p for p in bundle.proofs() if (p.link, p.claim) not in new] + proofs
    replaced = {"proofs.json": to_json([p.to_dict() for p in every])}
    if CARD in bundle.files:
        replaced[CARD] = with_proofs(bundle.read(CARD).decode(), every).encode()
    return copied(bundle, path, replaced)

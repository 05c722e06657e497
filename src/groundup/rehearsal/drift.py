"""Link 6: the alarm stays quiet on traffic as in training, and rises when the traffic changes.

Measured twice: many windows through the monitor's own code here, where thousands of rows cost a second, and a few over HTTP
through the running server, where the whole way from request to alarm is what is tested.

False alarms are counted by re-splitting.  All prepared rows are put together and divided anew at random, again and again:
one part makes a reference profile as large as the training split, another, disjoint part is the window.  Rows from one
source are exchangeable, so every alarm is a false one, whatever the columns look like; drawing many windows from one
small test split instead would ask the same question over and over.  For data in order of time or group the question is
what the monitor does where nothing changes, and shuffling makes it so that nothing does.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from groundup.bundle import Bundle, Proof
from groundup.errors import ProofError
from groundup.monitoring.drift import Drift
from groundup.monitoring.profile import Profile
from groundup.monitoring.settings import Monitor
from groundup.rehearsal import load, wire
from groundup.rehearsal.server import Server
from groundup.rehearsal.shifts import Shift
from groundup.serving.engine import Arrays, Engine

TRIALS = 10  # windows of each shift
ROWS_EACH = 32  # in one request of the live part


def offline(
    bundle: Bundle,
    engine: Engine,
    rows: Mapping[str, Any],
    reference_rows: int,
    shifts: Mapping[str, Shift],
    windows: int,
    seed: int,
    check: Callable[[], None] = lambda: None,
) -> tuple[dict[str, Any], list[Proof]]:
    """False alarms in ``windows`` clean windows, and the share of shifted windows that raise the alarm, by shift.

    Args:
        rows: tensors of prepared rows of all splits, in any order.
        reference_rows: of these, how many make a reference: the training split's share.
        check: called between windows; raises to stop.
    """
    settings, profile = monitor_of(bundle), json.loads(bundle.read("profile.json"))
    rng = np.random.default_rng(seed)
    answers = _answers(engine, rows)
    n = wire.rows_of(rows)
    size = min(settings.drift.window, n - reference_rows)
    asked = settings.drift.model_copy(update={"window": size, "min_rows": min(settings.drift.min_rows, size)})
    alarms = 0
    for _ in range(windows):
        check()
        order = rng.permutation(n)
        made, seen = np.sort(order[:reference_rows]), order[reference_rows : reference_rows + size]
        alarms += Drift(_profile(bundle, rows, answers, made), asked).update(_take(rows, seen), _take(answers, seen))[-1].alarm
    measured: dict[str, Any] = {
        "window_rows": size,
        "clean_windows": windows,
        "false_alarms": alarms,
        "detected": {},
    }
    rate = settings.drift.false_alarm_rate
    common: dict[str, Any] = {"link": 6, "reference": f"the profile of bundle {bundle.version}"}
    proofs = [
        Proof(
            claim=f"{bundle.name}: the drift alarm is quiet where nothing has changed",
            quantity=f"share of windows with a false alarm (declared {rate:g}, and what chance adds with 99.9 %)",
            measured=alarms / windows,
            tolerance=_upper(windows, rate) / windows,
            samples=windows,
            **common,
        )
    ]
    for name, shift in shifts.items():
        caught = 0
        for drawn in _windows(rng, n, settings.drift.window, TRIALS):
            changed = shift(_take(rows, drawn), rng)
            caught += any(w.alarm for w in Drift(profile, settings.drift).update(changed, _answers(engine, changed)))
        measured["detected"][name] = caught / TRIALS
        proofs.append(
            Proof(
                claim=f"{bundle.name}: the drift alarm rises within one window: {name}",
                quantity="share of windows with an alarm",
                measured=caught / TRIALS,
                tolerance=0.9,
                at_least=True,
                samples=TRIALS,
                **common,
            )
        )
    return measured, proofs


def live(
    server: Server, bundle: Bundle, inputs: Mapping[str, Any], shift: Shift, name: str, seed: int, windows: int = 2
) -> tuple[dict[str, Any], list[Proof]]:
    """Clean traffic, then shifted, then clean again, over HTTP; what ``/monitor`` says after each.

    Args:
        bundle: as it is served; its window is at most as large as ``inputs``.
        inputs: tensors of held-out rows: on rows that it was fitted to, a model is surer than it will ever be again.
    """
    window = monitor_of(bundle).drift.window
    rng = np.random.default_rng(seed)
    n = wire.rows_of(inputs)

    def send_and_see(rows: int, change: Shift | None = None) -> dict[str, Any]:
        before = state(server)
        sent = _take(inputs, next(_windows(rng, n, rows, 1)))
        _send(server, bundle, sent if change is None else change(sent, rng))
        return _settled(server, before, rows)

    began = time.monotonic()
    opened = state(server)["drift"]
    now = send_and_see(windows * window - opened["open"]["rows"])["drift"]
    alarmed = [w["drifted"] for w in now["history"] if w["drifted"]]
    rows, alarm = 0, False
    while not alarm and rows < 3 * window:
        rows += window // 4
        alarm = bool(send_and_see(window // 4, shift)["drift"]["alarm"])
    gauge = _gauge(server, "groundup_drift_alarm")
    rest = window - state(server)["drift"]["open"]["rows"]
    again = bool(send_and_see(rest + window)["drift"]["alarm"])
    measured = {
        "shift": name,
        "clean_windows": now["windows"],
        "clean_alarms": len(alarmed),
        "clean_drifted": sorted({column for columns in alarmed for column in columns}),
        "rows_until_alarm": rows if alarm else None,
        "alarm_after_clean_again": again,
        "gauge_while_drifting": gauge,
        "seconds": round(time.monotonic() - began, 2),
    }
    common: dict[str, Any] = {"link": 6, "reference": f"the running server of bundle {bundle.version}"}
    return measured, [
        Proof(
            claim=f"{bundle.name}: clean requests raise no alarm",
            quantity="alarms (what the declared rate and chance give with 99.9 %)",
            measured=len(alarmed),
            tolerance=_upper(now["windows"], monitor_of(bundle).drift.false_alarm_rate),
            samples=now["windows"] * window,
            **common,
        ),
        Proof(
            claim=f"{bundle.name}: changed requests raise the alarm ({name})",
            quantity="rows until the alarm",
            measured=rows if alarm else math.inf,
            tolerance=2 * window,
            samples=rows,
            **common,
        ),
        Proof(
            claim=f"{bundle.name}: the alarm goes when the requests are clean again",
            quantity="alarms after one clean window",
            measured=float(again),
            tolerance=0,
            samples=window,
            **common,
        ),
    ]


def monitor_of(bundle: Bundle) -> Monitor:
    """The monitor section that the bundle carries."""
    return Monitor.model_validate(dict(bundle.monitor))


def _profile(bundle: Bundle, rows: Mapping[str, Any], answers: Mapping[str, Any], which: Any) -> dict[str, Any]:
    """The profile that packaging would have made of these rows."""
    return {
        "inputs": Profile.of(bundle.signature.inputs, _take(rows, which)).to_dict(),
        "outputs": Profile.of(bundle.signature.outputs, _take(answers, which)).to_dict(),
    }


def _gauge(server: Server, name: str) -> float | None:
    """Value of a gauge without labels in ``/metrics``."""
    for line in server.get("/metrics")[1].decode().splitlines():
        if line.startswith(f"{name} "):
            return float(line.split()[1])
    return None


def state(server: Server) -> dict[str, Any]:
    """What ``/monitor`` says."""
    status, body = server.get("/monitor")
    found = json.loads(body) if status == 200 else {}
    if not found.get("enabled"):
        raise ProofError(f"/monitor answered {status}: {body[:300].decode(errors='replace')}; expected a running drift monitor")
    return dict(found)


def _settled(server: Server, before: Mapping[str, Any], rows: int, timeout: float = 20.0) -> dict[str, Any]:
    """The state once the monitor has taken ``rows`` more than ``before``; it works beside the answers, not before them."""
    deadline = time.monotonic() + timeout
    while (now := state(server))["rows"] < before["rows"] + rows:
        if time.monotonic() > deadline:
            raise ProofError(
                f"the drift monitor took {now['rows'] - before['rows']} of {rows} rows in {timeout:g} s "
                f"and dropped {now['dropped_batches']} batches"
            )
        time.sleep(0.02)
    return now


def _send(server: Server, bundle: Bundle, inputs: Mapping[str, Any]) -> None:
    n = wire.rows_of(inputs)
    requests = [wire.infer(bundle, wire.cut(inputs, s, s + ROWS_EACH)) for s in range(0, n, ROWS_EACH)]
    result = load.send(server.port, requests, connections=2)
    if result.failures:
        raise ProofError(
            f"{len(result.failures)} of {len(requests)} requests failed while drift was rehearsed; the first: {result.failures[0]}"
        )


def _windows(rng: np.random.Generator, n: int, size: int, count: int) -> Iterator[np.ndarray[Any, np.dtype[np.int64]]]:
    for _ in range(count):
        yield rng.choice(n, size, replace=n < size)


def _take(arrays: Mapping[str, Any], rows: Any) -> Arrays:
    return {name: np.asarray(values)[rows] for name, values in arrays.items()}


def _answers(engine: Engine, inputs: Mapping[str, Any]) -> Arrays:
    n = wire.rows_of(inputs)
    parts = [engine.run(wire.cut(inputs, s, s + 256)) for s in range(0, n, 256)]
    return {name: np.concatenate([p[name] for p in parts]) for name in parts[0]}


def _upper(n: int, p: float, confidence: float = 0.999) -> int:
    """Smallest k with P(X <= k) >= confidence for X of a binomial (n, p)."""
    total, k = 0.0, 0
    while True:
        total += math.exp(math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1) + k * math.log(p) + (n - k) * math.log1p(-p))
        if total >= confidence or k == n:
            return k
        k += 1

"""The rehearsal's part of the page: what the real server did under load, after being killed, and when the data drifted."""

from __future__ import annotations

from typing import Any

from groundup.reporting import format as fmt
from groundup.reporting.evaluation import badge
from groundup.reporting.facts import Facts, Plain
from groundup.reporting.html import EMPTY, Html, facts, join, section, table, tag


def rehearsal(run: Facts) -> Html:
    """The whole section."""
    r = run["rehearsed"]
    if not r or not r.get("enabled", True):
        return EMPTY
    start, restart, drain = r.get("start") or {}, r.get("restart") or {}, r.get("drain") or {}

    def took(measured: Plain, key: str) -> str | None:
        return fmt.seconds(measured[key]) if fmt.defined(measured.get(key)) else None

    described = facts(
        [
            ("replayed over HTTP", f"{r['replayed']:,} test rows" if r.get("replayed") else None),
            ("ready after", took(start, "seconds_to_ready")),
            ("memory under load", f"{fmt.number(start['memory_mb'], 3)}{fmt.NARROW}MB" if fmt.defined(start.get("memory_mb")) else None),
            (
                "killed, back after",
                fmt.seconds(restart["seconds_until_ready"]) if fmt.defined(restart.get("seconds_until_ready")) else None,
            ),
            ("stopped under load", f"{drain['failed']} of {drain['requests']} requests failed" if "failed" in drain else None),
            ("rehearsed for", fmt.seconds(r["seconds"]) if r.get("seconds") else None),
        ]
    )
    notes = r.get("notes") or []
    return section(
        "rehearsal",
        "Rehearsal",
        described,
        _loads(r.get("loads") or []),
        _drift(r.get("drift") or {}),
        tag("ul", *[tag("li", n) for n in notes]) if notes else EMPTY,
        lead="The bundle was served by the real server and used over HTTP, as it will be.",
    )


def _loads(loads: list[Plain]) -> Html:
    rows = [
        [
            fmt.number(x["connections"]),
            fmt.number(x["requests"]),
            fmt.number(x["failed"]),
            fmt.milliseconds(x.get("p50_ms")),
            fmt.milliseconds(x.get("p99_ms")),
            fmt.number(x.get("requests_per_second"), 3),
        ]
        for x in loads
    ]
    head = ("callers", "requests", "failed", "p50", "p99", "requests/s")
    return join([tag("h3", "Load"), table(head, rows, numeric=range(6), caption="Load over HTTP")]) if rows else EMPTY


def _drift(drift: Plain) -> Html:
    offline, live = drift.get("offline") or {}, drift.get("live") or {}
    if not offline and not live:
        return EMPTY
    rows: list[list[Any]] = []
    if offline:
        rows.append(
            [
                "clean: rows of the test split",
                f"{offline['clean_windows']:,} windows of {offline['window_rows']:,} rows",
                fmt.count(offline["false_alarms"], "false alarm"),
            ]
        )
        rows += [
            [name, "shifted windows", f"{fmt.percent(share, 0)} raised the alarm"] for name, share in offline.get("detected", {}).items()
        ]
    if live:
        until = live.get("rows_until_alarm")
        outcome = f"alarm after {until:,} rows" if until else "no alarm"
        ended = "it stayed on" if live.get("alarm_after_clean_again") else "it ended when requests were clean again"
        rows.append(
            [str(live.get("shift", "shifted")), "over HTTP, through the running server", f"{outcome}; {ended}" if until else outcome]
        )
    return join([tag("h3", "Drift"), table(("traffic", "how", "what the monitor said"), rows, caption="Drift rehearsal")])


def drift_verdict(rehearsed: Plain) -> tuple[bool, Plain, Plain] | None:
    """Whether the alarm rose when it should, with what was measured offline and live; None where drift was not rehearsed."""
    drift = rehearsed.get("drift") or {}
    offline, live = drift.get("offline") or {}, drift.get("live") or {}
    if not offline and not live:
        return None
    rose = all(share >= 0.9 for share in (offline.get("detected") or {}).values()) and (not live or bool(live.get("rows_until_alarm")))
    return rose, offline, live


def drift_badge(rehearsed: Plain) -> Html:
    """One word on the alarm."""
    found = drift_verdict(rehearsed)
    if found is None:
        return EMPTY
    return badge("alarm rises", True) if found[0] else badge("alarm is deaf", False)

"""The registry's, the environment's and the files' part of the page."""

from __future__ import annotations

from groundup.reporting import format as fmt
from groundup.reporting.evaluation import badge
from groundup.reporting.facts import Facts
from groundup.reporting.html import EMPTY, Html, facts, join, more, section, table, tag

COMMANDS = """groundup run recipe.yaml        # the same again; what is unchanged comes from the cache
groundup verify build/bundle    # the proofs, on any machine
groundup serve build/bundle"""


def registry(run: Facts) -> Html:
    """Which version this is, whether it is champion, and why."""
    r = run["registered"]
    if not r or not r.get("enabled", True):
        return EMPTY
    before = r.get("champion_before")
    described = facts(
        [
            ("model", f"{r['name']} version {r['version']}"),
            ("alias", badge("champion", True) if r.get("promoted") else badge("challenger", None)),
            ("champion before", f"version {before}" if before else "none"),
            ("champion now", f"version {r['champion']}" if r.get("champion") else "none"),
            ("MLflow", tag("code", r["mlflow"]["model"]) if (r.get("mlflow") or {}).get("model") else None),
        ]
    )
    compared = [
        [
            fmt.LABELS.get(d["metric"], d["metric"]),
            fmt.metric(d["metric"], d["first"]),
            fmt.metric(d["metric"], d["second"]),
            fmt.difference(d["metric"], d["difference"]),
            fmt.interval(d["metric"], d, fmt.difference),
        ]
        for d in r.get("differences") or []
    ]
    head = ("metric", "champion before", "this version", "difference", "interval")
    reasons = r.get("reasons") or []
    return section(
        "registry",
        "Registry",
        described,
        tag("ul", *[tag("li", x) for x in [*reasons, *(r.get("notes") or [])]]) if reasons or r.get("notes") else EMPTY,
        table(head, compared, numeric=(1, 2, 3, 4), caption="Beside the champion, on the same test rows"),
    )


def environment(run: Facts) -> Html:
    """What is needed to make this again: versions, processor, hashes, files, commands."""
    m = run.manifest
    if not m:
        return EMPTY
    env = dict(m.get("environment") or {})
    cpu = env.pop("cpu", None)
    libraries = env.pop("libraries", None)
    flat = [(k, v) for k, v in env.items() if not isinstance(v, dict | list)]
    nested = [(f"{k}.{i}", v) for k, d in env.items() if isinstance(d, dict) for i, v in d.items()]
    rows = [[k, fmt.plain(v)] for k, v in [*flat, *nested, *sorted((libraries or {}).items())]]
    described = facts(
        [
            ("bundle", tag("code", m.get("version"))),
            ("made", m.get("created")),
            ("data hash", tag("code", str(m.get("data_hash", ""))[:16])),
            ("code hash", tag("code", str(m.get("code_hash", ""))[:16])),
            ("processor", _cpu(cpu)),
            ("bundle size", fmt.size(sum(int(f["bytes"]) for f in (m.get("files") or {}).values()))),
        ]
    )
    files = [[tag("code", name), fmt.size(f["bytes"]), tag("code", f["sha256"][:16])] for name, f in (m.get("files") or {}).items()]
    return section(
        "environment",
        "Make it again",
        tag("pre", tag("code", COMMANDS)),
        described,
        more(f"Files of the bundle ({len(files)})", table(("file", "size", "SHA-256"), files, numeric=(1,), caption="Files of the bundle")),
        more(f"Versions ({len(rows)})", table(("library", "version"), rows, caption="Versions")) if rows else EMPTY,
    )


def _cpu(cpu: object) -> Html | str | None:
    if isinstance(cpu, dict):
        return join([str(cpu.get("name", "")), tag("small", " " + " ".join(map(str, cpu.get("features") or [])))])
    if isinstance(cpu, list | tuple):
        return " ".join(map(str, cpu))
    return str(cpu) if cpu else None

"""register: a version with a name, challenger first, champion once nothing speaks against it.

    rehearsed bundle ─► registry (files, SQLite) ─► MLflow (onnx + python_function), loaded back and compared
                     ─► beside the champion on the same test rows ─► promoted, or left challenger with the reasons

The registry below ``home`` is the truth and needs nothing installed to serve from; MLflow's registry mirrors it.
So a promotion or a rollback holds even while an MLflow server is down; its aliases follow with the next command.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from groundup import metrics as measures
from groundup.bundle import Bundle, Proof
from groundup.errors import BundleError, ProofError
from groundup.lifecycle import mirror
from groundup.lifecycle.mlflow_store import away, registry_uri
from groundup.lifecycle.paired import Difference
from groundup.lifecycle.prepare import Prepared
from groundup.lifecycle.stage import Context, Output
from groundup.registry import Event, Registry, Version
from groundup.sections import Section

if TYPE_CHECKING:
    from groundup.lifecycle.evaluate import Evaluated
    from groundup.lifecycle.rehearse import Rehearsed


class Register(Section):
    """Which name the model is registered under, and what it takes to become champion."""

    enabled: bool = True
    """false leaves the registry alone."""
    name: str | None = None
    """Registered under this name; the recipe's by default."""
    promote: Literal["gates", "always", "never"] = "gates"
    """gates: champion once the recipe's gates have passed and neither the simple baseline nor the present champion is better.
    always: without looking at the champion.  never: it stays challenger."""
    max_degradation: dict[str, float] = Field(default_factory=dict, alias="max-degradation")
    """Metric -> by how much it may be worse than the champion's on the same test rows.
    By default the headline metric may not be significantly worse (95 % interval)."""
    mlflow: bool = True
    """Log the bundle to MLflow's model registry as well (embedded SQLite, or MLFLOW_TRACKING_URI)."""


class Registered(Output):
    """A registered version.  Its bundle is in the registry's folder, not here."""

    enabled: bool = True
    name: str
    version: int = 0
    content: str = ""
    """The bundle's version, a hash of its files."""
    bundle: str = ""
    """Folder of the registered bundle."""
    promoted: bool = False
    reasons: list[str] = Field(default_factory=list)
    """Why it was promoted, or why it was not."""
    champion: int | None = None
    """Version of the champion now."""
    champion_before: int | None = None
    differences: list[Difference] = Field(default_factory=list)
    """Champion before (first) against this version (second), on the same test rows."""
    mlflow: dict[str, str] = Field(default_factory=dict)
    """uri, name, version, run_id, model; empty where it was not logged."""
    notes: list[str] = Field(default_factory=list)
    proofs: list[Proof] = Field(default_factory=list)


def register(
    section: Register,
    *,
    name: str,
    evaluated: Evaluated,
    rehearsed: Rehearsed,
    out: Path,
    context: Context,
    home: Path | None = None,
    prepared: Prepared | None = None,
    run_id: str | None = None,
) -> Registered:
    """Register the rehearsed bundle and promote it if it may be.

    Args:
        name: the recipe's name.
        home: groundup's folder; ``.groundup`` beside the recipe by default.
        prepared: the test split, for the comparison with the champion; without it there is none.
        run_id: MLflow run that the model belongs to; one of its own by default.

    Raises:
        ProofError: what MLflow gives back answers otherwise than the bundle.
        BundleError, BusyError, StorageError: see :class:`~groundup.registry.Registry`.
    """
    name = section.name or name
    if not section.enabled:
        return Registered(enabled=False, name=name)
    home = home or context.root / ".groundup"
    registry, bundle, notes = Registry(home), Bundle.open(rehearsed.path / "bundle"), []
    gates = [g.model_dump(mode="json") for g in evaluated.gates]
    version = registry.add(name, bundle, metrics=evaluated.metrics, gates=gates)
    context.check()
    logged: dict[str, str] = {}
    proofs: list[Proof] = []
    if section.mlflow:
        try:
            logged, proofs = mirror.log(registry, version, Bundle.open(version.path), evaluated, home, run_id)
        except away() as e:
            notes.append(f"not logged to MLflow: {str(e).splitlines()[0]}")
        if failed := [p for p in proofs if not p.passed]:
            raise ProofError(f"{name} version {version.version}: what MLflow gives back differs from the bundle: {failed[0]}")
    context.check()
    before = registry.champion(name)
    compared, reasons, against = _judge(section, registry, name, before, version, prepared, evaluated, context)
    why = {"gates": gates, "reasons": reasons or against, "metrics": evaluated.metrics, "compared": [d.model_dump() for d in compared]}
    if not against and before != version.version:
        registry.promote(name, version.version, why, expected=before, check=True)
    elif against and not _refused(registry, name, version.version, why):
        registry.refuse(name, version.version, why)
    if section.mlflow and logged and (problem := mirror.follow(registry, name, home)):
        notes.append(problem)
    for line in notes:
        context.progress.note(line)
    return Registered(
        name=name,
        version=version.version,
        content=version.content,
        bundle=str(version.path),
        promoted=not against,
        reasons=against or reasons,
        champion=registry.champion(name),
        champion_before=before,
        differences=compared,
        mlflow=logged,
        notes=notes,
        proofs=proofs,
    )


def _refused(registry: Registry, name: str, version: int, why: dict[str, Any]) -> bool:
    """Whether the last thing that happened was this very refusal: a killed registration is made again, its history is not."""
    last = registry.history(name)[-1]
    return last.action == "refuse" and last.why == json.loads(json.dumps({"version": version, **why}))


def _judge(
    section: Register,
    registry: Registry,
    name: str,
    before: int | None,
    version: Version,
    prepared: Prepared | None,
    evaluated: Evaluated,
    context: Context,
) -> tuple[list[Difference], list[str], list[str]]:
    """Differences from the champion, reasons for promoting, reasons against."""
    failed = [g for g in evaluated.gates if not g.passed]
    against = [f"gate {g.gate}: {g.goal} {g.measured} against {g.bound}" for g in failed]
    reasons = [f"{len(evaluated.gates)} of {len(evaluated.gates)} gates passed"] if evaluated.gates and not failed else []
    compared: list[Difference] = []
    if section.promote == "never":
        return compared, [], ["the recipe says promote: never"]
    headline = measures.headline(evaluated.task)
    beside = evaluated.improvement.get(headline, {})
    if section.promote == "gates" and (high := beside.get("high")) is not None and high < 0:  # a headline is better when larger
        against.append(f"{headline} is significantly worse than the baseline's ({evaluated.baseline_which}): {beside['value']:+.4g}")
    if before is None:
        return compared, [*reasons, "there was no champion"], against
    if before == version.version:
        return compared, ["it is the champion already"], []
    if section.promote == "always":
        return compared, [*reasons, "the recipe says promote: always"], against
    from groundup.lifecycle.paired import answers, comparable, differences

    champion, challenger = Bundle.open(registry.version(name, before).path), Bundle.open(version.path)
    problem = "there is no test split to compare on" if prepared is None else comparable(champion, challenger)
    if problem or prepared is None:
        if section.max_degradation:
            return compared, [], [*against, f"max-degradation cannot be measured against champion version {before}: {problem}"]
        return compared, [*reasons, f"not compared with champion version {before}: {problem}"], against
    compared = differences(
        challenger.task, prepared.targets("test"), answers(champion, prepared), answers(challenger, prepared), seed=context.seed
    )
    for d in compared:
        if d.metric in section.max_degradation:
            worse = d.worse_by > section.max_degradation[d.metric]
            bound = f"max-degradation {section.max_degradation[d.metric]:g}"
        elif not section.max_degradation and d.metric == measures.headline(challenger.task):
            worse, bound = d.better == "first", "not significantly worse"
        else:
            continue
        (against if worse else reasons).append(f"{bound}, beside champion version {before}: {d}")
    if unknown := sorted(section.max_degradation.keys() - {d.metric for d in compared}):
        against.append(f"max-degradation of {', '.join(unknown)} cannot be measured; this task has {', '.join(d.metric for d in compared)}")
    return compared, reasons, against


def rollback(name: str, home: Path, to: int | str | None = None, note: Callable[[str], Any] = lambda text: None) -> Event:
    """Make the champion before this one (or version ``to``, if it was champion once) champion again.  Recorded; MLflow follows.

    Args:
        note: told in one line where MLflow could not follow.

    Raises:
        BundleError: there is nothing to go back to; the message says what there is.
    """
    registry = Registry(home)
    if to is not None and not str(to).isdigit():
        raise BundleError(f"expected the number of a version to go back to, got {to!r}; `groundup history {name}` lists them")
    event = registry.rollback(name, None if to is None else int(to))
    if registry.mirrored(name, registry_uri(home)) and (problem := mirror.follow(registry, name, home)):
        note(problem)
    return event


def history(name: str, home: Path) -> list[dict[str, Any]]:
    """Who was champion, when, why and by whom, oldest first: dictionaries of when, version, event, by, why.

    Raises:
        BundleError: no model of this name was ever registered below ``home``.
    """
    registry = Registry(home)
    if name not in registry.names():
        raise BundleError(
            f"no model {name!r} in {registry.file}; it has: {', '.join(registry.names()) or 'none'} (--home names another registry)"
        )
    return [
        {
            "when": e.time,
            "version": f"{e.before or '–'} → {e.after or '–'}" if e.before != e.after else f"{e.why.get('version', e.after)}",
            "event": e.action,
            "by": e.who,
            "why": "; ".join(e.why.get("reasons", [])),
        }
        for e in registry.history(name)
    ]


def resolve_reference(reference: str, home: Path) -> Path:
    """The bundle folder of ``models:/NAME@champion``, ``models:/NAME/3``, ``models:/NAME/latest``, or of a plain path."""
    return Registry(home).resolve(reference)

"""rehearse: the whole play on a small bundle, and what stops it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import psutil
import pytest
from served_table import graph, make_bundle, rows

from groundup import summary
from groundup.bundle import Bundle, Proof, write_bundle
from groundup.bundle.card import plain
from groundup.bundle.proof import LINKS
from groundup.errors import ProofError
from groundup.lifecycle.rehearse import Rehearse, Rehearsed, rehearse
from groundup.lifecycle.stage import Context, Output

QUICK = Rehearse(requests=200, seconds=0.5, connections=(1, 4), clean_windows=30)


class Split:
    """What rehearse asks of Prepared."""

    def raw(self, split: str) -> dict[str, Any]:
        size, seed = {"train": (1200, 5), "validation": (200, 6), "test": (400, 7)}[split]
        return rows(size, seed)


def play(tmp_path: Path, section: Rehearse = QUICK, data: bytes | None = None, **fields: Any) -> tuple[Rehearsed, Bundle]:
    before = make_bundle(tmp_path / "packaged" / "bundle", data, **fields)
    out, work = tmp_path / "out", tmp_path / "work"
    out.mkdir()
    work.mkdir()
    context = Context(root=tmp_path, work=work)
    done = rehearse(section, Split(), Output().at(tmp_path / "packaged"), out=out, context=context)  # type: ignore[arg-type]
    return done.save(out), before


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Rehearsed, Bundle]:
    """One whole rehearsal, of a bundle that logs its predictions."""
    folder = tmp_path_factory.mktemp("played")
    monitor = {"drift": {"window": 200, "min-rows": 100}, "log": {"path": str(folder / "production-log")}}
    return folder, *play(folder, metrics={"accuracy": 0.5}, created="2026-01-01T00:00:00+00:00", monitor=monitor)


def test_the_bundle_leaves_with_the_whole_chain(played: tuple[Path, Rehearsed, Bundle]) -> None:
    folder, done, before = played
    after = Bundle.open(folder / "out" / "bundle")
    assert after.proofs() == done.proofs
    assert {p.link for p in after.proofs()} == {5, 6}
    assert all(p.passed for p in after.proofs())
    for name in ("name", "task", "signature", "graph", "created", "metrics", "serve", "monitor"):
        assert getattr(after, name) == getattr(before, name), name
    assert {n for n in after.files if after.files[n] != before.files.get(n)} == {"proofs.json", "README.md"}
    assert Rehearsed.load(folder / "out") == done


def test_the_card_tells_every_proof(played: tuple[Path, Rehearsed, Bundle]) -> None:
    folder, done, before = played
    card = Bundle.open(folder / "out" / "bundle").read("README.md").decode()
    assert before.read("README.md").decode().partition("## Proofs")[0] == card.partition("## Proofs")[0]
    told = card.partition("## Proofs")[2]
    assert told.startswith(f"\n\n{len(done.proofs)} of {len(done.proofs)} passed.")
    assert len(done.proofs) > 12
    for proof in done.proofs:
        assert f"| {proof.link} {LINKS[proof.link]} | {plain(proof.claim)} |" in told


def test_everything_is_measured_and_nothing_left(played: tuple[Path, Rehearsed, Bundle]) -> None:
    _, done, _ = played
    assert done.replayed == 400
    assert [e["connections"] for e in done.loads] == [1, 4]
    assert all(e["failed"] == 0 and 0 < e["p50_ms"] <= e["p99_ms"] and e["requests"] >= 10 for e in done.loads)
    assert 0 < done.start["seconds_to_ready"] < done.start["seconds_to_first_answer"]  # type: ignore[operator]
    assert done.drain["failed"] == 0
    assert done.drift["offline"]["false_alarms"] == 0  # type: ignore[index, call-overload]
    assert done.drift["live"]["rows_until_alarm"] == 200  # type: ignore[index, call-overload]
    text = "\n".join(summary._service(done) + done.drift_lines())
    for part in (
        " 1 caller ",
        "4 callers ",
        "400 test rows",
        "killed, back in",
        "0 false alarms in 30 windows of 200",
        "alarm after 200 changed rows",
    ):
        assert part in text
    mine = [p for p in psutil.Process().children(recursive=True) if "serve" in " ".join(p.cmdline())]
    assert mine == []


def test_the_rehearsal_does_not_write_into_the_prediction_log(played: tuple[Path, Rehearsed, Bundle]) -> None:
    folder, done, _ = played
    assert not (folder / "production-log").exists()
    assert any("prediction log" in n for n in done.notes)


def test_proofs_that_were_there_stay(tmp_path: Path) -> None:
    early = Proof(1, "outputs equal", "torch", "difference", 0.0, 1e-6)
    plain = make_bundle(tmp_path / "plain")
    sources: dict[str, Path | bytes] = {n: plain.read(n) for n in plain.files} | {"proofs.json": json.dumps([early.to_dict()]).encode()}
    write_bundle(tmp_path / "packaged" / "bundle", sources, name=plain.name, task=plain.task, signature=plain.signature)
    out = tmp_path / "out"
    out.mkdir()
    context = Context(root=tmp_path, work=tmp_path)
    off = rehearse(Rehearse(enabled=False), Split(), Output().at(tmp_path / "packaged"), out=out, context=context)  # type: ignore[arg-type]
    assert Bundle.open(out / "bundle").proofs() == [early]
    assert not off.enabled
    assert off.notes == summary._service(off)


def test_a_bundle_that_fails_its_self_test_stops_the_run(tmp_path: Path) -> None:
    with pytest.raises(ProofError, match=r"(?s)before it was ready.*self-test failed"):
        play(tmp_path, data=graph(tilt=0.5))
    assert not (tmp_path / "out" / "bundle").exists()


def test_a_deaf_alarm_stops_the_run_with_the_numbers(tmp_path: Path) -> None:
    deaf = {"drift": {"window": 200, "min-rows": 100, "threshold": 1000}}
    with pytest.raises(ProofError, match=r"alarm rises.*share of windows with an alarm 0 >= 0\.9"):
        play(tmp_path, monitor=deaf)


def test_no_profile_no_drift(tmp_path: Path) -> None:
    full = make_bundle(tmp_path / "full")
    sources: dict[str, Path | bytes] = {n: full.read(n) for n in full.files if n != "profile.json"}
    write_bundle(
        tmp_path / "packaged" / "bundle", sources, name="table", task=full.task, signature=full.signature, serve={"drain_delay_s": 0}
    )
    out = tmp_path / "out"
    out.mkdir()
    context = Context(root=tmp_path, work=tmp_path)
    done = rehearse(QUICK, Split(), Output().at(tmp_path / "packaged"), out=out, context=context)  # type: ignore[arg-type]
    assert done.drift == {}
    assert done.drain == {}
    assert len(done.notes) == 2

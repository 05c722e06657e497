"""Link 5 over HTTP: equal answers pass, and answers of another model, however near, do not."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from served_table import answers, graph, make_bundle, rows

from groundup.bundle import Bundle
from groundup.errors import ProofError
from groundup.rehearsal import load, wire
from groundup.rehearsal.faults import drain, kill_and_return
from groundup.rehearsal.replay import differences, replay
from groundup.rehearsal.server import Server
from groundup.serving.engine import Engine


@pytest.fixture(scope="module")
def server(bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(bundle.path, log=tmp_path_factory.mktemp("server") / "log") as server:
        yield server


@pytest.mark.parametrize("dialect", ["v2", "predict"])
@pytest.mark.parametrize(("connections", "rows_each"), [(1, 1), (1, 7), (8, 1)])
def test_every_row_is_answered_as_by_the_graph(server: Server, bundle: Bundle, dialect: str, connections: int, rows_each: int) -> None:
    proofs = replay(server, bundle, Engine(bundle), rows(101), connections=connections, dialect=dialect, rows_each=rows_each)
    assert {p.quantity for p in proofs} == {"share equal", "largest difference"}
    assert all(p.passed and p.samples == 101 and p.link == 5 for p in proofs)


def test_a_server_of_another_model_is_found_out(server: Server, bundle: Bundle, tmp_path: Path) -> None:
    other = make_bundle(tmp_path / "other", graph(tilt=1e-3))
    proofs = replay(server, bundle, Engine(other), rows(50), connections=1, dialect="v2")
    assert [p.passed for p in proofs if p.quantity == "largest difference"] == [False]


def test_a_refused_request_stops_the_proof(server: Server, bundle: Bundle) -> None:
    inputs = rows(5)
    inputs["n"][3] = 0.5  # no whole number: the server says 400
    with pytest.raises(ProofError, match=r"1 of 5 requests to v2 failed.*400"):
        replay(server, bundle, Engine(bundle), inputs, connections=1, dialect="v2")


def test_labels_may_differ_only_at_a_tie(bundle: Bundle) -> None:
    expected = {"label": np.array(["red", "red"], object), "probabilities": np.array([[0.5, 0.5, 0], [0.6, 0.4, 0]], np.float32)}
    tie = {**expected, "label": np.array(["green", "red"], object)}
    wrong = {**expected, "label": np.array(["red", "green"], object)}
    assert differences(bundle, expected, tie, "", 1e-4)[0].passed
    failed = differences(bundle, expected, wrong, "", 1e-4)[0]
    assert not failed.passed
    assert failed.measured == 0.5


def test_nan_and_wrong_shapes_never_pass(bundle: Bundle) -> None:
    expected = {"prediction": np.array([1.0, 2.0], np.float32)}
    assert not differences(bundle, expected, {"prediction": np.array([1.0, np.nan])}, "", 1.0)[0].passed
    with pytest.raises(ProofError, match="shape"):
        differences(bundle, expected, {"prediction": np.array([1.0])}, "", 1.0)
    with pytest.raises(ProofError, match="expected the outputs"):
        differences(bundle, expected, {"label": expected["prediction"]}, "", 1.0)


def test_the_wire_keeps_every_kind() -> None:
    import json
    from dataclasses import replace

    from groundup.bundle import Field, Signature
    from groundup.bundle.signature import MISSING_DATETIME

    signature = Signature((Field("d", "datetime", nullable=True), Field("b", "boolean", nullable=True), Field("i", "image", (1, 2, 1))), ())
    fake = replace(Bundle(Path(), "m", "v", "t", signature, "g", {}))
    arrays = {
        "d": np.array([1_000_000, MISSING_DATETIME]),
        "b": np.array([1.0, np.nan]),
        "i": np.arange(4, dtype=np.uint8).reshape(2, 1, 2, 1),
    }
    assert json.loads(wire.predict(fake, arrays).body) == [
        {"d": "1970-01-01T00:00:01+00:00", "b": True, "i": [[[0], [1]]]},
        {"d": None, "b": None, "i": [[[2], [3]]]},
    ]
    assert [i["data"] for i in json.loads(wire.infer(fake, arrays).body)["inputs"]][1:] == [[1.0, None], [0, 1, 2, 3]]


def requests(bundle: Bundle) -> list[load.Request]:
    return [wire.infer(bundle, wire.cut(rows(64), i, i + 1)) for i in range(64)]


def test_sigterm_under_load_fails_nothing(bundle: Bundle, tmp_path: Path) -> None:
    with Server(bundle.path, log=tmp_path / "log") as server:
        measured, proofs = drain(server, bundle, requests(bundle), patience=15)
    assert all(p.passed for p in proofs), measured
    assert measured["requests"] > 10
    assert measured["not_ready_after_ms"] < 1000
    assert measured["seconds_to_exit"] < 10


def test_a_server_that_dies_at_sigterm_is_found_out(bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Server(bundle.path, log=tmp_path / "log") as server:
        monkeypatch.setattr(server, "terminate", lambda: server._running().kill())
        measured, proofs = drain(server, bundle, requests(bundle), patience=5)
    assert [p.passed for p in proofs] == [False, False], measured


def test_kill_9_under_load_and_back_with_the_same_answers(bundle: Bundle, tmp_path: Path) -> None:
    with Server(bundle.path, log=tmp_path / "log") as server:
        port, pid = server.port, server.pid
        measured, proofs = kill_and_return(server, bundle, requests(bundle))
        assert all(p.passed for p in proofs)
        assert measured["same_port"]
        assert measured["answered_before"] > 10
        assert measured["lost_in_flight"] <= 8  # one a caller, at most
        assert (server.port, server.pid) != (port, pid)
        assert all(p.passed for p in replay(server, bundle, Engine(bundle), rows(20), connections=1, dialect="v2"))


def test_the_reference_is_the_graph(bundle: Bundle) -> None:
    got = Engine(bundle).run(rows(9))
    np.testing.assert_array_equal(got["probabilities"], answers(rows(9))["probabilities"])

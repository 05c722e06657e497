import json
import re
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from groundup.bundle import Bundle
from groundup.bundle.manifest import write_bundle
from groundup.bundle.signature import MISSING_DATETIME, Field, Signature
from groundup.errors import DataError
from groundup.lifecycle.monitor import ALARM_EXIT_CODE, _of_interest, _tables, _tensors, monitor
from groundup.monitoring.log import PredictionLog, log_files
from groundup.monitoring.profile import Profile
from groundup.monitoring.settings import DriftSettings, LogSettings

SIGNATURE = Signature(
    (
        Field("x", "number", nullable=True),
        Field("b", "boolean", nullable=True),
        Field("c", "category", nullable=True),
        Field("t", "datetime", nullable=True),
        Field("i", "image", (3, 4, 1)),
        Field("v", "tensor", (2, 3)),
    ),
    (Field("label", "category"), Field("probabilities", "tensor", (2,))),
)
START = datetime(2026, 3, 1, tzinfo=UTC).timestamp()


def rows(n: int, seed: int, shift: float = 0.0) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    r = np.random.default_rng(seed)
    p = r.random((n, 2)).astype(np.float32)
    return {
        "x": np.where(r.random(n) < 0.05, np.nan, r.normal(size=n) + shift),
        "b": np.where(r.random(n) < 0.1, np.nan, r.integers(0, 2, n)).astype(float),
        "c": r.choice(["", "<b>", "ö"], n).astype(object),
        "t": np.where(r.random(n) < 0.1, MISSING_DATETIME, r.integers(0, 2**50, n)),
        "i": r.integers(0, 256, (n, 3, 4, 1)).astype(np.uint8),
        "v": r.normal(size=(n, 2, 3)).astype(np.float32),
    }, {"label": np.array(["no", "yes"], object)[p.argmax(1)], "probabilities": p}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    inputs, outputs = rows(4000, 0)
    profile = {"inputs": Profile.of(SIGNATURE.inputs, inputs).to_dict(), "outputs": Profile.of(SIGNATURE.outputs, outputs).to_dict()}
    folder = tmp_path_factory.mktemp("bundle") / "b"
    return write_bundle(
        folder,
        {"model.onnx": b"graph", "profile.json": json.dumps(profile).encode()},
        name="demo",
        task="tabular-classification",
        signature=SIGNATURE,
    )


def write_log(folder: Path, version: str, shifts: list[float]) -> None:
    """One file an hour, 500 rows each."""
    log = PredictionLog(LogSettings(path=folder, rotate_rows=500), SIGNATURE, version)
    for hour, shift in enumerate(shifts):
        log.append(*rows(500, hour + 1, shift), times=(START + 3600 * (hour + np.arange(500) / 500)).tolist())
    log.close()


def test_what_the_log_wrote_is_read_back_as_it_was(tmp_path: Path) -> None:
    log = PredictionLog(LogSettings(path=tmp_path), SIGNATURE, "v")
    inputs, outputs = rows(700, 3)
    for part in (slice(0, 1), slice(1, 333), slice(333, 700)):
        log.append(
            {k: x[part] for k, x in inputs.items()}, {k: x[part] for k, x in outputs.items()}, times=[START] * len(inputs["x"][part])
        )
    log.close()
    (table,) = _tables(log_files(tmp_path)[0])
    for side, fields, expected in (("inputs", SIGNATURE.inputs, inputs), ("outputs", SIGNATURE.outputs, outputs)):
        got = _tensors(table, side, fields)
        assert got.keys() == expected.keys()
        for name in expected:
            assert got[name].dtype == expected[name].dtype, name
            np.testing.assert_array_equal(got[name], expected[name])


def test_the_alarm_is_found_when_it_began(bundle: Bundle, tmp_path: Path) -> None:
    write_log(tmp_path / "log", bundle.version, [0, 0, 0, 0, 2, 2])
    result = monitor(bundle.path, tmp_path / "log", out=tmp_path / "out" / "drift.html", settings=DriftSettings(window=500))
    assert [w.alarm for w in result.windows] == [False, False, False, False, True, True]
    assert result.windows[4].started == pytest.approx(START + 4 * 3600)
    assert (result.alarm, result.exit_code, result.rows) == (True, ALARM_EXIT_CODE, 3000)
    assert result.severity()[0] == "x"
    assert result.sentence == "drift in x in the last window of 500 rows; 2 of 6 windows raised the alarm"
    found = json.loads(result.json.read_text())
    assert found["alarm"] is True
    assert found["columns"][0] == "x"
    assert [w["columns"]["x"]["state"] for w in found["windows"]] == ["same"] * 4 + ["drifted"] * 2


def test_quiet_traffic_gives_exit_code_zero(bundle: Bundle, tmp_path: Path) -> None:
    write_log(tmp_path / "log", bundle.version, [0, 0])
    assert monitor(bundle.path, tmp_path / "log", out=tmp_path / "drift.html").exit_code == 0


def test_time_and_version_choose_the_rows(bundle: Bundle, tmp_path: Path) -> None:
    write_log(tmp_path / "log", bundle.version, [0, 0, 2, 2])
    write_log(tmp_path / "log", "another", [5])
    until = datetime(2026, 3, 1, 2)  # no zone: UTC
    quiet = monitor(bundle.path, tmp_path / "log", out=tmp_path / "a.html", until=until)
    assert (quiet.rows, quiet.alarm, quiet.other_versions) == (1000, False, 500)
    late = monitor(bundle.path, tmp_path / "log", out=tmp_path / "b.html", since=until)
    assert (late.rows, late.alarm) == (1000, True)
    (table,) = _tables(log_files(tmp_path / "log")[0])
    assert _of_interest(table, "nobody", None, None)[1] == 500


def test_a_log_without_rows_to_test_says_what_to_do(bundle: Bundle, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"set monitor\.log\.path"):
        monitor(bundle.path, tmp_path, out=tmp_path / "a.html")
    write_log(tmp_path, "another", [0])
    with pytest.raises(DataError, match="500 of other bundles"):
        monitor(bundle.path, tmp_path, out=tmp_path / "a.html")
    (tmp_path / "predictions-0.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(DataError, match="move it out of the folder"):
        monitor(bundle.path, tmp_path, out=tmp_path / "a.html")
    assert not (tmp_path / "a.html").exists()


def test_the_page_loads_nothing_and_escapes_everything(bundle: Bundle, tmp_path: Path) -> None:
    write_log(tmp_path / "log", bundle.version, [0, 3])
    text = monitor(bundle.path, tmp_path / "log", out=tmp_path / "drift.html", settings=DriftSettings(window=500)).html.read_text()
    assert not re.findall(r"https?://|<script|src=|@import", text)
    assert "prefers-color-scheme: dark" in text
    assert 'name="viewport"' in text
    assert re.search(r"<b class=\"bad\">x has drifted</b>", text)
    assert "&lt;b style" not in text  # markup is not escaped twice
    assert "\N{REPLACEMENT CHARACTER}" not in text
    assert text.count("<svg") == text.count("</svg>") >= 10

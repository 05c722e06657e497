"""The stage's contract: what Prepared promises to the stages after it."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pandas as pd
import pytest

from groundup.bundle.signature import KINDS, MISSING_DATETIME
from groundup.errors import DataError, Interrupted
from groundup.lifecycle.prepare import SPLITS, Data, Prepared, prepare
from groundup.lifecycle.stage import Context
from groundup.monitoring.profile import Profile

SOURCES = [
    ("digits", "image-classification"),
    ("breast_cancer", "tabular-classification"),
    ("diabetes", "tabular-regression"),
    ("mixed", ""),
]


def mixed(root: Path) -> None:
    """A CSV with every kind of column, missing values in each."""
    rng = np.random.default_rng(0)
    n = 240
    hole = rng.random((n, 5)) < 0.1
    pd.DataFrame(
        {
            "größe": np.where(hole[:, 0], np.nan, rng.normal(size=n).round(3)),
            "n": pd.Series(rng.integers(0, 9, n), dtype="Int64").mask(hole[:, 1]),
            "yes": np.where(hole[:, 2], None, np.where(rng.random(n) < 0.5, "true", "false")),
            "when": np.where(
                hole[:, 3], None, (pd.Timestamp("2024-01-01") + pd.to_timedelta(rng.integers(0, 9999, n), unit="h")).astype(str)
            ),
            "city": np.where(hole[:, 4], None, np.array(["Graz", "Wien", "日本"])[rng.integers(0, 3, n)]),
            "label": np.array(["a", "b", "c"])[rng.integers(0, 3, n)],
        }
    ).to_csv(root / "mixed.csv", index=False)


def run(root: Path, source: str, task: str, *, name: str = "out", seed: int = 0, **data: Any) -> Prepared:
    out, work = root / name, root / f"{name}-work"
    out.mkdir()
    work.mkdir()
    if source == "mixed":
        mixed(root)
        source, task, data = "mixed.csv", "tabular-classification", {"target": "label", **data}
    prepare(Data(source=source, **data), task=task, out=out, context=Context(root=root, work=work, seed=seed)).save(out)  # type: ignore[arg-type]
    return Prepared.load(out)


@pytest.fixture(params=SOURCES, ids=lambda s: s[0])
def made(request: pytest.FixtureRequest, tmp_path: Path) -> Prepared:
    return run(tmp_path, *request.param)


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GROUNDUP_HOME", str(tmp_path / "home"))


def test_everything_is_aligned_and_of_the_promised_form(made: Prepared) -> None:
    seen: list[int] = []
    for split in SPLITS:
        n = made.sizes[split]
        features, targets, rows = made.features(split), made.targets(split), made.rows(split)
        assert features.shape == (n, *made.feature_shape)
        assert features.dtype == np.float32
        assert np.isfinite(features).all()
        assert targets.shape == rows.shape == (n,)
        assert targets.dtype == (np.int64 if made.classes else np.float64)
        assert rows.dtype == np.int64
        assert len(made.frame(split)) == n
        for field, x in zip(made.signature_inputs(), made.raw(split).values(), strict=True):
            assert x.dtype == np.dtype(KINDS[field.kind])
            assert x.shape == (n, *field.shape)
        seen += rows.tolist()
    assert sorted(seen) == sorted(set(seen))
    assert made.n_outputs == (len(made.classes) if made.classes else 1)
    if made.classes:
        assert set(made.targets("train")) == set(range(len(made.classes)))


def test_the_graph_makes_the_features_from_the_raw_inputs(made: Prepared) -> None:
    session = ort.InferenceSession(str(made.path / "transform.onnx"), providers=["CPUExecutionProvider"])
    assert [i.name for i in session.get_inputs()] == [f.name for f in made.signature_inputs()]
    assert [o.name for o in session.get_outputs()] == ["features"]
    for split in SPLITS:
        np.testing.assert_array_equal(session.run(None, made.raw(split))[0], made.features(split))
    one = {name: x[:1] for name, x in made.raw("test").items()}
    np.testing.assert_array_equal(session.run(None, one)[0], made.features("test")[:1])


def test_features_are_standardized_on_training_alone(made: Prepared) -> None:
    x = made.features("train").astype(np.float64)
    numeric = (
        x if made.feature_names is None else x[:, [i for i, n in enumerate(made.feature_names) if " = " not in n and "missing" not in n]]
    )
    axes = (0, 2, 3) if x.ndim == 4 else 0
    np.testing.assert_allclose(numeric.mean(axis=axes), 0, atol=1e-5)
    std = numeric.std(axis=axes)
    assert ((abs(std - 1) < 1e-4) | (std == 0)).all()


def test_proof_profile_and_quarantine_are_there(made: Prepared) -> None:
    (proof,) = made.proofs
    assert proof.passed
    assert proof.link == 3
    assert proof.measured == 0
    assert proof.samples == made.features("test").size
    profile = Profile.from_dict(json.loads((made.path / "profile.json").read_text())["inputs"])
    assert profile.rows == made.sizes["train"]
    assert list(pd.read_parquet(made.path / "quarantine.parquet").columns) == ["row", "column", "reason"]


def test_targets_are_the_frames_own(made: Prepared) -> None:
    for split in SPLITS:
        told = made.frame(split)[made.target]
        if made.classes:
            assert [made.classes[i] for i in made.targets(split)] == told.tolist()
        else:
            np.testing.assert_array_equal(made.targets(split), told)


def test_the_same_seed_gives_the_same_bytes_and_another_does_not(tmp_path: Path) -> None:
    one, two, three = (run(tmp_path, "mixed", "", name=name, seed=seed) for name, seed in (("a", 5), ("b", 5), ("c", 6)))
    files = sorted(p.relative_to(one.path) for p in one.path.rglob("*") if p.is_file())
    assert files == sorted(p.relative_to(two.path) for p in two.path.rglob("*") if p.is_file())
    for file in files:
        assert (one.path / file).read_bytes() == (two.path / file).read_bytes(), file
    assert (one.rows("train") != three.rows("train")).any()
    assert one.data_hash == three.data_hash


def test_missing_values_follow_the_convention(tmp_path: Path) -> None:
    made = run(tmp_path, "mixed", "")
    raw, frame = made.raw("train"), made.frame("train")
    assert [f["kind"] for f in made.inputs] == ["number", "integer", "boolean", "datetime", "category"]
    assert all(f["nullable"] for f in made.inputs)
    np.testing.assert_array_equal(np.isnan(raw["größe"]), frame["größe"].isna())
    np.testing.assert_array_equal(raw["when"] == MISSING_DATETIME, frame["when"].isna())
    np.testing.assert_array_equal(raw["city"] == "", frame["city"].isna())
    known = frame["when"].dropna()
    np.testing.assert_array_equal(raw["when"][frame["when"].notna()], known.astype("datetime64[us]").astype(np.int64))


def test_limits_and_categories_are_those_of_training(tmp_path: Path) -> None:
    made = run(tmp_path, "mixed", "")
    size, *_, city = made.signature_inputs()
    train = made.raw("train")
    assert (size.minimum, size.maximum) == (np.nanmin(train["größe"]), np.nanmax(train["größe"]))
    assert city.categories == tuple(sorted(set(train["city"]) - {""}))


def test_an_unknown_split_is_named(made: Prepared) -> None:
    with pytest.raises(DataError, match="there are train, validation, test"):
        made.features("training")


def test_a_stop_is_heard(tmp_path: Path) -> None:
    stopping = threading.Event()
    stopping.set()
    (tmp_path / "out").mkdir()
    (tmp_path / "work").mkdir()
    context = Context(root=tmp_path, work=tmp_path / "work", stopping=stopping)
    for source, task in (("digits", "image-classification"), ("breast_cancer", "tabular-classification")):
        out = tmp_path / "out" / source
        out.mkdir()
        with pytest.raises(Interrupted):
            prepare(Data(source=source), task=task, out=out, context=context)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "keys",
    [
        {"split": {"validation": 0.5, "test": 0.5}},
        {"split": {"validation": 0}},
        {"table": "a", "query": "SELECT 1"},
        {"features": ["a"], "drop": ["a"]},
        {"split": {"method": "group"}},
        {"split": {"method": "time"}},
        {"max-bad-rows": 2},
        {"limit": 0},
    ],
)
def test_sections_that_contradict_themselves(keys: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"Value error|greater than|less than"):
        Data(source="digits", **keys)


def test_fewer_rows_when_asked(tmp_path: Path) -> None:
    assert sum(run(tmp_path, "digits", "image-classification", limit=200).sizes.values()) == 200
    assert sum(run(tmp_path, "breast_cancer", "tabular-classification", name="b", limit=100).sizes.values()) == 100


def test_importing_the_stage_imports_nothing_heavy() -> None:
    import subprocess
    import sys

    heavy = ["torch", "sklearn", "pandas", "pyarrow", "duckdb", "onnx", "onnxruntime", "pandera", "matplotlib", "PIL", "scipy"]
    code = "import sys, groundup.lifecycle.prepare, groundup.data; groundup.data.sources(); "
    code += f"print([m for m in {heavy} if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"

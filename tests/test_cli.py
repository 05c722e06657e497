"""The command line as a person uses it: every verb's help and one real use, its exit statuses, and how little it imports."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import typer

from groundup.bundle import Bundle
from groundup.cli import app, main

HEAVY = ["torch", "pandas", "sklearn", "mlflow", "onnx", "onnxruntime", "optuna", "fastapi", "matplotlib", "numpy", "scipy", "duckdb"]
COMMANDS = list(typer.main.get_command(app).commands)  # type: ignore[attr-defined]
QUICK = [f"--set={s}" for s in ("compress.schemes=[]", "rehearse.seconds=0.3", "rehearse.clean_windows=50", "evaluate.bootstrap=200")]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "80"}


class Done(NamedTuple):
    """How a command ended."""

    status: int
    out: str
    err: str


Call = Callable[..., Done]


@pytest.fixture
def groundup(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Call:
    """groundup(ARGUMENT, ...) -> how it ended, in this process."""
    monkeypatch.setenv("COLUMNS", "200")

    def call(*arguments: str | Path) -> Done:
        monkeypatch.setattr(sys, "argv", ["groundup", *map(str, arguments)])
        capfd.readouterr()
        with pytest.raises(SystemExit) as e:
            main()
        out, err = capfd.readouterr()
        return Done(int(e.value.code or 0), out, err)

    return call


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project that two commands made: `groundup init` and `groundup run`."""
    folder = tmp_path_factory.mktemp("project")
    for arguments in (["init", folder, "-t", "tabular"], ["run", folder, *QUICK]):
        command = [sys.executable, "-m", "groundup", *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=ENVIRONMENT, timeout=300)
        assert done.returncode == 0, done.stderr
    (folder / "shown.txt").write_text(done.stdout)
    return folder


def registered(project: Path) -> list[str]:
    return ["--home", str(project / ".groundup")]


# ── starting ────────────────────────────────────────────────────────────────────────────────────────


def test_starting_imports_no_heavy_library() -> None:
    """A tenth of a second or ten: `groundup --help` and the completion of a shell load this much and no more."""
    code = f"import sys, groundup, groundup.cli; print(sorted(set({HEAVY!r}) & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_reading_a_recipe_imports_no_training_library() -> None:
    heavy = ["torch", "sklearn", "mlflow", "optuna", "onnx"]
    code = f"import sys, groundup; groundup.Recipe.load('examples/digits'); print(sorted(set({heavy!r}) & set(sys.modules)))"
    root = Path(__file__).parents[1]
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_verb_has_help_and_describes_its_arguments(groundup: Call, name: str) -> None:
    status, out, _ = groundup(name, "--help")
    assert status == 0
    command = typer.main.get_command(app).commands[name]  # type: ignore[attr-defined]
    assert command.help
    assert command.help.split()[0] in out
    assert [p.name for p in command.params if not getattr(p, "help", None)] == []


def test_the_verbs_of_the_design_are_there(groundup: Call) -> None:
    promised = {"init", "validate", "plan", "run", "train", "tune", "evaluate", "compress", "verify", "serve"}
    promised |= {"monitor", "rollback", "score", "compare", "models", "data"}
    assert promised <= set(COMMANDS)
    status, out, _ = groundup("--version")
    assert (status, out.split()[0]) == (0, "groundup")


# ── recipes ─────────────────────────────────────────────────────────────────────────────────────────


def test_init_lists_writes_and_refuses(groundup: Call, tmp_path: Path) -> None:
    assert "tabular" in groundup("init", "--template", "list").out
    status, out, _ = groundup("init", tmp_path / "new", "-t", "regression")
    assert status == 0
    assert f"groundup run {tmp_path / 'new' / 'recipe.yaml'}" in out
    status, _, err = groundup("init", tmp_path / "new")
    assert status == 2
    assert "is there already" in err
    assert groundup("init", tmp_path / "new", "--force").status == 0
    assert "did you mean 'image'?" in groundup("init", tmp_path / "n", "-t", "imgae").err


def test_schema_prints_and_writes_the_same(groundup: Call, tmp_path: Path) -> None:
    printed = groundup("schema").out
    groundup("schema", tmp_path / "s.json")
    assert json.loads(printed) == json.loads((tmp_path / "s.json").read_text())


def test_a_misspelt_key_is_named_with_its_place(groundup: Call, tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text("name: a\ntask: tabular-classification\ndata: {source: iris}\nmodle: {name: logistic}\n")
    for verb in ("validate", "plan", "run"):
        status, _, err = groundup(verb, tmp_path)
        assert status == 2
        assert re.search(r"recipe.yaml:4:1: unknown key 'modle'; did you mean 'model'\?", err), err
    assert groundup("run", tmp_path / "nowhere").status == 2


@pytest.mark.parametrize(
    ("change", "check", "words"),
    [
        ("data.source=nowhere.csv", "data", "no such file: nowhere.csv"),
        ("data.source=brest_cancer", "data", "did you mean 'breast_cancer'?"),
        ("data.target=diagnosed", "data", "has no column 'diagnosed'; did you mean 'diagnosis'?"),
        ("gates={r2: {threshold: 0.9}}", "goals", "tabular-classification has no metric 'r2'"),
        ("model={class: 'sklearn.ensemble:RandomForestClasifier'}", "model", "did you mean 'RandomForestClassifier'?"),
        ("model={class: 'sklearn.ensemble:RandomForestRegressor'}", "model", "is a regressor, and the task is a classification"),
        ("model={class: 'sklearn.ensemble:RandomForestClassifier', n_estimators: -1}", "model", "n_estimators"),
        ("model={class: 'my_net:Net'}", "model", "my_net"),
        ("steps=[{name: clean, function: 'my_steps:clean'}]", "steps", "my_steps"),
    ],
)
def test_validate_finds_each_kind_of_mistake(groundup: Call, project: Path, change: str, check: str, words: str) -> None:
    before = sorted(p.name for p in project.iterdir())
    status, out, err = groundup("validate", project, "--set", change)
    assert status == 2
    line = " ".join(" ".join(out.splitlines()).split())
    assert re.search(rf"✗ {check} .*{re.escape(words)}", line), out
    assert "checks failed" in err
    assert sorted(p.name for p in project.iterdir()) == before  # nothing is kept


def test_validate_passes_and_plan_knows_what_is_cached(groundup: Call, project: Path) -> None:
    status, out, _ = groundup("validate", project)
    assert status == 0
    assert "✗" not in out
    lines = groundup("plan", project, *QUICK).out.splitlines()[1:]
    assert [line.split()[1] for line in lines] == ["cached"] * 9 if len(lines) == 9 else ["cached"] * 8
    changed = groundup("plan", project, *QUICK, "--set", "model.C=0.5").out
    assert re.search(r"train +to run +\d+ s, as last time +[\d,]+ MB +section|train +to run .*model\.C: null became 0\.5", changed), changed


def test_run_goes_from_to_and_set(groundup: Call, project: Path) -> None:
    status, out, err = groundup("run", project, *QUICK, "--from", "evaluate", "--to", "evaluate")
    assert status == 0
    assert re.search(r"● train\s+✓ from cache\s+● evaluate\s+(.*\s+)?✓ [\d.]+ s", err), err
    assert re.search(r"quality +accuracy +0\.\d{4} +\[0\.\d{4}, [01]\.\d{4}\] +95% interval", out), out
    assert "compress" not in err
    status, _, err = groundup("run", project, "--to", "evalute")
    assert status == 2
    assert "this recipe has the stages prepare, train" in err
    status, _, err = groundup("evaluate", project, *QUICK, "--set", "gates.accuracy.threshold=0.9999")
    assert status == 6
    assert re.search(r"accuracy.*0\.9999", err)


@pytest.mark.parametrize("stage", ["prepare", "train", "evaluate", "compress", "package", "rehearse", "register"])
def test_every_stage_is_a_verb(groundup: Call, project: Path, stage: str) -> None:
    status, _, err = groundup(stage, project, *QUICK)
    assert status == 0
    assert [line.split()[1] for line in err.splitlines() if line.startswith("●")][-1] == stage


def test_a_run_ends_with_the_table_that_a_person_wants(project: Path) -> None:
    shown = (project / "shown.txt").read_text()
    for expected in (
        r"data +569 rows: train 398, validation 57, test 114",
        r"quality +accuracy +0\.\d{4}  \[0\.\d{4}, [01]\.\d{4}\]  95% interval, n = 114",
        r" baseline +0\.\d{4}  \[0\.\d{4}, [01]\.\d{4}\]  logistic regression",
        r"2 of 2 gates passed",
        r"compression +fp32 +[\d.]+ kB  p50 [\d.]+ ms  p99 [\d.]+ ms",
        r"did not pay: fp32 stays",
        r"service +1 caller +p50 +[\d.]+ ms +p99 +[\d.]+ ms +[\d,]+ requests/s",
        r"32 callers +p50 ",
        r"drift +\d+ false alarms in 50 windows",
        r"alarm after [\d,]+ changed rows",
        r"proofs +(\d+) of \1 passed",
        r"registry +breast-cancer version 1 is champion",
        r"serve it:  \S*groundup serve \S+/build/bundle\n",
        r"read it: .*/build/report\.html\n",
    ):
        assert re.search(expected, shown), (expected, shown)
    table = [line for line in shown.splitlines() if line.startswith(("╭", "│", "╰"))]
    assert {len(line) for line in table} == {len(table[0])}
    assert len(table[0]) <= 80


# ── bundles ─────────────────────────────────────────────────────────────────────────────────────────


def test_verify_tells_a_good_bundle_from_a_changed_one(groundup: Call, project: Path, tmp_path: Path) -> None:
    import shutil

    status, out, _ = groundup("verify", project / "build" / "bundle")
    assert status == 0
    found = re.search(r"(\d+) of (\d+) proofs passed", out)
    assert found
    assert found[1] == found[2]
    shutil.copytree(project / "build" / "bundle", tmp_path / "b")
    graph = tmp_path / "b" / Bundle.open(tmp_path / "b").graph
    graph.write_bytes(graph.read_bytes()[:-1] + b"x")
    status, _, err = groundup("verify", tmp_path / "b")
    assert status == 5
    assert "damaged" in err


def test_score_answers_a_file(groundup: Call, project: Path, tmp_path: Path) -> None:
    status, out, _ = groundup("score", "models:/breast-cancer@champion", "breast_cancer", "-o", tmp_path / "p.csv", *registered(project))
    assert status == 0
    assert "wrote 569 answers" in out
    assert len((tmp_path / "p.csv").read_text().splitlines()) == 570
    status, _, err = groundup("score", project / "build" / "bundle", "digits", "-o", tmp_path / "q.csv")
    assert status == 3
    assert "this bundle takes records" in err


def test_serve_answers_and_leaves_on_sigterm(project: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "groundup", "serve", str(project / "build" / "bundle"), "--port", "0"]
    with open(tmp_path / "log", "wb") as log, subprocess.Popen(command, stdout=log, stderr=log, env=ENVIRONMENT) as process:
        try:
            deadline = time.monotonic() + 60
            while not (ready := re.search(r'"ready".*?"url": ?"([^"]+)"', (tmp_path / "log").read_text())):
                assert process.poll() is None, (tmp_path / "log").read_text()
                assert time.monotonic() < deadline
                time.sleep(0.05)
            record = {f.name: 1.0 for f in Bundle.open(project / "build" / "bundle").signature.inputs}
            request = urllib.request.Request(ready[1] + "predict", json.dumps([record]).encode(), {"content-type": "application/json"})
            with urllib.request.urlopen(request, timeout=10) as answer:
                assert set(json.load(answer)["predictions"][0]) == {"label", "probabilities"}
            process.send_signal(signal.SIGTERM)
            assert process.wait(20) == 0
        finally:
            process.kill()


def test_monitor_reports_drift_by_its_exit_status(groundup: Call, project: Path, tmp_path: Path) -> None:
    from sklearn.datasets import load_breast_cancer

    from groundup.monitoring.log import PredictionLog
    from groundup.monitoring.settings import LogSettings
    from groundup.serving.engine import Engine

    bundle = Bundle.open(project / "build" / "bundle")
    values = load_breast_cancer()
    columns = dict(zip([n.replace(" ", "_") for n in values.feature_names], values.data.T, strict=True))
    shuffled = np.random.default_rng(0).permutation(len(values.data))
    for name, shift, expected in (("same", 0.0, 0), ("moved", 2.0, 20)):
        inputs: dict[str, Any] = {}
        for f in bundle.signature.inputs:
            x = np.asarray(columns[f.name], float)[shuffled]
            inputs[f.name] = x + shift * x.std()
        log = PredictionLog(LogSettings(path=tmp_path / name), bundle.signature, bundle.version)
        log.append(inputs, Engine(bundle).run(inputs), times=(1.7e9 + np.arange(len(values.data))).tolist())
        log.close()
        status, out, err = groundup("monitor", bundle.path, "--log", tmp_path / name, "-o", tmp_path / f"{name}.html")
        assert status == expected, (out, err)
        assert ("no drift" in out) == (expected == 0)
        assert "<svg" in (tmp_path / f"{name}.html").read_text()
    status, _, err = groundup("monitor", bundle.path, "--log", tmp_path / "nowhere")
    assert status == 3
    assert "predictions-*.parquet" in err


def test_history_rollback_and_compare(groundup: Call, project: Path) -> None:
    assert groundup("run", project, *QUICK, "--set", "package.license=MIT", "--set", "model.C=0.5").status == 0
    assert groundup("score", "models:/breast-cancer@champion", "breast_cancer", "-o", project / "2.csv", *registered(project)).status == 0
    status, out, err = groundup("rollback", "breast-cancer", *registered(project))
    assert status == 0, err
    assert "version 2 → 1" in out
    status, out, _ = groundup("history", "breast-cancer", *registered(project))
    assert status == 0
    assert re.findall(r"(\S) → (\d) +(register|promote|rollback)", out) == [
        ("–", "1", "register"),
        ("–", "1", "promote"),
        ("1", "2", "register"),
        ("1", "2", "promote"),
        ("2", "1", "rollback"),
    ]
    status, _, err = groundup("rollback", "breast-cancer", "--to", "1", *registered(project))
    assert status == 5
    assert "version 1 is champion already" in err
    status, _, err = groundup("rollback", "nobody", *registered(project))
    assert status == 5
    assert "champions there: breast-cancer" in err
    runs = sorted(p.name for p in (project / ".groundup" / "runs").iterdir() if p.is_dir())
    status, out, err = groundup("compare", runs[0], "latest", *registered(project))
    assert status == 0, err
    assert "model.C" in out
    status, _, err = groundup("compare", "latest", "never", *registered(project))
    assert status != 0
    assert "never" in err


# ── catalogues ──────────────────────────────────────────────────────────────────────────────────────


def test_models_and_data_are_listed(groundup: Call) -> None:
    listed = groundup("models").out
    assert all(name in listed for name in ("cnn", "mlp", "linear", "logistic"))
    described = groundup("models", "cnn").out
    assert "parameters" in described
    assert "width" in described
    status, _, err = groundup("models", "cnnn")
    assert status == 2
    assert "did you mean 'cnn'?" in err
    assert all(name in groundup("data").out for name in ("digits", "breast_cancer", "diabetes"))

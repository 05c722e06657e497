"""tune: the space is checked against the sections, the search is repeatable, resumable and survives kill -9."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError
from sklearn.datasets import make_classification

from groundup.catalogue import Model
from groundup.errors import Interrupted, ModelError, RecipeError
from groundup.lifecycle.prepare import Data, Prepared, prepare
from groundup.lifecycle.stage import Context
from groundup.lifecycle.train import Train
from groundup.lifecycle.tune import Tune, Tuned, apply, check_space, tune

LR = {"type": "float", "low": 1e-3, "high": 1e-1, "log": True}
QUICK = Train.model_validate({"epochs": 3, "batch_size": 32})
MLP = Model.model_validate({"name": "mlp"})


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    folder = tmp_path_factory.mktemp("tune")
    X, y = make_classification(160, 4, n_informative=3, n_redundant=0, flip_y=0.2, random_state=0)
    lines = ["a,b,c,d,y"] + [",".join(f"{v:.4f}" for v in row) + f",{['no', 'yes'][k]}" for row, k in zip(X, y, strict=True)]
    (folder / "d.csv").write_text("\n".join(lines) + "\n")
    for name in ("out", "work"):
        (folder / name).mkdir()
    context = Context(root=folder, work=folder / "work")
    return prepare(Data(source="d.csv", target="y"), task="tabular-classification", out=folder / "out", context=context).save(
        folder / "out"
    )


def searched(folder: Path, data: Prepared, section: dict[str, Any], model: Model = MLP, stopping: threading.Event | None = None) -> Tuned:
    work, out = folder / "work", folder / "out"
    for path in (work, out):
        path.mkdir(parents=True, exist_ok=True)
    context = Context(root=folder, work=work, stopping=stopping or threading.Event())
    tuned = tune(Tune.model_validate({"workers": 1, **section}), model, QUICK, data, out=out, context=context)
    tuned.save(out)
    return Tuned.load(out)


def table(tuned: Tuned) -> list[Any]:
    return [(t.state, t.params, t.values, t.epochs) for t in tuned.trials]


SPACE = {"train.optimizer.lr": LR, "model.width": {"choices": [4, 8]}}


def test_the_best_of_all_trials_is_found_and_the_first_is_the_recipes_own(data: Prepared, tmp_path: Path) -> None:
    tuned = searched(tmp_path, data, {"trials": 6, "space": SPACE | {"model.width": {"choices": [8, 128]}}})
    assert len(tuned.trials) == 6
    assert tuned.trials[0].params == {"train.optimizer.lr": 3e-3, "model.width": 128}
    values = [t.values["accuracy"] for t in tuned.trials if t.values]
    assert tuned.best["accuracy"] == max(values)
    assert tuned.overrides == next(t.params for t in tuned.trials if t.number == tuned.best_trial)
    assert json.loads((tuned.path / "tune.json").read_text())["overrides"] == tuned.overrides
    svg = (tuned.path / "history.svg").read_text()
    assert "best so far" in svg
    model, train = apply(tuned.overrides, MLP, QUICK)
    assert train.optimizer.lr == tuned.overrides["train.optimizer.lr"]
    assert model.params["width"] == tuned.overrides["model.width"]
    assert train.epochs == QUICK.epochs


@pytest.mark.parametrize("sampler", ["tpe", "random", "gp"])
def test_one_worker_repeats_from_the_seed_and_resumes_to_the_same_trials(sampler: str, data: Prepared, tmp_path: Path) -> None:
    section = {"trials": 7, "sampler": sampler, "space": SPACE}
    whole = searched(tmp_path / "whole", data, section)

    class After(threading.Event):
        """Set once some trials have ended, within the next one."""

        looks = 45

        def is_set(self) -> bool:
            self.looks -= 1
            return self.looks < 0

    with pytest.raises(Interrupted):
        searched(tmp_path / "parts", data, section, stopping=After())
    parts = searched(tmp_path / "parts", data, section)
    assert table(whole) == table(parts)
    assert len(parts.trials) == 7


def test_a_grid_makes_each_point_once(data: Prepared, tmp_path: Path) -> None:
    space = {"model.width": {"choices": [4, 8]}, "train.batch_size": {"type": "int", "low": 32, "high": 64, "step": 32}}
    tuned = searched(tmp_path, data, {"trials": 20, "sampler": "grid", "space": space, "pruner": "none"})
    points = [(t.params["model.width"], t.params["train.batch_size"]) for t in tuned.trials]
    assert points == [(4, 32), (4, 64), (8, 32), (8, 64)]


def test_several_objectives_prune_by_the_metric_and_choose_the_cheapest_good_one(data: Prepared, tmp_path: Path) -> None:
    section = {
        "trials": 9, "maximize": "accuracy", "minimize": ["parameters"], "tolerance": 0.1, "pruner": "median",
        "space": {"model.width": {"choices": [4, 64]}, "train.optimizer.lr": {"type": "float", "low": 1e-6, "high": 1e-1, "log": True}},
    }  # fmt: skip
    tuned = searched(tmp_path, data, section)
    assert tuned.objectives == {"accuracy": "maximize", "parameters": "minimize"}
    assert any(t.state == "pruned" and t.epochs < 3 for t in tuned.trials)
    done = [t.values for t in tuned.trials if t.values]
    good = [v for v in done if v["accuracy"] >= max(d["accuracy"] for d in done) - 0.1 - 1e-9]
    assert tuned.best["parameters"] == min(v["parameters"] for v in good)


def test_an_estimator_is_searched_by_its_constructors_parameters(data: Prepared, tmp_path: Path) -> None:
    model = Model.model_validate({"class": "sklearn.neighbors:KNeighborsClassifier"})
    tuned = searched(tmp_path, data, {"trials": 5, "space": {"model.n_neighbors": {"type": "int", "low": 1, "high": 30}}}, model)
    assert tuned.best["accuracy"] == max(t.values["accuracy"] for t in tuned.trials)
    assert {t.state for t in tuned.trials} == {"complete"}


def test_a_setting_that_fails_is_recorded_and_the_search_goes_on(data: Prepared, tmp_path: Path) -> None:
    space = {"model.n_neighbors": {"choices": [5, 500]}}  # more neighbours than rows: the estimator refuses
    model = Model.model_validate({"class": "sklearn.neighbors:KNeighborsClassifier"})
    tuned = searched(tmp_path, data, {"trials": 2, "sampler": "grid", "space": space}, model)
    assert [(t.params["model.n_neighbors"], t.state) for t in tuned.trials] == [(5, "complete"), (500, "failed")]
    assert "500" in tuned.trials[1].error
    with pytest.raises(ModelError, match=r"none of 1 trials was completed; the first error: .*500"):
        searched(tmp_path / "all", data, {"trials": 1, "sampler": "grid", "space": {"model.n_neighbors": {"choices": [500]}}}, model)


@pytest.mark.parametrize(
    ("section", "said"),
    [
        ({"space": {"train.optimizer.lrr": LR}}, "lrr"),
        ({"space": {"optimizer.lr": LR}}, "names no setting; expected train.KEY or model.PARAMETER"),
        ({"space": {"train.optimizer.lr": LR | {"low": -1.0, "log": False}}}, "greater than 0"),
        ({"space": {"train.optimizer.lr": LR | {"high": 1e-9}}}, "expected low <= high"),
        ({"space": {"train.optimizer.lr": LR | {"type": "flaot"}}}, "flaot|tag"),
        ({"maximize": "log_loss"}, "better when it is smaller; write minimize: log_loss"),
        ({"maximize": "acuracy"}, "unknown objective 'acuracy'"),
        ({"sampler": "grid", "space": {"train.optimizer.lr": LR}}, "a grid needs points"),
    ],
)
def test_a_wrong_section_is_refused_when_the_recipe_is_read(section: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        Tune.model_validate(section)


def test_model_keys_are_checked_against_the_model() -> None:
    for space, said in (({"model.widht": {"choices": [1]}}, "did you mean 'width'"), ({"model.width": {"choices": ["wide"]}}, "width")):
        with pytest.raises(RecipeError, match=said):
            check_space(Tune.model_validate({"space": space}), MLP, QUICK)
    with pytest.raises(RecipeError, match=r"tune.space is empty"):
        check_space(Tune(), Model.model_validate({"name": "logistic"}), QUICK)


SCRIPT = """
import sys, json
from pathlib import Path
from groundup.lifecycle.tune import Tune, tune
from groundup.lifecycle.train import Train
from groundup.lifecycle.prepare import Prepared
from groundup.lifecycle.stage import Context
from groundup.catalogue import Model
folder, prepared, section = Path(sys.argv[1]), Path(sys.argv[2]), json.loads(sys.argv[3])
context = Context(root=folder, work=folder / "work")
train = Train(epochs=3, batch_size=32)
tune(Tune.model_validate(section), Model(name="mlp"), train, Prepared.load(prepared), out=folder / "out", context=context)
"""


def _alive(folder: Path) -> list[int]:
    """Processes whose command line names ``folder``."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                line = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if str(folder).encode() in line and int(entry.name) != os.getpid():
                found.append(int(entry.name))
    return found


@pytest.mark.slow
def test_parallel_workers_killed_and_resumed_make_every_trial_and_leave_no_process(data: Prepared, tmp_path: Path) -> None:
    for name in ("work", "out"):
        (tmp_path / name).mkdir()
    section = {"trials": 12, "workers": 2, "space": SPACE}
    command = [sys.executable, "-c", SCRIPT, str(tmp_path), str(data.path), json.dumps(section)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    journal = tmp_path / "work" / "journal.log"
    process = subprocess.Popen(command, env=environment)
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and not (journal.exists() and journal.read_text().count('"state":1') >= 2):
        time.sleep(0.1)
    process.send_signal(signal.SIGKILL)
    process.wait()
    while time.monotonic() < deadline and _alive(tmp_path):
        time.sleep(0.1)
    assert _alive(tmp_path) == []  # the workers notice that they are orphans
    with open(journal, "ab") as f:
        f.write(b'{"op_code": 4, "torn')  # and a kill within a write
    tuned = searched(tmp_path, data, section)
    assert len(tuned.trials) == 12
    assert tuned.workers == 2
    assert {t.state for t in tuned.trials} <= {"complete", "pruned"}
    assert _alive(tmp_path) == []
    assert np.isfinite(tuned.best["accuracy"])

"""An optional library that is absent: the message names it and the extra that brings it; what does without it works."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from command_line import CANCER, DIGITS, command, written

TUNED = DIGITS + "tune: {trials: 1, space: {train.optimizer.lr: {type: float, low: 1e-3, high: 1e-2}}}\n"
FOREIGN = CANCER.replace("{name: logistic}", "{class: 'sklearn.svm:SVC', probability: true}")

BLOCK = """
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {names!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Absent())
"""


def without(folder: Path, *names: str) -> dict[str, str]:
    """An environment in which these modules cannot be imported, as if nobody had installed them."""
    folder.mkdir(exist_ok=True)
    (folder / "sitecustomize.py").write_text(BLOCK.format(names=set(names)))
    return path_with(folder)


def path_with(folder: Path) -> dict[str, str]:
    return {"PYTHONPATH": os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")])}


@pytest.mark.parametrize(
    ("module", "library", "recipe", "stage"),
    [
        ("sklearn", "scikit-learn", CANCER, "prepare"),
        ("duckdb", "duckdb", CANCER, "prepare"),
        ("torch", "torch", DIGITS, "train"),
        pytest.param("optuna", "optuna", TUNED, "tune", marks=pytest.mark.slow),
        pytest.param("skl2onnx", "skl2onnx", FOREIGN, "train", marks=pytest.mark.slow),
    ],
)
def test_the_extra_is_named(tmp_path: Path, module: str, library: str, recipe: str, stage: str) -> None:
    env = without(tmp_path / "absent", module, "mlflow")  # which is done without, and takes long to import
    said = command("run", written(tmp_path, recipe), "--to", stage, env=env)
    said.refused(8, f"needs {library}, which is not installed; run: pip install 'groundup[train]'")


def test_tracking_does_without_mlflow_and_says_so(tmp_path: Path) -> None:
    said = command("run", written(tmp_path, CANCER), "--to", "train", env=without(tmp_path / "absent", "mlflow"))
    assert said.status == 0, said.err
    assert "recording runs needs mlflow, which is not installed; run: pip install 'groundup[train]'" in said.err


def test_validate_names_all_at_once(tmp_path: Path) -> None:
    said = command("validate", written(tmp_path, CANCER), env=without(tmp_path / "absent", "mlflow", "optuna", "torch"))
    assert said.status == 2
    assert "torch, optuna, mlflow, which is not installed; run: pip install 'groundup[train]'" in " ".join(said.out.split())
    assert "Traceback" not in said.err


def test_a_bundle_is_verified_without_anything_of_the_training_side(own: Path, tmp_path: Path) -> None:
    env = without(tmp_path / "absent", "torch", "sklearn", "pandas", "mlflow", "onnx", "duckdb", "pyarrow", "scipy", "optuna")
    said = command("verify", own / "build" / "bundle", env=env)
    assert said.status == 0, said.err
    assert "proofs passed" in said.out
    assert command("models", env=env).status == 0


@pytest.mark.parametrize("module", ["groundup.serving.engine", "yaml"])
def test_what_is_no_optional_library_is_not_called_one(tmp_path: Path, module: str) -> None:
    """A broken installation shows where it broke."""
    (tmp_path / "absent").mkdir()
    (tmp_path / "absent" / "sitecustomize.py").write_text(
        BLOCK.format(names=set()).replace('name.partition(".")[0] in set()', f"name == {module!r}")
    )
    said = command("verify" if "engine" in module else "plan", tmp_path, env=path_with(tmp_path / "absent"))
    assert said.status == 1
    assert f"No module named '{module}'" in said.err
    assert "pip install" not in said.err

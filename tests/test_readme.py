"""Every command that the README names is run, in order, in a folder of its own; its recipe is read."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from groundup.recipe import Recipe

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", README, re.DOTALL)
COMMANDS = [line for kind, text in BLOCKS if kind == "sh" for line in text.splitlines()]


def test_the_recipe_in_the_readme_is_one():
    recipes = [text for kind, text in BLOCKS if kind == "yaml"]
    assert recipes
    for text in recipes:
        assert Recipe.parse(text, name="README.md").name


def test_the_links_in_the_readme_lead_somewhere():
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", README) if "://" not in link]
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []


@pytest.mark.extras
def test_every_command_in_the_readme_runs(tmp_path):
    """In a copy, with this environment in place of the one that `make` would install."""
    assert "make demo" in COMMANDS
    assert "make test" in COMMANDS
    copy = tmp_path / "groundup"
    ignored = shutil.ignore_patterns(".git", ".venv*", ".groundup", "build", "site", ".*_cache", "__pycache__", ".hypothesis")
    shutil.copytree(ROOT, copy, ignore=ignored)
    (copy / ".venv").symlink_to(Path(sys.prefix))
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    for command in COMMANDS:
        if command == "make test":  # this is it
            continue
        if command == "make demo":
            command = ".venv/bin/groundup run examples/digits"  # what it runs once the environment is there
            assert "groundup run examples/digits" in (ROOT / "Makefile").read_text()
        arguments = command.split()
        if "serve" in arguments:
            _serve([*arguments, "--port", "0"], copy, environment)
            continue
        done = subprocess.run(arguments, cwd=copy, env=environment, capture_output=True, text=True, timeout=600)
        assert done.returncode == 0, f"{command}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"


def _serve(arguments: list[str], folder: Path, environment: dict[str, str]) -> None:
    with subprocess.Popen(arguments, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as server:
        assert server.stdout is not None
        for line in server.stdout:
            if "ready" in line:
                break
        else:
            raise AssertionError("the server never said that it was ready")
        server.terminate()
        server.stdout.read()
        assert server.wait(30) == 0

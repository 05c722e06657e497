"""One table of a user's own, full of Unicode, carried to a bundle once; file systems that say no."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from command_line import OWN, Zygote, call, own_table, written


@pytest.fixture(scope="session")
def own(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run: recipe, data, ``build/bundle``.  Not to be changed; copy what is to be damaged."""
    folder = written(tmp_path_factory.mktemp("faults") / "Bäume & Straßen", OWN)
    own_table().to_csv(folder / "Daten für März.csv", index=False)
    said = call("run", folder)
    assert said.status == 0, said.err
    return folder


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[Path]:
    """An empty folder on a file system of its own (tmpfs, 64 MB), where this user may mount one; see :func:`remount`."""
    folder = tmp_path / "mounted"
    folder.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(folder)], capture_output=True, check=False)
    if done.returncode:
        pytest.skip("mounting is not allowed here")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.fixture(scope="session")
def zygote() -> Iterator[Zygote]:
    """A process that has imported everything; commands that it runs start at once."""
    started = Zygote()
    yield started
    started.close()

"""Folders that cannot be written: full, read-only, limited, no folders at all.  What was finished stays, nothing half-written does."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
from pathlib import Path

import pytest
from command_line import CANCER, call, command, half_written, written


def outputs(home: Path) -> set[str]:
    """Stages whose output is in the cache."""
    return {path.parent.parent.name for path in home.glob("cache/*/*/output.json")}


def filled(folder: Path, leave: int) -> Path:
    """Take all of a file system but ``leave`` bytes; gives the file that holds it."""
    free = shutil.disk_usage(folder).free
    with open(folder / "filler", "wb") as f:
        os.posix_fallocate(f.fileno(), 0, max(free - leave, 1))
    return folder / "filler"


@pytest.mark.parametrize("leave", [0, 60_000, 400_000, 900_000])
def test_a_full_disk_is_told_and_the_same_command_goes_on_once_there_is_room(mounted: Path, leave: int) -> None:
    """However far the room reaches: into the first stage, the tracking database, the graphs."""
    written(mounted, CANCER)
    filler = filled(mounted, leave)
    said = call("run", mounted, "--to", "package")
    said.refused(10, "the disk is full: free some space and run the same command again; what was finished is kept")
    assert not half_written(mounted)
    before = outputs(mounted / ".groundup")
    filler.unlink()
    said = call("run", mounted, "--to", "package")
    assert said.status == 0, said.err
    assert "tracking" not in said.err, "the database that the full disk cut short works again"
    assert outputs(mounted / ".groundup") == {"prepare", "train", "evaluate", "compress", "package"} >= before
    assert not half_written(mounted)


def test_a_full_disk_while_publishing_leaves_the_old_bundle(own: Path, mounted: Path) -> None:
    """The cache is elsewhere; the folder of the recipe is full."""
    from groundup.bundle import Bundle

    home = own / ".groundup"
    for name in ("recipe.yaml", "schema.yaml", "Daten für März.csv"):
        shutil.copy2(own / name, mounted / name)
    shutil.copytree(own / "build", mounted / "build")
    version = Bundle.open(mounted / "build" / "bundle").version
    filled(mounted, 0)
    said = call("run", mounted, "--home", home, "--to", "package", "--set", "package.license=mit")
    said.refused(10, str(mounted), "the disk is full")
    assert Bundle.open(mounted / "build" / "bundle").version == version
    assert not half_written(mounted)


def test_a_read_only_folder(mounted: Path, tmp_path: Path) -> None:
    written(mounted, CANCER)
    subprocess.run(["mount", "-o", "remount,ro", str(mounted)], check=True)
    call("run", mounted, "--to", "prepare").refused(
        10, str(mounted), "the file system is read-only: choose another folder (--home for caches"
    )
    call("init", mounted / "new").refused(10, "read-only")
    call("schema", mounted / "schema.json").refused(10, "read-only")
    said = call("validate", mounted)
    assert said.status == 2
    assert "cannot be written" in said.out
    home = ("--home", tmp_path / "home")
    call("run", mounted, *home, "--to", "train").refused(10, "read-only", "for the schema alone: data.schema")
    elsewhere = call("run", mounted, *home, "--to", "train", "--set", f"data.schema={tmp_path / 'schema.yaml'}")
    assert elsewhere.status == 0, elsewhere.err
    assert call("plan", mounted).status == 0, "a plan writes nothing"


def test_files_that_may_not_grow(tmp_path: Path) -> None:
    """RLIMIT_FSIZE, as ``ulimit -f`` sets it."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))

    said = command("run", written(tmp_path, CANCER), "--to", "train", preexec_fn=limit)
    said.refused(10, "files may not grow so large here: raise the limit (ulimit -f)")
    assert not half_written(tmp_path)


@pytest.mark.parametrize("kind", ["file", "below a file", "nowhere"])
def test_a_home_that_is_no_folder(tmp_path: Path, kind: str) -> None:
    folder = written(tmp_path / "r", CANCER)
    home = {"file": tmp_path / "file", "below a file": tmp_path / "file" / "x", "nowhere": Path("/proc/nowhere")}[kind]
    (tmp_path / "file").write_text("mine")
    call("run", folder, "--home", home, "--to", "prepare").refused(10, f"cannot make the folder {home}", "choose another")
    assert (tmp_path / "file").read_text() == "mine"


def test_outputs_that_cannot_be_written(own: Path, tmp_path: Path) -> None:
    call("init", "/proc/nowhere").refused(10, "/proc/nowhere")
    call("schema", "/proc/nowhere/x.json").refused(10, "/proc/nowhere")
    call("schema", tmp_path).refused(10, str(tmp_path))
    call("serve", own / "build" / "bundle", "--token-file", tmp_path / "absent").refused(10, f"{tmp_path}/absent: No such file")

"""Folders that cannot be written: full, read-only, limited, no folders at all.  What was finished stays, nothing half-written does."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
from pathlib import Path

import pytest
from command_line import CANCER, OWN, call, command, half_written, own_table, written


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


def test_a_full_disk_while_publishing_leaves_the_old_bundle(own: Path, mounted: Path, tmp_path: Path) -> None:
    """The folder of the recipe has room; where ``build`` points is full."""
    from groundup.bundle import Bundle

    folder = tmp_path / "recipe"
    shutil.copytree(own, folder, ignore=shutil.ignore_patterns("build"))
    shutil.copytree(own / "build", mounted / "build")
    (folder / "build").symlink_to(mounted / "build")
    version = Bundle.open(folder / "build" / "bundle").version
    filled(mounted, 0)
    said = call("run", folder, "--to", "package", "--set", "package.license=mit")
    said.refused(10, str(folder / "build"), "the disk is full")
    assert Bundle.open(folder / "build" / "bundle").version == version
    assert not half_written(mounted)


def test_a_read_only_folder(mounted: Path) -> None:
    written(mounted, CANCER)
    subprocess.run(["mount", "-o", "remount,ro", str(mounted)], check=True)
    call("run", mounted, "--to", "prepare").refused(
        10, str(mounted), "the file system is read-only: choose another folder (--home for caches"
    )
    call("init", mounted / "new").refused(10, "read-only")
    call("schema", mounted / "schema.json").refused(10, "read-only")
    said = call("validate", mounted)
    assert said.status == 2
    assert "cannot be written; choose a folder of yours with --home" in " ".join(said.out.split())
    assert call("plan", mounted).status == 0, "a plan writes nothing"


def test_a_recipe_in_a_read_only_folder_publishes_in_the_home(mounted: Path, tmp_path: Path) -> None:
    """All of it: the schema is inferred once, kept, edited and held to; bundle and report are where the last lines say."""
    from groundup.bundle import Bundle

    written(mounted, OWN)
    own_table().to_csv(mounted / "Daten für März.csv", index=False)
    subprocess.run(["mount", "-o", "remount,ro", str(mounted)], check=True)
    home = tmp_path / "home"
    assert call("validate", mounted, "--home", home).status == 0
    assert not home.exists()
    said = call("run", mounted, "--home", home)
    assert said.status == 0, said.err
    build = home / "build" / "own"
    shown = {Path(word).resolve() for line in said.out.splitlines() for word in line.split(": ")[-1].split()}
    assert {build / "bundle", build / "report.html"} <= shown, "as a path from here where that is shorter"
    assert Bundle.open(build / "bundle").name == "own"
    assert "<html" in (build / "report.html").read_text()
    schema = build / "schema.yaml"
    assert f"a schema is looked for, and written, at {schema}" in said.err
    assert {p.name for p in mounted.iterdir()} == {"recipe.yaml", "Daten für März.csv"}
    plan = call("plan", mounted, "--home", home)
    assert plan.out.count("cached") == 8, plan.out
    schema.write_text(schema.read_text(encoding="utf-8").replace("kind: integer", "kind: whole"), encoding="utf-8")
    call("run", mounted, "--home", home, "--to", "prepare").refused(3, "columns.количество.kind", "(got 'whole')")


def test_a_home_of_ones_own_keeps_all_that_is_made_out_of_a_folder_that_could_be_written(tmp_path: Path) -> None:
    folder, home = written(tmp_path / "r", CANCER), tmp_path / "home"
    said = call("run", folder, "--home", home, "--to", "package")
    assert said.status == 0, said.err
    assert (home / "build" / "cancer" / "bundle" / "bundle.json").exists()
    assert {p.name for p in folder.iterdir()} == {"recipe.yaml", "schema.yaml"}
    shutil.copytree(home, folder / ".groundup")
    said = call("run", folder, "--home", folder / ".groundup", "--to", "package")
    assert said.status == 0, said.err
    assert (folder / "build" / "bundle" / "bundle.json").exists(), "its own home by name is its own home"


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


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (["models"], 0),
        (["data"], 0),
        (["history", "x"], 5),
        (["rollback", "x"], 5),
        (["compare", "a", "b"], 3),
        (["verify", "models:/x@champion"], 5),
        (["serve", "models:/x/1"], 5),
        (["plan"], 2),
        (["validate"], 2),
    ],
)
def test_what_only_reads_writes_nothing(arguments: list[str], status: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert call(*arguments).status == status
    assert not list(tmp_path.iterdir())

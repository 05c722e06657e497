"""Data that cannot be used as it is: every message names the file and, where there is one, the line or column; nothing is left."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from command_line import QUICK, Said, call, half_written, own_table, written

NAME = "größe.csv"


def run_on(folder: Path, table: pd.DataFrame | bytes, *arguments: str, data: str = "", to: str = "prepare") -> Said:
    """A run on a table of our own as far as ``to``."""
    recipe = f"name: d\ntask: tabular-classification\ndata: {{source: {NAME}, target: Art{data}}}\nmodel: {{name: logistic}}\n{QUICK}"
    written(folder, recipe)
    if isinstance(table, bytes):
        (folder / NAME).write_bytes(table)
    else:
        table.to_csv(folder / NAME, index=False)
    said = call("run", folder, "--to", to, *arguments)
    assert not half_written(folder)
    return said


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        (b"", [f"{NAME} is empty"]),
        (b"x,Art\n", [f"{NAME} has column names but no rows; expected at least one row"]),
        (b"x,x,Art\n1,2,a\n", [f"{NAME}:1: column name 'x' stands there more than once; rename one of them"]),
        ("x,Art\n1,größe\n".encode("latin-1"), [f"{NAME}:2: byte 0xf6 is not UTF-8; save the file as UTF-8"]),
        (b"PK\x03\x04" + bytes(100), ["is a zip archive or a workbook"]),
        (b"x,Art\n" + b"1,a\n" * 50, [f"column 'Art' of {NAME} holds only 'a'; a classification needs at least two classes"]),
        (b"x,Art\n1,a\n2,b\n", ["row"]),
        (b"x,Art\n" + b"5,a\n5,b\n" * 50, ["column 'x' is no feature: always 5", "no column is left to predict from"]),
        (b"x,y\n" + b"5,a\n6,b\n" * 50, ["no column 'Art'"]),
        (b"x,Art\n" + b"5,\n6,\n" * 50, ["Art"]),
    ],
)
def test_tables_that_teach_nothing(tmp_path: Path, content: bytes, parts: list[str]) -> None:
    run_on(tmp_path, content).refused(3, *parts)
    assert {p.name for p in tmp_path.iterdir()} <= {"recipe.yaml", NAME, ".groundup", "schema.yaml.draft"}
    assert not list((tmp_path / ".groundup").glob("cache/*/*/output.json"))


@pytest.mark.parametrize("content", [b"x,Art\n" + b"5,a\n5,b\n" * 50, b"x,y\n" + b"5,a\n6,b\n" * 50, b"x,Art\n" + b"1,a\n" * 50])
def test_a_first_table_that_was_refused_leaves_no_schema_that_holds_the_corrected_one_to_it(tmp_path: Path, content: bytes) -> None:
    run_on(tmp_path, content).refused(3)
    said = run_on(tmp_path, own_table())
    assert said.status == 0, said.err
    assert "количество" in (tmp_path / "schema.yaml").read_text(encoding="utf-8")
    assert not (tmp_path / "schema.yaml.draft").exists()


def test_a_draft_can_be_corrected_in_place_of_the_data(tmp_path: Path) -> None:
    """The message names it, and what it hides may be wanted."""
    codes = "".join(f"{i}-{'ab'[i % 2]},{'ab'[i % 2]}\n" for i in range(100))
    run_on(tmp_path, b"x,Art\n" + codes.encode()).refused(
        3, "no column is left", "schema.yaml.draft says why of each", "edit it and name it schema.yaml"
    )
    draft = (tmp_path / "schema.yaml.draft").read_text()
    (tmp_path / "schema.yaml").write_text(draft.replace("kind: text, nullable: true, feature: false", "kind: category"))
    assert run_on(tmp_path, b"x,Art\n" + codes.encode()).status == 0
    assert "kind: category" in (tmp_path / "schema.yaml").read_text()


@pytest.mark.parametrize("source", ["absent.csv", "folder.csv", "fifo.csv", "x.parquet", "x.jsonl", "x.npz", "x.db", "dangling.csv"])
def test_sources_that_are_no_files(tmp_path: Path, source: str) -> None:
    """Missing, a folder, a pipe, and files that are not what their ending says."""
    (tmp_path / "folder.csv").mkdir()
    os.mkfifo(tmp_path / "fifo.csv")
    (tmp_path / "dangling.csv").symlink_to(tmp_path / "nowhere")
    for name in ("x.parquet", "x.jsonl", "x.npz", "x.db"):
        (tmp_path / name).write_bytes(b"this is no such file\n" * 10)
    recipe = f"name: d\ntask: tabular-classification\ndata: {{source: {source}, target: Art}}\nmodel: {{name: logistic}}\n{QUICK}"
    said = call("run", written(tmp_path, recipe), "--to", "prepare")
    said.refused(3, source)
    assert not half_written(tmp_path)


def test_a_locked_or_foreign_database(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "x.db") as con:
        con.execute("CREATE TABLE t (x INT, Art TEXT)")
    for extra, parts in (("", ["x.db", "no rows"]), (", table: tt", ["x.db", "tt"]), (", query: SELEC 1", ["x.db", "SELEC"])):
        recipe = f"name: d\ntask: tabular-classification\ndata: {{source: x.db, target: Art{extra}}}\nmodel: {{name: logistic}}\n{QUICK}"
        call("run", written(tmp_path, recipe), "--to", "prepare").refused(3, *parts)


def test_a_constant_column_is_left_out_with_a_note(tmp_path: Path) -> None:
    said = run_on(tmp_path, own_table().assign(fest=7, leer=np.nan))
    assert said.status == 0, said.err
    assert "fest" in said.err
    assert "leer" in said.err


def test_nan_infinity_and_huge_numbers_are_put_aside_or_refused(tmp_path: Path) -> None:
    table = own_table().astype({"Größe [µm]": object, "количество": object})
    table.loc[3, "Größe [µm]"] = "nan"
    table.loc[5, "Größe [µm]"] = "inf"
    table.loc[7, "Größe [µm]"] = "1e400"
    said = run_on(tmp_path / "few", table, data=", max_bad_rows: 0.05")
    assert said.status == 0, said.err
    (found,) = (tmp_path / "few" / ".groundup").glob("cache/prepare/*/quarantine.parquet")
    aside = pd.read_parquet(found)
    assert set(aside["row"]) <= {3, 5, 7}
    assert {5, 7} <= set(aside["row"])
    run_on(tmp_path / "many", table, data=", max_bad_rows: 0").refused(3, "Größe [µm]", "max_bad_rows")
    table["количество"] = [str(2**60 + i) for i in range(len(table))]
    run_on(tmp_path / "huge", table).refused(3, "количество")


def test_later_data_that_lacks_a_column_or_changes_its_kind_is_told_by_the_schema(tmp_path: Path) -> None:
    assert run_on(tmp_path, own_table()).status == 0
    assert (tmp_path / "schema.yaml").exists()
    run_on(tmp_path, own_table(seed=1).drop(columns="количество")).refused(3, "количество")
    run_on(tmp_path, own_table(seed=1).assign(количество="viel")).refused(3, "количество", "expected a whole number")
    run_on(tmp_path, own_table(seed=1).rename(columns={"Art": "Sorte"})).refused(3, "Art")
    (tmp_path / "schema.yaml").write_text("columns: [")
    run_on(tmp_path, own_table()).refused(3, "schema.yaml")


def test_validate_tells_the_same_early_and_leaves_nothing(tmp_path: Path) -> None:
    written(tmp_path, f"name: d\ntask: tabular-classification\ndata: {{source: {NAME}, target: Art}}\nmodel: {{name: logistic}}\n{QUICK}")
    said = call("validate", tmp_path)
    assert said.status == 2
    assert f"no such file: {NAME}" in " ".join(said.out.split())
    assert "checks failed" in said.err
    assert [p.name for p in tmp_path.iterdir()] == ["recipe.yaml"]


# ── images ──────────────────────────────────────────────────────────────────────────────────────────


def images(folder: Path, n: int = 30) -> Path:
    """Two classes of noise, light and dark, in every mode and many sizes."""
    from PIL import Image

    rng = np.random.default_rng(0)
    for name, level in (("hell ☀", 200), ("dunkel", 60)):
        (folder / name).mkdir(parents=True)
        for i in range(n):
            size = (8, 8) if i % 3 else (5 + i % 7, 9)
            pixels = Image.fromarray(rng.integers(level - 50, level + 50, (*size, 3), np.uint8))
            mode = ("RGB", "L", "P", "RGBA", "CMYK", "1", "I;16")[i % 7]
            kept = pixels.convert("L").convert("I").convert("I;16") if mode == "I;16" else pixels.convert(mode)
            kept.save(folder / name / (f"{i}.tif" if mode in ("CMYK", "I;16") else f"{i}.png"))
    return folder


IMAGES = (
    """
name: bilder
task: image-classification
data: {source: bilder, max_bad_rows: 0.05}
model: {name: cnn, width: 4}
train: {epochs: 1, batch_size: 8}
"""
    + QUICK
)


def test_images_of_every_size_and_mode_go_through_and_broken_ones_aside(tmp_path: Path) -> None:
    folder = images(tmp_path / "bilder")
    whole = (folder / "dunkel" / "1.png").read_bytes()
    (folder / "dunkel" / "kaputt 1.png").write_bytes(whole[: len(whole) // 2])
    (folder / "dunkel" / "kaputt 2.jpg").write_bytes(b"<html>")
    (folder / "dunkel" / "notiz.txt").write_text("keine")
    said = call("run", written(tmp_path, IMAGES), "--to", "prepare")
    assert said.status == 0, said.err
    (found,) = (tmp_path / ".groundup").glob("cache/prepare/*/quarantine.parquet")
    assert sorted(pd.read_parquet(found)["column"]) == ["dunkel/kaputt 1.png", "dunkel/kaputt 2.jpg"]
    assert "notiz.txt" in said.err


def test_too_many_broken_images_stop_the_run(tmp_path: Path) -> None:
    folder = images(tmp_path / "bilder", 10)
    for path in list((folder / "dunkel").iterdir())[:5]:
        path.write_bytes(b"no image")
    call("run", written(tmp_path, IMAGES), "--to", "prepare").refused(3, "max_bad_rows", "cannot be decoded")


def test_folders_that_are_no_classes(tmp_path: Path) -> None:
    call("run", written(tmp_path, IMAGES), "--to", "prepare").refused(3, "bilder")
    (tmp_path / "bilder").mkdir()
    call("run", tmp_path, "--to", "prepare").refused(3, "bilder holds no images; expected a subfolder for each class")
    images(tmp_path / "mehr")
    (tmp_path / "mehr" / "hell ☀" / "1.png").rename(tmp_path / "mehr" / "1.png")
    call("run", tmp_path, "--to", "prepare", "--set", "data.source=mehr").refused(3, "mehr/1.png stands in no class")

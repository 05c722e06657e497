"""The same table gives the same preparation whatever it comes from; images in every mode; archives."""

from __future__ import annotations

import gzip
import json
import sqlite3
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from groundup.data import fingerprint, sample, sources
from groundup.errors import DataError, MissingExtraError
from groundup.lifecycle.prepare import Data, Prepared

Prepare = Callable[..., Prepared]
N = 60


def table(seed: int, n: int = N) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "größe": np.where(rng.random(n) < 0.2, np.nan, rng.normal(size=n).round(3)),
            "n": rng.integers(-40, 40, n),
            "yes": rng.random(n) < 0.5,
            "when": pd.Timestamp("2020-02-28") + pd.to_timedelta(rng.integers(0, 10**6, n), unit="s"),
            "word": np.array(["a b", 'say "hi"', "x,y;z", "日本", None], dtype=object)[rng.integers(0, 5, n)],
            "label": np.array(["yes", "no"])[rng.integers(0, 2, n)],
        }
    )


def same(a: Prepared, b: Prepared) -> None:
    assert a.inputs == b.inputs
    assert (a.classes, a.feature_names, a.sizes) == (b.classes, b.feature_names, b.sizes)
    for split in a.sizes:
        np.testing.assert_array_equal(a.features(split), b.features(split))
        np.testing.assert_array_equal(a.targets(split), b.targets(split))
        np.testing.assert_array_equal(a.rows(split), b.rows(split))


def write(frame: pd.DataFrame, folder: Path) -> dict[str, dict[str, Any]]:
    """The frame in every format; format -> the keys of ``data`` that read it."""
    frame.to_csv(folder / "t.csv", index=False)
    frame.to_csv(folder / "semicolon.csv", index=False, sep=";")
    frame.to_csv(folder / "t.tsv", index=False, sep="\t")
    frame.to_csv(folder / "bom.csv", index=False, encoding="utf-8-sig")
    (folder / "packed.csv.gz").write_bytes(gzip.compress((folder / "t.csv").read_bytes()))
    frame.to_parquet(folder / "t.parquet", index=False)
    frame.to_json(folder / "t.jsonl", orient="records", lines=True, date_format="iso", double_precision=15)
    with sqlite3.connect(folder / "t.db") as con:
        frame.assign(when=frame["when"].astype(str), yes=np.where(frame["yes"], "true", "false")).to_sql("main table", con, index=False)
    con.close()
    files = ("t.csv", "semicolon.csv", "t.tsv", "bom.csv", "packed.csv.gz", "t.parquet", "t.jsonl", "t.db")
    return {name: {"source": name} for name in files} | {
        "url": {"source": "sqlite:///t.db?table=main%20table"},
        "query": {"source": "sqlite:///t.db", "query": 'SELECT * FROM "main table"'},
    }


def test_one_table_in_every_format(tmp_path: Path, prepared: Prepare, seed: int) -> None:
    every = {
        name: prepared(root=tmp_path, target="label", schema=f"{name}.yaml", **keys) for name, keys in write(table(seed), tmp_path).items()
    }
    first = every.pop("t.csv")
    assert [f["kind"] for f in first.inputs] == ["number", "integer", "boolean", "datetime", "category"]
    frame = table(seed)
    got = pd.concat([first.frame(s).assign(row=first.rows(s)) for s in first.sizes]).sort_values("row")
    np.testing.assert_array_equal(got["größe"], frame["größe"])
    assert got["word"].fillna("").tolist() == frame["word"].fillna("").tolist()
    assert got["when"].tolist() == frame["when"].tolist()
    for other in every.values():
        same(first, other)


texts = st.text(st.characters(exclude_categories=["Cs", "Cc", "Zs"]), min_size=1, max_size=6)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_random_tables_survive_every_format(tmp_path: Path, prepared: Prepare, data: st.DataObject) -> None:
    n = data.draw(st.integers(12, 40))
    words = data.draw(st.lists(texts, min_size=2, max_size=5, unique=True))
    frame = pd.DataFrame(
        {
            "x": data.draw(st.lists(st.floats(-1e6, 1e6).map(lambda v: round(v, 4)), min_size=n, max_size=n)),
            "größe": data.draw(st.lists(st.one_of(st.none(), st.integers(-(2**31), 2**31)), min_size=n, max_size=n)),
            "w": data.draw(st.lists(st.sampled_from(["v" + w for w in words]), min_size=n, max_size=n)),
            "label": ["a", "b", "c"] * (n // 3) + ["a"] * (n % 3),
        }
    )
    frame["größe"] = frame["größe"].astype("Int64")
    folder = tmp_path / f"t{len(list(tmp_path.iterdir()))}"
    folder.mkdir()
    frame.to_csv(folder / "t.csv", index=False)
    frame.to_parquet(folder / "t.parquet", index=False)
    frame.to_json(folder / "t.jsonl", orient="records", lines=True, double_precision=15, force_ascii=False)
    if frame["x"].nunique() == 1 and frame["größe"].nunique(dropna=False) == 1 and frame["w"].nunique() == 1:
        return  # nothing to predict from: refused, as test_bad_input shows
    one = prepared(root=folder, target="label", schema="a.yaml", source="t.csv", leaks="warn")
    same(one, prepared(root=folder, target="label", schema="b.yaml", source="t.parquet", leaks="warn"))
    same(one, prepared(root=folder, target="label", schema="c.yaml", source="t.jsonl", leaks="warn"))


def test_several_parquet_files(tmp_path: Path, prepared: Prepare) -> None:
    frame = table(0)
    frame.to_parquet(tmp_path / "all.parquet", index=False)
    (tmp_path / "parts").mkdir()
    frame[:25].to_parquet(tmp_path / "parts" / "a.parquet", index=False)
    frame[25:].to_parquet(tmp_path / "parts" / "b.parquet", index=False)
    one = prepared(root=tmp_path, source="all.parquet", target="label", schema="1.yaml")
    same(one, prepared(root=tmp_path, source="parts/*.parquet", target="label", schema="2.yaml"))


def test_zip_codes_stay_text(tmp_path: Path, prepared: Prepare) -> None:
    codes = [f"{c:05d}" for c in (501, 2138, 10001)] * 20
    pd.DataFrame({"zip": codes, "x": np.arange(60) * 0.1, "label": ["a", "b"] * 30}).to_csv(tmp_path / "t.csv", index=False)
    (tmp_path / "schema.yaml").write_text(
        "source: t.csv\ncolumns:\n  zip: {kind: category, categories: ['00501', '02138', '10001']}\n"
        "  x: {kind: number}\n  label: {kind: category, categories: [a, b]}\n"
    )
    got = prepared(root=tmp_path, source="t.csv", target="label", leaks="warn")
    assert got.inputs[0]["categories"] == ["00501", "02138", "10001"]


# ------------------------------------------------------------------------------------------------------------------ images


def folder_of_images(path: Path, rng: np.random.Generator, n: int = 8) -> None:
    for name in ("cat", "dog"):
        (path / name).mkdir(parents=True)
        for i in range(n):
            Image.fromarray(rng.integers(0, 256, (9, 7, 3)).astype(np.uint8)).save(path / name / f"{i:02}.png")


def test_folder_of_images_keeps_pixels_and_classes(tmp_path: Path, prepared: Prepare) -> None:
    folder_of_images(tmp_path / "pets", np.random.default_rng(0))
    (tmp_path / "pets" / "cat" / "notes.txt").write_text("not an image")
    got = prepared("image-classification", root=tmp_path, source="pets")
    assert got.classes == ["cat", "dog"]
    assert got.feature_shape == [3, 9, 7]
    assert "notes.txt" in got.notes[0]
    files = sorted((tmp_path / "pets").rglob("*.png"))
    for split in got.sizes:
        x, y = got.raw(split)["image"], got.targets(split)
        for pixels, label, row in zip(x, y, got.rows(split), strict=True):
            assert got.classes[label] == files[row].parent.name
            np.testing.assert_array_equal(pixels, np.asarray(Image.open(files[row])))


def test_every_mode_becomes_the_wanted_one(tmp_path: Path, prepared: Prepare) -> None:
    folder_of_images(tmp_path / "pets", np.random.default_rng(0))
    cat = tmp_path / "pets" / "cat"
    grey16 = np.full((9, 7), 0x8012, np.uint16)
    Image.fromarray(grey16).save(cat / "90_grey16.png")
    Image.new("CMYK", (7, 9), (0, 255, 255, 0)).save(cat / "91_cmyk.jpg")
    Image.new("RGBA", (7, 9), (255, 0, 0, 0)).save(cat / "92_clear.png")
    Image.new("RGB", (7, 9), (1, 2, 3)).quantize(4).save(cat / "93_palette.png")
    Image.new("L", (7, 9), 77).save(cat / "94_grey.png")
    turned = Image.new("RGB", (9, 7), (9, 9, 9))
    turned.putpixel((0, 0), (255, 255, 255))
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: rotate by 90° clockwise to see it upright
    turned.save(cat / "95_turned.png", exif=exif)
    Image.new("RGB", (70, 90), (50, 60, 70)).save(cat / "96_large.png")
    frames = [Image.new("RGB", (7, 9), colour) for colour in ((250, 0, 0), (0, 250, 0), (0, 0, 250))]
    frames[0].save(cat / "97_animated.gif", save_all=True, append_images=frames[1:], duration=50)
    got = prepared("image-classification", root=tmp_path, source="pets", leaks="ignore")
    assert got.quarantined == 0
    files = sorted((tmp_path / "pets").rglob("*.*"))
    pixels = {files[row].name[:2]: x for s in got.sizes for row, x in zip(got.rows(s), got.raw(s)["image"], strict=True)}
    assert (pixels["90"] == 0x80).all()
    assert pixels["91"][..., 0].min() > 200
    assert pixels["91"][..., 1:].max() < 60
    assert (pixels["92"] == 255).all()  # transparency shows white
    assert (pixels["93"] == [1, 2, 3]).all()
    assert (pixels["94"] == 77).all()
    assert pixels["95"].shape == (9, 7, 3)
    assert pixels["95"][0, -1].min() > 200
    assert (pixels["96"] == [50, 60, 70]).all()
    assert (pixels["97"] == [250, 0, 0]).all()  # the first frame


def test_size_and_mode_can_be_asked_for(tmp_path: Path, prepared: Prepare) -> None:
    folder_of_images(tmp_path / "pets", np.random.default_rng(0))
    got = prepared("image-classification", root=tmp_path, source="pets", image={"size": [4, 6], "mode": "L"})
    assert got.inputs[0]["shape"] == [4, 6, 1]
    assert got.feature_shape == [1, 4, 6]


def test_broken_images_are_put_aside(tmp_path: Path, prepared: Prepare) -> None:
    folder_of_images(tmp_path / "pets", np.random.default_rng(0), 20)
    dog = tmp_path / "pets" / "dog"
    (dog / "00.png").write_bytes((dog / "00.png").read_bytes()[:60])
    (dog / "01.png").write_bytes(b"")
    bomb = bytearray((dog / "02.png").read_bytes())
    bomb[16:24] = (60_000).to_bytes(4, "big") * 2  # says it has 3.6 thousand million pixels
    bomb[29:33] = zlib.crc32(bytes(bomb[12:29])).to_bytes(4, "big")
    (dog / "02.png").write_bytes(bytes(bomb))
    with pytest.raises(DataError, match=r"3 of 40 .*\n.*cannot be decoded"):
        prepared("image-classification", root=tmp_path, source="pets")
    got = prepared("image-classification", root=tmp_path, source="pets", **{"max-bad-rows": 0.1})
    aside = pd.read_parquet(got.path / "quarantine.parquet")
    assert aside["row"].tolist() == [20, 21, 22]
    assert aside["column"].tolist() == ["dog/00.png", "dog/01.png", "dog/02.png"]
    assert "pixels" in aside["reason"][2]
    assert sum(got.sizes.values()) == 37


def test_same_pixels_in_two_splits_are_moved(tmp_path: Path, prepared: Prepare) -> None:
    folder_of_images(tmp_path / "pets", np.random.default_rng(0), 30)
    cat = tmp_path / "pets" / "cat"
    for i in range(5):
        (cat / f"copy{i}.png").write_bytes((cat / f"{i:02}.png").read_bytes())
    got = prepared("image-classification", root=tmp_path, source="pets")
    seen = {x.tobytes() for x in got.raw("train")["image"]}
    assert not any(x.tobytes() in seen for s in ("validation", "test") for x in got.raw(s)["image"])


def test_images_outside_a_class_are_refused(tmp_path: Path, prepared: Prepare) -> None:
    folder_of_images(tmp_path / "pets", np.random.default_rng(0), 3)
    Image.new("L", (3, 3)).save(tmp_path / "pets" / "lost.png")
    with pytest.raises(DataError, match=r"lost\.png stands in no class"):
        prepared("image-classification", root=tmp_path, source="pets")


# ---------------------------------------------------------------------------------------------------------------- archives


def test_archives_of_images_and_of_numbers(tmp_path: Path, prepared: Prepare) -> None:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (30, 5, 7)).astype(np.uint8)
    np.savez_compressed(tmp_path / "images.npz", images=images, labels=np.arange(30) % 3)
    got = prepared("image-classification", root=tmp_path, source="images.npz")
    assert got.classes == ["0", "1", "2"]
    for s in got.sizes:
        np.testing.assert_array_equal(got.raw(s)["image"][..., 0], images[got.rows(s)])
    np.savez(tmp_path / "numbers.npz", x=rng.normal(size=(30, 11)), y=rng.normal(size=30))
    got = prepared("tabular-regression", root=tmp_path, source="numbers.npz")
    assert (got.feature_shape, got.classes, got.n_outputs) == ([11], None, 1)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x": np.zeros((9, 4)), "y": np.array([None] * 9)}, "never unpickled"),
        ({"x": np.zeros((9, 4)), "y": np.zeros(8)}, "one label for each of 9"),
        ({"data": np.zeros((9, 4)), "y": np.zeros(9)}, "expected the samples under one of x, X, images; it holds data, y"),
        ({"x": np.zeros(9), "y": np.zeros(9)}, r"expected samples of shape \(N, ...\)"),
        ({"x": np.zeros((0, 4)), "y": np.zeros(0)}, r"expected samples of shape \(N, ...\)"),
        ({"x": np.full((9, 4), np.nan), "y": np.arange(9) % 3}, "NaN or infinity"),
    ],
)
def test_archives_that_cannot_be_used(tmp_path: Path, prepared: Prepare, arrays: dict[str, Any], message: str) -> None:
    np.savez(tmp_path / "t.npz", **arrays)
    with pytest.raises(DataError, match=message):
        prepared("tabular-classification", root=tmp_path, source="t.npz", leaks="ignore")


def test_a_damaged_archive(tmp_path: Path, prepared: Prepare) -> None:
    np.savez(tmp_path / "t.npz", x=np.zeros((900, 4)), y=np.zeros(900))
    content = (tmp_path / "t.npz").read_bytes()
    (tmp_path / "t.npz").write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match="no readable NumPy archive"):
        prepared("tabular-classification", root=tmp_path, source="t.npz")


# --------------------------------------------------------------------------------------------------------- names and hashes


def test_every_embedded_name_prepares(prepared: Prepare) -> None:
    for entry in sources():
        if "scikit-learn" in entry.where:
            got = prepared(entry.task, source=entry.name, **({} if entry.name == "digits" else {"schema": f"{entry.name}.yaml"}))
            assert sum(got.sizes.values()) == entry.rows
            assert got.quarantined == 0
            assert not [n for n in got.notes if "leak" in n]
            assert all(p.passed for p in got.proofs)


def test_digits_are_the_sixteen_levels_spread_over_bytes(prepared: Prepare) -> None:
    from sklearn.datasets import load_digits

    got = prepared("image-classification", source="digits")
    x = got.raw("test")["image"]
    np.testing.assert_array_equal(x[..., 0], np.round(load_digits().images[got.rows("test")] * 255 / 16))
    assert (x.dtype, x.shape[1:], got.feature_shape) == (np.uint8, (8, 8, 1), [1, 8, 8])


def test_unknown_names_suggest_the_nearest(tmp_path: Path, prepared: Prepare) -> None:
    with pytest.raises(DataError, match="did you mean 'digits'"):
        prepared("image-classification", root=tmp_path, source="digit")
    (tmp_path / "sales.csv").write_text("a,b\n1,2\n")
    with pytest.raises(DataError, match=r"no such file: sale\.csv .* did you mean 'sales\.csv'"):
        prepared(root=tmp_path, source="sale.csv", target="b")


def test_fingerprint_follows_content_and_meaning(tmp_path: Path, prepared: Prepare) -> None:
    section = Data(source="t.csv", target="label")
    table(0).to_csv(tmp_path / "t.csv", index=False)
    first = fingerprint(section, tmp_path)
    got = prepared(root=tmp_path, source="t.csv", target="label")
    assert got.data_hash == first
    assert fingerprint(section, tmp_path) == first  # the schema that was written says nothing new
    schema = tmp_path / "schema.yaml"
    schema.write_text(schema.read_text() + "# a remark of mine\n" + schema.read_text().splitlines()[-1] + "\n")
    assert fingerprint(section, tmp_path) == first
    schema.write_text(schema.read_text().replace("größe: {kind: number, ", "größe: {kind: number, feature: false, "))
    edited = fingerprint(section, tmp_path)
    assert edited != first
    table(1).to_csv(tmp_path / "t.csv", index=False)
    assert fingerprint(section, tmp_path) not in (first, edited)


def test_fingerprint_of_a_database_follows_its_rows(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "t.db") as con:
        table(0).astype(str).to_sql("t", con, index=False)
    con.close()
    section = Data(source="t.db", target="label")
    first = fingerprint(section, tmp_path)
    assert fingerprint(section, tmp_path) == first
    with sqlite3.connect(tmp_path / "t.db") as con:
        con.execute("UPDATE t SET label = 'maybe' WHERE rowid = 3")
    con.close()
    assert fingerprint(section, tmp_path) != first


def test_sample_looks_at_the_first_rows_only(tmp_path: Path) -> None:
    frame = table(0, 500)
    frame.to_csv(tmp_path / "t.csv", index=False)
    got = sample(Data(source="t.csv", target="label"), tmp_path, "tabular-classification", 50)
    assert (got.rows, got.classes, got.problems) == (50, ["no", "yes"], [])
    assert got.frame is not None
    assert got.frame["n"].tolist() == frame["n"][:50].tolist()
    assert not (tmp_path / "schema.yaml").exists()
    with pytest.raises(DataError, match="did you mean 'label'"):
        sample(Data(source="t.csv", target="labels"), tmp_path, "tabular-classification", 50)


def test_sample_reports_what_does_not_fit_the_schema(tmp_path: Path, prepared: Prepare) -> None:
    frame = table(0)
    frame.to_csv(tmp_path / "t.csv", index=False)
    prepared(root=tmp_path, source="t.csv", target="label")
    frame.loc[3, "word"] = "unheard of"
    frame.to_csv(tmp_path / "t.csv", index=False)
    got = sample(Data(source="t.csv", target="label"), tmp_path, "tabular-classification", 50)
    assert got.problems == ["row 3, column 'word': expected one of the 4 categories, got 'unheard of'"]


def test_postgresql_without_its_driver_or_server(tmp_path: Path, prepared: Prepare) -> None:
    with pytest.raises(DataError, match="which table"):
        prepared(root=tmp_path, source="postgresql://user:secret@localhost:1/db", target="y")
    with pytest.raises((DataError, MissingExtraError)) as e:
        prepared(root=tmp_path, source="postgresql://user:secret@localhost:1/db", table="t", target="y")
    assert "secret" not in str(e.value)


def test_sqlite_tells_what_it_has(tmp_path: Path, prepared: Prepare) -> None:
    with sqlite3.connect(tmp_path / "t.db") as con:
        con.execute("CREATE TABLE one (a)")
        con.execute("CREATE TABLE two (a)")
    con.close()
    with pytest.raises(DataError, match=r"which table .* it has one, two"):
        prepared(root=tmp_path, source="t.db", target="a")
    with pytest.raises(DataError, match="no such table: three"):
        prepared(root=tmp_path, source="t.db", table="three", target="a")
    (tmp_path / "x.db").write_bytes(b"this is no database at all, whatever it is called" * 9)
    with pytest.raises(DataError, match="cannot be opened as SQLite"):
        prepared(root=tmp_path, source="x.db", target="a")


def test_json_lines_with_missing_keys(tmp_path: Path, prepared: Prepare) -> None:
    rows = [{"x": i * 1.5, "label": "ab"[i % 2]} | ({"y": i} if i % 3 else {}) for i in range(40)]
    (tmp_path / "t.jsonl").write_text("\n".join(map(json.dumps, rows)))
    got = prepared(root=tmp_path, source="t.jsonl", target="label", leaks="ignore")
    assert {f["name"]: f["nullable"] for f in got.inputs} == {"x": False, "y": True}

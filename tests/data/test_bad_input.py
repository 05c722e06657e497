"""Whatever is wrong with the data is said: where, what was expected, what came, what to do."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from groundup.errors import DataError, SchemaError
from groundup.lifecycle.prepare import Prepared

Prepare = Callable[..., Prepared]


def csv(path: Path, n: int = 100, seed: int = 0, **columns: Any) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    label = np.array(["a", "b"])[rng.integers(0, 2, n)]
    frame = pd.DataFrame({"x": rng.normal(size=n).round(3), "k": rng.integers(0, 9, n), "label": label, **columns})
    frame.to_csv(path, index=False)
    return frame


def replace_line(path: Path, line: int, content: str) -> None:
    lines = path.read_text().splitlines()
    lines[line - 1] = content
    path.write_text("\n".join(lines) + "\n")


def aside(got: Prepared) -> list[tuple[int, str, str]]:
    table = pd.read_parquet(got.path / "quarantine.parquet")
    return list(table.itertuples(index=False, name=None))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "t.csv is empty"),
        (b"\n\n", "t.csv is empty"),
        (b"x,k,label\n", "column names but no rows"),
        (b"x,x,label\n1,2,a\n", "column name 'x' stands there more than once"),
        ("x,label\n1,größe\n".encode("latin-1"), r"t.csv:2: byte 0xf6 is not UTF-8; .*iconv"),
        ("x,label\n1,a\n".encode("utf-16"), "UTF-16 text; save it as UTF-8"),
        (b"x,label\n1,\x00\x00\n", "zero bytes"),
        (b"PK\x03\x04" + bytes(99), "t.csv is a zip archive or a workbook"),
        (b"x,X,label\n1,2,a\n", r"t.csv:1: the column names 'x' and 'X' differ in nothing but large and small letters"),
        (b'x,label\n"1,a\n2,b\n3,a\n', "no line of t.csv is a row; the first, line 2: .*unterminated quote"),
    ],
)
def test_files_that_are_no_tables(tmp_path: Path, prepared: Prepare, content: bytes, message: str) -> None:
    (tmp_path / "t.csv").write_bytes(content)
    with pytest.raises(DataError, match=message):
        prepared(root=tmp_path, source="t.csv", target="label")
    assert not (tmp_path / "schema.yaml").exists()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t.xlsx", b"PK", "workbooks are not read; save the sheet as CSV"),
        ("t.json", b"{}", "one object a line"),
        ("t.pkl", b"", "pickles are never loaded"),
        ("t.zip", b"PK", "unpack it"),
        ("t.weird", b"x", r"cannot tell what 't\.weird' holds from its ending; give data.format"),
        ("t.jsonl", b'[\n{"x": 1, "label": "a"}\n]\n', "is one JSON list; write its objects one a line"),
        ("t.jsonl", b"1\n2\n", "has no column that can be read|no column 'label'"),
    ],
)
def test_files_of_other_kinds(tmp_path: Path, prepared: Prepare, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message):
        prepared(root=tmp_path, source=name, target="label")


def test_columns_that_cannot_be_told_apart_or_read(tmp_path: Path, prepared: Prepare) -> None:
    frame = csv(tmp_path / "t.csv")
    frame.assign(X=1.5).to_parquet(tmp_path / "t.parquet")
    with pytest.raises(DataError, match=r"t\.parquet: the column names 'x' and 'X' differ in nothing but"):
        prepared(root=tmp_path, source="t.parquet", target="label")
    pd.DataFrame({"items": [[1], [2]] * 40}).to_parquet(tmp_path / "u.parquet")
    with pytest.raises(DataError, match=r"u\.parquet has no column that can be read: 'items' holds values of type BIGINT\[\]"):
        prepared(root=tmp_path, source="u.parquet", target="items", schema="u.yaml")


def test_a_column_name_of_several_lines_stands_in_the_schema(tmp_path: Path, prepared: Prepare) -> None:
    frame = csv(tmp_path / "t.csv").rename(columns={"x": 'two\nlines\t"quoted" \x7f'})
    frame.to_csv(tmp_path / "t.csv", index=False)
    for _ in range(2):
        assert [f["name"] for f in prepared(root=tmp_path, source="t.csv", target="label").inputs] == ['two\nlines\t"quoted" \x7f', "k"]


def test_a_split_without_rows_is_refused(tmp_path: Path, prepared: Prepare) -> None:
    (tmp_path / "t.csv").write_text("x,label\n1.5,a\n2.5,b\n3.5,c\n")
    with pytest.raises(DataError, match=r"3 usable rows of t\.csv leave none for .*; expected a few dozen"):
        prepared(root=tmp_path, source="t.csv", target="label")


def test_wrong_bytes_far_down_are_put_aside(tmp_path: Path, prepared: Prepare) -> None:
    csv(tmp_path / "t.csv", 30_000, word="fine")
    content = (tmp_path / "t.csv").read_bytes().splitlines()
    content[20_000] = content[20_000].replace(b"fine", b"f\xfcr")
    (tmp_path / "t.csv").write_bytes(b"\n".join(content))
    got = prepared(root=tmp_path, source="t.csv", target="label")
    ((row, _, reason),) = aside(got)
    assert row == 19_999
    assert "unicode" in reason.lower()


def test_missing_file_and_missing_target(tmp_path: Path, prepared: Prepare) -> None:
    with pytest.raises(DataError, match=r"no such file: t\.csv"):
        prepared(root=tmp_path, source="t.csv", target="label")
    csv(tmp_path / "t.csv")
    with pytest.raises(DataError, match="which column is to be predicted"):
        prepared(root=tmp_path, source="t.csv")
    with pytest.raises(DataError, match="no column 'labl'; did you mean 'label'"):
        prepared(root=tmp_path, source="t.csv", target="labl")
    with pytest.raises(DataError, match=r"data.drop: t.csv has no column 'xx'; did you mean 'x'"):
        prepared(root=tmp_path, source="t.csv", target="label", drop=["xx"])
    with pytest.raises(DataError, match="sees its target"):
        prepared(root=tmp_path, source="t.csv", target="label", features=["x", "label"])


def test_a_number_that_is_none_is_put_aside(tmp_path: Path, prepared: Prepare) -> None:
    csv(tmp_path / "t.csv", 400)
    replace_line(tmp_path / "t.csv", 8, "about five,3,a")
    got = prepared(root=tmp_path, source="t.csv", target="label")
    assert [f["kind"] for f in got.inputs] == ["number", "integer"]
    assert aside(got) == [(6, "x", "expected a number, got 'about five'")]
    assert got.quarantined == 1
    assert sum(got.sizes.values()) == 399
    assert 6 not in np.concatenate([got.rows(s) for s in got.sizes])


def test_a_wrong_number_beyond_the_sample_is_put_aside(tmp_path: Path, prepared: Prepare) -> None:
    csv(tmp_path / "t.csv", 150_000)
    replace_line(tmp_path / "t.csv", 140_002, "1.5,seven,a")
    got = prepared(root=tmp_path, source="t.csv", target="label")
    assert [f["kind"] for f in got.inputs] == ["number", "integer"]
    assert aside(got) == [(140_000, "k", "expected a whole number, got 'seven'")]


def test_an_integer_that_turns_out_a_number(tmp_path: Path, prepared: Prepare) -> None:
    csv(tmp_path / "t.csv", 150_000)
    replace_line(tmp_path / "t.csv", 140_002, "1.5,3.25,a")
    got = prepared(root=tmp_path, source="t.csv", target="label")
    assert [f["kind"] for f in got.inputs] == ["number", "number"]
    assert got.quarantined == 0


def test_lines_that_are_no_rows_are_put_aside_and_counted(tmp_path: Path, prepared: Prepare) -> None:
    frame = csv(tmp_path / "t.csv", 400)
    replace_line(tmp_path / "t.csv", 9, "1.5,3")
    replace_line(tmp_path / "t.csv", 12, "1.5,3,a,and,more")
    got = prepared(root=tmp_path, source="t.csv", target="label")
    assert [row for row, _, _ in aside(got)] == [7, 10]
    rows = np.concatenate([got.rows(s) for s in got.sizes])
    assert sorted(rows) == [i for i in range(400) if i not in (7, 10)]
    for s in got.sizes:
        np.testing.assert_array_equal(got.frame(s)["x"], frame["x"][got.rows(s)])


def test_missing_targets_infinities_and_too_many(tmp_path: Path, prepared: Prepare) -> None:
    frame = csv(tmp_path / "t.csv", 300)
    frame.loc[4, "label"] = None
    frame.loc[5, "x"] = np.inf
    frame.to_parquet(tmp_path / "t.parquet")
    got = prepared(root=tmp_path, source="t.parquet", target="label")
    assert aside(got) == [(4, "label", "missing"), (5, "x", "infinite")]
    frame.loc[10:20, "label"] = None
    frame.to_parquet(tmp_path / "u.parquet")
    with pytest.raises(DataError, match=r"13 of 300 rows of u.parquet \(4.3%\).*\n  12 × label: missing\n  1 × x: infinite"):
        prepared(root=tmp_path, source="u.parquet", target="label", schema="u.yaml")
    got = prepared(root=tmp_path, source="u.parquet", target="label", schema="u.yaml", **{"max-bad-rows": 0.05})
    assert got.quarantined == 13


def test_infinity_is_put_aside_where_no_limit_is_declared(tmp_path: Path, prepared: Prepare) -> None:
    frame = csv(tmp_path / "t.csv", 300)
    frame.loc[5, "x"] = -np.inf
    frame.to_parquet(tmp_path / "t.parquet")
    (tmp_path / "schema.yaml").write_text(
        "source: t.parquet\ncolumns:\n  x: {kind: number}\n  k: {kind: integer}\n  label: {kind: category, categories: [a, b]}\n"
    )
    assert aside(prepared(root=tmp_path, source="t.parquet", target="label")) == [(5, "x", "infinite")]


def test_large_integers_are_refused_with_advice(tmp_path: Path, prepared: Prepare) -> None:
    csv(tmp_path / "t.csv", id=np.arange(100) * 7 + 2**60)
    with pytest.raises(DataError, match=r"'id' .* beyond 2\^53 .* data.drop"):
        prepared(root=tmp_path, source="t.csv", target="label")
    got = prepared(root=tmp_path, source="t.csv", target="label", drop=["id"])
    assert [f["name"] for f in got.inputs] == ["x", "k"]
    assert got.frame("test")["id"].iloc[0] >= 2**60


def test_columns_of_no_use_are_left_out_with_a_note(tmp_path: Path, prepared: Prepare) -> None:
    csv(tmp_path / "t.csv", one=1, name=[f"person {i}" for i in range(100)], row=np.arange(100), nothing=None)
    got = prepared(root=tmp_path, source="t.csv", target="label")
    assert [f["name"] for f in got.inputs] == ["x", "k"]
    told = " / ".join(got.notes)
    for part in (
        "'one' is no feature: always 1",
        "'name' is no feature: about",
        "'row' is no feature: numbers",
        "'nothing' is no feature: never",
    ):
        assert part in told
    assert set(got.frame("train")) >= {"one", "name", "row", "nothing"}


@pytest.mark.parametrize(("value", "message"), [("a", "only 'a'; a classification needs at least two"), (None, "no value at all")])
def test_one_class_only(tmp_path: Path, prepared: Prepare, value: str | None, message: str) -> None:
    frame = csv(tmp_path / "t.csv")
    frame.assign(label=value).to_csv(tmp_path / "t.csv", index=False)
    with pytest.raises(DataError, match=message):
        prepared(root=tmp_path, source="t.csv", target="label")


def test_task_and_target_that_do_not_fit(tmp_path: Path, prepared: Prepare) -> None:
    csv(tmp_path / "t.csv", 3000, y=np.random.default_rng(0).normal(size=3000))
    with pytest.raises(DataError, match="is the task a regression"):
        prepared(root=tmp_path, source="t.csv", target="y")
    with pytest.raises(DataError, match="a regression predicts numbers"):
        prepared("tabular-regression", root=tmp_path, source="t.csv", target="label")
    with pytest.raises(DataError, match=r"t\.csv is a table"):
        prepared("image-classification", root=tmp_path, source="t.csv", target="label")
    with pytest.raises(DataError, match="holds images"):
        prepared("tabular-classification", source="digits")
    with pytest.raises(DataError, match="made for tabular-regression"):
        prepared("tabular-classification", source="diabetes")
    with pytest.raises(DataError, match=r"data\.group is about columns"):
        prepared("image-classification", source="digits", group="x")


def test_broken_json_and_parquet(tmp_path: Path, prepared: Prepare) -> None:
    (tmp_path / "t.jsonl").write_text('{"x": 1, "label": "a"}\n{"x": 1, "label": \n' + '{"x": 2.5, "label": "b"}\n' * 200)
    got = prepared(root=tmp_path, source="t.jsonl", target="label", leaks="ignore")
    assert [row for row, _, _ in aside(got)][:1] == [1]
    (tmp_path / "empty.jsonl").write_text("")
    with pytest.raises(DataError, match=r"empty\.jsonl is empty"):
        prepared(root=tmp_path, source="empty.jsonl", target="label", schema="2.yaml")
    (tmp_path / "t.parquet").write_bytes(b"PAR1 but not really")
    with pytest.raises(DataError, match=r"t\.parquet cannot be read"):
        prepared(root=tmp_path, source="t.parquet", target="label", schema="3.yaml")


def test_nested_columns_are_left_out(tmp_path: Path, prepared: Prepare) -> None:
    frame = csv(tmp_path / "t.csv")
    frame.assign(items=[[1, 2]] * len(frame)).to_parquet(tmp_path / "t.parquet")
    got = prepared(root=tmp_path, source="t.parquet", target="label")
    assert any("'items' was not read" in note for note in got.notes)


# ------------------------------------------------------------------------------------------------------------------ schema


def test_schema_is_written_once_and_enforced_later(tmp_path: Path, prepared: Prepare) -> None:
    frame = csv(tmp_path / "t.csv", 400, city=np.array(["Graz", "Linz"])[np.arange(400) % 2])
    prepared(root=tmp_path, source="t.csv", target="label")
    written = (tmp_path / "schema.yaml").read_text()
    assert "k: {kind: integer, min: 0, max: 12}" in written
    assert "city: {kind: category, categories: [Graz, Linz]}" in written
    frame.loc[2, "k"] = 99
    frame.loc[3, "city"] = "Wien"
    frame.to_csv(tmp_path / "t.csv", index=False)
    got = prepared(root=tmp_path, source="t.csv", target="label")
    assert aside(got) == [(2, "k", "expected at most 12.0, got 99"), (3, "city", "expected one of the 2 categories, got 'Wien'")]
    assert (tmp_path / "schema.yaml").read_text() == written


def test_edits_of_the_schema_are_honoured(tmp_path: Path, prepared: Prepare) -> None:
    csv(tmp_path / "t.csv", 400)
    prepared(root=tmp_path, source="t.csv", target="label")
    path = tmp_path / "schema.yaml"
    text = path.read_text()
    path.write_text(text.replace("k: {kind: integer, min: 0, max: 12}", "k: {kind: category, nullable: true}"))
    got = prepared(root=tmp_path, source="t.csv", target="label")
    assert [f["kind"] for f in got.inputs] == ["number", "category"]
    assert got.inputs[1]["nullable"]
    assert got.feature_shape == [10]
    path.write_text(text.replace("x: {kind: number,", "x: {kind: number, feature: false,"))
    assert [f["name"] for f in prepared(root=tmp_path, source="t.csv", target="label").inputs] == ["k"]
    path.write_text(text.replace("k: {kind: integer, min: 0, max: 12}", "k: {kind: integer, max: 6}"))
    with pytest.raises(DataError, match=r"k: expected at most 6.0, got 7"):
        prepared(root=tmp_path, source="t.csv", target="label")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("x: {kind: number", "x: {knd: number", "unknown key columns.x.knd; did you mean 'kind'"),
        ("x: {kind: number", "x: {kind: float", r"columns.x.kind: .*got 'float'"),
        ("min: 0, max: 12", "min: low", r"columns.k.min"),
        ("k: {kind: integer, min: 0, max: 12}", "k: {kind: category, min: 0}", "min and max do not apply to kind category"),
        ("columns:", "columns: [", "not readable as YAML"),
        ("source: t.csv", "source: other.csv", "was made for other.csv"),
        ("  k: {", "  kk: {", r"lacks 'kk' \(it has the new 'k'\)"),
    ],
)
def test_a_wrong_schema_file_is_explained(tmp_path: Path, prepared: Prepare, old: str, new: str, message: str) -> None:
    csv(tmp_path / "t.csv", 400)
    prepared(root=tmp_path, source="t.csv", target="label")
    text = (tmp_path / "schema.yaml").read_text()
    assert old in text
    (tmp_path / "schema.yaml").write_text(text.replace(old, new, 1))
    with pytest.raises((SchemaError, DataError), match=message):
        prepared(root=tmp_path, source="t.csv", target="label")


def test_declared_dates_and_unique_values_are_enforced(tmp_path: Path, prepared: Prepare) -> None:
    when = pd.Timestamp("2024-01-01") + pd.to_timedelta(np.arange(400), unit="D")
    frame = csv(tmp_path / "t.csv", 400, when=when.strftime("%Y-%m-%d"), badge=np.arange(400) * 3)
    prepared(root=tmp_path, source="t.csv", target="label")
    path = tmp_path / "schema.yaml"
    path.write_text(path.read_text().replace("when: {kind: datetime}", "when: {kind: datetime, min: 2024-01-02}"))
    path.write_text(path.read_text().replace("badge: {kind: integer, ", "badge: {kind: integer, unique: true, "))
    frame.loc[9, "badge"] = 6
    frame.loc[11, "when"] = "someday"
    frame.to_csv(path.with_name("t.csv"), index=False)
    got = prepared(root=tmp_path, source="t.csv", target="label")
    assert [(row, column) for row, column, _ in aside(got)] == [(0, "when"), (9, "badge"), (11, "when")]
    assert "at least 2024-01-02, got 2024-01-01" in aside(got)[0][2]


# ------------------------------------------------------------------------------------------------------------------- leaks


def test_a_feature_made_from_the_target_stops_the_run(tmp_path: Path, prepared: Prepare) -> None:
    frame = csv(tmp_path / "t.csv", 400)
    frame.assign(paid=np.where(frame["label"] == "a", 100.0, 0) + frame["x"]).to_csv(tmp_path / "t.csv", index=False)
    with pytest.raises(DataError, match=r"'paid' alone predicts the target .* data\.drop"):
        prepared(root=tmp_path, source="t.csv", target="label")
    warned = prepared(root=tmp_path, source="t.csv", target="label", leaks="warn")
    assert any(note.startswith("leak: 'paid'") for note in warned.notes)
    assert not prepared(root=tmp_path, source="t.csv", target="label", drop=["paid"]).notes
    assert not prepared(root=tmp_path, source="t.csv", target="label", leaks="ignore").notes


def test_a_feature_that_is_the_regression_target_stops_the_run(tmp_path: Path, prepared: Prepare) -> None:
    y = np.random.default_rng(0).normal(size=2000)
    csv(tmp_path / "t.csv", 2000, y=y, euro=y * 1.1 + 3)
    with pytest.raises(DataError, match="'euro' alone predicts the target"):
        prepared("tabular-regression", root=tmp_path, source="t.csv", target="y", drop=["label"])


def test_a_table_joined_to_itself_stops_the_run(tmp_path: Path, prepared: Prepare) -> None:
    frame = csv(tmp_path / "t.csv", 300)
    pd.concat([frame, frame]).to_csv(tmp_path / "t.csv", index=False)
    with pytest.raises(DataError, match="have the same features as a training row"):
        prepared(root=tmp_path, source="t.csv", target="label")


def test_a_few_repeated_rows_are_moved_into_training(tmp_path: Path, prepared: Prepare) -> None:
    frame = csv(tmp_path / "t.csv", 300)
    pd.concat([frame, frame[:20]]).to_csv(tmp_path / "t.csv", index=False)
    got = prepared(root=tmp_path, source="t.csv", target="label")
    seen = {x.tobytes() for x in got.features("train")}
    assert not any(x.tobytes() in seen for s in ("validation", "test") for x in got.features(s))
    assert any("were moved into training" in note for note in got.notes)


def test_groups_and_times_hold_in_the_prepared_files(tmp_path: Path, prepared: Prepare, seed: int) -> None:
    rng = np.random.default_rng(seed)
    when = pd.Timestamp("2024-01-01") + pd.to_timedelta(rng.permutation(400), unit="h")
    csv(tmp_path / "t.csv", 400, patient=[f"p{i}" for i in rng.integers(0, 60, 400)], when=when)
    got = prepared(root=tmp_path, source="t.csv", target="label", group="patient", seed=seed)
    groups = [set(got.frame(s)["patient"]) for s in got.sizes]
    assert not groups[0] & groups[1]
    assert not groups[0] & groups[2]
    assert not groups[1] & groups[2]
    assert "patient" not in [f["name"] for f in got.inputs]
    got = prepared(root=tmp_path, source="t.csv", target="label", time="when", drop=["patient"], seed=seed)
    times = [got.frame(s)["when"] for s in got.sizes]
    assert times[0].max() < times[1].min()
    assert times[1].max() < times[2].min()


def test_dates_without_a_time_split_are_noted(tmp_path: Path, prepared: Prepare) -> None:
    csv(tmp_path / "t.csv", 100, when=pd.Timestamp("2024-01-01") + pd.to_timedelta(np.arange(100), unit="D"))
    got = prepared(root=tmp_path, source="t.csv", target="label")
    assert any("data.time" in note for note in got.notes)


# ---------------------------------------------------------------------------------------------------------------- cleaning


def test_the_users_function_is_applied_piece_by_piece(tmp_path: Path, prepared: Prepare) -> None:
    frame = csv(tmp_path / "t.csv", 120_000)
    seen: list[int] = []

    def clean(piece: pd.DataFrame) -> pd.DataFrame:
        seen.append(len(piece))
        return piece[piece["k"] != 3].assign(double=lambda f: f["x"] * 2 + f["k"])

    got = prepared(root=tmp_path, source="t.csv", target="label", clean=clean)
    assert max(seen) <= 100_000
    assert sum(seen) == 120_000
    assert [f["name"] for f in got.inputs] == ["x", "k", "double"]
    rows = np.concatenate([got.rows(s) for s in got.sizes])
    assert sorted(rows) == np.flatnonzero(frame["k"] != 3).tolist()
    test = got.frame("test")
    np.testing.assert_allclose(test["double"], test["x"] * 2 + test["k"])
    np.testing.assert_array_equal(test["x"], frame["x"][got.rows("test")])


def test_a_cleaning_keeps_the_classes_as_they_are_written(tmp_path: Path, prepared: Prepare) -> None:
    """DuckDB takes yes and no for truth values; a class keeps the text that stands there, with a cleaning as without."""
    lines = [f"{i * i % 97 / 7},{'yes' if i % 3 else 'no'}" for i in range(60)]
    (tmp_path / "t.csv").write_text("\n".join(["x,left", *lines]))
    got = prepared(root=tmp_path, source="t.csv", target="left", clean=lambda frame: frame)
    assert got.classes == ["no", "yes"]


def test_a_cleaning_that_loses_the_rows_is_refused(tmp_path: Path, prepared: Prepare) -> None:
    csv(tmp_path / "t.csv", 100)
    with pytest.raises(DataError, match="returns a DataFrame, got NoneType"):
        prepared(root=tmp_path, source="t.csv", target="label", clean=lambda f: None)
    with pytest.raises(DataError, match="keeps the frame's index"):
        prepared(root=tmp_path, source="t.csv", target="label", clean=lambda f: f.set_index(f.index + 1000))

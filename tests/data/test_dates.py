"""Dates in text mean one thing: what ISO 8601 says, what the schema says, or what no other order can be."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from groundup.bundle.signature import Field
from groundup.data.dates import FORMATS, check
from groundup.data.records import pieces
from groundup.data.settings import Data
from groundup.data.sources import find
from groundup.errors import DataError, SchemaError
from groundup.lifecycle.prepare import Prepared
from groundup.progress import Silent
from groundup.serving.records import column

Prepare = Callable[..., Prepared]
DAYS = pd.Timestamp("2023-11-05 14:30") + pd.to_timedelta(np.arange(400) * 26, unit="h")
UNSURE = pd.to_datetime([f"2024-{i % 12 + 1:02d}-{i // 12 % 12 + 1:02d}" for i in range(400)])


def write(folder: Path, when: Any, ending: str = "csv") -> pd.DataFrame:
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(
        {"x": rng.normal(size=len(when)), "when": list(when), "label": np.array(["a", "b"])[rng.integers(0, 2, len(when))]}
    )
    if ending == "csv":
        frame.to_csv(folder / "t.csv", index=False)
    else:
        frame.to_json(folder / "t.jsonl", orient="records", lines=True)
    return frame


def read(got: Prepared) -> pd.Series:
    """The dates as they were understood, by row of the source."""
    parts = [pd.Series(got.frame(s)["when"].to_numpy(), got.rows(s)) for s in got.sizes]
    return pd.concat(parts).sort_index()


def aside(got: Prepared) -> list[tuple[int, str, str]]:
    return list(pd.read_parquet(got.path / "quarantine.parquet").itertuples(index=False, name=None))


@pytest.mark.parametrize("ending", ["csv", "jsonl"])
@pytest.mark.parametrize(
    "format",
    [
        "%Y-%m-%d",
        "%Y/%m/%d %H:%M",
        "%Y-%m-%dT%H:%M:%S",
        "%Y.%m.%d",
        "%d/%m/%Y",
        "%m/%d/%Y",
        "%d.%m.%Y",
        "%d-%m-%Y %H:%M:%S",
        "%m/%d/%Y %I:%M %p",
        "%d %b %Y",
        "%B %d, %Y",
    ],
)
def test_dates_are_read_as_they_are_written(tmp_path: Path, prepared: Prepare, format: str, ending: str) -> None:
    write(tmp_path, DAYS.strftime(format), ending)
    got = prepared(root=tmp_path, source=f"t.{ending}", target="label")
    assert [f["kind"] for f in got.inputs if f["name"] == "when"] == ["datetime"]
    np.testing.assert_array_equal(read(got), pd.to_datetime(DAYS.strftime(format), format=format))
    assert (f"format: '{format}'" in (tmp_path / "schema.yaml").read_text()) == (not format.startswith("%Y") or "." in format)
    again = prepared(root=tmp_path, source=f"t.{ending}", target="label")  # now held to the schema
    np.testing.assert_array_equal(read(again), read(got))


def test_years_of_two_digits_are_told_by_the_values(tmp_path: Path, prepared: Prepare) -> None:
    """94 is no day; of 24 nobody knows."""
    texts = (DAYS - pd.Timedelta(days=30 * 365)).strftime("%d.%m.%y %H:%M")
    write(tmp_path, texts)
    got = read(prepared(root=tmp_path, source="t.csv", target="label"))
    np.testing.assert_array_equal(got, pd.to_datetime(texts, format="%d.%m.%y %H:%M"))
    write(tmp_path, DAYS.strftime("%y/%m/%d"))
    with pytest.raises(DataError, match=r'"%d/%m/%y" or "%y/%m/%d"'):
        prepared(root=tmp_path, source="t.csv", target="label", schema="other.yaml")


@pytest.mark.parametrize("broken", [False, True])
def test_offsets_are_brought_to_utc(tmp_path: Path, prepared: Prepare, broken: bool) -> None:
    """Also in the second reading, which one cell that is no date leads to."""
    texts = [f"{day:%Y-%m-%dT%H:%M:%S}{zone}" for day, zone in zip(DAYS, ["+02:00", "-05:30", "Z", ""] * 100, strict=True)]
    meant = pd.DatetimeIndex([pd.Timestamp(t if t[-1] == "Z" or t[-6] in "+-" else f"{t}Z").tz_convert("UTC") for t in texts])
    if broken:
        texts[7] = "soon"
        meant = meant.delete(7)
    write(tmp_path, texts)
    got = prepared(root=tmp_path, source="t.csv", target="label")
    np.testing.assert_array_equal(read(got), meant.tz_localize(None))
    assert [(row, column) for row, column, _ in aside(got)] == [(7, "when")] * broken


@pytest.mark.parametrize("ending", ["csv", "jsonl"])
@pytest.mark.parametrize(("format", "rival"), [("%d/%m/%Y", "%m/%d/%Y"), ("%m.%d.%Y", "%d.%m.%Y"), ("%d-%m-%Y %H:%M", "%m-%d-%Y %H:%M")])
def test_day_and_month_are_never_guessed(tmp_path: Path, prepared: Prepare, format: str, rival: str, ending: str) -> None:
    texts = UNSURE.strftime(format)
    write(tmp_path, texts, ending)
    place = "line 3" if ending == "csv" else "row 1"
    with pytest.raises(DataError) as told:
        prepared(root=tmp_path, source=f"t.{ending}", target="label")
    for part in (f"column 'when' of t.{ending}", f"{texts[1]!r} in {place}", f'"{format}"', f'"{rival}"', "schema.yaml.draft", "data.drop"):
        assert part in str(told.value)
    draft = (tmp_path / "schema.yaml.draft").read_text()
    for chosen in (format, rival):  # as the message says: write one of them, and name the draft schema.yaml
        other = rival if chosen == format else format
        head, _, remark = draft.partition("  # or")
        assert remark
        (tmp_path / "schema.yaml").write_text(head.replace(other, chosen) + remark.partition("\n")[2].join(["\n", ""]))
        got = prepared(root=tmp_path, source=f"t.{ending}", target="label")
        np.testing.assert_array_equal(read(got), pd.to_datetime(texts, format=chosen))
        assert got.quarantined == 0
    (tmp_path / "schema.yaml").unlink()
    assert [f["name"] for f in prepared(root=tmp_path, source=f"t.{ending}", target="label", drop=["when"]).inputs] == ["x"]


def test_one_value_settles_the_order(tmp_path: Path, prepared: Prepare) -> None:
    texts = list(UNSURE.strftime("%d/%m/%Y"))
    texts[250] = "13/02/2024"
    write(tmp_path, texts)
    np.testing.assert_array_equal(read(prepared(root=tmp_path, source="t.csv", target="label")), pd.to_datetime(texts, format="%d/%m/%Y"))


def test_values_that_contradict_each_other_are_not_settled_by_the_majority(tmp_path: Path, prepared: Prepare) -> None:
    texts = list(UNSURE.strftime("%d/%m/%Y"))
    texts[250:260], texts[300] = ["13/02/2024"] * 10, "02/14/2024"
    write(tmp_path, texts)
    with pytest.raises(DataError, match=r"contradict each other: '01/01/2024' in line 2 and '02/14/2024' in line 302; write"):
        prepared(root=tmp_path, source="t.csv", target="label")


def test_dates_in_several_ways_are_named_with_their_lines(tmp_path: Path, prepared: Prepare) -> None:
    write(tmp_path, [*DAYS.strftime("%d/%m/%Y")[:200], *DAYS.strftime("%Y-%m-%d")[200:]])
    with pytest.raises(DataError, match=r"several ways: '05/11/2023' in line 2 and '\d{4}-\d\d-\d\d' in line 202; write all in one way"):
        prepared(root=tmp_path, source="t.csv", target="label")


def test_a_date_in_another_format_than_the_schemas_is_put_aside(tmp_path: Path, prepared: Prepare) -> None:
    texts = list(DAYS.strftime("%d.%m.%Y"))
    texts[3], texts[4] = "2024-01-05", "31.02.2024"
    write(tmp_path, texts)
    got = prepared(root=tmp_path, source="t.csv", target="label")
    assert aside(got) == [(i, "when", f'expected a date in the format "%d.%m.%Y", got {texts[i]!r}') for i in (3, 4)]
    path = tmp_path / "schema.yaml"
    path.write_text(path.read_text().replace(", format: '%d.%m.%Y'", ""))
    with pytest.raises(DataError, match=r"when: expected a date such as 2024-12-31 .* stated as its `format` .*got '05\.11\.2023'"):
        prepared(root=tmp_path, source="t.csv", target="label")


def test_what_looks_a_little_like_dates_is_left_alone(tmp_path: Path, prepared: Prepare) -> None:
    n = 400
    rng = np.random.default_rng(0)
    frame = write(tmp_path, DAYS.strftime("%H:%M:%S"))
    frame["version"] = [f"{a}.{b}.{c}" for a, b, c in rng.integers(0, 40, (n, 3))]
    frame["part"] = [f"{a:03d}-{b:02d}" for a, b in rng.integers(0, 99, (n, 2))]
    frame["month"] = DAYS.strftime("%Y-%m")
    frame["count"] = DAYS.strftime("%Y%m%d")
    frame.to_csv(tmp_path / "t.csv", index=False)
    prepared(root=tmp_path, source="t.csv", target="label")
    assert "datetime" not in (tmp_path / "schema.yaml").read_text().split("columns:")[1]


def test_a_declared_format_reads_numbers_and_months(tmp_path: Path, prepared: Prepare) -> None:
    frame = write(tmp_path, DAYS.strftime("%Y%m%d"))
    frame["month"] = DAYS.strftime("%Y-%m")
    for name in ("t.csv", "t.parquet"):
        frame.to_csv(tmp_path / name, index=False) if name == "t.csv" else frame.assign(when=frame["when"].astype(int)).to_parquet(
            tmp_path / name
        )
        (tmp_path / "schema.yaml").write_text(
            f'source: {name}\ncolumns:\n  x: {{kind: number}}\n  when: {{kind: datetime, format: "%Y%m%d"}}\n'
            '  label: {kind: category, categories: [a, b]}\n  month: {kind: datetime, format: "%Y-%m"}\n'
        )
        got = prepared(root=tmp_path, source=name, target="label")
        np.testing.assert_array_equal(read(got), DAYS.normalize())
        assert got.frame("train")["month"].dt.day.unique().tolist() == [1]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('when: {kind: datetime, format: "%Q"}', "columns.when: .*%Q is not read in a date format; known are"),
        ('when: {kind: datetime, format: "dd/mm/yyyy"}', 'tells no year and month; expected a format such as "%d/%m/%Y"'),
        ('when: {kind: category, format: "%d/%m/%Y"}', "format does not apply to kind category"),
    ],
)
def test_a_wrong_format_in_the_schema_is_explained(tmp_path: Path, prepared: Prepare, line: str, message: str) -> None:
    write(tmp_path, DAYS.strftime("%d/%m/%Y"))
    (tmp_path / "schema.yaml").write_text(f"source: t.csv\ncolumns:\n  x: {{kind: number}}\n  {line}\n  label: {{kind: category}}\n")
    with pytest.raises(SchemaError, match=message):
        prepared(root=tmp_path, source="t.csv", target="label")


def test_every_format_that_is_tried_can_be_declared() -> None:
    for format in FORMATS:
        check(format)


@pytest.mark.parametrize("format", ["%Y-%m-%dT%H:%M:%S", "%d.%m.%Y %H:%M", "%m/%d/%Y %I:%M %p"])
def test_the_served_graph_means_the_same_moment(tmp_path: Path, prepared: Prepare, format: str) -> None:
    """What the server makes of ISO text, and what a scored CSV holds, is what the model was trained on."""
    texts = DAYS.strftime(format)
    frame = write(tmp_path, texts)
    got = prepared(root=tmp_path, source="t.csv", target="label")
    rows = got.rows("test")
    served = column(Field("when", "datetime"), [DAYS[i].isoformat() for i in rows])
    np.testing.assert_array_equal(served, got.raw("test")["when"])
    frame.drop(columns="label").to_csv(tmp_path / "new.csv", index=False)
    source = find(Data(source="new.csv"), tmp_path)
    (tmp_path / "w").mkdir()
    scored = [p for p in pieces(source, got.signature_inputs(), tmp_path / "w", Silent()) if p.inputs]
    np.testing.assert_array_equal(np.concatenate([p.inputs["when"] for p in scored])[rows], got.raw("test")["when"])
    assert not any(p.bad for p in scored)


def test_a_table_to_score_is_not_guessed_at_either(tmp_path: Path) -> None:
    write(tmp_path, UNSURE.strftime("%d/%m/%Y"))
    (tmp_path / "w").mkdir()
    with pytest.raises(
        DataError, match=r"column 'when' of t\.csv holds dates of which nobody can tell .* in line 3; write them as 2024-12-31"
    ):
        list(pieces(find(Data(source="t.csv"), tmp_path), [Field("when", "datetime", nullable=True)], tmp_path / "w", Silent()))

import io

import duckdb
import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from groundup.bundle.signature import MISSING_DATETIME
from groundup.monitoring.parquet import ColumnBuffer, _i64, _varint, write

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
ROWS = st.lists(
    st.tuples(
        st.one_of(st.none(), st.floats(allow_nan=False)),
        st.one_of(st.none(), st.booleans()),
        st.one_of(st.none(), TEXT.filter(bool)),
        st.one_of(st.none(), st.integers(-(2**50), 2**50)),
        st.binary(min_size=6, max_size=6),
        st.lists(st.floats(width=32, allow_nan=False), min_size=3, max_size=3),
    ),
    max_size=40,
)


def buffers(rows: list[tuple], cuts: list[int]) -> list[ColumnBuffer]:
    kinds = ["number", "boolean", "category", "datetime", "image", "tensor"]
    columns = [ColumnBuffer(("group" if i in (1, 2) else f"c{i}", k)[: 2 if i in (1, 2) else 1], k) for i, k in enumerate(kinds)]
    for start, stop in zip([0, *cuts], [*cuts, len(rows)], strict=True):
        part = rows[start:stop]
        n = len(part)
        values = list(zip(*part, strict=True)) or [[]] * 6
        columns[0].append(np.array([np.nan if v is None else v for v in values[0]], np.float64))
        columns[1].append(np.array([np.nan if v is None else float(v) for v in values[1]], np.float64))
        columns[2].append(np.array([*("" if v is None else v for v in values[2]), ""], object)[:-1])
        columns[3].append(np.array([MISSING_DATETIME if v is None else v for v in values[3]], np.int64))
        columns[4].append(np.frombuffer(b"".join(values[4]), np.uint8).reshape(n, 2, 3))
        columns[5].append(np.array(values[5], np.float32).reshape(n, 3))
    return columns


@settings(max_examples=60, deadline=None)
@given(ROWS, st.data())
def test_pyarrow_reads_back_every_value(rows: list[tuple], data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(rows)), max_size=3)))
    table = pq.read_table(io.BytesIO(write(buffers(rows, cuts), {"k": "ä"})))
    assert table.schema.metadata[b"k"] == "ä".encode()
    micros = [None if v is None else v.as_py() for v in table["c3"].cast("int64")]
    got = list(
        zip(
            table["c0"].to_pylist(),
            [g["boolean"] for g in table["group"].to_pylist()],
            [g["category"] for g in table["group"].to_pylist()],
            micros,
            table["c4"].to_pylist(),
            table["c5"].to_pylist(),
            strict=True,
        )
    )
    assert got == [(a, b, c, d, e, list(f)) for a, b, c, d, e, f in rows]
    assert str(table.schema.field("c3").type) == "timestamp[us, tz=UTC]"


def test_duckdb_reads_a_large_file(tmp_path) -> None:
    r = np.random.default_rng(0)
    x, words, p = r.normal(size=30_001), r.choice(["", "a", "bb"], 30_001).astype(object), r.random((30_001, 5)).astype(np.float32)
    x[::3] = np.nan
    columns = [
        ColumnBuffer(("inputs", "x"), "number"),
        ColumnBuffer(("inputs", "word"), "category"),
        ColumnBuffer(("outputs", "p"), "tensor"),
    ]
    for part in np.array_split(np.arange(30_001), 11):
        for column, values in zip(columns, (x, words, p), strict=True):
            column.append(values[part])
    path = tmp_path / "log.parquet"
    path.write_bytes(write(columns, {}))
    n, missing, total, blank, p_sum = (
        duckdb.connect()
        .execute(
            f"select count(*), count(*) filter (inputs.x is null), sum(inputs.x), count(*) filter (inputs.word is null), "
            f"sum(list_sum(outputs.p::double[])) from '{path}'"
        )
        .fetchone()
    )
    assert (n, missing, blank) == (30_001, np.isnan(x).sum(), (words == "").sum())
    assert total == pytest.approx(np.nansum(x), rel=1e-9)
    assert p_sum == pytest.approx(p.sum(dtype=np.float64), rel=1e-9)


def test_varints_are_leb128_and_integers_zigzag() -> None:
    assert [_varint(n).hex() for n in (0, 1, 127, 128, 300)] == ["00", "01", "7f", "8001", "ac02"]
    assert _i64(1)[1] == b"\x02"

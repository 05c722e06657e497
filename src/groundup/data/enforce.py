"""Holding a spilled table to its schema: rows that do not fit are named with column and reason.

pandera does the checking.  Most pieces of most columns are plainly right, which their summary (nulls, least, greatest,
different values) already proves; only columns whose summary leaves a doubt are handed to pandera, value by value.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from groundup.data.reading import Spill, unread
from groundup.data.schema import Column, Schema
from groundup.data.sources.base import BadRow, quoted, text
from groundup.errors import DataError


class Enforcer:
    """Checks pieces of one spilled table.

    Args:
        required: columns that may not be missing whatever the schema says (target, group, time).
        unused: columns that the recipe does not predict from; they may hold anything.
    """

    def __init__(self, schema: Schema, spill: Spill, required: set[str], unused: set[str]) -> None:
        self.schema, self.spill, self.required = schema, spill, required
        idle = unused - required
        self.columns = {name: c for name, c in schema.columns.items() if name in spill.kinds and name not in idle}

    def names(self) -> list[str]:
        """The columns that have something to check."""
        return [name for name, c in self.columns.items() if c.feature or c.unique or name in self.required or not c.nullable]

    def check(self, piece: Any, start: int) -> list[BadRow]:
        """What is wrong in a piece (pyarrow Table) that starts at row ``start`` of the spill."""
        found = [bad for bad in unread(piece, self.spill.kinds, start) if bad.column in self.columns]
        told = {(bad.row, bad.column) for bad in found}
        doubtful = [name for name in self.names() if self._doubtful(piece.column(name), self.columns[name], name)]
        if doubtful:
            found += [bad for bad in self._pandera(piece.select(doubtful), start) if (bad.row, bad.column) not in told]
        return found

    def _nullable(self, name: str) -> bool:
        return self.columns[name].nullable and name not in self.required

    def _doubtful(self, values: Any, column: Column, name: str) -> bool:
        import pyarrow as pa
        import pyarrow.compute as pc

        if values.null_count and not self._nullable(name):
            return True
        if values.null_count == len(values):
            return False
        if column.categories is not None:
            return not set(pc.unique(values).to_pylist()) <= {*column.categories, None}
        if column.kind not in ("number", "integer", "datetime"):
            return False
        if column.kind == "datetime":
            values = values.cast(pa.timestamp("us")).cast(pa.int64())
        span = pc.min_max(values).as_py()
        least, most = column.limits()
        if column.kind == "integer" and max(abs(span["min"]), abs(span["max"])) > 2**53:
            return True
        finite = bool(np.isfinite(span["min"]) and np.isfinite(span["max"]))
        return not finite or (least is not None and span["min"] < least) or (most is not None and span["max"] > most)

    def _pandera(self, piece: Any, start: int) -> list[BadRow]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # pandera's own imports warn; what it finds comes as SchemaErrors
            import pandera.pandas as pa
        import pyarrow as arrow

        schema = pa.DataFrameSchema(
            {name: pa.Column(None, self._checks(pa, self.columns[name]), nullable=self._nullable(name)) for name in piece.column_names}
        )
        frame = {}
        for name in piece.column_names:
            values = piece.column(name)
            if self.columns[name].kind == "datetime":
                values = values.cast(arrow.timestamp("us")).cast(arrow.int64())
            frame[name] = values.to_pandas(integer_object_nulls=True)
        import pandas as pd

        try:
            schema.validate(pd.DataFrame(frame), lazy=True)
        except pa.errors.SchemaErrors as e:
            cases = e.failure_cases
            found: dict[tuple[int, str], BadRow] = {}  # the first reason of each value: infinity is also above any limit
            for row, name, check, case in zip(cases["index"], cases["column"], cases["check"], cases["failure_case"], strict=True):
                bad = BadRow(start + int(row), str(name), self._reason(str(check), case, self.columns[str(name)]))
                found.setdefault((bad.row, bad.column), bad)
            return list(found.values())
        return []

    def _checks(self, pa: Any, column: Column) -> list[Any]:
        least, most = column.limits()
        checks = []
        if column.kind == "number":
            checks.append(pa.Check(lambda x: np.isfinite(x.astype(float)), name="finite", ignore_na=True))
        if column.kind == "integer":
            checks.append(pa.Check(lambda x: x.abs() <= 2**53, name="exact", ignore_na=True))
        if least is not None:
            checks.append(pa.Check(lambda x: x >= least, name="least", ignore_na=True))
        if most is not None:
            checks.append(pa.Check(lambda x: x <= most, name="most", ignore_na=True))
        if column.categories is not None:
            allowed = set(column.categories)
            checks.append(pa.Check(lambda x: x.isin(allowed), name="categories", ignore_na=True))
        return checks

    def _reason(self, check: str, case: Any, column: Column) -> str:
        if check == "not_nullable":
            return "missing"
        if check == "finite":
            return "infinite"
        if check == "exact":
            return f"expected an integer within 2^53, got {case}"
        if check == "categories":
            return f"expected one of the {len(column.categories or [])} categories, got {str(case)[:40]!r}"
        if column.kind == "datetime":
            case = np.datetime64(int(case), "us")
        return f"expected at least {column.min}, got {case}" if check == "least" else f"expected at most {column.max}, got {case}"

    def repeated(self, con: Any) -> list[BadRow]:
        """Rows whose value in a unique column stood in an earlier row."""
        found = []
        for name, column in self.columns.items():
            if not column.unique:
                continue
            c = quoted(name)
            rows = con.execute(
                f"SELECT n, v FROM (SELECT row_number() OVER () - 1 AS n, {c} AS v FROM read_parquet({text(str(self.spill.path))})) "
                "WHERE v IS NOT NULL QUALIFY row_number() OVER (PARTITION BY v ORDER BY n) > 1 ORDER BY n"
            ).fetchall()
            found += [BadRow(int(n), name, f"expected unique values, {str(v)[:40]!r} stood before") for n, v in rows]
        return found


def too_many(bad: list[BadRow], n_bad: int, n_rows: int, most: float, where: str) -> None:
    """Stop when more than the share ``most`` of the rows is in quarantine.

    Raises:
        DataError: with the five most frequent reasons.
    """
    if n_bad <= most * n_rows:
        return
    from collections import Counter

    reasons = Counter(f"{b.column + ': ' if b.column else ''}{b.reason}" for b in bad)
    top = "\n".join(f"  {count} × {reason}" for reason, count in reasons.most_common(5))
    raise DataError(
        f"{n_bad} of {n_rows} rows of {where} ({n_bad / n_rows:.1%}) do not fit the schema, "
        f"and data.max-bad-rows allows {most:.1%}; most often:\n{top}\n"
        "Correct the data, widen the schema, or raise data.max-bad-rows."
    )


def quarantine(path: Any, bad: list[BadRow]) -> None:
    """Write row number, column and reason of every rejected value as Parquet."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.table(
        {
            "row": pa.array([b.row for b in bad], pa.int64()),
            "column": pa.array([b.column for b in bad], pa.string()),
            "reason": pa.array([b.reason for b in bad], pa.string()),
        }
    )
    pq.write_table(table.sort_by("row"), path)

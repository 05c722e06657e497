"""Holding a spilled table to its schema: rows that do not fit are named with column and reason.

pandera does the checking.  Most pieces of most columns are plainly right, which the Parquet file's own statistics (nulls,
least, greatest) already prove, so they are not even read; columns that leave a doubt are handed to pandera, value by value.
"""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np

from groundup.data.reading import Spill, Summary, unread
from groundup.data.schema import Column, Schema, as_number
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

    def to_read(self, told: dict[str, Summary]) -> list[str]:
        """The columns of a piece that its statistics do not already prove right."""
        return [name for name in self.names() if name not in told or self._doubtful(told[name], self.columns[name], name)]

    def check(self, piece: Any, start: int) -> list[BadRow]:
        """What is wrong in a piece (pyarrow Table, whichever columns it has) that starts at row ``start`` of the spill."""
        found = [bad for bad in unread(piece, self.spill, start) if bad.column in self.columns]
        told = {(bad.row, bad.column) for bad in found}
        doubtful = [name for name in self.names() if name in piece.column_names and not self._plainly_right(piece.column(name), name)]
        if doubtful:
            found += [bad for bad in self._pandera(piece.select(doubtful), start) if (bad.row, bad.column) not in told]
        return found

    def _nullable(self, name: str) -> bool:
        return self.columns[name].nullable and name not in self.required

    def _plainly_right(self, values: Any, name: str) -> bool:
        import pyarrow.compute as pc

        column = self.columns[name]
        if column.categories is not None:
            if values.null_count and not self._nullable(name):
                return False
            return set(pc.unique(values).to_pylist()) <= {*column.categories, None}
        ranged = column.kind in ("number", "integer", "datetime") and values.null_count < len(values)
        span = pc.min_max(values).as_py() if ranged else {"min": None, "max": None}
        return not self._doubtful(Summary(values.null_count, span["min"], span["max"]), column, name)

    def _doubtful(self, told: Summary, column: Column, name: str) -> bool:
        """Whether a column with this summary may hold a value that does not fit."""
        if told.nulls and not self._nullable(name):
            return True
        if column.categories is not None:
            return True
        if column.kind not in ("number", "integer", "datetime") or told.least is None:
            return False
        low, high = as_number(told.least), as_number(told.most)
        least, most = column.limits()
        if column.kind == "integer" and max(abs(low), abs(high)) > 2**53:
            return True
        finite = math.isfinite(low) and math.isfinite(high)
        return not finite or (least is not None and low < least) or (most is not None and high > most)

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
        f"and data.max_bad_rows allows {most:.1%}; most often:\n{top}\n"
        'Correct the data, widen the schema, list a text that means "not known" under data.missing, or raise data.max_bad_rows.'
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

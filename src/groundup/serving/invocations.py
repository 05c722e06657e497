"""MLflow's scoring protocol: ``POST /invocations`` with exactly one of four forms, or CSV.

Source: mlflow/pyfunc/scoring_server.  Unlike MLflow, an error never echoes the input nor a stack trace.
"""

from __future__ import annotations

import csv
import io
import math
from typing import Any

from groundup.bundle.signature import Field, Signature
from groundup.serving import records
from groundup.serving.records import Arrays
from groundup.serving.refusal import RequestError, too_many_rows
from groundup.serving.strict_json import kind_of, loads

FORMS = ("dataframe_split", "dataframe_records", "instances", "inputs")


def media_type(header: str | None) -> str:
    """ "application/json" or "text/csv".

    Raises:
        RequestError: 415 for every other type, an unknown parameter, or a charset other than UTF-8.
    """
    parts = [p.strip() for p in (header or "").split(";")]
    kind = parts[0].lower()
    if kind not in ("application/json", "text/csv"):
        raise RequestError(415, "expected the content type application/json or text/csv")
    for parameter in parts[1:]:
        key, _, value = parameter.partition("=")
        if key.strip().lower() != "charset":
            raise RequestError(415, "the only parameter of the content type is charset")
        if value.strip().strip('"').lower() not in ("utf-8", "utf8"):
            raise RequestError(415, "expected the charset UTF-8")
    return kind


def read(signature: Signature, body: bytes, kind: str, limit: int, deadline: float = math.inf) -> Arrays:
    """Tensors of one request.

    Args:
        limit: rows that are taken.
        deadline: of the request, on the monotonic clock.

    Raises:
        RequestError: 400, 413, 504.
    """
    if kind == "text/csv":
        return _csv(signature, body, limit)
    request = loads(body, deadline)
    if type(request) is not dict:
        raise RequestError(400, f"expected an object with exactly one of {', '.join(FORMS)}, got {kind_of(request)}")
    given = [k for k in FORMS if k in request]
    if unknown := [k for k in request if k not in (*FORMS, "params")]:
        raise RequestError(400, f"unknown key {unknown[0][:80]!r}; expected exactly one of {', '.join(FORMS)}")
    if len(given) != 1:
        raise RequestError(400, f"expected exactly one of {', '.join(FORMS)}, got {' and '.join(given) or 'none'}")
    if request.get("params"):
        raise RequestError(400, "'params': this model takes none")
    value = request[given[0]]
    if given[0] == "dataframe_split":
        return _split(signature, value, limit)
    if given[0] == "inputs" and isinstance(value, dict):
        return records.from_columns(signature, value, limit)
    if not isinstance(value, list):
        raise RequestError(400, f"'{given[0]}': expected a list, got {kind_of(value)}")
    return records.from_records(signature, value, limit)


def _split(signature: Signature, value: Any, limit: int) -> Arrays:
    columns, data = (value.get("columns"), value.get("data")) if isinstance(value, dict) else (None, None)
    if not isinstance(columns, list) or not isinstance(data, list) or not set(value) <= {"columns", "data", "index"}:
        raise RequestError(400, "'dataframe_split': expected an object with the lists 'columns' and 'data'")
    if any(not isinstance(c, str) for c in columns) or len(set(columns)) != len(columns):
        raise RequestError(400, "'columns': expected different strings")
    for row, cells in enumerate(data):
        if not isinstance(cells, list) or len(cells) != len(columns):
            raise RequestError(400, f"'data', row {row}: expected a list of {len(columns)} values")
    return records.from_columns(signature, {c: [cells[i] for cells in data] for i, c in enumerate(columns)}, limit)


def _csv(signature: Signature, body: bytes, limit: int) -> Arrays:
    try:
        rows = list(csv.reader(io.StringIO(body.decode("utf-8"), newline=""), strict=True))
    except UnicodeDecodeError as e:
        raise RequestError(400, f"the body is not UTF-8 (byte {e.start})") from None
    except csv.Error as e:
        raise RequestError(400, f"the body is not CSV: {e}") from None
    rows = [r for r in rows if r]
    if len(rows) < 2:
        raise RequestError(400, "expected a line of column names and at least one row")
    if len(rows) - 1 > limit:
        raise too_many_rows(len(rows) - 1, limit)
    header = rows[0]
    if len(set(header)) != len(header):
        raise RequestError(400, "the line of column names names a column twice")
    for row, cells in enumerate(rows[1:]):
        if len(cells) != len(header):
            raise RequestError(400, f"row {row}: expected {len(header)} values, got {len(cells)}")
    fields = {f.name: f for f in signature.inputs}
    table = {
        name: [_cell(fields[name], r[i], n) if name in fields else r[i] for n, r in enumerate(rows[1:])] for i, name in enumerate(header)
    }
    return records.from_columns(signature, table, limit)


def _cell(field: Field, text: str, row: int) -> Any:
    if field.kind in ("image", "tensor"):
        raise RequestError(400, f"{field.name}: {field.kind}s cannot be sent as CSV; send JSON")
    if text == "":
        return None
    if field.kind in ("category", "datetime"):
        return text
    if field.kind == "boolean":
        word = text.strip().lower()
        if word not in ("true", "false", "1", "0"):
            raise RequestError(400, f"row {row}, {field.name}: expected true or false")
        return word in ("true", "1")
    try:
        number = float(text)
    except ValueError:
        raise RequestError(400, f"row {row}, {field.name}: expected a number") from None
    if number != number:
        raise RequestError(400, f"row {row}, {field.name}: expected a number; leave the cell empty where it is missing")
    return number

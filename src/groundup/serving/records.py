"""JSON values to tensors and back, by the table in ``groundup.bundle.signature``.

Every error names the column, the row, what was expected and what came, and leaves the value itself out.  Values are
converted a column at a time: NumPy does the work, and only a column that does not convert is looked at value by value.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np

from groundup.bundle.signature import MISSING_DATETIME, Field, Signature
from groundup.serving.refusal import RequestError, too_many_rows
from groundup.serving.strict_json import kind_of

Array = np.ndarray[Any, np.dtype[Any]]
Arrays = dict[str, Array]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_EXACT = 2**53  # integers travel as float64
_STEP = 65_536  # numbers that are read under one hold of the interpreter's lock
_EXPECTED = {
    "number": "a number",
    "integer": "a whole number",
    "boolean": "true or false",
    "category": "a string",
    "datetime": "an ISO 8601 date or time as a string",
    "image": "nested lists of whole numbers from 0 to 255",
    "tensor": "nested lists of numbers",
}
_ALLOWED: dict[str, set[type]] = {
    "number": {int, float, type(None)},
    "integer": {int, float, type(None)},
    "boolean": {bool, type(None)},
    "category": {str, type(None)},
    "datetime": {str, type(None)},
}


def from_records(signature: Signature, records: list[Any], limit: int) -> Arrays:
    """Tensors of a list of records.

    Args:
        records: objects {column: value}; where the model takes one input only, bare values do as well.
        limit: rows that are taken; refused before anything is converted.

    Raises:
        RequestError: 400, 413.
    """
    fields = signature.inputs
    if not records:
        raise RequestError(400, "expected at least one record, got an empty list")
    if len(records) > limit:
        raise too_many_rows(len(records), limit)
    if len(fields) == 1 and not isinstance(records[0], dict):
        return {fields[0].name: column(fields[0], records)}
    names = [f.name for f in fields]
    expected = set(names)
    for row, record in enumerate(records):
        if type(record) is not dict:
            raise RequestError(400, f"row {row}: expected an object with {_listed(names)}, got {kind_of(record)}")
        if record.keys() != expected:
            _check_names(names, record, f"row {row}: ")
    return {f.name: column(f, [record[f.name] for record in records]) for f in fields}


def from_columns(signature: Signature, columns: Mapping[str, Any], limit: int) -> Arrays:
    """Tensors of {column: list of values}, all of one length of at most ``limit``.

    Raises:
        RequestError: 400, 413.
    """
    names = [f.name for f in signature.inputs]
    _check_names(names, columns, "")
    lengths = {}
    for name, values in columns.items():
        if not isinstance(values, list):
            raise RequestError(400, f"{name}: expected a list with one value a row, got {kind_of(values)}")
        lengths[name] = len(values)
    if len(set(lengths.values())) != 1:
        raise RequestError(400, f"the columns differ in length: {', '.join(f'{k} has {v}' for k, v in list(lengths.items())[:20])}")
    rows = next(iter(lengths.values()))
    if not rows:
        raise RequestError(400, "expected at least one row, got none")
    if rows > limit:
        raise too_many_rows(rows, limit)
    return {f.name: column(f, columns[f.name]) for f in signature.inputs}


def column(field: Field, values: list[Any]) -> Array:
    """One input's tensor (N, *field.shape) of N JSON values.

    Raises:
        RequestError: 400.
    """
    if field.kind in ("image", "tensor"):
        return dense(field, values, len(values))
    if not set(map(type, values)) <= _ALLOWED[field.kind]:
        row = next(i for i, v in enumerate(values) if type(v) not in _ALLOWED[field.kind])
        raise _wrong(field, row, values[row])
    if not field.nullable and None in values:
        raise RequestError(
            400, f"row {values.index(None)}, {field.name}: expected {_EXPECTED[field.kind]}, got null; this column must be given"
        )
    if field.kind == "category":
        return _strings(field, values)
    if field.kind == "datetime":
        return np.array([_microseconds(field, row, v) for row, v in enumerate(values)], np.int64)
    try:
        numbers = np.array(values, np.float64)
    except OverflowError:
        raise RequestError(400, f"{field.name}: a number is beyond the range of float64") from None
    if (infinite := np.isinf(numbers)).any():
        raise RequestError(400, f"row {int(infinite.argmax())}, {field.name}: the number is beyond the range of float64")
    if field.kind == "integer":
        whole = np.isnan(numbers) | ((numbers == np.floor(numbers)) & (np.abs(numbers) <= _EXACT))
        if not whole.all():
            raise RequestError(
                400, f"row {int((~whole).argmax())}, {field.name}: expected a whole number of at most 2**53, got another number"
            )
    return numbers


def dense(field: Field, values: list[Any], rows: int) -> Array:
    """An image or tensor input (N, *field.shape) of nested lists; a last axis of one channel may be left out.

    Raises:
        RequestError: 400.
    """
    wanted = (rows, *field.shape)
    try:
        array = in_steps(values, math.prod(field.shape))
    except (ValueError, OverflowError):
        raise RequestError(400, f"{field.name}: {_shape_message(field)}, got lists of unequal lengths, or numbers out of range") from None
    if array.dtype.kind not in "iuf":
        raise RequestError(400, f"{field.name}: {_shape_message(field)}, got other values among them")
    if array.shape != wanted and not (field.shape[-1:] == (1,) and array.shape == wanted[:-1]):
        raise RequestError(400, f"{field.name}: {_shape_message(field)}, got {_shape(array.shape[1:])}")
    return cast(field, array).reshape(wanted)


def in_steps(values: list[Any], each: int) -> Array:
    """``np.array(values)``, where each value holds ``each`` numbers; what is large is taken apart in the course of it.

    NumPy holds the interpreter's lock while it reads a list, and so does freeing one: 0.4 s for 16 MiB of JSON.
    """
    step = max(1, _STEP // max(each, 1))
    if len(values) <= step:
        return np.array(values)
    array = np.concatenate([np.array(values[at : at + step]) for at in range(0, len(values), step)])
    while values:
        del values[-step:]
    return array


def cast(field: Field, array: Array) -> Array:
    """A numeric array as the dtype of an image or tensor input; what would change a value is refused.

    Raises:
        RequestError: 400.
    """
    if field.kind == "image":
        if array.dtype != np.uint8:
            if array.dtype.kind == "f" and not (np.isfinite(array).all() and (array == np.floor(array)).all()):
                raise RequestError(400, f"{field.name}: expected whole numbers from 0 to 255, got fractions")
            if array.size and (array.min() < 0 or array.max() > 255):
                raise RequestError(400, f"{field.name}: expected whole numbers from 0 to 255, got numbers outside of that range")
        return array.astype(np.uint8, copy=False)
    with np.errstate(over="ignore"):
        made = array.astype(np.float32, copy=False)
    if not np.isfinite(made).all():
        raise RequestError(400, f"{field.name}: expected finite numbers within the range of float32")
    return made


def to_records(outputs: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Answers as one object a row; for a classifier {"label": ..., "probabilities": [...]}."""
    names = list(outputs)
    columns = [outputs[n].tolist() for n in names]
    return [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]


def strings(field: Field, values: Sequence[str]) -> Array:
    """A category input (N,) of str; text that is not Unicode or holds NUL is refused.

    Raises:
        RequestError: 400.
    """
    for row, value in enumerate(values):
        if not value.isascii() and any("\ud800" <= c <= "\udfff" for c in value):
            raise RequestError(400, f"row {row}, {field.name}: the string holds half of a surrogate pair, which is not Unicode text")
        if "\0" in value:
            raise RequestError(400, f"row {row}, {field.name}: the string holds a NUL character")
    made = np.empty(len(values), object)
    made[:] = values
    return made


def _strings(field: Field, values: Sequence[Any]) -> Array:
    return strings(field, ["" if v is None else v for v in values])


def _microseconds(field: Field, row: int, value: str | None) -> int:
    if value is None:
        return MISSING_DATETIME
    try:
        moment = datetime.fromisoformat(value)
    except ValueError:
        raise RequestError(
            400, f"row {row}, {field.name}: expected {_EXPECTED['datetime']} such as '2026-03-01T12:00:00Z', got another string"
        ) from None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return (moment - _EPOCH) // _MICROSECOND


def _check_names(names: list[str], given: Mapping[str, Any], where: str) -> None:
    if unknown := [k for k in given if k not in names]:
        near = difflib.get_close_matches(unknown[0][:80], names, 1)
        hint = f"did you mean {near[0]!r}?" if near else f"the model takes {_listed(names)}"
        raise RequestError(400, f"{where}unknown column {unknown[0][:80]!r}; {hint}")
    if missing := [n for n in names if n not in given]:
        raise RequestError(400, f"{where}the column {missing[0]!r} is missing; expected {_listed(names)}")


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(names[:20])
    return shown + (f" and {len(names) - 20} more" if len(names) > 20 else "")


def _wrong(field: Field, row: int, value: Any) -> RequestError:
    missing = " or null" if field.nullable else ""
    return RequestError(400, f"row {row}, {field.name}: expected {_EXPECTED[field.kind]}{missing}, got {kind_of(value)}")


def _shape(shape: Sequence[int]) -> str:
    return " × ".join(map(str, shape)) or "a single number"


def _shape_message(field: Field) -> str:
    return f"expected {_EXPECTED[field.kind]}, {_shape(field.shape)} a row ({math.prod(field.shape)} numbers)"

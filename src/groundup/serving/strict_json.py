"""JSON as RFC 8259 has it, both ways: what the standard library lets through in silence is refused here.

Refused on the way in: bytes that are not UTF-8 (or carry a byte order mark), NaN and Infinity, duplicate keys, integers
of more than 4,300 digits, nesting beyond the interpreter's limit.  A literal such as 1e400 becomes an infinity in
Python; the readers of numbers refuse infinities.  On the way out NaN and infinities become null.
"""

from __future__ import annotations

import json
import math
from typing import Any

from groundup.serving import large_json
from groundup.serving.refusal import RequestError


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        seen: set[str] = set()
        twice = next(k for k, _ in pairs if k in seen or seen.add(k))  # type: ignore[func-returns-value]
        raise RequestError(400, f"the key {twice[:80]!r} stands twice in one object; each may stand once")
    return made


def _constant(name: str) -> Any:
    raise RequestError(400, f"{name} is not JSON; send null for a missing number")


_decoder = json.JSONDecoder(object_pairs_hook=_object, parse_constant=_constant)
_encoder = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"), check_circular=False)


def loads(body: bytes, deadline: float = math.inf) -> Any:
    """The value of a JSON document.

    Args:
        deadline: on the monotonic clock, for large bodies; they are read in steps (see ``large_json``).

    Raises:
        RequestError: 400, saying what is wrong and where; 504, the deadline has passed.
    """
    try:
        text = body.decode("utf-8")
        return _decoder.decode(text) if len(body) < large_json.LARGE else large_json.loads(text, _decoder, deadline)
    except UnicodeDecodeError as e:
        raise RequestError(400, f"the body is not UTF-8 (byte {e.start}); send JSON encoded as UTF-8") from None
    except json.JSONDecodeError as e:
        what = (
            "the body is empty; expected a JSON document"
            if not body.strip()
            else f"the body is not JSON: {e.msg} at line {e.lineno} column {e.colno}"
        )
        raise RequestError(400, what) from None
    except RecursionError:
        raise RequestError(400, "the body is nested too deeply; expected at most a few levels") from None
    except ValueError:
        raise RequestError(400, "the body holds a number with too many digits; at most 4300") from None


def dumps(value: Any, large: bool = False) -> bytes:
    """Compact UTF-8 JSON; NaN and infinities are written as null, lone surrogates as U+FFFD.

    Args:
        large: in steps, see ``large_json``; for a thread beside the event loop.
    """
    text = "".join(large_json.pieces(value, _encode)) if large else _encode(value)
    return text.encode("utf-8", "replace")


def _encode(value: Any) -> str:
    try:
        return _encoder.encode(value)
    except ValueError:
        return _encoder.encode(finite(value))


def finite(value: Any) -> Any:
    """``value`` with None in place of every NaN and infinity."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, list | tuple):
        return [finite(v) for v in value]
    if isinstance(value, dict):
        return {k: finite(v) for k, v in value.items()}
    return value


def kind_of(value: Any) -> str:
    """What a JSON value is, in words for an error message; the value itself is not repeated."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "a boolean"
    if isinstance(value, int | float):
        return "a number"
    if isinstance(value, str):
        return "a string"
    return "a list" if isinstance(value, list) else "an object"

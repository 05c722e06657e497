"""Large bodies: what is read and written in steps is what is read and written at once, and the event loop goes on meanwhile."""

from __future__ import annotations

import asyncio
import json
import math
import threading
import time
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from groundup.bundle import Field
from groundup.serving import large_json, records, strict_json
from groundup.serving.aside import Aside
from groundup.serving.refusal import RequestError
from groundup.serving.strict_json import dumps

TEXT = st.text(st.sampled_from('a[]{}",:\\ é\n'), max_size=6)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda v: st.lists(v, max_size=9) | st.dictionaries(TEXT, v, max_size=5),
    max_leaves=40,
)
MARKS = st.sampled_from([",", "[", "]", "{", "}", '"', ":", " ", "\n", "1", "-", "e", "NaN", "\\", "null", '"a":'])


def outcome(read: Any) -> tuple[str, Any]:
    """The value, or the kind of the refusal."""
    try:
        return "value", repr(read())
    except json.JSONDecodeError:
        return "not JSON", None
    except RequestError as e:
        return "refused", (e.status, e.message)


@settings(max_examples=600, deadline=None)
@given(
    JSON,
    st.sampled_from([None, 0, 2]),
    st.lists(st.tuples(st.integers(0, 400), MARKS, st.booleans()), max_size=3),
    st.sampled_from([1, 3, 8, 20, 64, 1 << 16]),
)
@example([], None, [(1, ",", False)], 64)  # "[,]": a run of nothing
@example([1, 2], None, [(2, ",", False)], 64)
@example([[1], [2]], None, [(4, "}", True)], 64)
def test_in_steps_is_the_same_language(value: Any, indent: int | None, damage: list[tuple[int, str, bool]], step: int) -> None:
    text = json.dumps(value, indent=indent, ensure_ascii=False)
    for at, mark, replace in damage:
        at %= len(text) + 1
        text = text[:at] + mark + text[at + replace :]
    decoder = strict_json._decoder
    assert outcome(lambda: large_json.loads(text, decoder, step=step)) == outcome(lambda: decoder.decode(text))


@settings(max_examples=200, deadline=None)
@given(
    st.recursive(st.none() | st.floats() | st.text(), lambda v: st.lists(v) | st.dictionaries(st.text(), v), max_leaves=30),
    st.integers(1, 4),
)
def test_written_in_steps_is_what_is_written_at_once(value: Any, piece: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(large_json, "_PIECE", piece)
        assert dumps(value, large=True) == dumps(value)


@pytest.mark.parametrize(("body", "word"), [(b'{"a":[1,2,],"b":"', "line 1 column 11"), (b"[" * 200_000, "nested"), (b'["\xff', "UTF-8")])
def test_what_is_wrong_with_a_large_body_is_said_as_of_a_small_one(body: bytes, word: str) -> None:
    with pytest.raises(RequestError, match=word) as caught:
        strict_json.loads(body + b" " * large_json.LARGE)
    assert caught.value.status == 400


def test_reading_ends_at_the_deadline() -> None:
    body = b"[" + b"[[[]]]," * 400_000 + b"0]"
    began = time.monotonic()
    with pytest.raises(RequestError) as caught:
        strict_json.loads(body, began + 0.05)
    assert caught.value.status == 504
    assert time.monotonic() - began < 0.5


@pytest.mark.parametrize("each", [1, 784, 10**6])
def test_lists_become_arrays_in_steps(each: int) -> None:
    x = np.arange(200_000).reshape(-1, 8)
    np.testing.assert_array_equal(records.in_steps(x.tolist(), each), x)
    mixed = [1] * 70_000 + [0.5] * 70_000
    np.testing.assert_array_equal(records.in_steps(list(mixed), 1), np.array(mixed))
    with pytest.raises(ValueError, match=r"inhomogeneous|must match"):
        records.in_steps([[1, 2]] * 70_000 + [[1]] * 70_000, 2)


def test_rows_beyond_the_queue_are_refused_before_they_are_converted() -> None:
    from groundup.bundle import Signature

    signature = Signature((Field("a", "number"), Field("b", "number")), (Field("prediction", "number"),))
    for read in (
        lambda: records.from_records(signature, [{"a": "wrong", "b": 1}] * 11, 10),
        lambda: records.from_columns(signature, {"a": ["wrong"] * 11, "b": [1] * 11}, 10),
    ):
        with pytest.raises(RequestError, match="11 rows in one request; at most 10") as caught:
            read()
        assert caught.value.status == 413


def worst_pause(body: bytes) -> float:
    """The longest time that the event loop stood still while a body was read aside, in seconds."""

    async def test() -> float:
        aside = Aside()
        await aside.run(lambda: None)  # the thread has started
        reading = asyncio.ensure_future(aside.run(lambda: strict_json.loads(body)))
        worst, last = 0.0, time.perf_counter()
        while not reading.done():
            await asyncio.sleep(0.0005)
            now = time.perf_counter()
            worst, last = max(worst, now - last), now
        await reading
        return worst

    return asyncio.run(test())


@pytest.mark.slow
@pytest.mark.parametrize("name", ["numbers", "rows", "pixels", "strings"])
def test_the_loop_goes_on_while_sixteen_megabytes_are_read(name: str) -> None:
    """The scanner alone would hold it for 0.3 to 2 s; the best of three, for the machine has other work too."""
    rng = np.random.default_rng(0)
    body = {
        "numbers": lambda: b"[" + b"0," * (8 << 20) + b"0]",
        "rows": lambda: json.dumps(rng.integers(0, 256, (5000, 784)).tolist()).encode(),
        "pixels": lambda: json.dumps(rng.integers(0, 256, (3000, 28, 28, 1)).tolist()).encode(),
        "strings": lambda: b"[" + b'"ab",' * (3 << 20) + b'"a"]',
    }[name]()
    assert min(worst_pause(body) for _ in range(3)) < 0.15


def test_what_fails_aside_fails_here_and_the_thread_lives_on() -> None:
    async def test() -> None:
        aside = Aside()
        with pytest.raises(RequestError, match="no"):
            await aside.run(lambda: strict_json.loads(b"no"))
        abandoned = asyncio.ensure_future(aside.run(lambda: time.sleep(0.05)))
        await asyncio.sleep(0)
        abandoned.cancel()
        assert await aside.run(lambda: threading.current_thread().name) == "groundup-aside"

    asyncio.run(test())


def test_infinity_and_nan_in_large_answers_are_null() -> None:
    values = [0.5] * 10_000 + [math.inf, math.nan]
    assert json.loads(dumps({"a": values}, large=True))["a"][-3:] == [0.5, None, None]

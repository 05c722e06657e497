"""The cache: keys, locks between processes, reasons, and what a killed run leaves."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest

from groundup.lifecycle.cache import Cache, code_hash, environment, key_of


def test_a_key_depends_on_every_value_and_on_no_order():
    one = {"a": 1, "b": {"c": [1, 2], "d": "x"}}
    assert key_of(one) == key_of({"b": {"d": "x", "c": [1, 2]}, "a": 1})
    for other in ({"a": 2, "b": one["b"]}, {"a": 1, "b": {"c": [2, 1], "d": "x"}}, {"a": 1}):
        assert key_of(other) != key_of(one)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"section": {"epochs": 5}}, "section.epochs: 3 became 5"),
        ({"code": "b"}, "groundup's code changed"),
        ({"data": "e"}, "the data changed"),
        ({"needs": {"prepare": "k2"}}, "prepare is new"),
        ({"libraries": {"numpy": "2.1"}}, "numpy 2.0 became 2.1"),
        ({}, "its output was removed"),
    ],
)
def test_why_not_names_what_differs(tmp_path, change, reason):
    cache = Cache(tmp_path)
    inputs = {"section": {"epochs": 3}, "code": "a", "data": "d", "needs": {"prepare": "k"}, "libraries": {"numpy": "2.0"}}
    assert cache.why_not("train", inputs) == "never run here"
    directory = cache.directory("train", "k")
    directory.mkdir(parents=True)
    cache.record(directory, inputs)
    assert cache.why_not("train", inputs | change) == reason


HOLD = """
import sys, time
from pathlib import Path
from groundup.lifecycle.cache import Cache
with Cache(Path(sys.argv[1])).lock("train", "k", lambda pid: None):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_second_run_waits_and_a_killed_one_holds_nothing(tmp_path):
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout.readline() == "held\n"
        waiter = subprocess.Popen(
            [sys.executable, "-c", HOLD.replace("lambda pid: None", "lambda pid: print('waits for', pid, flush=True)"), str(tmp_path)],
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            assert waiter.stdout.readline() == f"waits for {holder.pid}\n"
            time.sleep(0.2)
            assert waiter.poll() is None
            holder.kill()
            assert waiter.stdout.readline() == "held\n"
        finally:
            waiter.kill()
            waiter.wait()
            waiter.stdout.close()
    finally:
        holder.kill()
        holder.wait()
        holder.stdout.close()


def test_what_a_killed_run_left_half_written_is_removed(tmp_path):
    cache = Cache(tmp_path)
    left = cache.directory("train", "k").with_name(".k.123.making")
    left.mkdir(parents=True)
    other = cache.directory("train", "other").with_name(".other.123.making")
    other.mkdir()
    at_work = cache.directory("train", "third").with_name(".third.123.making")
    with cache.lock("train", "k", lambda pid: None):
        assert not left.exists()
        assert not other.exists()
    with cache.lock("train", "third", lambda pid: None):
        at_work.mkdir()
        with cache.lock("train", "k", lambda pid: None):
            assert at_work.exists()


def test_the_code_and_the_libraries_have_an_identity():
    assert len(code_hash()) == 16
    assert {"numpy", "torch"} <= environment().keys()

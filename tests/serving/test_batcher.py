"""The rules of batching, with a run that is a Python function: what shares a batch, what waits, what is never run."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable
from typing import Any

import numpy as np
import pytest

from groundup.serving.batcher import Batcher
from groundup.serving.refusal import InferenceError, RequestError


class Graph:
    """x (n,) -> y = 2 x; a run takes ``seconds`` and ``cost`` of the processor, fails on a negative value, and is remembered."""

    def __init__(self, seconds: float = 0.0, cost: float = 0.0) -> None:
        self.seconds, self.cost = seconds, cost
        self.threads: list[str] = []
        self.batches: list[list[float]] = []
        self.gate: threading.Event | None = None

    def __call__(self, inputs: dict[str, Any]) -> dict[str, Any]:
        x = inputs["x"]
        self.batches.append(x.tolist())
        self.threads.append(threading.current_thread().name)
        if self.gate is not None:
            assert self.gate.wait(10)
        end = time.thread_time() + self.cost
        while time.thread_time() < end:
            pass
        time.sleep(self.seconds)
        if (x < 0).any():
            raise InferenceError("negative")
        return {"y": 2 * x}


def one(*values: float) -> dict[str, Any]:
    return {"x": np.array(values, np.float64)}


def run(test: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(test(), 20))


def test_answers_are_the_own_ones_in_any_mixture() -> None:
    async def test() -> None:
        graph = Graph(0.001)
        batcher = Batcher(graph, max_size=7, capacity=10_000)
        rng = np.random.default_rng(0)
        sent = [rng.normal(size=rng.integers(1, 20)) ** 2 for _ in range(300)]
        tickets = []
        for values in sent:
            tickets.append(batcher.submit({"x": values}, len(values), 10))
            if rng.random() < 0.2:
                await asyncio.sleep(0.001)
        for values, ticket in zip(sent, tickets, strict=True):
            np.testing.assert_array_equal((await ticket.answer)["y"], 2 * values)
        assert max(map(len, graph.batches)) <= 7
        assert sum(map(len, graph.batches)) == sum(map(len, sent))
        assert batcher.waiting == 0
        batcher.close()

    run(test)


def test_first_come_first_served() -> None:
    async def test() -> None:
        graph = Graph()
        batcher = Batcher(graph, max_size=3)
        tickets = [batcher.submit(one(i), 1, 10) for i in range(20)]
        await asyncio.gather(*(t.answer for t in tickets))
        assert [x for b in graph.batches for x in b] == list(range(20))
        batcher.close()

    run(test)


def test_one_client_never_waits_for_the_window() -> None:
    async def test() -> None:
        batcher = Batcher(Graph(), max_size=32, max_delay=1.0)
        began = time.monotonic()
        for i in range(50):
            await batcher.submit(one(i), 1, 10).answer
        assert time.monotonic() - began < 0.8  # one wait alone would take 1 s
        batcher.close()

    run(test)


def test_after_a_full_batch_the_next_waits_for_as_many_but_not_longer_than_the_window() -> None:
    async def test() -> None:
        graph = Graph(cost=0.002)
        batcher = Batcher(graph, max_size=4, max_delay=0.2)
        await asyncio.gather(*(batcher.submit(one(i), 1, 10).answer for i in range(4)))
        began = time.monotonic()
        await batcher.submit(one(9), 1, 10).answer
        assert 0.15 < time.monotonic() - began < 1.0
        assert graph.batches[-1] == [9]
        # and when as many come, they go at once
        await asyncio.gather(*(batcher.submit(one(i), 1, 10).answer for i in range(4)))
        began = time.monotonic()
        await asyncio.gather(*(batcher.submit(one(i), 1, 10).answer for i in range(4)))
        assert time.monotonic() - began < 0.15
        batcher.close()

    run(test)


def test_a_full_queue_refuses_at_once_with_retry_after() -> None:
    async def test() -> None:
        graph = Graph()
        graph.gate = threading.Event()
        batcher = Batcher(graph, max_size=2, capacity=5)
        running = [batcher.submit(one(1, 2), 2, 10)]
        await asyncio.sleep(0.05)
        waiting = [batcher.submit(one(1, 2), 2, 10), batcher.submit(one(1, 2, 3), 3, 10)]
        assert batcher.waiting == 5
        with pytest.raises(RequestError) as caught:
            batcher.submit(one(1), 1, 10)
        assert caught.value.status == 429
        assert caught.value.retry_after is not None
        assert caught.value.retry_after >= 1
        with pytest.raises(RequestError) as caught:
            batcher.submit(one(*range(6)), 6, 10)
        assert caught.value.status == 413
        graph.gate.set()
        await asyncio.gather(*(t.answer for t in running + waiting))
        assert batcher.waiting == 0
        batcher.close()

    run(test)


def test_what_is_late_or_gone_is_never_run() -> None:
    async def test() -> None:
        graph = Graph()
        graph.gate = threading.Event()
        batcher = Batcher(graph, max_size=8)
        first = batcher.submit(one(1), 1, 10)
        await asyncio.sleep(0.05)
        late, gone, kept = (batcher.submit(one(v), 1, t) for v, t in ((2, 0.05), (3, 10), (4, 10)))
        batcher.cancel(gone)
        with pytest.raises(RequestError) as caught:
            await late.answer
        assert caught.value.status == 504
        assert batcher.waiting == 1
        graph.gate.set()
        await first.answer
        await kept.answer
        assert graph.batches == [[1], [4]]
        with pytest.raises(RequestError):
            await gone.answer
        assert batcher.waiting == 0
        with pytest.raises(RequestError) as caught:  # late before the loop comes round to it
            await batcher.submit(one(5), 1, 1e-9).answer
        assert caught.value.status == 504
        assert len(graph.batches) == 2
        batcher.close()

    run(test)


def test_a_deadline_during_the_run_is_answered_in_time() -> None:
    async def test() -> None:
        batcher = Batcher(Graph(0.5))
        began = time.monotonic()
        with pytest.raises(RequestError) as caught:
            await batcher.submit(one(1), 1, 0.1).answer
        assert caught.value.status == 504
        assert time.monotonic() - began < 0.4
        batcher.close()

    run(test)


def test_a_long_request_stops_at_its_deadline() -> None:
    async def test() -> None:
        graph = Graph(0.05)
        batcher = Batcher(graph, max_size=1, capacity=100)
        with pytest.raises(RequestError):
            await batcher.submit(one(*range(100)), 100, 0.2).answer
        await batcher.submit(one(1), 1, 10).answer
        assert len(graph.batches) < 12
        batcher.close()

    run(test)


@pytest.mark.parametrize("seed", range(5))
def test_one_poison_request_fails_alone(seed: int) -> None:
    async def test() -> None:
        rng = np.random.default_rng(seed)
        graph = Graph()
        batcher = Batcher(graph, max_size=16)
        for _ in range(100):
            at = int(rng.integers(16))
            tickets = [batcher.submit(one(-1 if i == at else i), 1, 10) for i in range(16)]
            answers = await asyncio.gather(*(t.answer for t in tickets), return_exceptions=True)
            for i, answer in enumerate(answers):
                if i == at:
                    assert isinstance(answer, RequestError)
                    assert answer.status == 500
                else:
                    assert isinstance(answer, dict)
                    assert answer["y"] == [2 * i]
        batcher.close()

    run(test)


def test_a_graph_that_returns_another_number_of_rows_answers_nobody_wrongly() -> None:
    async def test() -> None:
        batcher = Batcher(lambda inputs: {"y": np.zeros(3)})
        answers = await asyncio.gather(*(batcher.submit(one(i), 1, 10).answer for i in range(2)), return_exceptions=True)
        assert all(isinstance(a, RequestError) and a.status == 500 for a in answers)
        batcher.close()

    run(test)


def test_what_ran_is_told_once_after_the_answers() -> None:
    async def test() -> None:
        told: list[tuple[list[float], list[float], list[str]]] = []
        batcher = Batcher(Graph(), max_size=4, ran=lambda i, o, ids, s: told.append((i["x"].tolist(), o["y"].tolist(), ids)))
        rows = ((1,), (-1,), (2, 3), (4, 5, 6, 7, 8))
        tickets = [batcher.submit(one(*v), len(v), 10, f"id{v[0]}") for v in rows]
        await asyncio.gather(*(t.answer for t in tickets), return_exceptions=True)
        await asyncio.sleep(0.1)
        assert sorted((x, i) for xs, _, ids in told for x, i in zip(xs, ids, strict=True)) == [
            (v, f"id{of[0]}") for of in rows if of != (-1,) for v in of
        ]
        assert all(y == [2 * v for v in x] for x, y, _ in told)
        batcher.close()

    run(test)


def test_who_is_told_cannot_stop_the_runs(caplog: pytest.LogCaptureFixture) -> None:
    def fail(*_: Any) -> None:
        raise RuntimeError("boom")

    async def test() -> None:
        batcher = Batcher(Graph(cost=0.003), ran=fail)
        for v in (1, 2, 3):
            assert (await batcher.submit(one(v), 1, 5).answer)["y"].tolist() == [2 * v]
        batcher.close()

    run(test)


@pytest.mark.parametrize(("cost", "on_loop"), [(0.0, True), (0.003, False)])
def test_only_cheap_runs_are_made_on_the_loop(cost: float, on_loop: bool) -> None:
    async def test() -> None:
        graph = Graph(cost=cost)
        batcher = Batcher(graph, max_size=4)
        for n in (1, 1, 1, 4, 4, 4, 9):
            await batcher.submit(one(*range(n)), n, 10).answer
        here = threading.current_thread().name
        assert graph.threads[0] != here  # not measured yet
        assert graph.threads[3] != here  # nor this size
        assert (graph.threads[1:3] == [here] * 2) == on_loop
        assert all(t != here for t in graph.threads[-3:])  # slices of a large request never
        batcher.close()

    run(test)


def test_what_comes_together_is_run_together() -> None:
    async def test() -> None:
        graph = Graph()
        batcher = Batcher(graph, max_size=32)
        for _ in range(20):
            await asyncio.gather(*(batcher.submit(one(i), 1, 10).answer for i in range(32)))
        assert graph.batches == [list(range(32))] * 20
        batcher.close()

    run(test)

"""What happens on every deployment and in every bad night: a polite stop under load, and a kill without a word."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

from groundup.bundle import Bundle, Proof
from groundup.rehearsal import load
from groundup.rehearsal.server import Server

CALLERS = 8
BEFORE = 0.3  # seconds of load before the signal


@contextmanager
def callers(server: Server, requests: Sequence[load.Request], most: float) -> Iterator[Callable[[], load.Result]]:
    """Callers at work in the background; calling what this gives ends them and returns what they got.

    Args:
        most: seconds after which they end by themselves.
    """
    leave = threading.Event()
    port = server.port

    def work() -> load.Result:
        return load.send(port, requests, count=10**9, seconds=most, connections=CALLERS, go_on=lambda: not leave.is_set())

    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(work)

        def end() -> load.Result:
            leave.set()
            return running.result()

        try:
            time.sleep(BEFORE)
            yield end
        finally:
            leave.set()


def drain(server: Server, bundle: Bundle, requests: Sequence[load.Request], patience: float) -> tuple[dict[str, Any], list[Proof]]:
    """SIGTERM while callers are at it.  A caller that goes by readiness, as a load balancer does, must lose nothing.

    Args:
        patience: seconds that the server may take to end.
    """
    with callers(server, requests, BEFORE + patience) as end:
        asked = time.monotonic()
        server.terminate()
        while server.is_alive() and server.is_ready() and time.monotonic() - asked < patience:
            time.sleep(0.005)
        told = time.monotonic() - asked
        time.sleep(0.05)  # a balancer does not hear at once; what comes meanwhile must still be answered
        result = end()
    status = server.wait(patience)
    seconds = time.monotonic() - asked
    if status is None:
        server.kill()
    measured = {
        "requests": result.requests,
        "failed": len(result.failures),
        "first_failure": result.failures[0] if result.failures else "",
        "not_ready_after_ms": round(told * 1000, 1),
        "exit_status": status,
        "seconds_to_exit": round(seconds, 3),
    }
    common: dict[str, Any] = {"link": 5, "reference": f"the server of bundle {bundle.version} under {CALLERS} callers"}
    return measured, [
        Proof(
            claim=f"{bundle.name}: SIGTERM under load fails no request",
            quantity="failed requests",
            measured=len(result.failures),
            tolerance=0,
            samples=result.requests,
            **common,
        ),
        Proof(
            claim=f"{bundle.name}: after SIGTERM the server ends by itself with status 0",
            quantity="exit status (-1: it had to be killed)",
            measured=abs(status) if status is not None else 1,
            tolerance=0,
            samples=1,
            **common,
        ),
    ]


def kill_and_return(server: Server, bundle: Bundle, requests: Sequence[load.Request]) -> tuple[dict[str, Any], list[Proof]]:
    """SIGKILL while callers are at it; started again on the same port, as a process manager does.

    The answers after the return are compared by the caller, with :func:`groundup.rehearsal.replay.replay`.
    """
    port = server.port
    got: list[load.Result] = []
    with callers(server, requests, 60.0) as end:
        killed = time.monotonic()
        server.kill(sent=lambda: got.append(end()))  # nobody goes on: to count connections refused afterwards would say nothing
        server.start()
        back = time.monotonic() - killed
    lost = got[0]
    measured = {
        "answered_before": len(lost.latencies),
        "lost_in_flight": len(lost.failures),
        "seconds_until_ready": round(back, 3),
        "same_port": server.port == port,
    }
    proof = Proof(
        link=5,
        claim=f"{bundle.name}: killed under load and started again, the server is ready again on its port",
        reference=f"the server of bundle {bundle.version} under {CALLERS} callers",
        quantity="seconds from the kill to ready",
        measured=back,
        tolerance=server.timeout,
        samples=1,
    )
    return measured, [proof]

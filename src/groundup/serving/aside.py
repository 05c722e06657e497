"""One thread beside the event loop, for large bodies and answers: while it reads a hundred megabytes, health checks are answered.

One, not several: each further thread that wants the interpreter's lock makes the loop wait for it longer.
"""

from __future__ import annotations

import asyncio
import gc
import queue
import threading
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")
_Job = tuple[asyncio.AbstractEventLoop, "asyncio.Future[Any]", Callable[[], Any]]


class Aside:
    """Runs what it is given, one after the other.  The thread is a daemon: a stopping server does not wait for it."""

    def __init__(self) -> None:
        self._jobs: queue.SimpleQueue[_Job] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    async def run(self, function: Callable[[], T]) -> T:
        """The result of ``function``, which runs on the thread; its exceptions are raised here."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="groundup-aside", daemon=True)
            self._thread.start()
        loop = asyncio.get_running_loop()
        done: asyncio.Future[T] = loop.create_future()
        self._jobs.put((loop, done, function))
        try:
            return await done
        finally:
            del done  # or its exception and this frame hold each other, and with them all that was read

    def _work(self) -> None:
        while True:
            loop, done, function = self._jobs.get()
            if done.cancelled():
                continue
            result, error = None, None
            gc.disable()  # lists of JSON hold no cycles, and looking for them among millions stops every thread
            try:
                result = function()
            except Exception as e:  # noqa: BLE001 - handed to whoever waits
                error = e
            finally:
                gc.enable()
            try:
                loop.call_soon_threadsafe(_settle, done, result, error)
            except RuntimeError:  # the loop is closed: nobody waits any more
                return
            del done, function, result, error  # the next job may be long in coming, and these may be large


def _settle(done: asyncio.Future[Any], result: Any, error: Exception | None) -> None:
    if done.done():
        return
    if error is None:
        done.set_result(result)
    else:
        done.set_exception(error)

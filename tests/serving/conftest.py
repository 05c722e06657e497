"""Real servers for the tests: a process of its own each, on a free port, ended with the session."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import bundles
import pytest
from live_server import Server, Start, started


@pytest.fixture(scope="session")
def serve(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Start]:
    """A function (name of a bundle, **fields) -> Server, which keeps the server for the session."""
    running: dict[str, Any] = {}

    def start(name: str) -> Server:
        if name not in running:
            folder = tmp_path_factory.mktemp(name)
            getattr(bundles, name)(folder / "bundle")
            context = started(folder / "bundle", folder)
            running[name] = (context.__enter__(), context)
        server: Server = running[name][0]
        return server

    yield start
    for _, context in running.values():
        context.__exit__(None, None, None)

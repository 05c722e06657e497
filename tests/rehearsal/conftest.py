"""One bundle for all tests of the rehearsal."""

from __future__ import annotations

import onnx
import pytest
from served_table import graph, make_bundle

from groundup.bundle import Bundle


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    onnx.checker.check_model(graph())
    return make_bundle(tmp_path_factory.mktemp("bundle") / "table")

from __future__ import annotations

import invented_run
import pytest

from groundup.reporting.facts import Facts


@pytest.fixture
def facts() -> Facts:
    return invented_run.facts()

"""The well-known data sets as published, from the folder that GROUNDUP_DATA names; skipped without one (test_fetch has an imitation)."""

from __future__ import annotations

import os
from typing import Any

import pytest

from groundup.data import sources

pytestmark = pytest.mark.skipif(not os.environ.get("GROUNDUP_DATA"), reason="GROUNDUP_DATA names no local copies")


@pytest.mark.parametrize("entry", [e for e in sources() if "scikit-learn" not in e.where], ids=lambda e: e.name)
def test_published_sets_prepare(entry: Any, prepared: Any) -> None:
    got = prepared(entry.task, source=entry.name)
    assert sum(got.sizes.values()) + got.quarantined == entry.rows
    assert got.quarantined == 0
    assert got.proofs[0].passed
    assert not [note for note in got.notes if note.startswith("leak")]

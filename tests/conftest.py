"""What every room's tests share: the seeds.

``GROUNDUP_TEST_SEED=7`` runs one seed, ``0-99`` all of them, ``0,3,5`` those; any of 0..99 must pass.
"""

from __future__ import annotations

import os

import pytest
from hypothesis import settings

# The same invented examples at every run, so that a run that passed here passes there; HYPOTHESIS_EXPLORE=1 invents new ones.
settings.register_profile("same", derandomize=True)
settings.register_profile("explore", derandomize=False)
settings.load_profile("explore" if os.environ.get("HYPOTHESIS_EXPLORE") else "same")


def _seeds() -> list[int]:
    text = os.environ.get("GROUNDUP_TEST_SEED", "0")
    first, dash, last = text.partition("-")
    return list(range(int(first), int(last) + 1)) if dash else [int(s) for s in text.split(",")]


@pytest.fixture(params=_seeds(), ids="seed{}".format)
def seed(request: pytest.FixtureRequest) -> int:
    """A seed for everything random in a test."""
    value: int = request.param
    return value

"""One thread, so that a sum is rounded the same way everywhere, and surroundings for a training."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from small_training import Around


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def around(tmp_path: Path) -> Around:
    return Around(tmp_path / "work")

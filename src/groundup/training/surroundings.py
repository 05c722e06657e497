"""What a training asks of its caller, and what it leaves alone: the caller's random numbers, threads and determinism."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from groundup.errors import Interrupted
from groundup.progress import Progress, Silent
from groundup.training.settings import Train


class Surroundings(Protocol):
    """What a training asks of its caller (``lifecycle.stage.Context`` is this)."""

    @property
    def work(self) -> Path: ...
    @property
    def progress(self) -> Progress: ...
    @property
    def seed(self) -> int: ...
    @property
    def stopping(self) -> threading.Event: ...
    @property
    def log_metrics(self) -> Callable[[dict[str, float], int], Any]: ...
    def check(self) -> None: ...


@dataclass
class Quiet:
    """Surroundings in which nothing is shown or logged."""

    work: Path
    seed: int = 0
    stopping: threading.Event = field(default_factory=threading.Event)
    progress: Progress = field(default_factory=Silent)
    log_metrics: Callable[[dict[str, float], int], Any] = lambda metrics, step: None

    def check(self) -> None:
        if self.stopping.is_set():
            raise Interrupted("stopped as asked")


class StopAfter(threading.Event):
    """An event that is set from its ``looks``-th look on: a training that is stopped at a known step."""

    def __init__(self, looks: int) -> None:
        super().__init__()
        self.looks = looks

    def is_set(self) -> bool:
        self.looks -= 1
        return self.looks < 0


@contextmanager
def isolated(settings: Train, seed: int) -> Iterator[None]:
    """Seed everything that may draw, set threads and determinism, and put all of it back."""
    threads, deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    python, legacy = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=[]):
        try:
            torch.manual_seed(seed)
            random.seed(seed)
            np.random.seed(seed % 2**32)
            if settings.threads:
                torch.set_num_threads(settings.threads)
            if settings.deterministic:
                torch.use_deterministic_algorithms(True)
            yield
        finally:
            torch.set_num_threads(threads)
            torch.use_deterministic_algorithms(deterministic)
            random.setstate(python)
            np.random.set_state(legacy)

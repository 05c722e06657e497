"""What a recipe's ``rehearse`` section says."""

from __future__ import annotations

from pydantic import Field

from groundup.sections import Section


class Rehearse(Section):
    """How long the rehearsal takes and how much it sends."""

    enabled: bool = True
    """false packages without a rehearsal: links 5 and 6 stay unproven."""
    replay_rows: int = Field(20_000, ge=1)
    """Rows of the test split that are sent and compared, the first so many."""
    connections: tuple[int, ...] = Field((1, 32), min_length=1)
    """Callers at the same time, one load measurement each."""
    requests: int = Field(3000, ge=10)
    """Requests of one load measurement, at most."""
    seconds: float = Field(3.0, gt=0, le=600)
    """Seconds of one load measurement, at most."""
    clean_windows: int = Field(200, ge=20)
    """Windows of unchanged traffic in which false alarms are counted."""
    shift: float = Field(1.0, gt=0)
    """How far numbers are moved to see the alarm rise, in standard deviations."""
    start_timeout_s: float = Field(60.0, gt=0)
    """Seconds that the server may take until it is ready, at the start and after it was killed."""

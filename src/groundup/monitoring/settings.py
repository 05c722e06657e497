"""The recipe's ``monitor`` section: what counts as drift, what is done about it, what is kept of the traffic."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from groundup.sections import Section


class DriftSettings(Section):
    """When live columns are said to differ from the training profile.

    A column has *shifted* when the difference is significant, and has *drifted* when it is large as well.  Only drift raises
    the alarm: with a million rows every difference is significant, and with fifty every difference is large.
    """

    threshold: float = Field(default=0.2, gt=0)
    """Population stability index, less what chance alone gives, from which a significant difference is an alarm."""
    false_alarm_rate: float = Field(default=0.01, gt=0, lt=0.5)
    """Chance that a window of unchanged traffic shows any shifted column at all, over all columns together."""
    window: int = Field(default=1000, ge=50)
    """Rows after which a window is closed and tested, once; windows do not overlap."""
    min_rows: int = Field(default=100, ge=30)
    """A window closed by its age with fewer rows than this is dropped untested."""
    max_age_s: float = Field(default=86_400.0, gt=0)
    """Seconds after which a window is closed although it is not full."""

    @model_validator(mode="after")
    def _enough(self) -> DriftSettings:
        if self.min_rows > self.window:
            raise ValueError(f"min_rows ({self.min_rows}) must not exceed window ({self.window})")
        return self


class LogSettings(Section):
    """Where requests and answers are kept, as Parquet files that are closed, renamed into place and never touched again.

    A killed server loses the rows since the last rotation; a stopped one loses none.
    """

    path: Path | None = None
    """Folder of the Parquet files; none are written by default.  Inputs may be personal data: choose with care."""
    rotate_rows: int = Field(default=100_000, ge=1)
    """Rows after which a file is closed."""
    rotate_mb: float = Field(default=64.0, gt=0)
    """Megabytes (10**6 bytes, before compression) after which a file is closed; this much memory is held at most."""
    rotate_s: float = Field(default=300.0, gt=0)
    """Seconds after which a file is closed although it is small."""
    keep: int | None = Field(default=1000, ge=1)
    """Number of files kept; the oldest are deleted.  null keeps all."""


class Monitor(Section):
    """What is watched while the model serves."""

    drift: DriftSettings = DriftSettings()
    on_drift: Literal["alert", "ignore"] = Field(default="alert", alias="on-drift")
    """alert: raise the gauge groundup_drift_alarm, log a line when it rises and when it falls.  ignore: measure and show, raise nothing."""
    queue_mb: float = Field(default=64.0, gt=0)
    """Megabytes of traffic that may wait for the monitor; more is dropped and counted, never waited for."""
    log: LogSettings = LogSettings()

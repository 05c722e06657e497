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

    threshold: float = Field(0.2, gt=0)
    """Population stability index, less what chance alone gives, from which a significant difference is an alarm."""
    false_alarm_rate: float = Field(0.01, alias="false-alarm-rate", gt=0, lt=0.5)
    """Chance that a window of unchanged traffic shows any shifted column at all, over all columns together."""
    window: int = Field(1000, ge=50)
    """Rows after which a window is closed and tested, once; windows do not overlap."""
    min_rows: int = Field(100, alias="min-rows", ge=30)
    """A window closed by its age with fewer rows than this is dropped untested."""
    max_age_s: float = Field(86_400.0, alias="max-age-s", gt=0)
    """Seconds after which a window is closed although it is not full."""

    @model_validator(mode="after")
    def _enough(self) -> DriftSettings:
        if self.min_rows > self.window:
            raise ValueError(f"min-rows ({self.min_rows}) must not exceed window ({self.window})")
        return self


class LogSettings(Section):
    """Where requests and answers are kept, as Parquet files that are closed, renamed into place and never touched again.

    A killed server loses the rows since the last rotation; a stopped one loses none.
    """

    path: Path | None = None
    """Folder of the Parquet files; none are written by default.  Inputs may be personal data: choose with care."""
    rotate_rows: int = Field(100_000, alias="rotate-rows", ge=1)
    """Rows after which a file is closed."""
    rotate_mb: float = Field(64.0, alias="rotate-mb", gt=0)
    """Megabytes (10**6 bytes, before compression) after which a file is closed; this much memory is held at most."""
    rotate_s: float = Field(300.0, alias="rotate-s", gt=0)
    """Seconds after which a file is closed although it is small."""
    keep: int | None = Field(1000, ge=1)
    """Number of files kept; the oldest are deleted.  null keeps all."""


class Monitor(Section):
    """What is watched while the model serves."""

    drift: DriftSettings = DriftSettings()
    on_drift: Literal["alert", "ignore"] = Field("alert", alias="on-drift")
    """alert: raise the gauge groundup_drift_alarm and log one line per window that drifted.  ignore: measure and show, raise nothing."""
    queue: int = Field(4096, ge=1)
    """Batches that may wait for the monitor; more are dropped and counted, never waited for."""
    log: LogSettings = LogSettings()

"""The prediction log: every request and answer as rows of Parquet files, for reports, labels that come later, and retraining.

Columns: ``time`` (UTC), ``request_id``, ``version`` of the bundle, the groups ``inputs`` and ``outputs``.  With duckdb:
``select outputs.label, count(*) from 'log/*.parquet' group by 1``.

A file appears under its name whole, or not at all; it is never changed afterwards.  Rows since the last rotation are
in memory: a killed process loses them (at most ``rotate-s`` seconds' worth), ``close()`` loses none.  While the folder
cannot be written, rows are held up to ``rotate-mb`` and retried; then new ones are dropped and counted.  Serving goes on.

Names say when a file was written and sort in the order of writing, even if the clock is set back: a name is never before
the newest one in the folder.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from groundup.bundle.files import write_bytes
from groundup.bundle.signature import Kind, Signature
from groundup.errors import StorageError
from groundup.monitoring.parquet import ColumnBuffer, write
from groundup.monitoring.settings import LogSettings

Array = NDArray[Any]
METADATA_KEY = "groundup"  # of the file's metadata: {"signature": ..., "version": ...}
PATTERN = "predictions-*.parquet"
_STAMP = "%Y%m%dT%H%M%S.%fZ"
_log = logging.getLogger("groundup.monitoring")
_FIRST_RETRY_S, _LAST_RETRY_S = 1.0, 60.0
_STALE_S = 3600.0  # a temporary file older than this was left by a killed process


class PredictionLog:
    """Writes one server's log.  Used by one thread; several servers may share the folder.

    Attributes:
        degraded: why the last rotation failed, or old files could not be deleted; None while all is well.
        errors: rotations that failed; lost_rows: rows dropped because of it; files, rows: written so far.
    """

    def __init__(
        self, settings: LogSettings, signature: Signature, version: str, *, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        if settings.path is None:
            raise ValueError("expected a folder for the prediction log, got none; set monitor.log.path")
        self.settings, self.signature, self.version, self._monotonic = settings, signature, version, monotonic
        self.folder = settings.path
        self.degraded: str | None = None
        self._holding = False  # the last write failed
        self.errors = self.lost_rows = self.files = self.rows = 0
        self._process = os.urandom(4).hex()  # process ids repeat across containers
        self._retry_at, self._retry_s = 0.0, _FIRST_RETRY_S
        self._stamp = _newest(self.folder)
        self._open()
        self._clean()

    def _open(self) -> None:
        kinds: list[tuple[tuple[str, ...], Kind]] = [(("time",), "datetime"), (("request_id",), "category"), (("version",), "category")]
        for side, fields in (("inputs", self.signature.inputs), ("outputs", self.signature.outputs)):
            kinds += [((side, f.name), f.kind) for f in fields]
        self._columns = [ColumnBuffer(path, kind) for path, kind in kinds]
        self._opened = self._monotonic()

    def append(
        self, inputs: dict[str, Array], outputs: dict[str, Array], *, times: Sequence[float], ids: Sequence[str] | None = None
    ) -> None:
        """Add one batch.  ``times``: seconds since 1970, one a row.  All fields of the signature must be present, with as many rows.

        Raises:
            ValueError: a field is missing or has another number of rows; nothing of the batch is logged.
        """
        n = len(times)
        microseconds = (np.asarray(times, np.float64) * 1e6).astype(np.int64)
        words = {"request_id": np.array(list(ids) if ids is not None else [""] * n, object), "version": np.full(n, self.version, object)}
        batch: list[Array] = []
        for column in self._columns:
            side, name = column.path[0], column.path[-1]
            x = microseconds if side == "time" else words[side] if side in words else (inputs if side == "inputs" else outputs).get(name)
            if x is None or len(x) != n:
                raise ValueError(f"expected {n} rows of {'.'.join(column.path)}, got {'none' if x is None else len(x)}")
            batch.append(x)
        if self._holding and self.nbytes >= self.settings.rotate_mb * 1e6:
            self.lost_rows += n
        else:
            for column, x in zip(self._columns, batch, strict=True):
                column.append(x)
        self.tick()

    @property
    def pending(self) -> int:
        """Rows that are not in a file yet."""
        return self._columns[0].rows

    @property
    def nbytes(self) -> int:
        """Memory held by pending rows."""
        return sum(c.nbytes for c in self._columns)

    def tick(self) -> None:
        """Rotate if a limit is reached and no retry is being waited for."""
        if not self.pending or self._monotonic() < self._retry_at:
            return
        old = self._monotonic() - self._opened >= self.settings.rotate_s
        if old or self._holding or self.pending >= self.settings.rotate_rows or self.nbytes >= self.settings.rotate_mb * 1e6:
            self.rotate()

    def rotate(self) -> None:
        """Write the pending rows as a file.  A failure is kept in ``degraded`` and retried later; it does not raise."""
        if not self.pending:
            self._opened = self._monotonic()
            return
        facts = json.dumps({"signature": asdict(self.signature), "version": self.version}, ensure_ascii=False)
        data, n = write(self._columns, {METADATA_KEY: facts}), self.pending
        self._stamp = max(datetime.now(UTC), self._stamp + timedelta(microseconds=1))
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            write_bytes(self.folder / f"predictions-{self._stamp.strftime(_STAMP)}-{self._process}-{self.files:06d}.parquet", data)
        except (OSError, StorageError) as e:
            self.errors += 1
            if not self._holding:  # said once, not at every retry
                self._holding = True
                _log.warning("the prediction log cannot be written: %s; serving goes on, rows are held and then dropped", e)
            self.degraded = f"{type(e).__name__}: {e}"
            self._retry_at, self._retry_s = self._monotonic() + self._retry_s, min(2 * self._retry_s, _LAST_RETRY_S)
            return
        if self._holding:
            self._holding = False
            _log.info("the prediction log can be written again; %d rows were dropped", self.lost_rows)
        self.degraded, self._retry_at, self._retry_s = None, 0.0, _FIRST_RETRY_S
        self.files += 1
        self.rows += n
        self._open()
        try:
            self._prune()
        except OSError as e:  # written, but old files stay: that is worth knowing, and nothing to retry
            self.degraded = f"cannot delete old files: {e}"

    def close(self) -> None:
        """Write what is pending; rows that cannot be written are counted as lost."""
        self.rotate()
        if self._holding:
            self.lost_rows += self.pending
            self._open()

    def _prune(self) -> None:
        if self.settings.keep is not None:
            for path in sorted(self.folder.glob(PATTERN))[: -self.settings.keep]:
                path.unlink(missing_ok=True)

    def _clean(self) -> None:
        try:
            for path in self.folder.glob(".predictions-*.tmp"):
                if time.time() - path.stat().st_mtime > _STALE_S:
                    path.unlink(missing_ok=True)
        except OSError as e:
            self.degraded = f"cannot clean the folder: {e}"


def _newest(folder: Path) -> datetime:
    """When the newest file of the folder says that it was written; long ago where there is none."""
    for path in reversed(log_files(folder)):
        try:
            return datetime.strptime(path.name.split("-")[1], _STAMP).replace(tzinfo=UTC)
        except ValueError:  # a file of somebody else's
            continue
    return datetime(1970, 1, 1, tzinfo=UTC)


def log_files(folder: Path) -> list[Path]:
    """The complete files of a log, oldest first."""
    return sorted(folder.glob(PATTERN))

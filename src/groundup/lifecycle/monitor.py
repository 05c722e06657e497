"""monitor: from a log of predictions to a report on drift over time: ``groundup monitor BUNDLE --log FOLDER``.

The same windows, bins and tests as in the server, over the whole log, so that a report can be made where the server kept no
state, with other settings, or again.  The log is read file by file, in constant memory.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from groundup.bundle import Bundle, shown
from groundup.bundle.files import write_bytes, write_json
from groundup.bundle.signature import MISSING_DATETIME, Field
from groundup.errors import DataError, MissingExtraError
from groundup.monitoring.drift import Drift, Window
from groundup.monitoring.log import log_files
from groundup.monitoring.settings import DriftSettings, Monitor
from groundup.progress import Progress, Silent

if TYPE_CHECKING:
    import pyarrow as pa

Array = NDArray[Any]
ALARM_EXIT_CODE = 20  # of `groundup monitor`, for schedulers: the last window has drifted
_ROWS_AT_ONCE = 16_384


@dataclass(frozen=True)
class Monitored:
    """What the log showed.

    Attributes:
        windows: in order of time; the last may be smaller than the others.
        rows: rows tested; other_versions: rows of the log that another bundle answered, left out.
        shares: for the worst window of each column, see ``Drift.shares``.
        html, json: the report's files.
    """

    bundle: Bundle
    settings: DriftSettings
    windows: list[Window]
    rows: int
    other_versions: int
    shares: dict[str, dict[str, Any]]
    html: Path
    json: Path

    @property
    def alarm(self) -> bool:
        """Whether the last window has a drifted column."""
        return bool(self.windows) and self.windows[-1].alarm

    @property
    def exit_code(self) -> int:
        return ALARM_EXIT_CODE if self.alarm else 0

    @property
    def sentence(self) -> str:
        """The outcome in one line."""
        last = self.windows[-1]
        drifted = last.columns("drifted")
        before = sum(w.alarm for w in self.windows)
        now = f"drift in {', '.join(drifted)}" if drifted else "no drift"
        return f"{now} in the last window of {last.rows:,} rows; {before} of {len(self.windows)} windows raised the alarm"

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        return shown.facts(
            self.sentence, {"bundle": f"{self.bundle.name}, version {self.bundle.version}", "rows": f"{self.rows:,}", "report": self.html}
        )

    def severity(self) -> list[str]:
        """Columns, the most troubled first: by windows drifted, then windows shifted, then the largest change."""

        def rank(name: str) -> tuple[int, int, float]:
            scores = [w.scores[name] for w in self.windows]
            states = [s.state for s in scores]
            return -states.count("drifted"), -states.count("shifted"), -max((s.excess for s in scores), default=0.0)

        return sorted(self.windows[0].scores, key=rank) if self.windows else []


def monitor(
    bundle: Path,
    log: Path,
    out: Path,
    *,
    since: datetime | None = None,
    until: datetime | None = None,
    settings: DriftSettings | None = None,
    progress: Progress | None = None,
) -> Monitored:
    """Compare a log with the bundle's profile, window by window; write ``out`` (HTML) and the same beside it as JSON.

    Args:
        log: folder of the Parquet files that the server wrote (``monitor.log.path``).
        since, until: rows from and before these times; times without a zone are UTC.
        settings: the bundle's own by default.

    Raises:
        DataError: no log there, or no row of this bundle in the time asked for.
        BundleError: the bundle cannot be used.
        MissingExtraError: pyarrow is not installed.
    """
    opened = Bundle.open(bundle)
    settings = settings or Monitor.model_validate(dict(opened.monitor)).drift
    files = log_files(log)
    if not files:
        raise DataError(
            f"{log}: expected predictions-*.parquet, found none; set monitor.log.path when serving, and wait for the first rotation"
        )
    clock = [0.0]
    drift = Drift(json.loads(opened.read("profile.json")), settings, monotonic=lambda: clock[0])
    windows: list[Window] = []
    rows = others = 0
    with (progress or Silent()).task("reading the log", len(files), "files") as task:
        for file in files:
            for table in _tables(file):
                mine, skipped = _of_interest(table, opened.version, since, until)
                others += skipped
                if not mine.num_rows:
                    continue
                times = mine["time"].cast("int64").to_numpy() / 1e6
                inputs, outputs = (
                    _tensors(mine, side, fields)
                    for side, fields in (("inputs", opened.signature.inputs), ("outputs", opened.signature.outputs))
                )
                for start in range(0, len(times), 256):  # in small steps, so that windows close by age as they do in the server
                    part = slice(start, start + 256)
                    clock[0] = max(clock[0], float(times[start]))
                    windows += drift.update(
                        {k: x[part] for k, x in inputs.items()}, {k: x[part] for k, x in outputs.items()}, times=times[part]
                    )
                rows += len(times)
            task.advance()
    windows += drift.finish()
    if not windows:
        raise DataError(
            f"{log}: {rows} rows of bundle {opened.version} in this time, and {others} of other bundles; "
            f"a window needs {settings.min_rows}: choose a longer time, or the bundle that answered"
        )
    worst = {name: max(windows, key=lambda w, name=name: w.scores[name].excess) for name in windows[0].scores}  # type: ignore[misc]
    shares = {name: drift.shares(window)[name] for name, window in worst.items()}
    result = Monitored(opened, settings, windows, rows, others, shares, out, out.with_suffix(".json"))
    _write(result)
    return result


def _write(result: Monitored) -> None:
    from groundup.reporting.drift import page

    result.html.parent.mkdir(parents=True, exist_ok=True)
    write_json(
        result.json,
        {
            "bundle": {"name": result.bundle.name, "version": result.bundle.version},
            "made": datetime.now(UTC).isoformat(timespec="seconds"),
            "settings": result.settings.model_dump(mode="json"),
            "alarm": result.alarm,
            "rows": result.rows,
            "rows_of_other_versions": result.other_versions,
            "expected_false_alarms": len(result.windows) * result.settings.false_alarm_rate,
            "columns": result.severity(),
            "windows": [
                {"started": w.started, "closed": w.closed, "rows": w.rows, "columns": {k: asdict(s) for k, s in w.scores.items()}}
                for w in result.windows
            ],
        },
    )
    write_bytes(result.html, page(result.bundle, result.settings, result.windows, result.severity(), result.shares, result.rows).encode())


def _tables(file: Path) -> Iterator[pa.Table]:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as e:
        raise MissingExtraError("pyarrow", "train", "reading a log of predictions") from e
    try:
        reader = pq.ParquetFile(file)
        for batch in reader.iter_batches(batch_size=_ROWS_AT_ONCE):
            yield pa.Table.from_batches([batch])
    except pa.ArrowException as e:
        raise DataError(f"{file}: cannot be read as Parquet ({e}); move it out of the folder") from e


def _of_interest(table: pa.Table, version: str, since: datetime | None, until: datetime | None) -> tuple[pa.Table, int]:
    """Rows of this bundle in this time, and how many rows in this time are of other bundles."""
    import pyarrow.compute as pc

    for bound, compare in ((since, pc.greater_equal), (until, pc.less)):
        if bound is not None:
            aware = bound if bound.tzinfo is not None else bound.replace(tzinfo=UTC)
            table = table.filter(compare(table["time"], aware))
    mine = table.filter(pc.equal(table["version"], version))
    return mine, table.num_rows - mine.num_rows


def _tensors(table: pa.Table, side: str, fields: tuple[Field, ...]) -> dict[str, Array]:
    """The tensors of ``groundup.bundle.signature`` from the groups that the log wrote; fields that are not there are left out."""
    group = table[side].combine_chunks()
    there = {group.type.field(i).name for i in range(group.type.num_fields)}
    return {f.name: _tensor(group.field(f.name), f) for f in fields if f.name in there}


def _tensor(column: pa.Array, field: Field) -> Array:
    n = len(column)
    if field.kind == "image":
        return np.frombuffer(b"".join(column.to_pylist()), np.uint8).reshape(n, *field.shape)
    if field.kind == "tensor":
        return np.asarray(column.flatten().to_numpy(zero_copy_only=False), np.float32).reshape(n, *field.shape)
    if field.kind == "category":
        return np.array([*column.fill_null("").to_pylist(), ""], object)[:-1]
    if field.kind == "datetime":
        return np.asarray(column.cast("int64").fill_null(MISSING_DATETIME).to_numpy(zero_copy_only=False))
    return np.asarray(column.cast("float64").to_numpy(zero_copy_only=False))

"""The registry's file: one SQLite database that a kill leaves whole, in which versions and history cannot be rewritten.

- What was committed survives SIGKILL and power loss: write-ahead log with ``synchronous = FULL``.
- Processes are serialised by ``BEGIN IMMEDIATE``; a reader never waits, and leaves no file behind.
- History and versions are append-only, held by triggers and not by good manners.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from groundup.bundle.files import explaining_storage
from groundup.errors import BundleError, BusyError, StorageError

_BUSY_SECONDS = 60.0
_SCHEMA = (
    """CREATE TABLE version (
        name TEXT NOT NULL, version INTEGER NOT NULL, content TEXT NOT NULL, created TEXT NOT NULL,
        metrics TEXT NOT NULL, gates TEXT NOT NULL, PRIMARY KEY (name, version), UNIQUE (name, content))""",
    """CREATE TABLE alias (
        name TEXT NOT NULL, alias TEXT NOT NULL, version INTEGER NOT NULL, PRIMARY KEY (name, alias),
        FOREIGN KEY (name, version) REFERENCES version (name, version))""",
    """CREATE TABLE history (
        number INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL, time TEXT NOT NULL, action TEXT NOT NULL,
        before INTEGER, after INTEGER, who TEXT NOT NULL, why TEXT NOT NULL)""",
    """CREATE TABLE mirror (
        name TEXT NOT NULL, version INTEGER NOT NULL, store TEXT NOT NULL, elsewhere TEXT NOT NULL, PRIMARY KEY (name, version, store))""",
    "CREATE TRIGGER history_is_kept BEFORE UPDATE ON history BEGIN SELECT RAISE(ABORT, 'history is append-only'); END",
    "CREATE TRIGGER history_is_all BEFORE DELETE ON history BEGIN SELECT RAISE(ABORT, 'history is append-only'); END",
    "CREATE TRIGGER versions_stay BEFORE UPDATE ON version BEGIN SELECT RAISE(ABORT, 'versions never change'); END",
    "CREATE TRIGGER versions_are_kept BEFORE DELETE ON version BEGIN SELECT RAISE(ABORT, 'versions never go'); END",
)


@contextmanager
def writing(file: Path, *, make: bool = False) -> Iterator[sqlite3.Connection]:
    """One transaction that holds the registry; only what adds a version may ``make`` one where there is none."""
    if make:
        with explaining_storage(file):
            file.parent.mkdir(parents=True, exist_ok=True)
    elif not file.exists():
        raise BundleError(f"there is no {file}: nothing was registered there; --home names another folder")
    try:
        with closing(sqlite3.connect(file, timeout=_BUSY_SECONDS, isolation_level=None)) as db:
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("PRAGMA synchronous = FULL")
            db.execute("PRAGMA foreign_keys = ON")
            db.execute("BEGIN IMMEDIATE")
            try:
                if db.execute("SELECT count(*) FROM sqlite_master WHERE name = 'versions_stay'").fetchone() == (0,):
                    for statement in _SCHEMA:
                        db.execute(statement)
                yield db
                db.execute("COMMIT")
            except BaseException:
                db.execute("ROLLBACK")
                raise
    except sqlite3.OperationalError as e:
        if "locked" in str(e) or "busy" in str(e):
            raise BusyError(f"{file} is held by another process since {_BUSY_SECONDS:g} s; wait for it and try again") from e
        raise StorageError(f"cannot write {file}: {e}; free the disk, or choose another folder with --home") from e
    except sqlite3.DatabaseError as e:
        raise StorageError(f"{file}: {e}; the file is damaged or not a registry, restore it from a copy") from e


@contextmanager
def reading(file: Path) -> Iterator[sqlite3.Connection | None]:
    """A connection that writes nothing; None where there is no registry yet.  Works on a read-only file system."""
    if not file.exists():
        yield None
        return
    # A connection that may not write cannot remove SQLite's log and shared memory when it closes; so it may, and is told not to.
    mode = "rw" if os.access(file.parent, os.W_OK) and os.access(file, os.W_OK) else "ro"
    if mode == "ro" and not file.with_name(f"{file.name}-wal").exists():
        mode = "ro&immutable=1"  # without a log beside it the file is complete, and is read where no shared memory can be made
    uri = f"{file.resolve().as_uri()}?mode={mode}"
    try:
        with closing(sqlite3.connect(uri, uri=True, timeout=_BUSY_SECONDS, isolation_level=None)) as db:
            db.execute("PRAGMA query_only = ON")
            empty = db.execute("SELECT count(*) FROM sqlite_master WHERE name = 'versions_stay'").fetchone() == (0,)
            yield None if empty else db
    except sqlite3.DatabaseError as e:
        raise StorageError(f"cannot read {file}: {e}") from e

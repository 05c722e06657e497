"""The registry: versions that never change, two aliases that move, and a history that only grows.

    <home>/registry.sqlite                      versions, aliases, history
    <home>/registry/<name>/<version>/bundle     the bundle itself; served with nothing else installed

What it promises, and how:

- an acknowledged promotion survives SIGKILL and power loss: the database is durable (:mod:`groundup.registry.database`), and the
  bundle's files are on disk before the row that names them is;
- alias and history entry change in one transaction, so they never disagree;
- history and versions are append-only.

The champion before the champion is found by replaying the history: a promotion pushes, a rollback pops.  So two
rollbacks go two steps back, and not back and forth.
"""

from __future__ import annotations

import getpass
import json
import os
import re
import shutil
import socket
import sqlite3
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from groundup.bundle import Bundle
from groundup.bundle.files import fsync_dir, whole_directory
from groundup.errors import BundleError, BusyError
from groundup.registry.database import reading, writing

CHAMPION, CHALLENGER = "champion", "challenger"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_REFERENCE = re.compile(r"models:/(?P<name>[^/@]+)(?:@(?P<alias>[^/@]+)|/(?P<version>[0-9]+|latest))")


@dataclass(frozen=True)
class Version:
    """One registered bundle.

    Attributes:
        content: the bundle's own version, a hash of its files.
        metrics, gates: as measured on the test split when it was made.
        path: its bundle folder.
    """

    name: str
    version: int
    content: str
    created: str
    metrics: Mapping[str, Any]
    gates: list[Any]
    path: Path


@dataclass(frozen=True)
class Event:
    """One line of the history.

    Attributes:
        action: "register" (became challenger), "promote", "refuse" (was not promoted) or "rollback" (both of the champion).
        before, after: the alias's version before and after; None where there was none.
        who: user@host.
        why: gate values and reasons.
    """

    number: int
    name: str
    time: str
    action: str
    before: int | None
    after: int | None
    who: str
    why: Mapping[str, Any]

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    def __str__(self) -> str:
        return f"{self.time} {self.action} {self.name}: version {self.before or 'none'} → {self.after or 'none'}, by {self.who}"


class Registry:
    """The registry below ``home``.

    Raises (all methods):
        BundleError: a name, version or alias that is not there; the message lists what is.
        BusyError: another process held the registry for a minute.
        StorageError: the folder cannot be written.
    """

    def __init__(self, home: Path) -> None:
        self.home = Path(home)
        self.file = self.home / "registry.sqlite"

    def add(self, name: str, bundle: Bundle, *, metrics: Mapping[str, Any], gates: list[Any]) -> Version:
        """Copy ``bundle`` in as the next version of ``name`` and make it challenger.  The same content again is the same version."""
        if not _NAME.fullmatch(name):
            raise BundleError(f"model name {name!r}: expected letters, digits, '.', '_', '-', at most 128, a letter or digit first")
        with writing(self.file, make=True) as db:
            row = db.execute("SELECT version FROM version WHERE name = ? AND content = ?", (name, bundle.version)).fetchone()
            if row is None:
                (number,) = db.execute("SELECT coalesce(max(version), 0) + 1 FROM version WHERE name = ?", (name,)).fetchone()
                # Files first: a row must never name a bundle that is not there.  A folder without a row is of a killed process.
                with whole_directory(self._folder(name, number)) as folder:
                    _copy(bundle, folder / "bundle")
                fsync_dir(self.home / "registry")
                fsync_dir(self.home)
                db.execute(
                    "INSERT INTO version VALUES (?, ?, ?, ?, ?, ?)",
                    (name, number, bundle.version, _now(), json.dumps(metrics), json.dumps(gates)),
                )
            else:
                (number,) = row
            if self._alias(db, name, CHALLENGER) != number:
                self._move(db, name, CHALLENGER, "register", number, {"content": bundle.version})
        return self.version(name, number)

    def promote(self, name: str, version: int, why: Mapping[str, Any], *, expected: int | None = None, check: bool = False) -> Event:
        """Make ``version`` champion; ``why`` (gate values, reasons) is kept.

        Args:
            check: refuse with :class:`BusyError` if the champion is no longer ``expected`` (what the gates compared it with).
        """
        with writing(self.file) as db:
            self._known(db, name, version)
            now = self._alias(db, name, CHAMPION)
            if check and now != expected:
                raise BusyError(
                    f"{name}: champion is version {now}, no longer {expected} as when version {version} was compared; register again"
                )
            return self._move(db, name, CHAMPION, "promote", version, why)

    def refuse(self, name: str, version: int, why: Mapping[str, Any]) -> Event:
        """Record that ``version`` stays challenger, and why."""
        with writing(self.file) as db:
            self._known(db, name, version)
            champion = self._alias(db, name, CHAMPION)
            return self._record(db, name, "refuse", champion, champion, {"version": version, **why})

    def rollback(self, name: str, to: int | None = None, why: Mapping[str, Any] | None = None) -> Event:
        """The champion before the present one, or version ``to`` if it was champion once, is champion again."""
        with writing(self.file) as db:
            stack = _champions(self._events(db, name))
            if not stack:
                raise BundleError(f"{name} has no champion to roll back from; {self._names(db)}")
            if to is None and len(stack) < 2:
                raise BundleError(f"{name}: version {stack[-1]} is the first champion; there is none before it")
            target = stack[-2] if to is None else to
            self._known(db, name, target)
            were = {e.after for e in self._events(db, name) if e.action == "promote"}
            if target not in were:
                raise BundleError(f"{name}: version {target} was never champion, so no gate let it pass; these were: {_list(were)}")
            if target == stack[-1]:
                raise BundleError(f"{name}: version {target} is champion already")
            return self._move(db, name, CHAMPION, "rollback", target, why or {})

    def champion(self, name: str) -> int | None:
        """Version of the champion, or None."""
        with reading(self.file) as db:
            return self._alias(db, name, CHAMPION) if db else None

    def aliases(self, name: str) -> dict[str, int]:
        """Alias -> version."""
        with reading(self.file) as db:
            return dict(db.execute("SELECT alias, version FROM alias WHERE name = ?", (name,)).fetchall()) if db else {}

    def history(self, name: str) -> list[Event]:
        """Everything that happened to ``name``, oldest first."""
        with reading(self.file) as db:
            return self._events(db, name) if db else []

    def names(self) -> list[str]:
        """All registered names."""
        with reading(self.file) as db:
            return [n for (n,) in db.execute("SELECT DISTINCT name FROM version ORDER BY name")] if db else []

    def versions(self, name: str) -> list[Version]:
        """All versions of ``name``, oldest first."""
        with reading(self.file) as db:
            rows = db.execute("SELECT * FROM version WHERE name = ? ORDER BY version", (name,)).fetchall() if db else []
        return [Version(n, v, c, t, json.loads(m), json.loads(g), self._folder(n, v) / "bundle") for n, v, c, t, m, g in rows]

    def version(self, name: str, number: int) -> Version:
        """One version."""
        found = self.versions(name)
        for v in found:
            if v.version == number:
                return v
        raise BundleError(f"no version {number} of {name!r} in {self.file}; it has: {_list(v.version for v in found)}")

    def resolve(self, reference: str) -> Path:
        """The bundle folder of ``models:/NAME@ALIAS``, ``models:/NAME/VERSION`` or ``models:/NAME/latest``; a path stays as it is."""
        if not reference.startswith("models:"):
            return Path(reference)
        match = _REFERENCE.fullmatch(reference)
        if match is None:
            raise BundleError(f"{reference!r}: expected models:/NAME@champion, models:/NAME/3 or models:/NAME/latest")
        name, alias, wanted = match["name"], match["alias"], match["version"]
        versions = self.versions(name)
        if not versions:
            raise BundleError(f"{reference!r}: no model {name!r} in {self.file}; it has: {_list(self.names())}")
        if alias is not None:
            aliases = self.aliases(name)
            if alias not in aliases:
                raise BundleError(
                    f"{reference!r}: {name} has no {alias!r}; it has: {_list(f'{a} (version {v})' for a, v in aliases.items())}"
                )
            return self.version(name, aliases[alias]).path
        return (versions[-1] if wanted == "latest" else self.version(name, int(wanted))).path

    def mirrored(self, name: str, store: str) -> dict[int, str]:
        """Version here -> version in the other registry ``store``."""
        with reading(self.file) as db:
            return (
                dict(db.execute("SELECT version, elsewhere FROM mirror WHERE name = ? AND store = ?", (name, store)).fetchall())
                if db
                else {}
            )

    def mirror(self, name: str, version: int, store: str, elsewhere: str) -> None:
        """Remember that ``version`` is known as ``elsewhere`` in the registry ``store``."""
        with writing(self.file) as db:
            db.execute("INSERT OR REPLACE INTO mirror VALUES (?, ?, ?, ?)", (name, version, store, elsewhere))

    def _folder(self, name: str, version: int) -> Path:
        return self.home / "registry" / name / str(version)

    def _move(self, db: sqlite3.Connection, name: str, alias: str, action: str, version: int, why: Mapping[str, Any]) -> Event:
        before = self._alias(db, name, alias)
        db.execute("INSERT OR REPLACE INTO alias VALUES (?, ?, ?)", (name, alias, version))
        return self._record(db, name, action, before, version, why)

    def _record(
        self, db: sqlite3.Connection, name: str, action: str, before: int | None, after: int | None, why: Mapping[str, Any]
    ) -> Event:
        time, who = _now(), _who()
        cursor = db.execute(
            "INSERT INTO history (name, time, action, before, after, who, why) VALUES (?, ?, ?, ?, ?, ?, ?)",
            (name, time, action, before, after, who, json.dumps(why)),
        )
        assert cursor.lastrowid is not None
        return Event(cursor.lastrowid, name, time, action, before, after, who, dict(why))

    def _alias(self, db: sqlite3.Connection, name: str, alias: str) -> int | None:
        row = db.execute("SELECT version FROM alias WHERE name = ? AND alias = ?", (name, alias)).fetchone()
        return None if row is None else int(row[0])

    def _events(self, db: sqlite3.Connection, name: str) -> list[Event]:
        rows = db.execute("SELECT number, name, time, action, before, after, who, why FROM history WHERE name = ? ORDER BY number", (name,))
        return [Event(number, n, t, action, before, after, who, json.loads(why)) for number, n, t, action, before, after, who, why in rows]

    def _known(self, db: sqlite3.Connection, name: str, version: int) -> None:
        have = [v for (v,) in db.execute("SELECT version FROM version WHERE name = ? ORDER BY version", (name,))]
        if version not in have:
            raise BundleError(f"no version {version} of {name!r} in {self.file}; it has: {_list(have)}")

    def _names(self, db: sqlite3.Connection) -> str:
        return f"champions there: {_list(n for (n,) in db.execute('SELECT name FROM alias WHERE alias = ?', (CHAMPION,)))}"


def _champions(events: list[Event]) -> list[int]:
    """The champions up to the present one, as a stack: promotion pushes, rollback pops down to its target."""
    stack: list[int] = []
    for e in events:
        if e.after is None:
            continue
        if e.action == "promote" and e.after not in stack[-1:]:
            stack.append(e.after)
        elif e.action == "rollback":
            while stack and stack[-1] != e.after:
                stack.pop()
            if not stack:  # it was champion on a branch that has been rolled back
                stack.append(e.after)
    return stack


def _copy(bundle: Bundle, folder: Path) -> None:
    """The verified bytes of every file; names come from the manifest that was checked when the bundle was opened."""
    for name in bundle.files:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(bundle.read(name))
    shutil.copyfile(bundle.path / "bundle.json", folder / "bundle.json")
    Bundle.open(folder)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def _who() -> str:
    try:
        user = getpass.getuser()
    except (KeyError, OSError, ImportError):  # a container whose user has no name
        user = f"uid {os.getuid()}"
    return f"{user}@{socket.gethostname()}"


def _list(items: Any) -> str:
    return ", ".join(str(i) for i in items) or "nothing"

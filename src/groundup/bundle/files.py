"""Files and folders that are written whole or not at all, and hashes of what was written.

The order is the one that survives a crash (Pillai et al., "All File Systems Are Not Created Equal", OSDI 2014):
temporary name in the same folder, write, fsync the file, rename, fsync the folder.  A folder that exists is replaced by
*exchanging* the two names in one system call; between two renames there would be a moment with no folder at all.

Nothing here is writable for group or others, whatever the umask: who can write to a bundle can change its answers.
"""

from __future__ import annotations

import ctypes
import errno
import hashlib
import json
import os
import platform
import secrets
import shutil
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from groundup.errors import StorageError

_AT_FDCWD, _RENAME_EXCHANGE = -100, 2  # <fcntl.h>, <linux/fs.h>


def sha256(path: Path) -> str:
    """Hex SHA-256 of a file, in constant memory."""
    with open(path, "rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def fsync_dir(path: Path) -> None:
    """Make a folder's entries durable."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


_FREE = "free some space and run the same command again; what was finished is kept"
_FOLDERS = "--home for caches, --output for results, GROUNDUP_HOME for downloads"
_ELSEWHERE = f"change its owner or mode, or choose another folder ({_FOLDERS})"
_ADVICE = {
    errno.ENOSPC: f"the disk is full: {_FREE}",
    errno.EDQUOT: f"the quota is used up: {_FREE}",
    errno.EFBIG: f"files may not grow so large here: raise the limit (ulimit -f) or {_FREE}",
    errno.EROFS: f"the file system is read-only: choose another folder ({_FOLDERS})",
    errno.EACCES: f"no permission to write there: {_ELSEWHERE}",
    errno.EPERM: f"no permission to write there: {_ELSEWHERE}",
    errno.EIO: f"the disk fails: check it, or choose another folder (--home); {_FREE}",
    errno.ESTALE: "the network folder went away: mount it again and run the same command again",
}
_SAID = {  # by libraries that raise errors of their own
    "No space left on device": errno.ENOSPC,
    "disk is full": errno.ENOSPC,
    "File too large": errno.EFBIG,
    "Read-only file system": errno.EROFS,
}


@contextmanager
def explaining_storage(path: Path) -> Iterator[None]:
    """Turn the operating system's 'no' while writing below ``path`` into a :class:`StorageError` that says what to do."""
    try:
        yield
    except StorageError:
        raise
    except Exception as e:
        if not is_storage(e):
            raise
        where = (e.filename2 or e.filename) if isinstance(e, OSError) else None
        raise StorageError(f"cannot write {where or path}: {_ADVICE[_code(e)]}") from e


def is_storage(error: BaseException) -> bool:
    """Whether an error says that the disk, and nothing else, is the reason."""
    return _code(error) in _ADVICE


def _code(error: BaseException) -> int:
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno
    return next((code for sign, code in _SAID.items() if sign in str(error)), 0)


def make_folder(path: Path) -> None:
    """Make a folder and those above it; one that is there already is fine.

    Raises:
        StorageError: it cannot be made, whatever the reason.
    """
    with explaining_storage(path):
        try:
            path.mkdir(parents=True, exist_ok=True)
        except (FileNotFoundError, FileExistsError, NotADirectoryError) as e:
            raise StorageError(f"cannot make the folder {path}: {e.strerror} ({e.filename}); choose another one") from e


def write_bytes(path: Path, data: bytes) -> None:
    """Replace ``path`` by ``data``; a reader sees the old file or the new one, never a part."""
    temporary = _beside(path, "tmp")
    with explaining_storage(path):
        try:
            sweep(path)
            fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
            with os.fdopen(fd, "wb") as f:
                f.write(data)
                f.flush()
                os.fsync(f.fileno())
            os.replace(temporary, path)
            fsync_dir(path.parent)
        finally:
            temporary.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """:func:`write_bytes` of :func:`to_json`."""
    write_bytes(path, to_json(value))


def to_json(value: Any) -> bytes:
    """Readable, stable JSON (NaN and infinity are refused)."""
    return (json.dumps(value, indent=2, sort_keys=False, ensure_ascii=False, allow_nan=False) + "\n").encode()


@contextmanager
def whole_directory(path: Path) -> Iterator[Path]:
    """Give a temporary folder to fill; on success it becomes ``path`` in one step, on any error it is removed.

    A ``path`` that exists already is replaced.  Killed at any instant, ``path`` is the old folder or the new one; what a
    killed process left beside it is removed by the next call for the same path.
    """
    temporary = _beside(path, "tmp")
    with explaining_storage(path):
        _make_parents(path)
        sweep(path)
        temporary.mkdir(0o755)
        try:
            yield temporary
            for root, _, names in os.walk(temporary):
                for name in names:
                    if not Path(root, name).is_symlink():
                        _settle(Path(root, name))
                _settle(Path(root))
            if path.is_symlink() or not path.exists():
                os.replace(temporary, path)
            else:
                _exchange(temporary, path)
            fsync_dir(path.parent)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def _beside(path: Path, suffix: str) -> Path:
    """A name in the same folder that no other process, thread or host chooses."""
    return path.with_name(f".{path.name}.{_host()}-{os.getpid()}-{secrets.token_hex(4)}.{suffix}")


def _host() -> str:
    return hashlib.sha256(platform.node().encode()).hexdigest()[:8]


def _settle(path: Path) -> None:
    """Make one entry durable, and writable for nobody but its owner."""
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    try:
        mode = stat.S_IMODE(os.fstat(fd).st_mode)
        if mode & 0o022:
            os.fchmod(fd, mode & ~0o022)
        os.fsync(fd)
    finally:
        os.close(fd)


def _make_parents(path: Path) -> None:
    """``path.parent`` and above; ``mkdir(parents=True)`` would obey the umask alone."""
    missing = []
    for parent in path.parents:
        if parent.exists():
            break
        missing.append(parent)
    for parent in reversed(missing):
        parent.mkdir(0o755, exist_ok=True)


def sweep(path: Path) -> None:
    """Remove what processes of this host that are no longer alive left beside ``path``."""
    for leftover in path.parent.glob(f".{_escaped(path.name)}.{_host()}-*-*.tmp"):
        pid = leftover.name.removesuffix(".tmp").rsplit(".", 1)[1].split("-")[1]
        if pid.isdecimal() and not _alive(int(pid)):
            if leftover.is_dir():
                shutil.rmtree(leftover, ignore_errors=True)
            else:
                leftover.unlink(missing_ok=True)


def _escaped(name: str) -> str:
    """The name, without its characters that a glob acts on."""
    return "".join(f"[{c}]" if c in "*?[" else c for c in name)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # somebody else's, alive
        return True
    return True


def _exchange(new: Path, old: Path) -> None:
    """Swap the two names.  One system call on Linux and macOS; two renames where the file system has no such call."""
    libc = ctypes.CDLL(None, use_errno=True)
    if sys.platform == "darwin":
        failed = libc.renamex_np(os.fsencode(new), os.fsencode(old), 2)
    elif hasattr(libc, "renameat2"):
        failed = libc.renameat2(_AT_FDCWD, os.fsencode(new), _AT_FDCWD, os.fsencode(old), _RENAME_EXCHANGE)
    else:
        failed, _ = -1, ctypes.set_errno(errno.ENOSYS)
    if not failed:
        return
    code = ctypes.get_errno()
    if code not in {errno.ENOSYS, errno.EINVAL, errno.ENOTSUP}:
        raise OSError(code, os.strerror(code), str(old))
    aside = _beside(old, "tmp")
    os.replace(old, aside)
    os.replace(new, old)
    os.replace(aside, new)

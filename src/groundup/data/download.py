"""One file over HTTP into a ``.part`` file: resumed where it stood, bounded in size, asked for again only if it changed.

What came before the connection broke is used again only when it is sure to be of the same file: because the server holds to a
validator of it (ETag, Last-Modified; RFC 9110, If-Range), or because the caller knows its SHA-256 and will compare.  Only http and
https are spoken, in redirects too.
"""

from __future__ import annotations

import http.client
import json
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any, NamedTuple

from groundup.bundle.files import explaining_storage, sha256, write_bytes
from groundup.errors import DataError, StorageError
from groundup.progress import Progress, Silent

_TRIES = 4
_TIMEOUT = 30  # seconds without a byte
_CHUNK = 1 << 18


class Validator(NamedTuple):
    """What a server says of a file's version; empty where it says nothing."""

    etag: str = ""
    modified: str = ""

    def strong(self) -> str:
        """The word by which a range of the same bytes may be asked for, or nothing."""
        return self.modified if not self.etag or self.etag.startswith("W/") else self.etag


class _Redirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        if not newurl.lower().startswith(("https://",) if req.full_url.lower().startswith("https://") else ("http://", "https://")):
            raise urllib.error.HTTPError(req.full_url, code, msg, headers, fp)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _opener() -> urllib.request.OpenerDirector:
    """urllib's own, proxies from the environment included, without its handlers for files and FTP."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPErrorProcessor(),
        _Redirects(),
    ):
        opener.add_handler(handler)
    return opener


def download(
    url: str,
    part: Path,
    progress: Progress | Silent,
    *,
    known: str | None = None,
    unless: Validator | None = None,
    limit: int | None = None,
    wait: float = 1.0,
    advice: str,
) -> Validator | None:
    """Fetch ``url`` into ``part``; None where the server says that it is still the version ``unless``.

    Args:
        known: SHA-256 that the caller will hold the file to.
        limit: bytes; more are refused.
        wait: seconds before the second attempt; doubled with each further one.
        advice: what people can do who have no network.

    Raises:
        DataError: it cannot be reached, is too large, or leads elsewhere; what came is kept.
        StorageError: ``part`` cannot be written.
    """
    reason = ""
    with progress.task(f"download {url.rsplit('/', 1)[-1]}", None, "bytes") as task:
        for attempt in range(_TRIES):
            if attempt:
                time.sleep(wait * 2 ** (attempt - 1))
            have = part.stat().st_size if part.exists() else 0
            same = _read_version(part)
            if have and known is None and not same.strong():
                have = 0
            request = urllib.request.Request(url, headers=_headers(have, same if known is None else Validator(), unless))
            try:
                with _opener().open(request, timeout=_TIMEOUT) as response:
                    version = Validator(response.headers.get("ETag", ""), response.headers.get("Last-Modified", ""))
                    resumed = response.status == 206 and response.headers.get("Content-Range", f"bytes {have}-").startswith(
                        f"bytes {have}-"
                    )
                    length = response.headers.get("Content-Length")
                    task.total = int(length) + (have if resumed else 0) if length else None
                    task.done = have if resumed else 0
                    _refuse_large(url, task.total, limit, part)
                    _write_version(part, version)
                    with explaining_storage(part), open(part, "ab" if resumed else "wb") as f:
                        for chunk in iter(lambda: response.read1(_CHUNK), b""):
                            f.write(chunk)
                            task.advance(len(chunk))
                            _refuse_large(url, task.done, limit, part)
                if task.total is None or part.stat().st_size == task.total:
                    _version_of(part).unlink(missing_ok=True)
                    return version
                reason = f"the connection ended after {part.stat().st_size} of {task.total:.0f} bytes"
            except StorageError:
                raise
            except urllib.error.HTTPError as e:
                if e.code == 304 and unless is not None:
                    return None
                if e.code == 416 and part.exists():  # nothing beyond what is here: whole, or of another file
                    if known is not None and sha256(part) == known:
                        return Validator()
                    part.unlink()
                elif e.code < 400:
                    raise DataError(
                        f"{url} leads to {e.headers.get('Location')}, which is not followed: only http and https are, "
                        "never from https back to http, and never in a circle"
                    ) from e
                elif e.code < 500 and e.code != 429:
                    raise DataError(f"{url} answers {e.code} {e.reason}; {_meaning(e.code)}") from e
                reason = f"{e.code} {e.reason}"
            except http.client.InvalidURL as e:
                raise DataError(f"{url} is no usable URL: {e}") from e
            except (urllib.error.URLError, http.client.HTTPException, OSError) as e:
                reason = str(getattr(e, "reason", e)) or type(e).__name__
    raise DataError(f"cannot download {url}: {reason}; what came is kept, run again to go on, or {advice}")


def _headers(have: int, same: Validator, unless: Validator | None) -> dict[str, str]:
    headers = {"User-Agent": "groundup"}
    if have:
        headers["Range"] = f"bytes={have}-"
        if same.strong():
            headers["If-Range"] = same.strong()
    elif unless is not None:
        headers |= {key: value for key, value in (("If-None-Match", unless.etag), ("If-Modified-Since", unless.modified)) if value}
    return headers


def _refuse_large(url: str, size: float | None, limit: int | None, part: Path) -> None:
    if size is not None and limit is not None and size > limit:
        part.unlink(missing_ok=True)
        raise DataError(f"{url} holds at least {size:,.0f} bytes, and data.max_download allows {limit:,}; raise it, or give a smaller file")


def _meaning(code: int) -> str:
    if code in (401, 403, 407):
        return "no password is sent; download the file by other means and give its path as data.source"
    return "was it moved?"


def _version_of(part: Path) -> Path:
    """Where the version of a part is noted."""
    return part.with_name(part.name + ".json")


def _write_version(part: Path, version: Validator) -> None:
    if version.strong():
        write_bytes(_version_of(part), json.dumps(version._asdict()).encode())
    else:
        _version_of(part).unlink(missing_ok=True)


def _read_version(part: Path) -> Validator:
    try:
        return Validator(**json.loads(_version_of(part).read_text()))
    except (OSError, ValueError, TypeError):  # never noted, or damaged: the file starts again
        return Validator()

"""Bytes of a file on this disk or behind an http(s) address: `read_range` and `read_whole`.

A dropped connection, a server that is busy and a body that ends early are tried again, from the byte where it stopped.
What remains an error after that is one line. Nothing is ever run and no other kind of address is ever opened, whatever
a server redirects to (webdataset's own opener starts ``curl``, and ``pipe:`` addresses start anything).
"""

from __future__ import annotations

import http.client
import os
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

from videollm.errors import DataError

TRIES = 5
FIRST_WAIT_SECONDS = 0.5
"""Before the second try; twice as long before each further one."""
TIMEOUT_SECONDS = 30.0
"""Without a byte for so long, a connection counts as dropped."""
BLOCK_BYTES = 1024**2
WORTH_ANOTHER_TRY = {408, 425, 429, 500, 502, 503, 504}


def is_address(location: str | os.PathLike[str]) -> bool:
    """Whether a location is an http or https address, not a path."""
    return str(location).lower().startswith(("http://", "https://"))


def shown(location: str | os.PathLike[str]) -> str:
    """A location for a message: without the secrets that an address may carry."""
    if not is_address(location):
        return str(location)
    parts = urllib.parse.urlsplit(str(location))
    return urllib.parse.urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def beside(location: str | os.PathLike[str], name: str) -> str:
    """The file of a name in the folder of a file, on disk or behind an address (whose query is kept)."""
    if not is_address(location):
        return str(Path(location).parent / name)
    parts = urllib.parse.urlsplit(str(location))
    path = parts.path.rpartition("/")[0] + "/" + urllib.parse.quote(name)
    return urllib.parse.urlunsplit((parts.scheme, parts.netloc, path, parts.query, ""))


def read_whole(location: str | os.PathLike[str], most_bytes: int) -> bytes:
    """All bytes of a file.

    Raises:
        DataError: it cannot be read, or has more than ``most_bytes``.
    """
    found = _read(location, 0, most_bytes + 1)
    if len(found) > most_bytes:
        raise DataError(f"{shown(location)}: over the limit of {most_bytes:,} bytes; this is no file of ours")
    return found


def read_range(location: str | os.PathLike[str], start: int, count: int) -> bytes:
    """``count`` bytes of a file from ``start``; fewer only where the file ends.

    Raises:
        DataError: it cannot be read.
    """
    return _read(location, start, count)


def _read(location: str | os.PathLike[str], start: int, count: int) -> bytes:
    if is_address(location):
        return _fetch(str(location), start, count)
    try:
        with open(location, "rb") as file:
            file.seek(start)
            return file.read(count)
    except (OSError, ValueError) as error:
        reason = (getattr(error, "strerror", None) or str(error)).lower()
        raise DataError(f"cannot read {shown(location)}: {reason}; check the path") from None


def _opener() -> urllib.request.OpenerDirector:
    """Opens http and https, directly or through the proxies of the environment, and nothing else."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler,
        urllib.request.UnknownHandler,
        urllib.request.HTTPHandler,
        urllib.request.HTTPSHandler,
        urllib.request.HTTPDefaultErrorHandler,
        urllib.request.HTTPRedirectHandler,
        urllib.request.HTTPErrorProcessor,
    ):
        opener.add_handler(handler())
    return opener


def _fetch(address: str, start: int, count: int) -> bytes:
    """A range of what an address answers, in as many connections as it takes."""
    body = bytearray()
    reason = ""
    for attempt in range(TRIES):
        if attempt:
            time.sleep(FIRST_WAIT_SECONDS * 2 ** (attempt - 1))
        before = len(body)
        try:
            _fetch_more(address, start, count, body)
            return bytes(body)
        except urllib.error.HTTPError as error:
            error.close()
            if error.code == 416:  # nothing at or after that byte
                return bytes(body)
            reason = f"status {error.code} {error.reason}".strip().lower()
            if error.code not in WORTH_ANOTHER_TRY:
                raise DataError(f"cannot read {shown(address)}: {reason}; check the address") from None
        except http.client.InvalidURL as error:
            raise DataError(f"cannot read {shown(address)}: {error}; check the address") from None
        except (OSError, http.client.HTTPException) as error:
            cause = getattr(error, "reason", None) or error
            reason = (getattr(cause, "strerror", None) or str(cause) or type(cause).__name__).lower()
        if len(body) > before:
            reason = f"{reason or 'the connection ended'} after {start + len(body):,} bytes"
    raise DataError(
        f"cannot read {shown(address)}: {reason} ({TRIES} tries); check the network and the address, and run it again"
    )


def _fetch_more(address: str, start: int, count: int, body: bytearray) -> None:
    """One connection: appends to ``body`` until it has ``count`` bytes or the file ends.

    Raises:
        OSError, http.client.HTTPException: the connection failed or ended before what it promised; ``body`` keeps
            what came.
    """
    first, last = start + len(body), start + count - 1
    request = urllib.request.Request(address, headers={"Range": f"bytes={first}-{last}", "Accept-Encoding": "identity"})
    with _opener().open(request, timeout=TIMEOUT_SECONDS) as answer:
        if answer.status == 206:
            given = answer.headers.get("Content-Range", "")
            if not given.startswith(f"bytes {first}-"):
                raise OSError(f"the server sent another range ({given[:60]!r})")
        else:  # a server without ranges sends the file from its beginning
            left = first
            while left:
                dropped = len(answer.read(min(left, BLOCK_BYTES)))
                if not dropped:
                    return
                left -= dropped
        while len(body) < count:
            block = answer.read(min(BLOCK_BYTES, count - len(body)))
            if not block:
                # Python hands out what came of a body that ends early without a word.
                if answer.length:
                    raise OSError("the connection ended early")
                return
            body += block

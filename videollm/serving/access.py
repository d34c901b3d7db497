"""The door in front of every route, of the page and of the service: whose request comes in, and how large it may be.

What is checked, in this order: the size of the head, the name that the browser was told (Host: a site elsewhere cannot
make its own name point to this machine), the site that sends (Origin), the path, the key, the length, how much is going
on. All of it before a byte of the body is read. A body that trickles in is cut off.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import hashlib
import ipaddress
import json
import logging
import secrets
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from videollm.errors import ConfigError

log = logging.getLogger(__name__)

LINGER_SECONDS, LINGER_BYTES = 0.5, 2**20
"""How long, and how much of, the body of a refused request is still read."""
MOST_HEAD_BYTES = 32 * 1024
"""Of the address and the headers of a request."""
SLOW_SECONDS = 20.0
"""How long the next piece of a body may take to come."""
SLOWEST_BYTES_A_SECOND = 64 * 1024
"""Of a body as a whole, after the first `SLOW_SECONDS`."""
UNREAD_SECONDS = 60.0
"""How long a piece of an answer may wait to be taken."""
NO_KEY = "anyone"
"""Who asks where no key is asked for."""
SHORTEST_KEY_CHARACTERS = 16

Headers = list[tuple[bytes, bytes]]
RETRY = (b"retry-after", b"1")


@dataclass(frozen=True)
class Rules:
    """Who may come in.

    Attributes:
        hosts: names that the Host header may have; None: any, where a key is asked for.
        keys: one of them is asked for on every path but those open, as a bearer token or as the password of basic
            authentication; none: no key is asked for. Whoever comes with another key is somebody else, see `asker`.
        body_bytes: the longest body, by method and path.
        open_paths: need no key.
        known_path: whether there is such a path; others are refused here, whatever stands behind the door.
        policy: the Content-Security-Policy of what is answered.
        at_once: requests under way; one more is refused.
    """

    hosts: frozenset[str] | None
    keys: frozenset[str]
    body_bytes: Callable[[str, str], int]
    open_paths: frozenset[str] = frozenset({"/healthz"})
    known_path: Callable[[str], bool] = lambda path: True
    policy: str = "default-src 'none'; frame-ancestors 'none'"
    at_once: int = 1024


def hosts_for(host: str, *keys: str | None) -> frozenset[str] | None:
    """Names under which a service on this address, with these keys, may be asked for.

    Raises:
        ConfigError: other machines could reach it, and there is no key; or one that is short, or cannot be sent.
    """
    given = [key for key in keys if key is not None]
    for key in given:
        if len(key) < SHORTEST_KEY_CHARACTERS:
            raise ConfigError(
                f"an API key has {len(key)} characters and could be guessed; give at least {SHORTEST_KEY_CHARACTERS}, "
                f"for example {secrets.token_hex(16)}"
            )
        if not key.isascii() or not key.isprintable() or key != key.strip():
            raise ConfigError(
                "an API key has characters that no header can carry; use letters, digits and signs of ASCII, for "
                f"example {secrets.token_hex(16)}"
            )
    if is_loopback(host):
        return frozenset({"localhost", "127.0.0.1", "[::1]", f"[{host}]" if ":" in host else host})
    if not given:
        raise ConfigError(
            f"on {host} other machines can reach this: give an API key (--api-key, or VIDEOLLM_API_KEY in the "
            f"environment), for example {secrets.token_hex(16)}; or stay on 127.0.0.1"
        )
    return None


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def asker(scope: Mapping[str, Any]) -> str:
    """Who sent a request that came through a `Door`: the same for the same key, and nothing of the key itself."""
    return scope["state"]["asker"]


class Door:
    """An ASGI application in front of another.

    Args:
        app: what is behind it.
        rules: who may come in.
        answers: counts what was answered, by status.
    """

    def __init__(self, app: Any, rules: Rules, answers: Counter[int] | None = None) -> None:
        self.app, self.rules = app, rules
        self.answers: Counter[int] = Counter() if answers is None else answers
        self._under_way = 0

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":  # there are no websockets here
            await send({"type": "websocket.close", "code": 1008})
            return
        send = self._with_headers(send)
        refused = self._refused(scope)
        if refused is not None:
            status, message, more = refused
            await answer_error(send, status, message, more, receive)
            return
        self._under_way += 1
        try:
            await self.app(scope, _Patient(receive, scope), send)
        except _Unread:
            log.warning("an answer was not read for %g s, and broken off", UNREAD_SECONDS)
        finally:
            self._under_way -= 1

    def _refused(self, scope: dict[str, Any]) -> tuple[int, str, Headers] | None:
        """Status, sentence and headers for a request that does not come in; who sent it is noted for `asker`."""
        rules, path, method = self.rules, scope["path"], scope["method"]
        headers: dict[bytes, list[bytes]] = {}
        for name, value in scope["headers"]:
            headers.setdefault(name, []).append(value)
        size = len(path) + len(scope.get("query_string", b"")) + sum(len(n) + len(v) for n, v in scope["headers"])
        if size > MOST_HEAD_BYTES:
            return 431, f"the address and the headers have {size:,} bytes and the limit is {MOST_HEAD_BYTES:,}", []
        host = _only(headers, b"host")
        if host is None or (rules.hosts is not None and _without_port(host) not in rules.hosts):
            return 421, "this service is not known by that name (Host); use the address that it printed", []
        origin = _only(headers, b"origin")
        if origin is not None and origin != "null" and _site_of(origin) != host:
            return 403, "a page of another site cannot use this service (Origin)", []
        if origin == "null" and method not in ("GET", "HEAD"):
            return 403, "a page of another site cannot use this service (Origin)", []
        if not rules.known_path(path):
            return 404, "there is nothing at this address", []
        scope["state"] = {**scope.get("state", {}), "asker": NO_KEY}
        if rules.keys and path not in rules.open_paths:
            given = _key_of(_only(headers, b"authorization"))
            # All of them are compared, so that the time tells nothing.
            fits = [secrets.compare_digest((given or "").encode(), key.encode()) for key in rules.keys]
            if given is None or not any(fits):
                what = "a wrong" if given is not None else "no"
                challenge = [(b"www-authenticate", b'Basic realm="videollm", charset="UTF-8"')]
                return 401, f"{what} API key was given: send it as a bearer token, or as a password", challenge
            scope["state"]["asker"] = f"key {hashlib.sha256(given.encode()).hexdigest()[:32]}"
        if method in ("POST", "PUT", "PATCH", "DELETE"):
            length = _only(headers, b"content-length")
            if b"transfer-encoding" in headers:
                return 411, "the request does not say how long it is (Content-Length)", []
            if b"content-length" not in headers and method == "DELETE":
                length = "0"
            if length is None or not length.isdecimal() or len(length) > 15:
                return 411, "the request does not say how long it is (Content-Length)", []
            most = rules.body_bytes(method, path)
            if int(length) > most:
                return 413, f"the request has {int(length):,} bytes and the limit is {most:,}", []
        if self._under_way >= rules.at_once:
            return 429, f"{self._under_way} requests are under way, which is the limit; try again later", [RETRY]
        return None

    def _headers(self) -> Headers:
        return [
            (b"content-security-policy", self.rules.policy.encode()),
            (b"x-content-type-options", b"nosniff"),
            (b"referrer-policy", b"no-referrer"),
            (b"cross-origin-resource-policy", b"same-origin"),
        ]

    def _with_headers(self, send: Any) -> Any:
        async def sending(message: dict[str, Any]) -> None:
            if message["type"] == "http.response.start":
                self.answers[message["status"]] += 1
                own = {name.lower() for name, _ in message.get("headers", ())}
                added = [(name, value) for name, value in self._headers() if name not in own]
                message = {**message, "headers": [*message.get("headers", ()), *added]}
            try:
                await asyncio.wait_for(send(message), UNREAD_SECONDS)
            except TimeoutError:
                raise _Unread from None

        return sending


class _Unread(Exception):
    """Nobody takes the answer."""


class _Patient:
    """Receives a body, but does not wait for ever for its next piece, nor for its end."""

    def __init__(self, receive: Any, scope: dict[str, Any]) -> None:
        self._receive = receive
        self._whole = scope["method"] in ("GET", "HEAD", "OPTIONS")
        length = max(
            (int(value) for name, value in scope["headers"] if name == b"content-length" and value.isdigit()), default=0
        )
        self._until = time.monotonic() + SLOW_SECONDS + length / SLOWEST_BYTES_A_SECOND

    async def __call__(self) -> dict[str, Any]:
        if self._whole:
            return await self._receive()
        try:
            left = max(self._until - time.monotonic(), 0.0)
            message = await asyncio.wait_for(self._receive(), min(SLOW_SECONDS, left))
        except TimeoutError:
            self._whole = True
            return {"type": "http.disconnect"}
        self._whole = not message.get("more_body", False)
        return message


async def answer_error(
    send: Any, status: int, message: str, headers: Iterable[tuple[bytes, bytes]] = (), receive: Any = None
) -> None:
    """Answers with one sentence, in the form that OpenAI's clients read.

    With ``receive``, a body that nobody wants is read on for a moment: closed while it still comes in, the connection
    would be reset, and the client might never see the answer.
    """
    body = json.dumps(error_body(status, message)).encode()
    start = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode()), *headers]
    if status in (411, 413):  # what is still to come of the body will not be read
        start.append((b"connection", b"close"))
    await send({"type": "http.response.start", "status": status, "headers": start})
    await send({"type": "http.response.body", "body": body, "more_body": True})
    if receive is not None:
        await _linger(receive)
    await send({"type": "http.response.body", "body": b""})


async def _linger(receive: Any) -> None:
    left = LINGER_BYTES
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(LINGER_SECONDS):
            while left > 0:
                message = await receive()
                left -= len(message.get("body", b""))
                if message["type"] != "http.request" or not message.get("more_body", False):
                    return


def error_body(status: int, message: str) -> dict[str, Any]:
    """An error as OpenAI's clients read it."""
    kind = "server_error" if status >= 500 else "rate_limit_error" if status == 429 else "invalid_request_error"
    return {"error": {"message": message, "type": kind, "param": None, "code": status}}


def _only(headers: dict[bytes, list[bytes]], name: bytes) -> str | None:
    """A header that may be there once; None where it is not, or twice."""
    values = headers.get(name, [])
    return values[0].decode("latin-1") if len(values) == 1 else None


def _site_of(origin: str) -> str | None:
    """Its name and port; None where it is no address."""
    try:
        return urlsplit(origin).netloc
    except ValueError:
        return None


def _without_port(host: str) -> str:
    name, colon, port = host.rpartition(":")
    return (name if colon and port.isdecimal() else host).lower()


def _key_of(authorization: str | None) -> str | None:
    scheme, _, value = (authorization or "").partition(" ")
    if scheme.lower() == "bearer":
        return value.strip()
    if scheme.lower() == "basic":
        try:
            return base64.b64decode(value, validate=True).decode().partition(":")[2]
        except (binascii.Error, UnicodeDecodeError):
            return None
    return None

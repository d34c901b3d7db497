"""Runs an ASGI application on a port until it is told to end."""

from __future__ import annotations

import asyncio
import signal
import socket
import threading
from collections.abc import Callable
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from videollm.errors import ConfigError

GRACE_SECONDS = 5
"""How long answers under way may still take when the service is told to end."""
HEAD_SECONDS = 20.0
"""How long a connection may take to say what it wants, at first and between requests."""


class Impatient(H11Protocol):
    """HTTP/1.1 that closes connections on which the head of a request does not arrive; uvicorn waits for ever."""

    _alarm: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._wait_for_head()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._wait_for_head()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._wait_for_head()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._quiet()

    def _wait_for_head(self) -> None:
        if self.cycle is not None and not self.cycle.response_complete:
            self._quiet()  # a request is being answered
        elif self._alarm is None:
            self._alarm = self.loop.call_later(HEAD_SECONDS, self.transport.close)

    def _quiet(self) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None


def bound(host: str, port: int) -> socket.socket:
    """A socket that listens there; port 0 takes any that is free.

    Raises:
        ConfigError: the address cannot be used.
    """
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        sock = socket.socket(family, socket.SOCK_STREAM)
    except OSError as error:
        raise ConfigError(
            f"cannot listen on {host!r}: {error.strerror or error}; name an address of this machine"
        ) from None
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((host, port))
    except (OSError, OverflowError) as error:
        sock.close()
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise ConfigError(f"cannot listen on {host}:{port} ({reason}); choose another --port") from None
    return sock


def address_of(sock: socket.socket, host: str) -> str:
    """What to open in a browser."""
    port = sock.getsockname()[1]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def server_of(app: Any) -> uvicorn.Server:
    """A server that says nothing about itself and keeps no log of who asked what."""
    config = uvicorn.Config(
        app, http=Impatient, ws="none", lifespan="on", log_level="warning", access_log=False, server_header=False,
        date_header=False, proxy_headers=False, timeout_graceful_shutdown=GRACE_SECONDS,
        h11_max_incomplete_event_size=32 * 1024,
    )  # fmt: skip
    return uvicorn.Server(config)


def listen(app: Any, sock: socket.socket, ended: Callable[[], None]) -> None:
    """Serves until SIGINT or SIGTERM, then lets requests end for `GRACE_SECONDS`, and calls ``ended``."""
    server = server_of(app)
    # uvicorn raises the signal again behind its own end, so that the caller sees it: here its end is the end.
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    in_main = threading.current_thread() is threading.main_thread()
    if in_main:
        for number in before:
            signal.signal(number, lambda *_: None)
    try:
        server.run(sockets=[sock])
    finally:
        if in_main:
            for number, handler in before.items():
                signal.signal(number, handler)
        sock.close()
        ended()

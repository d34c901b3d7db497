"""Answers that are sent as they come, and clients that do not wait for them."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

from fastapi import Request
from starlette.responses import StreamingResponse

GONE_SECONDS = 0.2
"""How often it is looked whether a client is still there."""
LAST_EVENT = "data: [DONE]\n\n"


def event(data: dict[str, Any]) -> str:
    """A server-sent event."""
    return f"data: {json.dumps(data)}\n\n"


class EventStream(StreamingResponse):
    """Server-sent events, and what is given back when they end: even if the client went before the first.

    Args:
        events: as `event` makes them.
        held: is closed in the end.
    """

    def __init__(self, events: AsyncIterator[str], held: contextlib.ExitStack) -> None:
        super().__init__(events, media_type="text/event-stream", headers={"cache-control": "no-store"})
        self._held = held

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        with self._held:
            await super().__call__(scope, receive, send)


@contextlib.asynccontextmanager
async def while_there(request: Request, gone: Callable[[], None]) -> AsyncIterator[None]:
    """Calls ``gone`` when the client goes away meanwhile."""

    async def watch() -> None:
        while not await request.is_disconnected():
            await asyncio.sleep(GONE_SECONDS)
        gone()

    watching = asyncio.create_task(watch())
    try:
        yield
    finally:
        watching.cancel()

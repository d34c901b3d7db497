"""What a request brings: its JSON, and the files that it names. The memory for both is booked before it is used."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import TypeVar

from fastapi import Request
from pydantic import BaseModel

from videollm.errors import BusyError, RequestError
from videollm.serving.fetching import Fetcher
from videollm.serving.protocol import MediaRef, parse
from videollm.serving.uploads import Upload, UploadStore

B = TypeVar("B", bound=BaseModel)

JSON_BYTES_AT_ONCE = 256 * 1024**2
"""Of all requests whose JSON is being read; it takes a few times as much memory."""


class Incoming:
    """Reads requests and brings their files into the store.

    Args:
        store: where files go.
        fetcher: fetches those that are named by an address.
    """

    def __init__(self, store: UploadStore, fetcher: Fetcher) -> None:
        self.store, self.fetcher = store, fetcher
        self._reading_bytes = 0

    @contextlib.asynccontextmanager
    async def json(self, request: Request, kind: type[B]) -> AsyncIterator[B]:
        """The request's body. While it is used, its size is booked.

        Raises:
            RequestError: it is no JSON, or not of this kind.
            BusyError: too much is being read.
        """
        if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
            raise RequestError("the request must be JSON (Content-Type: application/json)")
        length = int(request.headers["content-length"])  # the door has asked for it
        if self._reading_bytes + length > JSON_BYTES_AT_ONCE:
            raise BusyError(
                f"{self._reading_bytes:,} bytes of requests are being read, which with these {length:,} is over the "
                f"limit of {JSON_BYTES_AT_ONCE:,}; try again later, or upload large files to /v1/media"
            )
        self._reading_bytes += length
        try:
            # In a thread: a large one would hold up everybody else on the loop.
            yield await asyncio.to_thread(parse, await request.body(), kind)
        finally:
            self._reading_bytes -= length

    async def bring(self, ref: MediaRef, asker: str, owner: str) -> Upload:
        """The file of a reference, as an upload of ``owner``, who keeps it whatever becomes of the asker's.

        Raises:
            NotYoursError: the asker has uploaded no such file.
            MediaLimitError, MediaUnreadableError: as `UploadStore.receive`.
            RequestError, BusyError: as `Fetcher.fetch`.
        """
        if ref.upload_id is not None:
            return self.store.link(self.store.get(ref.upload_id, asker), owner)
        if ref.url is not None:
            return await self.fetcher.fetch(ref.url, self.store, owner)
        assert ref.data is not None
        return await self.store.receive(_once(ref.data), owner, ref.name, len(ref.data))


async def _once(data: bytes) -> AsyncIterator[bytes]:
    yield data

"""`POST /v1/narrations` and `POST /v1/moments`: what happens in a video, and where in videos something happens.

`GET /v1/tools` lists what the model itself can call, for requests that let it. Files are read in threads of these
routes; the worker is asked about a batch of windows at a time, between the words of answers.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Request
from pydantic import Field
from starlette.responses import JSONResponse, PlainTextResponse, Response
from transformers.utils.chat_template_utils import get_json_schema

from videollm.errors import BusyError, MediaError, NotYoursError, RequestError, UnavailableError, VideoLLMError
from videollm.moments.moment import Found
from videollm.moments.store import MomentStore
from videollm.serving.access import asker, error_body
from videollm.serving.errors_to_status import status_of
from videollm.serving.events import LAST_EVENT, EventStream, event, while_there
from videollm.serving.incoming import Incoming
from videollm.serving.libraries import Libraries, Library
from videollm.serving.model_worker import Runtime
from videollm.serving.protocol import LONGEST_INLINE_CHARACTERS, Lenient, described, reference
from videollm.serving.several_workers import Workers
from videollm.serving.uploads import Upload
from videollm.serving.worker_encoder import WorkerEncoder, waiting_on
from videollm.serving.worker_narrator import LongWork, WorkerNarrator
from videollm.tools.index import LISTEN_QUESTION, LOOK_QUESTION, Crew
from videollm.tools.narrate import Narration, narrate
from videollm.tools.narrators import QUESTION
from videollm.tools.search import search
from videollm.tools.subtitles import Cue, srt, vtt
from videollm.toolset import DECLARATIONS

BATCH_WINDOWS = 4
"""Fewer than on the command line: answers wait for a batch."""
LONG_AT_ONCE = 2
"""Videos that are narrated or looked through at the same time; one more is refused."""
NO_END_SECONDS = 1e9
NARRATION_TYPES = ("application/json", "text/event-stream", "application/x-subrip", "text/vtt")

Seconds = Annotated[float, Field(ge=0, le=1e6)]


class NarrationRequest(Lenient):
    """What to narrate, and how. Greedy."""

    media: str = Field(
        max_length=LONGEST_INLINE_CHARACTERS,
        description="`media:ID` of an upload, `data:TYPE;base64,DATA`, or https from a host that is allowed",
    )
    model: str | None = Field(default=None, max_length=256)
    window_seconds: float = Field(default=4.0, ge=1, le=60)
    stride_seconds: float | None = Field(default=None, ge=1, le=60)
    cuts: bool = Field(default=False, description="windows end at cuts, too, so that each shot is told by itself")
    start_seconds: Seconds = 0.0
    end_seconds: Seconds | None = None
    repeats: float = Field(default=1.0, gt=0, le=1, description="how alike neighbours are to be made one")
    question: str = Field(default=QUESTION, min_length=1, max_length=1000)
    response_format: Literal["json", "srt", "vtt"] = "json"
    stream: bool = Field(default=False, description="server-sent events; only of json")


class MomentRequest(Lenient):
    """What to look for, and where."""

    query: str = Field(min_length=1, max_length=2000, description="what is seen or heard, in words")
    media: list[Annotated[str, Field(max_length=100)]] | None = Field(
        default=None, min_length=1, max_length=16,
        description="`media:ID` of uploads; left out, the index that the service was started with",
    )  # fmt: skip
    limit: int = Field(default=10, ge=1, le=100)
    start_seconds: Seconds = 0.0
    end_seconds: Seconds | None = None


class ToolRoutes:
    """The routes, and the work that is under way.

    Args:
        worker: whose model is asked.
        incoming: reads requests and brings files.
        moments: an index that everybody may search; None: there is none.
    """

    def __init__(self, worker: Workers, incoming: Incoming, moments: MomentStore | None = None) -> None:
        self.worker, self.incoming, self.moments = worker, incoming, moments
        self.libraries = Libraries(incoming.store)
        self.under_way = 0
        self._works: set[LongWork[Any]] = set()
        self._threads = ThreadPoolExecutor(LONG_AT_ONCE, thread_name_prefix="long-work")

    def router(self) -> APIRouter:
        router = APIRouter()
        router.add_api_route(
            "/v1/narrations", self.narrations, methods=["POST"], summary="What happens in a video, with times",
            tags=["videos"], response_model=None, openapi_extra=described(NarrationRequest, *NARRATION_TYPES),
        )  # fmt: skip
        router.add_api_route(
            "/v1/moments", self.find, methods=["POST"], summary="Where in videos something is seen or heard",
            tags=["videos"], openapi_extra=described(MomentRequest, "application/json"), response_model=None,
        )  # fmt: skip
        router.add_api_route(
            "/v1/tools", self.schemas, methods=["GET"], summary="What the model can call", tags=["chat"]
        )
        return router

    async def schemas(self) -> dict[str, Any]:
        """All tools of the service, as the ``tools`` of a chat completion."""
        return {"object": "list", "data": [get_json_schema(declaration) for declaration in DECLARATIONS]}

    def close(self) -> None:
        """Ends what is under way."""
        for work in list(self._works):
            work.stop()
        self._threads.shutdown(wait=False, cancel_futures=True)

    # -- narrations ------------------------------------------------------------------------------------------------

    async def narrations(self, request: Request) -> Response:
        """Narrates a video: as JSON, as subtitles, or sentence by sentence as server-sent events."""
        with contextlib.ExitStack() as stack:
            async with self.incoming.json(request, NarrationRequest) as asked:
                runtime = await self._runtime(asked.model)
                _check_stretch(asked.start_seconds, asked.end_seconds)
                if asked.stream and asked.response_format != "json":
                    raise RequestError(f"response_format {asked.response_format!r} is not streamed; ask for json")
                stack.enter_context(self._place())
                upload = await self._brought(asked.media, asker(request.scope), stack)
                form, stream = asked.response_format, asked.stream
                options = asked.model_dump(exclude={"media", "model", "response_format", "stream"})
            long = stack.enter_context(self._begun(_narrating(self.worker, runtime, upload, options)))
            told = self._told(long, upload)
            about = {"object": "narration", "model": runtime.choice.name, "video": upload.name}
            if stream:
                async with while_there(request, long.stop):
                    first = await anext(told, None)  # what is wrong with the file gets its own status
                return EventStream(_as_events(about, first, told), stack.pop_all())
            async with while_there(request, long.stop):
                found = [one async for one in told]
        narrations = [one for one in found if isinstance(one, Narration)]
        if form == "json":
            notes = [one for one in found if isinstance(one, str)]
            return JSONResponse({**about, "narrations": [one.to_json() for one in narrations], "notes": notes})
        cues = [Cue(one.start_seconds, one.end_seconds, one.text) for one in narrations]
        if form == "srt":
            return PlainTextResponse(srt(cues), media_type="application/x-subrip")
        return PlainTextResponse(vtt(cues), media_type="text/vtt")

    async def _brought(self, media: str, who: str, stack: contextlib.ExitStack) -> Upload:
        """The file of a request, for as long as the stack lasts."""
        ref = await asyncio.to_thread(reference, media, "video", "media", self.incoming.fetcher.check)
        owner = f"narration {secrets.token_urlsafe(18)}"
        stack.callback(self.incoming.store.delete_all, owner)
        return await self.incoming.bring(ref, who, owner)

    async def _told(self, long: LongWork[Any], upload: Upload) -> AsyncIterator[Any]:
        """What a narration tells, as it comes."""
        try:
            async for one in long:
                self.incoming.store.keep(upload.owner)
                yield one
        except MediaError as error:
            raise type(error)(upload.in_words(str(error))) from None

    # -- moments ---------------------------------------------------------------------------------------------------

    async def find(self, request: Request) -> Response:
        """Finds moments: in uploads, which are looked through first where they were not yet; or in the index."""
        async with self.incoming.json(request, MomentRequest) as asked:
            _check_stretch(asked.start_seconds, asked.end_seconds)
        between = (asked.start_seconds, NO_END_SECONDS if asked.end_seconds is None else asked.end_seconds)
        if asked.media is None:
            encoder = None if self.moments is None else await self._encoder(self.moments.encoders.get("seen"))
            found = await asyncio.to_thread(self._in_index, asked.query, between, asked.limit, encoder)
        else:
            who = asker(request.scope)
            uploads = [self._uploaded(name, who) for name in dict.fromkeys(asked.media)]
            async with self.libraries.opened(who) as library:
                await self._look_through(request, library, library.missing(uploads))
                encoder = await self._encoder()
                hits = await asyncio.to_thread(library.search, asked.query, uploads, between, asked.limit, encoder)
            found = [_moment(one, f"media:{upload.id}", upload.name) for upload, one in hits]
        return JSONResponse({"object": "list", "data": found})

    async def _encoder(self, name: str | None = None) -> WorkerEncoder | None:
        """That of the worker, if it has one; of this name, if one is given to whose vectors words are compared."""
        runtime = await self._runtime(None)
        if runtime.encoder is None or name not in (None, runtime.encoder[0]):
            return None
        return WorkerEncoder(self.worker, runtime, waiting_on(asyncio.get_running_loop()))

    def _in_index(
        self, query: str, between: tuple[float, float], limit: int, encoder: WorkerEncoder | None
    ) -> list[dict[str, Any]]:
        if self.moments is None:
            raise RequestError("media: name uploads as media:ID; this service was started without an index to search")
        found = search(self.moments, query, encoder=encoder, between_seconds=between, limit=limit)
        # Which folders the machine has is nobody's business: names begin where the videos' folders part.
        folders = {os.path.dirname(video.path) for video in self.moments.videos()}
        root = os.path.commonpath(folders) if folders else ""
        return [_moment(one, None, Path(os.path.relpath(one.path, root)).as_posix()) for one in found]

    def _uploaded(self, name: str, who: str) -> Upload:
        if not name.startswith("media:"):
            raise RequestError(
                "media: only uploads are looked through; send the file to /v1/media and name it media:ID"
            )
        return self.incoming.store.get(name.removeprefix("media:"), who)

    async def _look_through(self, request: Request, library: Library, uploads: list[Upload]) -> None:
        if not uploads:
            return
        runtime = await self._runtime(None)
        with self._place(), self._begun(_looking(self.worker, runtime, library, uploads)) as long:
            async with while_there(request, long.stop):
                async for _ in long:
                    for upload in uploads:
                        self.incoming.store.keep(upload.owner)
            if long.stopped and library.missing(uploads):
                raise UnavailableError("the search was broken off; ask again")

    # -- work that takes long --------------------------------------------------------------------------------------

    async def _runtime(self, model: str | None) -> Runtime:
        runtime = await self.worker.ready()
        if model not in (None, runtime.choice.name):
            raise NotYoursError(
                f"there is no model {str(model)[:100]!r} here; this service answers as {runtime.choice.name!r}"
            )
        return runtime

    @contextlib.contextmanager
    def _place(self) -> Iterator[None]:
        """One of the few places for work that takes long."""
        if self.under_way >= LONG_AT_ONCE:
            raise BusyError(f"{self.under_way} videos are being looked through, which is the limit; try again later")
        self.under_way += 1
        try:
            yield
        finally:
            self.under_way -= 1

    @contextlib.contextmanager
    def _begun(self, work: Callable[[LongWork[Any]], None]) -> Iterator[LongWork[Any]]:
        long = LongWork(work, self._threads)
        self._works.add(long)
        try:
            yield long
        finally:
            long.stop()
            self._works.discard(long)


def _narrating(
    worker: Workers, runtime: Runtime, upload: Upload, options: dict[str, Any]
) -> Callable[[LongWork[Any]], None]:
    """Tells narrations, sentences about what could not be read, and (windows that are done, of all)."""
    question = options.pop("question")

    def work(long: LongWork[Any]) -> None:
        for one in narrate(
            upload.path, WorkerNarrator(worker, runtime, question, long), **options, batch_windows=BATCH_WINDOWS,
            limits=worker.limits.media, progress=lambda done, total: long.tell((done, total)),
            report=lambda sentence: long.tell(upload.in_words(sentence)),
        ):  # fmt: skip
            long.tell(one)

    return work


def _looking(
    worker: Workers, runtime: Runtime, library: Library, uploads: list[Upload]
) -> Callable[[LongWork[Any]], None]:
    """Tells (windows that are done, of all)."""

    def work(long: LongWork[Any]) -> None:
        listener = WorkerNarrator(worker, runtime, LISTEN_QUESTION, long) if runtime.hears else None
        encoder = None if runtime.encoder is None else WorkerEncoder(worker, runtime, long.on_the_loop)
        crew = Crew(WorkerNarrator(worker, runtime, LOOK_QUESTION, long), listener, encoder)
        library.add(uploads, crew, worker.limits.media, lambda done, total: long.tell((done, total)))

    return work


async def _as_events(about: dict[str, Any], first: Any, told: AsyncIterator[Any]) -> AsyncIterator[str]:
    """What a narration tells, as server-sent events."""
    about = {**about, "object": "narration.chunk"}

    def shown(one: Any) -> str:
        if isinstance(one, Narration):
            return event({**about, "narration": one.to_json()})
        if isinstance(one, str):
            return event({**about, "note": one})
        return event({**about, "progress": {"done": one[0], "windows": one[1]}})

    try:
        if first is not None:
            yield shown(first)
        async for one in told:
            yield shown(one)
    except VideoLLMError as error:
        yield event(error_body(status_of(error), str(error)))
        return
    yield LAST_EVENT


def _moment(found: Found, media: str | None, video: str) -> dict[str, Any]:
    told = {name: value for name, value in asdict(found).items() if name != "path"}
    return {"object": "moment", "media": media, "video": video, **told}


def _check_stretch(start_seconds: float, end_seconds: float | None) -> None:
    if end_seconds is not None and end_seconds <= start_seconds:
        raise RequestError(f"end_seconds must be more than start_seconds ({start_seconds:g}), found {end_seconds:g}")

"""The page: bring clips, watch them, talk about them. Gradio draws it; the worker that answers is given to it.

A browser is known by a cookie. Its files lie in the upload store under random ids, are played through ``/media/ID``,
which asks for that cookie, and go with its conversation. Gradio's own routes are let through one by one: none of them
hands out a file.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import json
import logging
import os
import re
import secrets
import shutil
import time
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any

# Read when Gradio is imported: nothing is told to anybody, no model hub is asked.
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import fastapi
import gradio as gr
from starlette.responses import FileResponse, JSONResponse, PlainTextResponse, Response

from videollm.clips import Clip
from videollm.errors import BusyError, ChatError, NotYoursError, RequestError, VideoLLMError
from videollm.media.read import read_clip
from videollm.media.sampling import FrameSampling, SoundSampling
from videollm.media.source import HEAD_BYTES, sniff
from videollm.serving.access import Door, Rules, error_body
from videollm.serving.answer_text import as_markdown, calls_of, linked, messages_of, question_of, view_for
from videollm.serving.clip_view import ClipView, panel_html, view_of
from videollm.serving.model_worker import Conversation, ModelChoice, ModelWorker, Runtime, Turn
from videollm.serving.moment_view import FORMS, Kind, Track, moments_html, saved_as
from videollm.serving.moment_work import Report, chaptered, found, narrated
from videollm.serving.uploads import UploadStore, clean_name
from videollm.serving.worker_narrator import LongWork, WorkerNarrator
from videollm.tools.narrate import clock
from videollm.tools.narrators import Narrator

log = logging.getLogger(__name__)

ASSETS = Path(__file__).resolve().parents[1] / "assets"
EXAMPLES = {"two_things.mp4": "Two things", "cut.mp4": "A cut", "textures.mp4": "Textures"}
STARTERS = ("What do you see and hear?", "When is there a cut?", "Which sound is heard?")
UPLOAD_WORDS = {"upload_text.drop_file": "Drop videos, images or sounds", "upload_text.click_to_upload": "choose files"}
"""In place of Gradio's own."""
LONGEST_QUESTION_CHARACTERS = 16_000
STALE_SECONDS = 600.0
"""A file that was sent but never shown is deleted after so long."""
JANITOR_SECONDS = 30.0
UPDATE_SECONDS = 0.05
"""Between two updates of an answer: a browser draws them slower than a small model speaks."""
LONG_UPDATE_SECONDS = 0.5
"""Between two updates of what takes long."""
LONG_WORKS, LONG_WORKS_WAITING = 2, 16
"""How much that takes long is done at the same time, and how much more waits; one more is refused."""
LONGEST_SEARCH_CHARACTERS = 300

# Gradio's routes that the page needs. Those that hand out files, fetch addresses or show what others do are not here.
GRADIO_PATHS = frozenset({
    "/", "/config", "/config/", "/theme.css", "/gradio_api/theme.css", "/favicon.ico", "/robots.txt", "/manifest.json",
    "/gradio_api/upload", "/gradio_api/upload_progress", "/gradio_api/queue/join", "/gradio_api/queue/data",
    "/gradio_api/cancel", "/gradio_api/reset", "/gradio_api/reset/", "/gradio_api/startup-events",
})  # fmt: skip
GRADIO_FOLDERS = ("/assets/", "/static/", "/svelte/", "/gradio_api/heartbeat/")
OWN_FOLDERS = ("/media/", "/export/")

# Gradio runs small scripts and styles of its own inside the page; everything else may come from here only.
POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; media-src 'self' blob:; font-src 'self' data:; connect-src 'self'; worker-src 'self' "
    "blob:; object-src 'none'; base-uri 'self'; form-action 'self'; frame-ancestors 'none'"
)
MEDIA_TYPES = {
    "mov": "video/mp4", "matroska": "video/webm", "avi": "video/x-msvideo", "mpeg": "video/mpeg",
    "mpegts": "video/mp2t",
    "flv": "video/x-flv", "asf": "video/x-ms-wmv", "gif": "image/gif", "png": "image/png", "jpeg": "image/jpeg",
    "webp": "image/webp", "avif": "image/avif", "bmp": "image/bmp", "tiff": "image/tiff", "wav": "audio/wav",
    "mp3": "audio/mpeg", "ogg": "audio/ogg", "flac": "audio/flac", "aac": "audio/aac", "aiff": "audio/aiff",
}  # fmt: skip


@dataclass(eq=False)
class Visitor:
    """One browser: its conversation and what is shown of its clips."""

    conversation: Conversation | None = None
    views: dict[str, ClipView] = field(default_factory=dict)
    paths: dict[str, Path] = field(default_factory=dict)
    """Files of the views, by the id of the view."""
    turn: Turn | None = None
    tracks: dict[tuple[str, Kind], Track] = field(default_factory=dict)
    """What was told of clips over their time, by id of the view, the newest last; what was found is of all clips."""
    work: LongWork[Report] | None = None

    @property
    def clips(self) -> list[ClipView]:
        """In the order in which they were brought."""
        files = self.conversation.files if self.conversation is not None else ()
        return [self.views[name] for name in files if name in self.views]


class Page:
    """The page's state and what its buttons do.

    Args:
        worker: answers; started by whoever made it.
        store: keeps the files.
        choices: models that can be chosen, that of the worker first; each in every precision that is installed.
        cookie: its name; pages on several ports of one machine share their cookies.
    """

    def __init__(
        self, worker: ModelWorker, store: UploadStore, choices: Sequence[ModelChoice], cookie: str = "videollm"
    ) -> None:
        self.worker, self.store, self.cookie = worker, store, cookie
        self.choices = list(choices)
        self.visitors: dict[str, Visitor] = {}
        self.incoming = store.folder / "incoming"
        self._threads = ThreadPoolExecutor(LONG_WORKS, thread_name_prefix="long-work")
        worker.closed = self._forget

    # -- visitors --------------------------------------------------------------------------------------------------

    def token_of(self, cookies: Any) -> str:
        """The secret of a browser.

        Raises:
            RequestError: it has none.
        """
        token = cookies.get(self.cookie) or ""
        if not re.fullmatch(r"[\w-]{32,64}", token):
            raise RequestError("this page keeps your files apart by a cookie: allow cookies here, and load it again")
        return token

    def visitor(self, request: gr.Request) -> Visitor:
        """Whose request it is."""
        return self.visitors.setdefault(self.token_of(request.cookies), Visitor())

    def conversation(self, visitor: Visitor) -> Conversation:
        """A visitor's conversation, begun if there is none."""
        if visitor.conversation is not None:
            with contextlib.suppress(NotYoursError):
                self.store.keep(visitor.conversation.id)
                return self.worker.get(visitor.conversation.id)
        visitor.views, visitor.paths, visitor.tracks, visitor.turn = {}, {}, {}, None
        visitor.conversation = self.worker.open()
        return visitor.conversation

    def _forget(self, conversation_id: str) -> None:
        """On the worker's thread: a conversation was closed."""
        self.store.delete_all(conversation_id)
        for token, visitor in list(self.visitors.items()):
            if visitor.conversation is not None and visitor.conversation.id == conversation_id:
                if visitor.work is not None:
                    visitor.work.stop()
                self.visitors.pop(token, None)
        shutil.rmtree(self._index_of(conversation_id), ignore_errors=True)

    def _index_of(self, conversation_id: str) -> Path:
        """Where the clips of a conversation are indexed, once something is looked for in them."""
        return self.store.folder / f"index-{conversation_id}"

    # -- what is shown ---------------------------------------------------------------------------------------------

    def shown(self, visitor: Visitor) -> dict[str, Any]:
        """The state of everything that depends on the conversation."""
        conversation = visitor.conversation
        exchanges = [] if conversation is None else conversation.exchanges
        return {
            "chat": messages_of(exchanges, visitor.views),
            "panel": panel_html(visitor.clips),
            "tools": gr.Row(visible=any(view.has_time for view in visitor.clips)),
            "moments": self.moments(visitor),
            "examples": gr.Column(visible=not visitor.clips and not exchanges),
            "starters": gr.Row(visible=bool(visitor.clips) and not exchanges),
            "export": gr.Row(visible=bool(exchanges)),
            "box": ready_box(),
        }

    def moments(self, visitor: Visitor) -> str:
        """What was told of the clips over their time, the newest first; what was found stands under each of them."""
        clips = [view for view in visitor.clips if view.has_time]
        tracks = {
            view.id: [track for (whose, _), track in reversed(visitor.tracks.items()) if whose in ("", view.id)]
            for view in clips
        }
        return moments_html(tracks, clips)

    def model_line(self, runtime: Runtime) -> str:
        """What is running, and what it is for."""
        senses = "sees and hears" if runtime.hears else "sees, and has no ear"
        senses += ", and calls tools" if runtime.calls_tools else ""
        notice = f" {escape(runtime.notice.replace('`', ''))}" if runtime.notice else ""
        return (
            f'<p class="model-line"><strong>{escape(runtime.choice.name)}</strong> in {runtime.choice.precision}, '
            f"{senses}.{notice}</p>"
        )

    # -- what happens ----------------------------------------------------------------------------------------------

    async def load(self, request: gr.Request) -> AsyncIterator[dict[str, Any]]:
        """The page was opened, or opened again."""
        with Alerts() as alert:
            visitor = self.visitor(request)
            yield self.shown(visitor) | {"alert": ""}
            waited = asyncio.ensure_future(self.worker.ready())
            while not waited.done():
                yield {"model": f'<p class="model-line busy">{escape(self.worker.state.capitalize())} …</p>'}
                await asyncio.wait([waited], timeout=1.0)
            runtime = await waited
            most = min(runtime.most_frames, self.worker.limits.frames)
            frames = visitor.conversation.frames if visitor.conversation is not None else None
            yield {
                "model": self.model_line(runtime),
                "frames": gr.Slider(maximum=most, value=frames or min(runtime.usual_frames, most)),
                "choice": gr.Dropdown(value=runtime.choice.name),
                "precision": gr.Radio(value=runtime.choice.precision),
                "calls": gr.Checkbox(value=runtime.calls_tools),
            }
        if alert:
            yield {"alert": alert_html(alert), "model": ""}

    async def bring(self, request: gr.Request, sources: list[tuple[Path, str, bool]]) -> AsyncIterator[dict[str, Any]]:
        """Shows files to the model: (path, name, whether it was uploaded)."""
        alerts: list[str] = []
        for path, name, uploaded in sources:
            with Alerts() as alert:
                yield {"alert": working_html(f"Reading {clean_name(name)} …")}
                visitor = self.visitor(request)
                conversation = self.conversation(visitor)
                kept = self.store.take(path, conversation.id, name) if uploaded else None
                try:
                    await self._show(visitor, conversation, path if kept is None else kept.path, name)
                except BaseException:
                    if kept is not None:
                        self.store.delete(kept.id, conversation.id)
                    raise
                yield self.shown(visitor)
            alerts += alert
        yield {"alert": alert_html(alerts), "drop": None}

    async def _show(self, visitor: Visitor, conversation: Conversation, path: Path, name: str) -> None:
        clip = await self.worker.add(conversation, path, clean_name(name))
        view_id = secrets.token_urlsafe(12)
        await self._view(visitor, conversation, clip, view_id)
        visitor.paths[view_id] = path

    async def _view(self, visitor: Visitor, conversation: Conversation, clip: Clip, view_id: str) -> None:
        known = {covered.name: covered.sentence for covered in conversation.coverage}
        visitor.views[clip.name] = await asyncio.to_thread(view_of, clip, view_id, known[clip.name])

    async def upload(self, files: list[str] | None, request: gr.Request) -> AsyncIterator[dict[str, Any]]:
        sources = []
        for file in files or []:
            path = Path(file)
            # Gradio has looked, too: nothing but what was uploaded can be named here.
            if self.incoming.resolve() in path.resolve().parents and not path.is_symlink():
                sources.append((path, path.name, True))
        async for update in self.bring(request, sources):
            yield update

    def example(self, file: str) -> Callable[[gr.Request], AsyncIterator[dict[str, Any]]]:
        async def show(request: gr.Request) -> AsyncIterator[dict[str, Any]]:
            async for update in self.bring(request, [(ASSETS / "clips" / file, file, False)]):
                yield update

        return show

    async def ask(self, request: gr.Request, question: str, options: dict[str, Any]) -> AsyncIterator[dict[str, Any]]:
        """Streams an answer. A question that fails goes back into the box."""
        if not question.strip():
            yield {"alert": alert_html(["Type a question first."])}
            return
        visitor: Visitor | None = None
        with Alerts() as alert:
            visitor = self.visitor(request)
            conversation = self.conversation(visitor)
            before = messages_of(conversation.exchanges, visitor.views)
            asked = {"role": "user", "content": question}
            yield {
                "chat": [*before, asked], "box": busy_box(), "alert": "", "starters": gr.Row(visible=False),
                "examples": gr.Column(visible=False),
            }  # fmt: skip
            waiting = self.worker.queue_length
            if waiting >= 1:
                yield {"alert": working_html(f"Questions of others before yours: {waiting}")}
            about = view_for(list(conversation.files), visitor.views)
            turn = visitor.turn = await self.worker.ask(conversation, question, **options)
            text, rounds = "", []
            async with turn:
                async for event in turn.events():
                    if isinstance(event, str):
                        text += event + turn.more()
                    else:
                        rounds.append(event)
                    words = [{"role": "assistant", "content": linked(text, about)}] if text else []
                    yield {"chat": [*before, asked, *calls_of(rounds, visitor.views), *words], "alert": ""}
                    await asyncio.sleep(UPDATE_SECONDS)  # what comes meanwhile is shown with the next word
            visitor.turn = None
            yield self.shown(visitor) | {"alert": ""}
            if turn.answer is not None and turn.answer.stopped and not turn.answer.token_ids:
                yield {"box": ready_box(question)}
        if alert:
            shown = {} if visitor is None else self.shown(visitor)
            yield shown | {"alert": alert_html(alert), "box": ready_box(question)}

    async def stop(self, request: gr.Request) -> None:
        with contextlib.suppress(RequestError):
            turn = self.visitor(request).turn
            if turn is not None:
                turn.cancel()

    async def take_back(self, request: gr.Request, kept: int | None) -> tuple[Visitor, str | None]:
        """Undoes questions until so many are left (None: the last one), and returns the last one undone."""
        visitor = self.visitor(request)
        conversation = self.conversation(visitor)
        question = None
        while conversation.exchanges and len(conversation.exchanges) > (kept if kept is not None else 0):
            question = await self.worker.undo(conversation)
            if kept is None:
                break
        return visitor, question

    def turn_of(self, request: gr.Request, index: Any) -> int:
        """Which question a message of the chat belongs to."""
        visitor = self.visitors.get(request.cookies.get(self.cookie) or "", Visitor())
        exchanges = [] if visitor.conversation is None else visitor.conversation.exchanges
        return question_of(index[0] if isinstance(index, (tuple, list)) else int(index), exchanges)

    async def undo(self, request: gr.Request) -> AsyncIterator[dict[str, Any]]:
        """Takes back the last question, into the box."""
        with Alerts() as alert:
            visitor, question = await self.take_back(request, None)
            yield self.shown(visitor) | {"alert": "", "box": ready_box(question or "")}
        if alert:
            yield {"alert": alert_html(alert)}

    async def again(
        self, request: gr.Request, kept: int | None, question: str | None, options: dict[str, Any]
    ) -> AsyncIterator[dict[str, Any]]:
        """Asks an earlier question again, or another in its place; what followed it is taken back."""
        with Alerts() as alert:
            _, before = await self.take_back(request, kept)
            asked = question if question is not None else before
            if asked is None:
                raise ChatError("there is no question to ask again")
            async for update in self.ask(request, asked, options):
                yield update
        if alert:
            yield {"alert": alert_html(alert)}

    async def clear(self, request: gr.Request) -> AsyncIterator[dict[str, Any]]:
        """Ends the conversation and deletes its files."""
        with Alerts() as alert:
            visitor = self.visitor(request)
            if visitor.turn is not None:
                visitor.turn.cancel()
            if visitor.conversation is not None:
                await self.worker.end(visitor.conversation)
            yield self.shown(Visitor()) | {"alert": "", "box": ready_box("")}
        if alert:
            yield {"alert": alert_html(alert)}

    async def look(self, frames: int, request: gr.Request) -> AsyncIterator[dict[str, Any]]:
        """Another number of frames: the clips are looked at again."""
        with Alerts() as alert:
            visitor = self.visitor(request)
            conversation = self.conversation(visitor)
            runtime = await self.worker.ready()
            await self.worker.look(conversation, None if frames == runtime.usual_frames else int(frames))
            await self._look_again(visitor, conversation)
            yield self.shown(visitor) | {"alert": ""}
        if alert:
            yield {"alert": alert_html(alert)}

    async def _look_again(self, visitor: Visitor, conversation: Conversation) -> None:
        if visitor.views:
            clips = await self.worker.clips(conversation)
            for name, view in list(visitor.views.items()):
                await self._view(visitor, conversation, clips[name], view.id)

    async def switch(self, name: str, precision: str, request: gr.Request) -> AsyncIterator[dict[str, Any]]:
        """Loads another model."""
        with Alerts() as alert:
            visitor = self.visitor(request)
            choice = next((one for one in self.choices if (one.name, one.precision) == (name, precision)), None)
            if choice is None:
                raise RequestError(f"{name} in {precision} is not among the models that this page offers")
            yield {"model": f'<p class="model-line busy">Loading {escape(name)} in {escape(precision)} …</p>'}
            runtime = await self.worker.switch(choice)
            most = min(runtime.most_frames, self.worker.limits.frames)
            if visitor.conversation is not None:
                visitor.conversation.frames = None
                await self._look_again(visitor, visitor.conversation)
            yield self.shown(visitor) | {
                "model": self.model_line(runtime),
                "frames": gr.Slider(maximum=most, value=min(runtime.usual_frames, most)),
                "calls": gr.Checkbox(value=runtime.calls_tools),
                "alert": "",
            }
        if alert:
            runtime = self.worker.runtime
            shown = {} if runtime is None else {
                "model": self.model_line(runtime),
                "choice": gr.Dropdown(value=runtime.choice.name),
                "precision": gr.Radio(value=runtime.choice.precision),
            }  # fmt: skip
            yield shown | {"alert": alert_html(alert)}

    # -- clips over their time -------------------------------------------------------------------------------------

    async def narrate(self, view_id: str, request: gr.Request) -> AsyncIterator[dict[str, Any]]:
        """Tells what happens in the clip in front."""
        async for update in self._tell(request, view_id, "narration", "Narration"):
            yield update

    async def chapters(self, view_id: str, request: gr.Request) -> AsyncIterator[dict[str, Any]]:
        """Tells of which parts the clip in front consists."""
        async for update in self._tell(request, view_id, "chapters", "Chapters"):
            yield update

    async def _tell(self, request: gr.Request, view_id: str, kind: Kind, title: str) -> AsyncIterator[dict[str, Any]]:
        visitor: Visitor | None = None
        with Alerts() as alert:
            visitor = self.visitor(request)
            view = next((one for one in visitor.clips if one.id == view_id), None)
            if view is None or not view.has_time:
                raise RequestError("there is nothing to narrate in an image; choose a video or a sound above")
            path = visitor.paths[view.id]
            limits, does = self.worker.limits.media, narrated if kind == "narration" else chaptered

            def work(long: LongWork[Report], asking: Callable[[str], Narrator]) -> None:
                does(long, path, view.id, asking, limits)

            words = f"{'Narrating' if kind == 'narration' else 'Cutting into chapters'}: {view.name}"
            async for update in self._work(visitor, (view.id, kind), title, words, work):
                yield update
        if alert:
            yield self.worked(visitor) | {"alert": alert_html(alert)}

    async def find(self, words: str, request: gr.Request) -> AsyncIterator[dict[str, Any]]:
        """Finds stretches of all clips that fit words."""
        visitor: Visitor | None = None
        with Alerts() as alert:
            visitor = self.visitor(request)
            words = " ".join(words.split())[:LONGEST_SEARCH_CHARACTERS]
            if not any(sign.isalnum() for sign in words):
                raise RequestError("say in words what is to be found: what is seen there, or heard")
            conversation = self.conversation(visitor)
            paths = {visitor.paths[view.id]: view.id for view in visitor.clips if view.has_time}
            folder, limits = self._index_of(conversation.id), self.worker.limits.media

            def work(long: LongWork[Report], asking: Callable[[str], Narrator]) -> None:
                found(long, words, paths, folder, asking, limits)

            title = f"Found: \u201c{words}\u201d"
            async for update in self._work(visitor, ("", "found"), title, "Looking through the clips", work):
                yield update
        if alert:
            yield self.worked(visitor) | {"alert": alert_html(alert)}

    async def _work(
        self,
        visitor: Visitor,
        key: tuple[str, Kind],
        title: str,
        words: str,
        work: Callable[[LongWork[Report], Callable[[str], Narrator]], None],
    ) -> AsyncIterator[dict[str, Any]]:
        """Does something long, and shows what it tells as a track."""
        conversation = self.conversation(visitor)
        runtime = await self.worker.ready()
        if visitor.work is not None:
            raise RequestError("one thing at a time: wait for the end of what is going on, or stop it")
        if sum(one.work is not None for one in self.visitors.values()) >= LONG_WORKS + LONG_WORKS_WAITING:
            raise BusyError("too many others are narrating or searching; try again in a few minutes")

        def begun(long: LongWork[Report]) -> None:
            work(long, lambda question: WorkerNarrator(self.worker, runtime, question, long))

        long = visitor.work = LongWork(begun, self._threads)
        by = f"by {runtime.choice.name}"
        last = Report(0, 0)
        shown_at = 0.0
        before = visitor.tracks.get(key)
        yield {"working": gr.Row(visible=True), "progress": progress_html(words, 0, 0), "alert": ""}
        try:
            async for last in long:
                if time.monotonic() < shown_at + LONG_UPDATE_SECONDS:
                    continue
                shown_at = time.monotonic()
                if last.spans:
                    visitor.tracks[key] = Track(key[1], title, last.spans, f"{by}, so far")
                # As long as something is under way, the conversation and its files are not idle.
                if conversation.id not in self.worker.conversations:
                    break
                self.store.keep(self.worker.get(conversation.id).id)
                yield {"progress": progress_html(words, last.done, last.total), "moments": self.moments(visitor)}
        finally:
            visitor.work = None
            long.stop()
            visitor.tracks.pop(key, None)  # the newest is the last
            track = finished(key[1], title, by, last) or before
            if track is not None:
                visitor.tracks[key] = track
        yield self.worked(visitor)

    def worked(self, visitor: Visitor | None) -> dict[str, Any]:
        """What is shown when long work has ended, or failed, or could not begin beside other work."""
        shown: dict[str, Any] = {"working": gr.Row(visible=visitor is not None and visitor.work is not None)}
        # The visitor of a conversation that was ended meanwhile is nobody's any more: the page shows another.
        if visitor is not None and visitor in self.visitors.values():
            shown["moments"] = self.moments(visitor)
        return shown

    async def stop_work(self, request: gr.Request) -> None:
        with contextlib.suppress(RequestError):
            work = self.visitor(request).work
            if work is not None:
                work.stop()

    # -- routes ----------------------------------------------------------------------------------------------------

    def media(self, view_id: str, request: fastapi.Request) -> Response:
        """A clip's file, for its visitor; whole or in ranges."""
        path = self._known(request).paths.get(view_id)
        if path is None or not path.is_file():
            raise NotYoursError("there is no such clip; it was deleted, or never yours")
        with path.open("rb") as file:
            kind = MEDIA_TYPES.get(sniff(file.read(HEAD_BYTES)) or "", "application/octet-stream")
        headers = {"content-security-policy": "default-src 'none'; sandbox", "cache-control": "private, no-store"}
        return FileResponse(path, media_type=kind, headers=headers)

    def export(self, form: str, request: fastapi.Request) -> Response:
        """The conversation as a file: ``conversation.json`` or ``conversation.md``."""
        conversation = self._known(request).conversation
        runtime = self.worker.runtime
        if conversation is None or not conversation.exchanges or runtime is None:
            raise NotYoursError("there is nothing to export yet; ask something first")
        model = runtime.choice.name
        if form == "json":
            text = json.dumps({"model": model, **conversation.transcript()}, indent=1, ensure_ascii=False) + "\n"
        else:
            text = as_markdown(model, list(conversation.files), conversation.exchanges)
        name = f'attachment; filename="conversation.{form}"'
        kind = "application/json" if form == "json" else "text/markdown"
        return PlainTextResponse(
            text, media_type=kind, headers={"content-disposition": name, "cache-control": "no-store"}
        )

    def export_track(self, kind: Kind, view_id: str, form: str, request: fastapi.Request) -> Response:
        """What was told of a clip over its time as a file."""
        visitor = self._known(request)
        track = visitor.tracks.get((view_id, kind))
        view = next((one for one in visitor.clips if one.id == view_id), None)
        if track is None or view is None or form not in FORMS:
            raise NotYoursError("there is nothing to save here; narrate the clip first")
        name = f'attachment; filename="{kind}.{form}"'
        return PlainTextResponse(
            saved_as(form, track, view.name),
            media_type=FORMS[form],
            headers={"content-disposition": name, "cache-control": "no-store"},
        )

    def _known(self, request: fastapi.Request) -> Visitor:
        return self.visitors.get(self.token_of(request.cookies), Visitor())

    # -- layout ----------------------------------------------------------------------------------------------------

    def blocks(self) -> gr.Blocks:
        """The page's parts, and which of the above each of them does."""
        parts: dict[str, Any] = {}
        with gr.Blocks(title="videollm", analytics_enabled=False, delete_cache=None) as blocks:
            gr.HTML("<header><h1>videollm</h1><p>Show it a video, an image or a sound, and ask.</p></header>")
            with gr.Row(elem_id="columns", equal_height=False):
                with gr.Column(scale=6, min_width=320, elem_id="watch"):
                    parts["panel"] = gr.HTML(panel_html([]), elem_id="panel")
                    with gr.Row(visible=False, elem_id="tools") as parts["tools"]:
                        narrating = gr.Button("Narrate", size="sm", elem_id="narrate")
                        cutting = gr.Button("Chapters", size="sm", elem_id="chapters")
                        finding = gr.Textbox(
                            elem_id="find", show_label=False, container=False, lines=1, max_lines=1, min_width=120,
                            label="Find in the clips", placeholder="Find what is seen or heard", submit_btn="Find",
                            max_length=LONGEST_SEARCH_CHARACTERS,
                        )  # fmt: skip
                    with gr.Row(visible=False, elem_id="working") as parts["working"]:
                        parts["progress"] = gr.HTML("")
                        halt = gr.Button("Stop", size="sm", elem_id="halt")
                    parts["moments"] = gr.HTML("", elem_id="moments")
                    with gr.Column(elem_id="examples") as parts["examples"]:
                        gr.HTML(examples_html())
                    hidden = [gr.Button(file, elem_id=f"example-{i}", elem_classes="behind")
                              for i, file in enumerate(EXAMPLES)]  # fmt: skip
                    parts["drop"] = gr.File(
                        label="Add videos, images or sounds", show_label=False, file_count="multiple", elem_id="drop",
                        file_types=["video", "image", "audio"], height=64,
                    )  # fmt: skip
                    with gr.Accordion("Settings", open=False, elem_id="settings"):
                        with gr.Row():
                            names = list(dict.fromkeys(choice.name for choice in self.choices))
                            precisions = list(dict.fromkeys(choice.precision for choice in self.choices))
                            parts["choice"] = gr.Dropdown(
                                names, value=names[0], label="Model", interactive=len(names) > 1
                            )
                            parts["precision"] = gr.Radio(
                                precisions, value=self.choices[0].precision, label="Precision of the language model",
                                interactive=len(precisions) > 1,
                            )  # fmt: skip
                        parts["frames"] = gr.Slider(1, 32, 32, step=1, label="Frames of a clip, at most")
                        with gr.Row():
                            temperature = gr.Slider(
                                0, 1.5, 0, step=0.05, label="Temperature", info="0: always the likeliest word"
                            )
                            top_p = gr.Slider(0.05, 1, 1, step=0.05, label="Top-p", info="Only above temperature 0")
                        tokens = gr.Slider(
                            16, self.worker.limits.new_tokens, 256, step=16, label="Longest answer, tokens"
                        )
                        parts["calls"] = gr.Checkbox(
                            False, label="May use tools", elem_id="calls",
                            info="Look, listen, narrate and search before it answers; on for models that learned to",
                        )  # fmt: skip
                    parts["model"] = gr.HTML("", elem_id="model")
                with gr.Column(scale=5, min_width=320, elem_id="talk"):
                    parts["chat"] = gr.Chatbot(
                        elem_id="chat", show_label=False, container=False, editable="user", buttons=[],
                        layout="bubble", latex_delimiters=[], allow_tags=False, group_consecutive_messages=False,
                        placeholder="Ask what is seen or heard.",
                        feedback_options=None, height="100%",
                    )  # fmt: skip
                    parts["alert"] = gr.HTML("", elem_id="alert")
                    with gr.Row(visible=False, elem_id="starters") as parts["starters"]:
                        starters = [gr.Button(words, size="sm", variant="secondary") for words in STARTERS]
                    parts["box"] = gr.Textbox(
                        elem_id="question", show_label=False, container=False, lines=1, max_lines=6, submit_btn=True,
                        placeholder="Ask about the clips", label="Your question",
                        max_length=LONGEST_QUESTION_CHARACTERS,
                    )  # fmt: skip
                    with gr.Row(visible=False, elem_id="actions") as parts["export"]:
                        gr.HTML(
                            '<span class="downloads">Save as <a href="export/conversation.md" download>Markdown</a> '
                            '<a href="export/conversation.json" download>JSON</a></span>'
                        )
                        clear = gr.Button("New conversation", size="sm", elem_id="clear")

            sampling = [temperature, top_p, tokens, parts["calls"]]
            outputs = list(parts.values())

            def wired(function: Callable[..., AsyncIterator[dict[str, Any]]]) -> Callable[..., AsyncIterator[Any]]:
                return _by_part(function, parts)

            async def asked(
                question: str, t: float, p: float, n: int, calls: bool, request: gr.Request
            ) -> AsyncIterator[Any]:
                async for update in self.ask(request, question, _options(t, p, n, calls)):
                    yield update

            async def retried(
                t: float, p: float, n: int, calls: bool, request: gr.Request, data: gr.RetryData
            ) -> AsyncIterator[Any]:
                turn = self.turn_of(request, data.index)
                async for update in self.again(request, turn, None, _options(t, p, n, calls)):
                    yield update

            async def edited(
                t: float, p: float, n: int, calls: bool, request: gr.Request, data: gr.EditData
            ) -> AsyncIterator[Any]:
                turn = self.turn_of(request, data.index)
                async for update in self.again(request, turn, str(data.value), _options(t, p, n, calls)):
                    yield update

            async def undone(request: gr.Request) -> AsyncIterator[Any]:
                async for update in self.undo(request):
                    yield update

            # In the queue, all of them: the route for calls beside it is closed. There is no limit to those at once.
            free: dict[str, Any] = {
                "concurrency_limit": None,
                "show_progress": "hidden",
                "api_visibility": "private",
            }
            blocks.load(wired(self.load), None, outputs, **free)
            parts["drop"].upload(wired(self.upload), parts["drop"], outputs, **free)
            for button, file in zip(hidden, EXAMPLES, strict=True):
                button.click(wired(self.example(file)), None, outputs, **free)
            parts["box"].submit(wired(asked), [parts["box"], *sampling], outputs, **free)
            parts["box"].stop(self.stop, None, None, **free)
            for button, words in zip(starters, STARTERS, strict=True):
                button.click(wired(_with_question(asked, words)), sampling, outputs, **free)
            parts["chat"].retry(wired(retried), sampling, outputs, **free)
            parts["chat"].edit(wired(edited), sampling, outputs, **free)
            parts["chat"].undo(wired(undone), None, outputs, **free)
            clear.click(wired(self.clear), None, outputs, **free)
            # Which clip is in front only the browser knows: it says so in place of the button's own words.
            in_front = "() => document.querySelector('.clip:not([hidden])')?.dataset.clip ?? ''"
            narrating.click(wired(self.narrate), narrating, outputs, js=in_front, **free)
            cutting.click(wired(self.chapters), cutting, outputs, js=in_front, **free)
            finding.submit(wired(self.find), finding, outputs, **free)
            halt.click(self.stop_work, None, None, **free)
            parts["frames"].release(wired(self.look), parts["frames"], outputs, **free)
            for part in (parts["choice"], parts["precision"]):
                part.input(wired(self.switch), [parts["choice"], parts["precision"]], outputs, **free)
        return blocks

    # -- the application -------------------------------------------------------------------------------------------

    def app(self, rules: Rules) -> Any:
        """The page as an ASGI application, behind its door."""
        self.incoming.mkdir(mode=0o700, exist_ok=True)
        os.environ["GRADIO_TEMP_DIR"] = str(self.incoming)

        @contextlib.asynccontextmanager
        async def lifespan(_: Any) -> AsyncIterator[None]:
            janitor = asyncio.create_task(self._tidy())
            yield
            janitor.cancel()
            for visitor in self.visitors.values():
                if visitor.work is not None:
                    visitor.work.stop()
            self._threads.shutdown(wait=False, cancel_futures=True)

        outer = fastapi.FastAPI(docs_url=None, redoc_url=None, openapi_url=None, lifespan=lifespan)
        outer.add_exception_handler(VideoLLMError, _refuse)
        outer.get("/media/{view_id}")(self.media)
        outer.get("/export/conversation.{form}")(self.export)
        outer.get("/export/{kind}/{view_id}.{form}")(self.export_track)
        page = ASSETS / "page"
        theme = gr.themes.Default(
            primary_hue="teal", neutral_hue="slate", radius_size="md",
            font=["ui-sans-serif", "system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"],
        ).set(body_text_color_subdued="*neutral_500")  # fmt: skip  # the theme's own is too pale to be read by all
        gr.mount_gradio_app(
            outer, self.blocks(), "/", theme=theme, css=(page / "page.css").read_text("utf-8"), allowed_paths=[],
            head=f"<script>{(page / 'page.js').read_text('utf-8')}</script>", footer_links=[], run_history=False,
            ssr_mode=False, show_error=False, max_file_size=self.store.limits.file_bytes, pwa=False, mcp_server=False,
            i18n=gr.I18n(en=UPLOAD_WORDS), enable_monitoring=False, favicon_path=str(page / "icon.svg"),
        )  # fmt: skip
        return Door(self._with_cookie(outer), rules)

    def rules(self, hosts: frozenset[str] | None, key: str | None) -> Rules:
        """The door of the page."""

        def body_bytes(method: str, path: str) -> int:
            return self.store.limits.owner_bytes if path == "/gradio_api/upload" else 1024**2

        return Rules(hosts, frozenset({key} if key else ()), body_bytes, frozenset(), known_path, POLICY)

    def _with_cookie(self, app: Any) -> Any:
        """Gives a browser that opens the page its secret."""

        async def entered(scope: dict[str, Any], receive: Any, send: Any) -> None:
            if scope["type"] != "http" or scope["path"] != "/":
                await app(scope, receive, send)
                return
            known = True
            try:
                self.token_of(fastapi.Request(scope).cookies)
            except RequestError:
                known = False

            async def sending(message: dict[str, Any]) -> None:
                if message["type"] == "http.response.start" and not known:
                    secret = f"{self.cookie}={secrets.token_urlsafe(32)}; HttpOnly; SameSite=Lax; Path=/"
                    message = {**message, "headers": [*message["headers"], (b"set-cookie", secret.encode())]}
                await send(message)

            await app(scope, receive, sending)

        return entered

    async def _tidy(self) -> None:
        """Deletes what was sent and never shown, and files that nobody used for long."""
        while True:
            await asyncio.sleep(JANITOR_SECONDS)
            self.store.sweep()
            for token, visitor in list(self.visitors.items()):
                if visitor.conversation is None:  # came, and brought nothing
                    del self.visitors[token]
            await asyncio.to_thread(delete_stale, self.incoming, time.time() - STALE_SECONDS)


def known_path(path: str) -> bool:
    """Whether the page has anything at a path. Anything that could climb is unknown."""
    if ".." in path or "//" in path or "\\" in path or "\x00" in path:
        return False
    return path in GRADIO_PATHS or path.startswith((*GRADIO_FOLDERS, *OWN_FOLDERS))


def delete_stale(folder: Path, before: float) -> None:
    """Deletes files older than that, in the folders that Gradio makes one for each upload."""
    for made in folder.iterdir():
        with contextlib.suppress(OSError):
            if made.lstat().st_mtime < before:
                shutil.rmtree(made, ignore_errors=True) if made.is_dir() else made.unlink()


def choices_of(models: Sequence[str], bits: int | None, device: str | None) -> list[ModelChoice]:
    """What the page offers: each model in each precision that this machine can have, the asked one first."""
    known: list[int | None] = [None]
    if importlib.util.find_spec("bitsandbytes") and importlib.util.find_spec("accelerate"):
        known += [8, 4]
    first = [ModelChoice(models[0], bits, device)]
    return first + [c for c in (ModelChoice(m, b, device) for m in models for b in known) if c not in first]


class Alerts(contextlib.AbstractContextManager[list[str]]):
    """Collects the sentence of an error that was raised on purpose; others become one sentence and a log."""

    def __enter__(self) -> list[str]:
        self.alerts: list[str] = []
        return self.alerts

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> bool:
        if isinstance(error, VideoLLMError):
            self.alerts.append(str(error))
            return True
        if isinstance(error, Exception) and not isinstance(error, StopAsyncIteration):
            log.error("the page failed", exc_info=error)
            self.alerts.append("That failed in an unexpected way, which was logged; try again.")
            return True
        return False


def alert_html(sentences: Sequence[str]) -> str:
    def begun(sentence: str) -> str:  # a file's name at its beginning stays as it is
        return sentence[:1].upper() + sentence[1:] if sentence.partition(" ")[0].isalpha() else sentence

    lines = "".join(f"<p>{escape(begun(sentence))}</p>" for sentence in sentences)
    return f'<div class="alert" role="alert">{lines}</div>' if sentences else ""


def working_html(words: str) -> str:
    return f'<div class="working" role="status">{escape(words)}</div>'


def progress_html(words: str, done: int, total: int) -> str:
    """How far something long is."""
    value = f' value="{done}" max="{total}"' if total else ""
    count = f" {done} of {total}" if total else ""
    return (
        f'<div class="working" role="status"><span>{escape(words)} …</span>'
        f'<progress aria-label="{escape(words)}"{value}>{count}</progress></div>'
    )


def finished(kind: Kind, title: str, by: str, last: Report) -> Track | None:
    """What long work has told in the end; None where it was stopped before it told anything."""
    if last.whole:
        nothing = "nothing fits these words; try others" if kind == "found" else f"{by}, who had nothing to tell"
        return Track(kind, title, last.spans, by if last.spans else nothing)
    if not last.spans:
        return None
    return Track(kind, title, last.spans, f"{by}, stopped at {clock(last.spans[-1].end_seconds)}")


def ready_box(question: str | None = None) -> Any:
    """The box, for the next question; None leaves what stands in it."""
    if question is None:
        return gr.Textbox(submit_btn=True, stop_btn=False)
    return gr.Textbox(value=question, submit_btn=True, stop_btn=False)


def busy_box() -> Any:
    return gr.Textbox(value="", submit_btn=False, stop_btn=True)


def examples_html() -> str:
    """Tiles that press the hidden button of their clip."""
    tiles = ""
    for index, (file, title) in enumerate(EXAMPLES.items()):
        clip = read_clip(ASSETS / "clips" / file, frames=FrameSampling(frames=3), sound=SoundSampling())
        _, jpeg = view_of(clip, "", "").frames[1]
        about = f"{clip.duration_seconds:.0f} s, {'with' if clip.waveforms else 'no'} sound"
        tiles += (
            f'<button type="button" class="example" data-example="example-{index}"><img alt="" '
            f'src="data:image/jpeg;base64,{jpeg}"><strong>{escape(title)}</strong><span>{about}</span></button>'
        )
    return f'<p class="hint">Try it with one of these, or bring your own:</p><div class="examples">{tiles}</div>'


def _options(temperature: float, top_p: float, tokens: int, calls: bool) -> dict[str, Any]:
    return {
        "temperature": float(temperature),
        "top_p": float(top_p),
        "max_new_tokens": int(tokens),
        "tools": calls is True,
    }


def _with_question(asked: Callable[..., AsyncIterator[Any]], words: str) -> Callable[..., AsyncIterator[Any]]:
    async def ask(t: float, p: float, n: int, calls: bool, request: gr.Request) -> AsyncIterator[Any]:
        async for update in asked(words, t, p, n, calls, request):
            yield update

    return ask


def _by_part(function: Callable[..., AsyncIterator[dict[str, Any]]], parts: dict[str, Any]) -> Any:
    """A handler whose updates name parts of the page, as one whose updates are for Gradio."""
    import functools

    @functools.wraps(function)
    async def handler(*args: Any) -> AsyncIterator[dict[Any, Any]]:
        async for update in function(*args):
            yield {parts[name]: value for name, value in update.items()}

    return handler


async def _refuse(_: Any, error: Exception) -> Response:
    status = 404 if isinstance(error, NotYoursError) else 400
    return JSONResponse(error_body(status, str(error)), status)

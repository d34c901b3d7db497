"""`POST /v1/chat/completions`: a conversation in each request, answered by the worker.

Clients send the whole conversation every time. The one that the last answer came from is found again by what was said
and shown in it, so that its key/value cache and its decoded clips serve the next turn.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import secrets
from collections.abc import AsyncIterator, Sequence
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from videollm.errors import NotYoursError, RequestError, VideoLLMError
from videollm.messages import MediaPart, Message, assistant, system, user
from videollm.serving.access import error_body
from videollm.serving.errors_to_status import status_of
from videollm.serving.model_worker import Conversation, ModelWorker, Turn
from videollm.serving.protocol import (
    ChatRequest,
    MediaRef,
    Said,
    chunk,
    completion,
    conversation_of,
    parse,
    usage_chunk,
)
from videollm.serving.uploads import UploadStore


class Completions:
    """The route and what it remembers of conversations.

    Args:
        worker: answers.
        store: keeps files; those of a conversation belong to it, those uploaded before to ``owner``.
        owner: of uploads.
    """

    def __init__(self, worker: ModelWorker, store: UploadStore, owner: str) -> None:
        self.worker, self.store, self.owner = worker, store, owner
        self._known: dict[str, Conversation] = {}
        """Conversations by what was said and shown in them."""
        worker.closed = self._forget

    def router(self) -> APIRouter:
        router = APIRouter()
        schema = {"requestBody": {"required": True, "content": {"application/json": {"schema": _request_schema()}}}}
        router.add_api_route(
            "/v1/chat/completions", self.create, methods=["POST"], openapi_extra=schema, response_model=None,
            summary="Answer about videos, images and sounds", tags=["chat"],
        )  # fmt: skip
        return router

    async def create(self, request: Request) -> Response:
        """Answers, whole or as a stream of server-sent events."""
        if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
            raise RequestError("the request must be JSON (Content-Type: application/json)")
        asked = parse(await request.body())
        runtime = await self.worker.ready()
        model = runtime.choice.name
        if asked.model != model:
            raise NotYoursError(f"there is no model {asked.model[:100]!r} here; this service answers as {model!r}")
        # Base64 and digests of large files would hold up everybody else on the loop.
        said = await asyncio.to_thread(conversation_of, asked.messages)
        conversation = await self._resume(said)
        turn = await self.worker.ask(conversation, said[-1].text, **asked.options)
        request_id = f"chatcmpl-{secrets.token_hex(12)}"
        if asked.stream:
            return await self._streamed(turn, said, asked, request_id, model)
        answer = await _unless_gone(request, turn)
        self._remember(said, answer.text, conversation)
        return JSONResponse(completion(request_id, model, answer))

    async def _streamed(
        self, turn: Turn, said: Sequence[Said], asked: ChatRequest, request_id: str, model: str
    ) -> Response:
        pieces = aiter(turn)
        try:  # what is wrong with the question shows before its first word, and gets its own status
            first = await anext(pieces, None)
        except BaseException:
            turn.cancel()
            raise

        async def events() -> AsyncIterator[str]:
            async with turn:
                if first is not None:
                    yield _event(chunk(request_id, model, first))
                try:
                    async for piece in pieces:
                        yield _event(chunk(request_id, model, piece))
                except VideoLLMError as error:
                    yield _event(error_body(status_of(error), str(error)))
                    return
                answer = turn.answer
                if answer is None:
                    return
                self._remember(said, answer.text, turn.conversation)
                yield _event(chunk(request_id, model, None, answer))
                if asked.stream_options is not None and asked.stream_options.include_usage:
                    yield _event(usage_chunk(request_id, model, answer))
                yield "data: [DONE]\n\n"

        return StreamingResponse(events(), media_type="text/event-stream", headers={"cache-control": "no-store"})

    # -- conversations that go on ----------------------------------------------------------------------------------

    async def _resume(self, said: Sequence[Said]) -> Conversation:
        """The conversation that these words continue, with the files of the last message shown."""
        known = self._known.pop(_digest(said[:-1]), None)
        if known is not None and not known.users:
            with contextlib.suppress(NotYoursError):
                conversation = self.worker.get(known.id)
                for ref in said[-1].media:
                    await self._show(conversation, ref)
                return conversation
        conversation = self.worker.open()
        try:
            messages: list[Message] = []
            for one in said:
                if one.role == "system":
                    messages.append(system(one.text))
                elif one.role == "assistant":
                    messages.append(assistant(one.text))
                else:
                    parts = [await self._show(conversation, ref) for ref in one.media]
                    last = one is said[-1]
                    if parts or not last:
                        messages.append(user("" if last else one.text, parts))
            if messages:
                await self.worker.call(conversation, lambda c: c.begin_with(tuple(messages)))
        except BaseException:
            await self.worker.end(conversation)
            raise
        return conversation

    async def _show(self, conversation: Conversation, ref: MediaRef) -> MediaPart:
        """Adds a file to a conversation, under the conversation's own name for it."""
        if ref.upload_id is not None:
            upload = self.store.link(self.store.get(ref.upload_id, self.owner), conversation.id)
        else:
            assert ref.data is not None
            upload = await self.store.receive(_once(ref.data), conversation.id, ref.name, len(ref.data))
        clip = await self.worker.add(conversation, upload.path, upload.name)
        kind: Any = "image" if clip.kind == "image" else "audio" if clip.kind == "audio" else "video"
        return MediaPart(clip.name, type=kind)

    def _remember(self, said: Sequence[Said], text: str, conversation: Conversation) -> None:
        self._known[_digest([*said, Said("assistant", text)])] = conversation

    def _forget(self, conversation_id: str) -> None:
        """On the worker's thread: a conversation was closed."""
        self.store.delete_all(conversation_id)
        for digest, conversation in list(self._known.items()):
            if conversation.id == conversation_id:
                self._known.pop(digest, None)


async def _unless_gone(request: Request, turn: Turn) -> Any:
    """The whole answer; cancelled when the client goes."""

    async def gone() -> None:
        while not await request.is_disconnected():
            await asyncio.sleep(0.2)

    watch = asyncio.create_task(gone())
    watch.add_done_callback(lambda task: None if task.cancelled() else turn.cancel())
    try:
        async with turn:
            return await turn.finished()
    finally:
        watch.cancel()


async def _once(data: bytes) -> AsyncIterator[bytes]:
    yield data


def _digest(said: Sequence[Said]) -> str:
    return hashlib.sha256(repr([one.identity for one in said]).encode()).hexdigest()


def _event(data: dict[str, Any]) -> str:
    return f"data: {json.dumps(data)}\n\n"


def _request_schema() -> dict[str, Any]:
    """The schema of a request, in one piece."""
    schema = ChatRequest.model_json_schema()
    definitions = schema.pop("$defs", {})

    def whole(node: Any) -> Any:
        if isinstance(node, dict):
            if "$ref" in node:
                return whole(definitions[node["$ref"].rpartition("/")[2]])
            return {key: whole(value) for key, value in node.items() if key != "discriminator"}
        return [whole(each) for each in node] if isinstance(node, list) else node

    return whole(schema)

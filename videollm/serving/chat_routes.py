"""`POST /v1/chat/completions`: a conversation in each request, answered by the worker.

Clients send the whole conversation every time. The one that the last answer came from is found again by what was said
and shown in it, so that its key/value cache and its decoded clips serve the next turn.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import secrets
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, Response

from videollm.chat.session import Answer
from videollm.errors import ChatError, NotYoursError, VideoLLMError
from videollm.messages import MediaPart, Message, TextPart, assistant, system, user
from videollm.serving.access import asker, error_body
from videollm.serving.errors_to_status import status_of
from videollm.serving.events import LAST_EVENT, EventStream, event, while_there
from videollm.serving.incoming import Incoming
from videollm.serving.model_worker import Conversation, Turn
from videollm.serving.protocol import (
    ChatRequest,
    MediaRef,
    Said,
    chunk,
    completion,
    conversation_of,
    described,
    usage_chunk,
)
from videollm.serving.several_workers import Workers


@dataclass
class Question:
    """What a request comes to: a question in a conversation that holds all that was said before.

    Attributes:
        words: None: the question that waits goes on.
        options: of `ModelWorker.ask`.
        history: what identifies the conversation, this question included: who asks, then each message.
        is_answered: the conversation can be gone on with.
    """

    conversation: Conversation
    words: str | None
    history: tuple[Any, ...]
    options: dict[str, Any]
    model: str
    stream: bool
    with_usage: bool
    is_answered: bool = False


class Completions:
    """The route and what it remembers of conversations.

    Args:
        worker: answers.
        incoming: reads requests; files belong to their conversation, those uploaded before to who asks.
    """

    def __init__(self, worker: Workers, incoming: Incoming) -> None:
        self.worker, self.incoming = worker, incoming
        self._known: dict[str, Conversation] = {}
        """Conversations by what was said and shown in them, the one that was used last at the end."""
        self._ending: set[asyncio.Task[None]] = set()
        worker.closed = self._forget

    def router(self) -> APIRouter:
        router = APIRouter()
        about = described(ChatRequest, "application/json", "text/event-stream")
        router.add_api_route(
            "/v1/chat/completions", self.create, methods=["POST"], tags=["chat"], response_model=None,
            openapi_extra=about, summary="Answer about videos, images and sounds",
        )  # fmt: skip
        return router

    async def create(self, request: Request) -> Response:
        """Answers, whole or as a stream of server-sent events."""
        with contextlib.ExitStack() as stack:
            question = await self._understood(request)
            stack.callback(self._leave, question)
            turn = await self.worker.ask(question.conversation, question.words, **question.options)
            stack.callback(turn.cancel)
            request_id, pieces = f"chatcmpl-{secrets.token_hex(12)}", turn.events()
            async with while_there(request, turn.cancel):
                if question.stream:  # what is wrong with the question shows before its first word
                    first = await anext(pieces, None)
                    return EventStream(self._events(question, turn, first, pieces, request_id), stack.pop_all())
                answer = await turn.finished()
            if not answer.stopped:
                self._remember(question, answer)
            return JSONResponse(completion(request_id, question.model, answer))

    async def _events(
        self, question: Question, turn: Turn, first: Any, pieces: AsyncIterator[Any], request_id: str
    ) -> AsyncIterator[str]:
        model = question.model
        if first is not None:
            yield event(chunk(request_id, model, first))
        try:
            async for piece in pieces:
                yield event(chunk(request_id, model, piece))
        except VideoLLMError as error:
            yield event(error_body(status_of(error), str(error)))
            return
        answer = turn.answer
        if answer is None:
            return
        self._remember(question, answer)
        yield event(chunk(request_id, model, None, answer))
        if question.with_usage:
            yield event(usage_chunk(request_id, model, answer))
        yield LAST_EVENT

    # -- conversations that go on ----------------------------------------------------------------------------------

    async def _understood(self, request: Request) -> Question:
        """The question of a request. The files in the request are in no memory any more when it is answered."""
        async with self.incoming.json(request, ChatRequest) as asked:
            runtime = await self.worker.ready()
            model = runtime.choice.name
            if asked.model != model:
                raise NotYoursError(f"there is no model {asked.model[:100]!r} here; this service answers as {model!r}")
            options = asked.options | {"tools": asked.calls_tools, "functions": asked.functions}
            self.worker.refuse_when_full()  # before its files cost anything
            # Base64 and digests of large files would hold up everybody else on the loop.
            said = await asyncio.to_thread(conversation_of, asked.messages, self.incoming.fetcher.check)
            clips, most = sum(len(one.media) for one in said), self.worker.limits.clips
            if clips > most:
                raise ChatError(f"a conversation has at most {most} clips, found {clips}; leave some out")
            who = asker(request.scope)
            conversation = await self._resume(said, who)
            history = (who, *(one.identity for one in said))
            with_usage = asked.stream_options is not None and asked.stream_options.include_usage
            words = said[-1].text if said[-1].role == "user" else None
            return Question(conversation, words, history, options, model, asked.stream, with_usage)

    async def _resume(self, said: Sequence[Said], who: str) -> Conversation:
        """The conversation that these words continue, with the files of the last message shown."""
        known = self._known.pop(_digest((who, *(one.identity for one in said[:-1]))), None)
        conversation = None
        if known is not None and not known.users:
            with contextlib.suppress(NotYoursError):
                conversation = self.worker.get(known.id)
        try:
            if conversation is not None:
                for ref in said[-1].media:
                    await self._show(conversation, ref, who)
                if said[-1].results:
                    results = Message("tool", said[-1].results)
                    await self.worker.begin_with(conversation, (*conversation.messages, results))
                return conversation
            await self._make_room()
            conversation = self.worker.open(who)
            messages: list[Message] = []
            for one in said:
                if one.role == "system":
                    messages.append(system(one.text))
                elif one.role == "tool":
                    messages.append(Message("tool", one.results))
                elif one.calls:
                    words = (TextPart(one.text),) if one.text else ()
                    messages.append(Message("assistant", (*words, *one.calls)))
                elif one.role == "assistant":
                    messages.append(assistant(one.text))
                else:
                    parts = [await self._show(conversation, ref, who) for ref in one.media]
                    last = one is said[-1]
                    if parts or not last:
                        messages.append(user("" if last else one.text, parts))
            if messages:
                await self.worker.begin_with(conversation, tuple(messages))
        except BaseException:
            if conversation is not None:
                self._end(conversation)
            raise
        return conversation

    async def _show(self, conversation: Conversation, ref: MediaRef, who: str) -> MediaPart:
        """Adds a file to a conversation, under the conversation's own name for it."""
        upload = await self.incoming.bring(ref, who, conversation.id)
        clip = await self.worker.add(conversation, upload.path, upload.name)
        kind: Any = "image" if clip.kind == "image" else "audio" if clip.kind == "audio" else "video"
        return MediaPart(clip.name, type=kind)

    def _remember(self, question: Question, answer: Answer) -> None:
        digest = _digest((*question.history, Said("assistant", answer.text, calls=answer.calls).identity))
        same = self._known.pop(digest, None)
        if same is not None and same is not question.conversation and not same.users:
            self._end(same)  # two clients said the same: one copy can go on
        self._known[digest] = question.conversation
        question.is_answered = True

    def _leave(self, question: Question) -> None:
        """A conversation that was broken off is ended: nobody can go on with it."""
        if not question.is_answered:
            self._end(question.conversation)

    async def _make_room(self) -> None:
        """Ends the conversations that were longest not gone on with: every question of a client might be its last."""
        over = len(self.worker.conversations) + 1 - self.worker.limits.conversations
        for digest, conversation in list(self._known.items()):
            if over <= 0:
                return
            if not conversation.users:
                self._known.pop(digest, None)
                await self.worker.end(conversation)
                over -= 1

    def _end(self, conversation: Conversation) -> None:
        """Ends a conversation, whatever becomes of the request that it was for."""
        task = asyncio.create_task(self.worker.end(conversation))
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)

    def _forget(self, conversation_id: str) -> None:
        """On the worker's thread: a conversation was closed."""
        self.incoming.store.delete_all(conversation_id)
        for digest, conversation in list(self._known.items()):
            if conversation.id == conversation_id:
                self._known.pop(digest, None)


def _digest(history: tuple[Any, ...]) -> str:
    return hashlib.sha256(repr(history).encode()).hexdigest()

"""Many ask, one engine answers: the queue before it, the books on every conversation, and what happens when it dies.

* Decoding files happens in `media`'s limited process, a few at a time, before a question waits for the model.
* The model and the sessions with it are in an engine (`videollm.serving.engine`), in a process of its own. When that is
  killed, or says nothing for long, what it was doing ends with one clear error, and another is started at once.
* A question waits in a bounded queue, and is refused with `BusyError` where that is full, or where it and all others
  would take more positions or memory than there are. Some are answered together.
* A reader who goes away ends the work: at the next token nothing of it is left.
* What a conversation needs to go on is kept here: its words and its files. Its session (decoded clips, features,
  key/value cache) may be dropped, least recently used first, to keep all of them under one budget, and is made again
  when it goes on. The same happens to all when another model is loaded, or the engine dies.

One thread per worker listens to the engine; the rest of this file runs on an event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import itertools
import logging
import queue
import secrets
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from typing import Any, Generic, Self, TypeVar, get_args

from videollm.chat.generation import Finish
from videollm.chat.session import Answer, ClipCoverage
from videollm.clips import Clip
from videollm.errors import (
    BusyError,
    ChatError,
    ConfigError,
    NotYoursError,
    UnavailableError,
)
from videollm.media.decode_worker import open_clip
from videollm.messages import Message, TextPart, ToolCallPart, ToolResultPart
from videollm.serving.engine import LiveRuntime, Load, ModelChoice, Order, Runtime, WorkerLimits
from videollm.serving.engine_process import EngineProcess, EngineThread, RunningEngine

__all__ = [
    "Conversation",
    "Counts",
    "Errand",
    "Exchange",
    "LiveRuntime",
    "ModelChoice",
    "ModelWorker",
    "Runtime",
    "Turn",
    "WorkerLimits",
]

T = TypeVar("T")
TurnEvent = str | ToolCallPart | ToolResultPart
log = logging.getLogger(__name__)

SWEEP_SECONDS = 5.0
"""How often idle conversations are looked for."""
CUT_SECONDS = 5.0
"""How long what was cancelled at the end may still take."""
AGAIN_SECONDS = 30.0
"""After some deaths in a row before a model was loaded, the next start waits so long."""
DEATHS = 3


@dataclass(frozen=True)
class Exchange:
    """A question that was answered, and the clips that were shown with it."""

    question: str
    clips: tuple[str, ...]
    answer: Answer


class Conversation:
    """What a worker keeps of one conversation: enough to make its session anew.

    Attributes:
        id: a secret between the worker and who opened it.
        circle: what is computed of a clip serves all conversations of a circle; None: this one alone.
        files: by the name that the clip has in the conversation.
        exchanges: what was answered.
        frames: how many of each clip are looked at, at most; None: as the model is used to.
        messages: all that was said and shown, with the ids of the model's own words.
        coverage: for each clip, what of it the model is shown.
        memory_bytes: of its session, at the end of the last turn.
        held: whether the engine has its session.
        users: how many questions and decodings are under way: while there are any, nothing of it is dropped.
    """

    def __init__(self, conversation_id: str, now: float, circle: str | None = None) -> None:
        self.id, self.circle = conversation_id, circle
        self.files: dict[str, Path] = {}
        self.exchanges: list[Exchange] = []
        self.frames: int | None = None
        self.messages: tuple[Message, ...] = ()
        self.coverage: tuple[ClipCoverage, ...] = ()
        self.memory_bytes = 0
        self.held = False
        self.used_at = now
        self.users = 0
        self.reviving = asyncio.Lock()
        self.spoken_by: ModelChoice | None = None

    def forgotten(self) -> None:
        """The engine has dropped its session."""
        self.held, self.memory_bytes = False, 0

    def keep(self, state: tuple[tuple[Message, ...], tuple[ClipCoverage, ...], int]) -> None:
        """What the engine says of it."""
        self.messages, self.coverage, self.memory_bytes = state

    def messages_for(self, choice: ModelChoice) -> tuple[Message, ...]:
        """What was said, for this model: ids of one tokenizer are other words in another."""
        return self.messages if choice == self.spoken_by else tuple(map(_without_ids, self.messages))

    def transcript(self) -> dict[str, Any]:
        """Plain data, ready for `json.dumps`."""
        return {
            "clips": list(self.files),
            "turns": [
                {"question": one.question, "clips": list(one.clips), **one.answer.to_json()} for one in self.exchanges
            ],
        }


def _without_ids(message: Message) -> Message:
    said = TextPart | ToolCallPart
    parts = (replace(part, token_ids=None) if isinstance(part, said) else part for part in message.parts)
    return replace(message, parts=tuple(parts))


class Reading(Generic[T]):
    """Work on its way, for one reader: iterate for what comes of it.

    Whoever stops reading calls `cancel`, or uses ``async with``.
    """

    def __init__(self, conversation: Conversation | None, cancel: Callable[[Reading[Any]], None]) -> None:
        self.conversation = conversation
        self.number: int | None = None
        self.accepted = _uncancellable()
        self.begun = self.cancelled = False
        self.cancelled_at = 0.0
        self._cancel = cancel
        self._loop = asyncio.get_running_loop()
        self._events: deque[tuple[str, Any]] = deque()
        self._news = asyncio.Event()

    def cancel(self) -> None:
        """Ends the work after its present step; callable from any thread, any number of times."""
        if not self.cancelled:
            self.cancelled, self.cancelled_at = True, time.monotonic()
            self._cancel(self)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.cancel()

    async def __aiter__(self) -> AsyncIterator[T]:
        async for item in self._items():
            yield item

    async def _items(self) -> AsyncIterator[Any]:
        while True:
            while not self._events:
                self._news.clear()
                await self._news.wait()
            kind, event = self._events.popleft()
            if kind == "item":
                yield event
            elif kind == "error":
                raise event
            else:
                self._ended(event)
                return

    def _ended(self, outcome: Any) -> None:
        """What the work came to, once everything was read."""

    def _tell(self, kind: str, event: Any) -> None:
        """From the thread that listens to the engine."""
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody listens any more
            self._loop.call_soon_threadsafe(self._heard, kind, event)

    def _heard(self, kind: str, event: Any) -> None:
        self._events.append((kind, event))
        self._news.set()


class Turn(Reading[str]):
    """A question on its way. Iterate for the words of the answer; ``answer`` holds the whole afterwards."""

    conversation: Conversation

    def __init__(
        self, conversation: Conversation, question: str | None, cancel: Callable[[Reading[Any]], None]
    ) -> None:
        super().__init__(conversation, cancel)
        self.question = question
        self.answer: Answer | None = None

    async def __aiter__(self) -> AsyncIterator[str]:
        async for event in self._items():
            if isinstance(event, str):
                yield event

    async def events(self) -> AsyncIterator[TurnEvent]:
        """The words, and the tools that are called between them and what they gave back."""
        async for event in self._items():
            yield event

    def more(self) -> str:
        """The words that have come in the meantime, for readers who cannot show each of them at once."""
        words = ""
        while self._events and isinstance(self._events[0][1], str):
            words += self._events.popleft()[1]
        return words

    async def finished(self) -> Answer:
        """Waits for the whole answer.

        Raises:
            UnavailableError: it was cancelled before it began.
        """
        async for _ in self:
            pass
        if self.answer is None:
            raise UnavailableError("the question was taken back before it was answered; ask again")
        return self.answer

    def _ended(self, outcome: Answer | None) -> None:
        self.answer = outcome


class Errand(Reading[Any]):
    """Other work on the model on its way, see `ModelWorker.run`. Iterate for what its function yields."""


class _Awaited:
    """An order whose end somebody awaits; ``then`` is called with it first, whether or not he still does."""

    def __init__(self, then: Callable[[Any], Any] | None) -> None:
        self.future, self._then = _uncancellable(), then

    def done(self, value: Any) -> None:
        self.future.set_result(value if self._then is None else self._then(value))


@dataclass
class Counts:
    """What a worker has done since it started, for `/metrics`."""

    turns: dict[str, int] = field(default_factory=lambda: dict.fromkeys((*get_args(Finish), "failed"), 0))
    refused: int = 0
    prompt_tokens: int = 0
    reused_tokens: int = 0
    generated_tokens: int = 0
    dropped_caches: int = 0
    restarts: int = 0
    first_word_seconds: deque[float] = field(default_factory=lambda: deque(maxlen=1000))
    stop_seconds: deque[float] = field(default_factory=lambda: deque(maxlen=1000))
    """From the cancelling of work that was under way to its end."""

    def count(self, answer: Answer) -> None:
        timings = answer.timings
        self.turns[answer.finish] = self.turns.get(answer.finish, 0) + 1
        self.prompt_tokens += timings.prompt_tokens
        self.reused_tokens += timings.reused_tokens
        self.generated_tokens += timings.generated_tokens
        if timings.first_word_seconds is not None:
            self.first_word_seconds.append(timings.first_word_seconds)


class ModelWorker:
    """Answers questions about clips with one model, for any number of conversations.

    Args:
        choice: the model to begin with.
        limits: what it takes on.
        load: makes a model and its processor of a choice, in this process; the engine is then a thread of it. None: the
            engine is in a process of its own, which can be killed and is then started again.
        engine: starts an engine elsewhere; what it raises as OSError is tried again.
        clock: seconds that only grow.
        closed: called, from any thread, with the id of each conversation that is closed.
    """

    def __init__(
        self,
        choice: ModelChoice | None = None,
        limits: WorkerLimits | None = None,
        *,
        load: Load | None = None,
        engine: Callable[[WorkerLimits], RunningEngine] = EngineProcess,
        clock: Callable[[], float] = time.monotonic,
        closed: Callable[[str], None] | None = None,
    ) -> None:
        self.limits = WorkerLimits() if limits is None else limits
        self.counts = Counts()
        self.closed = closed
        self.conversations: dict[str, Conversation] = {}
        self.state = "starting"
        """A few words for people: what the worker is doing with its model."""
        self._clock = clock
        self._start_engine = engine if load is None else lambda limits: EngineThread(load, limits)
        self._wanted = ModelChoice() if choice is None else choice
        self._runtime = _uncancellable()
        self._engine: RunningEngine | None = None
        # Under the lock: orders to the engine, and what waits for reports of them; users of conversations.
        self._lock = threading.Lock()
        self._outbox: queue.SimpleQueue[Order | None] | None = self._new_outbox()
        self._pending: dict[int, _Awaited | Reading[Any]] = {}
        self._numbers = itertools.count(1)
        self._queued = 0
        self._opening = 0
        self._ending: float | None = None
        self._end = threading.Event()
        self._swept = clock()
        self._decoders = ThreadPoolExecutor(self.limits.decoding, thread_name_prefix="decode")
        self._thread = threading.Thread(target=self._keep_alive, name="model-worker", daemon=True)

    # -- life ------------------------------------------------------------------------------------------------------

    def start(self) -> ModelWorker:
        """Begins to load the model, and returns at once."""
        self._thread.start()
        return self

    def close(self, grace_seconds: float = 5.0) -> None:
        """Refuses new questions, lets those under way end for so long, stops them, and ends the engine."""
        if not self._thread.is_alive():
            return
        self._ending = time.monotonic() + grace_seconds
        self._end.set()
        with contextlib.suppress(UnavailableError):
            self._send(_Awaited(None), "drop", ())  # its report wakes the thread that listens
        self._thread.join()
        self._decoders.shutdown(wait=False, cancel_futures=True)

    async def ready(self) -> Runtime:
        """Waits for the model.

        Raises:
            VideoLLMError: it cannot be loaded.
        """
        return await asyncio.wrap_future(self._runtime)

    @property
    def runtime(self) -> Runtime | None:
        """The model, if it is loaded."""
        known = self._runtime
        return known.result() if known.done() and known.exception() is None else None

    @property
    def alive(self) -> bool:
        return self._thread.is_alive() and self._ending is None

    @property
    def pid(self) -> int | None:
        """Of the model's process."""
        return None if self._engine is None else self._engine.pid

    async def switch(self, choice: ModelChoice) -> Runtime:
        """Loads another model when the answers under way are done; conversations go on with it.

        Raises:
            VideoLLMError: it cannot be loaded; the one before is there again.
        """
        self._refuse_when_ending()
        if self.runtime is None or self.runtime.choice != choice:
            await self._order("load", choice)
        return await self.ready()

    # -- conversations ---------------------------------------------------------------------------------------------

    def open(self, circle: str | None = None) -> Conversation:
        """Begins a conversation. Its id is a secret between it and who opened it.

        Args:
            circle: of people who may know of each other's clips, see `Conversation`.

        Raises:
            BusyError: there are too many.
        """
        self._refuse_when_ending()
        with self._lock:
            if len(self.conversations) >= self.limits.conversations:
                raise BusyError(
                    f"{len(self.conversations)} conversations are open, which is the limit; try again later"
                )
            conversation = Conversation(secrets.token_urlsafe(24), self._clock(), circle)
            self.conversations[conversation.id] = conversation
        return conversation

    def get(self, conversation_id: str) -> Conversation:
        """An open conversation.

        Raises:
            NotYoursError: there is none of this id.
        """
        conversation = self.conversations.get(conversation_id)
        if conversation is None:
            raise NotYoursError("this conversation is not open any more; begin another")
        conversation.used_at = self._clock()
        return conversation

    async def end(self, conversation: Conversation) -> None:
        """Closes a conversation and stops its answer."""
        await asyncio.to_thread(self._close, conversation)

    def hand_over(self, conversation: Conversation, other: ModelWorker) -> None:
        """Has another worker go on with a conversation that is not being used."""
        with self._lock:
            self.conversations.pop(conversation.id, None)
            conversation.forgotten()
            if self._outbox is not None:
                self._outbox.put((0, "drop", ([conversation.id],)))
        with other._lock:
            other.conversations[conversation.id] = conversation

    async def add(self, conversation: Conversation, path: Path, name: str) -> Clip:
        """Decodes a file and shows it to the model with the next question.

        Returns:
            the clip, under the name that it has in the conversation.

        Raises:
            MediaError: it cannot be read.
            ChatError: there are too many clips, or they do not fit the model.
            BusyError: too many files wait to be decoded.
        """
        self._refuse_when_ending()
        if len(conversation.files) >= self.limits.clips:
            raise ChatError(f"a conversation has at most {self.limits.clips} clips; clear it to begin another")

        def shown(reply: Any) -> str:
            known, state = reply
            conversation.keep(state)
            conversation.files[known] = path
            return known

        with self._used(conversation):
            await self._revived(conversation)
            clip = await self._decode(path, name, conversation.frames)
            return replace(clip, name=await self._order("add", conversation.id, clip, path, then=shown))

    async def ask(
        self,
        conversation: Conversation,
        question: str | None,
        *,
        tools: bool = False,
        functions: Sequence[dict[str, Any]] = (),
        **options: Any,
    ) -> Turn:
        """Puts a question into the queue.

        Args:
            question: None: the one that waits for what functions gave back, with which its messages end.
            tools: whether the model may call tools while it answers.
            functions: schemas of what it may call besides; an answer that ends with such a call is none yet.
            options: fields of `videollm.chat.generation.GenerationOptions`.

        Raises:
            BusyError: the queue is full, or the question and its answer do not fit beside the others.
            ChatError, ConfigError: the question, or an option, is none; or the conversation is still answering.
            VideoLLMError: the model cannot be loaded, or a clip not be read again.
        """
        self._queue(conversation)
        try:
            await self._revived(conversation)
            # Over the ceiling is cut, not refused: clients ask for round numbers.
            asked = options.get("max_new_tokens")
            if isinstance(asked, int):
                options["max_new_tokens"] = min(asked, self.limits.new_tokens)
            turn = Turn(conversation, question, self._cancel)
            self._send(turn, "ask", conversation.id, question, tools, functions, options)
        except BaseException:
            self._release(conversation)
            raise
        try:
            await asyncio.wrap_future(turn.accepted)
        except asyncio.CancelledError:
            turn.cancel()
            raise
        return turn

    def run(
        self, function: Callable[..., Iterator[Any]], *arguments: Any, conversation: Conversation | None = None
    ) -> Errand:
        """Does other work on the model: puts it into the queue, as a question.

        Args:
            function: of a module, so that it can be named to another process; called as
                ``function(runtime, *arguments)`` with a `LiveRuntime`. An iterator: between two of its items answers
                and the work of others go on. Items are plain data, or arrays; None is not handed on and only lets
                others go on.
            arguments: as the items: never of torch.
            conversation: one whose files it reads; it is not closed, and its memory not taken, meanwhile.

        Returns:
            what to iterate over; it raises what the function raises, and UnavailableError for what is no error of ours.

        Raises:
            BusyError: the queue is full.
        """
        errand = Errand(conversation, self._cancel)
        self._queue(conversation)
        try:
            if self._runtime.done():
                self._runtime.result()  # raises why there is no model
            self._send(errand, "run", function, arguments)
        except BaseException:
            self._release(conversation)
            raise
        return errand

    async def undo(self, conversation: Conversation) -> str | None:
        """Takes back the last question, and returns it. Raises ChatError: it is still answering."""

        def taken_back(reply: Any) -> str | None:
            question, state = reply
            conversation.keep(state)
            if question is not None and conversation.exchanges:
                conversation.exchanges.pop()
            return question

        with self._used(conversation):
            await self._revived(conversation)
            return await self._order("undo", conversation.id, then=taken_back)

    async def clear(self, conversation: Conversation) -> None:
        """Forgets all questions and files. Raises ChatError: it is still answering."""

        def cleared(state: Any) -> None:
            conversation.keep(state)
            conversation.files.clear()
            conversation.exchanges.clear()

        with self._used(conversation):
            await self._revived(conversation)
            await self._order("clear", conversation.id, then=cleared)

    async def begin_with(self, conversation: Conversation, messages: tuple[Message, ...]) -> None:
        """Sets what was said before, e.g. by a client that keeps conversations itself.

        Raises:
            ChatError: messages in an order, or about clips, that it cannot have; or it is still answering.
        """
        with self._used(conversation):
            await self._revived(conversation)
            await self._order("begin_with", conversation.id, messages, then=conversation.keep)

    async def clips(self, conversation: Conversation) -> dict[str, Clip]:
        """Its clips by name, as the model is shown them: decoded again."""
        with self._used(conversation):
            return await self._revived(conversation, always=True)

    def drop(self, conversation: Conversation) -> None:
        """Gives back all memory of a conversation but that of its words; not while it is being used."""
        with self._lock:
            self._drop([conversation])

    async def look(self, conversation: Conversation, frames: int | None) -> None:
        """Looks at another number of frames of each clip, from the next question on.

        Raises:
            ConfigError: the model does not look at so many.
        """
        most = min((await self.ready()).most_frames, self.limits.frames)
        if frames is not None and not 1 <= frames <= most:
            raise ConfigError(f"this model looks at 1 to {most} frames of a clip, found {frames}")
        if frames == conversation.frames:
            return
        if conversation.users:
            raise ChatError("the answer under way must end first; stop it, or wait for its end")
        conversation.frames = frames
        self.drop(conversation)

    @property
    def queue_length(self) -> int:
        """Questions that wait."""
        return max(self._queued - self.answering, 0)

    @property
    def answering(self) -> int:
        """Questions that are being answered."""
        return sum(pending.begun for pending in list(self._pending.values()) if isinstance(pending, Reading))

    @property
    def memory_bytes(self) -> int:
        """Of the clips, features and caches of all conversations."""
        return sum(conversation.memory_bytes for conversation in list(self.conversations.values()))

    # -- on the loop -----------------------------------------------------------------------------------------------

    def _refuse_when_ending(self) -> None:
        if self._ending is not None or not self._thread.is_alive():
            raise UnavailableError("the service is shutting down; start it again")

    def refuse_when_full(self) -> None:
        """Raises BusyError: a question would find no place in the queue. To be asked before its files are read."""
        self._refuse_when_ending()
        if self._queued >= self.limits.waiting + self.limits.at_once:
            self.counts.refused += 1
            raise BusyError(f"{self._queued} questions are being answered or wait, which is the limit; ask again later")

    def _queue(self, conversation: Conversation | None) -> None:
        """Takes a place in the queue.

        Raises:
            BusyError: there is none.
        """
        with self._lock:
            self.refuse_when_full()
            self._queued += 1
            if conversation is not None:
                conversation.users += 1

    def _release(self, conversation: Conversation | None) -> None:
        with self._lock:
            self._queued -= 1
            if conversation is not None:
                conversation.users -= 1
                conversation.used_at = self._clock()

    @contextlib.contextmanager
    def _used(self, conversation: Conversation) -> Iterator[None]:
        with self._lock:
            conversation.users += 1
        try:
            yield
        finally:
            with self._lock:
                conversation.users -= 1
            conversation.used_at = self._clock()

    async def _revived(self, conversation: Conversation, *, always: bool = False) -> dict[str, Clip]:
        """Sees to it that the engine has the conversation's session; its clips, where they were decoded for that."""
        async with conversation.reviving:
            runtime = await self.ready()
            if conversation.id not in self.conversations:
                raise NotYoursError("this conversation is not open any more; begin another")
            if conversation.held and not always:
                return {}
            files = list(conversation.files.items())
            clips = {name: await self._decode(path, name, conversation.frames) for name, path in files}

            def held(state: Any) -> None:
                conversation.keep(state)
                conversation.held, conversation.spoken_by = True, runtime.choice
                if conversation.id not in self.conversations:  # closed in the meantime
                    self.drop(conversation)

            if not conversation.held:
                words = conversation.messages_for(runtime.choice)
                shown = [(clips[name], path) for name, path in files]
                order = (conversation.id, runtime.choice, shown, words, conversation.circle)
                await self._order("open", *order, then=held)
            return clips

    async def _decode(self, path: Path, name: str, frames: int | None) -> Clip:
        """Opens a file in the process for that, when its turn comes."""
        runtime = await self.ready()
        if self._opening >= self.limits.undecoded:
            raise BusyError(f"{self._opening} files are being read or wait, which is the limit; try again later")
        self._opening += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(
                self._decoders,
                functools.partial(
                    open_clip,
                    path,
                    frames=runtime.frame_sampling(frames),
                    sound=runtime.sound_sampling,
                    limits=self.limits.media,
                    name=name,
                ),
            )
        finally:
            self._opening -= 1

    async def _order(self, name: str, *arguments: Any, then: Callable[[Any], Any] | None = None) -> Any:
        """Has the engine do something and waits for it; ``then`` is called even if the waiting is given up."""
        awaited = _Awaited(then)
        self._send(awaited, name, *arguments)
        return await asyncio.wrap_future(awaited.future)

    def _send(self, pending: _Awaited | Reading[Any], name: str, *arguments: Any) -> None:
        with self._lock:
            if self._outbox is None:
                raise UnavailableError("the service is shutting down; start it again")
            number = next(self._numbers)
            if isinstance(pending, Reading):
                pending.number = number
            self._pending[number] = pending
            self._outbox.put((number, name, arguments))

    def _cancel(self, reading: Reading[Any]) -> None:
        with self._lock:
            if reading.number in self._pending and self._outbox is not None:
                self._outbox.put((reading.number, "cancel", ()))

    # -- in the thread that listens to the engine ------------------------------------------------------------------

    def _keep_alive(self) -> None:
        """Starts an engine, again and again, until the end."""
        deaths = 0
        while self._ending is None:
            how = self._attend()
            if self._ending is not None:
                break
            deaths = 0 if self.runtime is not None else deaths + 1
            log.error("the model's process %s", how)
            self.counts.restarts += 1
            self._lose(f"the model's process {how} and is being started again", self._new_outbox())
            if deaths >= DEATHS:
                self.state = "failed"
                why = f"the model's process {how}, {deaths} times in a row while it started; see the log"
                self._runtime.set_exception(UnavailableError(why))
                self._end.wait(AGAIN_SECONDS)
        self._lose("the service is shutting down", None)
        self._runtime.set_exception(UnavailableError("the service is shutting down; start it again"))

    def _new_outbox(self) -> queue.SimpleQueue[Order | None]:
        """Orders to the next engine, whose first is the model."""
        orders: queue.SimpleQueue[Order | None] = queue.SimpleQueue()
        orders.put((0, "load", (self._wanted,)))
        return orders

    def _lose(self, state: str, outbox: queue.SimpleQueue[Order | None] | None) -> None:
        """The engine is gone: nothing that was asked of it will come."""
        with self._lock:
            pending, self._pending, self._outbox, self.state = self._pending, {}, outbox, state
            self._no_model()
        for waiting in pending.values():
            self._settle(waiting, "error", UnavailableError(f"{state}; ask again"))

    def _no_model(self) -> None:
        """There is none, for a while, and no session."""
        if self._runtime.done():
            self._runtime = _uncancellable()
        for conversation in self.conversations.values():
            conversation.forgotten()

    def _attend(self) -> str:
        """Starts an engine and listens to it until its end; says what that was."""
        try:
            engine = self._start_engine(self.limits)
        except OSError as error:
            return f"could not be started ({error.strerror or error or type(error).__name__})"
        self._engine, orders = engine, self._outbox
        assert orders is not None
        sender = threading.Thread(target=self._post, args=(engine, orders), name="model-orders", daemon=True)
        sender.start()
        heard, hung = time.monotonic(), None
        while not self._may_end():
            if engine.connection.poll(0.1 if self._ending is not None else 1.0):
                try:
                    report = engine.connection.recv()
                except (EOFError, OSError):
                    break
                self._hear(*report)
                heard = time.monotonic()
            else:
                self._sweep()
            silent = self.limits.silent_seconds if self.runtime is not None else self.limits.loading_seconds
            if time.monotonic() > heard + silent and hung is None:
                hung = f"said nothing for {silent:.0f} s, was ended"
                engine.kill()
        if self.runtime is None and self._ending is not None:
            engine.kill()  # loading cannot be told to end
        orders.put(None)
        sender.join(1.0)
        how = engine.end()
        sender.join()
        self._engine = None
        return hung or how

    def _post(self, engine: RunningEngine, orders: queue.SimpleQueue[Order | None]) -> None:
        """In a thread, because an engine that hangs does not take them: hands it its orders."""
        while (order := orders.get()) is not None:
            number, name, arguments = order
            try:
                packed = ForkingPickler.dumps(arguments)
            except Exception as error:  # a mistake of whoever ordered it
                log.exception("an order could not be sent")
                what = f"{name}: its arguments cannot be handed to the model's process ({error})"
                self._hear(number, "error", UnavailableError(what))
                continue
            try:
                engine.connection.send((number, name))
                engine.connection.send_bytes(packed)
            except OSError:
                return  # its end is heard in the other thread

    def _may_end(self) -> bool:
        """Whether it is time to end the engine; what takes too long is cancelled first."""
        if self._ending is None:
            return False
        with self._lock:
            readings = [pending for pending in self._pending.values() if isinstance(pending, Reading)]
        late = time.monotonic() - self._ending
        if late >= 0:
            for reading in readings:
                reading.cancel()
        return not readings or late >= CUT_SECONDS or self.runtime is None

    def _hear(self, number: int | None, kind: str, value: Any) -> None:
        """A report."""
        if number is None:
            self._hear_of_engine(kind, value)
            return
        over = kind in ("end", "error")
        with self._lock:
            pending = self._pending.get(number)
            if over or (kind == "done" and isinstance(pending, _Awaited)):
                self._pending.pop(number, None)
        if pending is not None:
            self._settle(pending, kind, value)
        if over or kind == "done":
            self._sweep()

    def _hear_of_engine(self, kind: str, value: Any) -> None:
        if kind == "loading":
            with self._lock:
                self.state = value
                self._no_model()
        elif kind == "loaded":
            self._wanted, self.state = value.choice, "ready"
            self._runtime.set_result(value)
        elif kind == "failed":
            self.state = "failed"
            self._runtime.set_exception(value)
        elif kind == "memory":
            with self._lock:
                self._drop(self.conversations.values())

    def _settle(self, pending: _Awaited | Reading[Any], kind: str, value: Any) -> None:
        """Tells whoever waits for it."""
        if isinstance(pending, _Awaited):
            if kind == "error":
                pending.future.set_exception(value)
            else:
                pending.done(value)
            return
        if kind == "begun":
            pending.begun = True
        elif kind == "item":
            pending._tell("item", value)
        elif kind == "done":
            pending.accepted.set_result(None)
        else:
            self._end_reading(pending, kind, value)

    def _end_reading(self, reading: Reading[Any], kind: str, value: Any) -> None:
        refused = kind == "error" and isinstance(reading, Turn) and not reading.accepted.done()
        if reading.cancelled:
            self.counts.stop_seconds.append(time.monotonic() - reading.cancelled_at)
        if isinstance(reading, Turn):
            if kind == "end" and value is not None:
                value = self._answered(reading, *value)
            elif isinstance(value, BusyError):
                self.counts.refused += 1
            elif kind == "error":
                self.counts.turns["failed"] += 1
        self._release(reading.conversation)
        if refused:
            reading.accepted.set_exception(value)
        else:
            reading._tell(kind, value)

    def _answered(self, turn: Turn, answer: Answer, state: Any) -> Answer:
        """Writes an answer into the books."""
        conversation = turn.conversation
        conversation.keep(state)
        self.counts.count(answer)
        if answer.finish != "calls" and (answer.token_ids or answer.finish != "stopped"):
            asked = _last_question(conversation.messages)
            shown = tuple(part.clip for part in asked.media)
            words = asked.text if turn.question is None else turn.question
            conversation.exchanges.append(Exchange(words, shown, answer))
        return answer

    def _close(self, conversation: Conversation) -> None:
        """Called from any thread."""
        with self._lock:
            readings = [pending for pending in self._pending.values() if isinstance(pending, Reading)]
            known = self.conversations.pop(conversation.id, None)
            conversation.forgotten()
            if self._outbox is not None:
                self._outbox.put((0, "drop", ([conversation.id],)))
        for reading in readings:
            if reading.conversation is conversation:
                reading.cancel()
        if known is not None and self.closed is not None:
            try:
                self.closed(conversation.id)
            except Exception:  # not the worker's: it goes on with all others
                log.exception("what follows the end of a conversation failed")

    def _drop(self, conversations: Iterable[Conversation]) -> None:
        """Under the lock: drops the sessions of those that are idle, or closed."""
        idle = [one for one in conversations if one.held and (not one.users or one.id not in self.conversations)]
        for conversation in idle:
            conversation.forgotten()
            self.counts.dropped_caches += 1
        if idle and self._outbox is not None:
            self._outbox.put((0, "drop", ([conversation.id for conversation in idle],)))

    def _sweep(self) -> None:
        """Closes conversations that were left, and keeps the memory of the others under its budget."""
        now, held, runtime = self._clock(), self.memory_bytes, self.runtime
        allowed = held if runtime is None else runtime.idle_bytes(self.limits)
        if self._swept <= now < self._swept + SWEEP_SECONDS and held <= allowed:
            return
        self._swept = now
        idle = sorted((c for c in list(self.conversations.values()) if not c.users), key=lambda c: c.used_at)
        for conversation in idle:
            if conversation.used_at + self.limits.idle_seconds < now:
                self._close(conversation)
        for conversation in idle:
            if held <= allowed:
                break
            held -= conversation.memory_bytes
            self.drop(conversation)


def _uncancellable() -> Future[Any]:
    """A future that outlives those who wait for it."""
    future: Future[Any] = Future()
    future.set_running_or_notify_cancel()
    return future


def _last_question(messages: Sequence[Message]) -> Message:
    """The last one that was answered."""
    last = max(i for i, message in enumerate(messages) if message.role == "assistant")
    return next(message for message in reversed(messages[:last]) if message.role == "user")

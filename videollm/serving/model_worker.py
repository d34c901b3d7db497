"""One thread owns the model and every conversation with it; pages and routes ask it and await.

* Decoding files happens in `media`'s limited process, a few at a time, before a question waits for the model.
* A question waits in a bounded queue and is refused with `BusyError` where that is full. Some are answered at once, a
  word of each in turn, so that a long answer does not keep a short one waiting.
* A reader who goes away ends the work: at the next token nothing of it is left.
* A conversation that is idle keeps its words and files; its decoded clips, features and key/value cache may be dropped,
  least recently used first, to keep all of them under one budget, and are computed again when it goes on. The same
  happens to all conversations when another model is loaded.

Everything that touches a `ChatSession` runs on the worker's thread; the rest of this file runs on an event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import queue
import secrets
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Generic, Literal, Self, TypeVar

import torch

from videollm.chat.session import Answer, AnswerStream, ChatSession, ClipCoverage
from videollm.clips import Clip
from videollm.errors import (
    BusyError,
    ChatError,
    ConfigError,
    NotYoursError,
    UnavailableError,
    VideoLLMError,
)
from videollm.media.decode_worker import open_clip
from videollm.media.sampling import FrameSampling, SoundSampling
from videollm.media.source import Limits
from videollm.messages import Message, TextPart
from videollm.models import hub

T = TypeVar("T")
log = logging.getLogger(__name__)

SWEEP_SECONDS = 5.0
"""How often idle conversations are looked for."""


@dataclass(frozen=True)
class ModelChoice:
    """A model, and how to load it.

    Attributes:
        model: a name or a folder, as for `videollm.models.hub.load`.
        bits: 4 or 8: quantise the decoder; None: full precision.
        device: None: the best there is.
    """

    model: str = "tiny"
    bits: int | None = None
    device: str | None = None

    @property
    def name(self) -> str:
        """What people see: never a path of this machine."""
        return Path(self.model).name or self.model

    @property
    def precision(self) -> str:
        return "full precision" if self.bits is None else f"{self.bits}-bit"


@dataclass(frozen=True)
class WorkerLimits:
    """What a worker takes on.

    Attributes:
        waiting: questions that wait; one more is refused.
        at_once: questions that are answered at the same time.
        conversations: open ones; one more is refused.
        clips: in one conversation.
        idle_seconds: a conversation that was not used for so long is closed.
        memory_bytes: clips, features and key/value caches of all conversations that are idle.
        decoding: files decoded at the same time.
        undecoded: files that wait for that; one more is refused.
        new_tokens: of one answer, whatever is asked for.
        frames: looked at of one clip, whatever is asked for.
        media: what one file may cost.
    """

    waiting: int = 32
    at_once: int = 4
    conversations: int = 256
    clips: int = 16
    idle_seconds: float = 3600.0
    memory_bytes: int = 2 * 1024**3
    decoding: int = 2
    undecoded: int = 32
    new_tokens: int = 1024
    frames: int = 128
    media: Limits = field(
        default_factory=lambda: Limits(
            file_bytes=512 * 1024**2, pixel_bytes=64 * 1024**2, sound_bytes=64 * 1024**2, duration_seconds=2 * 3600.0,
            wall_seconds=30.0, cpu_seconds=30.0,
        )
    )  # fmt: skip


@dataclass(frozen=True)
class Runtime:
    """A loaded model."""

    choice: ModelChoice
    model: Any
    processor: Any

    @property
    def hears(self) -> bool:
        return self.model.config.audio_config is not None

    @property
    def notice(self) -> str | None:
        """What its model card says first: what the model is for, and what it does not know."""
        with contextlib.suppress(VideoLLMError, OSError, UnicodeDecodeError):
            card = (hub.find(self.choice.model) / "MODEL_CARD.md").read_text("utf-8")
            paragraphs = [" ".join(paragraph.split()) for paragraph in card.split("\n\n")]
            return next((words for words in paragraphs if words and not words.startswith(("#", "---"))), None)
        return None

    @property
    def most_frames(self) -> int:
        """Of one clip."""
        return int(self.model.config.max_frame_positions)

    @property
    def usual_frames(self) -> int:
        """How many frames of a clip it looks at, at most, if not told otherwise."""
        sampling = FrameSampling(**self.processor.frame_sampling)
        return sampling.max_frames if sampling.strategy == "rate" else sampling.frames

    @property
    def sound_sampling(self) -> SoundSampling | None:
        """Which stretches of a sound it listens to; None: it has no ear."""
        return SoundSampling(**self.processor.sound_sampling) if self.hears else None

    def frame_sampling(self, frames: int | None) -> FrameSampling:
        """Which frames of a clip it looks at; ``frames`` of them at most."""
        sampling = FrameSampling(**self.processor.frame_sampling)
        return sampling if frames is None else replace(sampling, max_frames=frames, frames=frames)


@dataclass(frozen=True)
class Exchange:
    """A question that was answered, and the clips that were shown with it."""

    question: str
    clips: tuple[str, ...]
    answer: Answer


class Conversation:
    """What a worker keeps of one conversation. Its `ChatSession` may be dropped; the rest is enough to make it anew."""

    def __init__(self, conversation_id: str, now: float) -> None:
        self.id = conversation_id
        self.files: dict[str, Path] = {}
        self.exchanges: list[Exchange] = []
        self.frames: int | None = None
        self.used_at = now
        self.users = 0
        """How many questions and decodings are under way: while there are any, nothing of it is dropped."""
        self.chat: ChatSession | None = None
        self.runtime: Runtime | None = None
        self.reviving = asyncio.Lock()
        self._messages: tuple[Message, ...] = ()

    # All of the following run on the worker's thread.

    @property
    def memory_bytes(self) -> int:
        return 0 if self.chat is None else self.chat.memory_bytes

    @property
    def coverage(self) -> tuple[ClipCoverage, ...]:
        """For each clip, what of it the model is shown."""
        return self.session.coverage

    @property
    def messages(self) -> tuple[Message, ...]:
        return self._messages if self.chat is None else self.chat.messages

    @property
    def session(self) -> ChatSession:
        """Raises UnavailableError: another model was loaded since."""
        if self.chat is None:
            raise UnavailableError("the model was changed in the meantime; try again")
        return self.chat

    def drop(self) -> None:
        """Gives back all memory but that of the words."""
        if self.chat is not None:
            self._messages, self.chat = self.chat.messages, None

    def revive(self, runtime: Runtime, clips: list[Clip]) -> ChatSession:
        """Makes the session anew, for this model."""
        self.drop()
        messages = self._messages
        if runtime is not self.runtime:  # ids of one tokenizer are other words in another
            messages = tuple(_without_ids(message) for message in messages)
        chat = ChatSession(runtime.model, runtime.processor)
        for clip in clips:
            chat.add(clip, clip.name)
        if messages:
            chat.messages = messages
        self.chat, self.runtime = chat, runtime
        return chat

    def undo(self) -> str | None:
        """Takes back the last question, and returns it."""
        question = self.session.undo()
        if question is not None and self.exchanges:
            self.exchanges.pop()
        return question

    def clear(self) -> None:
        self.session.clear()
        self.files.clear()
        self.exchanges.clear()

    def begin_with(self, messages: tuple[Message, ...]) -> None:
        """Sets what was said before, e.g. by a client that keeps conversations itself."""
        self.session.messages = messages

    def transcript(self) -> dict[str, Any]:
        """Plain data, ready for `json.dumps`."""
        return {
            "clips": list(self.files),
            "turns": [
                {"question": one.question, "clips": list(one.clips), **one.answer.to_json()} for one in self.exchanges
            ],
        }


def _without_ids(message: Message) -> Message:
    parts = (replace(part, token_ids=None) if isinstance(part, TextPart) else part for part in message.parts)
    return replace(message, parts=tuple(parts))


class Reading(Generic[T]):
    """Work on its way, for one reader: iterate for what comes of it.

    Whoever stops reading calls `cancel`, or uses ``async with``.
    """

    def __init__(self, conversation: Conversation | None) -> None:
        self.conversation = conversation
        self.cancelled = False
        self._loop = asyncio.get_running_loop()
        self._events: deque[tuple[str, Any]] = deque()
        self._news = asyncio.Event()

    def cancel(self) -> None:
        """Ends the work after its present step; callable from any thread, any number of times."""
        self.cancelled = True

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.cancel()

    async def __aiter__(self) -> AsyncIterator[T]:
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

    # On the worker's thread.

    def _tell(self, kind: Literal["item", "error", "end"], event: Any) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody listens any more
            self._loop.call_soon_threadsafe(self._heard, kind, event)

    def _heard(self, kind: str, event: Any) -> None:
        self._events.append((kind, event))
        self._news.set()


class Turn(Reading[str]):
    """A question on its way. Iterate for the words of the answer; ``answer`` holds the whole afterwards."""

    conversation: Conversation

    def __init__(self, conversation: Conversation, question: str, options: Mapping[str, Any]) -> None:
        super().__init__(conversation)
        self.question, self.options = question, dict(options)
        self.answer: Answer | None = None
        self.asked_at = time.monotonic()
        self._stream: AnswerStream | None = None

    def cancel(self) -> None:
        super().cancel()
        chat = self.conversation.chat
        if self._stream is not None and chat is not None:
            chat.stop()

    def more(self) -> str:
        """The words that have come in the meantime, for readers who cannot show each of them at once."""
        words = ""
        while self._events and self._events[0][0] == "item":
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

    def __init__(
        self, conversation: Conversation | None, function: Callable[..., Iterator[Any]], arguments: tuple[Any, ...]
    ) -> None:
        super().__init__(conversation)
        self.function, self.arguments = function, arguments
        self._steps: Iterator[Any] | None = None


@dataclass
class Counts:
    """What a worker has done since it started, for `/metrics`."""

    turns: dict[str, int] = field(default_factory=lambda: dict.fromkeys(("end", "length", "stopped", "failed"), 0))
    refused: int = 0
    prompt_tokens: int = 0
    reused_tokens: int = 0
    generated_tokens: int = 0
    dropped_caches: int = 0
    first_word_seconds: deque[float] = field(default_factory=lambda: deque(maxlen=1000))


class ModelWorker:
    """Loads a model and answers questions about clips, for any number of conversations.

    Args:
        choice: the model to begin with.
        limits: what it takes on.
        load: makes a model and its processor of a choice; may tell, in a few words, what it is about to do.
        clock: seconds that only grow.
        closed: called, on the worker's thread, with the id of each conversation that is closed.
    """

    def __init__(
        self,
        choice: ModelChoice | None = None,
        limits: WorkerLimits | None = None,
        *,
        load: Callable[[ModelChoice, Callable[[str], None]], tuple[Any, Any]] | None = None,
        clock: Callable[[], float] = time.monotonic,
        closed: Callable[[str], None] | None = None,
    ) -> None:
        self.limits = WorkerLimits() if limits is None else limits
        self.counts = Counts()
        self.closed = closed
        self.conversations: dict[str, Conversation] = {}
        self.state = "starting"
        """A few words for people: what the worker is doing with its model."""
        self._load_choice = _load if load is None else load
        self._clock = clock
        self._jobs: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._waiting: deque[Turn | Errand] = deque()
        self._active: list[Turn | Errand] = []
        self._queued = 0  # turns asked and not ended; changed on the loop's thread and the worker's, under the lock
        self._opening = 0
        self._lock = threading.Lock()
        self._ending: float | None = None
        self._swept = clock()
        self._wanted = ModelChoice() if choice is None else choice
        self._runtime = _uncancellable()
        self._decoders = ThreadPoolExecutor(self.limits.decoding, thread_name_prefix="decode")
        self._thread = threading.Thread(target=self._work, name="model-worker", daemon=True)

    # -- life ------------------------------------------------------------------------------------------------------

    def start(self) -> ModelWorker:
        """Begins to load the model, and returns at once."""
        self._thread.start()
        self._jobs.put(functools.partial(self._load, self._wanted))
        return self

    def close(self, grace_seconds: float = 5.0) -> None:
        """Refuses new questions, lets those under way end for so long, stops them, and ends the thread."""
        if not self._thread.is_alive():
            return
        self._ending = time.monotonic() + grace_seconds
        self._jobs.put(lambda: None)
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

    async def switch(self, choice: ModelChoice) -> Runtime:
        """Loads another model when the answers under way are done; conversations go on with it.

        Raises:
            VideoLLMError: it cannot be loaded; the one before is there again.
        """
        self._refuse_when_ending()
        if self.runtime is not None and self.runtime.choice == choice:
            return self.runtime
        return await asyncio.shield(self._submit(lambda: self._switch(choice)))

    # -- conversations ---------------------------------------------------------------------------------------------

    def open(self) -> Conversation:
        """Begins a conversation. Its id is a secret between it and who opened it.

        Raises:
            BusyError: there are too many.
        """
        self._refuse_when_ending()
        with self._lock:
            if len(self.conversations) >= self.limits.conversations:
                raise BusyError(
                    f"{len(self.conversations)} conversations are open, which is the limit; try again later"
                )
            conversation = Conversation(secrets.token_urlsafe(24), self._clock())
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
        await self._submit(lambda: self._close(conversation))

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
        with self._used(conversation):
            await self._revived(conversation)
            clip = await self._decode(path, name, conversation.frames)

            def join() -> Clip:
                known = conversation.session.add(clip)
                conversation.files[known.name] = path
                return known

            return await self._submit(join)

    async def ask(self, conversation: Conversation, question: str, **options: Any) -> Turn:
        """Puts a question into the queue.

        Args:
            options: fields of `videollm.chat.generation.GenerationOptions`.

        Raises:
            BusyError: the queue is full.
            VideoLLMError: the model cannot be loaded, or a clip not be read again.
        """
        self._queue(conversation)
        try:
            await self._revived(conversation)
            # Over the ceiling is cut, not refused: clients ask for round numbers.
            asked = options.get("max_new_tokens")
            if isinstance(asked, int):
                options["max_new_tokens"] = min(asked, self.limits.new_tokens)
            turn = Turn(conversation, question, options)
        except BaseException:
            self._release(conversation)
            raise
        self._jobs.put(lambda: self._waiting.append(turn))
        return turn

    def run(
        self, function: Callable[..., Iterator[Any]], *arguments: Any, conversation: Conversation | None = None
    ) -> Errand:
        """Does other work on the model: puts it into the queue, as a question.

        Args:
            function: of a module, so that it can be named to another process; called as
                ``function(runtime, *arguments)``. An iterator: between two of its items answers and the work of others
                go on. Items are plain data, or arrays; None is not handed on and only lets others go on.
            arguments: as the items: never of torch.
            conversation: one whose files it reads; it is not closed, and its memory not taken, meanwhile.

        Returns:
            what to iterate over; it raises what the function raises, and UnavailableError for what is no error of ours.

        Raises:
            BusyError: the queue is full.
        """
        errand = Errand(conversation, function, arguments)
        self._queue(conversation)
        self._jobs.put(lambda: self._waiting.append(errand))
        return errand

    async def undo(self, conversation: Conversation) -> str | None:
        """Takes back the last question, and returns it. Raises ChatError: it is still answering."""
        return await self.call(conversation, Conversation.undo)

    async def begin_with(self, conversation: Conversation, messages: tuple[Message, ...]) -> None:
        """Sets what was said before, e.g. by a client that keeps conversations itself."""
        await self.call(conversation, lambda known: known.begin_with(messages))

    async def clear(self, conversation: Conversation) -> None:
        """Forgets all questions and files."""
        await self.call(conversation, Conversation.clear)

    async def clips(self, conversation: Conversation) -> dict[str, Clip]:
        """Its clips by name, as the model is shown them."""
        return await self.call(conversation, lambda known: dict(known.session.clips))

    async def call(self, conversation: Conversation, work: Callable[[Conversation], T]) -> T:
        """Runs something about an idle conversation on the worker's thread: `Conversation.undo`, for example.

        Raises:
            ChatError: it is still answering.
        """
        with self._used(conversation):
            await self._revived(conversation)
            return await self._submit(lambda: work(conversation))

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
        await self._submit(conversation.drop)

    @property
    def queue_length(self) -> int:
        """Questions that wait."""
        return len(self._waiting)

    @property
    def answering(self) -> int:
        """Questions that are being answered."""
        return len(self._active)

    @property
    def memory_bytes(self) -> int:
        """Of the clips, features and caches of all conversations."""
        return sum(conversation.memory_bytes for conversation in list(self.conversations.values()))

    # -- on the loop -----------------------------------------------------------------------------------------------

    def _refuse_when_ending(self) -> None:
        if self._ending is not None or not self._thread.is_alive():
            raise UnavailableError("the service is shutting down; start it again")

    def _queue(self, conversation: Conversation | None) -> None:
        """Takes a place in the queue.

        Raises:
            BusyError: there is none.
        """
        self._refuse_when_ending()
        with self._lock:
            if self._queued >= self.limits.waiting + self.limits.at_once:
                self.counts.refused += 1
                raise BusyError(
                    f"{self._queued} questions are being answered or wait, which is the limit; ask again later"
                )
            self._queued += 1
            if conversation is not None:
                conversation.users += 1

    def _submit(self, work: Callable[[], T]) -> Awaitable[T]:
        """Runs something on the worker's thread."""
        future: Future[T] = Future()

        def run() -> None:
            if not future.set_running_or_notify_cancel():
                return  # whoever asked went away
            try:
                future.set_result(work())
            except BaseException as error:
                future.set_exception(error)

        self._jobs.put(run)
        return asyncio.wrap_future(future)

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

    async def _revived(self, conversation: Conversation) -> None:
        """Sees to it that the conversation has a session for the model that is loaded."""
        async with conversation.reviving:
            runtime = await self.ready()
            if conversation.chat is not None and conversation.runtime is runtime:
                return
            clips = [await self._decode(path, name, conversation.frames) for name, path in conversation.files.items()]
            await self._submit(lambda: conversation.revive(runtime, clips))

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

    def _release(self, conversation: Conversation | None) -> None:
        with self._lock:
            self._queued -= 1
            if conversation is not None:
                conversation.users -= 1
                conversation.used_at = self._clock()

    # -- on the worker's thread ------------------------------------------------------------------------------------

    def _work(self) -> None:
        while True:
            self._run_jobs(wait=not self._active and not self._waiting)
            self._admit()
            for turn in list(self._active):
                self._advance(turn)
            self._sweep()
            if self._ending is not None:
                if time.monotonic() >= self._ending:
                    for turn in (*self._waiting, *self._active):
                        turn.cancel()
                if not self._waiting and not self._active and self._jobs.empty():
                    return

    def _run_jobs(self, *, wait: bool) -> None:
        """Runs what was asked for; waits for something to do where there is nothing."""
        with contextlib.suppress(queue.Empty):
            if wait:
                self._jobs.get(timeout=0.1 if self._ending is not None else SWEEP_SECONDS)()
            while True:
                self._jobs.get_nowait()()

    def _admit(self) -> None:
        """Begins what waits, oldest first."""
        while self._waiting and len(self._active) < self.limits.at_once:
            work = self._waiting.popleft()
            if work.cancelled:
                self._leave(work, "end", None)
                continue
            try:
                if isinstance(work, Turn):
                    self._begin(work)
            except VideoLLMError as error:
                self._leave(work, "error", error)
                continue
            self._active.append(work)

    def _begin(self, turn: Turn) -> None:
        chat = turn.conversation.chat
        if chat is None or turn.conversation.runtime is not self.runtime:
            raise UnavailableError("the model was changed in the meantime; ask again")
        turn._stream = chat.stream(turn.question, **turn.options)
        if turn.cancelled:  # while the stream was made
            chat.stop()

    def _advance(self, work: Turn | Errand) -> None:
        """Computes the next word of an answer, or the next item of other work."""
        try:
            item = self._next_word(work) if isinstance(work, Turn) else self._next_item(work)
            if item is not None:
                work._tell("item", item)
            return
        except StopIteration as ended:
            self._active.remove(work)
            self._leave(work, "end", ended.value)
            return
        except VideoLLMError as error:
            outcome = error
        except (MemoryError, torch.OutOfMemoryError):
            for conversation in self.conversations.values():
                if not conversation.users:
                    conversation.drop()
            outcome = UnavailableError("memory ran out over this question; ask again, or with fewer clips or frames")
        except Exception:
            log.exception("an answer failed")
            outcome = UnavailableError("the answer failed in an unexpected way, which was logged; ask again")
        self._active.remove(work)
        self._leave(work, "error", outcome)

    def _next_word(self, turn: Turn) -> str:
        """Raises StopIteration, with the answer."""
        chat = turn.conversation.chat
        assert chat is not None and turn._stream is not None
        try:
            return next(turn._stream)
        except StopIteration:
            answer = chat.last
            assert answer is not None
            if answer.token_ids or answer.finish != "stopped":
                shown = tuple(part.clip for part in chat.messages[_last_question(chat)].media)
                turn.conversation.exchanges.append(Exchange(turn.question, shown, answer))
            self._count(answer)
            raise StopIteration(answer) from None

    def _next_item(self, errand: Errand) -> Any:
        """Raises StopIteration."""
        if errand._steps is None:
            runtime = self._runtime.result()  # raises what kept it from being loaded
            errand._steps = iter(errand.function(runtime, *errand.arguments))
        if errand.cancelled:
            getattr(errand._steps, "close", lambda: None)()
            raise StopIteration
        return next(errand._steps)

    def _leave(self, work: Turn | Errand, kind: Literal["end", "error"], outcome: Any) -> None:
        if isinstance(work, Turn):
            work._stream = None
            self.counts.turns["failed"] += kind == "error"
        else:
            work._steps = None
        self._release(work.conversation)
        work._tell(kind, outcome)

    def _count(self, answer: Answer) -> None:
        counts, timings = self.counts, answer.timings
        counts.turns[answer.finish] += 1
        counts.prompt_tokens += timings.prompt_tokens
        counts.reused_tokens += timings.reused_tokens
        counts.generated_tokens += timings.generated_tokens
        if timings.first_word_seconds is not None:
            counts.first_word_seconds.append(timings.first_word_seconds)

    def _close(self, conversation: Conversation) -> None:
        for work in (*self._waiting, *self._active):
            if work.conversation is conversation:
                work.cancel()
        with self._lock:
            known = self.conversations.pop(conversation.id, None)
        if known is not None and self.closed is not None:
            self.closed(conversation.id)

    def _sweep(self) -> None:
        """Closes conversations that were left, and keeps the memory of the others under its budget."""
        now = self._clock()
        if self._swept <= now < self._swept + SWEEP_SECONDS and self._active:
            return
        self._swept = now
        idle = sorted((c for c in self.conversations.values() if not c.users), key=lambda c: c.used_at)
        for conversation in idle:
            if conversation.used_at + self.limits.idle_seconds < now:
                self._close(conversation)
        held = self.memory_bytes
        for conversation in idle:
            if held <= self.limits.memory_bytes:
                break
            if conversation.chat is not None:
                held -= conversation.memory_bytes
                conversation.drop()
                self.counts.dropped_caches += 1

    # -- models ----------------------------------------------------------------------------------------------------

    def _load(self, choice: ModelChoice) -> None:
        self.state = f"loading {choice.name}"
        future = self._runtime
        try:
            future.set_result(Runtime(choice, *self._load_choice(choice, self._tell_state)))
            self.state = "ready"
        except VideoLLMError as error:
            self.state = "failed"
            future.set_exception(error)
        except Exception as error:
            log.exception("the model could not be loaded")
            self.state = "failed"
            future.set_exception(
                UnavailableError(f"the model could not be loaded ({type(error).__name__}); see the log")
            )

    def _tell_state(self, words: str) -> None:
        self.state = words

    def _switch(self, choice: ModelChoice) -> Runtime:
        while self._waiting or self._active:
            self._admit()
            for turn in list(self._active):
                self._advance(turn)
        before = self.runtime
        for conversation in self.conversations.values():
            conversation.drop()
            conversation.runtime = None  # the model before must not be kept by it
        self._runtime = _uncancellable()  # both do not fit: the one before goes first
        previous = None if before is None else before.choice
        before = None
        self._load(choice)
        failure = self._runtime.exception()
        if failure is not None and previous is not None:
            self._runtime = _uncancellable()
            self._load(previous)
        if failure is not None:
            raise failure
        return self._runtime.result()


def _uncancellable() -> Future[Runtime]:
    """A future that outlives those who wait for it."""
    future: Future[Runtime] = Future()
    future.set_running_or_notify_cancel()
    return future


def _last_question(chat: ChatSession) -> int:
    """Where in its messages the last answered question stands."""
    return max(i for i, message in enumerate(chat.messages) if message.role == "assistant") - 1


def _load(choice: ModelChoice, tell: Callable[[str], None]) -> tuple[Any, Any]:
    return hub.load(
        choice.model,
        bits=choice.bits,
        device=choice.device,
        announce=lambda plan: tell(f"loading {choice.name}, which takes {plan.total_bytes / 2**30:.1f} GiB"),
    )

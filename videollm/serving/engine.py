"""The model, every conversation with it, and the loop in which all that is asked of it goes on in turn.

An engine runs in a process of its own, or in a thread; whoever started it holds the other end of its connection
(`videollm.serving.model_worker`). Orders come in, each a number, a name and arguments; reports go out, of an order (its
number), or of the engine (None). Only plain data and arrays go over it, never a tensor.

In one round of the loop one prompt is read a part further, all answers under way take a step together, and other work
takes one step: neither a long prompt nor a long answer holds up the others.
"""

from __future__ import annotations

import contextlib
import logging
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Literal
from weakref import WeakValueDictionary

import torch

from videollm.chat.cache import EncodedMedia
from videollm.chat.generation import Step, Stepper
from videollm.chat.session import AnswerStream, ChatSession, ClipCoverage
from videollm.clips import Clip
from videollm.errors import BusyError, UnavailableError, VideoLLMError
from videollm.media.sampling import FrameSampling, SoundSampling
from videollm.media.source import Limits
from videollm.messages import Message, ToolCallPart, ToolResultPart
from videollm.models import hub
from videollm.models.memory import free_bytes, give_memory_back, token_cache_bytes
from videollm.moments.embed import SightEncoder, load_sight_encoder
from videollm.tools.router import Router, ToolLimits

log = logging.getLogger(__name__)

Order = tuple[int, str, tuple[Any, ...]]
ReportKind = Literal["done", "error", "begun", "item", "end", "loading", "loaded", "failed", "memory", "alive"]
Report = tuple[int | None, ReportKind, Any]

ORDERS = frozenset(("load", "open", "add", "undo", "clear", "begin_with", "drop", "ask", "run", "refuse"))
UNKNOWN_FREE_BYTES = 8 * 2**30
"""Of a device that does not tell."""
TRIM_SECONDS = 5.0
"""How often the memory of what was dropped is given back to the system, at most."""
LEAST_IDLE_BYTES = 256 * 2**20
"""Of conversations that are idle: some eighty clips."""
BEAT_SECONDS = 1.0
"""How often an engine says that it is alive, at least, while nothing that it computes takes longer."""


@dataclass(frozen=True)
class ModelChoice:
    """A model, and how to load it.

    Attributes:
        model: a name or a folder, as for `videollm.models.hub.load`.
        bits: 4 or 8: quantise the decoder; None: full precision.
        device: None: the best there is.
        encoder: a dual encoder, loaded beside it, by which videos are searched; None: by words alone.
    """

    model: str = "tiny"
    bits: int | None = None
    device: str | None = None
    encoder: str | None = None

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
        working_tokens: positions of the prompts and longest answers of all questions that are answered or wait. One
            that would exceed it is refused, unless it is alone.
        working_bytes: what their keys and values may take; None: half of what is free when the model is loaded.
        conversations: open ones; one more is refused.
        clips: in one conversation.
        idle_seconds: a conversation that was not used for so long is closed.
        memory_bytes: clips, features and key/value caches of all conversations that are idle; None: eight full contexts
            of the model, 256 MiB at least, but no more than a quarter of what is free when it is loaded.
        decoding: files decoded at the same time.
        undecoded: files that wait for that; one more is refused.
        new_tokens: of one answer, whatever is asked for.
        frames: looked at of one clip, whatever is asked for.
        tool_seconds: a call of a tool ends then; the first search of a long video looks through all of it.
        silent_seconds: a model's process that says nothing for so long is ended, and started again.
        loading_seconds: the same, while it loads a model.
        media: what one file may cost.
    """

    waiting: int = 32
    at_once: int = 16
    working_tokens: int = 256 * 1024
    working_bytes: int | None = None
    conversations: int = 256
    clips: int = 16
    idle_seconds: float = 3600.0
    memory_bytes: int | None = None
    decoding: int = 2
    undecoded: int = 32
    new_tokens: int = 1024
    frames: int = 128
    tool_seconds: float = 300.0
    silent_seconds: float = 120.0
    loading_seconds: float = 1800.0
    media: Limits = field(
        default_factory=lambda: Limits(
            file_bytes=512 * 1024**2, pixel_bytes=64 * 1024**2, sound_bytes=64 * 1024**2, duration_seconds=2 * 3600.0,
            wall_seconds=30.0, cpu_seconds=30.0,
        )
    )  # fmt: skip


@dataclass(frozen=True)
class Runtime:
    """A loaded model, as it is known to everybody: plain data.

    Attributes:
        choice: what was loaded.
        hears: whether it has an ear.
        calls_tools: whether it calls tools by itself; others can choose one, if they are asked to.
        notice: what its model card says first: what the model is for, and what it does not know.
        most_frames: of one clip.
        context_tokens: how many positions a conversation may have.
        token_bytes: of the keys and values of one position.
        free_bytes: what was free on its device when it was loaded.
        usual_sampling: which frames of a clip it looks at, if not told otherwise.
        sound_sampling: which stretches of a sound it listens to; None: it has no ear.
        encoder: name and numbers in a vector of the dual encoder beside it; None: there is none.
    """

    choice: ModelChoice
    hears: bool
    calls_tools: bool
    notice: str | None
    most_frames: int
    context_tokens: int
    token_bytes: int
    free_bytes: int
    usual_sampling: FrameSampling
    sound_sampling: SoundSampling | None
    encoder: tuple[str, int] | None

    def idle_bytes(self, limits: WorkerLimits) -> int:
        """What conversations that are idle may hold."""
        if limits.memory_bytes is not None:
            return limits.memory_bytes
        return min(max(LEAST_IDLE_BYTES, 8 * self.context_tokens * self.token_bytes), self.free_bytes // 4)

    def working_bytes(self, limits: WorkerLimits) -> int:
        """What keys and values of questions that are admitted may take."""
        return self.free_bytes // 2 if limits.working_bytes is None else limits.working_bytes

    @property
    def usual_frames(self) -> int:
        """How many frames of a clip it looks at, at most, if not told otherwise."""
        sampling = self.usual_sampling
        return sampling.max_frames if sampling.strategy == "rate" else sampling.frames

    def frame_sampling(self, frames: int | None) -> FrameSampling:
        """Which frames of a clip it looks at; ``frames`` of them at most."""
        return self.usual_sampling if frames is None else replace(self.usual_sampling, max_frames=frames, frames=frames)


@dataclass(frozen=True)
class LiveRuntime(Runtime):
    """A loaded model where it is: what `ModelWorker.run` gives a function."""

    model: Any
    processor: Any
    sight: SightEncoder | None = None

    @classmethod
    def of(cls, choice: ModelChoice, model: Any, processor: Any) -> LiveRuntime:
        hears = model.config.audio_config is not None
        sight = None if choice.encoder is None else load_sight_encoder(choice.encoder, choice.device)
        return cls(
            choice=choice,
            hears=hears,
            calls_tools=bool(processor.calls_tools),
            notice=_notice(choice),
            most_frames=int(model.config.max_frame_positions),
            context_tokens=int(model.config.text_config.max_position_embeddings),
            token_bytes=token_cache_bytes(model.config.text_config, model.dtype.itemsize),
            free_bytes=free_bytes(model.device) or UNKNOWN_FREE_BYTES,
            usual_sampling=FrameSampling(**processor.frame_sampling),
            sound_sampling=SoundSampling(**processor.sound_sampling) if hears else None,
            encoder=None if sight is None else (sight.name, sight.width),
            model=model,
            processor=processor,
            sight=sight,
        )

    @property
    def facts(self) -> Runtime:
        """Without the model."""
        return Runtime(**{known.name: getattr(self, known.name) for known in fields(Runtime)})


def _notice(choice: ModelChoice) -> str | None:
    with contextlib.suppress(VideoLLMError, OSError, UnicodeDecodeError):
        card = (hub.find(choice.model) / "MODEL_CARD.md").read_text("utf-8")
        paragraphs = [" ".join(paragraph.split()) for paragraph in card.split("\n\n")]
        return next((words for words in paragraphs if words and not words.startswith(("#", "---"))), None)
    return None


Load = Callable[[ModelChoice, Callable[[str], None]], tuple[Any, Any]]
"""Makes a model and its processor of a choice; may tell, in a few words, what it is about to do."""


def load_choice(choice: ModelChoice, tell: Callable[[str], None]) -> tuple[Any, Any]:
    """Loads a model by its name or folder."""
    return hub.load(
        choice.model,
        bits=choice.bits,
        device=choice.device,
        announce=lambda plan: tell(f"loading {choice.name}, which takes {plan.total_bytes / 2**30:.1f} GiB"),
    )


@dataclass(eq=False)
class _Turn:
    """A question that was admitted."""

    number: int
    session: ChatSession
    stream: AnswerStream
    tokens: int
    """Positions that it takes at most."""
    step: Step | None = None
    """What it waits for; None: its prompt is being read, or a tool is at work."""
    calling: bool = False
    """Whether a tool is at work."""


@dataclass(eq=False)
class _Errand:
    """Other work: a function that was called with the model, step by step."""

    number: int
    steps: Iterator[Any]


class Engine:
    """Does what is ordered, until its connection ends.

    Args:
        connection: to whoever started it.
        load: how models are made.
        limits: ``at_once``, ``working_tokens`` and ``working_bytes`` are kept here.
        left: called in a thread when the other end was closed, whatever the engine is doing.
    """

    def __init__(
        self, connection: Connection, load: Load, limits: WorkerLimits, left: Callable[[], None] = lambda: None
    ) -> None:
        self._connection, self._load_choice, self._limits, self._left = connection, load, limits, left
        self._orders: queue.SimpleQueue[Order | None] = queue.SimpleQueue()
        self._cancelled: set[int] = set()
        self._runtime: LiveRuntime | None = None
        self._stepper: Stepper | None = None
        self._tools: Router | None = None
        self._sessions: dict[str, ChatSession] = {}
        self._circles: dict[str, WeakValueDictionary[str, torch.Tensor]] = {}
        self._waiting: deque[_Turn | _Errand] = deque()
        self._active: list[_Turn | _Errand] = []
        self._rounds = 0
        self._beaten = self._trimmed = 0.0

    def work(self) -> None:
        """Returns when the other end of the connection is closed."""
        threading.Thread(target=self._receive, name="engine-orders", daemon=True).start()
        try:
            while self._obey(wait=not self._waiting and not self._active):
                self._go_on()
                self._beat()
        except _NobodyListens:
            pass
        finally:
            self._forget_model()
            self._connection.close()

    def _receive(self) -> None:
        """In a thread: takes orders as they come, so that whoever gives them is never kept waiting."""
        with contextlib.suppress(EOFError, OSError):
            while True:
                number, name = self._connection.recv()
                try:
                    arguments = self._connection.recv()
                except (EOFError, OSError):
                    raise
                except Exception as error:  # e.g. a function that is not there
                    name, arguments = "refuse", (error,)
                if name == "cancel":
                    self._cancelled.add(number)
                else:
                    self._orders.put((number, name, arguments))
        self._orders.put(None)
        self._left()

    def _report(self, number: int | None, kind: ReportKind, value: Any = None) -> None:
        try:
            self._connection.send((number, kind, value))
        except OSError:
            raise _NobodyListens from None
        self._beaten = time.monotonic()

    def _beat(self) -> None:
        if time.monotonic() >= self._beaten + BEAT_SECONDS:
            self._report(None, "alive")

    # -- orders ----------------------------------------------------------------------------------------------------

    def _obey(self, *, wait: bool) -> bool:
        """Does what was ordered, waiting a while for something where there is nothing; False at the end."""
        with contextlib.suppress(queue.Empty):
            order = self._orders.get(timeout=BEAT_SECONDS) if wait else self._orders.get_nowait()
            while order is not None:
                self._do(*order)
                order = self._orders.get_nowait()
            return False
        return True

    def _do(self, number: int, name: str, arguments: tuple[Any, ...]) -> None:
        assert name in ORDERS, name
        try:
            done = getattr(self, name)(number, *arguments)
        except Exception as error:
            self._report(number, "error", self._told(error, "it failed"))
        else:
            self._report(number, "done", done)

    def load(self, _: int, choice: ModelChoice) -> None:
        """Loads a model in place of the present one, which comes back if that fails; answers under way end first."""
        while self._waiting or self._active:
            self._go_on()
            self._beat()
        previous = None if self._runtime is None else self._runtime.choice
        # Both do not fit: the one before goes first, with every session that has it.
        self._sessions.clear()
        self._circles.clear()
        self._forget_model()
        try:
            self._load(choice)
        except Exception as error:
            failure = self._told(error, "the model could not be loaded")
            if previous is None:
                self._report(None, "failed", failure)
            else:
                try:
                    self._load(previous)
                except Exception as again:
                    self._report(None, "failed", self._told(again, "the model could not be loaded"))
            raise failure from error

    def _forget_model(self) -> None:
        if self._tools is not None:
            self._tools.close()
        self._runtime = self._stepper = self._tools = None

    def _load(self, choice: ModelChoice) -> None:
        self._report(None, "loading", f"loading {choice.name}")
        runtime = LiveRuntime.of(choice, *self._load_choice(choice, lambda words: self._report(None, "loading", words)))
        self._runtime, self._stepper = runtime, Stepper(runtime.model)
        self._tools = Router.of_model(
            runtime.model,
            runtime.processor,
            limits=ToolLimits(seconds_per_call=self._limits.tool_seconds),
            files_limits=self._limits.media,
            encoder=runtime.sight,
        )
        self._report(None, "loaded", runtime.facts)

    def open(
        self,
        _: int,
        conversation_id: str,
        choice: ModelChoice,
        clips: Sequence[tuple[Clip, Path]],
        messages: tuple[Message, ...],
        circle: str | None,
    ) -> Any:
        """Makes a session, anew if there is one: with these clips, after these words, for this model.

        What was computed of a clip serves all sessions of the circle that have it.
        """
        runtime = self._live()
        if runtime.choice != choice:
            raise UnavailableError("the model was changed in the meantime; ask again")
        shared = None if circle is None else self._circles.setdefault(circle, WeakValueDictionary())
        encoded = EncodedMedia(shared)
        session = ChatSession(runtime.model, runtime.processor, tools=self._tools, calls=False, encoded=encoded)
        for clip, file in clips:
            session.add(clip, clip.name, file=file)
        if messages:
            session.messages = messages
        self._sessions[conversation_id] = session
        return _state(session)

    def add(self, _: int, conversation_id: str, clip: Clip, file: Path) -> tuple[str, Any]:
        """Shows a clip; the name that it gets."""
        session = self._session(conversation_id)
        known = session.add(clip, file=file)
        return known.name, _state(session)

    def undo(self, _: int, conversation_id: str) -> tuple[str | None, Any]:
        session = self._session(conversation_id)
        return session.undo(), _state(session)

    def clear(self, _: int, conversation_id: str) -> Any:
        session = self._session(conversation_id)
        session.clear()
        return _state(session)

    def begin_with(self, _: int, conversation_id: str, messages: tuple[Message, ...]) -> Any:
        session = self._session(conversation_id)
        session.messages = messages
        return _state(session)

    def drop(self, _: int, conversation_ids: Sequence[str]) -> None:
        """Forgets sessions; who holds their words can open them again."""
        for conversation_id in conversation_ids:
            self._sessions.pop(conversation_id, None)
        if conversation_ids and time.monotonic() >= self._trimmed + TRIM_SECONDS:
            give_memory_back()
            self._trimmed = time.monotonic()

    def ask(
        self,
        number: int,
        conversation_id: str,
        question: str | None,
        tools: bool,
        functions: Sequence[dict[str, Any]],
        options: Mapping[str, Any],
    ) -> None:
        """Admits a question, or refuses it; the answer is reported word by word. None: the one that waits goes on."""
        session = self._session(conversation_id)
        before = session.calls, session.functions
        session.calls, session.functions = tools, functions
        try:
            stream = session.go_on(**options) if question is None else session.stream(question, **options)
        except BaseException:
            session.calls, session.functions = before  # it may still be answering
            raise
        try:
            self._admit(stream.most_tokens)
        except BusyError:
            stream.close()
            raise
        self._waiting.append(_Turn(number, session, stream, stream.most_tokens))

    def run(self, number: int, function: Callable[..., Iterator[Any]], arguments: tuple[Any, ...]) -> None:
        """Admits other work; what it yields is reported."""
        self._waiting.append(_Errand(number, iter(function(self._live(), *arguments))))

    def refuse(self, _: int, error: Exception) -> None:
        """For an order that could not be read."""
        raise error

    def _live(self) -> LiveRuntime:
        if self._runtime is None:
            raise UnavailableError("no model is loaded; choose another, or start the service again")
        return self._runtime

    def _session(self, conversation_id: str) -> ChatSession:
        if conversation_id not in self._sessions:
            raise UnavailableError("the model was changed or started again in the meantime; ask again")
        return self._sessions[conversation_id]

    def _admit(self, tokens: int) -> None:
        """Raises BusyError: with so many more positions, what is admitted would exceed a budget."""
        admitted = sum(work.tokens for work in (*self._waiting, *self._active) if isinstance(work, _Turn))
        if not admitted:
            return
        runtime = self._live()
        each = runtime.token_bytes
        room = min(self._limits.working_tokens, runtime.working_bytes(self._limits) // each)
        if admitted + tokens > room:
            raise BusyError(
                f"the question and its answer take up to {tokens} tokens ({_mib(tokens * each)}); {admitted} "
                f"({_mib(admitted * each)}) of {room} ({_mib(room * each)}) are taken by others; ask again later"
            )

    # -- rounds ----------------------------------------------------------------------------------------------------

    def _go_on(self) -> None:
        """One round."""
        for work in [work for work in self._waiting if work.number in self._cancelled]:
            self._waiting.remove(work)
            self._leave(work, "end", None)
        while self._waiting and len(self._active) < self._limits.at_once:
            work = self._waiting.popleft()
            self._active.append(work)
            self._report(work.number, "begun")
        turns = [work for work in self._active if isinstance(work, _Turn)]
        for turn in turns:
            if turn.number in self._cancelled:
                turn.session.stop()
        stepping = [turn for turn in turns if turn.step is not None]
        reading = [turn for turn in turns if turn.step is None and not turn.calling]
        calling = [turn for turn in turns if turn.calling]
        # The oldest first: all would come to their first word late if they took turns. Nothing of what is not wanted.
        for turn in reading[:1] + [turn for turn in reading[1:] if turn.number in self._cancelled]:
            self._advance(turn, None)
        if calling:
            self._advance(calling[self._rounds % len(calling)], None)
        self._take_steps(stepping)
        self._rounds += 1
        errand = next((work for work in self._active if isinstance(work, _Errand)), None)
        if errand is not None:
            self._next_item(errand)

    def _take_steps(self, turns: Sequence[_Turn]) -> None:
        if self._stepper is not None:
            outcomes = self._stepper.take([turn.step for turn in turns if turn.step is not None])
            for turn, outcome in zip(turns, outcomes, strict=True):
                self._advance(turn, outcome)

    def _advance(self, turn: _Turn, outcome: torch.Tensor | Exception | None) -> None:
        """Goes on with an answer up to its next step, or the next part of its prompt."""
        try:
            while True:
                event, outcome = turn.stream.advance(outcome), None
                if event is None or isinstance(event, Step):
                    turn.step = event
                    return
                if isinstance(event, ToolCallPart | ToolResultPart):
                    turn.calling = isinstance(event, ToolCallPart)
                self._report(turn.number, "item", event)
        except StopIteration:
            self._leave(turn, "end", (turn.session.last, _state(turn.session)))
        except Exception as error:
            self._leave(turn, "error", self._told(error, "the answer failed"))

    def _next_item(self, errand: _Errand) -> None:
        """Takes one step of other work, which then goes behind all others of its kind."""
        try:
            if errand.number in self._cancelled:
                raise StopIteration
            item = next(errand.steps)
            if item is not None:
                self._report(errand.number, "item", item)
        except StopIteration:
            self._leave(errand, "end", None)
        except Exception as error:
            self._leave(errand, "error", self._told(error, "the work failed"))
        else:
            self._active.remove(errand)
            self._active.append(errand)

    def _leave(self, work: _Turn | _Errand, kind: Literal["end", "error"], outcome: Any) -> None:
        if work in self._active:
            self._active.remove(work)
        close = getattr(work.stream if isinstance(work, _Turn) else work.steps, "close", None)
        try:
            if close is not None:  # an iterator may be no generator
                close()
        except Exception:
            log.exception("what follows the end of the work failed")
        self._cancelled.discard(work.number)
        self._report(work.number, kind, outcome)

    def _told(self, error: Exception, what: str) -> VideoLLMError:
        """An error in words for whoever asked; one that is a defect goes into the log."""
        if isinstance(error, VideoLLMError):
            return error
        if isinstance(error, MemoryError | torch.OutOfMemoryError):
            self._report(None, "memory")
            return UnavailableError("memory ran out over this; ask again, or with fewer clips or frames")
        log.error("%s", what, exc_info=error)
        return UnavailableError(f"{what} in an unexpected way ({type(error).__name__}), which was logged; ask again")


def _state(session: ChatSession) -> tuple[tuple[Message, ...], tuple[ClipCoverage, ...], int]:
    """What whoever ordered it keeps of a conversation: its words, what was seen and heard, its memory."""
    return session.messages, session.coverage, session.memory_bytes


class _NobodyListens(BaseException):
    """The other end of the connection is closed: nothing is worth doing any more."""


def _mib(size: int) -> str:
    return f"{size / 2**20:.0f} MiB"

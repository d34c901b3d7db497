"""A conversation about clips: add, ask, stop, undo.

What is kept, and when:

* A turn is a question and its answer. A turn that fails, by any exception, leaves the session as it was.
* `stop()` ends the answer early; what was generated so far is the answer and is kept. Stopped before the first token,
  nothing is kept. A stream that is closed before its end counts as stopped.
* `undo()` takes back the last question and answer, and with them the forgetting that they caused. It never takes
  back a clip: those shown with that question are shown again with the next one.
* Clips are pinned. When the context is full the oldest turns of text are forgotten, a quarter of the room for text at
  a time, so that the prompt is not read anew at every turn; their clips move to the oldest turn that is left.
* A session may be given tools. Then a turn may hold rounds between question and answer: a call, and what the tool gave
  back. What a tool shows belongs to its turn, and is forgotten and taken back with it.
* Whoever asks may offer functions of their own. Where the model calls one, the turn stays open: the answer ends with
  the call, and `go_on` continues it once `messages` ends with what the function gave back. Another question forgets it.
"""

from __future__ import annotations

import threading
import time
import unicodedata
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import torch

from videollm.chat.cache import EncodedMedia, KeyValueCache, Position, prompt_positions
from videollm.chat.calls import Evidence, Outcome, Tools, brief_call_in, call_in, may_become_a_call, shortened
from videollm.chat.choice import choose_call, choose_function, video_meant
from videollm.chat.coverage import ClipCoverage, covered, covered_in_stretches, length_of
from videollm.chat.generation import (
    Decoding,
    Finish,
    GenerationOptions,
    Step,
    WordStream,
    prefill,
    stop_sequences,
    take_step,
)
from videollm.chat.timeline import SHARE_OF_PROMPT, Chooser, Fitting, Stretch, Timeline
from videollm.clips import Clip
from videollm.errors import (
    ChatError,
    ConfigError,
    ContextFullError,
    EmptyQuestionError,
    QuestionTooLongError,
)
from videollm.messages import MediaPart, Message, Part, TextPart, ToolCallPart, ToolResultPart, assistant, system, user

if TYPE_CHECKING:
    from videollm.media.read import Survey

DEFAULT_MAX_NEW_TOKENS = 256
TOOL_PAUSE_SECONDS = 0.002
"""How long a tool is waited for before other answers go on."""
LEAST_RESULT_CHARACTERS = 40
"""What a tool gave back is shortened to this to fit the context; then it is left out."""
LONGEST_TOKEN_CHARACTERS = 16
"""A question with more characters than this for each token of the context is refused without tokenising it."""


@dataclass(frozen=True)
class Timings:
    """What a turn cost. Tokens count positions of the prompt, media rows among them; seconds are of a wall clock."""

    prompt_tokens: int
    reused_tokens: int
    prefilled_tokens: int
    generated_tokens: int
    encoded_clips: int
    encode_seconds: float
    prefill_seconds: float
    first_word_seconds: float | None
    total_seconds: float


@dataclass(frozen=True)
class Answer:
    """What the model said, and what it was shown.

    Attributes:
        text: the words.
        token_ids: exactly the ids generated, without the stop token.
        coverage: for each clip in the conversation, what of it was seen and heard.
        finish: ``"end"``, ``"length"`` (cut at the limit of tokens), ``"stopped"`` or ``"calls"``.
        dropped_turns: how many of the oldest turns were forgotten to make room for this one.
        notes: sentences for the user: what was forgotten, what was cut.
        timings: what it cost.
        used: the stretches that were in the prompt: shown, told by a narrator, or found by a search; first those that
            were found for this question, the best one first.
        rounds: of this turn: calls of tools and what they gave back, in turn.
        calls: of functions of whoever asked, for which the turn waits.
    """

    text: str
    token_ids: tuple[int, ...]
    coverage: tuple[ClipCoverage, ...]
    finish: Finish
    dropped_turns: int
    notes: tuple[str, ...]
    timings: Timings
    used: tuple[Evidence, ...] = ()
    rounds: tuple[ToolCallPart | ToolResultPart, ...] = ()
    calls: tuple[ToolCallPart, ...] = ()

    @property
    def stopped(self) -> bool:
        return self.finish == "stopped"

    @property
    def seen(self) -> tuple[str, ...]:
        """Names of the clips that were seen."""
        return tuple(clip.name for clip in self.coverage if clip.frames)

    @property
    def heard(self) -> tuple[str, ...]:
        """Names of the clips that were heard."""
        return tuple(clip.name for clip in self.coverage if clip.heard_seconds)

    def to_json(self) -> dict[str, Any]:
        """Plain data, ready for `json.dumps`."""
        coverage = [{**asdict(clip), "sentence": clip.sentence} for clip in self.coverage]
        return {
            "answer": self.text,
            "coverage": coverage,
            "finish": self.finish,
            "dropped_turns": self.dropped_turns,
            "notes": list(self.notes),
            "used": [asdict(one) for one in self.used],
            "rounds": [plain_part(part) for part in self.rounds],
            "calls": [plain_part(part) for part in self.calls],
            "timings": asdict(self.timings),
        }


@dataclass(frozen=True)
class _Turn:
    question: Message
    answer: Message
    forgotten_before: int
    """How many of the oldest turns were already out of the context before this turn."""
    rounds: tuple[Message, ...] = ()
    """Calls of tools by the assistant and what the tools gave back, in turn."""
    used: tuple[Evidence, ...] = ()
    """What the tools told of; not what they showed."""

    @property
    def messages(self) -> tuple[Message, ...]:
        return (self.question, *self.rounds, self.answer)


@dataclass(frozen=True)
class _Open:
    """A turn that waits: its last round is a call of a function of whoever asked, or what that gave back."""

    question: Message
    rounds: tuple[Message, ...]
    used: tuple[Evidence, ...] = ()

    @property
    def messages(self) -> tuple[Message, ...]:
        return (self.question, *self.rounds)


@dataclass(frozen=True)
class _Plan:
    """A turn that fits, before anything was computed."""

    question: Message
    input_ids: list[int]
    spans: tuple[Any, ...]
    forgotten: int
    options: GenerationOptions
    limit: int
    pending: int
    """How many of the pending clips and calls this question has."""
    rounds: tuple[Message, ...] = ()
    used: tuple[Evidence, ...] = ()
    refused_room: bool = False
    """The last round did not fit the context: no further one will."""


@dataclass
class _Said:
    """What the model has said in one go, as it comes."""

    words: WordStream
    token_ids: list[int] = field(default_factory=list)
    finish: Finish = "stopped"
    reused: int = 0


class ChatSession:
    """A conversation about videos, images and sounds.

    Args:
        model: a `VideoLlamaForConditionalGeneration`; put into eval mode.
        processor: its `VideoLlamaProcessor`.
        system: the instruction that opens the conversation; None for the template's own.
        max_new_tokens: answers are cut after this many tokens; None for the model's own default.
        decoder: ``"pyav"`` or ``"decord"``, for the files that `add` opens.
        limits: `videollm.media.source.Limits` for the files that `add` opens.
        reuse_cache: False computes every prompt from its start, which is slower and gives the same answers.
        encoded: features to share with other sessions of the same model.
        tools: what the model may call while it answers, and the person with `call`; None: nothing.
        calls: whether the model itself may call them, as often as they allow.

    Attributes:
        functions: JSON schemas of what the model may call besides; whoever asks carries it out, see `go_on`.

    A session answers one question at a time; `stop` may be called from any thread.
    """

    def __init__(
        self,
        model: Any,
        processor: Any,
        *,
        system: str | None = None,
        max_new_tokens: int | None = None,
        decoder: str = "pyav",
        limits: Any = None,
        reuse_cache: bool = True,
        encoded: EncodedMedia | None = None,
        tools: Tools | None = None,
        calls: bool = True,
    ) -> None:
        self.model = model.eval()
        self.processor = processor
        self.system = system
        default = getattr(model.generation_config, "max_new_tokens", None) or DEFAULT_MAX_NEW_TOKENS
        self.options = GenerationOptions(max_new_tokens=default if max_new_tokens is None else max_new_tokens)
        self.decoder, self.limits, self.reuse_cache = decoder, limits, reuse_cache
        self.last: Answer | None = None
        self.tools, self.calls = tools, calls
        self.functions: Sequence[dict[str, Any]] = ()
        self._clips: dict[str, Clip] = {}
        self._files: dict[str, Path] = {}
        self._timelines: dict[str, Timeline] = {}
        self._origins: dict[str, tuple[str, Stretch]] = {}  # of a clip that is a stretch: of which video, and where
        self._pending: list[Part] = []
        self._pending_used: tuple[Evidence, ...] = ()
        self._turns: list[_Turn] = []
        self._open_turn: _Open | None = None
        self._forgotten = 0
        self._encoded = EncodedMedia() if encoded is None else encoded
        self._cache = KeyValueCache()
        self._stop = threading.Event()
        self._busy = threading.Lock()

    # -- what is in it ---------------------------------------------------------------------------------------------

    @property
    def context_tokens(self) -> int:
        """How many positions a conversation may have, questions, answers and media together."""
        return int(self.model.config.text_config.max_position_embeddings)

    @property
    def memory_bytes(self) -> int:
        """What the session holds in memory: keys and values, features, and the clips' frames and sound."""
        clips = 0
        for clip in self._clips.values():
            clips += 0 if clip.frames is None else clip.frames.pixels.nbytes
            clips += sum(wave.samples.nbytes for wave in clip.waveforms or ())
        return self._cache.nbytes + self._encoded.nbytes + clips

    @property
    def clips(self) -> Mapping[str, Clip]:
        """The clips by name, read-only."""
        return MappingProxyType(self._clips)

    @property
    def timelines(self) -> tuple[Timeline, ...]:
        """The long videos that are shown by segments."""
        return tuple(self._timelines.values())

    @property
    def messages(self) -> tuple[Message, ...]:
        """The conversation, forgotten turns among it; clips not yet asked about are a last user message without words.

        May be set, to edit earlier turns: an optional system message, then user and assistant in turn; between a
        question and its answer there may be rounds of an assistant's call and a tool's message, and the last question
        may have such rounds and no answer, see `go_on`. What a changed
        conversation shares with the one before is not computed again, and nothing counts as forgotten any more; what a
        tool showed and is not here any more is left out.
        Setting raises ChatError for another order of roles, or a clip that was not added.
        """
        opening = [system(self.system)] if self.system is not None else []
        turns = [message for turn in self._turns for message in turn.messages]
        if self._open_turn is not None:
            return (*opening, *turns, *self._open_turn.messages)
        waiting = [Message("user", tuple(self._pending))] if self._pending else []
        return (*opening, *turns, *waiting)

    @messages.setter
    def messages(self, messages: Sequence[Message]) -> None:
        rest = list(messages)
        opening = rest.pop(0).text if rest and rest[0].role == "system" else None
        waiting: list[Part] = []
        if rest and rest[-1].role == "user" and not rest[-1].text:
            waiting = list(rest.pop().parts)
        turns, open_turn = _turns_of(rest)
        if open_turn is not None:
            waiting = [part for part in open_turn.question.parts if not isinstance(part, TextPart)]
        asked = [part.clip for turn in turns for part in turn.question.media]
        asked += [part.clip for part in waiting if isinstance(part, MediaPart)]
        if set(asked) - set(self._clips):
            raise ChatError(f"messages show {sorted(set(asked) - set(self._clips))}; add these clips first")
        with self._turn_lock():
            self.system, self._pending, self._forgotten = opening, waiting, 0
            self._turns = [replace(turn, rounds=tuple(map(self._without_gone, turn.rounds))) for turn in turns]
            self._open_turn = None
            if open_turn is not None:
                rounds = tuple(map(self._without_gone, open_turn.rounds))
                self._open_turn = replace(open_turn, rounds=rounds)

    def _without_gone(self, message: Message) -> Message:
        parts = (part for part in message.parts if not isinstance(part, MediaPart) or part.clip in self._clips)
        return replace(message, parts=tuple(parts))

    @property
    def coverage(self) -> tuple[ClipCoverage, ...]:
        """For each clip that was added, what of it the model is shown."""
        hears = self.model.config.audio_config is not None
        added = (clip for name, clip in self._clips.items() if name not in self._origins)
        return tuple(covered(clip, seen=True, heard=hears) for clip in added)

    def transcript(self) -> dict[str, Any]:
        """The conversation as plain data, ready for `json.dumps`: messages, and what was read of each clip."""
        return {
            "messages": [
                {"role": message.role, "parts": [plain_part(part) for part in message.parts]}
                for message in self.messages
            ],
            "clips": [asdict(clip) for clip in self.coverage],
        }

    # -- media -----------------------------------------------------------------------------------------------------

    def add(self, source: str | Path | Clip, name: str | None = None, *, file: str | Path | None = None) -> Clip:
        """Shows a clip to the model, with the next question.

        Args:
            source: a media file, or a clip that is already open.
            name: what to call it; by default the file's name, with a number where that is taken.
            file: where tools can read more of a clip that is already open; None: nowhere.

        Returns:
            the clip, under its name.

        Raises:
            MediaError: the file cannot be read (see `videollm.errors`).
            ChatError: the name is taken, or the clip is a sound and the model has no ear.
            ContextFullError: with it, the clips alone would not fit the model's context.
        """
        if name is not None and name in self._clips:
            raise ChatError(f"cannot add {name!r}: another clip has this name; choose another")
        clip = source if isinstance(source, Clip) else self._open(Path(source))
        label = name if name is not None else self._free_name(printable(clip.name))
        clip = replace(clip, name=label)
        if clip.frames is None and self.model.config.audio_config is None:
            raise ChatError(f"cannot add {label!r}: it is a sound, and this model has no ear; add a video or an image")
        part = MediaPart(label, type="image" if clip.kind == "image" else "audio" if clip.kind == "audio" else "video")
        clips, pending = {**self._clips, label: clip}, [*self._pending, part]
        self._check_media_fit(clips, pending)
        self._clips, self._pending = clips, pending
        place = file if file is not None else None if isinstance(source, Clip) else source
        if place is not None:
            self._files[label] = Path(place)
        return clip

    def watch(
        self,
        file: str | Path,
        name: str | None = None,
        *,
        segment_seconds: float = 20.0,
        choose: Chooser | None = None,
    ) -> Timeline:
        """Shows a long video by segments: with each question those that fit it, as far as there is room.

        Args:
            file: a video or sound of any length.
            name: what to call it; by default the file's name, with a number where that is taken.
            segment_seconds: length of a segment, 10 to 30.
            choose: finds stretches by words, as `videollm.tools.router.Router.stretches` does.

        Raises:
            MediaError: the file cannot be read.
            ConfigError: another length of segments.
        """
        from videollm.media.decode_worker import survey_file

        survey = survey_file(file, **({} if self.limits is None else {"limits": self.limits}))
        lasts = survey.contents.end_seconds
        label = name if name is not None else self._free_name(printable(Path(file).name))
        timeline = Timeline.of(label, Path(file), lasts, survey=survey, segment_seconds=segment_seconds, choose=choose)
        self._timelines[label], self._files[label] = timeline, Path(file)
        return timeline

    def call(self, name: str, arguments: dict[str, Any]) -> Outcome:
        """Calls a tool for the person.

        Where the model may call tools, too, what it gives back goes with the next question, unless it is a refusal. A
        model that has not learned to read such results answers worse with them than without.

        Raises:
            ChatError: the session has no tools, or is still answering.
        """
        if self.tools is None:
            raise ChatError("this conversation has no tools")
        with self._turn_lock():
            self._stop.clear()
            outcome = self.tools.call(name, arguments, dict(self._files), stopped=self._stop.is_set, shows=False)
            if self._may_call and not outcome.refused:
                number = sum(isinstance(part, ToolCallPart) for part in self._pending)
                call = ToolCallPart(name, arguments, f"{len(self._turns)}.p{number}")
                self._pending += [call, ToolResultPart(call.call_id, outcome.content)]
                self._pending_used += outcome.used
            return outcome

    def clear(self) -> None:
        """Forgets every turn and every clip."""
        with self._turn_lock():
            self._turns, self._pending, self._clips, self._forgotten = [], [], {}, 0
            self._files, self._origins, self._timelines, self._pending_used = {}, {}, {}, ()
            self._open_turn = None
            self._cache.clear()
            self.last = None

    # -- turns -----------------------------------------------------------------------------------------------------

    def ask(self, question: str, **generation: Any) -> Answer:
        """Answers a question; see `stream`."""
        for _ in self.stream(question, **generation):
            pass
        assert self.last is not None
        return self.last

    def stream(self, question: str, **generation: Any) -> AnswerStream:
        """Answers a question word by word; afterwards the whole is in ``last``.

        Args:
            question: words; line breaks and tabs are allowed, other control characters are not.
            generation: fields of `GenerationOptions`; greedy by default.

        Returns:
            an iterator of pieces that, joined, are the answer's text. The answer is computed as it is read.

        Raises (here, before the first piece):
            EmptyQuestionError, QuestionTooLongError, ContextFullError, ConfigError (an option), ChatError (a question
            that is no text, or a session that is still answering).
        """
        options = self._with(generation)
        question = clean_question(question, longest=LONGEST_TOKEN_CHARACTERS * self.context_tokens)

        def planned() -> _Plan:
            plan = self._plan_question(question, options)
            self._forget_open_turn()
            return plan

        return self._begin(planned)

    def go_on(self, **generation: Any) -> AnswerStream:
        """Answers the question whose calls of `functions` were carried out: `messages` ends with what they gave back.

        Args, returns and raises as `stream`; ChatError where no question waits so.
        """
        options, waits = self._with(generation), self._open_turn
        if waits is None or waits.rounds[-1].role != "tool":
            raise ChatError("no question waits for what a function gave back; ask one")

        def planned() -> _Plan:
            plan = self._plan(waits.question, options, waits.rounds)
            return replace(plan, pending=len(self._pending), used=waits.used)

        return self._begin(planned)

    def _begin(self, planned: Callable[[], _Plan]) -> AnswerStream:
        """Takes the turn and plans it."""
        release = self._take_turn()
        try:
            plan = planned()
            self._stop.clear()
        except BaseException:
            release()
            raise
        grows = self._may_call or bool(self.functions) or bool(self._timelines)
        most = self.context_tokens if grows else len(plan.input_ids) + plan.limit
        return AnswerStream(self._answer(plan), release, self.model, most)

    def stop(self) -> None:
        """Ends the answer under way after its present token; callable from any thread. Idle, it does nothing."""
        self._stop.set()

    def undo(self) -> str | None:
        """Takes back the last question and answer, and returns the question; None where there is none.

        Clips stay: those that were shown with it are shown with the next question, before any added since.
        """
        with self._turn_lock():
            if self._open_turn is not None:
                question = self._open_turn.question.text
                self._forget_open_turn()
                return question
            if not self._turns:
                return None
            turn = self._turns.pop()
            kept = [part for part in turn.question.parts if not isinstance(part, TextPart)]
            self._pending = [*kept, *self._pending]
            self._drop_shown(turn.rounds)
            self._forgotten = turn.forgotten_before
            self.last = None
            return turn.question.text

    # -- one turn --------------------------------------------------------------------------------------------------

    def _answer(self, plan: _Plan) -> Events:
        """Computes a planned turn: rounds of calls, where there are tools, then words; notes it when it has ended."""
        clock = _Clock()
        left = self.tools.calls_per_turn if self.tools is not None and self._may_call else 0
        turns, waits = len(self._turns), self._open_turn
        names = {schema["function"]["name"] for schema in self.functions}
        try:
            for timeline in self._timelines.values():
                fitting = self._fitting(timeline, plan)
                if fitting.moment is not None:
                    found = Evidence(timeline.video, *fitting.moment, "retrieved")
                    plan = replace(plan, used=(*plan.used, found))
                for stretch in fitting.shown:
                    outcome = yield from self._beside(lambda _, t=timeline, s=stretch: self._segment(t, s))
                    plan = self._with_round(plan, self._look_at(timeline, stretch, plan), outcome)
                    if self._stop.is_set() or plan.refused_room:
                        break
            while True:
                said, call = _Said(WordStream(self.processor.tokenizer)), None
                in_words = bool(left or names) and self._tells_tools
                by_token = bool(left) and bool(self.processor.call_token_ids)
                if names and not in_words:
                    call = yield from self._choose_function(plan)
                if left and not in_words and not by_token and call is None:
                    call = yield from self._choose(plan)
                if call is None:
                    try:
                        yield from self._say(plan, said, clock, hold=in_words or by_token)
                    except GeneratorExit:  # the reader went away: as if stopped
                        said.words.finish()
                        said.finish = "stopped"
                        self._note(plan, said, clock)
                        raise
                    asked = self._called(said, plan) if in_words or by_token else None
                    if asked is not None and not left and asked[0] not in names:
                        asked = None
                        yield said.words.text
                    if asked is None:
                        self._note(plan, said, clock)
                        return
                    call = ToolCallPart(*asked, self._call_id(plan), tuple(said.token_ids))
                if call.name in names:
                    said.finish = "calls"
                    self._note(plan, said, clock, (replace(call, call_id=f"call_{call.call_id}"),))
                    return
                if by_token and (call.name, call.arguments) in _calls_in(plan.rounds):
                    left = 0  # the same again: now it has to answer
                    continue
                left -= 1
                yield call
                outcome = yield from self._carry_out(call)
                if self._stop.is_set():
                    self._note(plan, _Said(WordStream(self.processor.tokenizer)), clock)
                    return
                yield ToolResultPart(call.call_id, outcome.content, outcome.refused)
                plan = self._with_round(plan, call, outcome)
                left = 0 if plan.refused_room else left
        finally:
            if len(self._turns) == turns and self._open_turn is waits:
                self._drop_shown(plan.rounds[0 if waits is None else len(waits.rounds) :])

    def _say(self, plan: _Plan, said: _Said, clock: _Clock, hold: bool) -> Events:
        """Computes what the model says to a prompt, and yields its words.

        Args:
            hold: keep words back as long as they may be a call of a tool.
        """
        words, held = said.words, [""] if hold else []
        positions = self._positions(plan)
        if not self.reuse_cache:
            self._cache.clear()
        said.reused = self._cache.keep_common_prefix(positions)
        stopped = self._stop.is_set

        def given(piece: str) -> Iterator[str]:
            if held and self._may_be_calling(said):
                held.append(piece)
                return
            whole = "".join((*held, piece))
            held.clear()
            if whole:
                clock.word()
                yield whole

        def put(ids: Sequence[int]) -> Iterator[str]:
            for token_id in ids:
                said.token_ids.append(token_id)
                yield from given(words.put(token_id))

        embeds = yield from self._embed(plan, said.reused, clock)
        logits = None
        if embeds is not None:
            logits = yield from prefill(self.model, self._cache, embeds, positions[said.reused :], stopped)
        clock.prefilled()
        if logits is None:
            return
        decoding = Decoding(
            plan.options,
            limit=plan.limit,
            stop_sequences=stop_sequences(self.model, self.processor),
            never=[*self._placeholders(), *self.processor.call_token_ids[1 if hold else 0 :]],
        )
        while not stopped():
            yield from put(decoding.choose(logits))
            if decoding.finish is not None or stopped():
                break
            logits = yield Step(self._cache, decoding.last_id)
            assert logits is not None
        if decoding.finish is None:
            yield from put(decoding.rest())
        piece = words.finish()
        said.finish = decoding.finish or "stopped"
        if held and self._called(said, plan) is None:
            piece = "".join((*held, piece))
            held.clear()
        if piece and not held:
            clock.word()
            yield piece

    def _note(self, plan: _Plan, said: _Said, clock: _Clock, calls: tuple[ToolCallPart, ...] = ()) -> None:
        """Makes a computed turn part of the conversation; with calls, it stays open."""
        dropped, token_ids, text, finish = (
            plan.forgotten - self._forgotten,
            said.token_ids,
            "" if calls else said.words.text,
            said.finish,
        )
        notes = []
        if dropped:
            turns = "the oldest question and answer were" if dropped == 1 else f"the {dropped} oldest turns were"
            notes.append(f"the context is full: {turns} forgotten (no clip was), and the rest was read again")
        if plan.refused_room:
            notes.append("the context is full: what the last tool gave back was left out, and no other was called")
        if finish == "length":
            notes.append(f"the answer was cut at {len(token_ids)} tokens")
        prompt = len(plan.input_ids)
        self.last = Answer(
            text=text,
            token_ids=tuple(token_ids),
            coverage=self._coverage(plan),
            finish=finish,
            dropped_turns=dropped,
            notes=tuple(notes),
            timings=clock.timings(prompt, said.reused, len(token_ids)),
            used=self._used(plan),
            rounds=tuple(
                part
                for message in plan.rounds
                for part in message.parts
                if isinstance(part, ToolCallPart | ToolResultPart)
            ),
            calls=calls,
        )
        if calls:
            self._open_turn = _Open(plan.question, (*plan.rounds, Message("assistant", calls)), plan.used)
            return
        if finish == "stopped" and not token_ids:
            return
        for turn in self._turns[self._forgotten : plan.forgotten]:
            self._drop_shown(turn.rounds)
        used = (*self._pending_used, *plan.used)
        self._turns.append(_Turn(plan.question, assistant(text, token_ids), self._forgotten, plan.rounds, used))
        self._pending = self._pending[plan.pending :]
        self._pending_used, self._open_turn = (), None
        self._forgotten = plan.forgotten

    def _forget_open_turn(self) -> None:
        """Its clips stay, to be shown with the next question."""
        if self._open_turn is not None:
            self._drop_shown(self._open_turn.rounds)
            self._open_turn = None

    def _used(self, plan: _Plan) -> tuple[Evidence, ...]:
        """The stretches in a prompt: found for its question, then shown, then told of in earlier turns."""
        found: list[Evidence] = []
        for span in plan.spans:
            clip = self._clips[span.clip]
            video, (start, _) = self._origins.get(span.clip, (span.clip, (0.0, 0.0)))
            if span.kind == "video" and clip.frames is not None:
                seconds = clip.frames.seconds
                found.append(Evidence(video, start + float(seconds[0]), start + float(seconds[-1]), "seen"))
            else:
                found += [Evidence(video, start + a, start + b, "heard") for a, b in _joined(clip.windows_seconds)]
        told = [one for turn in self._still_read(plan) for one in turn.used]
        return tuple(dict.fromkeys((*plan.used, *self._pending_used, *found, *told)))

    def _still_read(self, plan: _Plan) -> list[_Turn]:
        """The turns of which a prompt holds what tools told of: where calls are a token, only what came back last."""
        turns = self._turns[plan.forgotten :]
        if not self.processor.call_token_ids:
            return turns
        last = max((place for place, turn in enumerate(turns) if turn.rounds), default=0)
        return [] if plan.rounds else turns[last:]

    @property
    def _may_call(self) -> bool:
        """Whether the model itself may call tools."""
        return self.tools is not None and self.calls and self.tools.calls_per_turn > 0

    @property
    def _tells_tools(self) -> bool:
        """Whether the template tells of any tools by their schemas, so that the model calls them in words."""
        return self.processor.calls_tools and not self.processor.call_token_ids

    # -- rounds ----------------------------------------------------------------------------------------------------

    def _may_be_calling(self, said: _Said) -> bool:
        """Whether what is said may still turn out to be a call."""
        token = self.processor.call_token_ids[:1]
        return said.token_ids[:1] == list(token) if token else may_become_a_call(said.words.text)

    def _called(self, said: _Said, plan: _Plan) -> tuple[str, dict[str, Any]] | None:
        """The name and arguments of what was said, where it is a call; a brief one is about the video that is meant."""
        if said.finish != "end" or not self._may_be_calling(said):
            return None
        if not self.processor.call_token_ids:
            return call_in(said.words.text)
        return brief_call_in(said.words.text, video_meant(plan.question.text, self._lasts(), plan.used))

    def _lasts(self) -> dict[str, float]:
        """How long each video is that a call can name, in seconds."""
        lasts = {name: float(self._clips[name].duration_seconds) for name in self._files if name in self._clips}
        lasts |= {name: timeline.duration_seconds for name, timeline in self._timelines.items()}
        return {name: seconds for name, seconds in lasts.items() if seconds > 0}

    def _call_id(self, plan: _Plan) -> str:
        return f"{len(self._turns)}.{len(plan.rounds) // 2}"

    def _choose(self, plan: _Plan) -> Generator[None, Any, ToolCallPart | None]:
        """Asks a decoder that knows no form of calls to choose one of a few; None: to answer."""
        assert self.tools is not None
        if not self.tools.names(self._files):
            return None
        prompt, logits_of = self._asking(plan)
        chosen = yield from choose_call(
            self.model,
            self.processor.tokenizer,
            self._cache,
            question=plan.question.text,
            lasts=self._lasts(),
            used=plan.used,
            made=_calls_in(plan.rounds),
            prompt=prompt,
            logits_of=logits_of,
        )
        return None if chosen is None else ToolCallPart(*chosen, self._call_id(plan))

    def _choose_function(self, plan: _Plan) -> Generator[None, Any, ToolCallPart | None]:
        """Asks a decoder that cannot be told of functions to choose one of them; None: none."""
        prompt, logits_of = self._asking(plan)
        chosen = yield from choose_function(
            self.model,
            self.processor.tokenizer,
            self._cache,
            question=plan.question.text,
            functions=self.functions,
            made=_calls_in(plan.rounds),
            prompt=prompt,
            logits_of=logits_of,
        )
        return None if chosen is None else ToolCallPart(*chosen, self._call_id(plan))

    def _asking(
        self, plan: _Plan
    ) -> tuple[
        Callable[[Sequence[TextPart], str | None], _Plan | None],
        Callable[[_Plan], Generator[None, Any, torch.Tensor | None]],
    ]:
        """What a choice needs: a plan with more or other words, and the logits after a plan."""

        def prompt(parts: Sequence[TextPart], question: str | None) -> _Plan | None:
            asked = plan.question
            if question is not None:
                kept = tuple(part for part in asked.parts if not isinstance(part, TextPart))
                asked = replace(asked, parts=(*kept, TextPart(question)))
            asked = replace(asked, parts=(*asked.parts, *parts))
            rendered = self._render(asked, plan.forgotten, rounds=plan.rounds)
            if len(rendered.input_ids) > self._prompt_budget(plan.options):
                return None
            spans = tuple(sorted(rendered.media, key=lambda span: span.start))
            return replace(plan, input_ids=list(rendered.input_ids), spans=spans)

        def logits_of(asked: _Plan) -> Generator[None, Any, torch.Tensor | None]:
            positions = self._positions(asked)
            reused = self._cache.keep_common_prefix(positions)
            embeds = yield from self._embed(asked, reused, _Clock())
            if embeds is None:
                return None
            return (yield from prefill(self.model, self._cache, embeds, positions[reused:], self._stop.is_set))

        return prompt, logits_of

    def _carry_out(self, call: ToolCallPart) -> Generator[None, Any, Outcome]:
        """Runs a tool."""
        assert self.tools is not None
        tools, files = self.tools, dict(self._files)
        return (
            yield from self._beside(
                lambda stopped: tools.call(call.name, call.arguments, files, stopped=stopped, shows=True)
            )
        )

    def _beside(self, work: Callable[[Callable[[], bool]], Outcome]) -> Generator[None, Any, Outcome]:
        """Runs work in a thread, so that other answers go on, and tells it where nobody waits any more."""
        gone, done = threading.Event(), threading.Event()
        outcome: list[Outcome | BaseException] = []

        def run() -> None:
            try:
                outcome.append(work(lambda: gone.is_set() or self._stop.is_set()))
            except BaseException as error:
                outcome.append(error)
            finally:
                done.set()

        threading.Thread(target=run, name="tool", daemon=True).start()
        try:
            while not done.wait(TOOL_PAUSE_SECONDS):
                yield
        finally:
            gone.set()
        found = outcome[0]
        if isinstance(found, BaseException):
            raise found
        return found

    # -- segments of long videos -----------------------------------------------------------------------------------

    def _fitting(self, timeline: Timeline, plan: _Plan) -> Fitting:
        """The stretches that a question is to be shown and is not yet."""
        shown = {span.clip for span in plan.spans} & self._origins.keys()
        there = [self._origins[name][1] for name in shown if self._origins[name][0] == timeline.video]
        words = self.processor.tokenizer(timeline.video)["input_ids"]
        each = self.processor.num_video_query_tokens + self.processor.num_audio_query_tokens + len(words) + 24
        most = max(1, int(SHARE_OF_PROMPT * self._prompt_budget(plan.options)) // each)
        return timeline.fitting(plan.question.text, most, there)

    def _look_at(self, timeline: Timeline, stretch: Stretch, plan: _Plan) -> ToolCallPart:
        start, end = stretch
        arguments = {"video": timeline.video, "start_seconds": start, "end_seconds": end}
        return ToolCallPart("look", arguments, self._call_id(plan))

    def _segment(self, timeline: Timeline, stretch: Stretch) -> Outcome:
        """A segment with its pictures and its sound."""
        clip = self._open(timeline.file, stretch, timeline.survey)
        count = 0 if clip.frames is None else len(clip.frames)
        return Outcome(f"{count} frames", (Evidence(timeline.video, *stretch, "seen"),), clip=clip)

    def _with_round(self, plan: _Plan, call: ToolCallPart, outcome: Outcome) -> _Plan:
        """The plan with a call and as much of what it gave back as the context has room for."""
        shown: tuple[MediaPart, ...] = ()
        told = tuple(one for one in outcome.used if one.how in ("narrated", "retrieved"))
        if outcome.clip is not None:
            first = outcome.used[0]
            label = self._free_name(f"{first.video} {first.start_seconds:g}-{first.end_seconds:g} s")
            self._clips[label] = replace(outcome.clip, name=label)
            self._origins[label] = (first.video, (first.start_seconds, first.end_seconds))
            shown = (MediaPart(label, "audio" if outcome.clip.kind == "audio" else "video"),)
        content = outcome.content
        while True:
            result = Message("tool", (ToolResultPart(call.call_id, content, outcome.refused), *shown))
            rounds = (*plan.rounds, Message("assistant", (call,)), result)
            try:
                fitting = self._plan(plan.question, plan.options, rounds)
                return replace(fitting, pending=plan.pending, used=(*plan.used, *told))
            except (ContextFullError, QuestionTooLongError):
                if shown:
                    self._drop_shown((result,))
                    shown, content = (), "no room to show it"
                elif len(content) > LEAST_RESULT_CHARACTERS:
                    content, told = shortened(content), told[: len(told) * 3 // 4]
                else:
                    return replace(plan, refused_room=True)

    def _drop_shown(self, rounds: Sequence[Message]) -> None:
        """Forgets the clips that tools showed in rounds."""
        for message in rounds:
            for part in message.media:
                if part.clip in self._origins:
                    self._clips.pop(part.clip, None)
                    del self._origins[part.clip]

    def _embed(self, plan: _Plan, start: int, clock: _Clock) -> Generator[None, Any, torch.Tensor | None]:
        """Embeddings (1, L, D) of the prompt from ``start`` on; None if stopped. Encodes clips not yet encoded, and
        pauses between their parts."""
        features: dict[str, list[torch.Tensor]] = {"video": [], "audio": []}
        for span in plan.spans:
            if span.start < start:
                continue
            if self._stop.is_set():
                return None
            clip = self._clips[span.clip]
            if self._encoded.key(self.processor, clip, span.kind) not in self._encoded:
                for _ in self._encoded.computed(self.model, self.processor, clip, span.kind):
                    clock.clips.add(span.clip)
                    yield
                    if self._stop.is_set():
                        return None
            features[span.kind].append(self._encoded.get(self.model, self.processor, clip, span.kind))
        clock.encoded()
        video, audio = (torch.stack(rows) if rows else None for rows in (features["video"], features["audio"]))
        ids = torch.tensor([plan.input_ids[start:]], device=self.model.device)
        with torch.inference_mode():
            return self.model.embed(ids, video_features=video, audio_features=audio)

    def _positions(self, plan: _Plan) -> list[Position]:
        spans = (
            (span.start, span.length, self._encoded.key(self.processor, self._clips[span.clip], span.kind))
            for span in plan.spans
        )
        return prompt_positions(plan.input_ids, spans)

    # -- fitting the context ---------------------------------------------------------------------------------------

    def _plan_question(self, question: str, options: GenerationOptions) -> _Plan:
        """The plan of a question with the clips and calls that wait for it; results of calls are shortened to fit."""
        parts = list(self._pending)
        while True:
            try:
                plan = self._plan(Message("user", (*parts, TextPart(question))), options)
                return replace(plan, pending=len(self._pending))
            except (ContextFullError, QuestionTooLongError):
                results = [part for part in parts if isinstance(part, ToolResultPart)]
                longest = max(results, key=lambda part: len(part.content), default=None)
                if longest is None:
                    raise
                place = parts.index(longest)
                if len(longest.content) > LEAST_RESULT_CHARACTERS:
                    parts[place] = replace(longest, content=shortened(longest.content))
                else:
                    del parts[place - 1 : place + 1]  # with its call

    def _plan(self, message: Message, options: GenerationOptions, rounds: tuple[Message, ...] = ()) -> _Plan:
        """Chooses what the prompt holds so that it and an answer fit the context."""
        pending = [part for part in message.parts if not isinstance(part, TextPart)]
        budget = self._prompt_budget(options)
        forgotten = self._forgotten
        prompt = self._render(message, forgotten, rounds=rounds)
        if len(prompt.input_ids) > budget:
            media = len(self._render(user("?", message.media), len(self._turns)).input_ids)
            roomy = budget - (budget - media) // 4
            fitting = None
            for forgotten in range(self._forgotten + 1, len(self._turns) + 1):
                prompt = self._render(message, forgotten, rounds=rounds)
                if len(prompt.input_ids) <= budget:
                    fitting = forgotten, prompt
                if len(prompt.input_ids) <= roomy:
                    break
            if fitting is None:
                raise self._too_long(message, media, budget)
            forgotten, prompt = fitting
        limit = min(options.max_new_tokens, self.context_tokens - len(prompt.input_ids))
        spans = tuple(sorted(prompt.media, key=lambda span: span.start))
        return _Plan(message, list(prompt.input_ids), spans, forgotten, options, limit, len(pending), rounds)

    def _prompt_budget(self, options: GenerationOptions) -> int:
        """How many tokens a prompt may have: room for an answer, but never more than a quarter, is left free."""
        return self.context_tokens - min(options.max_new_tokens, self.context_tokens // 4)

    def _too_long(self, message: Message, media_tokens: int, budget: int) -> ChatError:
        """Why the question with all clips, and no earlier text, does not fit."""
        if media_tokens > budget:
            return ContextFullError(
                f"the clips take {media_tokens} tokens and the model's context leaves {budget} for clips and question; "
                "use fewer clips, or a model with a longer context"
            )
        found = len(self._render(message, len(self._turns)).input_ids)
        return QuestionTooLongError(
            f"the question takes {found - media_tokens + 1} tokens and the model's context leaves "
            f"{budget - media_tokens + 1} for it; ask a shorter one"
        )

    def _check_media_fit(self, clips: Mapping[str, Clip], pending: Sequence[Part]) -> None:
        budget = self._prompt_budget(self.options)
        asked = user("?", [part for part in pending if isinstance(part, MediaPart)])
        media = len(self._render(asked, len(self._turns), clips).input_ids)
        if media > budget:
            raise self._too_long(asked, media, budget)

    def _render(
        self,
        question: Message,
        forgotten: int,
        clips: Mapping[str, Clip] | None = None,
        rounds: Sequence[Message] = (),
    ) -> Any:
        """The prompt of a question, without the first ``forgotten`` turns but with their clips."""
        kept = [message for turn in self._turns[forgotten:] for message in turn.messages]
        carried = tuple(part for turn in self._turns[:forgotten] for part in turn.question.media)
        kept.append(question)
        if carried:
            kept[0] = Message("user", (*carried, *kept[0].parts))
        opening = [system(self.system)] if self.system is not None else []
        schemas = [*self.functions, *(self.tools.schemas if self.tools is not None and self._may_call else ())]
        told = {"tools": schemas} if schemas and self._tells_tools else {}
        return self.processor.render(
            [*opening, *kept, *rounds], self._clips if clips is None else clips, add_generation_prompt=True, **told
        )

    # -- small parts -----------------------------------------------------------------------------------------------

    def _coverage(self, plan: _Plan) -> tuple[ClipCoverage, ...]:
        """What a prompt shows of each clip and video, all stretches together; and what else its question is told of."""
        shown = {(span.clip, span.kind) for span in plan.spans}
        found: dict[str, ClipCoverage] = {}
        stretches: dict[str, dict[Stretch, ClipCoverage]] = {}
        wholes: dict[str, ClipCoverage] = {}
        for name in sorted(dict.fromkeys(span.clip for span in plan.spans), key=self._origins.__contains__):
            one = covered(self._clips[name], seen=(name, "video") in shown, heard=(name, "audio") in shown)
            if name not in self._origins:
                wholes[name] = found[name] = one
                continue
            video, stretch = self._origins[name]
            whole = wholes.get(video) or self._nothing_of(video)
            if whole is not None:
                stretches.setdefault(video, {})[stretch] = one
                one = covered_in_stretches(whole, stretches[video])
            found[one.name] = one
        used = (*plan.used, *self._pending_used)
        told = [one for one in used if one.how in ("narrated", "retrieved") and one.video not in found]
        for video in dict.fromkeys(one.video for one in told):
            whole = self._nothing_of(video)
            if whole is not None:
                seconds = length_of([(one.start_seconds, one.end_seconds) for one in told if one.video == video])
                found[video] = replace(whole, told_seconds=min(seconds, whole.duration_seconds))
        return tuple(found.values())

    def _nothing_of(self, video: str) -> ClipCoverage | None:
        """The coverage of a video of this session of which nothing was shown; None: it is not here."""
        if video in self._timelines:
            timeline = self._timelines[video]
            kind = "video" if timeline.frames else "audio"
            return ClipCoverage(
                video, kind, timeline.duration_seconds, 0, None, 0.0, False, of_frames=timeline.frames or None
            )
        if video not in self._clips:
            return None
        one = covered(self._clips[video], seen=True, heard=False)
        return replace(one, frames=0, seen_seconds=None)

    def _open(self, path: Path, stretch: Stretch | None = None, survey: Survey | None = None) -> Clip:
        from videollm.media.decode_worker import open_clip
        from videollm.media.sampling import FrameSampling, SoundSampling

        hears = self.model.config.audio_config is not None
        options: dict[str, Any] = {} if self.limits is None else {"limits": self.limits}
        return open_clip(
            path,
            frames=FrameSampling(**self.processor.frame_sampling),
            sound=SoundSampling(**self.processor.sound_sampling) if hears else None,
            decoder=self.decoder,
            start_seconds=None if stretch is None else stretch[0],
            end_seconds=None if stretch is None else stretch[1],
            survey=survey,
            **options,
        )

    def _free_name(self, name: str) -> str:
        taken, number = name, 2
        while taken in self._clips or taken in self._files:
            taken, number = f"{name} ({number})", number + 1
        return taken

    def _with(self, generation: dict[str, Any]) -> GenerationOptions:
        known = set(GenerationOptions.__dataclass_fields__)
        if set(generation) - known:
            raise ConfigError(f"no such option: {sorted(set(generation) - known)}; there are {sorted(known)}")
        return replace(self.options, **generation)

    def _placeholders(self) -> list[int]:
        """Ids that stand for media: said by the model, they would be read as a clip in the next turn."""
        config = self.model.config
        return [i for i in (config.video_token_id, config.audio_token_id) if i < config.text_config.vocab_size]

    def _take_turn(self) -> Callable[[], None]:
        """Marks the session as busy; the function returned, called once or more, frees it."""
        if not self._busy.acquire(blocking=False):
            raise ChatError("this session is still answering; read the answer to its end, close() it, or stop() it")
        released = threading.Event()

        def release() -> None:
            if not released.is_set():
                released.set()
                self._busy.release()

        return release

    def _turn_lock(self) -> _Releasing:
        return _Releasing(self._take_turn())


Event = str | Step | ToolCallPart | ToolResultPart | None
"""What comes of an answer: words; a step of the model that it needs; a call and what it gave back; or None, when a part
of the prompt was read."""
Events = Generator[Event, torch.Tensor | None, None]


class AnswerStream(Iterator[str]):
    """The pieces of an answer, computed as they are read. Closing it early is the same as stopping it.

    Who has several answers computed together calls `advance` instead, takes their steps with a
    `videollm.chat.generation.Stepper`, and gives each the logits of its own.

    Attributes:
        most_tokens: how many positions the conversation has at most at the end of the answer.
    """

    def __init__(self, events: Events, release: Callable[[], None], model: Any, most_tokens: int) -> None:
        self._events, self._release, self._model = events, release, model
        self.most_tokens = most_tokens

    def __iter__(self) -> AnswerStream:
        return self

    def __next__(self) -> str:
        return next(event for event in self.events() if isinstance(event, str))

    def events(self) -> Iterator[str | ToolCallPart | ToolResultPart]:
        """Words, calls of tools and what these gave back, as they come."""
        outcome: torch.Tensor | BaseException | None = None
        while True:
            try:
                event = self.advance(outcome)
            except StopIteration:
                return
            outcome = None
            if isinstance(event, Step):
                try:
                    outcome = take_step(self._model, event)
                except BaseException as error:
                    outcome = error
            elif event is not None:
                yield event

    def advance(self, outcome: torch.Tensor | BaseException | None = None) -> Event:
        """Goes on to the next event.

        Args:
            outcome: of the step that was asked for: its logits (V,), or why there are none.

        Raises:
            StopIteration: the answer has ended.
        """
        try:
            if isinstance(outcome, BaseException):
                return self._events.throw(outcome)
            return self._events.send(outcome)
        except BaseException:  # its end among them
            self._release()
            raise

    def close(self) -> None:
        try:
            self._events.close()
        finally:
            self._release()

    def __del__(self) -> None:
        self.close()


class _Releasing:
    def __init__(self, release: Callable[[], None]) -> None:
        self._release = release

    def __enter__(self) -> None:
        return None

    def __exit__(self, *_: object) -> None:
        self._release()


class _Clock:
    """Measures one turn."""

    def __init__(self) -> None:
        self._start = self._encoded = self._prefilled = time.perf_counter()
        self._first_word: float | None = None
        self.clips: set[str] = set()

    def encoded(self) -> None:
        self._encoded = self._prefilled = time.perf_counter()

    def prefilled(self) -> None:
        self._prefilled = time.perf_counter()

    def word(self) -> None:
        if self._first_word is None:
            self._first_word = time.perf_counter()

    def timings(self, prompt: int, reused: int, generated: int) -> Timings:
        return Timings(
            prompt_tokens=prompt,
            reused_tokens=reused,
            prefilled_tokens=prompt - reused,
            generated_tokens=generated,
            encoded_clips=len(self.clips),
            encode_seconds=self._encoded - self._start,
            prefill_seconds=self._prefilled - self._encoded,
            first_word_seconds=None if self._first_word is None else self._first_word - self._start,
            total_seconds=time.perf_counter() - self._start,
        )


def clean_question(question: str, *, longest: int) -> str:
    """A question without blanks around it, once it is known to be text.

    Raises:
        EmptyQuestionError: it has no words.
        QuestionTooLongError: it has more than ``longest`` characters.
        ChatError: it holds control characters, or bytes that are no text.
    """
    text = question.strip()
    if len(text) > longest:
        raise QuestionTooLongError(
            f"the question has {len(text)} characters and the model reads at most {longest}; ask a shorter one"
        )
    for where, character in enumerate(text):
        category = unicodedata.category(character)
        if category in ("Cc", "Cs") and character not in "\n\r\t":
            kind = "a control character" if category == "Cc" else "a byte that is no UTF-8 text"
            raise ChatError(
                f"the question holds {kind} (U+{ord(character):04X}) at character {where + 1}; ask in plain text"
            )
    if all(unicodedata.category(character) in ("Zs", "Zl", "Zp", "Cc", "Cf") for character in text):
        raise EmptyQuestionError("the question is empty; ask something in words")
    return text


def printable(name: str) -> str:
    """A file's name as it can be shown: control characters and bytes that are no text become escapes."""
    bad = ("Cc", "Cs", "Zl", "Zp")
    return "".join(f"\\u{ord(c):04x}" if unicodedata.category(c) in bad else c for c in name)


def plain_part(part: Part) -> dict[str, Any]:
    """A part of a message as plain data, ready for `json.dumps`; what there is none of is left out."""
    return {name: value for name, value in asdict(part).items() if value is not None}


def _turns_of(messages: Sequence[Message]) -> tuple[list[_Turn], _Open | None]:
    """A conversation as turns, and the last one, where it waits for its answer.

    Raises:
        ChatError: another order of roles than question, rounds of call and result, answer.
    """
    found: list[_Turn] = []
    rest = list(messages)
    while rest:
        question, rounds = rest.pop(0), []
        while len(rest) > 1 and [rest[0].role, rest[1].role] == ["assistant", "tool"]:
            rounds += [rest.pop(0), rest.pop(0)]
        waits = bool(rounds) and not rest
        if len(rest) == 1 and rest[0].role == "assistant" and _calls_in(rest):
            rounds, waits = [*rounds, rest.pop(0)], True
        if question.role == "user" and waits:
            return found, _Open(question, tuple(rounds))
        if question.role != "user" or not rest or rest[0].role != "assistant":
            roles = [message.role for message in messages]
            raise ChatError(f"messages must be user and assistant in turn, after an optional system; found {roles}")
        found.append(_Turn(question, rest.pop(0), 0, tuple(rounds)))
    return found, None


def _calls_in(messages: Sequence[Message]) -> list[tuple[str, dict[str, Any]]]:
    """Names and arguments of the calls in messages."""
    parts = (part for message in messages for part in message.parts)
    return [(part.name, part.arguments) for part in parts if isinstance(part, ToolCallPart)]


def _joined(windows: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Windows that touch or overlap as one."""
    found: list[tuple[float, float]] = []
    for start, end in sorted(windows):
        if found and start <= found[-1][1] + 1e-3:
            found[-1] = (found[-1][0], max(found[-1][1], end))
        else:
            found.append((float(start), float(end)))
    return found

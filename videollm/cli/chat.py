"""`videollm chat`: one question about some clips, or a conversation.

The answer goes to stdout, last; what was seen and heard stands before it. Errors go to stderr, one line each. Without a
terminal there are no prompts and no colours, and questions are read from stdin, one a line.

While torch is being imported, which takes longer than anything else here, the clips are decoded in a worker process.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from videollm.errors import ConfigError, EmptyQuestionError, MediaNotFoundError, ModelNotFoundError, VideoLLMError

if TYPE_CHECKING:
    from videollm.chat.calls import Evidence
    from videollm.chat.session import Answer, ChatSession
    from videollm.clips import Clip
    from videollm.messages import ToolCallPart, ToolResultPart
    from videollm.models.memory import MemoryPlan

TINY_NOTICE = (
    "tiny was trained only on drawn shapes and synthetic sounds; of other videos it tells simple attributes, "
    "and it does not know people, places, objects or words."
)

AT_ONCE_SECONDS = 0.05
"""A file that is not there, or must not be read, is known in less than this; nobody waits for torch to hear of it."""

LONG_SECONDS = 15 * 60.0
"""What is longer is shown by stretches: so much is gone through while a question waits for a search."""
SEGMENT_SECONDS = 20.0

HELP = """\
/add PATH                    show another video, image or sound with the next question
/media                       list the clips, and what of each was seen and heard
/find WORDS                  moments at which something is seen or heard, in the clips or in --index
/look [CLIP] START END       watch a stretch again; times as 12.5 or 1:02
/listen [CLIP] START END     hear a stretch again
/narrate [CLIP] [START END]  what happens when
/chapters [CLIP]             the parts of a video
/undo                        take back the last question and answer
/clear                       forget the conversation and its clips
/save FILE                   write the conversation as JSON
/help                        show this list
/quit                        leave (or Ctrl-D, or Ctrl-C twice); Ctrl-C once stops an answer"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "words",
        nargs="*",
        metavar="CLIP",
        help="video, image or sound files; a last word that is no file and holds a space or a question mark is the "
        "question; without a question a conversation begins",
    )
    parser.add_argument("--ask", metavar="TEXT", help="the question, where it could be taken for a file")
    parser.add_argument("--model", default="tiny", metavar="NAME|DIR", help="default: the embedded tiny")
    parser.add_argument("--bits", type=int, choices=(4, 8), help="quantise the language model")
    parser.add_argument(
        "--device", help="cpu, cuda, cuda:1, mps, ...; two, as in cuda:0,cuda:1: of the encoders and of the decoder"
    )
    parser.add_argument("--decoder", choices=("pyav", "decord"), default="pyav", help="what reads video files")
    parser.add_argument("--frames", type=int, metavar="N", help="look at N frames of a clip at most")
    parser.add_argument("--max-new-tokens", type=int, metavar="N", help="cut answers after N tokens")
    parser.add_argument("--temperature", type=float, default=0.0, help="0, the default, is greedy")
    parser.add_argument("--top-p", type=float, default=1.0, help="draw from the likeliest words of this share")
    parser.add_argument("--seed", type=int, help="makes drawing repeatable")
    parser.add_argument(
        "--segments",
        type=float,
        metavar="SECONDS",
        help="show each question the moments of a long video that fit it, and segments of 10 to 30 seconds around "
        "them; what is longer than 15 minutes is shown so by itself, unless --frames says to look at it as one clip",
    )
    parser.add_argument("--index", metavar="INDEX", help="search in what videollm index has made, too")
    parser.add_argument("--encoder", metavar="DIR", help="the LaViLa dual encoder that the index was made with")
    parser.add_argument(
        "--calls",
        type=int,
        metavar="N",
        help="how often the model may narrate, search, look or listen by itself for an answer; default: 4 where its "
        "chat template has a form for it, else 0; in a conversation you can, see /help",
    )
    parser.add_argument("--json", action="store_true", help="one JSON object an answer")


def run(args: argparse.Namespace) -> int:
    started = time.perf_counter()
    paths, question = split_words(args.words, args.ask)
    if question is not None and not question.strip():
        raise EmptyQuestionError("the question is empty; ask something in words")
    if question is not None and not paths:
        raise MediaNotFoundError(
            f"no clip to ask {question!r} about: name a video, image or sound file before the question"
        )
    quiet()
    with ThreadPoolExecutor(1, thread_name_prefix="decode") as decoding:
        try:
            opening = [] if args.segments is not None else open_early(decoding, paths, args)
            wait(opening, timeout=AT_ONCE_SECONDS, return_when=FIRST_EXCEPTION)
            raise_failures(opening)
            import_models()
            clips = [future.result() for future in opening] or paths
            session = start(args)
            for clip, path in zip(clips, paths, strict=True):
                if args.segments is not None or is_long(clip, path, session, args):
                    watch(session, path, args)
                else:
                    session.add(clip, file=path)
        except BaseException:
            decoding.shutdown(wait=False, cancel_futures=True)
            raise
    conversation = Conversation(session, args, time.perf_counter() - started)
    if question is not None:
        return conversation.one(question)
    return conversation.talk() if sys.stdin.isatty() else conversation.read(sys.stdin)


def import_models() -> None:
    """All of torch and transformers: what takes longest of a first answer, a tenth less without collecting garbage."""
    import gc

    gc.disable()
    try:
        import videollm.models.hub  # noqa: F401
    finally:
        gc.enable()
    gc.freeze()


def split_words(words: list[str], ask: str | None) -> tuple[list[Path], str | None]:
    """Files and question of a command line; see ``--help`` for the rule."""
    if ask is None and words and not os.path.exists(words[-1]) and (not words[-1] or set(words[-1]) & set(" ?\t\n")):
        words, ask = words[:-1], words[-1]
    return [Path(word) for word in words], ask


def quiet() -> None:
    """Silences what libraries say about themselves; before they are imported."""
    import logging
    import warnings

    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("BITSANDBYTES_NOWELCOME", "1")
    logging.getLogger("bitsandbytes").setLevel(logging.CRITICAL)
    warnings.filterwarnings("ignore")


def raise_failures(opening: list[Future[Clip]]) -> None:
    """Raises what is already known to have gone wrong."""
    for future in opening:
        if future.done() and (error := future.exception()) is not None:
            raise error


def open_early(decoding: ThreadPoolExecutor, paths: list[Path], args: argparse.Namespace) -> list[Future[Clip]]:
    """Begins to decode before torch is there. Empty where that cannot be: then the session opens the clips.

    How clips are sampled stands in the model's folder, in plain JSON.
    """
    from videollm.media.decode_worker import open_clip
    from videollm.media.sampling import FrameSampling, SoundSampling

    # Not by models.hub: that room imports torch, and this is about not waiting for it.
    embedded = Path(__file__).parent.parent / "assets" / args.model
    folder = embedded if embedded.is_dir() else Path(args.model).expanduser()
    try:
        sampling = json.loads((folder / "processor_config.json").read_text())
        hears = json.loads((folder / "config.json").read_text())["audio_config"] is not None
        frame_sampling, sound_sampling = sampling["frame_sampling"], sampling["sound_sampling"]
    except (OSError, ValueError, KeyError, TypeError):  # no folder of a model: loading it says what is wrong
        return []

    try:
        frames = FrameSampling(**with_frames(frame_sampling, args.frames))
        sound = SoundSampling(**sound_sampling) if hears else None
    except (TypeError, ValueError) as error:
        raise ModelNotFoundError(
            f"no model in {folder}: what processor_config.json says of sampling cannot be used ({error}); save it again"
        ) from error
    return [decoding.submit(open_clip, path, frames=frames, sound=sound, decoder=args.decoder) for path in paths]


def with_frames(sampling: dict[str, Any], frames: int | None) -> dict[str, Any]:
    """A processor's frame sampling with another number of frames."""
    if frames is None:
        return dict(sampling)
    if frames < 1:
        raise ConfigError(f"--frames must be at least 1, found {frames}")
    return {**sampling, "max_frames" if sampling.get("strategy") == "rate" else "frames": frames}


def start(args: argparse.Namespace) -> ChatSession:
    """Imports torch, loads the model, opens a session."""
    from videollm.chat.generation import GenerationOptions
    from videollm.chat.session import ChatSession
    from videollm.models.hub import load
    from videollm.tools.router import Router, ToolLimits

    # A wrong flag is known before a large model is loaded.
    chosen = {} if args.max_new_tokens is None else {"max_new_tokens": args.max_new_tokens}
    GenerationOptions(**chosen, **drawing(args))
    limits = ToolLimits() if args.calls is None else ToolLimits(calls_per_turn=args.calls)
    searched = searched_in(args)
    device, device_map = args.device, None
    if device is not None and "," in device:
        encoders, _, decoder = device.partition(",")
        device, device_map = None, {"encoders": encoders.strip(), "decoder": decoder.strip()}
    model, processor = load(args.model, device=device, bits=args.bits, device_map=device_map, announce=say_plan)
    table = model.config.max_frame_positions
    if args.frames is not None and args.frames > table:
        raise ConfigError(f"--frames {args.frames} is more than the {table} frames this model looks at; use fewer")
    processor.frame_sampling = with_frames(processor.frame_sampling, args.frames)
    tools = Router.of_model(model, processor, limits=limits, **searched)
    return ChatSession(
        model,
        processor,
        max_new_tokens=args.max_new_tokens,
        decoder=args.decoder,
        tools=tools,
        calls=args.calls is not None or processor.calls_tools,
    )


def is_long(clip: Clip | Path, path: Path, session: ChatSession, args: argparse.Namespace) -> bool:
    """Whether a clip is so long that a few frames of it tell little, and nobody said how to look at it."""
    if isinstance(clip, Path) or clip.duration_seconds <= LONG_SECONDS or args.frames is not None:
        return False
    return args.index is None or str(path.resolve()) in known_videos(session)


def known_videos(session: ChatSession) -> set[str]:
    """Paths of the videos in the index that is searched."""
    index = getattr(session.tools, "index", None)
    return set() if index is None else {video.path for video in index.videos()}


def watch(session: ChatSession, path: Path, args: argparse.Namespace) -> None:
    """Shows a long video by stretches, chosen by what an index tells of it; without one, it is gone through now."""
    from videollm.cli.narrate import Bar, tell
    from videollm.tools.router import Router

    router = session.tools
    assert isinstance(router, Router)
    if router.index is not None and str(path.resolve()) not in known_videos(session):
        raise ConfigError(f"{path} is not in {args.index}; index it first, or leave --index out")
    line = session.watch(
        path,
        segment_seconds=SEGMENT_SECONDS if args.segments is None else args.segments,
        choose=lambda words: router.stretches(words, path),
    )
    if router.index is not None:
        return
    tell(
        f"{line.video} lasts {line.duration_seconds / 60:.0f} minutes and is gone through once, so that each question "
        "finds its moment; to keep that for the next time: videollm index FILE --cuts --into INDEX, then --index INDEX"
    )
    bar = Bar(path.name)
    try:
        router.prepare([path], lambda _: bar)
    finally:
        bar.close()


def searched_in(args: argparse.Namespace) -> dict[str, Any]:
    """The index that is searched, and what finds in it by what is seen; empty where none is named."""
    if args.index is None:
        if args.encoder is not None:
            raise ConfigError("--encoder is for searching an index; name one with --index INDEX")
        return {}
    from videollm.moments.embed import load_sight_encoder
    from videollm.moments.store import MomentStore

    store = MomentStore.open(args.index)
    if args.encoder is None:
        return {"index": store}
    encoder = load_sight_encoder(args.encoder, args.device)
    store.check_encoder("seen", encoder.name)
    return {"index": store, "encoder": encoder}


def drawing(args: argparse.Namespace) -> dict[str, Any]:
    """How words are drawn: options of an answer."""
    return {"temperature": args.temperature, "top_p": args.top_p, "seed": args.seed}


def say_plan(plan: MemoryPlan) -> None:
    """Says what a large model will take, before the wait for it begins."""
    print("\n".join(("memory plan:", *(f"  {line}" for line in plan.lines()))), file=sys.stderr, flush=True)


class Conversation:
    """A session on a terminal, in a pipe, or for one question."""

    def __init__(self, session: ChatSession, args: argparse.Namespace, load_seconds: float) -> None:
        self.session = session
        self.json = args.json
        self.model = args.model
        self.notice = TINY_NOTICE if args.model == "tiny" else None
        self.load_seconds = load_seconds
        self.options = drawing(args)
        self.colours = sys.stdout.isatty() and "NO_COLOR" not in os.environ
        self.greeted = False
        self.told: set[str] = set()
        self.commands: dict[str, Callable[[str], None]] = {
            "/add": self.add,
            "/media": self.media,
            "/find": lambda words: self.call("search", {"query": words} if words else {}),
            "/look": lambda words: self.call("look", self.stretch(words)),
            "/listen": lambda words: self.call("listen", self.stretch(words)),
            "/narrate": lambda words: self.call("narrate", self.stretch(words, whole=True)),
            "/chapters": lambda words: self.call("chapters", {"video": words or self.last_video()}),
            "/undo": self.undo,
            "/clear": self.clear,
            "/save": self.save,
            "/help": lambda _: self.say(HELP),
        }

    # -- ways in ---------------------------------------------------------------------------------------------------

    def one(self, question: str) -> int:
        """Answers one question."""
        return 130 if self.answer(question).stopped else 0

    def read(self, lines: Any) -> int:
        """Answers questions from a pipe. A line that fails is reported and the next one read; the exit code is 2."""
        lines.reconfigure(errors="surrogateescape")
        failed = False
        for line in lines:
            if line.strip() in ("/quit", "/exit"):
                break
            failed |= not self.line(line)
        return 2 if failed else 0

    def talk(self) -> int:
        """Talks on a terminal."""
        import contextlib

        with contextlib.suppress(ImportError):  # gives the prompt its history and its arrow keys
            import readline  # noqa: F401
        self.greet()
        self.cover()
        self.say("Ask, or /help.", dim=True)
        interrupted = False
        while True:
            try:
                line = input("> ")
            except EOFError:
                self.say("")
                return 0
            except KeyboardInterrupt:
                if interrupted:
                    self.say("")
                    return 130
                interrupted = True
                self.say("\n(Ctrl-C again leaves)", dim=True)
                continue
            interrupted = False
            if line.strip() in ("/quit", "/exit"):
                return 0
            self.line(line)

    def line(self, line: str) -> bool:
        """Obeys a command or answers a question; an error is one line, and False."""
        from videollm.cli.main import one_line

        text = line.strip()
        if not text:
            return True
        try:
            word, _, rest = text.partition(" ")
            if word in self.commands:
                try:
                    self.commands[word](rest.strip())
                except KeyboardInterrupt:  # of a file that takes long, say: the conversation goes on
                    self.say(f"{word} was interrupted", dim=True)
                    return False
            elif text.startswith("/") and "/" not in word[1:]:
                raise ConfigError(f"no command {word}; /help lists them")
            else:
                self.answer(text)
        except VideoLLMError as error:
            sys.stdout.flush()
            print(one_line(f"videollm: {error}"), file=sys.stderr, flush=True)
            return False
        return True

    # -- answering -------------------------------------------------------------------------------------------------

    def answer(self, question: str) -> Answer:
        """Asks, and shows the answer as it comes."""
        stream = self.session.stream(question, **self.options)
        with stop_on_interrupt(self.session):
            if self.json:
                for _ in stream:
                    pass
            else:
                self.greet()
                self.cover()
                for event in stream.events():
                    if isinstance(event, str):
                        self.put(event)
                    else:
                        self.tell(event)
                self.put("\n")
        answer = self.session.last
        assert answer is not None
        if self.json:
            record = {"question": question, **answer.to_json(), "model": self.model, "notice": self.notice}
            record["timings"]["load_seconds"] = self.load_seconds
            print(json.dumps(record), flush=True)
        else:
            for note in (*answer.notes, *(["stopped"] if answer.stopped else [])):
                self.say(f"({note})", dim=True)
            told = [one for one in answer.used if answer.rounds or one.how in ("narrated", "retrieved")]
            if told:
                self.say(f"(rests on {receipts(told)})", dim=True)
        return answer

    def tell(self, event: ToolCallPart | ToolResultPart) -> None:
        """Shows a call, or what it gave back, before the answer."""
        if event.type == "tool_call":
            self.say(f"({event.name} {' '.join(in_brief(value) for value in event.arguments.values())})", dim=True)
        else:
            for line in event.content.splitlines():
                self.say(f"  {line}", dim=True)

    def call(self, name: str, arguments: dict[str, Any]) -> None:
        """Calls a tool for the person; what it finds also goes with the next question."""
        if name == "search" and not arguments:
            raise ConfigError("/find needs words: /find WORDS")
        with stop_on_interrupt(self.session):
            outcome = self.session.call(name, arguments)
        if outcome.refused:
            raise ConfigError(outcome.content)
        self.say(outcome.content)

    def last_video(self) -> str:
        """The clip that is meant where none is named."""
        videos = [clip.name for clip in self.session.coverage if clip.duration_seconds > 0]
        videos += [timeline.video for timeline in self.session.timelines]
        if not videos:
            raise ConfigError("there is no video or sound; /add PATH adds one")
        return videos[-1]

    def stretch(self, words: str, whole: bool = False) -> dict[str, Any]:
        """The clip, start and end that words name; ``whole``: all of it, where they name no times."""
        parts = words.split()
        times = [seconds_of(part) for part in parts[-2:]]
        if len(times) == 2 and None not in times:
            video = " ".join(parts[:-2]) or self.last_video()
            return {"video": video, "start_seconds": times[0], "end_seconds": times[1]}
        if not whole:
            raise ConfigError(f"a start and an end are needed, as in 1:02 1:10; found {words!r}")
        video = words.strip() or self.last_video()
        lasts = {clip.name: clip.duration_seconds for clip in self.session.coverage}
        lasts |= {timeline.video: timeline.duration_seconds for timeline in self.session.timelines}
        return {"video": video, "start_seconds": 0.0, "end_seconds": lasts.get(video, 1e6)}

    def greet(self) -> None:
        """Says once, first, what the model is for."""
        if self.notice and not self.greeted:
            self.say(self.notice, dim=True)
        self.greeted = True

    def cover(self) -> None:
        """Says of each clip, once, what the model is shown of it."""
        shown = [(clip.name, clip.sentence) for clip in self.session.coverage]
        shown += [(timeline.video, timeline.sentence) for timeline in self.session.timelines]
        for name, sentence in shown:
            if name not in self.told:
                self.told.add(name)
                self.say(f"({sentence})", dim=True)

    # -- commands --------------------------------------------------------------------------------------------------

    def add(self, path: str) -> None:
        if not path:
            raise ConfigError("/add needs a path: /add PATH")
        self.session.add(Path(path).expanduser())
        if not self.json:
            self.cover()

    def media(self, _: str) -> None:
        for shown in (*self.session.coverage, *self.session.timelines):
            self.say(shown.sentence)
        if not self.session.coverage and not self.session.timelines:
            self.say("no clips; /add PATH adds one")

    def undo(self, _: str) -> None:
        question = self.session.undo()
        self.say("nothing to take back" if question is None else f"took back: {question}")

    def clear(self, _: str) -> None:
        self.session.clear()
        self.told.clear()
        self.say("forgot everything")

    def save(self, path: str) -> None:
        if not path:
            raise ConfigError("/save needs a file: /save FILE")
        text = json.dumps({"model": self.model, **self.session.transcript()}, indent=1) + "\n"
        target = Path(path).expanduser()
        try:
            with target.open("x", encoding="utf-8") as file:  # "x": a conversation never overwrites a file
                file.write(text)
        except OSError as error:
            raise ConfigError(f"cannot write {str(target)!r}: {error.strerror}; choose another file") from None
        self.say(f"saved {target}")

    # -- output ----------------------------------------------------------------------------------------------------

    def say(self, text: str, *, dim: bool = False) -> None:
        """A line about the conversation; with --json these go to stderr, so that stdout is JSON only."""
        text = shown(text)
        if self.json:
            print(text, file=sys.stderr, flush=True)
        else:
            print(f"\x1b[2m{text}\x1b[0m" if dim and self.colours else text, flush=True)

    @staticmethod
    def put(piece: str) -> None:
        sys.stdout.write(shown(piece))
        sys.stdout.flush()


def seconds_of(text: str) -> float | None:
    """``12.5``, ``1:02`` or ``1:02:03`` in seconds; None for anything else."""
    if not re.fullmatch(r"(?:\d{1,3}:){0,2}\d+(?:\.\d+)?", text):
        return None
    total = 0.0
    for part in text.split(":"):
        total = total * 60 + float(part)
    return total


def in_brief(value: Any) -> str:
    """An argument of a call, for a person."""
    return f"{value:g}" if isinstance(value, float) else str(value)


def receipts(used: Sequence[Evidence]) -> str:
    """The stretches that an answer rests on: ``seen film.mp4 [0:12-0:16]; heard film.mp4 [0:02-0:04]``."""
    from videollm.tools.narrate import clock

    places: dict[tuple[str, str], list[str]] = {}
    for one in used:
        stretch = f"[{clock(one.start_seconds)}-{clock(one.end_seconds)}]"
        places.setdefault((one.how, one.video), []).append(stretch)
    return "; ".join(f"{how} {video} {' '.join(stretches)}" for (how, video), stretches in places.items())


def shown(text: str) -> str:
    """Text without characters that command a terminal."""
    return "".join(c if c.isprintable() or c in "\n\t" else f"\\x{ord(c):02x}" for c in text)


@contextmanager
def stop_on_interrupt(session: ChatSession) -> Iterator[None]:
    """While an answer is computed, the first Ctrl-C stops it and a second one leaves the program."""

    def stop(signum: int, frame: Any) -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        session.stop()

    before = signal.signal(signal.SIGINT, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)

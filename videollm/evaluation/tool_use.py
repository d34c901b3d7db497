"""Whether a chat model calls the right tool about long films, and answers rightly from what it gives back.

Films of ten minutes, real files of about a hundred scenes each that no training draws, are asked about in wordings kept
for testing: about a moment, for a moment, about a stretch, about the film's parts. Each question is asked twice, in a
conversation with tools and in one without; beside them are asked questions for which no tool is needed, about short
clips and about nothing that a film could show. All answers are the decoder's own.

Right is, by kind of question:

* ``look``, ``listen``: word for word what the world says of the scene.
* ``how``: the same; "it" may stand for the thing.
* ``when``: the first time that is named lies in a scene that shows the thing, or from the start of a scene to the end
  of the sound in it: a moment that is found is a shot. A second time may be named, the end of a span.
* ``narrate``: the things that are named are those that are there.
* ``part_begins``: the first time that is named, of two at most, is the second at which `videollm.tools.chapters` lets
  the part begin; ``part_is``: what is named is there in that part.

The index of a film is cut as chat cuts its own: into shots.
"""

from __future__ import annotations

import json
import math
import re
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from videollm.chat.cache import EncodedMedia
from videollm.chat.calls import times_in
from videollm.chat.session import ChatSession
from videollm.clips import Clip, Waveform
from videollm.data import dialogue as talk
from videollm.data import world_tools as ask
from videollm.data.drawing import render
from videollm.data.sounds import beep_times, synthesise
from videollm.data.world import COLOURS, SCENE_KINDS, SHAPES, Scene, SoundEvent
from videollm.data.world_files import test_scene, write_scene
from videollm.data.world_tools import Kind, name_of
from videollm.errors import ConfigError
from videollm.evaluation.benchmark import ToolBenchmark
from videollm.media.decode_worker import open_clip
from videollm.media.sampling import FrameSampling, SoundSampling
from videollm.media.write import write_video
from videollm.messages import ToolCallPart, ToolResultPart
from videollm.models import hub
from videollm.moments.store import MomentStore
from videollm.tools.chapters import Chapter, chapters_of_moments
from videollm.tools.index import LISTEN_QUESTION, LOOK_QUESTION, Crew, index
from videollm.tools.narrators import ChatNarrator
from videollm.tools.router import OWN_WINDOWS, Router, ToolLimits

WIDTH_PX, HEIGHT_PX, RATE_HZ = 128, 96, 8
SOUND_HZ = 16000
AROUND_SECONDS = 2.0
"""A moment that is asked about is so far inside its scene at least."""
CUT_SECONDS = 0.5
"""So far before a scene a time may lie that is to be its start: cuts are found between two frames a quarter of a second
apart, and clocks tell whole seconds."""
KINDS: dict[Kind, int] = {
    "look": 18, "listen": 9, "when": 8, "how": 5, "narrate": 5, "part_begins": 2, "part_is": 3,
}  # fmt: skip
"""Of fifty questions about a film, how many are of each kind."""
_THING = re.compile(rf"\b({'|'.join(COLOURS)}) ({'|'.join(SHAPES)})\b")


@dataclass(frozen=True)
class Shown:
    """A scene of a film, and from when to when it is shown, seconds of the film."""

    scene: Scene
    start_seconds: float
    end_seconds: float

    @property
    def names(self) -> set[str]:
        return {name_of(thing) for thing in self.scene.things}

    @cached_property
    def events(self) -> list[tuple[SoundEvent, float, float]]:
        """Sounds as far as they are heard, in seconds of the film."""
        found = []
        for event in self.scene.sounds:
            last = event.end_seconds
            if event.kind in ("beeps", "clicks"):
                last = float(beep_times(event)[-1]) + 0.15
            start, end = self.start_seconds + event.start_seconds, min(self.start_seconds + last, self.end_seconds)
            if end > start:
                found.append((event, start, end))
        return found


@dataclass(frozen=True)
class Asked:
    """A question, and what is right.

    ``truth`` is what the world says; ``right`` decides about an answer.
    """

    film: str
    kind: Kind
    question: str
    truth: str
    right: Callable[[str], bool]


@dataclass(frozen=True)
class Item:
    """A question that was answered.

    Attributes:
        film: its file.
        kind: of question; "none": no tool is needed.
        question, truth: what was asked, and what the world says.
        called: the calls in words, the first one first.
        told: what the first one gave back.
        answer: with tools.
        right, right_tool: whether it is, and whether the first call is of the right tool, or rightly none.
        alone, alone_right: the answer without tools; None where it was not asked.
    """

    film: str
    kind: Kind
    question: str
    truth: str
    called: tuple[str, ...]
    told: str
    answer: str
    right: bool
    right_tool: bool
    alone: str | None = None
    alone_right: bool | None = None


# --- films ------------------------------------------------------------------------------------------------------------


def scenes_of(seconds: float, first: int) -> list[Shown]:
    """Scenes of one or two things that no training draws, one after the other, until so many seconds are full."""
    found: list[Shown] = []
    at, number = 0.0, first
    while at < seconds:
        scene = test_scene("two" if number % 3 == 0 else "one", "seen", number)
        length = int(scene.duration_seconds * 2) / 2
        if scene.timed and length >= 3 and abs(scene.width_px / scene.height_px - WIDTH_PX / HEIGHT_PX) < 0.03:
            found.append(Shown(scene, at, at + length))
            at += length
        number += 1
    return found


def write_film(film: Sequence[Shown], path: Path) -> None:
    """The film as a file with its sound."""

    def pictures() -> Iterator[np.ndarray]:
        for one in film:
            count = round((one.end_seconds - one.start_seconds) * RATE_HZ)
            drawn = render(one.scene, np.arange(count) / RATE_HZ, long_px=WIDTH_PX)[:, :HEIGHT_PX, :WIDTH_PX]
            missing = ((0, 0), (0, HEIGHT_PX - drawn.shape[1]), (0, WIDTH_PX - drawn.shape[2]), (0, 0))
            yield from np.pad(drawn, missing, "edge")

    samples = np.zeros((1, round(film[-1].end_seconds * SOUND_HZ)), np.float32)
    for one in film:
        heard = synthesise(one.scene, SOUND_HZ, 1)
        if heard is not None:
            start = round(one.start_seconds * SOUND_HZ)
            part = heard[:, : round((one.end_seconds - one.start_seconds) * SOUND_HZ)]
            samples[:, start : start + part.shape[1]] = part
    staging = path.with_name(f".{path.name}")
    write_video(staging, pictures(), fps=RATE_HZ, waveform=Waveform(samples, SOUND_HZ), key_every=RATE_HZ)
    staging.replace(path)


# --- questions --------------------------------------------------------------------------------------------------------


def questions_about(name: str, film: Sequence[Shown], parts: Sequence[Chapter], count: int, seed: int) -> list[Asked]:
    """So many questions of all kinds about a film.

    Args:
        name: of the film.
        film: what it shows.
        parts: its parts, as the index tells them.
        count: how many, in the proportions of `KINDS`.
        seed: of what is drawn.
    """
    rng = np.random.default_rng([seed, 53])
    makers: dict[Kind, Callable[[], Asked | None]] = {
        "look": lambda: _look(name, film, rng),
        "listen": lambda: _listen(name, film, rng),
        "when": lambda: _when(name, film, rng),
        "how": lambda: _how(name, film, rng),
        "narrate": lambda: _narrate(name, film, rng),
        "part_begins": lambda: _part("part_begins", name, film, parts, rng),
        "part_is": lambda: _part("part_is", name, film, parts, rng),
    }
    wanted = [kind for kind, share in KINDS.items() for _ in range(share)]
    rounds = -(-count // len(wanted))
    order = [kind for _ in range(rounds) for kind in rng.permutation(wanted).tolist()][:count]
    found: list[Asked] = []
    said: set[str] = set()
    for kind in order:
        for _ in range(200):
            made = makers[kind]()
            if made is not None and made.question not in said:
                said.add(made.question)
                found.append(made)
                break
    return found


def _pick(rng: np.random.Generator, options: Sequence[Any]) -> Any:
    return options[int(rng.integers(len(options)))]


def _moment(one: Shown, rng: np.random.Generator) -> int | None:
    """A whole second well inside a scene."""
    inside = range(math.ceil(one.start_seconds + AROUND_SECONDS), math.floor(one.end_seconds - AROUND_SECONDS) + 1)
    return None if not inside else int(_pick(rng, inside))


def _same(truth: str) -> Callable[[str], bool]:
    return lambda answer: answer.strip().lower() == truth.lower()


def _look(name: str, film: Sequence[Shown], rng: np.random.Generator) -> Asked | None:
    one = _pick(rng, film)
    second = _moment(one, rng)
    if second is None:
        return None
    picture = talk.Picture("red", 0.0, "dark", 0.0)  # nothing of it is asked
    question, asked = ask.ask_look(one.scene, picture, rng, ask.clock(second), held_out=True)
    return Asked(name, "look", question, asked.answer, _same(asked.answer))


def _listen(name: str, film: Sequence[Shown], rng: np.random.Generator) -> Asked | None:
    one = _pick(rng, film)
    second = _moment(one, rng)
    if second is None:
        return None
    low, high = second - AROUND_SECONDS, second + AROUND_SECONDS
    near = [event for event in one.events if event[1] < high and event[2] > low]
    if len(near) != 1:
        return None
    event, start, end = near[0]
    whole = start >= low and end <= high
    if not whole and (event.kind in ("beeps", "clicks") or min(end, high) - max(start, low) < 1.5):
        return None
    heard = replace(one.scene, sounds=(event,))
    question, asked = ask.ask_listen(heard, rng, ask.clock(second), held_out=True)
    return Asked(name, "listen", question, asked.answer, _same(asked.answer))


def _said_within(spans: Sequence[tuple[float, float]]) -> Callable[[str], bool]:
    """One time, or the two of a span, of which the first lies in one of these."""

    def right(answer: str) -> bool:
        times = times_in(answer)
        return len(times) in (1, 2) and any(start - CUT_SECONDS <= times[0] <= end for start, end in spans)

    return right


def _once(film: Sequence[Shown], rng: np.random.Generator) -> tuple[Shown, Any] | None:
    """A thing that no other scene of the film shows."""
    one = _pick(rng, film)
    thing = _pick(rng, one.scene.things)
    return (one, thing) if sum(name_of(thing) in other.names for other in film) == 1 else None


def _when(name: str, film: Sequence[Shown], rng: np.random.Generator) -> Asked | None:
    if rng.random() < 0.3:
        sound = _pick(rng, [event.kind for one in film for event, _, _ in one.events])
        spans = [(one.start_seconds, end) for one in film for event, _, end in one.events if event.kind == sound]
        question = ask.ask_when(sound, rng, held_out=True, sound=True)
    else:
        found = _once(film, rng)
        if found is None:
            return None
        spans = [(found[0].start_seconds, found[0].end_seconds)]
        question = ask.ask_when(name_of(found[1]), rng, held_out=True)
    truth = " or ".join(f"{ask.clock(start)}-{ask.clock(end)}" for start, end in spans)
    return Asked(name, "when", question, truth, _said_within(spans))


def _how(name: str, film: Sequence[Shown], rng: np.random.Generator) -> Asked | None:
    found = _once(film, rng)
    if found is None:
        return None
    truth, thing = ask.moves_of(found[1]), name_of(found[1])
    bare = f"It{truth.removeprefix(f'The {thing}')}"
    question = ask.ask_how(thing, rng, held_out=True)
    return Asked(name, "how", question, truth, lambda answer: _same(truth)(answer) or _same(bare)(answer))


def _named(text: str) -> set[str]:
    return {" ".join(found) for found in _THING.findall(text.lower())}


def _narrate(name: str, film: Sequence[Shown], rng: np.random.Generator) -> Asked | None:
    """Of two whole scenes, to the second."""
    first, second = _pick(rng, list(pairwise(film)))
    start, end = math.ceil(first.start_seconds), math.floor(second.end_seconds)
    there = first.names | second.names
    question = ask.ask_between(start, end, rng, held_out=True)
    return Asked(name, "narrate", question, ", ".join(sorted(there)), lambda answer: _named(answer) == there)


def _part(
    kind: Kind, name: str, film: Sequence[Shown], parts: Sequence[Chapter], rng: np.random.Generator
) -> Asked | None:
    number = int(rng.integers(min(2, len(parts))))
    part = parts[number]
    question = ask.ask_part(kind, number, rng, held_out=True)
    if kind == "part_begins":
        second = int(part.start_seconds)

        def right(answer: str) -> bool:
            times = times_in(answer)
            return len(times) in (1, 2) and int(times[0]) == second

        return Asked(name, kind, question, ask.clock(second), right)
    there = {
        thing
        for one in film
        if one.start_seconds < part.end_seconds and one.end_seconds > part.start_seconds
        for thing in one.names
    }
    return Asked(name, kind, question, part.title, lambda answer: bool(_named(answer)) and _named(answer) <= there)


def questions_without_need(seed: int) -> Iterator[tuple[Scene | None, str, str]]:
    """(scene of a short clip, or None: of a film; a question for which no tool is needed; its answer), without end."""
    rng = np.random.default_rng([seed, 59])
    number = 0
    while True:
        number += 1
        if number % 4 == 0:
            _, question, answer = talk.outside(rng, held_out=True)
            yield None, question, answer
            continue
        scene = test_scene(_pick(rng, SCENE_KINDS), "seen", 5000 + number)
        pool = [one for one in talk.questions(scene, talk.Picture("red", 0.0, "dark", 0.0), rng) if one.answer]
        asked = _pick(rng, pool)
        yield scene, talk.word(asked, rng, held_out=True), asked.answer


# --- answers ----------------------------------------------------------------------------------------------------------


class ToolExaminer:
    """Puts questions to a chat model, with and without tools."""

    def __init__(self, benchmark: ToolBenchmark, folder: Path) -> None:
        self.benchmark, self.folder = benchmark, folder
        self.model, self.processor = hub.load(benchmark.model)
        if not self.processor.calls_tools:
            raise ConfigError(f"the model {benchmark.model} does not call tools itself; measure one that does")
        self.encoded = EncodedMedia()
        chat = ChatNarrator(self.model, self.processor, question=LOOK_QUESTION, identity=str(hub.find(benchmark.model)))
        self.crew = Crew(chat, chat.asking(LISTEN_QUESTION))

    def film(self, number: int) -> tuple[Path, list[Shown], MomentStore]:
        """A film, what it shows, and its index; each made unless it is there."""
        film = scenes_of(self.benchmark.seconds, self.benchmark.first_scene + number * 10_000)
        path = self.folder / f"film{number}.mp4"
        if not path.exists():
            write_film(film, path)
        place = self.folder / f"film{number}.index"
        done = index([path], place, self.crew, OWN_WINDOWS)
        if done.failed:
            raise ConfigError(done.failed[0][1])
        return path, film, MomentStore.open(place)

    def clip(self, path: Path) -> Clip:
        """A file as a conversation shows it."""
        processor: Any = self.processor
        frames, sound = FrameSampling(**processor.frame_sampling), SoundSampling(**processor.sound_sampling)
        return open_clip(path, frames=frames, sound=sound)

    def router(self, store: MomentStore | None) -> Router:
        # The limit of time is for people who wait.
        return Router.of_model(self.model, self.processor, index=store, limits=ToolLimits(seconds_per_call=600.0))

    def answer(self, path: Path, clip: Clip, tools: Router, asked: Asked) -> Item:
        """Asks once, in a conversation of its own."""
        session = ChatSession(self.model, self.processor, tools=tools, encoded=self.encoded)
        session.add(clip, file=path)
        answer = session.ask(asked.question)
        calls = [part for part in answer.rounds if isinstance(part, ToolCallPart)]
        told = next((part.content for part in answer.rounds if isinstance(part, ToolResultPart)), "")
        wanted = ask.TOOL_OF[asked.kind]
        said = tuple(f"{call.name} {json.dumps(call.arguments)}" for call in calls)
        return Item(
            asked.film, asked.kind, asked.question, asked.truth, said, told, answer.text, asked.right(answer.text),
            (calls[0].name if calls else None) == wanted,
        )  # fmt: skip

    def alone(self, clip: Clip, question: str) -> str:
        """The answer without tools."""
        session = ChatSession(self.model, self.processor, encoded=self.encoded)
        session.add(clip)
        return session.ask(question).text


def evaluate_tools(benchmark: ToolBenchmark, out: Path, report: Callable[[str], None] = print) -> list[Item]:
    """Ask about films, and write ``predictions.jsonl`` and ``scores.json``.

    Args:
        benchmark: what to measure.
        out: folder of the results; made if it is missing.
        report: gets the text of the report.

    Raises:
        ConfigError: the folder cannot be made, or the model does not call tools.
        ModelNotFoundError: no such model.
    """
    started = time.monotonic()
    items: list[Item] = []
    with tempfile.TemporaryDirectory(prefix="videollm-") as temporary:
        folder = Path(temporary) if benchmark.films_folder is None else Path(benchmark.films_folder)
        try:
            out.mkdir(parents=True, exist_ok=True)
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(f"{error.filename} cannot be made ({error.strerror}); give another folder") from None
        examiner = ToolExaminer(benchmark, folder)
        films: list[tuple[Path, Clip, Router]] = []
        each = -(-benchmark.questions // benchmark.films)
        for number in range(benchmark.films):
            path, film, store = examiner.film(number)
            clip, router = examiner.clip(path), examiner.router(store)
            films.append((path, clip, router))
            parts = chapters_of_moments(store.moments(str(path.resolve())))
            for asked in questions_about(path.name, film, parts, each, number):
                item = examiner.answer(path, clip, router, asked)
                alone = examiner.alone(clip, asked.question)
                items.append(replace(item, alone=alone, alone_right=asked.right(alone)))
        bare = examiner.router(None)
        drawn = questions_without_need(benchmark.first_scene)
        for number in range(benchmark.questions):
            scene, question, truth = next(drawn)
            if scene is None:
                path, clip, router = films[number % len(films)]
            else:
                path, router = folder / f"short{number}.mp4", bare
                if not path.exists():
                    write_scene(scene, path)
                clip = examiner.clip(path)
            items.append(examiner.answer(path, clip, router, Asked(path.name, "none", question, truth, _same(truth))))
        bare.close()
    with (out / "predictions.jsonl").open("w", encoding="utf-8") as file:
        for item in items:
            file.write(json.dumps(asdict(item)) + "\n")
    scores = scores_of(items)
    (out / "scores.json").write_text(json.dumps(scores, indent=1) + "\n", encoding="utf-8")
    for line in lines_of(scores):
        report(line)
    report(
        f"{len(items)} questions about {benchmark.films} films of {benchmark.seconds / 60:g} min and short clips in "
        f"{(time.monotonic() - started) / 60:.1f} min; each answer is in {out / 'predictions.jsonl'}"
    )
    return items


def scores_of(items: Sequence[Item]) -> dict[str, Any]:
    """Shares, of all questions that need a tool and by kind, and of those that need none."""

    def share(several: Sequence[Item], what: str) -> float | None:
        return sum(bool(getattr(one, what)) for one in several) / len(several) if several else None

    need = [one for one in items if one.kind != "none"]
    rest = [one for one in items if one.kind == "none"]
    kinds = {
        kind: {
            "questions": len(several),
            "right with tools": share(several, "right"),
            "right without": share(several, "alone_right"),
            "right tool": share(several, "right_tool"),
        }
        for kind in KINDS
        if (several := [one for one in need if one.kind == kind])
    }
    return {
        "questions": len(need),
        "right with tools": share(need, "right"),
        "right without": share(need, "alone_right"),
        "right tool": share(need, "right_tool"),
        "questions without need": len(rest),
        "no tool when none is needed": share(rest, "right_tool"),
        "right when none is needed": share(rest, "right"),
        "kinds": kinds,
    }


def lines_of(scores: dict[str, Any]) -> list[str]:
    """The report."""

    def percent(value: float | None) -> str:
        return "-" if value is None else f"{value:.1%}"

    columns = ("right with tools", "right without", "right tool")
    lines = [f"{'kind':<12}{'questions':>10}" + "".join(f"{name:>18}" for name in columns)]
    for kind, row in (*scores["kinds"].items(), ("all", scores)):
        lines.append(f"{kind:<12}{row['questions']:>10}" + "".join(f"{percent(row[name]):>18}" for name in columns))
    lines.append(
        f"no tool when none is needed: {percent(scores['no tool when none is needed'])} of "
        f"{scores['questions without need']}, answered rightly {percent(scores['right when none is needed'])}"
    )
    return lines

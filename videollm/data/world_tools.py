"""Conversations about long films of the world in which tools are called: what `tiny` learns to call from.

A film is many scenes, of which a model sees a few frames. Whoever asks about a moment of it is answered from a stretch
that `look` or `listen` shows; whoever asks for a moment, from what `search` finds; `narrate` and `chapters` tell of
longer stretches. A call is the tool's name with the times or the words of the question, as they stand there; an answer
from words says those again that tell it, in their order, so that one mechanism, saying again what once followed, does
for both.

`tool_turns` makes conversations to learn from, about scenes of which features are kept; the wordings kept for testing
ask about real files (`videollm.evaluation.tool_use`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, Literal

import numpy as np

from videollm.clips import Clip, Frames, Waveform
from videollm.data import dialogue as talk
from videollm.data.wordings import WORDINGS, Wordings, fill
from videollm.data.world import COLOURS, SHAPES, SOUNDS, Scene
from videollm.data.world_samples import answer_ids, answer_labels, clip_scene, is_still, picture_of
from videollm.messages import MediaPart, Message, ToolCallPart, ToolResultPart, assistant, user

NOT_FOUND = "I could not find that."
LONGEST_CLIP_SECONDS = 28.0
"""Of the world; what is longer is a film."""

Kind = Literal["look", "listen", "when", "how", "narrate", "part_begins", "part_is", "none"]
TOOL_OF: dict[Kind, str | None] = {
    "look": "look", "listen": "listen", "when": "search", "how": "search", "narrate": "narrate",
    "part_begins": "chapters", "part_is": "chapters", "none": None,
}  # fmt: skip
_SHARES: dict[Kind, float] = {
    "look": 0.34, "listen": 0.18, "when": 0.12, "how": 0.1, "narrate": 0.08, "part_begins": 0.04, "part_is": 0.05,
    "none": 0.09,
}  # fmt: skip

_TRIES = 100
TOLD_CLIPS = 3000
"""Of how many clips tools tell in words, in training."""
LOOK_TYPES = ("caption", "colour", "shape", "motion", "count", "background", "exist", "camera")
LISTEN_TYPES = ("sound", "sound_count", "sound_loud", "sound_exist")


def _wordings(train: str, test: str) -> Wordings:
    lines = ([line.strip() for line in block.splitlines() if line.strip()] for block in (train, test))
    return Wordings(*map(tuple, lines))


AT = _wordings(
    """
    {question} at {time}{end}
    {question} at {time}{end}
    {question} at time {time}{end}
    {question} around {time}{end}
    {question}, at {time}{end}
    at {time}, {question}{end}
    at {time}: {question}{end}
    around {time}, {question}{end}
    {time}: {question}{end}
    at the time {time}: {question}{end}
    look at {time}. {question}{end}
    it is about {time}. {question}{end}
    """,
    """
    {question} near {time}{end}
    at the time {time}, {question}{end}
    go to {time}. {question}{end}
    {question} exactly at {time}{end}
    the moment is {time}: {question}{end}
    """,
)
"""How a question about a clip becomes one about a moment of a film."""

MOMENT = _wordings(
    """
    what happens
    what is happening
    what is there
    what do you see
    what goes on
    what is on screen
    what is shown
    """,
    """
    what is to be seen
    what can be seen
    what do you see there
    """,
)
"""Questions, without their sign, of what there is to see."""

WHEN = _wordings(
    """
    when does {a_thing} appear?
    when is there {a_thing}?
    when do you see {a_thing}?
    when is {a_thing} shown?
    when is {the_thing} on screen?
    at what time does {a_thing} appear?
    at what time is {the_thing} shown?
    where in the video is {a_thing}?
    where is {the_thing}?
    in which moment does {a_thing} appear?
    which moment shows {a_thing}?
    find {a_thing}.
    find {the_thing}
    find the moment with {a_thing}.
    i am looking for {a_thing}. when is it there?
    tell me when {the_thing} comes.
    show me where {a_thing} is.
    look for {the_thing}. at what time is it?
    {a_thing}: when?
    {the_thing}: at what time?
    """,
    """
    when can {a_thing} be seen?
    at which time do you see {a_thing}?
    tell me when {a_thing} appears.
    look for {a_thing}: when is it shown?
    where does {the_thing} appear?
    """,
)
HEARD_WHEN = _wordings(
    """
    when do you hear {a_sound}?
    when is there {a_sound}?
    when can {a_sound} be heard?
    at what time is there {a_sound}?
    at what time do you hear {a_sound}?
    where in the video is {a_sound}?
    find {a_sound}.
    find the moment with {a_sound}.
    tell me when {a_sound} is heard.
    tell me when you hear {a_sound}.
    when is {a_sound} to be heard?
    when does {a_sound} start?
    where do you hear {a_sound}?
    at what time can {a_sound} be heard?
    i am looking for {a_sound}. when is it there?
    look for {a_sound}. at what time is it?
    show me where {a_sound} is.
    which moment has {a_sound}?
    {a_sound}: when?
    {a_sound}: at what time?
    """,
    """
    when is {a_sound} heard?
    at which time do you hear {a_sound}?
    look for {a_sound}: when is it heard?
    """,
)
BETWEEN = _wordings(
    """
    what happens between {start} and {end}?
    what happens from {start} to {end}?
    what is happening between {start} and {end}?
    what do you see from {start} to {end}?
    between {start} and {end}, what happens?
    from {start} to {end}: what happens?
    {start} to {end}: what happens?
    {start} to {end}, what is there?
    from {start} until {end}, what happens?
    from {start} to {end}, what do you see?
    from {start} to {end}, tell me what happens.
    from {start} up to {end}, what goes on?
    tell me what happens between {start} and {end}.
    tell me what happens from {start} to {end}.
    narrate {start} to {end}.
    narrate the video from {start} to {end}.
    describe what happens from {start} to {end}.
    describe the video between {start} and {end}.
    what are the events from {start} to {end}?
    """,
    """
    what is to be seen between {start} and {end}?
    tell me the events between {start} and {end}.
    from {start} to {end}, what is happening?
    narrate what happens between {start} and {end}.
    """,
)
PART_BEGINS = _wordings(
    """
    when does the {nth} part begin?
    when does the {nth} part start?
    when does part {n} start?
    at what time does the {nth} part begin?
    at what time does part {n} begin?
    where does the {nth} part start?
    the {nth} part begins when?
    when does the {nth} chapter start?
    when does chapter {n} begin?
    tell me when the {nth} part starts.
    """,
    """
    at what time does the {nth} part start?
    when does part {n} begin?
    tell me when the {nth} part begins.
    """,
)
PART_IS = _wordings(
    """
    what is in the {nth} part?
    what happens in the {nth} part?
    what is the {nth} part about?
    what does the {nth} part show?
    what do you see in the {nth} part?
    what is in part {n}?
    what happens in part {n}?
    what happens in the {nth} chapter?
    what does chapter {n} show?
    describe the {nth} part.
    """,
    """
    what is there in the {nth} part?
    what do you see in part {n}?
    tell me what happens in the {nth} part.
    """,
)
_NTH = ("first", "second", "third")


def clock(seconds: float) -> str:
    """``4:31``."""
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"


def _stamp(seconds: float) -> str:
    """``4:31.5``, as tools write times; shots begin at half seconds, too."""
    return clock(seconds) + (".5" if seconds % 1 else "")


def _pick(rng: np.random.Generator, options: Sequence[Any]) -> Any:
    return options[int(rng.integers(len(options)))]


def _one_of(wordings: Wordings, rng: np.random.Generator, held_out: bool) -> str:
    return _pick(rng, wordings.test if held_out else wordings.train)


def at_moment(question: str, time: str, rng: np.random.Generator, held_out: bool = False) -> str:
    """A question about a clip as one about a moment of a film."""
    bare = question.rstrip("?. ")
    end = question[len(bare) :].strip() or "?"
    return _one_of(AT, rng, held_out).format(question=bare, time=time, end=end)


_SOUNDING = ("b", "c", "d", "f", "g", "h", "l", "m", "n", "p", "r", "s", "t", "v", "w", "br", "cl", "st", "th", "tr")
_OPEN = ("a", "e", "i", "o", "u", "ea", "ee", "ou", "y")
_CLOSING = ("", "n", "r", "s", "t", "l", "ct", "nd", "rly", "ck", "ght")


def _unknown_words(rng: np.random.Generator) -> str:
    """One word or two that mean nothing, as most words of people do to a vocabulary of a thousand."""
    words = []
    for _ in range(1 if rng.random() < 0.7 else 2):
        syllables = 1 if rng.random() < 0.6 else 2
        words.append("".join(_pick(rng, part) for _ in range(syllables) for part in (_SOUNDING, _OPEN, _CLOSING)))
    return " ".join(words)


def with_unknown_words(question: str, kept: Sequence[str], rng: np.random.Generator) -> str:
    """A question with words somewhere that are none, mostly before a time; those that a call says again stay together.

    Args:
        question: the words.
        kept: runs of words that nothing may come between.
    """
    words = question.split(" ")
    places = list(range(1, len(words) + 1)) if question[-1:] not in "?." else list(range(1, len(words)))
    times = [place for place in places if any(letter.isdigit() for letter in words[min(place, len(words) - 1)])]
    place = _pick(rng, times) if times and rng.random() < 0.7 else _pick(rng, places or [0])
    if times and place in times and rng.random() < 0.5 and words[place - 1] in ("at", "around", "about"):
        found = [*words[: place - 1], _unknown_words(rng), *words[place:]]
    else:
        found = [*words[:place], _unknown_words(rng), *words[place:]]
    said = " ".join(found)
    return said if all(run in said for run in kept) else question


def ask_look(
    scene: Scene, picture: talk.Picture, rng: np.random.Generator, time: str, held_out: bool = False
) -> tuple[str, talk.Question]:
    """A question about what a film shows at a time, where it shows a scene, and the same as one about the scene."""
    pool = [one for one in talk.questions(scene, picture, rng) if one.type in LOOK_TYPES]
    question = _pick(rng, [one for one in pool if one.type == _pick(rng, sorted({one.type for one in pool}))] or pool)
    if question.type == "caption" and rng.random() < 0.7:
        words = _one_of(MOMENT, rng, held_out) + "?"
    else:
        words = talk.word(question, rng, held_out)
    return at_moment(words, time, rng, held_out), question


def ask_listen(scene: Scene, rng: np.random.Generator, time: str, held_out: bool = False) -> tuple[str, talk.Question]:
    """A question about what is heard at a time, where a film has a scene's sound, and the same about the scene."""
    pool = [
        one for one in talk.questions(scene, talk.Picture("red", 1.0, "dark", 1.0), rng) if one.type in LISTEN_TYPES
    ]
    question = _pick(rng, pool if rng.random() < 0.5 else [one for one in pool if one.type == "sound"])
    return at_moment(talk.word(question, rng, held_out), time, rng, held_out), question


def ask_when(name: str, rng: np.random.Generator, held_out: bool = False, *, sound: bool = False) -> str:
    """Asks for the moment at which a thing ("red star") is seen or a sound ("hum") heard."""
    if sound:
        a_sound = name if name in ("beeps", "clicks", "noise", "music", "speech") else f"a {name}"
        return fill(_one_of(HEARD_WHEN, rng, held_out), a_sound=a_sound)
    a_thing = f"{'an' if name[0] in 'aeiou' else 'a'} {name}"
    return fill(_one_of(WHEN, rng, held_out), a_thing=a_thing, the_thing=f"the {name}")


def ask_how(name: str, rng: np.random.Generator, held_out: bool = False) -> str:
    """Asks how a thing moves, wherever it is."""
    wordings = WORDINGS["motion"]
    return fill(_pick(rng, wordings.test if held_out else wordings.train), thing=f"the {name}")


def ask_between(start: float, end: float, rng: np.random.Generator, held_out: bool = False) -> str:
    """Asks what happens in a stretch."""
    return _one_of(BETWEEN, rng, held_out).format(start=clock(start), end=clock(end))


def ask_part(kind: Kind, number: int, rng: np.random.Generator, held_out: bool = False) -> str:
    """Asks when a part, the first being 0, begins (``part_begins``), or what is in it (``part_is``)."""
    wordings = PART_BEGINS if kind == "part_begins" else PART_IS
    return _one_of(wordings, rng, held_out).format(nth=_NTH[number], n=number + 1)


def acting(thing: Any) -> str:
    """``a red star moves left``: a thing of a scene whose camera stands still."""
    return talk._acting([thing])


def name_of(thing: Any) -> str:
    """``red star``."""
    return f"{thing.colour} {thing.shape}"


def moves_of(thing: Any) -> str:
    """``The red star moves left.``"""
    return f"The {name_of(thing)} {talk._MOVES[thing.motion]}."


# --- to learn from ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ToolTurn:
    """A question about a film, what is called for it, and the answer.

    Attributes:
        kind: of question.
        question, answer: words.
        call: the words of the call, such as ``look 4:31``; None: none is needed.
        told: what the tool says; where it shows a stretch instead, it is not read.
        shows: "video" or "audio", where a stretch of the clip ``clip`` is shown.
        clip: the number of a kept clip.
    """

    kind: Kind
    question: str
    answer: str
    call: str | None = None
    told: str = ""
    shows: Literal["video", "audio"] | None = None
    clip: int = -1


Fits = Callable[[Scene], bool]


def _with_words_of(name: str, rng: np.random.Generator) -> Fits:
    """Whether a scene is told of with words of a thing's name that do not stand together there; mostly with both."""
    colour, shape = name.split()
    both = rng.random() < 0.6

    def fits(scene: Scene) -> bool:
        colours = {*(shot.ground.colour for shot in scene.shots), *(one.colour for one in scene.things)}
        there = colour in colours, any(one.shape == shape for one in scene.things)
        return all(there) if both else any(there)

    return fits


class ToolTurns:
    """Conversations about films, from kept clips; what is said is a function of the generator.

    Args:
        seed: of the kept clips.
        pictures: the kept attributes of all clips, ``(N, 4)``.
        emphasis: kinds of questions that are asked three times as often.
    """

    def __init__(self, seed: int, pictures: Any, emphasis: Sequence[str] = ()) -> None:
        self.seed, self.pictures = seed, pictures
        shares = np.array([share * (3 if kind in emphasis else 1) for kind, share in _SHARES.items()])
        self._shares = shares / shares.sum()
        self._known: dict[int, Scene] = {}

    def __call__(self, rng: np.random.Generator) -> tuple[float, list[ToolTurn]]:
        """(how long the film is, seconds; one to three turns)."""
        lasts = float(np.exp(rng.uniform(np.log(45), np.log(3500))))
        turns = [self._turn(rng, lasts)]
        if rng.random() < 0.25:
            turns += self._following(turns[0], rng) or [self._turn(rng, lasts)]
        return lasts, [self._blurred(turn, rng) for turn in turns]

    def _blurred(self, turn: ToolTurn, rng: np.random.Generator) -> ToolTurn:
        """The turn, sometimes with words in the question that the vocabulary does not have."""
        if turn.call is None or rng.random() < 0.5:
            return turn
        rest = turn.call.split(" ", 1)[1:]
        kept = [word for run in rest for word in ([run] if turn.call.startswith("search") else run.split())]
        kept += [f" {thing} {shape}" for thing in COLOURS for shape in SHAPES if f" {thing} {shape}" in turn.question]
        kept += [word for word in (*COLOURS, *SHAPES, "part", "chapter") if word in turn.question]
        return replace(turn, question=with_unknown_words(turn.question, kept, rng))

    def _turn(self, rng: np.random.Generator, lasts: float) -> ToolTurn:
        kinds = list(_SHARES)
        kind = kinds[int(rng.choice(len(kinds), p=self._shares))]
        make: dict[str, Callable[[np.random.Generator, float], ToolTurn]] = {
            "look": self._look, "listen": self._listen, "when": self._when, "how": self._how,
            "narrate": self._narrate, "none": self._none,
        }  # fmt: skip
        if kind in ("part_begins", "part_is"):
            return self._part(kind, rng, lasts)
        return make[kind](rng, lasts)

    def _following(self, turn: ToolTurn, rng: np.random.Generator) -> list[ToolTurn]:
        """A question about the same stretch again, for which nothing is called; none where there is none."""
        if turn.clip < 0 or turn.shows != "video" or rng.random() < 0.5:
            return []
        scene = clip_scene(self.seed, turn.clip)
        asked = [one for one in talk.questions(scene, self._picture(turn.clip), rng) if one.answer == turn.answer]
        options = [
            following for one in asked for following in talk.follow_ups(scene, one) if "when" not in following.type
        ]
        if not options or not any(word in turn.question for word in (*COLOURS, *SHAPES)):
            return []
        following = _pick(rng, options)
        return [ToolTurn("none", talk.word(following, rng), following.answer)]

    def _picture(self, clip: int) -> talk.Picture:
        return picture_of(self.pictures[clip])

    def _scene(self, rng: np.random.Generator, fits: Callable[[Scene], bool], shown: bool = False) -> tuple[int, Scene]:
        """A kept clip that is to be shown, or only to be told of: then one of few, whose scenes are remembered."""
        while True:
            clip = int(rng.integers(len(self.pictures) if shown else min(TOLD_CLIPS, len(self.pictures))))
            if is_still(self.seed, clip):
                continue
            scene = self._known.get(clip) or clip_scene(self.seed, clip)
            if clip < TOLD_CLIPS:
                self._known[clip] = scene
            if fits(scene):
                return clip, scene

    def _time(self, rng: np.random.Generator, lasts: float) -> tuple[float, str]:
        second = float(int(rng.uniform(0, lasts)))
        draw = rng.random()
        if draw < 0.8:
            return second, clock(second)
        return second, f"{second:.0f} s" if draw < 0.9 else f"{second:.0f} seconds"

    def _look(self, rng: np.random.Generator, lasts: float) -> ToolTurn:
        _, time = self._time(rng, lasts)
        clip, scene = self._scene(rng, lambda scene: scene.timed, shown=True)
        if rng.random() < 0.06:
            question, _ = ask_look(scene, self._picture(clip), rng, time)
            told = f"the stretch starts at {rng.integers(900)} s, the video lasts {lasts:.1f} s; start earlier"
            return ToolTurn("look", question, NOT_FOUND, f"look {time}", told)
        if scene.kind in ("cut", "entry", "plain") and rng.random() < 0.7:
            clip, scene = self._scene(
                rng, lambda scene: scene.timed and scene.kind in ("one", "two", "three"), shown=True
            )
        question, asked = ask_look(scene, self._picture(clip), rng, time)
        return ToolTurn("look", question, asked.answer, f"look {time}", shows="video", clip=clip)

    def _listen(self, rng: np.random.Generator, lasts: float) -> ToolTurn:
        _, time = self._time(rng, lasts)
        clip, scene = self._scene(
            rng, lambda scene: scene.timed and scene.has_sound_track and len(scene.sounds) < 2, shown=True
        )
        question, asked = ask_listen(scene, rng, time)
        if rng.random() < 0.08:
            told = f"{_file_name(rng)} has no sound there; look, or narrate, instead"
            return ToolTurn("listen", question, talk.NOTHING_HEARD, f"listen {time}", told)
        return ToolTurn("listen", question, asked.answer, f"listen {time}", shows="audio", clip=clip)

    def _told(self, rng: np.random.Generator, clip: int, scene: Scene, full: bool = True) -> str:
        """A scene as an index tells it."""
        words = talk.caption(scene, self._picture(clip))
        return f"{words} ({talk.sound_sentence(scene)})" if full and scene.has_sound_track else words

    def _hits(
        self, rng: np.random.Generator, lasts: float, wanted: tuple[int, Scene] | None, other: Fits, alike: Fits
    ) -> tuple[str, list[tuple[float, str]]]:
        """(what a search says, of each whole line of it where its scene starts and what is told of that).

        The wanted scene comes first or, sometimes, second.

        Args:
            other: whether a scene may stand in another line.
            alike: whether one has words of the query; a search finds such ones, most often.
        """
        name, lines, told = _file_name(rng), [], []
        place = int(rng.random() > 0.85) if wanted is not None else -1
        for number in range(int(rng.integers(max(place + 1, 1), 6))):
            if number == place and wanted is not None:
                clip, scene = wanted
            else:
                clip, scene = self._scene(rng, other)
                tries = 0 if rng.random() < 0.3 else _TRIES
                while tries and not alike(scene):
                    clip, scene = self._scene(rng, other)
                    tries -= 1
            start = int(rng.uniform(0, max(lasts - 8, 1)) * 2) / 2
            end = start + int(rng.integers(6, 17)) / 2
            told.append((start, self._told(rng, clip, scene)))
            lines.append(f"{name} [{_stamp(start)}-{_stamp(end)}] {told[-1][1]}")
        fitting = _fitting("\n".join(lines), rng)
        return fitting, [one for number, one in enumerate(told) if "\n".join(lines[: number + 1]) in fitting]

    def _when(self, rng: np.random.Generator, lasts: float) -> ToolTurn:
        """Where several lines tell of what is asked for, the first one is the answer."""
        if rng.random() < 0.45:
            name = str(_pick(rng, SOUNDS))
            said = name.removesuffix("s")  # of one beep, too
            found = self._scene(rng, lambda scene: any(one.kind == name for one in scene.sounds))
            question = ask_when(name, rng, sound=True)

            def alike(scene: Scene) -> bool:
                return scene.has_sound_track and bool(scene.sounds)

            def has(scene: Scene) -> bool:
                return any(one.kind == name for one in scene.sounds)
        else:
            found = self._scene(rng, lambda scene: bool(scene.things))
            name = said = name_of(_pick(rng, found[1].things))
            question = ask_when(name, rng)
            alike = _with_words_of(name, rng)

            def has(scene: Scene) -> bool:
                return any(name_of(one) == name for one in scene.things)

        draw = rng.random()
        if draw < 0.04:
            return ToolTurn("when", question, NOT_FOUND, f"search {name}", "nothing fits these words")
        is_there = draw >= 0.12
        if is_there and rng.random() < 0.5:
            alike, other = has, lambda scene: True
        else:
            other = lambda scene: not has(scene)  # noqa: E731
        told, lines = self._hits(rng, lasts, found if is_there else None, other, alike)
        at = next((start for start, words in lines if said in words.lower()), None)
        if at is None and said in told.lower():  # in a line that was cut off
            return self._when(rng, lasts)
        answer = NOT_FOUND if at is None else f"At {clock(at)}."
        return ToolTurn("when", question, answer, f"search {name}", told)

    def _how(self, rng: np.random.Generator, lasts: float) -> ToolTurn:
        found = self._scene(rng, lambda scene: any(one.motion is not None for one in scene.things))
        thing = _pick(rng, [one for one in found[1].things if one.motion is not None])
        name = name_of(thing)

        def other(scene: Scene) -> bool:
            return all(name_of(one) != name for one in scene.things)

        wanted = None if rng.random() < 0.08 else found
        told, _ = self._hits(rng, lasts, wanted, other, _with_words_of(name, rng))
        moves = talk._MOVES[thing.motion]
        there = any(f"{name} {seen}" in told.lower() for seen in (moves, f"appears and {moves}"))
        return ToolTurn("how", ask_how(name, rng), moves_of(thing) if there else NOT_FOUND, f"search {name}", told)

    def _sentence(self, rng: np.random.Generator) -> str:
        _, scene = self._scene(
            rng, lambda scene: scene.timed and scene.kind in ("one", "two", "entry", "cut", "camera")
        )
        return str(_pick(rng, talk.narrations(scene))[1])

    def _narrate(self, rng: np.random.Generator, lasts: float) -> ToolTurn:
        start = float(int(rng.uniform(0, max(lasts - 20, 1))))
        end = start + float(rng.integers(8, 21))
        question = ask_between(start, end, rng)
        call = f"narrate {clock(start)} {clock(end)}"
        lines, at = [], start
        while at < end - 1 and len(lines) < 4:
            stop = min(end, at + int(rng.integers(3, 17)) / 2)
            lines.append(f"[{_stamp(at)}-{_stamp(stop)}] {self._sentence(rng)}")
            at = stop
        told = "\n".join(lines)
        return ToolTurn("narrate", question, told.lower(), call, told)

    def _part(self, kind: Kind, rng: np.random.Generator, lasts: float) -> ToolTurn:
        count = int(rng.integers(2, 9))
        edges = [0.0, *sorted(int(one) / 2 for one in rng.uniform(10, 2 * lasts, count - 1)), float(int(lasts))]
        lines: list[str] = []
        for number, (start, end) in enumerate(pairwise(edges), 1):
            clip, scene = self._scene(rng, lambda scene: scene.kind in ("one", "two", "cut", "entry") and scene.timed)
            lines.append(f"part {number} [{_stamp(start)}-{_stamp(end)}] {self._told(rng, clip, scene, full=False)}")
        told = _fitting("\n".join(lines), rng)
        whole = max(1, sum(told.startswith("\n".join(lines[: n + 1])) for n in range(count)))
        number = int(rng.integers(min(whole, count, len(_NTH))))
        question = ask_part(kind, number, rng)
        answer = lines[number].split("]")[0] + "]" if kind == "part_begins" else lines[number]
        return ToolTurn(kind, question, answer.lower(), "chapters", told)

    def _none(self, rng: np.random.Generator, lasts: float) -> ToolTurn:
        _, question, answer = talk.outside(rng)
        return ToolTurn("none", talk.polite(question, rng), answer)


LONGEST_RESULT_CHARACTERS = 500
"""Of what is told in training: about what the context has room for."""


def _fitting(text: str, rng: np.random.Generator) -> str:
    """As a conversation shortens what a tool gave back until it fits."""
    longest = LONGEST_RESULT_CHARACTERS * rng.uniform(0.7, 1.0)
    while len(text) > longest:
        text = text[: len(text) * 3 // 4] + "..."
    return text


def _file_name(rng: np.random.Generator) -> str:
    if rng.random() < 0.4:
        return str(_pick(rng, ("film.mp4", "video.mp4", "clip.mp4", "movie.mp4")))
    letters = "abcdefghijklmnopqrstuvwxyz0123456789-_"
    return "".join(_pick(rng, letters) for _ in range(int(rng.integers(3, 10)))) + ".mp4"


# --- as tokens --------------------------------------------------------------------------------------------------------

_STRETCH = Frames(np.zeros((1, 1, 1, 3), np.uint8), np.zeros(1), 0.0)
_SILENCE = Waveform(np.zeros((1, 1), np.float32), 16000)


@dataclass(frozen=True)
class EncodedTurns:
    """A conversation about a film as `tiny` learns from it.

    Attributes:
        input_ids, labels: as many; calls, answers and their ends are learned.
        said_again: pairs of places; the first one says again the token at the second.
        shown: of what stands in the prompt, in its order: "video" or "audio", and the number of the turn whose stretch
            it is; None: it is of the film.
    """

    input_ids: list[int]
    labels: list[int]
    said_again: list[tuple[int, int]]
    shown: list[tuple[str, int | None]]


def encode_tool_turns(
    processor: Any, lasts: float, turns: Sequence[ToolTurn], heard: bool, answered: bool = True
) -> EncodedTurns:
    """A conversation about a film as tokens: what the model's template shows when the last turn is to be answered.

    A call says again words of the question, an answer some of what was told. What stood before something that a tool
    gave back is not shown with it, so nothing is learned of it here.

    Args:
        processor: of a model that calls tools.
        lasts: how long the film is, in seconds.
        turns: of it.
        heard: whether its sound is shown, too.
        answered: up to the last answer; otherwise to the call of the last turn.
    """
    film = Frames(np.zeros((2, 1, 1, 3), np.uint8), np.array([0.0, lasts]), lasts)
    clips = {"film": _clip(film, heard)}
    call_id = processor.call_token_ids[0]
    messages: list[Message] = []
    tells: list[bool] = []
    for number, turn in enumerate(turns):
        messages.append(user(turn.question, [MediaPart("film")] if number == 0 else []))
        if turn.call is not None:
            words = processor.tokenizer(turn.call, add_special_tokens=False)["input_ids"]
            call = ToolCallPart(turn.call.split()[0], {}, str(number), (call_id, *words))
            messages.append(Message("assistant", (call,)))
            tells.append(True)
            if number == len(turns) - 1 and not answered:
                break
            shown = () if turn.shows is None else (MediaPart(str(number), turn.shows),)
            clips[str(number)] = _clip(_STRETCH, False) if turn.shows == "video" else _clip(None, True)
            messages.append(Message("tool", (ToolResultPart(call.call_id, turn.told), *shown)))
        messages.append(assistant(turn.answer, answer_ids(processor.tokenizer, turn.answer)))
        tells.append(turn.call is not None and turn.shows is None)
    prompt = processor.render(messages, clips, add_generation_prompt=False)
    labels = answer_labels(prompt.input_ids, processor)
    spans = [(span.kind, None if span.clip == "film" else int(span.clip)) for span in prompt.media]
    return EncodedTurns(prompt.input_ids, labels, _said_again(processor, prompt.input_ids, labels, tells), spans)


def _said_again(
    processor: Any, ids: Sequence[int], labels: Sequence[int], tells: Sequence[bool]
) -> list[tuple[int, int]]:
    """(place, earlier place with the same token) for runs of two tokens or more where answers tell, and all of calls.

    ``tells`` is about the last calls and answers of all.
    """
    openings = {*processor.tokenizer.convert_tokens_to_ids(["<user>", "<result>"])}
    call_id = processor.call_token_ids[0]
    edges = [place for place in range(1, len(ids)) if (labels[place] == -100) != (labels[place - 1] == -100)] + [
        len(ids)
    ]
    found: list[tuple[int, int]] = []
    spoken = list(zip(edges[::2], edges[1::2], strict=False))
    for (start, end), tell in zip(spoken, tells[len(tells) - len(spoken) :], strict=True):
        before = max(place for place in range(start) if ids[place] in openings)
        at = start + 2 if ids[start] == call_id else start
        while tell and at < end:
            length, source = max((_alike(ids, at, end, one, start), -one) for one in range(before, start))
            if length >= 2 or (length == 1 and ids[start] == call_id):
                found += [(at + step, -source + step) for step in range(length)]
            at += max(length, 1)
    return found


def _alike(ids: Sequence[int], at: int, end: int, other: int, other_end: int) -> int:
    """How many tokens from two places on are the same."""
    length = 0
    while at + length < end and other + length < other_end and ids[at + length] == ids[other + length]:
        length += 1
    return length


def _clip(frames: Frames | None, heard: bool) -> Clip:
    return Clip(
        "clip", "audio" if frames is None else "video", "", 1.0, frames,
        (_SILENCE,) if heard else None, ((0.0, 1.0),) if heard else (),
    )  # fmt: skip

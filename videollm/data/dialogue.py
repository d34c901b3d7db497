"""What is said about a scene of the world: facts, captions, narrations, questions and answers.

`facts(scene, picture)` states a scene in the fixed fields of `VIDEO_SLOTS` and `SOUND_SLOTS`: one slot for each soft
token that the model learns to speak in. `questions(scene, picture, rng)` asks everything that can be asked of a scene;
`word(question, rng)` says it in one of many ways.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field

import numpy as np

from videollm.data import attributes
from videollm.data.wordings import (
    OUTSIDE_TEST,
    OUTSIDE_TRAIN,
    POLITE_PREFIXES,
    POLITE_SUFFIXES,
    UNKNOWN_TEST,
    UNKNOWN_TRAIN,
    WORDINGS,
    article,
    fill,
)
from videollm.data.world import (
    BACKGROUNDS,
    CAMERAS,
    COLOURS,
    MOTIONS,
    SHAPES,
    SOUNDS,
    TIMED_SECONDS,
    Scene,
    SoundEvent,
    Thing,
    half_second,
    is_held_out_pair,
)

REFUSAL = "I cannot tell. I only know simple shapes, colours, motions and sounds."
UNKNOWN = "I do not know what that is."
NOTHING_SEEN = "I see nothing: there is no picture."
NOTHING_HEARD = "I hear nothing."

NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight")
_MOVES = {
    "left": "moves left", "right": "moves right", "up": "moves up", "down": "moves down",
    "circle": "moves in a circle", "still": "stays still", "grows": "grows", "shrinks": "shrinks",
}  # fmt: skip
_CAMERA = {
    "still": "the picture stays still", "left": "the picture moves left", "right": "the picture moves right",
    "up": "the picture moves up", "down": "the picture moves down", "in": "the picture zooms in",
    "out": "the picture zooms out",
}  # fmt: skip
_HEARD = {
    "hum": "a hum", "noise": "noise", "rising tone": "a rising tone", "falling tone": "a falling tone",
    "music": "something like music", "speech": "something like speech",
}  # fmt: skip
# How a thing seems to move where the camera carries it.
_CARRIED = {"in": "grows", "out": "shrinks"}
_TONAL = {"hum", "beeps", "rising tone", "falling tone", "music"}
_NOISY = {"noise", "clicks"}

# How clear a computed attribute must be before it is asked about.
MAIN_COLOUR_MARGIN, BRIGHTNESS_MARGIN = 0.12, 6.0


@dataclass(frozen=True)
class Picture:
    """Attributes of a clip's frames that are computed from pixels."""

    main_colour: str
    main_colour_margin: float
    brightness: str
    brightness_margin: float


def measure(pixels: np.ndarray) -> Picture:
    """Compute the attributes of frames, uint8 ``(T, H, W, 3)``."""
    colour, colour_margin = attributes.main_colour(pixels)
    brightness, brightness_margin = attributes.brightness(pixels)
    return Picture(colour, colour_margin, brightness, brightness_margin)


@dataclass(frozen=True)
class Question:
    """One question of a type, with its answer.

    ``topic`` is what a follow-up question would be about: the index of a thing, or "sound".
    """

    type: str
    slots: dict[str, str]
    answer: str
    topic: int | str | None = None


# --- facts ------------------------------------------------------------------------------------------------------------

_TIMES = ("none", *(f"{t / 2:.1f}" for t in range(int(TIMED_SECONDS * 2) + 1)))
_OBJECT = {"shape": ("none", *SHAPES), "motion": ("none", *MOTIONS)}
# What happens in the picture at each half second of a clip that is short enough to tell.
MOMENTS = tuple(t / 2 for t in range(int(TIMED_SECONDS * 2)))
_MOMENT = {"happens": ("nothing", "cut", "appears"), "carried": ("past", *CAMERAS)}

VIDEO_SLOTS: tuple[tuple[str, dict[str, tuple[str, ...]]], ...] = (
    *((f"first {colour}", {**_OBJECT, "appears": _TIMES}) for colour in COLOURS),
    *((f"then {colour}", dict(_OBJECT)) for colour in COLOURS),
    ("background", {"background": ("texture", *BACKGROUNDS)}),
    ("then background", {"background": ("none", "texture", *BACKGROUNDS)}),
    ("camera", {"camera": CAMERAS, "carries": ("no", "yes")}),
    ("cuts", {"cuts": ("0", "1", "2")}),
    ("first cut", {"time": _TIMES}),
    ("second cut", {"time": _TIMES}),
    ("main colour", {"main colour": attributes.COLOURS}),
    ("brightness", {"brightness": ("dark", "medium", "bright")}),
    ("moves", {"moves": ("no", "yes")}),
    ("count", {"count": ("0", "1", "2", "3")}),
    *((f"at {seconds:.1f}", dict(_MOMENT)) for seconds in MOMENTS),
)
_EVENT = {"kind": ("none", *SOUNDS), "count": ("0", "1", "2", "3", "4")}
SOUND_SLOTS: tuple[tuple[str, dict[str, tuple[str, ...]]], ...] = (
    ("first sound", dict(_EVENT)),
    ("first start", {"time": _TIMES}),
    ("second sound", dict(_EVENT)),
    ("second start", {"time": _TIMES}),
    ("loudness", {"loudness": ("silent", "quiet", "loud")}),
    ("tonal", {"tonal": ("none", "tonal", "noisy", "mixed")}),
    ("onsets", {"onsets": tuple(str(n) for n in range(9))}),
    ("silence", {"silence": ("no", "yes")}),
)


def _time(scene: Scene, seconds: float) -> str:
    return f"{half_second(seconds):.1f}" if scene.timed else "none"


def video_facts(scene: Scene, picture: Picture) -> list[dict[str, str]]:
    """The value of each field of `VIDEO_SLOTS`; a field without a value here takes its first option."""
    values: list[dict[str, str]] = [{} for _ in VIDEO_SLOTS]
    names = {name: index for index, (name, _) in enumerate(VIDEO_SLOTS)}
    for order, shot in zip(("first", "then"), scene.shots, strict=False):
        for thing in shot.things:
            slot = values[names[f"{order} {thing.colour}"]]
            slot["shape"], slot["motion"] = thing.shape, thing.motion or _CARRIED.get(shot.camera, shot.camera)
            if thing.start_seconds > 0:
                slot["appears"] = _time(scene, thing.start_seconds)
    values[names["background"]]["background"] = scene.shots[0].ground.colour or "texture"
    for shot in scene.shots[1:2]:
        values[names["then background"]]["background"] = shot.ground.colour or "texture"
    values[names["camera"]] = {"camera": scene.shots[0].camera, "carries": "yes" if scene.kind == "camera" else "no"}
    values[names["cuts"]]["cuts"] = str(len(scene.cut_seconds))
    for name, seconds in zip(("first cut", "second cut"), scene.cut_seconds, strict=False):
        values[names[name]]["time"] = _time(scene, seconds)
    values[names["main colour"]]["main colour"] = picture.main_colour
    values[names["brightness"]]["brightness"] = picture.brightness
    values[names["moves"]]["moves"] = "yes" if _moves(scene) else "no"
    values[names["count"]]["count"] = str(len(scene.things))
    changes = {half_second(seconds): "cut" for seconds in scene.cut_seconds}
    changes |= {half_second(thing.start_seconds): "appears" for thing in scene.things if thing.start_seconds > 0}
    for seconds in MOMENTS:
        if seconds < scene.duration_seconds:
            slot = values[names[f"at {seconds:.1f}"]]
            slot["carried"] = scene.shots[0].camera
            slot["happens"] = changes.get(seconds, "nothing") if scene.timed else "nothing"
    return values


def sound_facts(scene: Scene) -> list[dict[str, str]]:
    """The value of each field of `SOUND_SLOTS`."""
    values: list[dict[str, str]] = [{} for _ in SOUND_SLOTS]
    for index, event in enumerate(scene.sounds):
        values[2 * index] = {"kind": event.kind, "count": str(event.count)}
        values[2 * index + 1] = {"time": _time(scene, event.start_seconds)}
    values[4] = {"loudness": scene.loudness}
    values[5] = {"tonal": _tonal(scene) or ("mixed" if scene.sounds else "none")}
    values[6] = {"onsets": str(sum(event.count for event in scene.sounds))}
    values[7] = {"silence": "no" if scene.sounds else "yes"}
    return values


def _moves(scene: Scene) -> bool:
    return any(shot.camera != "still" for shot in scene.shots) or any(
        thing.motion not in (None, "still") for thing in scene.things
    )


def _tonal(scene: Scene) -> str | None:
    kinds = {event.kind for event in scene.sounds}
    if kinds and kinds <= _TONAL:
        return "tonal"
    if kinds and kinds <= _NOISY:
        return "noisy"
    return None


# --- words ------------------------------------------------------------------------------------------------------------


def _a(word: str) -> str:
    return f"{'an' if word[0] in 'aeiou' else 'a'} {word}"


def _name(thing: Thing) -> str:
    return f"{thing.colour} {thing.shape}"


def _in_order(things) -> list[Thing]:
    return sorted(things, key=lambda thing: COLOURS.index(thing.colour))


def _list(phrases: list[str]) -> str:
    if len(phrases) < 2:
        return "".join(phrases)
    return ", ".join(phrases[:-1]) + " and " + phrases[-1]


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:] + ("" if text.endswith(".") else ".")


def _shown(things) -> str:
    return _list([_a(_name(thing)) for thing in _in_order(things)])


def _acting(things) -> str:
    return _list([f"{_a(_name(thing))} {_MOVES[thing.motion]}" for thing in _in_order(things)])


def heard(event: SoundEvent) -> str:
    """The words for a sound."""
    if event.kind in ("beeps", "clicks"):
        return f"{NUMBERS[event.count]} {event.kind if event.count > 1 else event.kind[:-1]}"
    return _HEARD[event.kind]


def caption(scene: Scene, picture: Picture) -> str:
    """What is seen, in one or two sentences."""
    ground = [shot.ground.colour for shot in scene.shots]
    if scene.kind in ("one", "two", "three"):
        return _sentence(f"{_acting(scene.things)} on a {ground[0]} background")
    if scene.kind == "cut":
        first, second = scene.shots
        return _sentence(
            f"first {_acting(first.things)} on a {ground[0]} background, "
            f"then at {_time(scene, second.start_seconds)} s {_acting(second.things)} on a {ground[1]} background"
        )
    if scene.kind == "entry":
        first, second = scene.things
        return _sentence(
            f"{_acting([first])} on a {ground[0]} background, and at {_time(scene, second.start_seconds)} s "
            f"{_a(_name(second))} appears and {_MOVES[second.motion or 'still']}"
        )
    if scene.kind == "camera":
        return _sentence(f"{_shown(scene.things)} on a {ground[0]} background; {_CAMERA[scene.shots[0].camera]}")
    words = f"mostly {picture.main_colour}, {picture.brightness}; {_CAMERA[scene.shots[0].camera]}"
    if scene.cut_seconds:
        words += f"; {_cut_count(scene)}"
        if scene.timed:
            words += f" at {_cut_times(scene)}"
    return f"I see none of the shapes I know. {_sentence(words)}"


def _cut_count(scene: Scene) -> str:
    number = len(scene.cut_seconds)
    return f"{NUMBERS[number]} cut{'s' if number > 1 else ''}"


def _cut_times(scene: Scene) -> str:
    return _list([f"{_time(scene, seconds)} s" for seconds in scene.cut_seconds])


def sound_sentence(scene: Scene) -> str:
    """What is heard, in one sentence."""
    if not scene.sounds:
        return NOTHING_HEARD
    return f"I hear {', then '.join(heard(event) for event in scene.sounds)}."


def narrations(scene: Scene) -> list[tuple[float, str]]:
    """(second, sentence) of each stretch of what is seen; empty where times cannot be told."""
    if not scene.timed:
        return []
    if scene.kind in ("one", "two", "three"):
        return [(0.0, f"{_acting(scene.things)}.")]
    if scene.kind == "cut":
        return [(half_second(shot.start_seconds), f"{_acting(shot.things)}.") for shot in scene.shots]
    if scene.kind == "entry":
        first, second = scene.things
        return [
            (0.0, f"{_acting([first])}."),
            (half_second(second.start_seconds), f"{_a(_name(second))} appears and {_MOVES[second.motion or 'still']}."),
        ]
    if scene.kind == "camera":
        return [(0.0, f"{_shown(scene.things)}; {_CAMERA[scene.shots[0].camera]}.")]
    return [
        (0.0, f"none of the shapes I know; {_CAMERA[scene.shots[0].camera]}."),
        *((half_second(seconds), "a cut.") for seconds in scene.cut_seconds),
    ]


def narration(scene: Scene) -> str:
    """The timed narrations as one text."""
    return " ".join(f"{seconds:.1f} s: {sentence}" for seconds, sentence in narrations(scene))


# --- questions --------------------------------------------------------------------------------------------------------


@dataclass
class _Asked:
    """The questions that a scene allows, gathered."""

    items: list[Question] = field(default_factory=list)

    def __call__(self, kind: str, answer: str, topic: int | str | None = None, **slots: str) -> None:
        self.items.append(Question(kind, slots, _sentence(answer), topic))


def questions(scene: Scene, picture: Picture, rng: np.random.Generator) -> list[Question]:
    """Every question type that the scene allows, each once or a few times, with its answer.

    Args:
        scene: the scene.
        picture: the attributes computed from its frames.
        rng: draws which thing is asked about, and which absent one.
    """
    ask = _Asked()
    _ask_seen(scene, picture, rng, ask)
    _ask_order(scene, rng, ask)
    _ask_heard(scene, rng, ask)
    _ask_computed(scene, picture, ask)
    return ask.items


def _reference(scene: Scene, thing: Thing, rng: np.random.Generator) -> str:
    """A phrase that names one thing of the scene and no other."""
    options = [f"the {_name(thing)}"]
    if sum(other.shape == thing.shape for other in scene.things) == 1:
        options.append(f"the {thing.shape}")
    if sum(other.colour == thing.colour for other in scene.things) == 1:
        options.append(f"the {thing.colour} thing")
    if sum(_name(other) == _name(thing) for other in scene.things) > 1:
        return ""
    return options[int(rng.integers(len(options)))]


def _absent(scene: Scene, rng: np.random.Generator) -> tuple[str, str]:
    """A (shape, colour) that the scene does not hold, often nearly one that it holds; never a held-out pair."""
    present = {(thing.shape, thing.colour) for thing in scene.things}
    while True:
        shape, colour = str(rng.choice(SHAPES)), str(rng.choice(COLOURS))
        if scene.things and rng.random() < 0.7:
            thing = scene.things[int(rng.integers(len(scene.things)))]
            shape, colour = (thing.shape, colour) if rng.random() < 0.5 else (shape, thing.colour)
        if (shape, colour) not in present and not is_held_out_pair(shape, colour):
            return shape, colour


def _ask_seen(scene: Scene, picture: Picture, rng: np.random.Generator, ask: _Asked) -> None:
    clear = picture.main_colour_margin >= MAIN_COLOUR_MARGIN and picture.brightness_margin >= BRIGHTNESS_MARGIN
    if scene.kind != "plain" or clear:
        ask("caption", caption(scene, picture))
        both = sound_sentence(scene)
        ask("caption_both", f"{caption(scene, picture)} {both}")
    if scene.timed:
        ask("narration", narration(scene))
    for index, thing in enumerate(scene.things):
        if sum(other.shape == thing.shape for other in scene.things) == 1:
            ask("colour", thing.colour, index, shape=thing.shape)
        if sum(other.colour == thing.colour for other in scene.things) == 1:
            ask("shape", _a(thing.shape), index, colour=thing.colour)
        reference = _reference(scene, thing, rng)
        if reference and thing.motion is not None:
            ask("motion", f"it {_MOVES[thing.motion]}", index, thing=reference)
    for _ in range(max(1, len(scene.things))):
        if scene.things and rng.random() < 0.5:
            index = int(rng.integers(len(scene.things)))
            thing = scene.things[index]
            ask("exist", "yes", None, a_thing=_a(thing.shape if rng.random() < 0.3 else _name(thing)))
        else:
            shape, colour = _absent(scene, rng)
            bare = all(thing.shape != shape for thing in scene.things) and rng.random() < 0.3
            ask("exist", "no", None, a_thing=_a(shape if bare else f"{colour} {shape}"))
    shape, colour = _absent(scene, rng)
    if all(thing.shape != shape for thing in scene.things):
        ask("absent_colour", f"I see no {shape}", None, shape=shape)
    if all(thing.colour != colour for thing in scene.things):
        ask("absent_shape", f"I see no {colour} thing", None, colour=colour)
    if scene.kind != "camera":
        ask("absent_motion", f"I see no {colour} {shape}", None, thing=f"the {colour} {shape}")
    ask("count", NUMBERS[len(scene.things)] if scene.things else "none of the shapes I know")
    if scene.kind != "plain":
        names = [shot.ground.colour or "" for shot in scene.shots]
        ask("background", names[0] if len(set(names)) == 1 else f"{names[0]}, then {names[1]}")
    if scene.kind in ("camera", "plain"):
        ask("camera", _CAMERA[scene.shots[0].camera])
    else:
        ask("camera", _CAMERA["still"])
    ask("cut", _cut_count(scene))
    if scene.timed:
        ask("cut_when", f"at {_cut_times(scene)}" if scene.cut_seconds else "there is no cut")


def _on_screen(scene: Scene, seconds: float) -> list[Thing] | None:
    """What is on screen at a second, or None within 0.3 s of a change."""
    shot = scene.shot_at(seconds)
    changes = [*scene.cut_seconds, *(thing.start_seconds for thing in scene.things if thing.start_seconds > 0)]
    if any(abs(change - seconds) < 0.3 for change in changes):
        return None
    return [thing for thing in shot.things if thing.start_seconds <= seconds]


def _ask_order(scene: Scene, rng: np.random.Generator, ask: _Asked) -> None:
    if scene.kind not in ("cut", "entry"):
        return
    first, second = scene.things
    change = second.start_seconds if scene.kind == "entry" else scene.shots[1].start_seconds
    ask("first", _a(_name(first)), 0)
    ask("last", _a(_name(second)), 1)
    if scene.kind == "cut":
        ask("before_cut", _a(_name(first)), 0)
        ask("after_cut", _a(_name(second)), 1)
    reference = _reference(scene, second, rng)
    if reference:
        ask("thing_when", f"at {_time(scene, change)} s", 1, thing=reference)
        ask("before_thing", _a(_name(first)), 0, thing=reference)
    reference = _reference(scene, first, rng)
    if reference:
        ask("thing_when", "at 0.0 s", 0, thing=reference)
    for low, high in ((0.0, change), (change, scene.duration_seconds)):
        moment = half_second(float(rng.uniform(low, high)))
        if moment < scene.duration_seconds and (things := _on_screen(scene, moment)):
            ask("at_time", _shown(things), None, seconds=f"{moment:.1f}")


def _the(event: SoundEvent) -> str:
    return f"the {event.kind}"


def _any(kind: str) -> str:
    return kind if kind in ("beeps", "clicks", "noise", "music", "speech") else _a(kind)


def _ask_heard(scene: Scene, rng: np.random.Generator, ask: _Asked) -> None:
    ask("sound", sound_sentence(scene), "sound" if len(scene.sounds) == 1 else None)
    kinds = {event.kind for event in scene.sounds}
    if scene.sounds and rng.random() < 0.5:
        ask("sound_exist", "yes", None, a_sound=_any(scene.sounds[int(rng.integers(len(scene.sounds)))].kind))
    else:
        other = str(rng.choice([kind for kind in SOUNDS if kind not in kinds]))
        ask("sound_exist", "no", None, a_sound=_any(other))
    ask("sound_loud", scene.loudness if scene.sounds else NOTHING_HEARD, "sound" if len(scene.sounds) == 1 else None)
    ask("silence", "yes, there is sound" if scene.sounds else "no, there is no sound")
    for event in scene.sounds:
        if event.kind in ("beeps", "clicks"):
            ask("sound_count", NUMBERS[event.count], None, sound=_the(event))
        if scene.timed:
            ask(
                "sound_when", f"at {_time(scene, event.start_seconds)} s",
                "sound" if len(scene.sounds) == 1 else None, sound=_the(event),
            )  # fmt: skip
    if len(scene.sounds) == 2:
        first, second = scene.sounds
        ask("sound_first", heard(first))
        ask("sound_last", heard(second))
        ask("sound_after", heard(second), None, sound=_the(first))
        ask("sound_before", heard(first), None, sound=_the(second))
    if (tonal := _tonal(scene)) is not None:
        ask("tonal", tonal)
    if not kinds & {"music", "speech"}:
        ask("onsets", NUMBERS[total] if (total := sum(e.count for e in scene.sounds)) else "none")
    if not scene.timed or not scene.sounds:
        return
    event = scene.sounds[int(rng.integers(len(scene.sounds)))]
    if scene.things and scene.kind != "camera" and (things := _on_screen(scene, event.start_seconds)):
        ask("seen_at_sound", _shown(things), None, sound=_the(event))
    if len(scene.cut_seconds) == 1 and abs(event.start_seconds - scene.cut_seconds[0]) > 0.3:
        when = "before" if event.start_seconds < scene.cut_seconds[0] else "after"
        # Half seconds must tell them apart as well.
        if half_second(event.start_seconds) != half_second(scene.cut_seconds[0]):
            ask("sound_vs_cut", f"{when} the cut", None, sound=_the(event))


def _ask_computed(scene: Scene, picture: Picture, ask: _Asked) -> None:
    if picture.main_colour_margin >= MAIN_COLOUR_MARGIN:
        ask("main_colour", picture.main_colour)
    if picture.brightness_margin >= BRIGHTNESS_MARGIN:
        ask("brightness", picture.brightness)
    calm = all(shot.ground.style != "static" and (shot.jitter == 0 or shot.camera != "still") for shot in scene.shots)
    if calm and not scene.cut_seconds:
        ask("moves", "it moves" if _moves(scene) else "it is still")


def follow_ups(scene: Scene, asked: Question) -> list[Question]:
    """Questions that make sense only right after ``asked``."""
    ask = _Asked()
    if asked.topic == "sound" and len(scene.sounds) == 1:
        event = scene.sounds[0]
        if scene.timed and asked.type != "sound_when":
            ask("follow_sound_when", f"at {_time(scene, event.start_seconds)} s", "sound")
        if asked.type != "sound_loud":
            ask("follow_sound_loud", scene.loudness, "sound")
    elif isinstance(asked.topic, int):
        thing = scene.things[asked.topic]
        if asked.type != "motion" and thing.motion is not None:
            ask("follow_motion", f"it {_MOVES[thing.motion]}", asked.topic)
        if asked.type in ("shape", "motion", "follow_shape", "follow_motion") and "colour" not in asked.slots:
            ask("follow_colour", thing.colour, asked.topic)
        if asked.type in ("colour", "motion", "follow_colour", "follow_motion") and "shape" not in asked.slots:
            ask("follow_shape", _a(thing.shape), asked.topic)
        if len(scene.things) == 2 and asked.type in ("colour", "shape", "motion"):
            other = scene.things[1 - asked.topic]
            if asked.type == "colour":
                ask("follow_other", other.colour, 1 - asked.topic)
            elif asked.type == "shape":
                ask("follow_other", _a(other.shape), 1 - asked.topic)
            elif other.motion is not None:
                ask("follow_other", f"it {_MOVES[other.motion]}", 1 - asked.topic)
    return ask.items


_WORDED_AS = {"absent_colour": "colour", "absent_shape": "shape", "absent_motion": "motion"}


def word(question: Question, rng: np.random.Generator, held_out: bool = False) -> str:
    """The question in words: one of its training wordings, or (``held_out``) of those kept for testing."""
    wordings = WORDINGS[_WORDED_AS.get(question.type, question.type)]
    options = wordings.test if held_out else wordings.train
    return fill(options[int(rng.integers(len(options)))], **question.slots)


def polite(text: str, rng: np.random.Generator) -> str:
    """Sometimes the same question with a courtesy around it."""
    draw = rng.random()
    if draw < 0.1:
        return POLITE_PREFIXES[int(rng.integers(len(POLITE_PREFIXES)))] + text
    if draw < 0.2:
        return text.rstrip("?. ") + POLITE_SUFFIXES[int(rng.integers(len(POLITE_SUFFIXES)))]
    return text


def outside(rng: np.random.Generator, held_out: bool = False) -> tuple[str, str, str]:
    """(type, question, answer) that the world cannot answer: something outside it, or an unknown word."""
    if rng.random() < 0.7:
        bank = OUTSIDE_TEST if held_out else OUTSIDE_TRAIN
        return "outside", bank[int(rng.integers(len(bank)))], REFUSAL
    nouns = UNKNOWN_TEST if held_out else UNKNOWN_TRAIN
    noun = nouns[int(rng.integers(len(nouns)))]
    wordings = WORDINGS["unknown"].test if held_out else WORDINGS["unknown"].train
    text = fill(wordings[int(rng.integers(len(wordings)))], a_word=f"{article(noun)} {noun}")
    return "unknown", text, UNKNOWN


@dataclass(frozen=True)
class Turn:
    """A question in words and its answer."""

    type: str
    question: str
    answer: str


def dialogue(
    scene: Scene,
    picture: Picture,
    rng: np.random.Generator,
    turns: int,
    *,
    seen: bool = True,
    heard: bool = True,
    only: tuple[str, ...] | None = None,
    emphasis: tuple[str, ...] = (),
) -> list[Turn]:
    """A conversation about a scene in training wordings.

    Args:
        scene: the scene.
        picture: the attributes computed from its frames.
        rng: draws everything.
        turns: how many questions.
        only: the types to ask, follow-ups among them, as far as the scene allows; all types by default.
        emphasis: types that are asked eight times as often as otherwise.
        seen, heard: whether the pictures and the sound are shown; questions about what is not shown are answered so.
    """
    pool = questions(scene, picture, rng)
    if only is not None:
        pool = [question for question in pool if question.type in only]
        turns = min(turns, len(pool))
    by_type: dict[str, list[Question]] = {}
    for question in pool:
        by_type.setdefault(question.type, []).append(question)
    types = list(by_type)
    weights = np.array([TYPE_WEIGHTS.get(kind, 1.0) * (8 if kind in emphasis else 1) for kind in types])
    said: list[Turn] = []
    last: Question | None = None
    while len(said) < turns:
        if only is None and rng.random() < 0.08:
            kind, text, answer = outside(rng)
            said.append(Turn(kind, polite(text, rng), answer))
            last = None
            continue
        following = follow_ups(scene, last) if last is not None and seen and heard else []
        if only is not None:
            following = [question for question in following if question.type in only]
        if following and rng.random() < 0.5:
            question = following[int(rng.integers(len(following)))]
        else:
            options = by_type[types[int(rng.choice(len(types), p=weights / weights.sum()))]]
            question = options[int(rng.integers(len(options)))]
        answer = _as_shown(question, seen, heard)
        if answer is None:
            continue
        said.append(Turn(question.type, polite(word(question, rng), rng), answer))
        last = question
    return said


SOUND_TYPES = frozenset({
    "sound", "sound_count", "sound_when", "sound_loud", "sound_exist", "sound_first", "sound_last", "sound_after",
    "sound_before", "tonal", "onsets", "silence", "follow_sound_when", "follow_sound_loud",
})  # fmt: skip
JOINT_TYPES = frozenset({"caption_both", "seen_at_sound", "sound_vs_cut"})

# What the decoder learns late is asked more often in training, what it learns at once less often.
TYPE_WEIGHTS = {
    "caption": 2.5, "caption_both": 1.5, "narration": 2.0, "motion": 2.5, "colour": 2.0, "shape": 1.5, "exist": 1.5,
    "at_time": 2.0, "thing_when": 2.0, "first": 1.5, "last": 1.5, "before_cut": 1.5, "after_cut": 1.5, "cut_when": 1.5,
    "sound": 2.0, "sound_when": 2.5, "sound_count": 2.5, "sound_exist": 1.5, "sound_first": 2.5, "sound_last": 2.5,
    "sound_after": 2.5, "sound_before": 2.5, "onsets": 2.0, "seen_at_sound": 1.5, "sound_vs_cut": 1.5,
    "count": 0.6, "silence": 0.4, "sound_loud": 0.5, "brightness": 0.5, "cut": 0.6, "absent_colour": 0.5,
    "absent_shape": 0.5, "absent_motion": 0.5, "moves": 0.7, "background": 0.8, "main_colour": 0.8,
}  # fmt: skip


def without_sound(question: Question) -> str | None:
    """The right answer when the sound has been removed, or None where the question then makes no sense."""
    if question.type == "caption_both":
        return None
    if question.type == "sound_exist":
        return "No."
    if question.type == "silence":
        return "No, there is no sound."
    if question.type == "onsets":
        return "None."
    if question.type in SOUND_TYPES or question.type in JOINT_TYPES:
        return NOTHING_HEARD
    return question.answer


def _as_shown(question: Question, seen: bool, heard: bool) -> str | None:
    answer: str | None = question.answer
    if not heard:
        answer = without_sound(question)
        if question.type == "caption_both":
            words = question.answer
            cut = words.find(" I hear ")
            answer = (words if cut < 0 else words[:cut]) + f" {NOTHING_HEARD}"
    if not seen and question.type not in SOUND_TYPES:
        answer = NOTHING_SEEN
    return answer


def as_still(scene: Scene) -> Scene:
    """The scene as a photograph of its first moment, without sound."""
    shot = scene.shots[0]
    things = tuple(
        dataclasses.replace(thing, motion="still", speed=0.0, rotation=0.0)
        for thing in shot.things
        if thing.start_seconds == 0
    )
    if shot.camera in ("out", "in"):
        shot = dataclasses.replace(shot, camera_speed=0.0)
    shot = dataclasses.replace(shot, things=things, camera="still", camera_speed=0.0, jitter=0.0)
    kind = {0: "plain", 1: "one", 2: "two", 3: "three"}[len(things)]
    return dataclasses.replace(scene, kind=kind, shots=(shot,), sounds=(), loudness="silent", has_sound_track=False)

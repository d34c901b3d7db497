"""Sound tracks of the drawn world, what people might write about stretches of them, and when such words are true.

A track is what is heard of scenes behind each other. A `Statement` says some of what is heard in a stretch of it, and
`wording` writes it down in one of many ways; some ways are kept for testing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from videollm.data.dialogue import NUMBERS
from videollm.data.sounds import BEEP_SECONDS, beep_times, synthesise
from videollm.data.world import SoundEvent, draw_scene

LEAST_SECONDS = 0.3
"""A sound of which less lies in a stretch is not said to be heard there."""


@dataclass(frozen=True)
class Heard:
    """A sound of a stretch: its kind, and how many beeps or clicks it has there (1 for the others)."""

    kind: str
    count: int


@dataclass(frozen=True)
class Statement:
    """What words state of a stretch of sound.

    Attributes:
        sounds: kind of each, and its count where the words say it; none: nothing is heard.
        ordered: they are said to be heard in this order.
    """

    sounds: tuple[tuple[str, int | None], ...]
    ordered: bool = False

    def is_true(self, heard: Sequence[Heard]) -> bool:
        """Whether it is so where these are heard, in their order; more may be heard than is said."""
        if not self.sounds:
            return not heard
        places = []
        for kind, count in self.sounds:
            fitting = [i for i, one in enumerate(heard) if one.kind == kind and count in (None, one.count)]
            if not fitting:
                return False
            places.append(fitting[-1] if places else fitting[0])
        return not self.ordered or places == sorted(places)


@dataclass(frozen=True, eq=False)
class Track:
    """Sound of scenes behind each other.

    Attributes:
        samples: float32 ``(N,)``, in [-1, 1].
        events: of all scenes, in seconds of the track.
    """

    samples: np.ndarray
    events: tuple[SoundEvent, ...]

    def heard(self, start_seconds: float, end_seconds: float) -> tuple[Heard, ...]:
        """What is heard in a stretch."""
        return heard_between(self.events, start_seconds, end_seconds)


def heard_between(events: Sequence[SoundEvent], start_seconds: float, end_seconds: float) -> tuple[Heard, ...]:
    """What is heard in a stretch: sounds of which enough lies in it, in their order."""
    found = []
    for event in events:
        if event.kind in ("beeps", "clicks"):
            times = beep_times(event)
            count = int(((times >= start_seconds) & (times + BEEP_SECONDS / 2 <= end_seconds)).sum())
            if count:
                found.append(Heard(event.kind, count))
        elif min(event.end_seconds, end_seconds) - max(event.start_seconds, start_seconds) >= LEAST_SECONDS:
            found.append(Heard(event.kind, 1))
    return tuple(found)


def draw_track(seed: int, rate_hz: int, scenes: int = 2) -> Track:
    """The sound of scenes with these seeds behind each other: ``seed``, ``seed + 1``, ..."""
    samples: list[np.ndarray] = []
    events: list[SoundEvent] = []
    at = 0.0
    for number in range(seed, seed + scenes):
        scene = draw_scene(number, "one")
        made = synthesise(scene, rate_hz, channels=1)
        count = round(scene.duration_seconds * rate_hz)
        part = np.zeros(count, np.float32) if made is None else made[0]
        samples.append(part)
        events += [_later(event, at) for event in scene.sounds]
        at += len(part) / rate_hz
    return Track(np.concatenate(samples), tuple(events))


def _later(event: SoundEvent, seconds: float) -> SoundEvent:
    start, end = event.start_seconds + seconds, event.end_seconds + seconds
    return SoundEvent(event.kind, start, end, event.count, event.pitch_hz, event.seed)


def draw_statement(heard: Sequence[Heard], rng: np.random.Generator) -> Statement:
    """Something that is true of what is heard."""
    if not heard:
        return Statement(())
    chosen = list(heard)
    if len(chosen) > 1 and rng.random() < 0.4:
        chosen = [chosen[int(rng.integers(len(chosen)))]]
    chosen = chosen[:2]
    counted = rng.random() < 0.7
    sounds = tuple((one.kind, one.count if counted and one.kind in COUNTED else None) for one in chosen)
    return Statement(sounds, ordered=len(sounds) > 1 and rng.random() < 0.7)


COUNTED = ("beeps", "clicks")
_NAMES: dict[str, tuple[str, ...]] = {
    "hum": ("a hum", "a low hum", "humming", "a steady hum", "a droning hum"),
    "noise": ("noise", "a hiss", "white noise", "hissing", "rushing noise"),
    "rising tone": ("a rising tone", "a tone that rises", "a tone going up", "a sound that gets higher"),
    "falling tone": ("a falling tone", "a tone that falls", "a tone going down", "a sound that gets lower"),
    "music": ("something like music", "music", "a melody", "a tune"),
    "speech": ("something like speech", "speech", "a voice", "somebody talking", "someone speaking"),
    "beeps": ("beeps", "beeping", "some beeps"),
    "clicks": ("clicks", "clicking", "some clicks"),
}
_NOTHING = ("nothing", "silence", "no sound", "no sound at all")
_FRAMES = ("{}", "i hear {}", "the sound of {}", "there is {}", "one hears {}", "a recording of {}")
_FRAMES_TEST = ("{} can be heard", "{} in the background", "a clip of {}")
_ORDERED = ("{}, then {}", "{} and then {}", "{} followed by {}", "first {}, then {}")
_ORDERED_TEST = ("{}, after that {}", "at first {} and later {}")
_TOGETHER = ("{} and {}", "{} as well as {}", "{}, also {}")
_TOGETHER_TEST = ("{} together with {}",)


def wording(statement: Statement, rng: np.random.Generator, held_out: bool = False) -> str:
    """Words for a statement, without capitals and without a full stop.

    Args:
        statement: what they say.
        rng: draws them.
        held_out: write sentences in ways that no training sees; the sounds have the names that it sees.
    """

    def pick(options: Sequence[str]) -> str:
        return options[int(rng.integers(len(options)))]

    names = [_name(kind, count, pick) for kind, count in statement.sounds] or [pick(_NOTHING)]
    said = names[0]
    if len(names) > 1:
        kept, known = (_ORDERED_TEST, _ORDERED) if statement.ordered else (_TOGETHER_TEST, _TOGETHER)
        said = pick(kept if held_out else known).format(*names)
    return pick(_FRAMES_TEST if held_out else _FRAMES).format(said)


def _name(kind: str, count: int | None, pick) -> str:
    if count is None:
        return pick(_NAMES[kind])
    return (
        pick((f"a {kind[:-1]}", f"one {kind[:-1]}", f"a single {kind[:-1]}"))
        if count == 1
        else (f"{NUMBERS[count]} {kind}")
    )

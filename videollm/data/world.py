"""A seeded world of small audio-visual scenes: what `tiny` is trained and tested on.

A scene is a short film of drawn things (or of none: textures, noise, clutter, unknown shapes) with synthetic sound.
`draw_scene(seed, kind, split)` decides everything about it; `videollm.data.drawing` turns it into pixels,
`videollm.data.sounds` into samples, `videollm.data.dialogue` into captions, narrations, questions and answers.

Units: seconds; lengths are fractions of the picture's longer side; x runs right, y runs down.

Held out of all training: the whole pairs in `HELD_OUT_PAIRS`, and about one in eight (shape, colour, motion) triples.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import accumulate, pairwise
from typing import Literal

import numpy as np

from videollm.errors import DataError

SHAPES = ("circle", "square", "triangle", "star", "cross")
COLOURS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "white")
MOTIONS = ("left", "right", "up", "down", "circle", "still", "grows", "shrinks")
BACKGROUNDS = ("black", "gray", "white", "blue", "green", "brown")
CAMERAS = ("still", "left", "right", "up", "down", "in", "out")
SOUNDS = ("hum", "beeps", "noise", "rising tone", "falling tone", "clicks", "music", "speech")
SCENE_KINDS = ("one", "two", "three", "cut", "entry", "camera", "plain")
SPLITS = ("seen", "triples", "pairs")

Split = Literal["seen", "triples", "pairs"]

HELD_OUT_PAIRS = frozenset({("circle", "purple"), ("star", "green"), ("triangle", "orange"), ("cross", "pink")})

# Training draws seeds below, testing from here on: no scene is both.
TEST_SEEDS = 3_000_000_000

# Longest clip in which the model samples densely enough (four frames a second) to name half seconds.
TIMED_SECONDS = 8.0


def is_held_out_pair(shape: str, colour: str) -> bool:
    """Whether the combination never occurs in training."""
    return (shape, colour) in HELD_OUT_PAIRS


def is_held_out_triple(shape: str, colour: str, motion: str) -> bool:
    """Whether the combination of an allowed pair with a motion never occurs in training (about one in eight)."""
    return zlib.crc32(f"{shape} {colour} {motion}".encode()) % 8 == 0


@dataclass(frozen=True)
class Thing:
    """One drawn thing. ``motion`` is None where only the camera moves."""

    shape: str
    colour: str
    motion: str | None
    x: float
    y: float
    size: float  # radius
    speed: float = 0.0  # lengths a second; turns a second for "circle"; relative size a second for grows and shrinks
    phase: float = 0.0
    rotation: float = 0.0
    start_seconds: float = 0.0  # when it appears
    tint: tuple[float, float, float] = (0.0, 0.0, 0.0)


@dataclass(frozen=True)
class Ground:
    """What lies behind the things: a plain, shaded or noisy colour, or (``texture``) a picture without drawn things."""

    colour: str | None
    style: str  # plain, gradient, noisy, or the family of a texture
    seed: int
    strength: float = 0.0


@dataclass(frozen=True)
class Shot:
    """A stretch without a cut."""

    start_seconds: float
    end_seconds: float
    ground: Ground
    things: tuple[Thing, ...]
    camera: str = "still"
    camera_speed: float = 0.0  # lengths a second, or relative size a second for in and out
    jitter: float = 0.0


@dataclass(frozen=True)
class SoundEvent:
    """One sound. ``count`` is how many beeps or clicks it has (1 for the others)."""

    kind: str
    start_seconds: float
    end_seconds: float
    count: int
    pitch_hz: float
    seed: int


@dataclass(frozen=True)
class Scene:
    """One film of the world."""

    seed: int
    kind: str
    split: Split
    width_px: int
    height_px: int
    frame_rate: float
    duration_seconds: float
    shots: tuple[Shot, ...]
    sounds: tuple[SoundEvent, ...]
    loudness: str  # silent, quiet, loud
    gain_db: float
    has_sound_track: bool
    rate_hz: int
    channels: int
    floor_db: float = -90.0  # level of the hiss under everything

    @property
    def things(self) -> tuple[Thing, ...]:
        return tuple(thing for shot in self.shots for thing in shot.things)

    @property
    def cut_seconds(self) -> tuple[float, ...]:
        return tuple(shot.start_seconds for shot in self.shots[1:])

    @property
    def timed(self) -> bool:
        """Whether half seconds can be told apart at the model's sampling."""
        return self.duration_seconds <= TIMED_SECONDS

    def shot_at(self, seconds: float) -> Shot:
        """The shot on screen at a second."""
        for shot in reversed(self.shots):
            if seconds >= shot.start_seconds:
                return shot
        return self.shots[0]


class InTurn:
    """Scenes behind each other."""

    scenes: tuple[Scene, ...]

    @cached_property
    def spans_seconds(self) -> tuple[tuple[float, float], ...]:
        """Start and end of each scene."""
        return tuple(pairwise(accumulate((scene.duration_seconds for scene in self.scenes), initial=0.0)))

    @property
    def duration_seconds(self) -> float:
        return self.spans_seconds[-1][1]


def half_second(seconds: float) -> float:
    """A time as the world's answers tell it."""
    return round(seconds * 2) / 2


def _event_time(rng: np.random.Generator, low: float, high: float) -> float:
    """A time in [low, high] that rounds to its half second without doubt (at least 0.04 s from the border)."""
    for _ in range(64):
        seconds = float(rng.uniform(low, high))
        if abs((seconds * 2) % 1 - 0.5) > 0.08:
            return seconds
    return float(np.floor(low * 2 + 1) / 2)


def _pick(rng: np.random.Generator, options: tuple[str, ...]) -> str:
    return options[int(rng.integers(len(options)))]


def _combination(rng: np.random.Generator, split: Split, taken: set[str], avoid: str | None, moving: bool):
    """(shape, colour, motion) of the asked split with a colour that is free and unlike the background."""
    for _ in range(10_000):
        shape, colour = _pick(rng, SHAPES), _pick(rng, COLOURS)
        motion = _pick(rng, MOTIONS) if moving else None
        if colour in taken or colour == avoid:
            continue
        pair = is_held_out_pair(shape, colour)
        triple = motion is not None and not pair and is_held_out_triple(shape, colour, motion)
        if (split == "pairs") == pair and (split == "triples") == triple:
            return shape, colour, motion
    raise DataError(f"no {split} combination is free beside {sorted(taken)} on {avoid}")


def _place(rng: np.random.Generator, width: float, height: float, size: float, motion: str | None, seconds: float):
    """Start (x, y, speed, phase) such that a thing stays in view and moves visibly while it is shown."""
    low_x, high_x, low_y, high_y = size, width - size, size, height - size
    x, y = rng.uniform(low_x, high_x), rng.uniform(low_y, high_y)
    speed = phase = 0.0
    if motion in ("left", "right", "up", "down"):
        span = (high_x - low_x) if motion in ("left", "right") else (high_y - low_y)
        way = span * rng.uniform(0.55, 1.0)
        speed = way / seconds
        start = rng.uniform(0, span - way)
        if motion in ("right", "left"):
            x = low_x + start if motion == "right" else high_x - start
        else:
            y = low_y + start if motion == "down" else high_y - start
    elif motion == "circle":
        radius = rng.uniform(0.6, 1.0) * min(high_x - low_x, high_y - low_y) / 2
        x, y = rng.uniform(low_x + radius, high_x - radius), rng.uniform(low_y + radius, high_y - radius)
        turns = rng.uniform(0.8, max(0.9, min(0.7 * seconds, 2.5)))
        speed, phase = turns / seconds * (1 if rng.random() < 0.5 else -1), rng.uniform(0, 1)
        return float(x), float(y), float(speed), float(phase), float(radius)
    elif motion in ("grows", "shrinks"):
        speed = rng.uniform(0.55, 0.7) / seconds  # share of the size gained or lost
    return float(x), float(y), float(speed), float(phase), 0.0


def _thing(rng, split, taken, avoid, width, height, shown_seconds, moving, crowd) -> Thing:
    shape, colour, motion = _combination(rng, split, taken, avoid, moving)
    taken.add(colour)
    short = 0.35 + 0.65 * min(width, height)  # narrow pictures hold things a little larger
    low, high = {1: (0.17, 0.25), 2: (0.155, 0.21), 3: (0.145, 0.18)}[crowd]
    size = float(rng.uniform(low, high)) * short
    if motion in ("grows", "shrinks"):
        size = 0.25 * short
    x, y, speed, phase, radius = _place(rng, width, height, size, motion, shown_seconds)
    tint = tuple(float(v) for v in rng.uniform(-1, 1, 3))
    rotation = float(rng.uniform(-0.25, 0.25))
    if motion == "circle":
        rotation = radius  # the path's radius: a thing on a circular path is drawn upright
    return Thing(shape, colour, motion, x, y, size, speed, phase, rotation, 0.0, tint)


def thing_at(thing: Thing, seconds: float) -> tuple[float, float, float]:
    """(x, y, size) of a thing that many seconds after it appeared."""
    x, y, size = thing.x, thing.y, thing.size
    way = thing.speed * seconds
    if thing.motion == "left":
        x -= way
    elif thing.motion == "right":
        x += way
    elif thing.motion == "up":
        y -= way
    elif thing.motion == "down":
        y += way
    elif thing.motion == "circle":
        angle = 2 * np.pi * (thing.phase + way)
        x, y = x + thing.rotation * np.cos(angle), y + thing.rotation * np.sin(angle)
    elif thing.motion == "grows":
        size *= 0.38 + way
    elif thing.motion == "shrinks":
        size *= 1.0 - way
    return float(x), float(y), float(size)


def _far_enough(things: list[Thing], new: Thing, seconds: float) -> bool:
    """Whether two things cover each other only briefly."""
    times = np.linspace(0, seconds, 9)
    for other in things:
        near = 0
        for t in times:
            ax, ay, a = thing_at(other, t)
            bx, by, b = thing_at(new, t)
            near += (ax - bx) ** 2 + (ay - by) ** 2 < (0.85 * (a + b)) ** 2
        if near > 2:
            return False
    return True


def _things(rng, kinds: list[Split], avoid, width, height, seconds, moving=True) -> list[Thing]:
    for _ in range(200):
        taken: set[str] = set()
        things: list[Thing] = []
        for split in kinds:
            for _ in range(40):
                attempt = set(taken)
                new = _thing(rng, split, attempt, avoid, width, height, seconds, moving, len(kinds))
                if _far_enough(things, new, seconds):
                    taken = attempt
                    things.append(new)
                    break
        if len(things) == len(kinds):
            return things
    raise DataError(f"no room for {len(kinds)} things in {width:.2f} x {height:.2f}")


def _ground(rng: np.random.Generator) -> Ground:
    style = ("plain", "gradient", "noisy")[int(rng.integers(3))]
    return Ground(_pick(rng, BACKGROUNDS), style, int(rng.integers(2**31)), float(rng.uniform(0.3, 1.0)))


TEXTURES = ("cloud", "blobs", "clutter", "unknown", "static", "stripes", "patchwork", "flat")


def _texture(rng: np.random.Generator, moving: bool) -> Ground:
    families = ("cloud", "blobs", "clutter", "unknown", "patchwork", "cloud", "clutter") if moving else TEXTURES
    return Ground(None, _pick(rng, families), int(rng.integers(2**31)), float(rng.uniform(0.0, 1.0)))


def _camera(rng: np.random.Generator, seconds: float, still_share: float) -> tuple[str, float, float]:
    jitter = float(rng.uniform(0, 0.004)) if rng.random() < 0.3 else 0.0
    if rng.random() < still_share:
        return "still", 0.0, jitter
    camera = _pick(rng, CAMERAS[1:])
    if camera in ("in", "out"):
        return camera, float(rng.uniform(0.5, 1.2)) / max(seconds, 2.0), jitter
    return camera, float(rng.uniform(0.25, 1.0)) / max(seconds, 2.0), jitter


def draw_scene(seed: int, kind: str | None = None, split: Split = "seen") -> Scene:
    """Decide a scene. The same arguments always give the same scene.

    Args:
        seed: any non-negative integer.
        kind: one of `SCENE_KINDS`, or None to draw one.
        split: "seen" holds only combinations used in training; "triples" and "pairs" hold at least one held-out thing
            (first one for scenes with several). Scenes without moving things have no triples; scenes of kind
            "plain" have no combinations at all and are the same in every split.

    Raises:
        DataError: an unknown kind or split.
    """
    if split not in SPLITS:
        raise DataError(f"split {split!r} is not one of {', '.join(SPLITS)}")
    rng = np.random.default_rng([seed, 7])
    if kind is None:
        kind = str(rng.choice(SCENE_KINDS, p=[0.14, 0.16, 0.08, 0.15, 0.11, 0.10, 0.26]))
    if kind not in SCENE_KINDS:
        raise DataError(f"scene kind {kind!r} is not one of {', '.join(SCENE_KINDS)}")
    rng = np.random.default_rng([seed, SCENE_KINDS.index(kind), SPLITS.index(split)])

    aspect = float(rng.choice([1.0, 4 / 3, 3 / 4, 16 / 9, 9 / 16, 1.2]))
    width, height = (1.0, 1 / aspect) if aspect >= 1 else (aspect, 1.0)
    long_px = int(rng.integers(96, 232))
    width_px, height_px = max(48, round(width * long_px)), max(48, round(height * long_px))
    frame_rate = float(rng.choice([8, 10, 12, 15, 20, 24, 25, 30]))
    has_times = kind in ("cut", "entry")
    if has_times or rng.random() < 0.8:
        duration = float(rng.uniform(2.4, TIMED_SECONDS))
    else:
        duration = float(rng.uniform(TIMED_SECONDS, 28.0))
    if duration > TIMED_SECONDS:
        frame_rate = min(frame_rate, 12.0)  # long films are kept small
    duration = max(1, round(duration * frame_rate)) / frame_rate

    shots: list[Shot] = []
    rest: Split = "seen"  # the split of further things beside a held-out one
    if kind in ("one", "two", "three"):
        ground = _ground(rng)
        kinds: list[Split] = [split] + [rest] * ({"one": 1, "two": 2, "three": 3}[kind] - 1)
        things = _things(rng, kinds, ground.colour, width, height, duration)
        shots.append(Shot(0.0, duration, ground, tuple(things)))
    elif kind == "cut":
        cut = _event_time(rng, max(0.8, 0.25 * duration), min(duration - 0.8, 0.75 * duration))
        first_is_held_out = rng.random() < 0.5
        for index, (start, end) in enumerate(((0.0, cut), (cut, duration))):
            ground = _ground(rng)
            asked = split if (index == 0) == first_is_held_out else rest
            things = _things(rng, [asked], ground.colour, width, height, end - start)
            shots.append(Shot(start, end, ground, tuple(things)))
        if shots[0].ground.colour == shots[1].ground.colour and shots[0].things[0].colour == shots[1].things[0].colour:
            return draw_scene(seed + 1_000_000_007, kind, split)  # too like to be called a cut
    elif kind == "entry":
        ground = _ground(rng)
        late = _event_time(rng, max(0.8, 0.25 * duration), min(duration - 0.9, 0.7 * duration))
        first = second = None
        for _ in range(100):
            asked = [split, rest] if rng.random() < 0.5 else [rest, split]
            first = _things(rng, [asked[0]], ground.colour, width, height, duration)[0]
            taken = {first.colour}
            second = _thing(rng, asked[1], taken, ground.colour, width, height, duration - late, True, 2)
            if all(
                np.hypot(*(np.subtract(thing_at(first, t)[:2], thing_at(second, t - late)[:2])))
                > 0.7 * (thing_at(first, t)[2] + thing_at(second, t - late)[2])
                for t in np.linspace(late, duration, 6)
            ):
                break
        assert first is not None and second is not None
        second = replace(second, start_seconds=late)
        shots.append(Shot(0.0, duration, ground, (first, second)))
    elif kind == "camera":
        if split == "triples":
            raise DataError("scenes of kind 'camera' have no motions of things and so no held-out triples")
        camera, speed, jitter = _camera(rng, duration, 0.12)
        ground = _ground(rng)
        ground = Ground(ground.colour, "textured", ground.seed, ground.strength)
        kinds = [split] + ([rest] if rng.random() < 0.5 else [])
        # They must still be in view most of the time: the way of the camera is kept short.
        if camera in ("left", "right", "up", "down"):
            speed = float(rng.uniform(0.25, 0.5)) * (width if camera in ("left", "right") else height) / duration
        elif camera != "still":
            speed = float(rng.uniform(0.4, 0.8)) / duration
        placed: list[Thing] = []
        for _ in range(200):
            things = _things(rng, kinds, ground.colour, width, height, duration, moving=False)
            way = speed * duration
            shift = {"left": (way, 0), "right": (-way, 0), "up": (0, way), "down": (0, -way)}.get(camera, (0, 0))
            placed = []
            for thing in things:
                # Start where the middle of the way lies in the picture.
                x, y = thing.x + shift[0] / 2, thing.y + shift[1] / 2
                if camera in ("in", "out"):
                    x, y = width / 2 + (x - width / 2) * 0.5, height / 2 + (y - height / 2) * 0.5
                placed.append(replace(thing, x=x, y=y))
            if len(placed) < 2 or _far_enough(placed[:1], placed[1], 0.0):
                break
        shots.append(Shot(0.0, duration, ground, tuple(placed), camera, speed, jitter))
    else:
        cuts: list[float] = []
        if rng.random() < 0.4 and duration > 2.4:
            cuts.append(_event_time(rng, 0.7, duration - 0.7))
            if duration > 3.4 and rng.random() < 0.35:
                other = _event_time(rng, 0.7, duration - 0.7)
                if abs(other - cuts[0]) > 0.8 and half_second(other) != half_second(cuts[0]):
                    cuts.append(other)
        edges = [0.0, *sorted(cuts), duration]
        camera, speed, jitter = _camera(rng, duration, 0.35)
        for start, end in pairwise(edges):
            shots.append(Shot(start, end, _texture(rng, camera != "still"), (), camera, speed, jitter))

    sounds, loudness, gain = _sound(rng, duration)
    has_track = bool(sounds) or rng.random() < 0.5
    return Scene(
        seed=seed,
        kind=kind,
        split=split,
        width_px=width_px,
        height_px=height_px,
        frame_rate=frame_rate,
        duration_seconds=duration,
        shots=tuple(shots),
        sounds=tuple(sounds),
        loudness=loudness,
        gain_db=gain,
        has_sound_track=has_track,
        rate_hz=int(rng.choice([16000, 22050, 32000, 44100, 48000])),
        channels=int(rng.choice([1, 2])),
        floor_db=float(rng.uniform(-85, -72)) if rng.random() < 0.5 else -200.0,
    )


def draw_pile(seed: int) -> Scene:
    """Two shots of many still things each, for the eye alone: much to see in few frames. No held-out pairs.

    The camera moves in most of them, so that two moments show the same things elsewhere.
    """
    rng = np.random.default_rng([seed, 101])
    aspect = float(rng.choice([1.0, 4 / 3, 3 / 4, 16 / 9, 9 / 16, 1.2]))
    width, height = (1.0, 1 / aspect) if aspect >= 1 else (aspect, 1.0)
    short = 0.35 + 0.65 * min(width, height)
    shots: list[Shot] = []
    for index in range(2):
        ground = _ground(rng)
        if rng.random() < 0.5:
            ground = replace(ground, style="textured")
        things: list[Thing] = []
        for colour in rng.permutation(COLOURS).tolist():
            shape = _pick(rng, SHAPES)
            if colour == ground.colour or is_held_out_pair(shape, colour):
                continue
            size = float(rng.uniform(0.1, 0.24)) * short
            x, y = float(rng.uniform(size, width - size)), float(rng.uniform(size, height - size))
            if all((t.x - x) ** 2 + (t.y - y) ** 2 > (0.9 * (t.size + size)) ** 2 for t in things):
                tint = tuple(float(v) for v in rng.uniform(-1, 1, 3))
                turn = float(rng.uniform(-0.25, 0.25))
                things.append(Thing(shape, colour, "still", x, y, size, rotation=turn, tint=tint))
            if len(things) == 5:
                break
        camera = _pick(rng, CAMERAS)
        speed = 0.0 if camera == "still" else float(rng.uniform(0.05, 0.3))
        shots.append(Shot(2.0 * index, 2.0 * index + 2, ground, tuple(things), camera, speed))
    long_px = 128
    return Scene(
        seed, "three", "seen", max(48, round(width * long_px)), max(48, round(height * long_px)), 4.0, 4.0,
        tuple(shots), (), "silent", -120.0, False, 16000, 1,
    )  # fmt: skip


def _sound(rng: np.random.Generator, duration: float) -> tuple[list[SoundEvent], str, float]:
    """No sound, one, or two one after the other."""
    count = int(rng.choice([0, 1, 2], p=[0.15, 0.5, 0.35]))
    if duration < 3.2:
        count = min(count, 1)
    loudness = "silent" if count == 0 else ("loud" if rng.random() < 0.5 else "quiet")
    gain = {"silent": -120.0, "loud": float(rng.uniform(-20, -8)), "quiet": float(rng.uniform(-46, -33))}[loudness]
    if count == 0:
        return [], loudness, gain
    # A sound that starts at once has no onset to hear within the file; half of the first ones do.
    horizon = min(duration, TIMED_SECONDS)
    spans: list[tuple[float, float]]
    if count == 1:
        start = 0.0 if rng.random() < 0.25 else _event_time(rng, 0.1, max(0.3, horizon - 1.4))
        spans = [(start, min(duration, start + float(rng.uniform(1.0, max(1.2, horizon - start)))))]
    else:
        middle = _event_time(rng, 0.42 * horizon, 0.62 * horizon)
        start = 0.0 if rng.random() < 0.25 else _event_time(rng, 0.1, max(0.15, middle - 1.2))
        spans = [(start, middle - float(rng.uniform(0.15, 0.3))), (middle, min(duration, horizon))]
    kinds = [str(k) for k in rng.choice(SOUNDS, size=count, replace=False)]
    events = []
    for kind, (start, end) in zip(kinds, spans, strict=True):
        number = 1
        if kind in ("beeps", "clicks"):
            room = max(1, int((end - start - 0.05) / 0.32))
            number = int(rng.integers(1, min(4, room) + 1))
        events.append(SoundEvent(kind, start, end, number, float(rng.uniform(0, 1)), int(rng.integers(2**31))))
    return events, loudness, gain


_REVERSED = {"left": "right", "right": "left", "up": "down", "down": "up", "grows": "shrinks", "shrinks": "grows"}
_REVERSED_CAMERA = {"left": "right", "right": "left", "up": "down", "down": "up", "in": "out", "out": "in"}


def reversed_in_time(scene: Scene) -> Scene | None:
    """What is seen of the scene when its frames run backwards, in names only: its things are not where they would be.

    None where the world has no words for it (a thing that vanishes) or where a held-out combination would arise.
    """
    if scene.kind == "entry":
        return None
    shots = []
    for shot in reversed(scene.shots):
        things = tuple(replace(thing, motion=_REVERSED.get(thing.motion or "", thing.motion)) for thing in shot.things)
        if any(t.motion is not None and is_held_out_triple(t.shape, t.colour, t.motion) for t in things):
            return None
        start, end = scene.duration_seconds - shot.end_seconds, scene.duration_seconds - shot.start_seconds
        if shots and abs((start * 2) % 1 - 0.5) < 0.2:
            return None  # the frames would not tell its half second
        camera = _REVERSED_CAMERA.get(shot.camera, shot.camera)
        shots.append(replace(shot, start_seconds=start, end_seconds=end, things=things, camera=camera))
    return replace(scene, shots=tuple(shots))

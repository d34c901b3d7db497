"""A library of known films, and descriptions of moments that it holds exactly once: what search is scored on.

A film is scene after scene of the drawn world with the scenes' sounds; scenes that sound stand apart from each other.
A query is true of one moment of the whole library, by the facts from which it was drawn:

* by sight: one or two things, how they move, and the ground behind them;
* by sound: two sounds that are heard in one scene;
* by both: a thing that acts while something is heard, where neither of the two alone would tell which moment is meant.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import Literal

import numpy as np

from videollm.clips import Waveform
from videollm.data.drawing import render
from videollm.data.sounds import synthesise
from videollm.data.world import TEST_SEEDS, InTurn, Scene, SoundEvent, draw_scene
from videollm.data.world_narrations import Captioner, Facts, facts_of
from videollm.data.world_sounds import Heard, Statement, heard_between, wording
from videollm.media.write import write_video

WIDTH_PX, HEIGHT_PX, FRAME_RATE, SOUND_HZ = 128, 96, 4, 16000
SHORTEST_SECONDS, LONGEST_SECONDS = 60.0, 600.0
_LENGTHS_SKEW = 60.0
_GOLDEN = (5**0.5 - 1) / 2
_SILENT_BETWEEN = 2
"""Scenes without sound behind one with: sounds of different scenes are never heard in one window."""
_TWO_THINGS_SHARE = 0.35

QueryKind = Literal["sight", "sound", "both"]
QUERY_KINDS: tuple[QueryKind, ...] = ("sight", "sound", "both")


@dataclass(frozen=True)
class LibraryFilm(InTurn):
    """A film: its number in the library, and scenes of one size."""

    number: int
    scenes: tuple[Scene, ...]

    @property
    def name(self) -> str:
        return f"film-{self.number:03d}.mp4"

    def write(self, path: Path) -> None:
        """Write it as an mp4."""

        def pictures() -> Iterator[np.ndarray]:
            for scene in self.scenes:
                moments = np.arange(round(scene.duration_seconds * FRAME_RATE)) / FRAME_RATE
                yield from render(scene, moments, long_px=WIDTH_PX)

        sounds = []
        for scene in self.scenes:
            part = np.zeros((1, round(scene.duration_seconds * SOUND_HZ)), np.float32)
            made = synthesise(scene, SOUND_HZ, channels=1) if scene.sounds else None
            if made is not None:
                part[:, : made.shape[1]] = made[:, : part.shape[1]]
            sounds.append(part)
        waveform = Waveform(np.concatenate(sounds, axis=1), SOUND_HZ)
        write_video(path, pictures(), fps=FRAME_RATE, waveform=waveform, preset="ultrafast")


@dataclass(frozen=True)
class Query:
    """A description of one moment.

    Attributes:
        kind: what it speaks of.
        words: it; of kind "both", what is seen and then what is heard.
        sight, sound: its parts; empty where it has none.
        film: number of the film.
        start_seconds, end_seconds: the moment.
    """

    kind: QueryKind
    words: str
    sight: str
    sound: str
    film: int
    start_seconds: float
    end_seconds: float


def draw_library(films: int, first: int = 0) -> list[LibraryFilm]:
    """Decide a library. The same arguments always give the same one.

    Args:
        films: how many, of one minute to ten, most of them short; fewer are the beginning of more.
        first: the number of its first film; libraries without a number in common have no scene in common.
    """
    pairs: set[frozenset[Heard]] = set()
    return [_draw_film(number, _length(number), pairs) for number in range(first, first + films)]


def _length(number: int) -> float:
    share = (number * _GOLDEN) % 1  # spread evenly, in any stretch of numbers
    return SHORTEST_SECONDS * (LONGEST_SECONDS / SHORTEST_SECONDS) ** (share**_LENGTHS_SKEW)


def _draw_film(number: int, seconds: float, pairs: set[frozenset[Heard]]) -> LibraryFilm:
    rng = np.random.default_rng([number, 71])
    scenes: list[Scene] = []
    silent, at = 0, 0.0
    for seed in count(TEST_SEEDS + 900_000_000 + number * 10_000):
        kind = "two" if rng.random() < _TWO_THINGS_SHARE else "one"
        scene = draw_scene(seed, kind)
        length = int(scene.duration_seconds * 2) / 2
        aspect = scene.width_px / scene.height_px
        if not scene.timed or length < 3 or abs(aspect - WIDTH_PX / HEIGHT_PX) > 0.03:
            continue
        if scenes and facts_of(scene) == facts_of(scenes[-1]):
            continue
        scene = replace(scene, width_px=WIDTH_PX, height_px=HEIGHT_PX, duration_seconds=length, has_sound_track=True)
        scene = replace(scene, sounds=() if silent else _kept_sounds(scene, length, pairs), floor_db=-200.0)
        silent = _SILENT_BETWEEN if scene.sounds else max(silent - 1, 0)
        scenes.append(scene)
        at += length
        if at >= seconds:
            return LibraryFilm(number, tuple(scenes))
    raise AssertionError("seeds never end")


def _kept_sounds(scene: Scene, length: float, pairs: set[frozenset[Heard]]) -> tuple[SoundEvent, ...]:
    """A scene's sounds, of two that were heard together before only the first; they end with the scene."""
    events = tuple(replace(event, end_seconds=min(event.end_seconds, length)) for event in scene.sounds)
    if len(events) < 2:
        return events
    pair = frozenset(heard_between(events, 0.0, length))
    if len(pair) < 2 or pair in pairs:
        return events[:1]
    pairs.add(pair)
    return events


def draw_queries(library: Sequence[LibraryFilm], each: int, seed: int = 0) -> list[Query]:
    """Descriptions that are true of one moment of the library each, as many of each kind where there are so many."""
    rng = np.random.default_rng([seed, 73])
    makers = {"sight": _by_sight, "sound": _by_sound, "both": _by_both}
    found: list[Query] = []
    for kind in QUERY_KINDS:
        queries = makers[kind](library, rng)
        chosen = rng.permutation(len(queries))[:each]
        found += [queries[place] for place in sorted(chosen.tolist())]
    return found


def _scenes(library: Sequence[LibraryFilm]) -> Iterator[tuple[LibraryFilm, Scene, tuple[float, float]]]:
    for film in library:
        for scene, span in zip(film.scenes, film.spans_seconds, strict=True):
            yield film, scene, span


def _heard(scene: Scene) -> tuple[Heard, ...]:
    return heard_between(scene.sounds, 0.0, scene.duration_seconds)


def _by_sight(library: Sequence[LibraryFilm], rng: np.random.Generator) -> list[Query]:
    """Whole descriptions of scenes; of one thing only where no scene of two holds it on the same ground."""
    told: Counter[tuple[frozenset, str | None]] = Counter()
    for _, scene, _ in _scenes(library):
        facts = facts_of(scene)
        for things in {frozenset(facts.things), *(frozenset([one]) for one in facts.things)}:
            told[things, facts.background] += 1
    captioner = Captioner(plain=0.0)
    queries = []
    for film, scene, (start, end) in _scenes(library):
        facts = facts_of(scene)
        if told[frozenset(facts.things), facts.background] == 1:
            words = captioner(facts, rng)
            queries.append(Query("sight", words, words, "", film.number, start, end))
    return queries


def _by_sound(library: Sequence[LibraryFilm], rng: np.random.Generator) -> list[Query]:
    queries = []
    for film, scene, (start, _) in _scenes(library):
        heard = _heard(scene)
        if len(heard) == 2:  # of such pairs, each was kept once
            counted = tuple((one.kind, one.count if one.kind in ("beeps", "clicks") else None) for one in heard)
            words = wording(Statement(counted, ordered=True), rng, held_out=True)
            first, last = scene.sounds[0], scene.sounds[-1]
            moment = start + first.start_seconds, start + last.end_seconds
            queries.append(Query("sound", words, "", words, film.number, *moment))
    return queries


def _by_both(library: Sequence[LibraryFilm], rng: np.random.Generator) -> list[Query]:
    """A thing and its motion, without the ground, and a kind of sound; each of the two is there elsewhere, too."""
    seen: Counter = Counter()
    sounds: Counter[str] = Counter()
    together: Counter = Counter()
    for _, scene, _ in _scenes(library):
        kinds = {one.kind for one in _heard(scene)}
        sounds.update(kinds)
        for thing in facts_of(scene).things:
            seen[thing] += 1
            together.update((thing, kind) for kind in kinds)
    queries = []
    for film, scene, (start, end) in _scenes(library):
        heard, things = _heard(scene), facts_of(scene).things
        if not heard:
            continue
        thing, kind = things[int(rng.integers(len(things)))], heard[int(rng.integers(len(heard)))].kind
        if together[thing, kind] == 1 and seen[thing] > 1 and sounds[kind] > 1:
            sight = _without_ground(thing, rng)
            sound = wording(Statement(((kind, None),)), rng, held_out=True)
            words = f"{sight}, {sound}"
            queries.append(Query("both", words, sight, sound, film.number, start, end))
    return queries


def _without_ground(thing: tuple[str, str, str], rng: np.random.Generator) -> str:
    said = Captioner(plain=0.0)(Facts((thing,), "GROUND"), rng)
    while "GROUND" in said:
        said = Captioner(plain=0.5)(Facts((thing,), "GROUND"), rng)
        said = said.removesuffix(" on a GROUND background")
    return said


def overlap(one: tuple[float, float], other: tuple[float, float]) -> float:
    """Temporal intersection over union of two stretches."""
    common = min(one[1], other[1]) - max(one[0], other[0])
    return max(common, 0.0) / (max(one[1], other[1]) - min(one[0], other[0]))

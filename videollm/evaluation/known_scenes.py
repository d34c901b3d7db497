"""A long film of known scenes, and how well narrations tell it: which scenes are found, which sentences are true."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from videollm.data.dialogue import narrations
from videollm.data.drawing import render
from videollm.data.world import Scene
from videollm.data.world_files import test_scene
from videollm.tools.narrate import Narration

WIDTH_PX, HEIGHT_PX = 128, 96
LEAST_OVERLAP_SECONDS = 0.25


@dataclass(frozen=True)
class KnownScene:
    """What is shown from a start to an end, seconds: one thing ("red star")."""

    start_seconds: float
    end_seconds: float
    thing: str


def scenes(first: int = 0) -> Iterator[tuple[Scene, float]]:
    """Scenes of one thing that no training draws, of one shape of picture, and how long each is shown: 3 s or more.

    Args:
        first: the number of the first scene; other numbers give other films.
    """
    for index in itertools.count(first):
        scene = test_scene("one", "seen", index)
        length = int(scene.duration_seconds * 2) / 2
        if scene.timed and length >= 3 and abs(scene.width_px / scene.height_px - WIDTH_PX / HEIGHT_PX) < 0.03:
            yield scene, length


def film_of(seconds: float, rate: int, known: list[KnownScene], first: int = 0) -> Iterator[np.ndarray]:
    """Pictures, uint8 ``(96, 128, 3)``, of scenes one after the other until so many seconds are full.

    Args:
        seconds: at least as long is the film; the last scene is shown whole.
        rate: pictures a second.
        known: gets what is shown when.
        first: see `scenes`.
    """
    at = 0.0
    for scene, length in scenes(first):
        if at >= seconds:
            return
        pictures = render(scene, np.arange(round(length * rate)) / rate, long_px=WIDTH_PX)[:, :HEIGHT_PX, :WIDTH_PX]
        missing = ((0, 0), (0, HEIGHT_PX - pictures.shape[1]), (0, WIDTH_PX - pictures.shape[2]), (0, 0))
        yield from np.pad(pictures, missing, "edge")
        (_, sentence), *_ = narrations(scene)
        known.append(KnownScene(at, at + length, " ".join(sentence.split()[1:3])))
        at += length


def is_found(scene: KnownScene, found: Sequence[Narration], most_seconds: float) -> bool:
    """Whether a scene's thing is named while it is there, from its start to its end, give or take so many seconds."""
    start, end = scene.start_seconds, scene.end_seconds
    hits = [
        one
        for one in found
        if scene.thing in one.text.lower()
        and min(one.end_seconds, end) - max(one.start_seconds, start) > LEAST_OVERLAP_SECONDS
    ]
    off = [abs(hits[0].start_seconds - start), abs(hits[-1].end_seconds - end)] if hits else [math.inf]
    return max(off) <= most_seconds


def is_true(one: Narration, known: Sequence[KnownScene]) -> bool:
    """Whether a narration names a thing that is there in its time."""
    return any(
        scene.thing in one.text.lower()
        for scene in known
        if scene.start_seconds < one.end_seconds and scene.end_seconds > one.start_seconds
    )


@dataclass(frozen=True)
class Told:
    """How well a film was told.

    Attributes:
        scenes, found: how many there are, and of how many the thing is named at the right time.
        spans, true: how many narrations there are, and how many name what is there.
    """

    scenes: int
    found: int
    spans: int
    true: int

    def __str__(self) -> str:
        return (
            f"{self.found} of {self.scenes} scenes found ({self.found / self.scenes:.1%}), "
            f"{self.true} of {self.spans} spans true ({self.true / max(self.spans, 1):.1%})"
        )


def told(known: Sequence[KnownScene], found: Sequence[Narration], most_seconds: float) -> Told:
    """Count.

    Args:
        known: of `film_of`.
        found: narrations of the film, in the order of their times.
        most_seconds: how far the start and the end of a scene may be off: half a window.
    """
    return Told(
        len(known),
        sum(is_found(scene, found, most_seconds) for scene in known),
        len(found),
        sum(is_true(one, known) for one in found),
    )

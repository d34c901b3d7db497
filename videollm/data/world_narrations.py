"""Films of the drawn world, what people might write about moments of them, and what such a sentence states.

For LaViLa's models at small size: the same facts (things, their motions, the ground) in many wordings. A `Captioner`
draws one as a person would, with a habit: the plain wording is the commonest, so that the likeliest sentence of a
narrator is the plain one. `read_facts` reads a sentence back. `film` is footage: scene after scene.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from videollm.data.drawing import render
from videollm.data.world import (
    BACKGROUNDS,
    COLOURS,
    MOTIONS,
    SHAPES,
    TEST_SEEDS,
    Scene,
    Split,
    draw_scene,
    is_held_out_pair,
    is_held_out_triple,
)

NOTHING = "none of the shapes I know"


@dataclass(frozen=True)
class Facts:
    """What a caption states.

    Attributes:
        things: (colour, shape, motion) of each, in the order of `COLOURS`; none: nothing drawn is to be seen.
        background: its colour; None behind nothing drawn.
    """

    things: tuple[tuple[str, str, str], ...]
    background: str | None


def facts_of(scene: Scene) -> Facts:
    """The facts of a scene of kind "one", "two", "three" or "plain"."""
    things = sorted(
        ((one.colour, one.shape, one.motion or "still") for one in scene.things),
        key=lambda one: COLOURS.index(one[0]),
    )
    return Facts(tuple(things), scene.shots[0].ground.colour if things else None)


# The plain wording first.
_MOVES: dict[str, tuple[str, ...]] = {
    **{
        way: (
            f"moves {way}", f"goes {way}", f"is moving {way}", f"slides {way}", f"travels {toward}", f"drifts {toward}",
            f"glides {toward}", f"is going {toward}",
        )
        for way, toward in {
            "left": "to the left", "right": "to the right", "up": "to the top", "down": "to the bottom",
        }.items()
    },
    "circle": (
        "moves in a circle", "circles around", "goes round in a circle", "travels in a circle", "runs along a circle",
        "is circling",
    ),
    "still": (
        "stays still", "does not move", "rests", "stays in place", "stands still", "is at rest", "remains where it is",
    ),
    "grows": ("grows", "gets larger", "gets bigger", "is growing", "becomes larger", "becomes bigger", "expands"),
    "shrinks": (
        "shrinks", "gets smaller", "is shrinking", "becomes smaller", "grows smaller", "diminishes", "contracts",
    ),
}  # fmt: skip
_NAMES = ("a {}", "one {}", "the {}", "this {}")
_WHOLE = (
    "{things} on a {ground} background",
    "on a {ground} background, {things}",
    "{things} in front of a {ground} background",
    "{things} against a {ground} background",
    "{things}, the background is {ground}",
    "the background is {ground} and {things}",
    "in front of {ground}, {things}",
    "{things}, with {ground} behind",
    "before a {ground} ground, {things}",
    "{things} over a {ground} ground",
)
_JOINS = (" and ", " while ", ", ", " as ")
_NOTHING = (
    NOTHING, "no shape that I know", "nothing that I know", "nothing but a pattern", "a pattern without any shape",
    "no known shape", "only a texture",
)  # fmt: skip

PLAIN_SHARE = 0.4
"""How often a person takes the plain wording of a part of a sentence."""


class Captioner:
    """Sentences for facts.

    Args:
        plain: how often the plain wording is taken, for each part of a sentence.
    """

    def __init__(self, plain: float = PLAIN_SHARE) -> None:
        self.plain = plain

    def _pick(self, options: Sequence[str], rng: np.random.Generator) -> str:
        if rng.random() < self.plain:
            return options[0]
        return options[int(rng.integers(len(options)))]

    def __call__(self, facts: Facts, rng: np.random.Generator) -> str:
        """One sentence, without capitals at its beginning and without a full stop."""
        if not facts.things:
            return self._pick(_NOTHING, rng)
        name = self._pick(_NAMES, rng)
        acting = [
            f"{_with_article(name.format(f'{colour} {shape}'))} {self._pick(_MOVES[motion], rng)}"
            for colour, shape, motion in facts.things
        ]
        whole = self._pick(_WHOLE, rng)
        return whole.format(things=self._pick(_JOINS, rng).join(acting), ground=facts.background)


def plain_caption(facts: Facts) -> str:
    """The plain wording."""
    return Captioner(1.0)(facts, np.random.default_rng(0))


def _with_article(name: str) -> str:
    return re.sub(r"\ba (?=[aeiou])", "an ", name)


_THING = re.compile(rf"\b({'|'.join(COLOURS)}) ({'|'.join(SHAPES)})\b")
_SAID = sorted(
    ((said, motion) for motion in MOTIONS for said in _MOVES[motion]), key=lambda pair: len(pair[0]), reverse=True
)
_MOVING = re.compile(r"\b(" + "|".join(said for said, _ in _SAID) + r")\b")
_GROUND = re.compile(rf"\b({'|'.join(BACKGROUNDS)})\b(?! (?:{'|'.join(SHAPES)})\b)")


def read_facts(text: str) -> Facts | None:
    """What a sentence states; None where it is no whole sentence of the world.

    Every thing must have just one motion, and there must be just one background.
    """
    words = " ".join(re.sub(r"[.;!?]", " ", text.lower()).split())
    if words in {said.lower() for said in _NOTHING}:
        return Facts((), None)
    found = list(_THING.finditer(words))
    grounds = [match[1] for match in _GROUND.finditer(words)]
    if not found or len(grounds) != 1:
        return None
    meanings = dict(_SAID)
    ends = [*(match.start() for match in found[1:]), len(words)]
    things = []
    for match, end in zip(found, ends, strict=True):
        moves = _MOVING.findall(words[match.end() : end])
        if len(moves) != 1:
            return None
        things.append((match[1], match[2], meanings[moves[0]]))
    things.sort(key=lambda one: COLOURS.index(one[0]))
    return Facts(tuple(things), grounds[0])


def draw_facts(rng: np.random.Generator) -> Facts:
    """Facts of a clip as training might show it: nothing that is held out."""
    if rng.random() < 0.05:
        return Facts((), None)
    ground = BACKGROUNDS[int(rng.integers(len(BACKGROUNDS)))]
    things: list[tuple[str, str, str]] = []
    while len(things) < (2 if rng.random() < 0.4 else 1):
        colour, shape, motion = (options[int(rng.integers(len(options)))] for options in (COLOURS, SHAPES, MOTIONS))
        held_out = is_held_out_pair(shape, colour) or is_held_out_triple(shape, colour, motion)
        if not held_out and colour not in (ground, *(one[0] for one in things)):
            things.append((colour, shape, motion))
    return Facts(tuple(sorted(things, key=lambda one: COLOURS.index(one[0]))), ground)


def texts_of_the_world(count: int = 4000, seed: int = 0, plain: float = 0.0) -> list[str]:
    """Captions without clips; ``plain``: see `Captioner`."""
    rng, say = np.random.default_rng([seed, 31]), Captioner(plain)
    return [say(draw_facts(rng), rng) for _ in range(count)]


# --- films ------------------------------------------------------------------------------------------------------------

KINDS = {"one": 0.6, "two": 0.3, "plain": 0.1}
FRAME_RATE = 4
_SHORT_PX = 96
_ASPECTS = (1.0, 4 / 3, 3 / 4, 1.2)
_SHORTEST_SECONDS = 3.0
_SEEDS_A_FILM = 1_000_000


@dataclass(frozen=True)
class Shown:
    """A scene of a film.

    Attributes:
        start_seconds, end_seconds: when it is on screen.
        facts: what is to be seen.
    """

    start_seconds: float
    end_seconds: float
    facts: Facts


def film_scenes(
    seed: int, kinds: Sequence[str] | None = None, split: Split = "seen", kept: bool = False
) -> Iterator[Scene]:
    """Scenes for a film, without end: all of about the same shape of picture, 3 to 8 seconds long, without a cut.

    Args:
        seed: of the film, below 3000; other seeds give other scenes.
        kinds: of scenes, in turn; None: drawn by `KINDS`.
        split: see `videollm.data.world.draw_scene`.
        kept: of those that are kept for testing.
    """
    rng = np.random.default_rng([seed, kept, 61])
    aspect = _ASPECTS[int(rng.integers(len(_ASPECTS)))]
    base = seed * _SEEDS_A_FILM + (TEST_SEEDS + 1_000_000_000 if kept else 0)
    number, kind = 0, None
    while True:
        if kind is None:
            kind = str(rng.choice(list(KINDS), p=list(KINDS.values()))) if kinds is None else kinds[number % len(kinds)]
        scene = draw_scene(base + int(rng.integers(_SEEDS_A_FILM)), kind, split)
        usable = scene.timed and scene.duration_seconds >= _SHORTEST_SECONDS and len(scene.shots) == 1
        if usable and abs(scene.width_px / scene.height_px - aspect) < 0.05:
            yield scene
            number, kind = number + 1, None


def film(scenes: Sequence[Scene]) -> tuple[Iterator[np.ndarray], list[Shown]]:
    """A film of scenes, one after the other, `FRAME_RATE` frames a second.

    Args:
        scenes: of about the same shape of picture.

    Returns:
        its frames, uint8 ``(H, W, 3)``, drawn while they are taken, and what is shown when.
    """
    aspect = min(_ASPECTS, key=lambda one: abs(one - scenes[0].width_px / scenes[0].height_px))
    width, height = (round(_SHORT_PX * side) for side in ((aspect, 1.0) if aspect >= 1 else (1.0, 1 / aspect)))
    counts = [int(scene.duration_seconds * FRAME_RATE) for scene in scenes]
    starts = np.cumsum([0, *counts]) / FRAME_RATE
    told = [
        Shown(float(start), float(end), facts_of(scene))
        for scene, start, end in zip(scenes, starts[:-1], starts[1:], strict=True)
    ]

    def frames() -> Iterator[np.ndarray]:
        for scene, count in zip(scenes, counts, strict=True):
            drawn = render(scene, np.arange(count) / FRAME_RATE, max(width, height))[:, :height, :width]
            room = ((0, 0), (0, height - drawn.shape[1]), (0, width - drawn.shape[2]), (0, 0))
            yield from np.pad(drawn, room, "edge")

    return frames(), told

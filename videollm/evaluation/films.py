"""Films of the world, read back from real files, and the questions that a benchmark puts to them."""

from __future__ import annotations

import dataclasses
import math
import tempfile
import zlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from videollm.clips import Clip, Frames
from videollm.data import dialogue as talk
from videollm.data.world import Scene, Split, reversed_in_time
from videollm.data.world_files import test_scene, write_scene
from videollm.media.decode_worker import read_clip
from videollm.media.sampling import FrameSampling, SoundSampling

MOST_OF_A_TYPE = 8
"""Questions of one type about one film at most, in different words: more would be the same question again."""

_ABOUT_ORDER = frozenset({"motion", "first", "last", "before_cut", "after_cut", "camera"})
_SAME_WHEN_REVERSED = frozenset({"colour", "shape", "count"})
_OF_COMBINATIONS = frozenset({
    "caption", "narration", "colour", "shape", "motion", "exist", "first", "last", "before_cut", "after_cut",
    "thing_when", "before_thing", "at_time", "seen_at_sound",
})  # fmt: skip
HELD_OUT_KINDS = ("one", "two", "cut", "entry")
"""Kinds of scenes of which held-out combinations are measured; of "one" with every type of question."""
NEW_WORDING_KINDS = ("one", "two", "cut", "camera", "plain")


@dataclass(frozen=True)
class Film:
    """One test scene: its kind, split and number."""

    kind: str
    split: Split
    index: int

    @property
    def name(self) -> str:
        return f"{self.kind}-{self.split}-{self.index}.mp4"

    def scene(self) -> Scene:
        return test_scene(self.kind, self.split, self.index)


@dataclass(frozen=True)
class Asked:
    """A question put to a film, before it is answered.

    ``follows`` is the question of the turn before, for those that make no sense alone; ``muted`` and ``reversed`` say
    how the film is shown.
    """

    condition: str
    row: str
    type: str
    question: str
    truth: str
    muted: bool = False
    reversed: bool = False
    unchanged_truth: str | None = None
    follows: str | None = None


def read_film(film: Film, processor: Any, folder: Path | None) -> Clip:
    """The film as the model is shown it: written as an mp4, and read back.

    Args:
        film: which one.
        processor: names the sampling.
        folder: keeps the file; None writes it to a temporary place.
    """
    frames, sound = FrameSampling(**processor.frame_sampling), SoundSampling(**processor.sound_sampling)
    if folder is not None:
        path = folder / film.name
        if not path.exists():
            write_scene(film.scene(), path)
        return read_clip(path, frames=frames, sound=sound)
    with tempfile.TemporaryDirectory(prefix="videollm-") as place:
        path = Path(place) / film.name
        write_scene(film.scene(), path)
        return read_clip(path, frames=frames, sound=sound)


def without_sound(clip: Clip) -> Clip:
    """The same clip as if it had no sound track."""
    return dataclasses.replace(clip, waveforms=None, windows_seconds=())


def with_frames_reversed(clip: Clip) -> Clip:
    """The same clip with its frames in the opposite order, at the old seconds; the sound stays."""
    assert clip.frames is not None
    frames = Frames(clip.frames.pixels[::-1].copy(), clip.frames.seconds, clip.frames.duration_seconds)
    return dataclasses.replace(clip, frames=frames)


def films_of(kinds: Sequence[str], conditions: Sequence[str], first: int, count: int) -> list[Film]:
    """The films that the conditions need: ``count`` of each kind in each split."""
    films = [Film(kind, "seen", first + i) for kind in kinds for i in range(count)]
    for split in ("triples", "pairs"):
        if split in conditions:
            films += [Film(kind, split, first + i) for kind in kinds if kind in HELD_OUT_KINDS for i in range(count)]
    return films


def plan(films: Sequence[Film], wanted: int) -> dict[str, float]:
    """How many questions of each type to put to each film that allows them, so that ``wanted`` come together."""
    offered: Counter[str] = Counter()
    for film in films:
        scene = film.scene()
        rng = np.random.default_rng([scene.seed, 31])
        picture = talk.Picture("red", 1.0, "dark", 100.0)  # only which types there are matters here
        pool = talk.questions(scene, picture, rng)
        offered.update({question.type for question in pool})
        offered.update({following.type for question in pool for following in talk.follow_ups(scene, question)})
    # A tenth more: wordings run out, and some attributes turn out not to be clear.
    return {kind: min(MOST_OF_A_TYPE, 1.1 * wanted / count) for kind, count in offered.items()}


def _share(each: float, film: Film, salt: str) -> int:
    """A whole number of questions for this film, such that many films have ``each`` on average."""
    whole = math.floor(each)
    chance = zlib.crc32(f"{film.name} {salt}".encode()) / 2**32
    return whole + (chance < each - whole)


def ask_film(
    film: Film, picture: talk.Picture, conditions: Sequence[str], each: dict[str, float], sound_each: dict[str, float]
) -> list[Asked]:
    """The questions put to one film.

    Args:
        film: the film.
        picture: attributes of the frames as they were read.
        conditions: of the benchmark.
        each: questions a type, from `plan`, over the films of this kind and split.
        sound_each: the same for questions about sound alone, over the seen films of all kinds.
    """
    scene = film.scene()
    asked: list[Asked] = []

    def whole(quotas: dict[str, float], more: float = 1.0) -> dict[str, int]:
        return {kind: _share(more * count, film, kind) for kind, count in quotas.items()}

    if film.split == "seen":
        for number, condition in enumerate(("seen", "new wordings")):
            if condition in conditions and (condition == "seen" or film.kind in NEW_WORDING_KINDS):
                rng = np.random.default_rng([scene.seed, 37, number])
                new = condition == "new wordings"
                heard = whole(sound_each, 1.45 if new else 1.0)  # fewer kinds share the questions about sound
                asked += _plain_questions(scene, picture, condition, whole(each), heard, rng, new)
                asked += _outside(condition, whole(sound_each).get("silence", 0), rng, new)
        # Some films have no sound to remove, or nothing to reverse: the others are asked so much more.
        if "no sound" in conditions:
            asked += _muted(
                scene, picture, whole(each, 1.3), whole(sound_each, 1.3), np.random.default_rng([scene.seed, 41])
            )
        if "reversed" in conditions:
            asked += _reversed(scene, picture, whole(each, 1.4), np.random.default_rng([scene.seed, 43]))
    elif film.split in conditions:
        rng = np.random.default_rng([scene.seed, 47])
        types = {
            kind: count
            for kind, count in whole(each).items()
            if kind in _OF_COMBINATIONS or (film.kind == "one" and not kind.startswith("follow"))
        }
        asked += _plain_questions(scene, picture, film.split, types, {}, rng, False)
    return asked


def _row(scene: Scene, kind: str) -> str:
    return "sound" if kind in talk.SOUND_TYPES else scene.kind


def _plain_questions(
    scene: Scene,
    picture: talk.Picture,
    condition: str,
    each: dict[str, int],
    sound_each: dict[str, int],
    rng: np.random.Generator,
    new_wordings: bool,
) -> list[Asked]:
    asked: list[Asked] = []
    seen: set[tuple[str, str]] = set()
    had: Counter[str] = Counter()

    def put(question: talk.Question, follows: talk.Question | None) -> None:
        row = _row(scene, question.type)
        quota = (sound_each if row == "sound" else each).get(question.type, 0)
        if had[question.type] >= quota:
            return
        for _ in range(6):
            words = talk.word(question, rng, held_out=new_wordings)
            if (question.type, words) not in seen:
                break
        else:
            return
        seen.add((question.type, words))
        had[question.type] += 1
        before = None if follows is None else talk.word(follows, rng, held_out=False)
        asked.append(Asked(condition, row, question.type, words, question.answer, follows=before))

    for _ in range(max([1, *each.values()])):
        pool = talk.questions(scene, picture, rng)
        for question in pool:
            put(question, None)
        for place in rng.permutation(len(pool)).tolist():
            following = talk.follow_ups(scene, pool[place])
            if following:
                put(following[int(rng.integers(len(following)))], pool[place])
    return asked


def _outside(condition: str, count: int, rng: np.random.Generator, held_out: bool) -> list[Asked]:
    asked = []
    for _ in range(4 * count):  # of two types, one of them rare
        kind, words, answer = talk.outside(rng, held_out=held_out)
        asked.append(Asked(condition, "outside", kind, words, answer))
    return asked


def _muted(
    scene: Scene, picture: talk.Picture, each: dict[str, int], sound_each: dict[str, int], rng: np.random.Generator
) -> list[Asked]:
    """Questions about sound, and a few about sight, to a film whose sound is removed; only films that had some."""
    if not scene.sounds:
        return []
    quota = {kind: count for kind, count in each.items() if kind in talk.JOINT_TYPES}
    quota |= {kind: count for kind, count in sound_each.items() if kind in talk.SOUND_TYPES}
    asked: dict[tuple[str, str], Asked] = {}
    had: Counter[str] = Counter()
    for _ in range(MOST_OF_A_TYPE):
        for question in talk.questions(scene, picture, rng):
            truth = talk.without_sound(question)
            if truth is None or had[question.type] >= quota.get(question.type, 0):
                continue
            words, row = talk.word(question, rng), _row(scene, question.type)
            if (question.type, words) not in asked:
                had[question.type] += 1
                asked[question.type, words] = Asked(
                    "no sound", row, question.type, words, truth, muted=True, unchanged_truth=question.answer
                )
    return list(asked.values())


def _reversed(scene: Scene, picture: talk.Picture, each: dict[str, int], rng: np.random.Generator) -> list[Asked]:
    """Questions about order and motion, and some that do not depend on it, to a film whose frames are reversed."""
    other = reversed_in_time(scene)
    if other is None:
        return []
    types = _ABOUT_ORDER | _SAME_WHEN_REVERSED
    if scene.kind in ("one", "two", "three"):
        types = types | {"caption"}
    asked: dict[tuple[str, str], Asked] = {}
    had: Counter[str] = Counter()
    for _ in range(MOST_OF_A_TYPE):
        # The same draws for both, so that the same thing is asked about; a cut turns the things' order around.
        seed = int(rng.integers(2**31))
        before = {
            (question.type, tuple(sorted(question.slots.items()))): question.answer
            for question in talk.questions(scene, picture, np.random.default_rng(seed))
        }
        for question in talk.questions(other, picture, np.random.default_rng(seed)):
            if question.type not in types or had[question.type] >= each.get(question.type, 0):
                continue
            words = talk.word(question, rng)
            if (question.type, words) in asked:
                continue
            had[question.type] += 1
            old = before.get((question.type, tuple(sorted(question.slots.items()))))
            if old is None and question.type == "motion":
                old = _motion_before(scene, other, question)
            asked[question.type, words] = Asked(
                "reversed", scene.kind, question.type, words, question.answer, reversed=True, unchanged_truth=old
            )
    return list(asked.values())


def _motion_before(scene: Scene, other: Scene, question: talk.Question) -> str | None:
    """The old answer about the motion of the thing that a question about the reversed film is about."""
    if not isinstance(question.topic, int):
        return None
    thing = other.things[question.topic]
    for place, old in enumerate(scene.things):
        if (old.shape, old.colour) == (thing.shape, thing.colour):
            for one in talk.questions(scene, talk.Picture("red", 0.0, "dark", 0.0), np.random.default_rng(0)):
                if one.type == "motion" and one.topic == place:
                    return one.answer
    return None

"""Long films of the world: scenes behind each other, and a paragraph with a sentence of each.

`draw_story(seed)` decides one, `Story.frames` draws it at any moments. What LF-VILA learns from is made of them on the
fly (`StorySamples`).

Notation: T frames, M scenes and sentences.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from torch.utils.data import Dataset

from videollm.clips import Frames
from videollm.data.dialogue import caption, measure, narrations
from videollm.data.drawing import render
from videollm.data.world import TEST_SEEDS, InTurn, Scene, Split, draw_scene
from videollm.errors import DataError
from videollm.models.lf_vila import LfVilaProcessor

KINDS = ("one", "two")
"""Kinds of scenes that a sentence describes without naming seconds."""

_SEEDS_OF_A_STORY = 1_000

TEST_STORIES = TEST_SEEDS // _SEEDS_OF_A_STORY
"""Seeds from which on no scene is one that is ever trained on."""


@dataclass(frozen=True)
class Story(InTurn):
    """Scenes behind each other, all with the same aspect ratio.

    Attributes:
        scenes: in order.
        sentences: what is to be seen in each, no two alike.
    """

    scenes: tuple[Scene, ...]
    sentences: tuple[str, ...]

    def reordered(self, order: Sequence[int]) -> Story:
        """The same scenes in another order, with their sentences."""
        return Story(tuple(self.scenes[i] for i in order), tuple(self.sentences[i] for i in order))

    def frames(self, seconds: Sequence[float] | np.ndarray, long_px: int) -> Frames:
        """Draw it at any moments, rising, the longer side ``long_px`` pixels."""
        seconds = np.asarray(seconds, dtype=np.float64)
        starts = np.array([start for start, _ in self.spans_seconds])
        owner = np.searchsorted(starts, seconds, side="right") - 1
        parts = [
            render(scene, seconds[owner == number] - starts[number], long_px)
            for number, scene in enumerate(self.scenes)
            if (owner == number).any()
        ]
        return Frames(np.concatenate(parts), seconds, self.duration_seconds)


def draw_story(seed: int, scenes: int = 4, kinds: Sequence[str] = KINDS, split: Split = "seen") -> Story:
    """Decide a story. The same arguments always give the same one.

    Args:
        seed: a non-negative number. Testing draws those from `TEST_STORIES` on.
        scenes: how many.
        kinds, split: of its scenes, see `draw_scene`.

    Raises:
        DataError: where so many scenes with different sentences are not found.
    """
    rng = np.random.default_rng([seed, 29])
    chosen: list[Scene] = []
    sentences: list[str] = []
    for number in range(seed * _SEEDS_OF_A_STORY, (seed + 1) * _SEEDS_OF_A_STORY):
        scene = draw_scene(number, kinds[int(rng.integers(len(kinds)))], split)
        if not scene.timed or (chosen and not _alike(scene, chosen[0])):
            continue
        if chosen:  # one film has one size, to the pixel
            scene = replace(scene, width_px=chosen[0].width_px, height_px=chosen[0].height_px)
        said = caption(scene, measure(render(scene, np.zeros(1), 16)))
        if said in sentences:
            continue
        chosen.append(scene)
        sentences.append(said)
        if len(chosen) == scenes:
            return Story(tuple(chosen), tuple(sentences))
    raise DataError(f"no {scenes} scenes of {', '.join(kinds)} with different sentences were found; ask for fewer")


def _alike(one: Scene, other: Scene) -> bool:
    """Whether one film can show both: whether their aspect ratios are the same but for the rounding of pixels."""
    return abs(one.width_px / one.height_px - other.width_px / other.height_px) < 0.02


def clip_seconds(story: Story, each: int, offset: float = 0.0) -> np.ndarray:
    """Moments in each scene as LF-VILA's pretraining takes them: float64 ``(scenes * each,)``.

    Args:
        story: whose scenes are the clips.
        each: moments of a scene, ``k / each`` of its length from its start.
        offset: moves all of them by this share of their distance, 0 to 1.
    """
    shares = (np.arange(each) + offset) / each
    return np.concatenate([start + (end - start) * shares for start, end in story.spans_seconds])


class StorySamples(Dataset[dict[str, Any]]):
    """What LF-VILA's first stage learns from, as a row without end: what is at a position is a function of the seed.

    Of each ``2 * twins`` positions, the second half shows the scenes of the first half again, in another order: a batch
    of as many holds, for each video, one that differs from it in order alone.

    Each item: ``pixel_values`` float32 ``(T, 3, H, W)``, and ``sentences``, M of them.

    Args:
        processor: whose ``max_sentences`` scenes make a story, and whose ``num_frames`` a video.
        count: different sets of scenes; they are gone through again, in other orders.
        seed: of the stories and of all that is drawn.
        twins: half the size of a batch.
        kinds: of scenes.
        spread_share: of the samples whose frames are spread evenly over the whole video, as in files in which nobody
            has marked where scenes begin: their clips are only roughly the scenes. In others each clip is a scene.
    """

    def __init__(
        self,
        processor: LfVilaProcessor,
        count: int,
        seed: int = 0,
        twins: int = 8,
        kinds: Sequence[str] = KINDS,
        spread_share: float = 0.0,
    ) -> None:
        self.processor, self.count, self.seed, self.twins, self.kinds = processor, count, seed, twins, tuple(kinds)
        self.spread_share = spread_share
        self.scenes = processor.max_sentences
        self._drawn: dict[int, Story] = {}

    def __getitem__(self, position: int) -> dict[str, Any]:
        block, place = divmod(position, 2 * self.twins)
        number = (block * self.twins + place % self.twins) % self.count
        rng = np.random.default_rng([self.seed, position, 31])
        order = rng.permutation(self.scenes)
        if place >= self.twins:
            first = np.random.default_rng([self.seed, position - self.twins, 31]).permutation(self.scenes)
            while (order == first).all() and self.scenes > 1:
                order = rng.permutation(self.scenes)
        story = self._story(number).reordered(order)
        images: Any = self.processor.image_processor
        offset, frames = rng.random(), self.processor.num_frames
        moments = clip_seconds(story, frames // self.scenes, offset)
        if np.random.default_rng([self.seed, position, 41]).random() < self.spread_share:
            moments = (np.arange(frames) + offset) / frames * story.duration_seconds
        # Some sentences leave out the ground, as narrations do.
        said = tuple(
            narrations(scene)[0][1] if rng.random() < 0.3 else sentence
            for scene, sentence in zip(story.scenes, story.sentences, strict=True)
        )
        return {"pixel_values": images(story.frames(moments, max(images.size)).pixels), "sentences": said}

    def _story(self, number: int) -> Story:
        if number not in self._drawn:
            self._drawn[number] = draw_story(self.seed * 1_000_000 + number, self.scenes, self.kinds)
        return self._drawn[number]

"""Long films of the world: what is told of them, and what a batch holds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.models.lf_vila.small_lf_vila import small_processor
from videollm.data.stories import TEST_STORIES, StorySamples, clip_seconds, draw_story
from videollm.data.world import TEST_SEEDS
from videollm.errors import DataError


def test_a_story_is_repeatable_and_each_sentence_is_of_its_scene() -> None:
    story = draw_story(3, 5)
    assert story == draw_story(3, 5) and story != draw_story(4, 5)
    assert len(story.scenes) == len(set(story.sentences)) == 5
    for scene, sentence in zip(story.scenes, story.sentences, strict=True):
        assert all(thing.colour in sentence and thing.shape in sentence for thing in scene.things)
    assert story.spans_seconds[0][0] == 0.0 and story.duration_seconds == story.spans_seconds[-1][1]
    assert all(one[1] == two[0] for one, two in zip(story.spans_seconds, story.spans_seconds[1:], strict=False))


def test_each_scene_is_drawn_in_its_span_and_all_are_equally_large() -> None:
    story = draw_story(3)
    for seed in (3, TEST_STORIES + 4_000):
        whole = draw_story(seed)
        assert len({(scene.width_px, scene.height_px) for scene in whole.scenes}) == 1
        for long_px in (32, 53, 64):
            assert len(whole.frames(np.arange(0, whole.duration_seconds, 0.5), long_px)) > 8
    swapped = story.reordered([1, 0, 2, 3])
    assert swapped.sentences[:2] == story.sentences[1::-1]
    (one,), (same,) = (
        film.frames([film.spans_seconds[place][0] + 0.4], 32).pixels for film, place in ((story, 1), (swapped, 0))
    )
    np.testing.assert_array_equal(one, same)


def test_clips_are_scenes() -> None:
    story = draw_story(3)
    moments = clip_seconds(story, 4, 0.5)
    for number, (start, end) in enumerate(story.spans_seconds):
        of_scene = moments[4 * number : 4 * number + 4]
        assert ((of_scene >= start) & (of_scene < end)).all()


def test_no_scene_is_both_trained_on_and_tested() -> None:
    assert all(scene.seed >= TEST_SEEDS for scene in draw_story(TEST_STORIES).scenes)
    assert all(scene.seed < TEST_SEEDS for scene in draw_story(TEST_STORIES - 1).scenes)


def test_what_there_is_not_is_refused() -> None:
    with pytest.raises(DataError, match="no 250 scenes of one with different sentences"):
        draw_story(0, 250, ["one"])


def test_a_batch_shows_the_same_scenes_in_two_orders(tmp_path: Path) -> None:
    samples = StorySamples(small_processor(tmp_path), count=3, seed=1, twins=2)
    batch = [samples[position] for position in range(4)]
    assert all(item["pixel_values"].shape == (16, 3, 48, 80) for item in batch)
    again = StorySamples(small_processor(tmp_path), count=3, seed=1, twins=2)[2]
    assert again["sentences"] == batch[2]["sentences"]
    assert again["pixel_values"].equal(batch[2]["pixel_values"])

    def opening(sentence: str) -> str:
        return sentence.split(" on a ")[0].lower().rstrip(".")  # some leave out the ground

    for first, twin in ((0, 2), (1, 3)):
        one, two = ([opening(text) for text in batch[place]["sentences"]] for place in (first, twin))
        assert one != two and sorted(one) == sorted(two)


def test_frames_may_be_spread_over_the_film_as_over_any_file(tmp_path: Path) -> None:
    processor = small_processor(tmp_path)
    marked, spread = (StorySamples(processor, count=3, seed=1, twins=2, spread_share=share)[0] for share in (0.0, 1.0))
    assert marked["sentences"] == spread["sentences"] and not marked["pixel_values"].equal(spread["pixel_values"])

"""Sentences about drawn clips say what they should, and are read back; films show what they tell."""

from itertools import islice

import numpy as np
import pytest

from videollm.data.drawing import render
from videollm.data.world import TEST_SEEDS, is_held_out_pair, is_held_out_triple
from videollm.data.world_narrations import (
    FRAME_RATE,
    NOTHING,
    Captioner,
    Facts,
    draw_facts,
    film,
    film_scenes,
    plain_caption,
    read_facts,
    texts_of_the_world,
)

ONE = Facts((("red", "star", "left"),), "green")
TWO = Facts((("red", "star", "grows"), ("blue", "circle", "circle")), "white")


def test_every_wording_is_read_back() -> None:
    rng = np.random.default_rng(0)
    for plain in (0.0, 0.4, 1.0):
        say = Captioner(plain)
        for _ in range(600):
            facts = draw_facts(rng)
            sentence = say(facts, rng)
            assert read_facts(sentence) == facts, sentence
            # As a rephraser leaves it: without punctuation; as a person writes it: with.
            assert read_facts(sentence.replace(",", "")) == facts
            assert read_facts(f"{sentence[0].upper()}{sentence[1:]}.") == facts


def test_the_plain_wording() -> None:
    assert plain_caption(ONE) == "a red star moves left on a green background"
    assert plain_caption(TWO) == "a red star grows and a blue circle moves in a circle on a white background"
    assert plain_caption(Facts((("orange", "cross", "still"),), "black")).startswith("an orange cross stays still")
    assert plain_caption(Facts((), None)) == NOTHING


@pytest.mark.parametrize(
    "other",
    [
        "a red star moves left on a blue background", "a red star moves right on a green background",
        "a red circle moves left on a green background", "a red star moves left", "",
        "a red star moves left on a green background and a blue circle",
        "a red star moves left on a green background, with white behind", "a dog barks",
    ],
)  # fmt: skip
def test_other_facts_are_not_the_same(other: str) -> None:
    assert read_facts("a red star moves left on a green background") == ONE
    assert read_facts(other) != ONE


def test_nothing_held_out_is_said() -> None:
    rng = np.random.default_rng(1)
    drawn = [draw_facts(rng) for _ in range(3000)]
    things = {thing for facts in drawn for thing in facts.things}
    assert not any(is_held_out_pair(shape, colour) for colour, shape, _ in things)
    assert not any(is_held_out_triple(shape, colour, motion) for colour, shape, motion in things)
    assert len(things) > 200 and {len(facts.things) for facts in drawn} == {0, 1, 2}
    assert len(set(texts_of_the_world(500))) > 470 and texts_of_the_world(5) == texts_of_the_world(5)


def test_films_show_what_they_tell() -> None:
    scenes = list(islice(film_scenes(3), 6))
    frames, told = film(scenes)
    pictures = np.stack(list(frames))
    assert len({scene.kind for scene in islice(film_scenes(3), 40)}) == 3
    assert told[0].start_seconds == 0 and told[-1].end_seconds == len(pictures) / FRAME_RATE
    for scene, shown, behind in zip(scenes, told, [*told[1:], None], strict=True):
        assert shown.end_seconds - shown.start_seconds >= 3
        assert behind is None or behind.start_seconds == shown.end_seconds
        assert {thing[:2] for thing in shown.facts.things} == {(one.colour, one.shape) for one in scene.things}
        first = render(scene, np.zeros(1), max(pictures.shape[1:3]))[0]
        high, wide = (min(a, b) for a, b in zip(first.shape, pictures.shape[1:3], strict=False))
        there = pictures[round(shown.start_seconds * FRAME_RATE), :high, :wide].astype(int)
        assert np.abs(there - first[:high, :wide]).mean() < 1
    again = list(islice(film_scenes(3), 6))
    assert again == scenes and all(scene.seed < TEST_SEEDS for scene in scenes)
    kept = list(islice(film_scenes(3, ("one", "two"), kept=True), 4))
    assert [scene.kind for scene in kept] == ["one", "two", "one", "two"]
    assert all(scene.seed >= TEST_SEEDS for scene in kept)

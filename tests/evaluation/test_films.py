"""The questions of a benchmark: enough of each type, with truths that follow what is shown."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from tests.small_model import small_model
from videollm.data import dialogue as talk
from videollm.data.wordings import WORDINGS
from videollm.data.world import reversed_in_time
from videollm.evaluation.benchmark import CONDITIONS
from videollm.evaluation.films import (
    Asked,
    Film,
    ask_film,
    films_of,
    plan,
    read_film,
    with_frames_reversed,
    without_sound,
)

PICTURE = talk.Picture("red", 1.0, "dark", 100.0)
KINDS = ("one", "cut", "plain")


@pytest.fixture(scope="module")
def asked() -> list[tuple[Film, Asked]]:
    films = films_of(KINDS, CONDITIONS, 0, 24)
    groups: dict[tuple[str, str], list[Film]] = {}
    for film in films:
        groups.setdefault((film.kind, film.split), []).append(film)
    each = {key: plan(group, 40) for key, group in groups.items()}
    sound = {k: v for k, v in plan([f for f in films if f.split == "seen"], 40).items() if k in talk.SOUND_TYPES}
    return [(f, one) for f in films for one in ask_film(f, PICTURE, CONDITIONS, each[f.kind, f.split], sound)]


def test_films_are_those_of_the_conditions() -> None:
    assert len(films_of(KINDS, ("seen",), 5, 3)) == 9
    films = films_of(KINDS, ("pairs",), 5, 3)
    assert Counter(film.split for film in films) == {"seen": 9, "pairs": 6}  # nothing is drawn in "plain"
    assert {film.index for film in films} == {5, 6, 7}
    assert len({film.name for film in films}) == len(films)


def test_cells_get_about_as_many_questions_as_wanted(asked: list[tuple[Film, Asked]]) -> None:
    counts = Counter((one.condition, one.row, one.type) for _, one in asked)
    common = [counts["seen", "one", kind] for kind in ("colour", "shape", "motion", "caption", "exist", "count")]
    assert all(40 <= count <= 60 for count in common), common
    assert counts["pairs", "one", "colour"] >= 40 and counts["triples", "cut", "first"] >= 35
    assert counts["no sound", "sound", "sound"] >= 20 and counts["reversed", "one", "motion"] >= 20
    assert counts["seen", "outside", "outside"] >= 20


def test_held_out_splits_hold_held_out_things(asked: list[tuple[Film, Asked]]) -> None:
    for film, one in asked:
        assert (film.split == "seen") == (one.condition not in ("triples", "pairs"))
        if film.split != "seen":
            assert one.row == film.kind and one.condition == film.split


def test_new_wordings_are_only_new_ones(asked: list[tuple[Film, Asked]]) -> None:
    bare = {kind for kind, bank in WORDINGS.items() if not any("{" in words for words in (*bank.train, *bank.test))}
    found = 0
    for _, one in asked:
        if one.type in bare and one.condition == "new wordings":
            assert one.question in WORDINGS[one.type].test
            found += 1
        elif one.type in bare:
            assert one.question in WORDINGS[one.type].train
    assert found > 50


def test_no_question_is_put_twice_to_a_film(asked: list[tuple[Film, Asked]]) -> None:
    puts = Counter((film, one.condition, one.type, one.question) for film, one in asked if one.row != "outside")
    assert max(puts.values()) == 1


def test_a_muted_film_has_nothing_to_hear(asked: list[tuple[Film, Asked]]) -> None:
    muted = [one for _, one in asked if one.condition == "no sound"]
    assert all(one.muted for one in muted) and not any(one.muted for _, one in asked if one.condition != "no sound")
    truths = {one.truth for one in muted if one.type == "sound"}
    assert truths == {talk.NOTHING_HEARD}
    assert all(one.unchanged_truth != one.truth for one in muted if one.type == "sound")


def test_a_reversed_film_turns_motion_and_order_around(asked: list[tuple[Film, Asked]]) -> None:
    back = [(film, one) for film, one in asked if one.condition == "reversed"]
    opposite = {"left": "right", "right": "left", "up": "down", "down": "up"}
    turned = 0
    for film, one in back:
        assert one.reversed
        if one.type == "motion" and one.unchanged_truth and film.kind == "one":
            for word, other in opposite.items():
                if f"moves {word}" in one.unchanged_truth:
                    assert f"moves {other}" in one.truth
                    turned += 1
        if film.kind == "cut" and one.type == "first":
            things = film.scene().things
            assert one.truth.lower().rstrip(".").endswith(f"{things[-1].colour} {things[-1].shape}")
            if (things[0].colour, things[0].shape) != (things[-1].colour, things[-1].shape):
                assert one.unchanged_truth != one.truth
    assert turned >= 5


def test_a_scene_reversed_twice_is_the_scene() -> None:
    tried = 0
    for index in range(40):
        scene = Film(("one", "cut", "camera")[index % 3], "seen", index).scene()
        other = reversed_in_time(scene)
        if other is None:
            continue
        again = reversed_in_time(other)
        if again is None:
            continue  # the cut's half second would not be told by the frames
        tried += 1
        for a, b in zip(again.shots, scene.shots, strict=True):
            assert (a.things, a.camera, a.ground) == (b.things, b.camera, b.ground)
            assert a.start_seconds == pytest.approx(b.start_seconds, abs=1e-9)
    assert tried > 15
    assert reversed_in_time(Film("entry", "seen", 0).scene()) is None


def test_a_film_is_read_back_from_a_real_file(tmp_path) -> None:
    _, processor = small_model()
    film = next(f for f in (Film("cut", "seen", i) for i in range(40)) if f.scene().sounds)
    clip = read_film(film, processor, tmp_path)
    assert (tmp_path / film.name).stat().st_size > 1000
    scene = film.scene()
    assert clip.frames is not None and clip.waveforms is not None
    assert clip.frames.pixels.shape[1:3] == (scene.height_px, scene.width_px)
    assert clip.duration_seconds == pytest.approx(scene.duration_seconds, abs=0.15)
    again = read_film(film, processor, tmp_path)  # the kept file, not a new one
    np.testing.assert_array_equal(again.frames.pixels, clip.frames.pixels)
    back = with_frames_reversed(clip)
    np.testing.assert_array_equal(back.frames.pixels, clip.frames.pixels[::-1])
    np.testing.assert_array_equal(back.frames.seconds, clip.frames.seconds)
    assert without_sound(clip).waveforms is None and without_sound(clip).frames is clip.frames

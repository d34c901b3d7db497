"""The world: decided by its seed, true to its splits, and told as it is drawn."""

import itertools

import numpy as np
import pytest

from videollm.data.dialogue import (
    MOMENTS,
    SOUND_SLOTS,
    VIDEO_SLOTS,
    caption,
    dialogue,
    follow_ups,
    measure,
    questions,
    sound_facts,
    video_facts,
    without_sound,
    word,
)
from videollm.data.drawing import render
from videollm.data.sounds import synthesise
from videollm.data.world import (
    SCENE_KINDS,
    draw_scene,
    half_second,
    is_held_out_pair,
    is_held_out_triple,
    reversed_in_time,
    thing_at,
)
from videollm.errors import DataError


def _picture(scene):
    return measure(render(scene, np.linspace(0, scene.duration_seconds, 4, endpoint=False), 64))


def test_a_seed_decides_the_scene():
    assert draw_scene(5) == draw_scene(5)
    assert draw_scene(5) != draw_scene(6)
    np.testing.assert_array_equal(
        render(draw_scene(5), np.array([0.5]), 64), render(draw_scene(5), np.array([0.5]), 64)
    )


@pytest.mark.parametrize("kind", SCENE_KINDS)
def test_splits_hold_what_they_say(kind):
    for seed in range(60):
        for thing in draw_scene(seed, kind, "seen").things:
            assert not is_held_out_pair(thing.shape, thing.colour)
            assert thing.motion is None or not is_held_out_triple(thing.shape, thing.colour, thing.motion)
        if kind == "plain":
            continue
        assert any(is_held_out_pair(t.shape, t.colour) for t in draw_scene(seed, kind, "pairs").things)
        if kind != "camera":
            held_out = [
                is_held_out_triple(t.shape, t.colour, t.motion) for t in draw_scene(seed, kind, "triples").things
            ]
            assert any(held_out)


def test_unknown_kinds_and_splits_are_refused():
    with pytest.raises(DataError, match="'four' is not one of one, two"):
        draw_scene(0, "four")
    with pytest.raises(DataError, match="split"):
        draw_scene(0, "one", "unseen")  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["one", "two", "cut", "entry"])
def test_things_stay_in_view_and_move_as_told(kind):
    for seed in range(40):
        scene = draw_scene(seed, kind)
        longest = max(scene.width_px, scene.height_px)
        width, height = scene.width_px / longest, scene.height_px / longest
        for shot in scene.shots:
            for thing in shot.things:
                shown = shot.end_seconds - max(shot.start_seconds, thing.start_seconds)
                path = np.array([thing_at(thing, t) for t in np.linspace(0, shown, 9)])
                assert (path[:, 0] > -0.02).all() and (path[:, 0] < width + 0.02).all()
                assert (path[:, 1] > -0.02).all() and (path[:, 1] < height + 0.02).all()
                dx, dy = path[-1, :2] - path[0, :2]
                wanted = {"left": dx < 0, "right": dx > 0, "up": dy < 0, "down": dy > 0}
                if thing.motion in wanted:
                    assert wanted[thing.motion]
                    assert abs(dx) > 3 * abs(dy) or abs(dy) > 3 * abs(dx)
                if thing.motion == "still":
                    assert (path == path[0]).all()


def test_a_cut_is_where_the_pictures_change():
    for seed in range(20):
        scene = draw_scene(seed, "cut")
        cut = scene.cut_seconds[0]
        frames = render(scene, np.array([cut - 0.02, cut, cut + 0.02]), 64).astype(float)
        height, width = frames.shape[1] // 6 * 6, frames.shape[2] // 6 * 6
        # Means of blocks: a noisy background differs from frame to frame in every pixel, but not on the whole.
        before, at, after = frames[:, :height, :width].reshape(3, height // 6, 6, width // 6, 6, 3).mean((2, 4))
        assert np.abs(at - before).mean() > 2 * np.abs(after - at).mean()


def test_sound_starts_when_and_is_as_loud_as_told():
    for seed in range(30):
        scene = draw_scene(seed, "one")
        samples = synthesise(scene, 16000, 1)
        if not scene.sounds:
            assert samples is None or np.abs(samples).max() < 0.005
            continue
        assert samples is not None
        first = scene.sounds[0].start_seconds
        loud = np.flatnonzero(np.abs(samples[0]) > 10 ** (scene.gain_db / 20) * 0.3)
        assert abs(loud[0] / 16000 - first) < 0.06
        assert (scene.gain_db > -26) == (scene.loudness == "loud")


@pytest.mark.parametrize("kind", SCENE_KINDS)
def test_answers_follow_from_the_scene(kind):
    for seed in range(25):
        scene = draw_scene(seed, kind)
        picture = _picture(scene)
        rng = np.random.default_rng(seed)
        for question in questions(scene, picture, rng):
            text = word(question, rng)
            assert "{" not in text and text == text.lower()
            assert (question.answer[0].isupper() or question.type == "narration") and question.answer.endswith(".")
            if question.type == "colour":
                owners = [t for t in scene.things if t.shape == question.slots["shape"]]
                assert [question.answer] == [f"{owners[0].colour.capitalize()}."] and len(owners) == 1
            if question.type == "exist":
                there = any(
                    question.slots["a_thing"].split(" ", 1)[1] in (t.shape, f"{t.colour} {t.shape}")
                    for t in scene.things
                )
                assert question.answer == ("Yes." if there else "No.")
            if question.type == "cut_when" and scene.cut_seconds:
                assert f"{half_second(scene.cut_seconds[0]):.1f} s" in question.answer
        facts = video_facts(scene, picture)
        for value, (name, fields) in zip(facts, VIDEO_SLOTS, strict=True):
            assert all(value[key] in fields[key] for key in value), name
        for value, (name, fields) in zip(sound_facts(scene), SOUND_SLOTS, strict=True):
            assert all(value[key] in fields[key] for key in value), name
        for thing in scene.things:
            assert f"{thing.colour} {thing.shape}" in caption(scene, picture)


def test_facts_tell_what_happens_at_each_half_second():
    checked = 0
    for seed in range(60):
        scene = draw_scene(seed, ("cut", "entry", "camera")[seed % 3])
        named = dict(zip((name for name, _ in VIDEO_SLOTS), video_facts(scene, _picture(scene)), strict=True))
        told = {seconds: named[f"at {seconds:.1f}"] for seconds in MOMENTS}
        happened = {
            seconds: fact["happens"] for seconds, fact in told.items() if fact.get("happens", "nothing") != "nothing"
        }
        if scene.kind == "cut":
            assert happened == {half_second(scene.shots[1].start_seconds): "cut"}
        elif scene.kind == "entry":
            assert happened == {half_second(scene.things[1].start_seconds): "appears"}
        else:
            assert not happened
            carried = {"in": "grows", "out": "shrinks"}.get(scene.shots[0].camera, scene.shots[0].camera)
            assert named[f"first {scene.things[0].colour}"]["motion"] == carried
            assert named["camera"] == {"camera": scene.shots[0].camera, "carries": "yes"}
        for seconds, fact in told.items():
            assert fact.get("carried", "past") == (
                scene.shots[0].camera if seconds < scene.duration_seconds else "past"
            )
            checked += 1
    assert checked == 60 * len(MOMENTS)


def test_only_the_types_asked_for_are_asked():
    asked = {"colour", "shape", "follow_other"}
    found = []
    for seed in range(40):
        scene = draw_scene(seed, "two")
        said = dialogue(scene, _picture(scene), np.random.default_rng(seed), 4, only=tuple(asked))
        found += [turn.type for turn in said]
        behind = [(a.type, b.type) for a, b in itertools.pairwise(said) if b.type == "follow_other"]
        assert all(before in ("colour", "shape") for before, _ in behind)
    assert set(found) == asked and found.count("follow_other") > 10


def test_follow_ups_are_about_the_thing_asked_before():
    scene = draw_scene(3, "two")
    rng = np.random.default_rng(0)
    asked = next(q for q in questions(scene, _picture(scene), rng) if q.type == "shape")
    thing = scene.things[asked.topic]  # type: ignore[index]
    types = {q.type: q.answer for q in follow_ups(scene, asked)}
    other = scene.things[1 - asked.topic]  # type: ignore[operator]
    assert types["follow_other"].rstrip(".").endswith(other.shape)
    assert set(types) == {"follow_motion", "follow_other"} and thing.motion is not None


def test_dialogues_without_sound_or_picture_say_so():
    scene = draw_scene(11, "one")
    turns = dialogue(scene, _picture(scene), np.random.default_rng(1), 40, heard=False)
    assert all(turn.answer == "I hear nothing." for turn in turns if turn.type in ("sound", "sound_loud", "tonal"))
    turns = dialogue(scene, _picture(scene), np.random.default_rng(1), 40, seen=False)
    assert all("no picture" in turn.answer for turn in turns if turn.type in ("caption", "colour", "motion"))
    assert without_sound(questions(scene, _picture(scene), np.random.default_rng(0))[0]) is not None


def test_reversing_swaps_directions_and_cuts():
    for seed in range(40):
        scene = draw_scene(seed, "cut")
        turned = reversed_in_time(scene)
        if turned is None:
            continue
        assert [t.colour for t in turned.things] == [t.colour for t in reversed(scene.things)]
        assert turned.cut_seconds[0] == pytest.approx(scene.duration_seconds - scene.cut_seconds[0])
    assert reversed_in_time(draw_scene(0, "entry")) is None

"""Questions about long films: what is right is decided by what the film shows, and reports count what happened."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from videollm.chat.calls import times_in
from videollm.data.world_tools import TOOL_OF, WHEN, clock
from videollm.evaluation.benchmark import ToolBenchmark
from videollm.evaluation.tool_use import (
    KINDS,
    Item,
    evaluate_tools,
    lines_of,
    questions_about,
    questions_without_need,
    scenes_of,
    scores_of,
    write_film,
)
from videollm.media.decode_worker import close_server, open_clip
from videollm.media.sampling import FrameSampling, SoundSampling
from videollm.tools.chapters import Chapter


@pytest.fixture(scope="module", autouse=True)
def no_server_left():
    yield
    close_server()


@pytest.fixture(scope="module")
def film():
    return scenes_of(150.0, 7)


def test_scenes_follow_each_other(film) -> None:
    assert film[0].start_seconds == 0 and 150 <= film[-1].end_seconds < 160
    for one, other in pairwise(film):
        assert one.end_seconds == other.start_seconds and one.end_seconds - one.start_seconds >= 3


def test_the_file_shows_and_sounds_what_it_is_said_to(film, tmp_path) -> None:
    write_film(film[:3], tmp_path / "film.mp4")
    clip = open_clip(
        tmp_path / "film.mp4", frames=FrameSampling("rate", rate_hz=4.0, max_frames=400),
        sound=SoundSampling("contiguous", segments=400, length_seconds=0.5),
    )  # fmt: skip
    assert clip.frames is not None and clip.frames.pixels.shape[1:] == (96, 128, 3)
    assert clip.frames.duration_seconds == pytest.approx(film[2].end_seconds, abs=0.2)
    cuts = [one.start_seconds for one in film[1:3]]
    change = np.abs(np.diff(clip.frames.pixels.astype(int), axis=0)).mean((1, 2, 3))
    found = clip.frames.seconds[1:][np.sort(np.argsort(change)[-2:])]
    assert found == pytest.approx(cuts, abs=0.26)


def test_questions_of_all_kinds_are_decided_by_the_film(film) -> None:
    parts = [Chapter(0.0, 72.4, "A red star."), Chapter(72.4, film[-1].end_seconds, "A blue star.")]
    asked = questions_about("film.mp4", film, parts, 50, 3)
    count = {kind: sum(one.kind == kind for one in asked) for kind in KINDS}
    assert count == KINDS
    assert len({one.question for one in asked}) == 50
    assert [one.question for one in questions_about("film.mp4", film, parts, 50, 3)] == [one.question for one in asked]
    for one in asked:
        assert not one.right("I could not find that.") and not one.right("")
        if one.kind in ("look", "listen", "how"):
            assert one.right(f" {one.truth.upper()}") and not one.right(f"{one.truth} And more.")
        if one.kind == "how":
            (thing,) = {thing for shown in film for thing in shown.names if thing in one.question}
            other = "red star" if thing != "red star" else "blue star"
            assert one.right(one.truth.replace(f"The {thing}", "It")) and f"The {thing} " in one.truth
            assert not one.right(one.truth.replace(thing, other)) and not one.right(f"The {thing}.")
        elif one.kind == "part_begins":
            assert one.truth in ("0:00", "1:12")
            assert one.right(f"At {one.truth}.") and one.right(f"{one.truth}-2:00") and not one.right("At 0:01.")
            assert one.right(f"At {one.truth}.4.") and not one.right(f"{one.truth}, 1:30 or 2:00")
        elif one.kind == "when" and " or " not in one.truth:
            start, end = times_in(one.truth)
            first = next(shown.start_seconds for shown in film if start + 0.5 < shown.end_seconds)
            assert one.right(f"At {clock(start)}.") and one.right(f"At {first - 0.5:.1f} s.")
            assert one.right(f"{clock(start)}-{clock(end)}") and one.right(f"{clock(end - 0.5)} to {clock(end + 9)}")
            for wrong in (f"At {first - 1:.1f} s.", f"At {clock(end + 1)}.", f"{clock(end + 2)}-{clock(end + 3)}"):
                assert not one.right(wrong)
            assert not one.right(f"{clock(start)}, {clock(start)} or {clock(start)}")
        elif one.kind == "narrate":
            assert one.right(f"{one.truth} moves") and not one.right(f"{one.truth}, purple circle, green star")
    assert not any(one.question in WHEN.train for one in asked)


def test_questions_without_need(film) -> None:
    drawn = questions_without_need(3)
    found = [next(drawn) for _ in range(12)]
    assert [scene is None for scene, _, _ in found].count(True) == 3
    assert all(question and answer for _, question, answer in found)


def test_shares_are_of_their_own_kind() -> None:
    def item(kind, right, right_tool, alone_right=None):
        return Item("f", kind, "q", "t", (), "", "a", right, right_tool, None, alone_right)

    items = [item("look", True, True, False), item("look", False, True, True), item("when", True, False, False)]
    scores = scores_of([*items, item("none", False, True), item("none", True, True), item("none", True, False)])
    assert scores["right with tools"] == scores["right tool"] == pytest.approx(2 / 3)
    assert scores["right without"] == pytest.approx(1 / 3)
    assert scores["no tool when none is needed"] == pytest.approx(2 / 3)
    assert scores["kinds"]["look"]["right with tools"] == 0.5 and "listen" not in scores["kinds"]
    assert [line.split()[0] for line in lines_of(scores)] == ["kind", "look", "when", "all", "no"]


@pytest.mark.slow
def test_tiny_is_measured(tmp_path) -> None:
    lines: list[str] = []
    benchmark = ToolBenchmark(name="x", task="tool_use", films=1, seconds=60.0, questions=8)
    items = evaluate_tools(benchmark, tmp_path, lines.append)
    assert len(items) == 16 and all(one.kind in TOOL_OF for one in items)
    assert (tmp_path / "scores.json").exists() and "8 questions" not in lines[0]

"""Parts meet where what is told changes most; none is left out, and none is very short."""

from __future__ import annotations

from itertools import pairwise

import pytest

from videollm.moments.moment import Moment
from videollm.tools.chapters import Chapter, chapters_of_moments, parts_of
from videollm.tools.narrate import Narration


def told(*texts: str, seconds: float = 2.0) -> list[Narration]:
    return [Narration(place * seconds, (place + 1) * seconds, text) for place, text in enumerate(texts)]


def test_parts_meet_where_the_words_change() -> None:
    film = told(
        "A red circle moves left.", "The red circle stops.", "A red circle grows.",
        "A dog barks.", "The dog barks loudly.", "The dog sleeps.",
    )  # fmt: skip
    assert [(c.start_seconds, c.end_seconds) for c in parts_of(film, most=2, least_seconds=0)] == [(0, 6), (6, 12)]
    whole = parts_of(film, most=1, least_seconds=0)
    assert len(whole) == 1 and whole[0].end_seconds == 12


def test_parts_are_the_whole_video_in_order() -> None:
    film = told(*(f"thing {n} and thing {n + 1}" for n in range(40)))
    parts = parts_of(film, most=8, least_seconds=4)
    assert len(parts) <= 8 and parts[0].start_seconds == 0 and parts[-1].end_seconds == 80
    assert all(a.end_seconds == b.start_seconds for a, b in pairwise(parts))
    assert all(part.end_seconds - part.start_seconds >= 4 for part in parts)


def test_the_title_is_what_lasts_longest() -> None:
    film = [Narration(0, 1, "A bell."), Narration(1, 9, "A red star."), Narration(9, 10, "A bell.")]
    assert parts_of(film, most=1, least_seconds=0) == [Chapter(0, 10, "A red star.")]
    assert str(Chapter(62, 70.5, "A bell.")) == "[1:02-1:10.5] A bell."


def test_nothing_told_and_no_parts() -> None:
    assert parts_of([], most=3, least_seconds=1) == []
    with pytest.raises(ValueError, match="at least 1 part"):
        parts_of([], most=0, least_seconds=1)


def test_windows_of_an_index_tell_of_the_time_up_to_the_next() -> None:
    windows = [Moment(0, 4, "A red star."), Moment(2, 6, "", "a bell"), Moment(4, 8, "A dog.")]
    assert chapters_of_moments(windows, least_seconds=0) == [
        Chapter(0, 2, "A red star."), Chapter(2, 4, "a bell"), Chapter(4, 8, "A dog."),
    ]  # fmt: skip

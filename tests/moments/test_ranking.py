"""Rankings of several ways become one, and windows that belong together one stretch."""

from __future__ import annotations

import pytest

from videollm.moments.ranking import joined, ranks_of


def window(video: str, start: float, end: float) -> dict[str, object]:
    return {"video": video, "start_seconds": start, "end_seconds": end, "narration": f"{video} {start}", "sound": ""}


def test_what_fits_equally_well_has_the_same_rank() -> None:
    assert ranks_of({"a": 0.5, "b": 0.9, "c": 0.5, "d": 0.1}) == {"a": 2, "b": 1, "c": 2, "d": 4}
    assert ranks_of({}) == {}


ROWS = {"a1": window("a", 0, 4), "a2": window("a", 2, 6), "a3": window("a", 8, 12), "b1": window("b", 0, 4)}
PATHS = {"a": "/a.mp4", "b": "/b.mp4"}


def test_the_best_window_comes_first_and_says_why() -> None:
    ways = {"seen": {"a3": 0.9, "b1": 0.2, "a1": 0.1}, "narrated": {"a3": 5.0}}
    first, *rest = joined(ROWS, ways, PATHS, 3)
    assert (first.path, first.start_seconds, first.end_seconds) == ("/a.mp4", 8, 12)
    assert first.why == {"seen": 1, "narrated": 1} and first.narration == "a 8"
    assert all(0 <= hit.score <= first.score <= 1 for hit in rest)


def test_neighbours_that_fit_about_as_well_are_one_stretch() -> None:
    first, *rest = joined(ROWS, {"seen": {"a1": 0.80, "a2": 0.80, "b1": 0.1}}, PATHS, 3)
    assert (first.start_seconds, first.end_seconds) == (0, 6)
    assert [hit.path for hit in rest] == ["/b.mp4"]


@pytest.mark.parametrize("limit", [1, 2])
def test_the_limit(limit: int) -> None:
    hits = joined(ROWS, {"seen": {"a1": 0.9, "a3": 0.5, "b1": 0.2}}, PATHS, limit)
    assert len(hits) == limit and hits[0].start_seconds == 0

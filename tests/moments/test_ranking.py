"""Rankings of several ways become one, and windows that belong together one stretch."""

from __future__ import annotations

import pytest

from videollm.moments.ranking import APART, fused, in_order, joined, pairs_of, ranks_of


def window(video: str, start: float, end: float) -> dict[str, object]:
    return {"video": video, "start_seconds": start, "end_seconds": end, "narration": f"{video} {start}", "sound": ""}


def test_what_fits_equally_well_has_the_same_rank() -> None:
    assert ranks_of({"a": 0.5, "b": 0.9, "c": 0.5, "d": 0.1}) == {"a": 2, "b": 1, "c": 2, "d": 4}
    assert ranks_of({}) == {}


ROWS = {"a1": window("a", 0, 4), "a2": window("a", 2, 6), "a3": window("a", 8, 12), "b1": window("b", 0, 4)}
PATHS = {"a": "/a.mp4", "b": "/b.mp4"}
USUAL = {"seen": (0.1, 0.2), "heard": (-0.2, 0.1)}


def test_the_best_window_comes_first_and_says_why() -> None:
    ways = {"seen": {"a3": 0.9, "b1": 0.2, "a1": 0.1}, "narrated": {"a3": 5.0}}
    first, *rest = joined(ROWS, ways, USUAL, PATHS, 3)
    assert (first.path, first.start_seconds, first.end_seconds) == ("/a.mp4", 8, 12)
    assert first.why == {"seen": 1, "narrated": 1} and first.narration == "a 8"
    assert all(0 <= hit.score <= first.score <= 1 for hit in rest)


def test_neighbours_that_fit_about_as_well_are_one_stretch() -> None:
    first, *rest = joined(ROWS, {"seen": {"a1": 0.80, "a2": 0.78, "b1": 0.1}}, USUAL, PATHS, 3)
    assert (first.start_seconds, first.end_seconds) == (0, 6)
    assert [hit.path for hit in rest] == ["/b.mp4"]
    first, *rest = joined(ROWS, {"seen": {"a1": 0.80, "a2": 0.5, "b1": 0.1}}, USUAL, PATHS, 3)
    assert (first.start_seconds, first.end_seconds) == (0, 4) and len(rest) == 1


@pytest.mark.parametrize("limit", [1, 2])
def test_the_limit(limit: int) -> None:
    hits = joined(ROWS, {"seen": {"a1": 0.9, "a3": 0.5, "b1": 0.2}}, USUAL, PATHS, limit)
    assert len(hits) == limit and hits[0].start_seconds == 0


def test_a_fit_counts_by_what_is_usual() -> None:
    """0.3 is nothing for the eye of this query, and much for its ear."""
    scores = fused({"seen": {"a1": 0.3, "b1": 0.2}, "heard": {"a1": -0.2, "b1": 0.3}}, USUAL)
    assert scores["b1"] > scores["a1"]
    assert scores["b1"] == pytest.approx((0.5 + 5) / 12)


def test_the_last_digits_of_cosines_tell_nothing() -> None:
    alike = fused({"seen": {"a1": 0.4000001, "b1": 0.4}}, {"seen": (0.40000005, 5e-8)})
    assert alike == {"a1": 0.0, "b1": 0.0}


def test_words_are_shares_of_the_best_fit_and_weak_ones_stay_weak() -> None:
    scores = fused({"narrated": {"a1": 8.0, "b1": 4.0}, "heard in words": {"b1": 3.0}}, {})
    assert scores == {"a1": 0.5, "b1": pytest.approx(0.75)}
    same = fused({"narrated": {"a1": 8.0, "b1": 4.0}, "heard in words": {"b1": 3.0}}, {}, same_words=True)
    assert same == {"a1": 1.0, "b1": 1.0}
    assert fused({"narrated": {"a1": 0.2}}, {}) == {"a1": pytest.approx(0.2)}


def test_words_side_by_side_within_a_sentence() -> None:
    assert pairs_of("A green Cross. It moves") == {("green", "cross"), ("it", "moves")}
    assert pairs_of("green") == pairs_of("") == frozenset()
    assert pairs_of("grün, blau (the Ton)") == {("grün", "blau")}


def test_words_in_their_order_fit_better_than_words_apart() -> None:
    texts = {
        "apart": "A white cross grows on a green background.",
        "together": "A green cross moves left.",
        "one": "A cross on green grows.",
    }
    fits = dict.fromkeys(texts, 3.0)
    for query in ("green cross", "When is the green cross shown?", "find a green cross."):
        assert in_order(fits, texts, query) == {"apart": 3 * APART, "together": 3.0, "one": 3 * APART}
    assert in_order(fits, texts, "cross green") == fits, "nobody says so: it tells nothing apart"
    longer = in_order(fits, texts, "a green cross grows")
    assert longer["together"] == longer["apart"] > longer["one"], "one pair of two each"
    assert in_order({}, {}, "green cross") == {} and in_order(fits, texts, "") == fits

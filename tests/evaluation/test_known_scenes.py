"""What counts as found and as true of a film of known scenes."""

from __future__ import annotations

from itertools import pairwise

from videollm.evaluation.known_scenes import KnownScene, Told, film_of, is_found, is_true, told
from videollm.tools.narrate import Narration

RED, BLUE = KnownScene(0.0, 5.0, "red star"), KnownScene(5.0, 9.0, "blue cross")


def test_a_scene_is_found_from_its_start_to_its_end() -> None:
    assert is_found(RED, [Narration(0, 5.5, "A red star moves left.")], 1.0)
    assert not is_found(RED, [Narration(0, 3.5, "A red star moves left.")], 1.0), "it ends too early"
    assert is_found(RED, [Narration(0.9, 2, "a red star"), Narration(2, 3, "?"), Narration(3, 6, "the Red Star")], 1.0)
    assert not is_found(RED, [Narration(0, 5, "a blue star")], 1.0)
    assert not is_found(BLUE, [Narration(0, 5.2, "a blue cross")], 9.0), "not while it is there"


def test_a_span_is_true_of_what_is_there_in_its_time() -> None:
    known = [RED, BLUE]
    assert is_true(Narration(4, 6, "a blue cross"), known) and is_true(Narration(4, 6, "a red star"), known)
    assert not is_true(Narration(5, 6, "a red star"), known) and not is_true(Narration(0, 5, "a red cross"), known)


def test_counts() -> None:
    found = [Narration(0, 5, "a red star"), Narration(5, 7, "a green cross"), Narration(7, 9, "a blue cross")]
    counts = told([RED, BLUE], found, 1.0)
    assert counts == Told(2, 1, 3, 2)
    assert str(counts) == "1 of 2 scenes found (50.0%), 2 of 3 spans true (66.7%)"
    assert told([RED, BLUE], found, 2.0).found == 2


def test_the_film_is_as_long_as_its_scenes() -> None:
    known: list[KnownScene] = []
    pictures = list(film_of(8, 2, known))
    assert known[0].start_seconds == 0 and all(a.end_seconds == b.start_seconds for a, b in pairwise(known))
    assert len(pictures) == 2 * known[-1].end_seconds and known[-1].end_seconds >= 8 > known[-1].start_seconds
    assert all(picture.shape == (96, 128, 3) for picture in pictures)
    others: list[KnownScene] = []
    list(film_of(4, 2, others, first=20_000))
    assert others != known[: len(others)]

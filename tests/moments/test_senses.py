"""What of a query is about pictures and what about sounds."""

from __future__ import annotations

import pytest

from videollm.moments.senses import by_sense

SEEN, HEARD = {"red", "blue", "circle", "star", "left", "moves", "background"}, {"hum", "beeps", "music", "dog"}


def familiar(phrase: str) -> tuple[float, float]:
    words = set(phrase.lower().split())
    return 3.0 * len(words & SEEN), 5.0 * len(words & HEARD)


@pytest.mark.parametrize(
    "query, seen, heard",
    [
        ("a red circle moves left", "a red circle moves left", ""),
        ("a red circle and a blue star", "a red circle and a blue star", ""),
        ("a hum, then three beeps", "", "a hum, then three beeps"),
        ("a red circle moves left, music in the room", "a red circle moves left", "music in the room"),
        ("music while a red circle and a blue star rest", "a red circle and a blue star rest", "music"),
        ("a red circle as a hum starts, a blue star", "a red circle, a blue star", "a hum starts"),
        ("one hears a red voice", "", "one hears a red voice"),
        ("a quiet tune", "a quiet tune", "a quiet tune"),
        ("a red circle, a tune", "a red circle", "a tune"),
        ("", "", ""),
    ],
)
def test_phrases(query: str, seen: str, heard: str) -> None:
    assert by_sense(query, familiar) == (seen, heard)


def test_who_judges_words_that_are_never_told() -> None:
    assert by_sense("a tune", familiar, lambda phrase: True) == ("", "a tune")
    assert by_sense("a red circle, a house", familiar, lambda phrase: False) == ("a red circle, a house", "")

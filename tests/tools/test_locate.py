"""Which moment a question asks about: what it names, or what is before or after that."""

from __future__ import annotations

from typing import Any

import pytest

from videollm.moments.moment import Found, Moment
from videollm.tools.locate import content_of, locate

TOLD = ["a dog barks", "she opens a door", "a dog barks", "rain falls", "she sits down"]


class Told:
    """Ten seconds each; words are found by how many of them are told, the earliest first."""

    def moments(self, path: str) -> list[Moment]:
        return [Moment(10.0 * at, 10.0 * at + 10, text) for at, text in enumerate(TOLD)]

    def find(self, words: str, within: tuple[float, float] | None, most: int) -> list[Found]:
        low, high = within or (0.0, 100.0)
        wanted = set(words.lower().replace("?", "").split())
        hits = []
        for one in self.moments(""):
            score = len(wanted & set(one.narration.split()) - {"a", "she"})
            if score and one.end_seconds > low and one.start_seconds < high:
                hits.append(Found("v", one.start_seconds, one.end_seconds, score, {}, one.narration, ""))
        return sorted(hits, key=lambda hit: -hit.score)[:most]


STORE: Any = Told()


@pytest.mark.parametrize(
    ("question", "start"),
    [
        ("When does she open the door?", 10.0),
        ("What happens after she opens the door?", 20.0),
        ("What is seen right before rain falls?", 20.0),
        ("What comes next after rain falls?", 40.0),
        ("When does a dog bark, after she opens a door?", 20.0),
        ("After the door opens, when does rain fall?", 30.0),
        ("When does a dog barks before she opens the door?", 0.0),
    ],
)
def test_a_question_is_about_one_moment(question: str, start: float) -> None:
    assert locate(STORE, "v", question, STORE.find)[0] == (start, start + 10)


def test_nothing_is_before_the_first_or_found_in_other_words() -> None:
    assert locate(STORE, "v", "What happens before she sits down after all?", STORE.find)[0] == (30.0, 40.0)
    assert locate(STORE, "v", "What happens after she sits down?", STORE.find) == [(40.0, 50.0)]
    assert locate(STORE, "v", "Where is a whale?", STORE.find) == []
    assert locate(STORE, "v", "What happens after a whale sings?", STORE.find) == []
    assert locate(STORE, "v", "What happens after?", STORE.find) == []


def test_words_that_only_ask() -> None:
    assert content_of("What happens right there, when the red star moves up?") == "red star moves up"
    assert content_of("And then?") == ""

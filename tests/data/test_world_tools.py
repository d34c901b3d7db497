"""Conversations with calls: what is called stands in the question, and what is answered in what came back."""

import re

import numpy as np
import pytest

from videollm.data.dialogue import NOTHING_HEARD
from videollm.data.world_tools import (
    AT,
    NOT_FOUND,
    TOOL_OF,
    ToolTurns,
    ask_between,
    ask_how,
    ask_part,
    ask_when,
    at_moment,
    encode_tool_turns,
    with_unknown_words,
)
from videollm.models import hub
from videollm.training.tiny import build_tiny


@pytest.fixture(scope="module")
def processor():
    return build_tiny(0, hub.find("tiny"), tools=True)[1]


@pytest.fixture(scope="module")
def turns():
    """Of 200 conversations."""
    make = ToolTurns(0, np.tile([0.0, 1.0, 1.0, 100.0], (60, 1)))
    found = [make(np.random.default_rng([9, number])) for number in range(200)]
    again = make(np.random.default_rng([9, 7]))
    assert again == found[7]
    return found


def test_a_call_is_words_of_the_question(turns):
    kinds = set()
    for lasts, several in turns:
        assert 45 <= lasts <= 3500
        for turn in several:
            kinds.add(turn.kind)
            assert (None if turn.call is None else turn.call.split()[0]) == TOOL_OF[turn.kind]
            for word in (turn.call or "").split()[1:]:
                assert word in turn.question, turn
    assert kinds == set(TOOL_OF)


def test_an_answer_stands_in_what_was_told(turns):
    """Of those that are told in words; the others are answered from a clip."""
    checked = 0
    for _, several in turns:
        for turn in several:
            if turn.call is None or turn.shows is not None or turn.answer in (NOT_FOUND, NOTHING_HEARD):
                continue
            told = turn.told.lower()
            if turn.kind == "how":
                thing, moves = re.fullmatch(r"The (\w+ \w+) (.*)\.", turn.answer).groups()
                assert f"{thing} {moves}" in told or f"{thing} appears and {moves}" in told
            else:
                assert turn.answer.removeprefix("At ").rstrip(".").lower() in told, turn
            checked += 1
    assert checked > 40


def test_words_that_are_none_leave_what_a_call_says_again():
    rng = np.random.default_rng(3)
    said = {with_unknown_words("at 4:31, what colour is the star?", ["4:31", "star"], rng) for _ in range(40)}
    assert len(said) > 20 and all("4:31" in one and "star" in one and one[-1] == "?" for one in said)
    assert any(not one.startswith("at ") for one in said), "also in the place of a small word"
    whole = {with_unknown_words("find the red star", ["red star"], rng) for _ in range(40)}
    assert all("red star" in one for one in whole) and len(whole) > 10


def test_what_is_not_told_is_not_found(turns):
    missing = [turn for _, several in turns for turn in several if turn.answer == NOT_FOUND and turn.kind == "when"]
    assert missing
    for turn in missing:
        assert turn.call is not None and turn.call.removeprefix("search ") not in turn.told


def test_of_several_lines_that_fit_the_first_is_the_answer():
    make = ToolTurns(0, np.tile([0.0, 1.0, 1.0, 100.0], (400, 1)))
    several, words_of_others, lines_of_others = 0, 0, 0
    for number in range(400):
        for turn in make(np.random.default_rng([10, number]))[1]:
            if turn.kind not in ("when", "how") or turn.answer == NOT_FOUND:
                continue
            query = turn.call.removeprefix("search ").removesuffix("s")
            lines = [line.partition(" ")[2].lower() for line in turn.told.split("\n")]
            fitting = [line for line in lines if query in line]
            if turn.kind == "when":
                assert fitting[0].startswith(f"[{turn.answer.removeprefix('At ').rstrip('.')}"), turn
                several += len(fitting) > 1
            if len(query.split()) == 2 and "tone" not in query:
                others = [line for line in lines if query not in line and not line.endswith("...")]
                lines_of_others += len(others)
                words_of_others += sum(any(word in line for word in query.split()) for line in others)
    assert several > 10
    assert words_of_others > 0.6 * lines_of_others > 20, "what is found has words of the query, if not together"


def test_calls_answers_and_their_ends_are_learned(processor, turns):
    """Of what the model is shown when the last turn is answered, or its call is made."""
    lasts, several = next((lasts, some) for lasts, some in turns if some[0].shows == "video" and len(some) == 2)
    first = several[0]
    learned = []
    for some, heard, answered in ((several[:1], True, False), (several[:1], True, True), (several, False, False)):
        told = encode_tool_turns(processor, lasts, some, heard, answered)
        assert len(told.input_ids) == len(told.labels)
        for place, source in told.said_again:
            assert told.labels[place] != -100 and source < place
            assert told.input_ids[place] == told.input_ids[source]
        text = processor.tokenizer.decode(told.input_ids)
        assert text.count(first.question) == 1 and re.search(r"\d+:\d\d long\. ", text)
        learned.append(processor.tokenizer.decode([label for label in told.labels if label != -100]))
        assert told.input_ids.count(processor.video_token_id) == processor.num_video_query_tokens
        if some == [first] and not answered:
            assert told.shown == [("video", None), ("audio", None)] and len(told.said_again) >= 4, "the time's tokens"
        else:
            assert told.shown == [("video", 0)] and "<result>" in text, "the stretch stands in the film's place"
    assert learned[:2] == [f"<call>{first.call}<eos>", f"{first.answer}<eos>"]
    last = several[1]
    assert learned[2] == learned[1] + (f"{last.answer}<eos>" if last.call is None else f"<call>{last.call}<eos>")


def test_what_is_told_in_words_is_said_again(processor, turns):
    lasts, several = next((lasts, some) for lasts, some in turns if some[0].kind == "narrate")
    told = encode_tool_turns(processor, lasts, several[:1], True)
    answer = [place for place, label in enumerate(told.labels) if label != -100][:-1]
    assert [place for place, _ in told.said_again] == answer, "all but its end"
    assert {place - source for place, source in told.said_again} == {answer[0] - told.said_again[0][1]}, "in one run"


def test_wordings_for_testing_are_others():
    rng = np.random.default_rng(1)
    for held_out in (False, True):
        asked = at_moment("what colour is the star?", "4:31", rng, held_out)
        assert "4:31" in asked and "what colour is the star" in asked and asked[-1] in "?."
        for question in (
            ask_when("orange star", rng, held_out),
            ask_when("hum", rng, held_out, sound=True),
            ask_how("red star", rng, held_out),
            ask_between(1.0, 61.0, rng, held_out),
            ask_part("part_is", 1, rng, held_out),
        ):
            assert "{" not in question
    assert not set(AT.train) & set(AT.test)

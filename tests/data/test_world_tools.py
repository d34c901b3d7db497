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
)
from videollm.models import hub
from videollm.training.tiny import build_tiny


@pytest.fixture(scope="module")
def processor():
    return build_tiny(0, hub.find("tiny"), tools=True)[1]


@pytest.fixture(scope="module")
def turns():
    """Of 150 conversations."""
    make = ToolTurns(0, np.tile([0.0, 1.0, 1.0, 100.0], (60, 1)))
    found = [make(np.random.default_rng([9, number])) for number in range(150)]
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
            words = turn.answer.rstrip(".").removeprefix("It ").removeprefix("At ")
            for part in words.split(", then ") if turn.kind == "narrate" else [words]:
                assert part.lower() in turn.told.lower(), turn
            checked += 1
    assert checked > 40


def test_what_is_not_told_is_not_found(turns):
    missing = [turn for _, several in turns for turn in several if turn.answer == NOT_FOUND and turn.kind == "when"]
    assert missing
    for turn in missing:
        assert turn.call is not None and turn.call.removeprefix("search ") not in turn.told


def test_calls_answers_and_their_ends_are_learned(processor, turns):
    lasts, several = next((lasts, some) for lasts, some in turns if some[0].shows == "video" and len(some) == 2)
    for heard in (True, False):
        ids, labels, again = encode_tool_turns(processor, lasts, several, heard)
        for place, source in again:
            assert labels[place] != -100 and ids[place] == ids[source] and source < place
        assert len(again) >= sum(len((one.call or "").split()) > 1 for one in several) * 4, "the times of the calls"
        learned = processor.tokenizer.decode([label for label in labels if label != -100])
        said = [f"<call>{one.call}<eos>" * (one.call is not None) + f"{one.answer}<eos>" for one in several]
        assert learned == "".join(said) and len(ids) == len(labels)
        shown = sum(one.shows == "video" for one in several)
        assert ids.count(processor.video_token_id) == (1 + shown) * processor.num_video_query_tokens
        text = processor.tokenizer.decode(ids)
        assert text.count(several[0].question) == 2, "once asked, once behind what came back"
        assert re.search(r"\d+:\d\d long\. ", text)


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

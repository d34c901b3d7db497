"""Answers as markdown: times are links, everything else is words."""

import html
import re
from dataclasses import replace

import pytest

from videollm.chat.calls import Evidence
from videollm.chat.session import Answer, ClipCoverage, Timings
from videollm.messages import ToolCallPart, ToolResultPart
from videollm.serving.answer_text import (
    as_markdown,
    as_words,
    calls_of,
    footnote,
    linked,
    messages_of,
    question_of,
    receipts,
    view_for,
)
from videollm.serving.clip_view import ClipView
from videollm.serving.model_worker import Exchange

VIEW = ClipView("abc", "a.mp4", "video", 90.0, "saw it", (), (), ())


def read(markdown):
    """What a person reads, with the seconds that links lead to: ``at <2.5 s|2.5>``."""
    return html.unescape(re.sub(r"\[([^\]]*)\]\(#at-abc-([^)]*)\)", r"<\1|\2>", markdown))


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("At 2.5 s.", "At <2.5 s|2.5>."),
        ("At 1.5 s and 3.5 s.", "At <1.5 s|1.5> and <3.5 s|3.5>."),
        ("0.0 s: a star. 2.5 s: a cut.", "<0.0 s|0>: a star. <2.5 s|2.5>: a cut."),
        ("from 2.5-3 s on", "from <2.5|2.5>-<3 s|3> on"),
        ("[0:12-1:16] a door", "[<0:12|12>-<1:16|76>] a door"),
        ("at 0:01:05.5 then", "at <0:01:05.5|65.5> then"),
        ("after 12 seconds, 1 sec", "after <12 seconds|12>, <1 sec|1>"),
        ("at 90.4 s", "at <90.4 s|90>"),
        ("at 120 s", "at 120 s"),
        ("2 stars, 3 sounds, 4 sheep", "2 stars, 3 sounds, 4 sheep"),
        ("version 1.2.3 s", "version 1.2.3 s"),
        ("a ratio of 16:9", "a ratio of 16:9"),
    ],
)
def test_times_are_links(said, shown):
    assert read(linked(said, VIEW)) == shown


def test_without_a_clip_that_has_time_there_is_no_link():
    image = ClipView("abc", "a.png", "image", 0.0, "saw it", (), (), ())
    assert html.unescape(linked("At 2.5 s.", None)) == html.unescape(linked("At 2.5 s.", image)) == "At 2.5 s."


@pytest.mark.parametrize(
    "text", ["<script>alert(1)</script>", "![x](https://e.org/x.png)", "**b** _i_ `c` # h", "1. a\n- b", "[a](#at-x-1)"]
)
def test_signs_of_a_model_are_signs(text):
    shown = as_words(text)
    assert html.unescape(shown) == text
    assert not set(shown) & set("<>![]()*_`-.+|~$\\\"'")


def answer(text, *names, notes=(), finish="end"):
    coverage = tuple(ClipCoverage(name, "video", 4.0, 8, (0.0, 3.5), 4.0, True) for name in names)
    return Answer(text, (1,), coverage, finish, 0, notes, Timings(1, 0, 1, 1, 0, 0.0, 0.0, 0.0, 0.0))


def test_below_an_answer_stands_what_was_shown_and_what_happened():
    said = answer("x", "a.mp4", "b.mp4", notes=("the answer was cut at 9 tokens",), finish="stopped")
    assert footnote(said) == (
        "Saw 8 frames of a.mp4 (0.0-3.5 of 4.0 s), heard 4.0 s of 4.0 s; saw 8 frames of b.mp4 (0.0-3.5 of 4.0 s), "
        "heard 4.0 s of 4.0 s. The answer was cut at 9 tokens. Stopped."
    )
    assert footnote(answer("x")) == "Was shown no clip."


def test_a_conversation_alternates_and_times_are_of_the_last_clip_shown():
    other = ClipView("def", "b.mp4", "video", 4.0, "saw it", (), (), ())
    views = {"a.mp4": VIEW, "b.mp4": other}
    exchanges = [
        Exchange("q1", ("a.mp4",), answer("At 1 s.", "a.mp4")),
        Exchange("q2", ("b.mp4",), answer("At 2 s.", "a.mp4", "b.mp4")),
        Exchange("q3", (), answer("At 3 s.", "a.mp4", "b.mp4")),
    ]
    shown = messages_of(exchanges, views)
    assert [message["role"] for message in shown] == ["user", "assistant"] * 3
    assert [re.findall(r"#at-(\w+)-([\d.]+)", message["content"]) for message in shown[1::2]] == [
        [("abc", "1")], [("def", "2")], [("def", "3")],
    ]  # fmt: skip
    assert view_for(["a.mp4", "gone.mp4"], views) is VIEW
    text = as_markdown("tiny", ["a.mp4", "b.mp4"], exchanges)
    assert "**q1**\n\nAt 1 s.\n\n> Saw 8 frames of a.mp4" in text and "* b.mp4" in text


def test_calls_of_tools_are_folded_before_the_words():
    call = ToolCallPart("narrate", {"video": "a.mp4", "start_seconds": 12.0, "end_seconds": 16.0}, "1")
    told = ToolResultPart("1", "[0:12-0:16] a <b>star\n(1 more)")
    lost = ToolCallPart("search", {"query": "a *cat*"}, "2")
    no = ToolResultPart("2", "there is no index", refused=True)
    under_way = calls_of([call], {"a.mp4": VIEW})
    assert under_way == [
        {
            "role": "assistant",
            "content": "&#8230;",
            "metadata": {"title": as_words("narrate a.mp4, 0:12-0:16"), "status": "pending"},
        }
    ]
    first, second = calls_of([call, told, lost, no], {"a.mp4": VIEW})
    assert read(first["content"]) == "[<0:12|12>-<0:16|16>] a <b>star\n(1 more)" and "<b>" not in first["content"]
    assert first["metadata"]["status"] == second["metadata"]["status"] == "done"
    assert read(second["metadata"]["title"]) == "search: a *cat*, refused" and "*" not in second["metadata"]["title"]

    used = (
        Evidence("a.mp4", 12, 16, "narrated"),
        Evidence("a.mp4", 0, 90, "seen"),
        Evidence("b.mp4", 1, 2, "retrieved"),
    )
    with_tools = replace(answer("A star.", "a.mp4"), rounds=(call, told, lost, no), used=used)
    exchanges = [Exchange("q1", ("a.mp4",), with_tools), Exchange("q2", (), answer("No.", "a.mp4"))]
    shown = messages_of(exchanges, {"a.mp4": VIEW})
    assert [message["role"] for message in shown] == ["user", *["assistant"] * 3, "user", "assistant"]
    assert ["metadata" in message for message in shown] == [False, True, True, False, False, False]
    assert read(shown[3]["content"]).endswith(
        "Rests on [<0:12|12>-<0:16|16>] of a.mp4 (narrated) [0:01-0:02] of b.mp4 (retrieved).</small>"
    )
    assert [question_of(index, exchanges) for index in range(7)] == [0, 0, 0, 0, 1, 1, 2]
    # What was shown again, and not what of the whole clip was shown before.
    again = ToolCallPart("look", {"video": "a.mp4", "start_seconds": 20.0, "end_seconds": 24.0}, "3")
    heard = Evidence("a.mp4", 20.5, 21, "heard")
    shown_again = Evidence("a.mp4", 20, 23.75, "seen")
    looked = replace(with_tools, rounds=(again, ToolResultPart("3", "16 frames")), used=(*used[1:], heard, shown_again))
    assert receipts(looked) == [used[2], shown_again]
    refused = replace(looked, rounds=(ToolCallPart("look", {}, "3"), ToolResultPart("3", "look takes", refused=True)))
    assert receipts(refused) == [used[2]]

    text = as_markdown("tiny", ["a.mp4"], exchanges)
    assert "**q1**\n\n* narrate a.mp4, 0:12-0:16\n  * [0:12-0:16] a <b>star\n" in text

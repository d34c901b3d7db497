"""Scores are exact, baselines are those of the cell, and the table hides nothing."""

from __future__ import annotations

import pytest

from videollm.data.dialogue import REFUSAL, UNKNOWN
from videollm.evaluation.qa import Item, cells, honesty, invents, names_thing, normalised, refuses, table


def item(truth: str, answer: str, **other: str) -> Item:
    values = {"condition": "seen", "row": "one", "type": "colour", "film": "a.mp4", "question": "?", **other}
    return Item(truth=truth, answer=answer, **values)


@pytest.mark.parametrize(
    ("a", "b", "same"),
    [
        ("Red.", "red", True),
        ("At 1.5 s.", "at 1.5 s", True),
        ("At 1.5 s.", "at 15 s", False),
        ("At 1.5 s.", "at 1 5 s", False),
        ("A red circle, and a star!", "a red circle and a star", True),
        ("a red  circle", "A red circle.", True),
        ("red", "a red", False),
        ("No.", "no, no", False),
        ("", ".", True),
    ],
)
def test_right_is_the_whole_answer(a: str, b: str, same: bool) -> None:
    assert (normalised(a) == normalised(b)) is same
    assert item(a, b).right is same


def test_cells_score_and_baseline() -> None:
    items = [item("red", "red", film=f"{i}") for i in range(6)] + [item("blue", "red", film="0") for _ in range(2)]
    items += [item("blue", "Blue.", film="9"), item("green", "blue", film="9")]
    items += [item("yes", "no", type="exist")]
    found = cells(items)
    cell = found["seen", "one", "colour"]
    assert (cell.count, cell.films, cell.score, cell.baseline) == (10, 7, 0.7, 0.6)
    assert found["seen", "one", "exist"].score == 0 and found["seen", "one", "exist"].baseline == 1
    assert len(found) == 2


def test_the_table_says_where_questions_are_few() -> None:
    items = [item("red", "red", film=f"{i}") for i in range(4)] + [item("no", "no", type="exist", row="two")]
    text = table(cells(items), "seen", ("one", "two", "three"), 4)
    lines = text.splitlines()
    assert lines[1].split() == ["one", "two"]  # a kind without questions has no column
    assert lines[2].split() == ["colour", "1.00", "1.00"]
    assert lines[3].split() == ["exist", "1.00", "1.00", "n1"]


def test_inventions_and_refusals_are_recognised() -> None:
    assert invents("A red circle moves left on a black background.")
    assert invents("there are two stars")
    assert not invents("I see none of the shapes I know. Mostly dark, blue; the picture moves left.")
    assert names_thing("Then a pink cross appears.") and not names_thing("mostly red; no circle")
    assert refuses(REFUSAL) and refuses(UNKNOWN.upper()) and not refuses("I see no star.")


def test_honesty_counts() -> None:
    items = [
        item(REFUSAL, REFUSAL, row="outside", type="outside"),
        item(REFUSAL, "yes", row="outside", type="outside"),
        item("red", REFUSAL),
        item("red", "red"),
        item("x", "A red circle.", row="plain", type="caption"),
        item("x", "I see none of the shapes I know.", row="plain", type="caption"),
        item("it moves left", "it moves left", condition="reversed", unchanged_truth="it moves right"),
        item("it moves left", "it moves right", condition="reversed", unchanged_truth="it moves right"),
        item("it stays still", "it stays still", condition="reversed", unchanged_truth="it stays still"),
    ]
    lines = honesty(items)
    assert "seen: refused outside the world 0.500 (1 of 2)" in lines
    assert "seen: wrongly refused inside it 0.250 (1 of 4)" in lines
    assert any("name one 0.500 (1 of 2)" in line for line in lines)
    assert any("gave it 0.500 (1 of 2), kept the old one 0.500 (1 of 2)" in line for line in lines)

"""Sentences with times, and annotations that cannot be measured."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from videollm.data.timed_captions import timed_captions, timed_paragraph
from videollm.errors import DataError, UnusableSampleError


def test_a_paragraph(tmp_path: Path) -> None:
    row = {"duration": 9, "timestamps": [[0, 4.5], [0.0, 2], [3, 20]], "sentences": [" A man \n runs.", "b", "c"]}
    (tmp_path / "a.json").write_text(json.dumps({"v_1": row}))
    ((name, found, where),) = timed_captions(tmp_path / "a.json")
    paragraph = timed_paragraph(name, found, where)
    assert paragraph.sentences == ("A man runs.", "b", "c")
    assert paragraph.spans_seconds == ((0.0, 4.5), (0.0, 2.0), (3.0, 20.0))


@pytest.mark.parametrize(
    ("row", "match"),
    [
        ({"timestamps": [[0, 1]]}, "needs the lists timestamps and sentences"),
        ({"timestamps": [[0, 1]], "sentences": ["a", "b"]}, "a sentence with words for each of 1 timestamps, found 2"),
        ({"timestamps": [[0, 1]], "sentences": [" "]}, "a sentence with words"),
        ({"timestamps": [], "sentences": []}, "a sentence with words"),
        ({"timestamps": [[0]], "sentences": ["a"]}, "timestamp 1 must be two numbers of seconds"),
        ({"timestamps": [[0, float("nan")]], "sentences": ["a"]}, "timestamp 1 must be two numbers"),
        ({"timestamps": [[2, 1]], "sentences": ["a"]}, "timestamp 1 ends before it starts: 2 to 1"),
        ({"timestamps": [[2, 3], [1, 4]], "sentences": ["a", "b"]}, "sentence 2 starts at 1 s, before 2 s"),
    ],
)
def test_what_cannot_be_measured_is_one_line(row: Any, match: str) -> None:
    with pytest.raises(UnusableSampleError, match=match) as caught:
        timed_paragraph("v", row, "a.json video v")
    assert "\n" not in str(caught.value) and str(caught.value).startswith("a.json video v: ")


@pytest.mark.parametrize("content", ["", "[]", "{}", '"x"'])
def test_files_that_are_none(tmp_path: Path, content: str) -> None:
    (tmp_path / "a.json").write_text(content)
    with pytest.raises(DataError, match=r"a\.json"):
        timed_captions(tmp_path / "a.json")
    with pytest.raises(DataError, match="cannot read"):
        timed_captions(tmp_path / "none.json")

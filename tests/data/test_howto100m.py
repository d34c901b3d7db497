"""HowTo100M: narrations with their seconds."""

import json

import pytest

from videollm.data.howto100m import HowTo100M
from videollm.data.sample import Media
from videollm.errors import DataError, UnusableSampleError

TOLD = {
    "a": {"text": ["now stir", "and taste"], "start": [1.0, 5], "end": [2.0, 11.5]},
    "b": {"text": [], "start": [], "end": []},
    "c": {"text": ["gone", " ", "late", 7], "start": [0, 0, 5, 0], "end": [5, 5, 5, 5]},
    "d": {"text": ["lost"], "start": [0.5], "end": [5]},
}


@pytest.fixture
def source(tmp_path):
    for name in ("a.webm", "c.mp4"):
        (tmp_path / name).touch()
    (tmp_path / "caption.json").write_text(json.dumps(TOLD))
    return HowTo100M(tmp_path / "caption.json", tmp_path)


def test_what_is_said_has_its_stretch(source, tmp_path):
    assert len(source) == 7
    # One second is extended to four, as far as the file's beginning allows.
    assert [source[k].media["clip"] for k in (0, 1)] == [
        Media(str(tmp_path / "a.webm"), 0.0, 4.0), Media(str(tmp_path / "a.webm"), 5.0, 11.5),
    ]  # fmt: skip
    assert [source[k].messages[1].text for k in (0, 1, 2)] == ["now stir", "and taste", "gone"]
    assert len({source[k].id for k in (0, 1, 2)}) == 3


@pytest.mark.parametrize(
    ("index", "reason"), [(3, "empty caption"), (4, "bad annotation"), (5, "bad annotation"), (6, "missing media")]
)
def test_what_cannot_be_used_is_named(source, index, reason):
    with pytest.raises(UnusableSampleError, match=r"caption\.json '[cd]' narration \d") as error:
        source[index]
    assert error.value.reason == reason


@pytest.mark.parametrize("told", ["[]", "{}", "{", '{"a": {"text": ["x"], "start": [], "end": [1]}}', '{"a": 3}'])
def test_files_that_are_no_narrations(tmp_path, told):
    (tmp_path / "caption.json").write_text(told)
    with pytest.raises(DataError, match=r"caption\.json"):
        HowTo100M(tmp_path / "caption.json", tmp_path)

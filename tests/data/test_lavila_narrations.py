"""Narrations of Ego4D: people's, the narrator's and the rephraser's files, and pickles that are none."""

import copyreg
import os
import pickle

import pytest

from videollm.data.lavila_narrations import LavilaNarrations
from videollm.data.sample import Media
from videollm.errors import DataError, UnusableSampleError

HUMAN = [("v1", 1.5, 3.0, "#C C opens a door"), ("v2", 299.0, 301.5, "#C C sits"), ("v2", 301.0, 302.0, "#O A waves")]
REPHRASER = [("v1", 1, 3, ["a door is opened", "C opens the door"])]
NARRATOR = [("v1", -0.5, 3.0, ["#C C walks", " "], [-1.0, -2.0]), ("v9", 1.0, 2.0, ["#C C runs"], [-1.0])]


def narrations(tmp_path, rows):
    (tmp_path / "v2.mp4").mkdir(exist_ok=True)
    for name in ("v1.mp4", "v2.mp4/0.mp4", "v2.mp4/300.mp4"):
        (tmp_path / name).touch()
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(rows))
    return LavilaNarrations(tmp_path / "a.pkl", tmp_path)


def test_peoples(tmp_path):
    source = narrations(tmp_path, HUMAN)
    assert len(source) == 3
    assert [source[k].messages[1].text for k in range(3)] == [row[3] for row in HUMAN]
    assert [source[k].media["clip"] for k in range(3)] == [
        Media(str(tmp_path / "v1.mp4"), 1.5, 3.0),
        Media(str(tmp_path / "v2.mp4" / "0.mp4"), 299.0, 300.0),
        Media(str(tmp_path / "v2.mp4" / "300.mp4"), 1.0, 2.0),
    ]


def test_rephrasers(tmp_path):
    source = narrations(tmp_path, REPHRASER)
    assert [source[k].messages[1].text for k in range(2)] == REPHRASER[0][3]
    assert len({source[k].id for k in range(2)}) == 2


def test_all_of_a_stretch_together(tmp_path):
    narrations(tmp_path, [*REPHRASER, *NARRATOR])
    source = LavilaNarrations(tmp_path / "a.pkl", tmp_path, together=True)
    assert len(source) == 3
    assert [message.text for message in source[0].messages[1:]] == REPHRASER[0][3]
    assert [message.text for message in source[1].messages[1:]] == ["#C C walks"]


def test_narrators(tmp_path):
    source = narrations(tmp_path, NARRATOR)
    assert source[0].media["clip"].start_seconds == 0.0
    for index, reason in ((1, "empty caption"), (2, "missing media")):
        with pytest.raises(UnusableSampleError) as error:
            source[index]
        assert error.value.reason == reason


class Hostile:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_pickle_with_code_is_one_error(tmp_path, protocol):
    rows = [*HUMAN, Hostile(str(tmp_path / "made"))]
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(rows, protocol))
    with pytest.raises(DataError, match="mkdir, which would run code") as error:
        LavilaNarrations(tmp_path / "a.pkl", tmp_path)
    assert "\n" not in str(error.value)
    assert [one.name for one in tmp_path.iterdir()] == ["a.pkl"]


def test_other_ways_to_code_are_errors_too(tmp_path):
    """Extension codes look names up in a table of the process, persistent ids ask the reader."""
    copyreg.add_extension("os", "system", 241)
    try:
        hostile = b"\x80\x02\x82\xf1U\x04trueq\x00\x85R."
        for content in (hostile, b"\x80\x02X\x01\x00\x00\x00aQ."):
            (tmp_path / "a.pkl").write_bytes(content)
            with pytest.raises(DataError, match=r"would run code|not in it"):
                LavilaNarrations(tmp_path / "a.pkl", tmp_path)
    finally:
        copyreg.remove_extension("os", "system", 241)


@pytest.mark.parametrize("content", [b"", b"no pickle", pickle.dumps(HUMAN)[:-9], pickle.dumps({}), pickle.dumps([])])
def test_files_that_are_no_narrations(tmp_path, content):
    (tmp_path / "a.pkl").write_bytes(content)
    with pytest.raises(DataError):
        LavilaNarrations(tmp_path / "a.pkl", tmp_path)


@pytest.mark.parametrize("row", [("v", 1.0, 2.0), ("v", "1", 2.0, "a"), ("v", 1.0, 2.0, 3), 7, (1, 1.0, 2.0, "a")])
def test_bad_rows_are_named(tmp_path, row):
    (tmp_path / "a.pkl").write_bytes(pickle.dumps([*HUMAN, row]))
    with pytest.raises(DataError, match=r"a\.pkl row 4: "):
        LavilaNarrations(tmp_path / "a.pkl", tmp_path)

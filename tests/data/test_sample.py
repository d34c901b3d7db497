"""Samples: what a line of a JSONL file may say, and what is said of one that may not."""

import json
import pickle

import pytest

from videollm.data.sample import (
    JsonlSamples,
    Media,
    Sample,
    UnusableSampleError,
    path_inside,
    sample_to_json,
    write_samples,
)
from videollm.errors import DataError
from videollm.messages import MediaPart, Message, TextPart, assistant, system, user


def line(**changes):
    return {
        "id": "a",
        "messages": [
            {"role": "user", "parts": [{"type": "video", "clip": "film"}, {"type": "text", "text": "What is it?"}]},
            {"role": "assistant", "parts": [{"type": "text", "text": "A kettle."}]},
        ],
        "media": {"film": {"path": "films/7.mp4", "start_seconds": 1.5, "end_seconds": 4}},
        **changes,
    }


def samples(folder):
    film, sound = Media(str(folder / "films" / "größe.mp4"), 1.5, 4.0), Media("https://example.org/a.wav")
    parts = [MediaPart("film"), MediaPart("sound", "audio")]
    return [
        Sample(
            "a", (system("Be brief."), user("Who?", parts), assistant("Me.")), {"film": film, "sound": sound}, "own"
        ),
        Sample("b", (user("Text only\nin two lines"), assistant("Yes \u2028 indeed."))),
    ]


def test_what_is_written_is_read(tmp_path):
    written = samples(tmp_path)
    assert write_samples(tmp_path / "own.jsonl", written) == 2
    read = JsonlSamples(tmp_path / "own.jsonl", name="")
    assert [read[i] for i in range(len(read))] == written
    assert json.loads((tmp_path / "own.jsonl").read_text().split("\n")[0])["media"]["film"]["path"] == "films/größe.mp4"


def test_a_root_elsewhere_and_blank_lines(tmp_path):
    path = tmp_path / "lists" / "own.jsonl"
    path.parent.mkdir()
    path.write_text("\n" + json.dumps(line()) + "\n\n  \n" + json.dumps(line(id="b")), encoding="utf-8")
    read = pickle.loads(pickle.dumps(JsonlSamples(path, root=tmp_path)))
    assert len(read) == 2 and read.name == "own" and read[1].source == "own"
    assert read[1].id == "b" and read[1].media["film"] == Media(str(tmp_path / "films" / "7.mp4"), 1.5, 4.0)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"id": 7}, "id must be text, found 7"),
        ({"id": ""}, "id must not be empty"),
        ({"messages": []}, "messages must be a list that is not empty"),
        ({"mesages": []}, "unknown key 'mesages'; did you mean 'messages'?"),
        ({"messages": [{"role": "user", "parts": [{"type": "text", "text": "a"}]}], "media": {}}, "nothing to learn"),
        ({"messages": [{"role": "boss", "parts": []}]}, "message 1: role must be system, user or assistant"),
        ({"messages": [{"role": "user", "parts": [{"type": "film"}]}]}, "message 1, part 1: type must be text"),
        ({"messages": [{"role": "user", "parts": ["a"]}]}, "message 1, part 1 must be an object"),
        ({"messages": [{"role": "user", "parts": [{"type": "text"}]}]}, "message 1, part 1: 'text' is missing"),
        ({"media": {}}, "a message shows the clip 'film', but the media are none"),
        ({"media": {"film": {"path": "a"}, "b": {"path": "b"}}}, "no message shows the clip 'b'"),
        ({"media": {"film": {"path": "../a.mp4"}}}, "'../a.mp4' leads out of"),
        ({"media": {"film": {"path": "/etc/passwd"}}}, "'/etc/passwd' leads out of"),
        ({"media": {"film": {"path": "link/passwd"}}}, "'link/passwd' leads out of"),
        ({"media": {"film": {"path": "a\0b"}}}, "is no path"),
        ({"media": {"film": {"path": ""}}}, "a path must not be empty"),
        ({"media": {"film": {"path": "a", "start_seconds": "1"}}}, "start_seconds must be a number of seconds"),
        ({"media": {"film": {"path": "a", "start_seconds": -1}}}, "start_seconds must be a number of seconds from 0"),
        ({"media": {"film": {"path": "a", "end_seconds": float("nan")}}}, "end_seconds must be a number"),
        ({"media": {"film": {"path": "a", "start_seconds": 2, "end_seconds": 2}}}, "end_seconds must be after"),
    ],
)
def test_bad_lines_are_named(tmp_path, changes, told):
    (tmp_path / "link").symlink_to("/etc")
    path = tmp_path / "own.jsonl"
    path.write_text(json.dumps(line()) + "\n\n" + json.dumps(line(**changes)) + "\n")
    read = JsonlSamples(path)
    assert read[0].id == "a"
    with pytest.raises(UnusableSampleError) as error:
        read[1]
    message = str(error.value)
    assert error.value.reason == "bad annotation" and "\n" not in message
    assert message.startswith(f"{path} line 3: ") and told in message


@pytest.mark.parametrize(
    ("content", "told"),
    [(b'{"id": ', "not JSON"), (b"\xff\xfe", "not UTF-8"), (b"[" * 200_000, "nested too deeply"), (b"7", "an object")],
)
def test_lines_that_are_no_json(tmp_path, content, told):
    (tmp_path / "own.jsonl").write_bytes(content)
    with pytest.raises(UnusableSampleError, match=f"line 1: .*{told}"):
        JsonlSamples(tmp_path / "own.jsonl")[0]


def test_files_that_are_none(tmp_path):
    with pytest.raises(DataError, match="No such file"):
        JsonlSamples(tmp_path / "none.jsonl")
    (tmp_path / "empty.jsonl").write_text("\n \n")
    with pytest.raises(DataError, match="holds no line"):
        JsonlSamples(tmp_path / "empty.jsonl")


def test_what_a_file_cannot_hold_is_not_written(tmp_path):
    ids = Sample("a", (user("Who?"), assistant("Me.", [1, 2])))
    with pytest.raises(DataError, match="token ids cannot be written"):
        write_samples(tmp_path / "own.jsonl", [*samples(tmp_path), ids])
    outside = Sample("a", (user("?", [MediaPart("f")]), assistant("Me.")), {"f": Media("/elsewhere/f.mp4")})
    with pytest.raises(DataError, match="leads out of"):
        write_samples(tmp_path / "own.jsonl", [outside])
    assert not list(tmp_path.iterdir())


def test_an_error_survives_a_worker_process():
    error = pickle.loads(pickle.dumps(UnusableSampleError("empty caption", "x line 1: no words")))
    assert error.reason == "empty caption" and str(error) == "x line 1: no words"


def test_paths_inside(tmp_path):
    assert path_inside(tmp_path, "a/../b.mp4") == str(tmp_path / "b.mp4")
    assert path_inside(tmp_path, str(tmp_path / "c.mp4")) == str(tmp_path / "c.mp4")
    assert sample_to_json(Sample("t", (Message("user", (TextPart("a"),)),)))["media"] == {}

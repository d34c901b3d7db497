"""Published datasets in our own schema: whole or not at all, and nothing left out without a word."""

import csv
import json
import pickle

import pytest

from videollm.data.convert import convert
from videollm.data.datasets import Dataset, open_dataset
from videollm.data.sample import JsonlSamples
from videollm.errors import DataError


def webvid(folder):
    (folder / "videos" / "p").mkdir(parents=True)
    (folder / "videos" / "p" / "1.mp4").touch()
    with (folder / "a.csv").open("w", newline="") as file:
        rows = [("videoid", "name", "page_dir"), ("1", "A kettle.", "p"), ("2", "Gone", "p"), ("1", "", "p")]
        csv.writer(file).writerows(rows)
    return Dataset("webvid", str(folder / "a.csv"), str(folder / "videos"))


def test_a_converted_dataset_is_the_dataset(tmp_path):
    dataset = webvid(tmp_path)
    report = convert(dataset, tmp_path / "own.jsonl", progress=False)
    assert report.samples == 1 and report.reasons() == "1 missing media, 1 empty caption"
    assert all("a.csv line" in line for _, line in report.left_out)
    assert JsonlSamples(tmp_path / "own.jsonl")[0] == open_dataset(dataset)[0]
    assert json.loads((tmp_path / "own.jsonl").read_text())["media"]["clip"]["path"] == "videos/p/1.mp4"


def test_narrations_become_samples(tmp_path):
    (tmp_path / "v1.mp4").touch()
    (tmp_path / "a.pkl").write_bytes(pickle.dumps([("v1", 1.5, 3, ["#C C opens a door", "A door is opened"])]))
    report = convert(Dataset("lavila_narrations", str(tmp_path / "a.pkl"), str(tmp_path)), tmp_path / "own.jsonl")
    samples = JsonlSamples(tmp_path / "own.jsonl")
    assert report.samples == 2 and [samples[k].messages[1].text for k in (0, 1)][1] == "A door is opened"
    assert samples[0].media["clip"].start_seconds == 1.5


def test_nothing_is_left_of_what_cannot_be_done(tmp_path):
    dataset = webvid(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    (tmp_path / "videos" / "p" / "1.mp4").unlink()
    for out, told in (
        (tmp_path / "own.jsonl", r"none of 3 annotations can be used; the first: .*line 2"),
        (tmp_path / "videos" / "p" / "own.jsonl", "cannot lead out of its own folder"),
        (tmp_path / "none" / "own.jsonl", "cannot lead out of its own folder"),
        (tmp_path / "a.csv", "exists; delete it"),
    ):
        with pytest.raises(DataError, match=told) as error:
            convert(dataset, out, progress=False)
        assert "\n" not in str(error.value)
    with pytest.raises(DataError, match="no such folder of media"):
        convert(Dataset("webvid", dataset.path, str(tmp_path / "none")), tmp_path / "own.jsonl")
    assert [path for path in before if path.name != "1.mp4"] == sorted(tmp_path.rglob("*"))

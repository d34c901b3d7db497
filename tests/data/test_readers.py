"""Published layouts, made small: what each reader makes of them, and what it says of what it cannot use."""

import json
import pickle

import numpy as np
import pytest

from videollm.data.captions import ALIGNMENT_REQUESTS
from videollm.data.llava_cc3m import LlavaCC3M
from videollm.data.llava_instruct import LlavaInstruct
from videollm.data.minigpt4 import MiniGPT4
from videollm.data.sample import JsonlSamples, write_samples
from videollm.data.videochat import VideoChat
from videollm.data.webvid import WebVid
from videollm.errors import DataError, UnusableSampleError
from videollm.media.read import read_clip
from videollm.media.sampling import FrameSampling
from videollm.media.write import write_video
from videollm.messages import MediaPart, TextPart


def film(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    write_video(path, np.zeros((4, 32, 32, 3), np.uint8), fps=4)


def reason(source, index):
    with pytest.raises(UnusableSampleError) as error:
        source[index]
    assert "\n" not in str(error.value)
    return error.value.reason


@pytest.mark.parametrize(("ending", "sign"), [("csv", ","), ("tsv", "\t")])
def test_webvid(tmp_path, ending, sign):
    film(tmp_path / "videos" / "000_050" / "12.mp4")
    rows = [
        ["videoid", "duration", "page_dir", "name"],
        ["12", "PT5S", "000_050", '"A Red kettle: 3.5 litres!"'],
        ["12", "PT5S", "000_050", ""],
        ["13", "PT5S", "000_050", "Gone"],
        ["12", "PT5S", "../000_050", "Out"],
    ]
    (tmp_path / "tables").mkdir()
    (tmp_path / "tables" / f"a.{ending}").write_text("\n".join(sign.join(row) for row in rows))
    source = pickle.loads(pickle.dumps(WebVid(tmp_path / "tables", tmp_path / "videos")))
    sample = source[0]
    assert len(source) == 4 and sample.id == "12" and sample.source == "webvid"
    assert sample.messages[0].parts == (MediaPart("clip"),)
    assert sample.messages[1].text == "a red kettle 3.5 litres"
    assert (
        WebVid(tmp_path / "tables", tmp_path / "videos", as_published=True)[0].messages[1].text.endswith("3 5 litres")
    )
    assert [reason(source, k) for k in (1, 2, 3)] == ["empty caption", "missing media", "bad annotation"]
    clip = read_clip(sample.media["clip"].path, frames=FrameSampling())
    assert clip.frames is not None and len(clip.frames) == 4
    write_samples(tmp_path / "own.jsonl", [sample])
    assert JsonlSamples(tmp_path / "own.jsonl")[0] == sample


def test_webvid_refuses_what_is_no_table(tmp_path):
    with pytest.raises(DataError, match="holds no csv or tsv table"):
        WebVid(tmp_path, tmp_path)
    (tmp_path / "a.csv").write_text("videoid,name\n1,a\n")
    with pytest.raises(DataError, match=r"a\.csv line 1: there is no column 'page_dir'"):
        WebVid(tmp_path, tmp_path)


@pytest.mark.parametrize("kind", [MiniGPT4, LlavaCC3M])
def test_captioned_pictures(tmp_path, kind):
    (tmp_path / "image").mkdir()
    (tmp_path / "image" / "2.jpg").touch()
    annotations = [
        {"image_id": "2", "caption": "A Kettle, as it is."}, {"image_id": 2, "caption": " "},
        {"image_id": "3", "caption": "a"}, {"image": "2"}, {"image_id": "../../a", "caption": "a"},
    ]  # fmt: skip
    (tmp_path / "filter_cap.json").write_text(json.dumps({"annotations": annotations}))
    source = kind(tmp_path)
    assert source[0].messages[0].parts == (MediaPart("clip", "image"),)
    assert source[0].messages[1].text == "A Kettle, as it is." and source[0].source == kind.name
    found = [reason(source, k) for k in (1, 2, 3, 4)]
    assert found == ["empty caption", "missing media", "bad annotation", "bad annotation"]
    assert kind(tmp_path, ALIGNMENT_REQUESTS)[0].messages[0].text == ALIGNMENT_REQUESTS[0]


def test_llava_instruct(tmp_path):
    (tmp_path / "COCO_train2014_7.jpg").touch()
    turns = [{"from": "human", "value": "<image>\nWhat?"}, {"from": "gpt", "value": "A cat."}]
    told = [
        {"id": "x", "image": "7.jpg", "conversations": turns}, {"image": "8.jpg", "conversations": turns},
        {"image": "7.jpg", "conversations": turns[1:]}, {"image": "7.jpg", "conversations": [{"from": "me"}]}, 7,
    ]  # fmt: skip
    (tmp_path / "a.json").write_text(json.dumps(told))
    source = LlavaInstruct(tmp_path / "a.json", tmp_path)
    assert source[0].messages[0].parts == (MediaPart("clip", "image"), TextPart("\nWhat?"))
    assert [message.role for message in source[0].messages] == ["user", "assistant"]
    assert [reason(source, k) for k in (1, 2, 3, 4)] == ["missing media", *["bad annotation"] * 3]


def test_videochat(tmp_path):
    (tmp_path / "v").mkdir()
    (tmp_path / "v" / "1.mp4").touch()
    pairs = [{"q": "Who?", "a": "A man."}, {"q": "Where?", "a": "At home."}]
    told = [
        {"video": "v/1.mp4", "QA": pairs},
        {"video": "v/2.mp4", "QA": pairs},
        {"video": "v/1.mp4", "QA": [{"q": ""}]},
    ]
    (tmp_path / "a.json").write_text(json.dumps(told))
    source = VideoChat(tmp_path / "a.json", tmp_path)
    assert [len(message.media) for message in source[0].messages] == [1, 0, 0, 0]
    assert [message.text for message in source[0].messages] == ["Who?", "A man.", "Where?", "At home."]
    assert [reason(source, k) for k in (1, 2)] == ["missing media", "bad annotation"]


@pytest.mark.parametrize("content", ["{", "{}", "[]", "7"])
def test_files_that_hold_no_list(tmp_path, content):
    (tmp_path / "a.json").write_text(content)
    with pytest.raises(DataError, match=r"a\.json: "):
        VideoChat(tmp_path / "a.json", tmp_path)

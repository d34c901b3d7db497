"""Annotations of long videos: each published format, and what is wrong in a row."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random
from typing import Any, get_args

import pytest

from videollm.data.long_form import (
    SUBTITLES,
    Format,
    LongForm,
    LongFormAnnotations,
    Subtitle,
    consecutive,
    question_sentences,
)
from videollm.data.sample import Media, UnusableSampleError
from videollm.errors import DataError

SAID = [{"start": 0, "end": 1.5, "text": "hello"}]
ROWS: dict[str, Any] = {
    "clips": [{"clip_id": "a.0.mp4", "text": "One."}, {"clip_id": "a.1.mp4", "text": "Two."}],
    "activitynet_captions": {"clip_id": "v", "text": ["One.", " ", "Two."]},
    "queryd": {"clip_id": "v", "text": ["One."]},
    "condensed_movies": {"clip_id": "v", "text": "One. Two."},
    "didemo": {"clip_id": "v", "text": ["One.", "Two."]},
    "activitynet_qa": {"video_name": "v", "question": "Who?", "answer": 1653},
    "how2qa": {
        "clip_id": "v", "span": [1, 2.5], "text_q": "Why?", "text_a": ["a", "b", "c", "d"], "text_s": SAID,
        "answer_idx": 3,
    },
    "violin": {"clip_id": "v", "text_q": "He lies.", "text_s": SAID, "answer": True},
    "coin": {"video_id": "v", "recipe_type": 179},
    "lvu": {"video_id": "v", "recipe_type": 0},
}  # fmt: skip
SAMPLES = {
    "activitynet_captions": {"sentences": ("One.", "Two.")},
    "queryd": {"sentences": ("One.",)},
    "condensed_movies": {"sentences": ("One. Two.",)},
    "didemo": {"sentences": ("One.", "Two.")},
    "activitynet_qa": {"question": "Who?", "answer": 1653},
    "how2qa": {
        "question": "Why?", "choices": ("a", "b", "c", "d"), "answer": 3, "span_seconds": (1.0, 2.5),
        "subtitles": (Subtitle(0.0, 1.5, "hello"),),
    },
    "violin": {"question": "He lies.", "answer": 1, "subtitles": (Subtitle(0.0, 1.5, "hello"),)},
    "coin": {"answer": 179},
    "lvu": {"answer": 0},
}  # fmt: skip


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    folder = tmp_path / "videos"
    (folder / "a").mkdir(parents=True)
    for name in ("v.mkv", "a/a.0.mp4", "a/a.1.mp4"):
        (folder / name).touch()
    return folder


def read(format: Any, rows: list[Any], videos: Path, lines: bool = True) -> LongFormAnnotations:
    path = videos.parent / "annotations.json"
    path.write_text("\n".join(map(json.dumps, rows)) if lines else json.dumps(rows, indent=1))
    return LongFormAnnotations(format, path, videos)


@pytest.mark.parametrize("lines", [True, False])
@pytest.mark.parametrize("format", get_args(Format))
def test_every_format(format: Any, lines: bool, videos: Path) -> None:
    source = read(format, [ROWS[format]] * 2, videos, lines)
    assert len(source) == 2 and source.name == format
    if format == "clips":
        files = tuple(Media(str(videos / "a" / f"a.{n}.mp4")) for n in range(2))
        assert source[1] == LongForm("1-a.0.mp4", files, ("One.", "Two."))
    else:
        assert source[1] == LongForm("1-v", (Media(str(videos / "v.mkv")),), **SAMPLES[format])


def test_a_list_on_one_line(videos: Path) -> None:
    path = videos.parent / "one.json"
    path.write_text(json.dumps([ROWS["clips"]]))
    assert len(LongFormAnnotations("clips", path, videos)) == 1
    path.write_text(json.dumps([ROWS["coin"]] * 3))
    assert len(LongFormAnnotations("coin", path, videos)) == 3


@pytest.mark.parametrize(
    ("format", "change", "message"),
    [
        ("activitynet_qa", {"answer": "red"}, "answer must be a whole number from 0"),
        ("activitynet_qa", {"answer": True}, "answer must be a whole number from 0"),
        ("activitynet_qa", {"question": " "}, "there is no question"),
        ("how2qa", {"answer_idx": 4}, "answer_idx is 4, but there are 4 choices"),
        ("how2qa", {"text_a": "a"}, "text_a must be a list of at least two texts"),
        ("how2qa", {"span": [3, 1]}, "span ends before it starts"),
        ("how2qa", {"span": [1]}, "span must be two numbers of seconds"),
        ("how2qa", {"text_s": [{"start": 0}]}, "a subtitle needs start, end and text"),
        ("violin", {"text_s": "hello"}, "text_s must be a list"),
        ("didemo", {"text": 3}, "text must be a text or a list of texts"),
        ("didemo", {"text": [""]}, "the paragraph has no words"),
        ("coin", {"video_id": "../annotations"}, "leads out of"),
        ("lvu", {"video_id": "x"}, "there is no x.mp4 in"),
    ],
)
def test_a_wrong_row_is_named(format: Any, change: dict[str, Any], message: str, videos: Path) -> None:
    source = read(format, [ROWS[format], ROWS[format] | change], videos)
    assert source[0]
    with pytest.raises(UnusableSampleError, match=message) as caught:
        source[1]
    assert "annotations.json line 2: " in str(caught.value) and "\n" not in str(caught.value)


def test_unknown_spans_are_none(videos: Path) -> None:
    rows = [ROWS["how2qa"] | {"span": [float("nan")] * 2}, {k: v for k, v in ROWS["how2qa"].items() if k != "span"}]
    source = read("how2qa", rows, videos)
    assert source[0].span_seconds is None and source[1].span_seconds is None


def test_what_is_read_of_a_question(videos: Path) -> None:
    said = [{"start": n, "end": n + 1, "text": text} for n, text in enumerate(("a b c d", "e", " ", "f", "g h"))]
    sample = read("how2qa", [ROWS["how2qa"] | {"text_s": said}], videos)[0]
    assert question_sentences(sample) == ("Why?",)
    assert question_sentences(sample, choice=1, subtitles=2) == ("Why?", "b", "a b c d", "e f g h")
    assert question_sentences(sample, subtitles=9) == ("Why?", "a b c d", "e", "f", "g h")
    silent = read("violin", [ROWS["violin"] | {"text_s": []}], videos)[0]
    assert question_sentences(silent, subtitles=SUBTITLES["violin"]) == ("He lies.",)


def test_no_annotations(videos: Path) -> None:
    with pytest.raises(DataError, match="no format 'msrvtt' of long videos; choose one of clips, "):
        LongFormAnnotations("msrvtt", videos, videos)  # type: ignore[arg-type]
    with pytest.raises(DataError, match="cannot read"):
        LongFormAnnotations("coin", videos / "none.json", videos)
    with pytest.raises(UnusableSampleError, match="must be a list of clips that is not empty"):
        read("clips", [ROWS["coin"]], videos)[0]


def test_consecutive_clips_may_be_the_last() -> None:
    sample = LongForm("x", tuple(Media(str(n)) for n in range(6)), tuple("abcdef"))
    rng, starts = Random(0), set()
    for _ in range(60):
        part = consecutive(sample, 4, rng)
        first = int(part.clips[0].path)
        starts.add(first)
        assert part.sentences == tuple("abcdef"[first : first + 4]) and part.id == f"x:{first}"
    assert starts == {0, 1, 2}  # D14: 2 was never drawn
    with pytest.raises(UnusableSampleError, match="has 6 clips, not 7"):
        consecutive(sample, 7, rng)

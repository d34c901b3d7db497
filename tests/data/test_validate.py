"""A dataset looked over: every fault is named by its line, and the numbers are those of what is there."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.data.dataset import sample, write_samples
from tests.media.numbered import numbered_frames, tones
from videollm.data.histograms import bins
from videollm.data.sample import Media
from videollm.data.validate import Report, draw, spread, validate
from videollm.errors import DataError, ModelNotFoundError
from videollm.media.write import write_sound, write_video
from videollm.models import hub


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("media")
    write_video(folder / "film.mp4", numbered_frames(40), fps=10, waveform=tones(4.0, 16000, 1))
    write_video(folder / "silent.webm", numbered_frames(8, first=100), fps=8)
    write_sound(folder / "sound.wav", tones(3.0, 16000, 1))
    Image.fromarray(numbered_frames(1)[0]).save(folder / "picture.png")
    whole = (folder / "film.mp4").read_bytes()
    (folder / "cut off.mp4").write_bytes(whole[: len(whole) * 2 // 3])
    (folder / "noise.mp4").write_bytes(b"no clip at all" * 99)
    (folder / "empty.mp4").write_bytes(b"")
    shutil.copy(folder / "film.mp4", folder / "another name.mp4")
    return folder


GOOD = [
    sample(0, film=Media("film.mp4")),
    sample(1, film=Media("film.mp4", 1.0, 2.5)),
    sample(2, short=Media("silent.webm")),
    sample(3, sound=Media("sound.wav", 2.0)),
    sample(4, picture=Media("picture.png")),
    sample(5),
]


def test_good_samples(media: Path) -> None:
    write_samples(media / "good.jsonl", GOOD)
    report = validate(media / "good.jsonl", workers=2, progress=False)
    assert report.problems == [] and report.notes == [] and report.bad_samples == 0
    assert (report.samples, report.messages, report.files) == (6, 12, 4)
    assert dict(report.media) == {"video": 3, "audio": 1, "image": 1} and report.with_sound == 3
    assert sorted(report.seconds) == pytest.approx([1.0, 1.0, 1.5, 4.0], abs=0.05)
    assert len(report.tokens) == 6
    # Words alone: what the tokenizer says of them, to the token.
    processor = hub.read_processor(hub.find("tiny"))
    words = processor.render(GOOD[5].messages, {}, add_generation_prompt=False)
    assert report.tokens[5] == len(words.input_ids)
    assert report.tokens[0] >= report.tokens[2] > report.tokens[5]
    assert json.loads(json.dumps(report.to_dict()))["tokens"]["count"] == 6


def test_every_fault_is_named_by_its_line(media: Path) -> None:
    samples = [
        *GOOD[:2],
        sample(10, film=Media("none.mp4")),
        sample(11, film=Media("noise.mp4")),
        sample(12, film=Media("empty.mp4")),
        sample(13, film=Media("film.mp4", 5.0, 6.0)),
        sample(14, film=Media("film.mp4", 1.0, 9.0)),
        sample(0, film=Media("silent.webm")),
        sample(16, about=1, film=Media("another name.mp4", 1.0, 2.5)),
        sample(17, words=" why " * 5000),
    ]
    write_samples(media / "bad.jsonl", samples)
    with (media / "bad.jsonl").open("ab") as file:
        file.write(b"{no json\n[]\n\xff\xfe\n")
    report = validate(media / "bad.jsonl", workers=2, progress=False)
    found = [(problem.line, problem.kind) for problem in report.problems]
    assert found == [
        (5, "missing media"),
        (7, "broken media"),
        (9, "broken media"),
        (11, "wrong stretch"),
        (13, "wrong stretch"),
        (15, "repeated id"),
        (17, "repeated sample"),
        (19, "too long"),
        (20, "unusable line"),
        (21, "unusable line"),
        (22, "unusable line"),
    ]
    assert (report.samples, report.bad_samples) == (13, 11)
    assert all("\n" not in problem.reason and len(problem.reason) < 400 for problem in report.problems)
    assert "as in line 3" in report.problems[6].reason and "tokens" in report.problems[7].reason
    assert report.lines()[-1].startswith("bad: 11 of 13 (2 broken media, 1 missing media,")
    # Any number of workers says the same.
    assert validate(media / "bad.jsonl", workers=1, progress=False) == report


def test_media_that_are_partly_there_are_a_note_and_no_fault(media: Path) -> None:
    write_video(media / "whole.mkv", numbered_frames(60), fps=10, key_every=5)
    content = (media / "whole.mkv").read_bytes()
    (media / "half.mkv").write_bytes(content[: len(content) // 2])
    write_samples(media / "half.jsonl", [sample(0, film=Media("half.mkv"))])
    report = validate(media / "half.jsonl", progress=False)
    assert report.problems == []
    assert [line for line, _ in report.notes] == [1] and "cut off" in report.notes[0][1]
    assert 0 < report.seconds[0] < 5.9


def test_what_cannot_be_read_at_all(tmp_path: Path, media: Path) -> None:
    (tmp_path / "empty.jsonl").write_text("\n")
    for path, says in (
        (tmp_path / "none.jsonl", "No such file"),
        (tmp_path, "Is a directory"),
        (tmp_path / "empty.jsonl", "holds no line"),
    ):
        with pytest.raises(DataError, match=says):
            validate(path, progress=False)
    with pytest.raises(ModelNotFoundError):
        validate(media / "good.jsonl", model="none", progress=False)
    with pytest.raises(DataError, match="at least 1 worker"):
        validate(media / "good.jsonl", workers=0, progress=False)


def test_the_picture(tmp_path: Path) -> None:
    report = Report("x", seconds=[1.0, 2.5, 2.6, 9.0], tokens=[40, 41, 41, 90])
    with Image.open(draw(report, tmp_path / "a.png")) as picture:
        pixels = np.asarray(picture.convert("RGB")).astype(int)
    assert (np.abs(pixels - (58, 110, 165)).sum(-1) == 0).mean() > 0.02
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]
    draw(Report("x"), tmp_path / "none.png")
    with pytest.raises(DataError, match="cannot write the picture"):
        draw(report, tmp_path / "no folder" / "a.png")


def test_bins_hold_every_value_once() -> None:
    random = np.random.default_rng(0)
    for values in ([3.0], [1, 2], random.gamma(2, 5, 300), random.integers(0, 999, 300), [0.5, 0.5]):
        counts, edges = bins(values)
        assert counts.sum() == len(values) and len(edges) == len(counts) + 1
    assert spread([]) == {} and spread([1, 2, 3])["median"] == 2

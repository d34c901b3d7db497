"""`videollm search`: one line a moment, and one line for what cannot be searched."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("lancedb", reason="lancedb (the index extra) is not installed")

from videollm.cli.main import main
from videollm.moments.moment import Moment, Video
from videollm.moments.store import MomentStore


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("search") / "index"
    store = MomentStore.create(folder, {}, {})
    moments = [
        Moment(12, 16, "A red circle moves up.", "I hear a dog."),
        Moment(60, 64.5, "A blue\nsquare is still.\x1b[31m"),
    ]
    store.put(Video("/films/a.mp4", "bytes", 70.0, 2, "v1"), moments)
    return folder


def test_a_line_a_moment(index: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["search", "red", "circle", "--index", str(index)]) == 0
    out, err = capsys.readouterr()
    assert out == "/films/a.mp4 [0:12-0:16] 1.00 narrated #1: A red circle moves up. (I hear a dog.)\n" and err == ""


def test_what_a_narration_holds_cannot_play_with_the_terminal(index: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["search", "square", "--index", str(index)]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert "\x1b" not in line and "[1:00-1:04.5]" in line


def test_json(index: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["search", "dog", "--index", str(index), "--json", "--start", "10", "--end", "20"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["path"], found["start_seconds"], found["why"]) == ("/films/a.mp4", 12.0, {"heard in words": 1})


def test_nothing_fits(index: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["search", "elephant", "--index", str(index)]) == 0
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and "nothing in" in err


@pytest.mark.parametrize(
    "words, told",
    [
        (["  "], "nothing to search for"),
        (["red", "--limit", "0"], "--limit must be at least 1"),
        (["red", "--start", "5", "--end", "4"], "--start must be from 0 and before --end"),
        (["red", "--start", "-1"], "--start must be from 0"),
        (["red", "--video", "b.mp4"], "is not in"),
        (["red", "--encoder", "nowhere"], "no dual encoder in nowhere"),
    ],
)
def test_bad_flags_are_one_line(index: Path, words: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["search", *words, "--index", str(index)]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and told in err


def test_no_index(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["search", "red", "--index", str(tmp_path / "none")]) == 2
    assert "make one with: videollm index FOLDER --into" in capsys.readouterr().err
    assert main(["index", str(tmp_path), "--into", str(tmp_path / "x"), "--stride", "9"]) == 2
    assert "leave gaps" in capsys.readouterr().err
    assert main(["index", str(tmp_path), "--into", str(tmp_path / "x")]) == 2
    assert "no video in the folder" in capsys.readouterr().err

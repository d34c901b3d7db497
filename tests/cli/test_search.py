"""`videollm search`: one line a moment, and one line for what cannot be searched."""

from __future__ import annotations

import io
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
        (["red", "--ear", "nowhere"], "no model of LaViLa, LF-VILA or ImageBind in nowhere"),
        (["--like", "a.mp4"], "give --encoder, --ear or both"),
        (["red", "--no-text"], "--no-text leaves only vectors"),
        (["--paragraph", "red", "--like", "a.mp4"], "--paragraph goes with sentences alone"),
        (["red", "--export", "moments.txt"], "--export writes .json or .csv, found moments.txt"),
        (["red", "--export", "none/moments.csv"], "cannot be written"),
        (["red", "--clips", "clips"], "a.mp4"),
    ],
)
def test_bad_flags_are_one_line(
    index: Path,
    words: list[str],
    told: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
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


def test_sentences_in_order(index: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    words = "First a red circle. Then a blue square. A zebra at last."
    assert main(["search", "--paragraph", words, "--index", str(index)]) == 0
    video, *sentences = capsys.readouterr().out.splitlines()
    assert video.startswith("/films/a.mp4 [0:12-1:04.5] ")
    assert [line.split()[0] for line in sentences] == ["[0:12-0:16]", "[1:00-1:04.5]", "not"]
    monkeypatch.setattr("sys.stdin", io.StringIO(words))
    assert main(["search", "--paragraph", "-", "--index", str(index), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["parts"][2] is None and len(found["sentences"]) == 3


def test_moments_are_exported(index: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "moments.json"
    assert main(["search", "circle", "--index", str(index), "--export", str(file)]) == 0
    (moment,) = json.loads(file.read_text())
    assert moment["start_seconds"] == 12.0 and capsys.readouterr().out.startswith("/films/a.mp4 [0:12-0:16]")

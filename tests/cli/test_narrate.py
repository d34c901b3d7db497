"""`videollm narrate`: what is printed where, bad input, Ctrl-C, and a kill from which the same command goes on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.cli.bad_files import good
from tests.small_model import small_model
from videollm.cli.main import main
from videollm.cli.narrate import Bar
from videollm.media.decode_worker import close_server
from videollm.media.write import write_video
from videollm.tools import narrate
from videollm.tools.narrate import clock


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("model")
    for part in small_model():
        part.save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    yield good(tmp_path_factory.mktemp("clip"))
    close_server()


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    code = main(["narrate", *map(str, words)])
    out, err = capsys.readouterr()
    return code, out, err


def test_lines_on_the_terminal(capsys, model, clip, tmp_path) -> None:
    code, out, err = run(capsys, clip, "--model", model, "--window", "1")
    assert code == 0 and "narrat" not in err and "Error" not in err
    lines = out.splitlines()
    assert lines[0].startswith("[0:00-0:01] ") and "\x1b" not in out
    target = tmp_path / "n.jsonl"
    assert run(capsys, clip, "--model", model, "--window", "1", "--out", target)[0] == 0
    rows = [json.loads(line) for line in target.read_text().splitlines()]
    times = [f"[{clock(row['start_seconds'])}-{clock(row['end_seconds'])}]" for row in rows]
    assert [line.split(" ")[0] for line in lines] == times
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize(
    ("flags", "match"),
    [
        (["--stride", "0"], "the stride must be at least 0.05 seconds, found 0"),
        (["--window", "-3"], "the window must be at least 0.05 seconds, found -3"),
        (["--window", "four"], "argument --window: invalid float value: 'four'"),
        (["--start", "5", "--end", "2"], "starts at 0 or later and ends after that, found 5 to 2"),
        (["--start", "99"], "the file lasts 2.0 s, but what is asked of it starts at 99.0 s"),
        (["--candidates", "4"], "4 candidates need something that chooses among them; give a scorer"),
        (["--threshold", "0.4"], "a threshold needs a scorer"),
        (["--out", "clip.txt"], "cannot be written as 'clip.txt'; name a .jsonl, .srt or .vtt file"),
        (["--out", "no/where.srt"], "there is no folder no; make it first"),
        (["--out", "/proc/n.srt"], "cannot write into /proc"),
        (["--question", " "], "the question is empty"),
        (["--scorer", "nowhere"], "no scorer in nowhere: it holds no config.json"),
        (["--rephraser", "nowhere"], "no rephraser in nowhere: it holds no config.json"),
        (["--model", "nobody"], "no model 'nobody'"),
        (["--bits", "5"], "argument --bits: invalid choice"),
        (["--device", "abacus"], "device 'abacus' cannot be used here"),
    ],
)
def test_wrong_flags_are_one_line(capsys, model, clip, tmp_path, monkeypatch, flags, match) -> None:
    monkeypatch.chdir(tmp_path)
    given = [] if "--model" in flags else ["--model", model]
    code, out, err = run(capsys, clip, *given, *flags)
    assert (code, out) == (2, "") and match in err
    assert len([line for line in err.splitlines() if line.startswith("videollm")]) == 1 and "Traceback" not in err
    assert list(tmp_path.iterdir()) == []


def test_bad_files_are_one_line(capsys, model, tmp_path) -> None:
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "text.mp4").write_text("no film")
    (tmp_path / "folder").mkdir()
    for name, match in (
        ("empty.mp4", "the file is empty"), ("text.mp4", "this is text"), ("gone.mp4", "there is no such file"),
        ("folder", "no video in the folder"),
    ):  # fmt: skip
        before = sorted(tmp_path.iterdir())
        code, out, err = run(capsys, tmp_path / name, "--model", model, "--out", tmp_path / "out.srt")
        assert (code, out) == (2, "") and match in err.splitlines()[-1]
        assert sorted(tmp_path.iterdir()) == before


def test_one_bad_file_of_several(capsys, model, clip, tmp_path) -> None:
    (tmp_path / "text.mp4").write_text("no film")
    code, _, err = run(capsys, tmp_path / "text.mp4", clip, "--model", model, "--out", tmp_path / "out")
    assert code == 2 and "this is text" in err
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["good.jsonl", "good.srt", "good.vtt"]
    code, out, err = run(capsys, tmp_path / "text.mp4", clip, "--model", model)
    assert code == 2 and "this is text" in err and "good.mp4:\n[0:00-" in out


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty seconds of noise."""
    coarse = (
        np.random.default_rng(0).integers(0, 256, (20, 3, 4, 3), dtype=np.uint8).repeat(16, axis=1).repeat(16, axis=2)
    )
    return write_video(tmp_path_factory.mktemp("film") / "film.mp4", coarse, fps=1)


WINDOWS = ["--window", "1", "--batch", "1", "--out"]


@pytest.fixture(scope="module")
def whole(model: str, film: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """What an uninterrupted run writes."""
    out = tmp_path_factory.mktemp("whole") / "whole.vtt"
    assert main(["narrate", str(film), "--model", model, *WINDOWS, str(out)]) == 0
    return out.read_bytes()


KILLED = """
import os, signal, sys
from videollm.cli import main, narrate
narrate.Bar.__call__ = lambda self, done, total: done == 5 and os.kill(os.getpid(), signal.SIGKILL)
main.main(sys.argv[1:])
"""
"""`videollm`, killed when five windows are narrated."""


@pytest.mark.timeout(600)
def test_killed_it_goes_on(capsys, model, film, whole, tmp_path) -> None:
    out, journal = tmp_path / "killed.vtt", tmp_path / ".killed.vtt.unfinished"
    words = [sys.executable, "-c", KILLED, "narrate", str(film), "--model", model, *WINDOWS, str(out)]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    killed = subprocess.run(words, env=environment, stdout=subprocess.DEVNULL, check=False)
    assert killed.returncode == -signal.SIGKILL and not out.exists()
    # Lines that it had written are not computed again.
    kept = journal.read_bytes()
    kept = kept[: kept.rindex(b"\n") + 1]
    reached: list[bytes] = []
    described = narrate._describe
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(narrate, "_describe", lambda *a: (reached.append(journal.read_bytes()), described(*a))[1])
        assert run(capsys, film, "--model", model, *WINDOWS, out)[0] == 0
    assert reached == [kept] and out.read_bytes() == whole
    assert list(tmp_path.iterdir()) == [out]


def test_ctrl_c_says_how_to_go_on(capsys, model, film, whole, tmp_path, monkeypatch) -> None:
    out = tmp_path / "stopped.vtt"
    words = [film, "--model", model, *WINDOWS, out]
    with monkeypatch.context() as patch:
        patch.setattr(Bar, "__call__", lambda self, done, total: done == 5 and signal.raise_signal(signal.SIGINT))
        code, printed, err = run(capsys, *words)
    assert (code, printed) == (130, "") and err.endswith("videollm: interrupted; the same command goes on from here\n")
    assert [path.name for path in tmp_path.iterdir()] == [".stopped.vtt.unfinished"]
    assert run(capsys, *words)[0] == 0 and out.read_bytes() == whole

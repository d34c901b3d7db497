"""The verb, from published files to an answer."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.convert.miniature import make_miniature
from videollm.cli.main import main

CLIP = Path(__file__).parents[2] / "videollm" / "assets" / "clips" / "two_things.mp4"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VIDEOLLM_CACHE", str(tmp_path / "cache"))


def test_convert_and_chat(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("sentencepiece")
    bundle, model = tmp_path / "published", tmp_path / "model"
    make_miniature(bundle)
    words = ["convert", "video-llama", str(bundle), "--config", str(bundle / "shape.json"), "--out", str(model)]
    assert main(words) == 0
    printed = capsys.readouterr().out
    assert "prompts: llama_2_chat" in printed and f"videollm chat CLIP --model {model}" in printed
    chat = ["chat", str(CLIP), "what is to be seen?", "--model", str(model), "--device", "cpu", "--max-new-tokens", "8"]
    assert main([*chat, "--json"]) == 0
    first = capsys.readouterr().out
    assert '"answer"' in first or '"text"' in first
    assert main(words) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "is there already" in error


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["video-llama", "x.pth"], "needs --out DIR"),
        (["video-llama", "--out", "new"], "needs files, or --download NAME"),
        (["video-llama", "no/such.pth", "--out", "new"], "there is no file no/such.pth"),
        (["video-llama", "no/such.pth", "--out", "new", "--prompt", "mine"], "no prompt format 'mine'"),
        (["imagebind", "x.pth", "--no-audio", "--out", "new"], "belong to video-llama"),
        (["llama", "x.pth", "--out", "new"], "invalid choice: 'llama'"),
    ],
)
def test_one_line_and_exit_code_2(
    words: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["convert", *words]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and message in error
    assert not list(tmp_path.iterdir())


def test_the_list(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["convert", "video-llama", "--list"]) == 0
    printed = capsys.readouterr().out
    assert "imagebind_huge.pth" in printed and "not commercial" in printed and "--download takes" in printed

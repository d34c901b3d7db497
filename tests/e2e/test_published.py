"""From published files to answers: a miniature of the published bundle, by the commands that a person would type."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.convert.miniature import make_miniature
from videollm.cli.main import main
from videollm.models import hub

CLIP = Path(__file__).resolve().parents[2] / "videollm" / "assets" / "clips" / "two_things.mp4"

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def videollm(capsys: pytest.CaptureFixture[str]) -> Run:
    """The command line: its exit code, and what it wrote to stdout and stderr."""

    def run(*words: object) -> tuple[int, str, str]:
        capsys.readouterr()
        code = main([str(word) for word in words])
        return code, *capsys.readouterr()

    return run


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("sentencepiece")
    return tmp_path_factory.mktemp("published")


@pytest.fixture(scope="module")
def model(place: Path) -> Path:
    """The converted folder."""
    files = make_miniature(place / "bundle")
    words = ["convert", "video-llama", *files, "--config", place / "bundle" / "shape.json", "--out", place / "model"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VIDEOLLM_CACHE", str(place / "cache"))
        assert main([str(word) for word in words]) == 0
    return place / "model"


def ask(videollm: Run, *flags: object) -> dict:
    code, out, err = videollm("chat", CLIP, "What do you see?", "--max-new-tokens", 8, "--json", *flags)
    assert code == 0, err
    return json.loads(out)


def test_the_doctor_finds_it_whole(videollm: Run, model: Path) -> None:
    code, out, err = videollm("doctor", model, "--device", "cpu")
    assert "every key and every shape is that of the config" in out, out + err
    faults = [line for line in out.splitlines() if line.startswith("FAULT")]
    # Random numbers may end an answer before its first word; nothing else may be wrong.
    assert faults in ([], ["FAULT: no answer: the model said nothing"])
    assert code == len(faults)


@pytest.mark.parametrize("bits", [None, 8, 4])
def test_it_answers(videollm: Run, model: Path, bits: int | None) -> None:
    if bits is not None:
        pytest.importorskip("bitsandbytes")
    answer = ask(videollm, "--model", model, *([] if bits is None else ["--bits", bits]))
    assert answer["coverage"][0]["frames"] == 8 and answer["timings"]["encoded_clips"] == 1
    assert answer["finish"] in ("end", "length")


def test_saved_quantised_it_is_found_whole_and_answers_the_same(videollm: Run, model: Path, place: Path) -> None:
    pytest.importorskip("bitsandbytes")
    quantised, processor = hub.load(model, device="cpu", bits=4)
    quantised.save_pretrained(place / "four")
    processor.save_pretrained(place / "four")
    code, out, err = videollm("doctor", place / "four", "--quick")
    assert code == 0 and "tensors of 4 bits" in out, out + err
    whole, four = ask(videollm, "--model", model, "--bits", 4), ask(videollm, "--model", place / "four")
    assert whole["answer"] == four["answer"]

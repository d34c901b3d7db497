"""``videollm doctor`` as a person runs it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.models.lf_vila import small_lf_vila
from tests.tools import small_lavila
from videollm.cli.main import main
from videollm.models import hub
from videollm.models.lf_vila import LfVilaForRetrieval

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def doctor(capsys: pytest.CaptureFixture[str]) -> Run:
    """``videollm doctor``: its exit code, and what it wrote to stdout and stderr."""

    def run(*words: object) -> tuple[int, str, str]:
        capsys.readouterr()
        code = main(["doctor", *map(str, words)])
        return code, *capsys.readouterr()

    return run


def test_this_machine(doctor: Run) -> None:
    code, out, err = doctor("--device", "cpu")
    assert code == 0 and err == "", err
    for expected in (
        "videollm ",
        "torch ",
        "accelerator: ",
        "decoder pyav: reads two_things.mp4",
        "free memory, cpu: ",
    ):
        assert expected in out
    rows = {line.split()[0]: line for line in out.splitlines() if " on cpu" in line}
    assert set(rows) == {"tiny", "7b", "13b"}
    assert rows["tiny"].count("fits") == 4


def test_a_whole_folder_answers(doctor: Run) -> None:
    code, out, err = doctor("tiny", "--device", "cpu")
    assert code == 0 and err == "", err
    assert "every key and every shape is that of the config" in out
    assert "it says: 'A " in out and "licence" in out and "FAULT" not in out


def test_a_whole_folder_answers_quantised(doctor: Run) -> None:
    pytest.importorskip("bitsandbytes")
    code, out, err = doctor("tiny", "--device", "cpu", "--bits", 4)
    assert code == 0, out + err
    assert "asked in 4 bits" in out


def test_a_broken_folder_is_named_and_the_exit_code_says_so(doctor: Run, tmp_path: Path) -> None:
    for file in hub.find("tiny").iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    weights = load_file(tmp_path / "model.safetensors")
    del weights["query_tokens"]
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    code, out, _ = doctor(tmp_path, "--quick")
    assert code == 1
    faults = [line for line in out.splitlines() if line.startswith("FAULT")]
    assert faults == ["FAULT: 1 missing: query_tokens"]
    assert "it says" not in out


def test_folders_of_lavila_and_lf_vila(doctor: Run, tmp_path: Path) -> None:
    small_lavila.dual_encoder_folder(tmp_path / "dual")
    small_lavila.narrator_folder(tmp_path / "narrator")
    small_lf_vila.small_model(LfVilaForRetrieval).save_pretrained(tmp_path / "retrieval")
    (tmp_path / "words").mkdir()
    small_lf_vila.small_processor(tmp_path / "words").save_pretrained(tmp_path / "retrieval")
    for name, kind, works in (
        ("dual", "it is LaViLa's dual encoder", "its vector of 20, cosine "),
        ("narrator", "it is LaViLa's narrator", "it says: '"),
        ("retrieval", "it is LF-VILA (LfVilaForRetrieval)", "its vector of 64, cosine "),
    ):
        code, out, err = doctor(tmp_path / name, "--device", "cpu")
        assert code == 0, out + err
        assert kind in out and works in out and "fp32: " in out and "fits cpu" in out and "FAULT" not in out
    weights = load_file(tmp_path / "dual" / "model.safetensors")
    save_file(weights | {"left": torch.ones(2)}, tmp_path / "dual" / "model.safetensors", metadata={"format": "pt"})
    code, out, _ = doctor(tmp_path / "dual", "--device", "cpu")
    assert code == 1 and "FAULT: 1 unknown: left" in out and "tried on" not in out


def test_no_folder_of_a_model(doctor: Run, tmp_path: Path) -> None:
    for place in (tmp_path, tmp_path / "none"):
        code, out, err = doctor(place)
        assert code == 2 and len(err.splitlines()) == 1 and out == ""

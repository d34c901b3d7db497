"""What may stand beside the weights in a file, and files that are not what they say."""

from __future__ import annotations

import argparse
import json
import os
import pickle
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from videollm.convert.checkpoint import inspect, unwrap
from videollm.errors import ConversionError


@pytest.mark.parametrize("wrapper", ["model", "state_dict", "module"])
def test_weights_are_found_where_trainers_put_them(wrapper: str) -> None:
    assert unwrap({wrapper: {"w": torch.ones(2)}, "epoch": 3}).keys() == {"w"}
    assert unwrap({"w": torch.ones(2), wrapper: torch.ones(1)}).keys() == {"w", wrapper}


class Runs:
    def __reduce__(self) -> tuple:
        return (os.system, ("echo run >> ran",))


def test_flags_and_scores_of_a_run_are_notes(tmp_path: Path) -> None:
    run = argparse.Namespace(model="NARRATOR", clip_length=4)
    held = {"state_dict": {"w": torch.ones(2)}, "epoch": 3, "best_acc1": np.float64(30.5), "args": run}
    torch.save(held, tmp_path / "run.pth")
    found = inspect(tmp_path / "run.pth")
    assert found.shapes == {"w": (2,)} and found.notes["best_acc1"] == 30.5
    assert found.notes["args"] == {"model": "NARRATOR", "clip_length": 4}


def test_code_among_the_flags_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": {"w": torch.ones(2)}, "args": argparse.Namespace(model=Runs())}, "run.pth")
    with pytest.raises(ConversionError, match="holds code"):
        inspect(Path("run.pth"))
    assert not Path("ran").exists()


def compressed(path: Path, big: bool) -> None:
    """As torch writes a file, but squeezed, which torch never does; a big one unpacks to a thousand times its size."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(2**26) if big else pickle.dumps({"w": 1}, 2))
        archive.writestr("archive/version", "3\n")


def lying(path: Path, **entry: Any) -> None:
    """A safetensors file of one tensor of 2 x 2 numbers, with something else in its header."""
    held = {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]} | entry
    header = json.dumps({"w": held}).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(16))


def tall(path: Path) -> None:
    """A file that is all header, larger than any header is."""
    with path.open("wb") as file:
        file.write((2**27).to_bytes(8, "little"))
        file.truncate(2**27 + 8)


HOSTILE: dict[str, tuple[Callable[[Path], Any], str]] = {
    "one byte": (lambda path: path.write_bytes(b"\x80"), "damaged or cut off"),
    "a zip bomb": (lambda path: compressed(path, True), "compressed .* was not opened"),
    "compressed": (lambda path: compressed(path, False), "compressed .* was not opened"),
    "numbers as names": (lambda path: torch.save({1: torch.ones(2)}, path), "names that are no text"),
    "another shape.safetensors": (lambda path: lying(path, shape=[2, 3]), "damaged or cut off"),
    "another kind.safetensors": (lambda path: lying(path, dtype="F16"), "damaged or cut off"),
    "negative.safetensors": (lambda path: lying(path, shape=[-2, -2]), "damaged or cut off"),
    "words.safetensors": (lambda path: lying(path, shape=["2", 2]), "damaged or cut off"),
    "backwards.safetensors": (lambda path: lying(path, data_offsets=[32, 16]), "damaged or cut off"),
    "all header.safetensors": (tall, "damaged or cut off"),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_files_that_lie_are_one_line(tmp_path: Path, what: str) -> None:
    write, words = HOSTILE[what]
    path = tmp_path / (what if what.endswith(".safetensors") else "weights.pth")
    write(path)
    tracemalloc.start()
    with pytest.raises(ConversionError, match=words) as caught:
        inspect(path)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert "\n" not in str(caught.value) and most < 2**24

"""What may stand beside the weights in a file."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from videollm.convert.checkpoint import inspect
from videollm.errors import ConversionError


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

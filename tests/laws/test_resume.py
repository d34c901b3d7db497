"""The law of resuming: a run that was killed anywhere and goes on gives what one that was never killed gives."""

import json
import os
import random
import signal
import subprocess
import sys

import pytest
import torch
import yaml
from safetensors.torch import load_file

from tests.training.small_run import ROOT, losses_of, recipe_of, write_datasets, write_model

STEPS, BATCH, BATCHES = 12, 2, 2


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("resume")
    write_model(root / "model", dropout=0.1)
    write_datasets(root / "data")
    return root


def runs(root, name, *places):
    """Runs of one recipe, each killed in its place; returns (exit codes, the positions that each took)."""
    folder = root / name
    folder.mkdir()
    recipe = recipe_of(
        root, f"{name}/out", steps=STEPS, batch_size=BATCH, gradient_accumulation=BATCHES, save_steps=3,
        batch_from_one_dataset=False,
        datasets=[{"format": "jsonl", "path": str(root / "data" / f"{name}.jsonl")} for name in ("words", "pictures")],
    )  # fmt: skip
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "tests.laws.killed_run", str(folder / "recipe.yaml"), *places],
        capture_output=True, text=True, cwd=ROOT, timeout=800, check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
    )  # fmt: skip
    assert done.returncode == 0 and (folder / "positions.jsonl").exists(), done.stderr[-4000:]
    taken: dict[int, list[int]] = {}
    for line in (folder / "positions.jsonl").read_text().splitlines():
        process, position = json.loads(line)
        taken.setdefault(process, []).append(position)
    return json.loads(done.stdout.splitlines()[-1]), list(taken.values())


def state_of(folder):
    """Everything that a finished run holds: trained weights, the state of the optimizer and of the random numbers."""
    newest = folder / f"checkpoint-{STEPS}"
    optimizer = torch.load(newest / "optimizer.pt", weights_only=True)
    moments = {
        f"{kind} {number}": value
        for number, one in optimizer["state"].items()
        for kind, value in one.items()
    }  # fmt: skip
    rng = torch.load(newest / "rng_state.pth", weights_only=False)["cpu"]
    return {**load_file(folder / "trained.safetensors"), **moments, "rng": rng}


@pytest.mark.timeout(900)  # six processes, one after the other, perhaps on a busy machine
def test_killed_anywhere_equals_never_killed(root):
    """In a step, in the writing of a checkpoint, and between two, at random moments; and after Ctrl-C."""
    draw = random.Random(4)
    places = [
        f"step:{draw.randint(4, 6)}",
        f"write:{draw.randint(1, 2)}",
        f"between:{draw.randint(9, 10)}",
        "interrupt:10",
        "whole",
    ]
    ends, taken = runs(root, "killed", *places)
    assert ends == [-signal.SIGKILL] * 3 + [130, 0]
    whole_ends, (never,) = runs(root, "never", "whole")
    assert whole_ends == [0]

    out, wanted = root / "killed" / "out", root / "never" / "out"
    # What was cut off is gone, and the order of samples is that of the run that was never killed.
    assert not (out / ".staging").exists()
    step = BATCH * BATCHES
    assert never == list(range(STEPS * step))
    for positions in taken:
        assert positions[0] % step == 0 and positions == never[positions[0] : positions[0] + len(positions)]
    assert [positions[0] for positions in taken] == sorted(positions[0] for positions in taken)
    # Ctrl-C let the eleventh step end, and kept it.
    assert taken[-1] == never[11 * step :]

    found, expected = state_of(out), state_of(wanted)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert torch.equal(torch.as_tensor(found[name]), torch.as_tensor(value)), name
    losses = [losses_of(out), losses_of(wanted)]
    assert losses[0] == losses[1] and list(losses[0]) == list(range(1, STEPS + 1))

"""What a finished run leaves beside its weights: the picture of its losses and the card."""

import importlib.metadata
import json
import math
import re

import numpy as np
import pytest
import yaml
from PIL import Image

from tests.small_model import small_model
from tests.training.toy_run import toy_run
from videollm.settings import load_settings
from videollm.training.freeze import freeze
from videollm.training.progress import Progress
from videollm.training.recipe import VideoLlamaRecipe
from videollm.training.report import _COLOURS, CARD, PICTURE, curves_of, draw_losses, smooth, write_report

RECIPE = """\
stage: stage1
model: tiny
output: runs/mine
steps: 6
batch_size: 4
gradient_accumulation: 2
learning_rate: 0.1
seed: 17
datasets:
  - {format: jsonl, path: mine.jsonl, ratio: 3}
"""


def history(steps, names=("webvid", "cc3m")):
    return [
        {"step": step, "loss": 2 + math.exp(-step / 100), "learning_rate": 1e-4}
        | {f"loss/{name}": 1 + place + math.exp(-step / 100) for place, name in enumerate(names)}
        for step in range(10, steps + 1, 10)
    ]


def colours_in(path):
    """How many pixels of a picture have about each of the colours of curves."""
    pixels = np.asarray(Image.open(path)).reshape(-1, 3).astype(int)
    return [int((abs(pixels - colour) < 25).all(1).sum()) for colour in _COLOURS]


@pytest.mark.parametrize("count", [0, 1, 2, 7])
def test_a_curve_for_each_dataset(tmp_path, count):
    draw_losses(tmp_path / "a.png", "run", history(1000, [f"set{n}" for n in range(count)]))
    shown = colours_in(tmp_path / "a.png")
    # The learning rate has the first colour too; colours are used again from the seventh dataset on.
    expected = min(count, len(_COLOURS)) if count > 1 else 0
    assert [number > 500 for number in shown[1:]] == [place < expected for place in range(1, len(_COLOURS))], shown
    assert Image.open(tmp_path / "a.png").size == (960, 600)
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


@pytest.mark.parametrize("log", [[], history(10), [{"step": 1, "loss": math.nan, "learning_rate": 0.0}]])
def test_short_and_broken_runs_are_drawn_too(tmp_path, log):
    draw_losses(tmp_path / "a.png", "run", log)
    assert Image.open(tmp_path / "a.png").size == (960, 600)


def test_the_ends_of_a_curve_are_where_its_values_are(tmp_path):
    """Losses fall from 2 to 1: the curve starts at the upper edge of the panel and ends at the lower one."""
    log = [{"step": step, "loss": 2 - step / 100} for step in range(101)]
    draw_losses(tmp_path / "a.png", "run", log)
    dark = (np.asarray(Image.open(tmp_path / "a.png")) < 60).all(2)
    begins, ends = (np.flatnonzero(dark[40:, columns].any(1)) + 40 for columns in (slice(70, 80), slice(780, 790)))
    assert 50 <= begins[0] <= 57 and ends[0] >= 420


def test_smooth_keeps_a_line_and_flattens_noise():
    line = [(step, 3.0 - step) for step in range(100)]
    assert smooth(line)[2:-2] == line[2:-2]
    noise = smooth([(step, (-1.0) ** step) for step in range(200)])
    assert max(abs(value) for _, value in noise[5:-5]) < 0.1 and smooth(line[:3]) == line[:3]


def test_one_dataset_needs_no_curve_of_its_own():
    assert list(curves_of(history(100, ["webvid"]))) == ["loss"]
    assert list(curves_of(history(100))) == ["loss", "webvid", "cc3m"]


def test_card(tmp_path):
    """Every figure of the card from a run that was trained and resumed: the recipe, too, can be run again."""
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    recipe = load_settings(tmp_path / "recipe.yaml", VideoLlamaRecipe)
    folder = tmp_path / "mine"
    toy_run(folder, [Progress("toy", bar=False)])
    trainer = toy_run(folder, [Progress("toy", bar=False)], resume="checkpoint-3")
    ledger = folder / "skipped.jsonl"
    skipped = [("mine", 3, "broken media"), ("mine", 3, "broken media"), ("mine", 9, "missing media")]
    ledger.write_text("".join(json.dumps({"source": s, "index": i, "reason": r}) + "\n" for s, i, r in skipped))
    model, _ = small_model()
    freeze(model, "stage1")
    write_report(
        folder, recipe=recipe, model=model, history=trainer.state.log_history, used={"mine": 48}, ledger=ledger,
        batch_samples=8, processes=1,
    )  # fmt: skip

    card = (folder / CARD).read_text()
    assert f"![losses]({PICTURE})" in card and (folder / PICTURE).exists()
    learning = sum(p.numel() for p in model.parameters() if p.requires_grad)
    total = sum(p.numel() for p in model.parameters())
    assert re.search(rf"^all +{total:,} +{learning:,}$", card, re.MULTILINE) and 0 < learning < total
    assert "| mine | 48 | 2 | 1 broken media, 1 missing media |" in card
    losses = [log["loss"] for log in trainer.state.log_history if "loss" in log]
    assert f"| loss | {losses[0]:.4f} | {losses[-1]:.4f} | {losses[-1]:.4f} |" in card
    assert "* 6 steps of 8 samples on 1 process\n" in card and "* seed 17\n" in card
    assert re.search(r"\* \d\.\d min of training, [\d.]+ samples a second", card)
    for package in ("torch", "transformers"):
        assert f"{package} {importlib.metadata.version(package)}" in card
    written = card.split("```yaml\n")[1].split("```")[0]
    (tmp_path / "again.yaml").write_text(written)
    assert load_settings(tmp_path / "again.yaml", VideoLlamaRecipe) == recipe
    assert yaml.safe_load(written)["datasets"][0]["path"] == "mine.jsonl"
    assert "as what they were trained from" in card
    assert not [path for path in folder.iterdir() if path.name.startswith(".")]

"""What scripts/plan_training.py computes without numbers, against a step that has them; and what recipes say of it."""

import dataclasses
import re
import sys
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from tests.models.lavila.small import GPT2_TEXT, VISION
from tests.models.lf_vila.small_lf_vila import TEXT, small_config
from tests.small_model import small_model
from videollm.data.datasets import Dataset
from videollm.models.lavila import LavilaNarrator, LavilaNarratorConfig
from videollm.models.lf_vila import LfVilaForPreTraining
from videollm.training import lavila, lf_vila
from videollm.training.freeze import freeze, rest
from videollm.training.recipe import LavilaRecipe, LfVilaRecipe, VideoLlamaRecipe, read_recipe

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "scripts"))

from plan_training import ATTENTION, AliveBytes, plan, sample_tokens, shape_of, step, text_tokens  # noqa: E402

FULL_SIZE = sorted((ROOT / "train_configs").glob("video_llama_*.yaml"))
OTHERS = sorted(path for kind in ("lavila", "lf_vila") for path in (ROOT / "train_configs").glob(f"{kind}_*.yaml"))
BASE = VideoLlamaRecipe(
    stage="stage2", model="small", output="runs/small", steps=1, batch_size=4, learning_rate=1e-3, bf16=False,
    branches=("video",), max_tokens=256, datasets=(Dataset("jsonl", "some.jsonl"),),
)  # fmt: skip


def made(recipe):
    """(bytes alive at most, weights, operations) of a step of the small model, with numbers."""
    model, _ = small_model()
    freeze(model, recipe.stage, recipe.branches)
    if recipe.gradient_checkpointing:
        model.language_model.activation_checkpointing_enable({"use_reentrant": False})
    model.train()
    rest(model)
    learning = [value for value in model.parameters() if value.requires_grad]
    optimizer = torch.optim.AdamW(learning, lr=1e-3, foreach=False)
    alive = AliveBytes([*model.parameters(), *model.buffers()])
    with alive, FlopCounterMode(display=False, custom_mapping=ATTENTION) as operations:
        for value in learning:
            value.grad = torch.zeros_like(value)
        optimizer.step()
        optimizer.zero_grad()
        step(model, recipe, recipe.max_tokens, recipe.max_tokens).backward()
        optimizer.step()
    return alive.peak, sum(4 * value.numel() for value in model.parameters()), operations.get_total_flops()


def test_computed_is_what_a_step_has_alive():
    for changes in ({}, {"gradient_checkpointing": True}, {"branches": ("video", "audio")}):
        recipe = dataclasses.replace(BASE, **changes)
        peak, weights, operations = made(recipe)
        computed = plan(recipe, small_model()[0].config)
        assert computed.step_bytes == pytest.approx(peak, rel=0.05), changes
        assert computed.weights_bytes == weights
        # Where activations are computed again, a run stops as soon as it has those that are needed; the plan does not.
        assert operations <= computed.operations <= (1.05 if recipe.gradient_checkpointing else 1) * operations


def test_what_checkpointing_bits_and_processes_save():
    config = small_model()[0].config
    plain = plan(BASE, config)
    again = plan(dataclasses.replace(BASE, gradient_checkpointing=True), config)
    assert again.step_bytes < 0.75 * plain.step_bytes and again.operations > plain.operations
    kept = plan(dataclasses.replace(BASE, features="kept"), config)
    assert kept.operations < plain.operations and kept.weights_bytes == plain.weights_bytes
    low_rank = dataclasses.replace(BASE, bf16=True, lora_rank=4)
    four = plan(dataclasses.replace(low_rank, bits=4), config)
    whole = plan(low_rank, config)
    assert four.weights_bytes < whole.weights_bytes and four.learning == whole.learning > plain.learning
    zero = dataclasses.replace(BASE, deepspeed="train_configs/deepspeed/zero2.json")
    assert plan(zero, config).bytes > plan(zero, config, processes=4).bytes


def test_tokens_of_a_sample():
    config = small_model()[0].config
    assert sample_tokens(BASE, config) == 256
    captions = (Dataset("jsonl", "some.jsonl", form="caption"),)
    caption = dataclasses.replace(BASE, max_tokens=None, max_caption_tokens=32, datasets=captions)
    # One to begin with, six soft tokens, 32 words: 39 in multiples of 16.
    assert sample_tokens(caption, config) == 48


def test_computed_for_other_families_is_what_a_step_has_alive():
    """Of a narrator, of which a part learns and whose words are tied, and of the first stage of LF-VILA."""
    narrator = LavilaNarratorConfig(
        vision_config=VISION, text_config={**GPT2_TEXT, "n_positions": 80}, num_query_tokens=5, pool_head_dim=8
    )
    base = {"output": "o", "model": "m", "steps": 1, "batch_size": 4, "learning_rate": 1e-3, "bf16": False}
    for recipe, config in (
        (LavilaRecipe(stage="narrator", **base), narrator),
        (LfVilaRecipe(stage="stage1", **base), small_config(text_config={**TEXT, "num_hidden_layers": 2})),
    ):
        computed = plan(recipe, config)
        if isinstance(recipe, LavilaRecipe):
            model = LavilaNarrator(config)
            lavila.freeze(model, recipe)
        else:
            model = LfVilaForPreTraining(config)
            lf_vila.freeze(model, recipe)
        assert computed.parameters == sum(value.numel() for value in model.parameters())
        assert computed.weights_bytes == 4 * computed.parameters
        learning = [value for value in model.train().parameters() if value.requires_grad]
        optimizer = torch.optim.AdamW(learning, lr=1e-3, foreach=False)
        alive = AliveBytes([*model.parameters(), *model.buffers()])
        with alive, FlopCounterMode(display=False, custom_mapping=ATTENTION) as operations:
            for value in learning:
                value.grad = torch.zeros_like(value)
            optimizer.step()
            optimizer.zero_grad()
            step(model, recipe, text_tokens(recipe, config), 0).backward()
            optimizer.step()
        assert computed.step_bytes == pytest.approx(alive.peak, rel=0.05)
        assert computed.operations == operations.get_total_flops()


@pytest.mark.slow
@pytest.mark.parametrize("path", OTHERS, ids=lambda path: path.name)
def test_headers_of_other_families_say_what_is_computed(path):
    recipe = read_recipe(path)
    header = " ".join(line.lstrip("# ") for line in path.read_text().splitlines() if line.startswith("#"))
    if "Memory: not computed" in header:
        pytest.skip("its header says that it is not computed")
    how = re.search(r"scripts/plan_training.py(?: --shape (\S+))? --processes (\d+): weights", header)
    found = plan(recipe, shape_of(how[1], recipe), processes=int(how[2]))
    said = re.search(r"Memory: ([\d.]+) GiB .* batches of (\d+).*? weights ([\d.]+), and ([\d.]+) for", header)
    assert int(said[2]) == found.batch
    for text, size in zip(
        (said[1], said[3], said[4]), (found.bytes, found.weights_bytes, found.step_bytes), strict=True
    ):
        assert float(text) == pytest.approx(size / 2**30, abs=0.11)
    seconds, hours = re.search(r"Time: ([\d.]+) s a step, ([\d.]+) h", header).groups()
    assert float(seconds) == pytest.approx(found.seconds(), rel=0.04)
    assert float(hours) == pytest.approx(recipe.steps * found.seconds() / 3600, abs=0.06)


@pytest.mark.slow
@pytest.mark.parametrize(
    "path", sorted((ROOT / "train_configs").glob("video_llama_*.yaml")), ids=lambda path: path.name
)
def test_headers_say_what_is_computed(path):
    """The figures of every recipe of full size."""
    recipe = read_recipe(path)
    found = plan(recipe, shape_of("7b"), processes=8 if recipe.deepspeed else 1)
    header = " ".join(line.lstrip("# ") for line in path.read_text().splitlines() if line.startswith("#"))
    said = re.search(r"Memory: ([\d.]+) GiB .* batches of (\d+) with (\d+) tokens.* ([\d.]+), and ([\d.]+) for", header)
    assert said, header
    assert (int(said[2]), int(said[3])) == (found.batch, found.tokens)
    for text, size in zip(
        (said[1], said[4], said[5]), (found.bytes, found.weights_bytes, found.step_bytes), strict=True
    ):
        assert float(text) == pytest.approx(size / 2**30, abs=0.11)
    seconds, hours = re.search(r"Time: ([\d.]+) s a step, ([\d.]+) h", header).groups()
    assert float(seconds) == pytest.approx(found.seconds(), rel=0.02)
    assert float(hours) == pytest.approx(recipe.steps * found.seconds() / 3600, abs=0.06)

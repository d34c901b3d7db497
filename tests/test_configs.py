"""Every recipe that ships can be read, says what it needs, and has the published numbers where it says so."""

import json
import re
import shlex
from collections import Counter
from pathlib import Path

import pytest

from videollm.convert.video_llama import our_name
from videollm.models.memory import empty_model
from videollm.models.video_llama import VideoLlamaConfig
from videollm.settings import load_settings
from videollm.training.freeze import freeze
from videollm.training.recipe import VideoLlamaRecipe
from videollm.training.trainer import StageTrainer

ROOT = Path(__file__).resolve().parents[1]
RECIPES = sorted((ROOT / "train_configs").glob("*.yaml"))
FULL_SIZE = [path for path in RECIPES if path.name.startswith("video_llama_")]

# The published hyperparameters, of all four runs and of each.
PUBLISHED = {
    "betas": (0.9, 0.999), "weight_decay": 0.05, "clip_norm": 0.0, "gradient_accumulation": 1, "seed": 42,
    "log_steps": 50, "batch_from_one_dataset": True, "lora_rank": 0, "bits": None, "warmup_learning_rate": 1e-6,
}  # fmt: skip
STAGE_1 = {"learning_rate": 1e-4, "min_learning_rate": 8e-5, "batch_size": 32, "workers": 8, "max_caption_tokens": 32}
STAGE_2 = {"learning_rate": 3e-5, "min_learning_rate": 1e-5, "batch_size": 4, "workers": 4, "max_tokens": 512,
           "cut": True, "steps": 3 * 1000, "save_steps": 1000}  # fmt: skip
RUNS = {
    "video_llama_vision_stage1": {
        **STAGE_1, "stage": "stage1", "branches": ("video",), "steps": 5 * 2500, "warmup_steps": 2500,
        "save_steps": 2500, "augment": True,
    },
    "video_llama_audio_stage1": {
        **STAGE_1, "stage": "stage1", "branches": ("audio",), "steps": 5 * 5000, "warmup_steps": 5000,
        "save_steps": 5000,
    },
    "video_llama_vision_stage2": {
        **STAGE_2, "stage": "stage2", "branches": ("video",), "warmup_steps": 1000, "max_caption_tokens": 320,
        "augment": True,
    },
    "video_llama_audio_stage2": {
        **STAGE_2, "stage": "stage2", "branches": ("audio",), "warmup_steps": 400, "max_caption_tokens": 512,
    },
}  # fmt: skip
RATIOS = {
    "video_llama_vision_stage1": [100, 24],
    "video_llama_audio_stage1": [100, 24],
    "video_llama_vision_stage2": [1, 1, 1],
    "video_llama_audio_stage2": [1, 1, 1],
}
FORMATS = {
    "video_llama_vision_stage1": ["webvid", "llava_cc3m"],
    "video_llama_vision_stage2": ["minigpt4", "llava_instruct", "videochat"],
}
SCHEDULES = {
    "video_llama_vision_stage1": "vl_stage1",
    "video_llama_audio_stage1": "al_stage1",
    "video_llama_vision_stage2": "vl_stage2",
    "video_llama_audio_stage2": "al_stage2",
}
# What learns at full size: with a decoder of 7B and of 13B, in millions as published, and how many tensors.
LEARNING = {"video": (22.10, 22.89, 58), "audio": (22.86, 23.64, 58)}


def read(name):
    return load_settings(ROOT / "train_configs" / f"{name}.yaml", VideoLlamaRecipe)


def header(path):
    """The comment that a recipe opens with."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return [line.removeprefix("#").strip() for line in lines[: next(n for n, x in enumerate(lines) if x[0] != "#")]]


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.name)
def test_recipe(path):
    recipe = load_settings(path, VideoLlamaRecipe)
    text = " ".join(header(path))
    assert len(header(path)[0]) > 20
    # What is needed first, the command, and on what it runs, in how much memory.
    assert re.search(r"(Needs|Fetch): \S", text) or not (recipe.start_from or recipe.model)
    assert f"train_configs/{path.name}" in text and "videollm train" in text
    assert re.search(r"Hardware: .*\d+ GB", text), text
    if recipe.deepspeed:
        zero = json.loads((ROOT / recipe.deepspeed).read_text())
        assert zero["zero_optimization"]["stage"] in (2, 3)


@pytest.mark.parametrize("path", FULL_SIZE, ids=lambda path: path.name)
def test_full_size_recipes_say_memory_and_time(path):
    text = " ".join(header(path))
    assert all(len(line) <= 120 for line in path.read_text(encoding="utf-8").splitlines())
    for what, unit in (("Memory", r"[\d.]+ GiB"), ("Time", r"[\d.]+ (s|h|hours)")):
        said = re.search(rf"{what}: (.*?)(?= (?:Fetch|Run|Hardware|Memory|Time|Differs)\b|$)", text)
        assert said and re.search(unit, said[1]) and re.search(r"\b(computed|measured)\b", said[1]), what
    command = shlex.split(re.search(r"Run: (.*?) Hardware:", text)[1])
    assert command[-1] == f"train_configs/{path.name}" and command[-2] == "train"


@pytest.mark.parametrize("name", [path.stem for path in FULL_SIZE])
def test_stages_build_on_each_other(name):
    """Each run that a recipe starts from is the output of another recipe, and no two write into one folder."""
    outputs = {read(path.stem).output for path in FULL_SIZE}
    assert len(outputs) == len(FULL_SIZE)
    recipe = read(name)
    assert recipe.output == f"runs/{name}"
    assert set(recipe.start_from) <= outputs
    assert recipe.fresh == (recipe.stage == "stage1") and bool(recipe.start_from) == (recipe.stage == "stage2")
    assert len({one.name or one.format for one in recipe.datasets}) == len(recipe.datasets)


@pytest.mark.parametrize("name", RUNS)
def test_published_numbers(name):
    recipe = read(name)
    for key, value in {**PUBLISHED, **RUNS[name]}.items():
        assert getattr(recipe, key) == value, key
    assert [one.ratio for one in recipe.datasets] == RATIOS[name]
    if name in FORMATS:
        assert [one.format for one in recipe.datasets] == FORMATS[name]
        assert all(one.shown == "frames" for one in recipe.datasets if one.format in ("webvid", "videochat"))
    else:  # real sound, and nothing else
        assert all(one.shown == "sound" for one in recipe.datasets)


@pytest.mark.parametrize("name", SCHEDULES)
def test_published_rates(name, reference):
    """The numbers that make the schedule are those of the published run."""
    stored = json.loads((reference / "video_llama" / "lr_schedules.json").read_text())["schedules"][SCHEDULES[name]]
    recipe = read(name)
    assert recipe.learning_rate == stored["init_lr"] and recipe.last_learning_rate == stored["min_lr"]
    assert recipe.warmup_learning_rate == stored["warmup_lr"] and recipe.warmup_steps == stored["warmup_steps"]
    assert recipe.steps == stored["iters_per_epoch"] * stored["max_epoch"]


def test_narrations_join_the_published_stage_1():
    """Nothing but the data differs, and of the data only that narrations are added."""
    plain, narrated = read("video_llama_vision_stage1"), read("video_llama_vision_stage1_narrations")
    assert narrated.datasets[:2] == plain.datasets and len(narrated.datasets) == 3
    added = narrated.datasets[2]
    assert added.learned_as == "caption" and added.shown == "frames" and added.name == "narrations"
    assert {k for k, v in plain.as_json().items() if narrated.as_json()[k] != v} == {"datasets", "output"}


def test_qlora_holds_the_decoder_in_4_bits_and_trains_low_rank_updates():
    recipe = read("video_llama_vision_stage2_qlora")
    assert (recipe.bits, recipe.lora_rank, recipe.lora_alpha, recipe.clip_norm) == (4, 64, 16, 0.3)
    assert recipe.batch_size * recipe.gradient_accumulation == 16 and recipe.gradient_checkpointing
    assert recipe.datasets == read("video_llama_vision_stage2").datasets


def test_joint_stage_2_sees_and_hears():
    recipe = read("video_llama_audiovisual_stage2")
    assert recipe.branches == ("video", "audio")
    shown = Counter(one.shown for one in recipe.datasets if one.format in ("jsonl", "videochat"))
    assert shown["all"] >= 2 and shown["sound"] and shown["frames"]


@pytest.fixture(scope="module")
def empty():
    """Models of the published sizes, without numbers."""
    return {size: empty_model(VideoLlamaConfig.preset(size)) for size in ("7b", "13b")}


@pytest.mark.parametrize("path", FULL_SIZE, ids=lambda path: path.name)
@pytest.mark.parametrize("size", ["7b", "13b"])
def test_what_learns_at_full_size(path, size, empty):
    """As many parameters, in as many tensors, as the published runs train."""
    recipe, model = load_settings(path, VideoLlamaRecipe), empty[size]
    freeze(model, recipe.stage, recipe.branches)
    learning = [value for value in model.parameters() if value.requires_grad]
    expected = [LEARNING[branch] for branch in recipe.branches]
    millions = sum(one[0 if size == "7b" else 1] for one in expected)
    assert sum(value.numel() for value in learning) / 1e6 == pytest.approx(millions, abs=0.006 * len(expected))
    assert len(learning) == sum(one[2] for one in expected)


@pytest.mark.parametrize(("branch", "manifest"), [("vision", "vl"), ("audio", "al")])
def test_the_published_checkpoints_hold_what_learns(branch, manifest, reference, empty):
    """Name by name: the parameters of a published checkpoint are those that its recipe trains."""
    stored = json.loads((reference / "video_llama" / f"manifest_checkpoint_{manifest}.json").read_text())
    recipe, model = read(f"video_llama_{branch}_stage1"), empty["7b"]
    freeze(model, recipe.stage, recipe.branches)
    trained = {name for name, value in model.named_parameters() if value.requires_grad}
    decayed, plain = (stored["optimizer_groups"][key] for key in ("weight_decay", "no_weight_decay"))
    assert {our_name(key, model.config) for key in (*decayed, *plain)} == trained
    decays = set(StageTrainer.get_decay_parameter_names(None, model))
    assert {our_name(key, model.config) for key in decayed} == trained & decays
    count = sum(value.numel() for value in model.parameters() if value.requires_grad)
    assert count == stored["trainable_param_count"]["7B"]

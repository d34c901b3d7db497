"""Every recipe that ships can be read, says what it needs, and has the published numbers where it says so."""

import json
import re
import shlex
import sys
from collections import Counter
from pathlib import Path

import pytest

from videollm.convert.video_llama import our_name
from videollm.models.memory import empty_model
from videollm.models.video_llama import VideoLlamaConfig
from videollm.training.freeze import freeze
from videollm.training.recipe import LavilaRecipe, LfVilaRecipe, read_recipe
from videollm.training.trainer import StageTrainer

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "scripts"))
RECIPES = sorted((ROOT / "train_configs").glob("*.yaml"))
VIDEO_LLAMA = [path for path in RECIPES if path.name.startswith("video_llama_")]
OTHERS = [path for path in RECIPES if path.name.startswith(("lavila_", "lf_vila_"))]
FULL_SIZE = VIDEO_LLAMA + OTHERS

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
    return read_recipe(ROOT / "train_configs" / f"{name}.yaml")


def header(path):
    """The comment that a recipe opens with."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return [line.removeprefix("#").strip() for line in lines[: next(n for n, x in enumerate(lines) if x[0] != "#")]]


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.name)
def test_recipe(path):
    recipe = read_recipe(path)
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
        if what == "Memory" and path in OTHERS and said and said[1].startswith("not computed"):
            break
        assert said and re.search(unit, said[1]) and re.search(r"\b(computed|measured)\b", said[1]), what
    command = shlex.split(re.search(r"Run: (.*?) Hardware:", text)[1])
    assert command[-1] == f"train_configs/{path.name}" and command[-2] == "train"


@pytest.mark.parametrize("name", [path.stem for path in VIDEO_LLAMA])
def test_stages_build_on_each_other(name):
    """Each run that a recipe starts from is the output of another recipe, and no two write into one folder."""
    outputs = {read(path.stem).output for path in VIDEO_LLAMA}
    assert len(outputs) == len(VIDEO_LLAMA)
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


@pytest.mark.parametrize("path", VIDEO_LLAMA, ids=lambda path: path.name)
@pytest.mark.parametrize("size", ["7b", "13b"])
def test_what_learns_at_full_size(path, size, empty):
    """As many parameters, in as many tensors, as the published runs train."""
    recipe, model = read_recipe(path), empty[size]
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


# ---- LaViLa and LF-VILA

# The published hyperparameters: of all dual encoders and narrators of LaViLa, of its fine-tuning, and of LF-VILA.
LAVILA = {"learning_rate": 3e-5, "betas": (0.9, 0.999), "weight_decay": 0.01, "clip_norm": 0.0, "augment": True}
CONSTANT = {"schedule": "constant", "warmup_steps": 0, "learn_temperature": False, "pseudo_temperature": None}
TUNED = {"schedule": "cosine", "warmup_learning_rate": 1e-6, "min_learning_rate": 1e-5}
CLASSES = {"learning_rate": 3e-3, "momentum": 0.9, "weight_decay": 4e-5, "label_smoothing": 0.1, "backbone_rate": 0.1,
           "flip": True}  # fmt: skip
LF_VILA = {"learning_rate": 5e-5, "betas": (0.9, 0.98), "clip_norm": 0.0, "seed": 42, "gradient_accumulation": 1}
# Batch on a GPU, epochs, epochs of warm-up, weight decay, schedule, the last rate.
LONG = {
    "lf_vila_pretrain_stage1": (16, 10, 1, 0.05, "linear", 5e-7),
    "lf_vila_pretrain_stage2": (48, 10, 1, 0.05, "linear", 5e-7),
    "lf_vila_activitynet_retrieval": (16, 20, 1, 0.05, "step", None),
    "lf_vila_queryd_retrieval": (16, 20, 1, 0.05, "step", None),
    "lf_vila_didemo_retrieval": (16, 20, 1, 0.05, "step", None),
    "lf_vila_condensed_movies_retrieval": (16, 20, 1, 0.05, "step", None),
    "lf_vila_activitynet_qa": (16, 100, 10, 0.1, "published", 1e-8),
    "lf_vila_violin": (12, 100, 10, 0.1, "linear", 5e-7),
    "lf_vila_how2qa": (4, 30, 10, 0.05, "linear", 5e-7),
    "lf_vila_coin": (16, 500, 1, 0.05, "linear", 5e-7),
    "lf_vila_lvu_relationship": (16, 500, 1, 0.05, "linear", 5e-7),
    "lf_vila_lvu_speaking": (16, 500, 1, 0.05, "linear", 5e-7),
    "lf_vila_lvu_scene": (16, 500, 1, 0.05, "linear", 5e-7),
}
# Parameters of models at full size, in millions as published, and of what a narrator learns.
SIZES = {
    "lavila_dual_encoder_base": ("base", 177.66, 177.66), "lavila_dual_encoder_large": ("large", 527.51, 527.51),
    "lavila_dual_encoder_large_336px_baseline": ("large_336px", 471.14, 471.14),
    "lavila_narrator_base": ("base", 325.14, 86.53),
    "lavila_narrator_large_336px": ("large_336px", 2459.45, None),
    "lf_vila_pretrain_stage1": (None, 310.29, None), "lf_vila_pretrain_stage2": (None, 461.48, 184.58),
    "lf_vila_activitynet_qa": (None, 426.64, None), "lf_vila_violin": (None, 424.95, None),
    "lf_vila_how2qa": (None, 424.95, None), "lf_vila_coin": (None, 91.51, None),
}  # fmt: skip


def check(recipe, wanted):
    for key, value in wanted.items():
        assert getattr(recipe, key) == value, key


@pytest.mark.parametrize("path", [one for one in OTHERS if one.name.startswith("lavila_")], ids=lambda path: path.name)
def test_published_numbers_of_lavila(path):
    recipe = read_recipe(path)
    assert isinstance(recipe, LavilaRecipe) and recipe.output == f"runs/{path.stem}"
    if recipe.stage == "classifier":
        check(recipe, CLASSES | TUNED)
    elif recipe.stage != "rephraser":
        check(recipe, {**LAVILA, "clip_norm": 1.0 if recipe.stage == "narrator" else 0.0})
    if "dual_encoder" in path.name:
        check(recipe, CONSTANT)
    if recipe.stage == "narrator":
        check(recipe, {"schedule": "constant", "bf16": False, "batch_size": 8, "also_learn": ()})
    if "mir" in path.name or "charades" in path.name:
        check(recipe, TUNED)
        assert recipe.shape == {"vision_config": {"num_frames": 16, "drop_path_rate": 0.1}}
    if "mir" in path.name:
        check(recipe, {"margin": 0.2, "stage": "ranking", "batch_size": 4 if "large" in path.name else 16})


@pytest.mark.parametrize("name", LONG)
def test_published_numbers_of_lf_vila(name):
    recipe = read(name)
    assert isinstance(recipe, LfVilaRecipe)
    batch, epochs, warm, decay, schedule, last = LONG[name]
    check(recipe, {**LF_VILA, "batch_size": batch, "weight_decay": decay, "schedule": schedule})
    assert recipe.min_learning_rate == last and recipe.steps % epochs == 0
    assert recipe.warmup_steps == warm * recipe.steps // epochs
    if schedule == "step":
        movies = "movies" in name
        assert recipe.decay_rate == (0.5 if movies else 0.25) and recipe.sentences == (1 if movies else None)
        assert recipe.decay_steps == recipe.steps // epochs * (1 if movies else 5)


QUICK = ("lavila_dual_encoder_base", "lavila_narrator_base", "lf_vila_pretrain_stage2")


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in SIZES]
)
def test_other_models_at_full_size(name):
    """Each recipe's model, on the meta device, is as large as published, and as much of it learns."""
    from plan_training import learner, shape_of

    size, millions, learned = SIZES[name]
    recipe = read(name)
    model = learner(recipe, shape_of(size, recipe))
    assert sum(value.numel() for value in model.parameters()) / 1e6 == pytest.approx(millions, abs=0.006)
    if learned is not None:
        learning = sum(value.numel() for value in model.parameters() if value.requires_grad)
        assert learning / 1e6 == pytest.approx(learned, abs=0.006)


def test_no_two_recipes_write_into_one_folder():
    assert len({read_recipe(path).output for path in OTHERS}) == len(OTHERS) == 25

"""Runs a recipe: builds the model, chooses what learns, trains, and leaves what learned, and the whole model, in the
run's folder."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import nn
from transformers import PrinterCallback, TrainingArguments, set_seed
from transformers.utils import logging

from videollm.data import world_samples
from videollm.data.collate import Collate, FileMedia, TrainingItems
from videollm.data.datasets import open_mixture
from videollm.data.ledger import Ledger
from videollm.errors import ConfigError, MissingDependencyError
from videollm.models import hub
from videollm.training import processes
from videollm.training.features import FeatureSamples, KeptMedia, encoder_name, make_features, make_media_features
from videollm.training.freeze import forget, freeze, table_of_parts
from videollm.training.objectives import (
    AlignmentObjective,
    AudioObjective,
    ConversationObjective,
    DecoderObjective,
    VisionObjective,
    add_accent,
)
from videollm.training.order import InOrder, LengthGrouped, Revisited
from videollm.training.parts import load_parts, put_into_folder, read_parts
from videollm.training.progress import Progress, boards
from videollm.training.recipe import Recipe
from videollm.training.report import write_report
from videollm.training.tiny import build_tiny
from videollm.training.trainer import RUN_FILE, StageTrainer, StopOnInterrupt, checkpoints

LEDGER_FILE = "ledger.jsonl"
MODEL_FOLDER = "model"
_LOW_RANK = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


class _Holder(nn.Module):
    """Gives a bare model the name that it has inside an objective."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model


def assemble(folders: Sequence[str], seed: int, tokenizer: str) -> tuple[Any, Any]:
    """`tiny` and its processor, with the trained parts of finished runs put in.

    Raises:
        ConfigError: a folder without trained parts, or with parts of another model.
    """
    model, processor = build_tiny(seed, tokenizer)
    for folder in folders:
        load_parts(_Holder(model), folder)
    return model, processor


def train(recipe: Recipe, resume: bool = True) -> Path:
    """Run a recipe to its end, in this process or together with those that a launcher started beside it.

    Args:
        recipe: what to do.
        resume: go on from the newest checkpoint in the run's folder, if there is one; otherwise they are deleted.

    Returns:
        the run's folder, which then holds the trained parts, and in ``model`` the whole model where it can chat.

    Raises:
        ConfigError: a recipe that cannot be run here, or that is not the one that its checkpoints are of.
        DataError: too much of the data cannot be used.
        KeyboardInterrupt: behind a checkpoint.
    """
    _require(recipe)
    torch.set_num_threads(recipe.threads)
    output = Path(recipe.output)
    if not processes.is_first():
        logging.set_verbosity_error()
        logging.disable_progress_bar()
    if recipe.deepspeed:
        processes.start_deepspeed()
    checkpoint = _checkpoint(recipe, output, resume)
    arguments = _arguments(recipe, checkpoint)  # before the model is made: ZeRO-3 spreads it at once
    set_seed(recipe.seed)
    started = time.monotonic()
    model, processor = _model(recipe)
    objective, data, collate = _objective(recipe, model, processor)
    freeze(model, recipe.stage, recipe.branches)
    if not torch.cuda.is_available():
        # The fused attention of the CPU is made for long rows: its backward pass takes half of a step on short ones.
        for part in (model.vision_model, model.qformer, model.video_qformer, model.audio_qformer, model.language_model):
            if part is not None:
                part.set_attn_implementation("eager")
    scale = _add_low_rank_updates(model, recipe)
    if recipe.model is not None and not recipe.deepspeed:
        # What is frozen may be held in half precision; steps of what learns are too small for it.
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.data = parameter.data.float()
    if recipe.gradient_checkpointing:
        # Of the decoder alone: on a whole model the library has the frozen encoders keep all they compute, too.
        model.language_model.activation_checkpointing_enable({"use_reentrant": False})
    if processes.is_first():
        print(table_of_parts(model), flush=True)
    names = [source.name for source in data.mixture.sources] if isinstance(data, TrainingItems) else []
    trainer = StageTrainer(
        recipe=recipe,
        order=_order(recipe, data),
        datasets=names,
        low_rank_scale=scale,
        model=objective,
        args=arguments,
        train_dataset=data,
        data_collator=collate,
        callbacks=[Progress(output.name, output / LEDGER_FILE if names else None), *boards(recipe.report_to, output)],
    )
    trainer.remove_callback(PrinterCallback)
    interrupt = StopOnInterrupt()
    if processes.count() == 1:  # a launcher passes its Ctrl-C on to processes that are at different steps
        trainer.add_callback(interrupt)
    if processes.rank():
        torch.manual_seed(recipe.seed + processes.rank())  # not the dropout of the first one again
    trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
    if interrupt.asked and trainer.state.global_step < recipe.steps:
        raise KeyboardInterrupt
    trainer.save_model()
    processes.wait()
    if processes.is_first():  # the others are free: to write a whole model may take longer than they would wait
        _finish(recipe, trainer, data, model)
        print(f"{recipe.stage}: {recipe.steps} steps in {(time.monotonic() - started) / 60:.1f} minutes", flush=True)
    return output


# ---- before


def _require(recipe: Recipe) -> None:
    """Optional packages, before anything is loaded."""
    needed = {"accelerate": True, "peft": recipe.lora_rank > 0, "deepspeed": bool(recipe.deepspeed)}
    for package, wanted in {**needed, "bitsandbytes": recipe.bits is not None}.items():
        if wanted and importlib.util.find_spec(package) is None:
            extra = "bits" if package == "bitsandbytes" else "train"
            raise MissingDependencyError(f"this recipe needs {package}; pip install 'videollm[{extra}]'")


def _checkpoint(recipe: Recipe, output: Path, resume: bool) -> Path | None:
    """The checkpoint to go on from; where it is of another number of processes, DeepSpeed's is made to fit."""
    found = checkpoints(output)
    if not resume:
        processes.wait()
        if processes.is_first():
            for old in found:
                shutil.rmtree(old)
        found = []
    if not found:
        return None
    newest = found[-1]
    try:
        told = json.loads((newest / RUN_FILE).read_text(encoding="utf-8"))
        before, count = told["recipe"], told["processes"]
    except (OSError, ValueError, KeyError):
        raise ConfigError(f"{newest} is not of this version of videollm train; begin anew with --restart") from None
    now = recipe.as_json()
    changed = [f"{key} {before.get(key)!r} -> {now[key]!r}" for key in now if before.get(key) != now[key]]
    if count != processes.count():
        changed.append(f"processes {count} -> {processes.count()}")
    if bool(before.get("deepspeed")) != bool(recipe.deepspeed):
        did, does = ("with", "without") if before.get("deepspeed") else ("without", "with")
        raise ConfigError(
            f"{newest} was written {did} DeepSpeed and cannot go on {does} it; give the recipe's 'deepspeed' as it "
            "was, or begin anew with --restart"
        )
    if changed and processes.is_first():
        print(f"since {newest.name} the recipe changed: {'; '.join(changed)}", flush=True)
    if recipe.deepspeed and (count != processes.count() or before["deepspeed"] != recipe.deepspeed):
        if processes.is_first():
            _make_universal(newest)
        processes.wait()
    return newest


def _make_universal(checkpoint: Path) -> None:
    """A checkpoint of DeepSpeed's in the form that any number of processes can read, beside it."""
    from deepspeed.checkpoint.ds_to_universal import main as convert

    step = (checkpoint / "latest").read_text(encoding="utf-8").strip()
    target, staging = checkpoint / f"{step}_universal", checkpoint / "universal.part"
    if not target.exists():
        shutil.rmtree(staging, ignore_errors=True)
        flags = {"num_extract_workers": 1, "num_merge_workers": 1, "keep_temp_folder": False, "strict": True}
        folders = {"input_folder": str(checkpoint / step), "output_folder": str(staging)}
        convert(SimpleNamespace(**folders, **flags, inject_missing_state=True))
        os.replace(staging, target)
    (checkpoint / "latest_universal").write_text(target.name, encoding="utf-8")


def _arguments(recipe: Recipe, checkpoint: Path | None) -> TrainingArguments:
    deepspeed = None
    if recipe.deepspeed:
        deepspeed = _deepspeed_config(recipe.deepspeed)
        if checkpoint is not None and (checkpoint / "latest_universal").exists():
            deepspeed.setdefault("checkpoint", {})["load_universal"] = True
    return TrainingArguments(
        output_dir=recipe.output,
        max_steps=recipe.steps,
        per_device_train_batch_size=recipe.batch_size,
        gradient_accumulation_steps=recipe.gradient_accumulation,
        learning_rate=recipe.learning_rate,
        weight_decay=recipe.weight_decay,
        max_grad_norm=recipe.clip_norm,
        adam_beta1=recipe.betas[0],
        adam_beta2=recipe.betas[1],
        bf16=recipe.bf16,
        use_cpu=not torch.cuda.is_available(),
        deepspeed=deepspeed,
        # Every branch runs in every batch; what of tiny's first stages is not used in one is found out.
        ddp_find_unused_parameters=recipe.stage not in ("stage1", "stage2"),
        logging_steps=recipe.log_steps,
        logging_nan_inf_filter=False,
        save_steps=recipe.save_steps,
        ddp_timeout=processes.PATIENCE_SECONDS,
        dataloader_num_workers=recipe.workers,
        dataloader_prefetch_factor=4 if recipe.workers else None,
        dataloader_pin_memory=torch.cuda.is_available(),
        remove_unused_columns=False,
        report_to="none",
        disable_tqdm=True,
        seed=recipe.seed,
        include_num_input_tokens_seen="non_padding" if recipe.stage in ("decoder", "stage1", "stage2") else "no",
    )


def _deepspeed_config(path: str) -> dict[str, Any]:
    try:
        config = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}; give a file of train_configs/deepspeed") from None
    except ValueError as error:
        raise ConfigError(f"{path}: not JSON ({error}); correct it") from None
    if not isinstance(config, dict):
        raise ConfigError(f"{path}: holds no JSON object; give a file of train_configs/deepspeed")
    return config


def _zero_stage(config: dict[str, Any]) -> int:
    return int(config.get("zero_optimization", {}).get("stage", 0))


def _model(recipe: Recipe) -> tuple[Any, Any]:
    """The model of a recipe and its processor, with the trained parts of finished runs put in."""
    if recipe.world is not None:
        return assemble(recipe.start_from, recipe.seed, recipe.world.tokenizer)
    assert recipe.model is not None
    config = hub.read_config(hub.find(recipe.model))
    if hub.saved_bits(config) is not None:
        raise ConfigError(f"the model in {recipe.model} was saved quantised; give its full-precision folder to train")
    if not config.has_audio and "audio" in recipe.branches:
        raise ConfigError(f"the model in {recipe.model} has no audio branch; say branches: [video]")
    stage = _zero_stage(_deepspeed_config(recipe.deepspeed)) if recipe.deepspeed else 0
    if recipe.features and stage == 3:
        raise ConfigError(
            "ZeRO-3 spreads the encoders before features can be made; give zero2.json, or leave features out"
        )
    if recipe.fresh and stage == 3:
        raise ConfigError("ZeRO-3 spreads what learns before it can begin anew; give zero2.json, or leave 'fresh' out")
    half = recipe.bf16 and (torch.cuda.is_available() or recipe.bits or recipe.deepspeed)
    model, processor = hub.load(
        recipe.model,
        # With ZeRO-3, DeepSpeed puts the part of it that is this process's where it belongs.
        device="cpu" if stage == 3 else processes.device(),
        dtype=torch.bfloat16 if half else torch.float32,
        bits=recipe.bits,
    )
    if recipe.fresh:
        forget(model, recipe.branches)
    for folder in recipe.start_from:
        load_parts(_Holder(model), folder)
    return model, processor


def _add_low_rank_updates(model: Any, recipe: Recipe) -> float:
    """Put low-rank updates beside the decoder's layers; returns their scale, 0 without any."""
    if not recipe.lora_rank:
        return 0.0
    from peft import LoraConfig, inject_adapter_in_model

    alpha = 2.0 * recipe.lora_rank if recipe.lora_alpha is None else recipe.lora_alpha
    lora = LoraConfig(r=recipe.lora_rank, lora_alpha=alpha, target_modules=list(_LOW_RANK))  # pyright: ignore
    inject_adapter_in_model(lora, model.language_model)
    return alpha / recipe.lora_rank


# ---- what is learned, and from what


def _objective(recipe: Recipe, model: Any, processor: Any) -> tuple[nn.Module, Any, Any]:
    """(objective, samples by position, collate function) of a recipe."""
    if recipe.world is not None:
        return _world_objective(recipe, model, processor)
    ledger = Ledger(Path(recipe.output) / LEDGER_FILE, recipe.max_skipped_share)
    group = recipe.batch_size if recipe.batch_from_one_dataset else 1
    mixture = open_mixture(recipe.datasets, recipe.seed, group, ledger)
    items = TrainingItems(
        mixture,
        recipe.datasets,
        processor,
        _positions(recipe),
        max_tokens=recipe.max_tokens,
        cut=recipe.cut,
        max_caption_tokens=recipe.max_caption_tokens,
        media=_kept_media(recipe, model, processor, mixture)
        if recipe.features
        else FileMedia(processor, recipe.augment),
    )
    shown = {"video" for one in recipe.datasets if one.shown != "sound"}
    shown |= {"audio" for one in recipe.datasets if one.shown != "frames" and model.config.has_audio}
    objective = ConversationObjective(
        model, sorted(shown | set(recipe.branches)), kept=bool(recipe.features), datasets=len(recipe.datasets)
    )
    return objective, items, Collate(processor.tokenizer.pad_token_id)


def _kept_media(recipe: Recipe, model: Any, processor: Any, mixture: Any) -> KeptMedia:
    """The media of a recipe as kept encoder states; each process encodes its share of what is not kept yet."""
    assert recipe.features
    dtype = torch.bfloat16 if recipe.bf16 else torch.float32
    make_media_features(
        model, processor, mixture, recipe.datasets, recipe.features, recipe.workers, dtype,
        processes.rank(), processes.count(),
    )  # fmt: skip
    processes.wait()
    return KeptMedia(recipe.features, processor, encoder_name(model, processor, dtype))


def _world_objective(recipe: Recipe, model: Any, processor: Any) -> tuple[nn.Module, Any, Any]:
    world = recipe.world
    assert world is not None
    conversations = Collate(processor.tokenizer.pad_token_id)
    if recipe.stage == "vision":
        vision = model.config.vision_config
        data = world_samples.FrameSamples(
            processor, world.samples, vision.image_size, vision.image_size // vision.patch_size, recipe.seed
        )
        return VisionObjective(model), Revisited(data, recipe.seed), world_samples.stack
    if recipe.stage == "audio":
        data = world_samples.SegmentSamples(processor, world.samples, recipe.seed)
        return AudioObjective(model), Revisited(data, recipe.seed), world_samples.stack_segments
    if recipe.stage == "decoder":
        data = world_samples.DialogueSamples(
            processor, world.samples, world.turns, recipe.seed,
            emphasis=world.emphasis, only=world.only or None, kinds=world.kinds,
        )  # fmt: skip
        objective = DecoderObjective(model, world.noise, world.weigh)
        for folder in recipe.start_from:
            load_parts(objective, folder, heads=True)
        if world.words:
            objective.speak_in_words(processor.tokenizer)
        return objective, Revisited(data, recipe.seed), conversations
    assert recipe.features
    clips = world_samples.ClipSamples(processor, world.samples, recipe.seed)
    make_features(model, clips, recipe.features, max(1, recipe.workers))
    about = {"alignment": "facts", "stage1": "captions", "stage2": "dialogues"}[recipe.stage]
    items = world_samples.ClipItems(processor, world.turns, recipe.seed, about)
    data = Revisited(FeatureSamples(recipe.features, items), recipe.seed, items)
    if recipe.stage == "alignment":
        return AlignmentObjective(model), data, conversations
    if recipe.stage == "stage1":
        for folder in recipe.start_from:
            tensors, _ = read_parts(folder)
            accent = {kind: tensors.get(f"accent.{kind}.weight") for kind in ("video", "sound")}
            if None not in accent.values():
                add_accent(model, accent)
    return ConversationObjective(model, ("audio", "video"), kept=True), data, conversations


def _positions(recipe: Recipe) -> int:
    """Samples of the whole run, of all processes."""
    return recipe.steps * recipe.batch_size * recipe.gradient_accumulation * processes.count()


def _order(recipe: Recipe, data: Any) -> InOrder:
    count = _positions(recipe)
    if not recipe.length_grouped or not isinstance(data, TrainingItems):
        return InOrder(count)
    return LengthGrouped(count, count // recipe.steps, data.length, recipe.seed)


# ---- after


def _finish(recipe: Recipe, trainer: StageTrainer, data: Any, model: Any) -> None:
    """The whole model where it can chat, and what is to be told about the run."""
    output = Path(recipe.output)
    if recipe.model is not None:
        put_into_folder(hub.find(recipe.model), output, output / MODEL_FOLDER)
    elif recipe.stage in ("stage1", "stage2"):
        from videollm.training.export import export

        assert recipe.world is not None
        export((*recipe.start_from, recipe.output), recipe.world.tokenizer, output / MODEL_FOLDER, torch.float32)
    if isinstance(data, TrainingItems):
        used = Counter(data.mixture.sources[data.mixture.place(k).source].name for k in range(_positions(recipe)))
    else:
        used = Counter({"world": _positions(recipe)})
    write_report(
        output,
        recipe=recipe,
        model=model,
        history=trainer.state.log_history,
        used=used,
        ledger=output / LEDGER_FILE,
        batch_samples=_positions(recipe) // recipe.steps,
        processes=processes.count(),
    )

"""Runs a recipe: builds the model, chooses what learns, trains, and leaves the trained parts in the run's folder."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import nn
from transformers import TrainingArguments, set_seed

from videollm.data import world_samples
from videollm.errors import ConfigError
from videollm.training.features import FeatureSamples, make_features
from videollm.training.freeze import freeze, table_of_parts
from videollm.training.objectives import (
    AlignmentObjective,
    AudioObjective,
    ConversationObjective,
    DecoderObjective,
    VisionObjective,
    add_accent,
)
from videollm.training.recipe import Recipe
from videollm.training.tiny import build_tiny
from videollm.training.trainer import PARTS_FILE, StageTrainer, load_parts


class _Holder(nn.Module):
    """Gives a bare model the name that it has inside an objective."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model


def assemble(folders: tuple[str, ...], seed: int, tokenizer: str) -> tuple[Any, Any]:
    """`tiny` and its processor, with the trained parts of finished runs put in.

    Raises:
        ConfigError: a folder without trained parts.
    """
    model, processor = build_tiny(seed, tokenizer)
    for folder in folders:
        try:
            load_parts(_Holder(model), folder)
        except FileNotFoundError:
            raise ConfigError(
                f"{folder} holds no {PARTS_FILE}; run the recipe that writes it first (make tiny runs all in order)"
            ) from None
    return model, processor


def _objective(recipe: Recipe, model: Any, processor: Any) -> tuple[nn.Module, Any, Any]:
    """(objective, dataset, collate function) of a stage."""
    world = recipe.world
    assert world is not None
    conversations = world_samples.Conversations(processor.tokenizer.pad_token_id)
    if recipe.stage == "vision":
        vision = model.config.vision_config
        data = world_samples.FrameSamples(
            processor, world.samples, vision.image_size, vision.image_size // vision.patch_size, recipe.seed
        )
        return VisionObjective(model), data, world_samples.stack
    if recipe.stage == "audio":
        data = world_samples.SegmentSamples(processor, world.samples, recipe.seed)
        return AudioObjective(model), data, world_samples.stack_segments
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
        return objective, data, conversations
    assert recipe.features
    clips = world_samples.ClipSamples(processor, world.samples, recipe.seed)
    make_features(model, clips, recipe.features, max(1, recipe.workers))
    about = {"alignment": "facts", "stage1": "captions", "stage2": "dialogues"}[recipe.stage]
    items = world_samples.ClipItems(processor, world.turns, recipe.seed, about)
    data = FeatureSamples(recipe.features, items)
    if recipe.stage == "alignment":
        return AlignmentObjective(model), data, conversations
    return ConversationObjective(model), data, conversations


def train(recipe: Recipe, resume: bool = True) -> Path:
    """Run a recipe to its end.

    Args:
        recipe: what to do.
        resume: go on from the newest checkpoint in the run's folder, if there is one.

    Returns:
        the run's folder, which then holds the trained parts.
    """
    if recipe.world is None:
        raise ConfigError("a model's folder cannot be trained yet")
    torch.set_num_threads(recipe.threads)
    set_seed(recipe.seed)
    started = time.monotonic()
    model, processor = assemble(recipe.start_from, recipe.seed, recipe.world.tokenizer)
    objective, data, collate = _objective(recipe, model, processor)
    freeze(model, recipe.stage)
    if not torch.cuda.is_available():
        # The fused attention of the CPU is made for long rows: its backward pass takes half of a step on short ones.
        for part in (model.vision_model, model.qformer, model.video_qformer, model.audio_qformer, model.language_model):
            part.set_attn_implementation("eager")
    if recipe.lora_rank:
        from peft import LoraConfig, inject_adapter_in_model

        targets = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
        lora = LoraConfig(r=recipe.lora_rank, lora_alpha=2 * recipe.lora_rank, target_modules=targets)
        inject_adapter_in_model(lora, model.language_model)
    if recipe.stage == "stage1":
        for folder in recipe.start_from:
            tensors = load_file(Path(folder) / PARTS_FILE)
            accent = {kind: tensors.get(f"accent.{kind}.weight") for kind in ("video", "sound")}
            if None not in accent.values():
                add_accent(model, accent)
    print(table_of_parts(model), flush=True)
    output = Path(recipe.output)
    arguments = TrainingArguments(
        output_dir=str(output),
        max_steps=recipe.steps,
        per_device_train_batch_size=recipe.batch_size,
        learning_rate=recipe.learning_rate,
        lr_scheduler_type="cosine_with_min_lr",
        lr_scheduler_kwargs={"min_lr_rate": 0.1},
        warmup_steps=recipe.warmup_steps,
        weight_decay=recipe.weight_decay,
        max_grad_norm=recipe.clip_norm,
        adam_beta2=0.98,
        bf16=True,
        use_cpu=not torch.cuda.is_available(),
        logging_steps=recipe.log_steps,
        save_steps=recipe.save_steps,
        dataloader_num_workers=recipe.workers,
        dataloader_prefetch_factor=4 if recipe.workers else None,
        dataloader_persistent_workers=recipe.workers > 0,
        remove_unused_columns=False,
        report_to="none",
        disable_tqdm=True,
        seed=recipe.seed,
        include_num_input_tokens_seen="no",
    )
    trainer = StageTrainer(model=objective, args=arguments, train_dataset=data, data_collator=collate)
    checkpoints = sorted(output.glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))
    trainer.train(resume_from_checkpoint=str(checkpoints[-1]) if resume and checkpoints else None)
    if recipe.lora_rank:
        _merge(model)
    trainer._save(str(output / ".final"))
    (output / ".final" / PARTS_FILE).replace(output / PARTS_FILE)
    shutil.rmtree(output / ".final")
    print(f"{recipe.stage}: {recipe.steps} steps in {(time.monotonic() - started) / 60:.1f} minutes", flush=True)
    return output


def _merge(model: Any) -> None:
    """Put the low-rank updates into the decoder's own weights, which then count as trained."""
    from peft.tuners.lora import LoraLayer

    for parent in list(model.language_model.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, LoraLayer):
                child.merge()
                setattr(parent, name, child.get_base_layer())
    model.language_model.requires_grad_(True)

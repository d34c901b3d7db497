"""What a run of Video-LLaMA, or of `tiny` from nothing, is made of."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from videollm.data import world_samples
from videollm.data.collate import Collate, FileMedia, TrainingItems
from videollm.data.datasets import open_mixture
from videollm.data.ledger import Ledger
from videollm.errors import ConfigError
from videollm.models import hub
from videollm.training import processes
from videollm.training.features import (
    FeatureSamples,
    KeptMedia,
    ToolSamples,
    encoder_name,
    make_features,
    make_media_features,
)
from videollm.training.freeze import forget, freeze
from videollm.training.objectives import (
    AlignmentObjective,
    AudioObjective,
    ConversationObjective,
    DecoderObjective,
    ToolObjective,
    VisionObjective,
    add_accent,
    resemble,
)
from videollm.training.order import Revisited
from videollm.training.parts import Holder, load_parts, put_into_folder, read_parts
from videollm.training.pieces import Pieces, positions
from videollm.training.recipe import VideoLlamaRecipe
from videollm.training.tiny import build_tiny

_LOW_RANK = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def pieces(recipe: VideoLlamaRecipe, ledger: Ledger, given: Any = None) -> Pieces:
    """The pieces of a run.

    Args:
        recipe: of it.
        ledger: for samples that cannot be used.
        given: must be None: `tiny` learns from its world, and other models from datasets.

    Raises:
        ConfigError: a recipe that cannot be run here.
        DataError: a dataset that cannot be read.
    """
    if given is not None:
        raise ConfigError("Video-LLaMA learns from the recipe's datasets or its world; hand over no dataset")
    model, processor = _model(recipe)
    objective, data, collate = _objective(recipe, model, processor, ledger)
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
    real = isinstance(data, TrainingItems)
    can_chat = recipe.model is not None or recipe.stage in ("stage1", "stage2", "tools")
    return Pieces(
        model=model,
        objective=objective,
        data=data,
        collate=collate,
        save_model=(lambda folder: _save_model(recipe, folder)) if can_chat else None,
        mixture=data.mixture if real else None,
        source="world",
        by_dataset=real,
        low_rank_scale=scale,
        length=data.length if recipe.length_grouped and real else None,
    )


def _save_model(recipe: VideoLlamaRecipe, folder: Path) -> None:
    if recipe.model is not None:
        put_into_folder(hub.find(recipe.model), recipe.output, folder)
        return
    from videollm.training.export import export

    assert recipe.world is not None
    tools = recipe.stage == "tools"
    export((*recipe.start_from, recipe.output), recipe.world.tokenizer, folder, torch.float32, tools)


def assemble(folders: Sequence[str], seed: int, tokenizer: str, tools: bool = False) -> tuple[Any, Any]:
    """`tiny`, or with ``tools`` the one that calls them, and its processor, with the trained parts of finished runs.

    Raises:
        ConfigError: a folder without trained parts, or with parts of another model.
    """
    model, processor = build_tiny(seed, tokenizer, tools)
    for folder in folders:
        load_parts(Holder(model), folder)
    return model, processor


def _model(recipe: VideoLlamaRecipe) -> tuple[Any, Any]:
    """The model of a recipe and its processor, with the trained parts of finished runs put in."""
    if recipe.world is not None:
        return assemble(recipe.start_from, recipe.seed, recipe.world.tokenizer, recipe.stage == "tools")
    assert recipe.model is not None
    config = hub.read_config(hub.find(recipe.model))
    if hub.saved_bits(config) is not None:
        raise ConfigError(f"the model in {recipe.model} was saved quantised; give its full-precision folder to train")
    if not config.has_audio and "audio" in recipe.branches:
        raise ConfigError(f"the model in {recipe.model} has no audio branch; say branches: [video]")
    stage = processes.zero_stage(recipe.deepspeed)
    if recipe.features and stage == 3:
        raise ConfigError(
            "ZeRO-3 spreads the encoders before features can be made; give zero2.json, or leave features out"
        )
    if recipe.fresh and stage == 3:
        raise ConfigError("ZeRO-3 spreads what learns before it can begin anew; give zero2.json, or leave 'fresh' out")
    on_cpu = recipe.bits or (recipe.deepspeed and processes.computes_bf16())
    half = recipe.bf16 and (torch.cuda.is_available() or on_cpu)
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
        load_parts(Holder(model), folder)
    return model, processor


def _add_low_rank_updates(model: Any, recipe: VideoLlamaRecipe) -> float:
    """Put low-rank updates beside the decoder's layers; returns their scale, 0 without any."""
    if not recipe.lora_rank:
        return 0.0
    from peft import LoraConfig, inject_adapter_in_model

    alpha = 2.0 * recipe.lora_rank if recipe.lora_alpha is None else recipe.lora_alpha
    lora = LoraConfig(r=recipe.lora_rank, lora_alpha=alpha, target_modules=list(_LOW_RANK))  # pyright: ignore
    inject_adapter_in_model(lora, model.language_model)
    return alpha / recipe.lora_rank


# ---- what is learned, and from what


def _objective(recipe: VideoLlamaRecipe, model: Any, processor: Any, ledger: Ledger) -> tuple[nn.Module, Any, Any]:
    """(objective, samples by position, collate function) of a recipe."""
    if recipe.world is not None:
        return _world_objective(recipe, model, processor)
    group = recipe.batch_size if recipe.batch_from_one_dataset else 1
    mixture = open_mixture(recipe.datasets, recipe.seed, group, ledger)
    items = TrainingItems(
        mixture,
        recipe.datasets,
        processor,
        positions(recipe),
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


def _kept_media(recipe: VideoLlamaRecipe, model: Any, processor: Any, mixture: Any) -> KeptMedia:
    """The media of a recipe as kept encoder states; each process encodes its share of what is not kept yet."""
    assert recipe.features
    dtype = torch.bfloat16 if recipe.bf16 else torch.float32
    make_media_features(
        model, processor, mixture, recipe.datasets, recipe.features, recipe.workers, dtype,
        processes.rank(), processes.count(),
    )  # fmt: skip
    processes.wait()
    return KeptMedia(recipe.features, processor, encoder_name(model, processor, dtype))


def _world_objective(recipe: VideoLlamaRecipe, model: Any, processor: Any) -> tuple[nn.Module, Any, Any]:
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
    about = {"alignment": "facts", "stage1": "captions", "stage2": "dialogues", "tools": "dialogues"}[recipe.stage]
    items = world_samples.ClipItems(processor, world.turns, recipe.seed, about)
    if recipe.stage == "tools":
        samples = ToolSamples(recipe.features, items, world.first, world.emphasis)
    else:
        samples = FeatureSamples(recipe.features, items)
    data = Revisited(samples, recipe.seed, items)
    if recipe.stage == "alignment":
        return AlignmentObjective(model), data, conversations
    if recipe.stage == "tools":
        if world.first == 0:
            resemble(model, processor.tokenizer, "<result>", "<user>")
        held_to = assemble(world.held_to, recipe.seed, world.tokenizer, tools=True)[0] if world.held_to else None
        return ToolObjective(model, processor.call_token_ids, held_to), data, conversations
    if recipe.stage == "stage1":
        for folder in recipe.start_from:
            tensors, _ = read_parts(folder)
            accent = {kind: tensors.get(f"accent.{kind}.weight") for kind in ("video", "sound")}
            if None not in accent.values():
                add_accent(model, accent)
    return ConversationObjective(model, ("audio", "video"), kept=True), data, conversations

"""What a recipe will take on each GPU: memory, operations and time, computed on any machine without weights or a GPU.

A step of the run, at full size, is carried out on tensors that have sizes and no numbers (torch's FakeTensorMode):
every tensor that is alive is counted, and so is every multiplication. Weights are counted as they will be kept. What
CUDA itself takes and what its allocator loses is not in the figures: leave a tenth free. With gradient checkpointing
the figure is too high by about a fifth, with low-rank updates too by about a half (scripts/bench/training.py).

    python scripts/plan_training.py RECIPE... [--shape 7b|13b|DIR] [--processes N] [--set KEY=VALUE]

Time is the operations at ``--share`` of the chip's peak (``--peak`` in TFLOP/s of bf16: an A100 has 312, an H100 989).
"""

from __future__ import annotations

import argparse
import gc
import json
import math
import os
import sys
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import set_checkpoint_early_stop
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

from videollm.models import hub, memory
from videollm.models.video_llama import VideoLlamaConfig
from videollm.settings import load_settings
from videollm.training.freeze import freeze, rest
from videollm.training.recipe import VideoLlamaRecipe

ROOT = Path(__file__).resolve().parents[1]
FRAMES, SEGMENTS = 8, 8
"""Of a clip, as published."""
REQUEST_TOKENS = 96
"""Of the words around a caption that is asked for, in the longest of the published templates; rounded up."""
A100_TFLOPS, SHARE = 312.0, 0.4
GIB = 2**30


class AliveBytes(TorchDispatchMode):
    """Counts the bytes of tensors that operations make, as long as they are alive; to a fiftieth of the peak.

    Args:
        known: tensors that were there before.
    """

    def __init__(self, known: Sequence[torch.Tensor] = ()) -> None:
        super().__init__()
        self.now = self.peak = self._step = 0
        self._known = {value.untyped_storage()._cdata for value in known}

    def __enter__(self) -> Any:
        gc.collect()
        gc.freeze()  # what is there already needs no looking through
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        gc.unfreeze()

    def _gone(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.now -= size

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for value in result if isinstance(result, tuple | list) else (result,):
            if not isinstance(value, torch.Tensor):
                continue
            storage = value.untyped_storage()
            if storage._cdata not in self._known:
                self._known.add(storage._cdata)
                self.now += storage.nbytes()
                weakref.finalize(storage, self._gone, storage._cdata, storage.nbytes())
                if self.now > self.peak + self._step:
                    # Tensors in cycles are not alive: a run that is not watched lets them go sooner.
                    gc.collect()
                    self.peak = max(self.peak, self.now)
                    self._step = self.peak // 50
        return result


@dataclass(frozen=True)
class TrainingPlan:
    """What one GPU takes.

    Attributes:
        parameters, learning: of the model, and of those what learns.
        weights_bytes: as they are kept while it trains.
        step_bytes: the most that is alive beside them: gradients, states of the optimiser, activations.
        batch: samples in a pass of one GPU.
        tokens: of a sample, padded.
        operations: of a step of one GPU, all its passes together; a multiplication and an addition are two.
    """

    parameters: int
    learning: int
    weights_bytes: int
    step_bytes: int
    batch: int
    tokens: int
    operations: float

    @property
    def bytes(self) -> int:
        return self.weights_bytes + self.step_bytes

    def seconds(self, peak_tflops: float = A100_TFLOPS, share: float = SHARE) -> float:
        """Of a step."""
        return self.operations / (peak_tflops * 1e12 * share)


def sample_tokens(recipe: VideoLlamaRecipe, config: VideoLlamaConfig) -> int:
    """Tokens of the longest sample that the recipe admits, padded as its batches are."""
    soft = 0
    if "video" in recipe.branches:
        soft += config.num_video_query_tokens
    if "audio" in recipe.branches:
        soft += config.num_audio_query_tokens
    captions = all(dataset.learned_as == "caption" for dataset in recipe.datasets)
    if captions and recipe.max_caption_tokens is not None:
        asked = REQUEST_TOKENS if any(dataset.requests for dataset in recipe.datasets) else 0
        tokens = 1 + soft + asked + recipe.max_caption_tokens
    else:
        tokens = recipe.max_tokens or config.text_config.max_position_embeddings
    return math.ceil(tokens / 16) * 16


def learner(recipe: VideoLlamaRecipe, config: VideoLlamaConfig) -> Any:
    """The model of a recipe on the meta device, with what learns unfrozen, and low-rank updates where there are any."""
    model = memory.empty_model(config)
    freeze(model, recipe.stage, recipe.branches)
    if recipe.lora_rank:
        from peft import LoraConfig, inject_adapter_in_model

        targets = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
        alpha = recipe.lora_alpha or 2 * recipe.lora_rank
        low_rank = LoraConfig(r=recipe.lora_rank, lora_alpha=alpha, target_modules=targets)
        inject_adapter_in_model(low_rank, model.language_model, low_cpu_mem_usage=True)
    if recipe.gradient_checkpointing:
        model.language_model.activation_checkpointing_enable({"use_reentrant": False})
    return model


def place(model: Any, recipe: VideoLlamaRecipe) -> int:
    """Move a model from meta to where a `FakeTensorMode` takes it to have numbers; returns the bytes of its weights."""
    kept = memory.PRECISIONS[f"{recipe.bits}-bit" if recipe.bits else "bf16" if recipe.bf16 else "fp32"]
    number = torch.bfloat16 if recipe.bf16 else torch.float32
    size = 0
    # What learns is held in full precision.
    for weight, parameter in zip(memory.weights_of(model), model.parameters(), strict=True):
        size += 4 * parameter.numel() if parameter.requires_grad else weight.bytes(kept)
    for module in model.modules():
        for name, value in module.named_parameters(recurse=False):
            made = torch.empty(value.shape, dtype=torch.float32 if value.requires_grad else number)
            module.register_parameter(name, torch.nn.Parameter(made, value.requires_grad))
        for name, value in module.named_buffers(recurse=False):
            module.register_buffer(name, torch.empty(value.shape, dtype=value.dtype))
    model.train()
    rest(model)
    return size


def step(model: Any, recipe: VideoLlamaRecipe, tokens: int, learned: int) -> torch.Tensor:
    """The loss of a batch as large as the recipe makes it."""
    config, batch = model.config, recipe.batch_size
    soft = []
    if "video" in recipe.branches:
        size, frame = config.vision_config.image_size, config.qformer_config.hidden_size
        if recipe.features:
            states = torch.zeros(batch, FRAMES, config.num_query_tokens, frame, dtype=torch.bfloat16)
            soft.append(model.get_video_features(frame_states=states, frame_seconds=torch.zeros(batch, FRAMES)))
        else:
            pixels = torch.zeros(batch, FRAMES, 3, size, size)
            soft.append(model.get_video_features(pixels, frame_seconds=torch.zeros(batch, FRAMES)))
    if "audio" in recipe.branches:
        audio = config.audio_config
        seconds = torch.zeros(batch, SEGMENTS)
        if recipe.features:
            states = torch.zeros(batch, SEGMENTS, audio.projection_dim, dtype=torch.bfloat16)
            soft.append(model.get_audio_features(segment_states=states, segment_seconds=seconds))
        else:
            mel = torch.zeros(batch, SEGMENTS, 1, audio.num_mel_bins, audio.target_length)
            soft.append(model.get_audio_features(mel, segment_seconds=seconds))
    rows = torch.cat(soft, dim=1)
    words = model.get_input_embeddings()(torch.zeros(batch, tokens - rows.shape[1], dtype=torch.long))
    embeds = torch.cat([rows.to(words), words], dim=1)
    mask = torch.ones(batch, 1, tokens, tokens, dtype=torch.bool)
    logits = model(inputs_embeds=embeds, attention_mask=mask, use_cache=False).logits[:, -learned:].flatten(0, 1)
    return torch.nn.functional.cross_entropy(logits.float(), torch.zeros(len(logits), dtype=torch.long))


def _forward_operations(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    return sdpa_flop_count(query, key, value)


def _backward_operations(grad: Any, query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    return sdpa_backward_flop_count(grad, query, key, value)


ATTENTION = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _forward_operations,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: _backward_operations,
}


def plan(recipe: VideoLlamaRecipe, config: VideoLlamaConfig, processes: int = 1) -> TrainingPlan:
    """Carry out a step without numbers.

    Args:
        recipe: of stage 1 or 2, from a model's folder.
        config: of that model.
        processes: GPUs; with DeepSpeed they share states of the optimiser, with ZeRO-3 weights, too.
    """
    tokens = sample_tokens(recipe, config)
    learned = recipe.max_caption_tokens if tokens < (recipe.max_tokens or math.inf) else None
    model = learner(recipe, config)
    weights = memory.weights_of(model)
    # Early stopping raises an error through the modes, and its traceback keeps tensors alive that a real run lets go.
    with FakeTensorMode(), set_checkpoint_early_stop(False):
        weights_bytes = place(model, recipe)
        learning = [value for value in model.parameters() if value.requires_grad]
        numbers = sum(value.numel() for value in learning)
        total = sum(value.numel() for value in model.parameters())
        optimizer = torch.optim.AdamW(learning, lr=recipe.learning_rate, foreach=False)
        alive = AliveBytes([*model.parameters(), *model.buffers()])
        operations = FlopCounterMode(display=False, custom_mapping=ATTENTION)
        with alive:
            for value in learning:
                value.grad = torch.zeros_like(value)
            optimizer.step()  # its states are there from the first step on
            if recipe.gradient_accumulation == 1:
                optimizer.zero_grad()
            with operations:
                with torch.autocast("cpu", torch.bfloat16, enabled=recipe.bf16):
                    loss = step(model, recipe, tokens, learned or tokens)
                loss.backward()
            optimizer.step()
    peak = alive.peak
    if recipe.bits:  # a weight is unpacked while it is used
        peak += max(math.prod(one.shape) for one in weights if one.quantised) * 2
    zero = 0
    if recipe.deepspeed:
        settings = json.loads((ROOT / recipe.deepspeed).read_text(encoding="utf-8"))
        zero = settings.get("zero_optimization", {}).get("stage", 0)
    share = 1 - 1 / processes
    if zero:  # states of the optimiser, and from stage 2 on gradients, are spread
        peak -= int((8 if zero == 1 else 12) * numbers * share)
    if zero == 3:
        weights_bytes -= int(weights_bytes * share)
    return TrainingPlan(
        parameters=total, learning=numbers, weights_bytes=weights_bytes, step_bytes=peak, batch=recipe.batch_size,
        tokens=tokens, operations=float(operations.get_total_flops() * recipe.gradient_accumulation),
    )  # fmt: skip


def shape_of(name: str) -> VideoLlamaConfig:
    """A published size by name, or the shape of a model's folder."""
    return VideoLlamaConfig.preset(name) if name in ("7b", "13b") else hub.read_config(hub.find(name))


def lines(recipe: VideoLlamaRecipe, found: TrainingPlan, processes: int, peak: float, share: float) -> list[str]:
    """A table."""
    seconds = found.seconds(peak, share)
    samples = found.batch * recipe.gradient_accumulation * processes
    return [
        f"parameters              {found.parameters:>16,}",
        f"of these learn          {found.learning:>16,}",
        f"weights                 {found.weights_bytes / GIB:>12.1f} GiB",
        f"beside them in a step   {found.step_bytes / GIB:>12.1f} GiB   {found.batch} samples of {found.tokens} tokens",
        f"in all on each GPU      {found.bytes / GIB:>12.1f} GiB",
        f"operations of a step    {found.operations / 1e12:>12.1f} TFLOP on each GPU",
        f"a step                  {seconds:>12.2f} s     at {share:.0%} of {peak:g} TFLOP/s; {samples} samples on "
        f"{processes} GPU{'s' if processes > 1 else ''}: {samples / seconds:.0f} a second",
        f"the run                 {recipe.steps * seconds / 3600:>12.1f} h     {recipe.steps:,} steps",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipes", nargs="+", metavar="RECIPE")
    parser.add_argument("--shape", default="7b", help="7b, 13b, or a model's folder")
    parser.add_argument("--processes", type=int, default=1, help="GPUs")
    parser.add_argument("--peak", type=float, default=A100_TFLOPS, help="TFLOP/s of the chip")
    parser.add_argument("--share", type=float, default=SHARE, help="of the peak that is reached")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="change a key of the recipe")
    args = parser.parse_args()
    for path in args.recipes:
        recipe = load_settings(path, VideoLlamaRecipe, args.set)
        found = plan(recipe, shape_of(args.shape), args.processes)
        print(f"{path}, shape {args.shape}, computed:")
        print("\n".join(lines(recipe, found, args.processes, args.peak, args.share)), end="\n\n", flush=True)


if __name__ == "__main__":
    main()

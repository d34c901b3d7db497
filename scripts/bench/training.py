"""Training speed with and without kept encoder states, loader workers, and what checkpointing and QLoRA save.

1. Samples a second of `videollm train` itself on the model of midsize.json, from video files and from kept states,
   with one loader worker and with two; the ways take turns in every round. Beside it the operations of a step, counted
   while one is made: kept states should be faster by at least 0.8 of what the operations predict.
2. Bytes of tensors alive in a step of that model: with and without gradient checkpointing; a decoder in 4 bits with
   low-rank updates, in bfloat16 with them, and learning as a whole. Beside them what scripts/plan_training.py computes.
3. On a GPU, a stage-1 step at full size (ViT-g, 7B, bfloat16, ZeRO-2, files decoded while it runs): samples a second,
   memory beside its plan, share of the chip's peak.

    python scripts/bench/training.py [--rounds N] [--steps N] [--quick] [--folder DIR]

Weights are random, precision is float32 but where it says otherwise. Exits with 1 where the goal is missed.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import io
import json
import logging
import os
import shutil
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parent))

import numpy as np
import torch
from plan_training import AliveBytes, lines, plan, step
from quantisation import kept_bytes
from speed import random_folder
from torch.utils.flop_counter import FlopCounterMode
from turns import midsize, proportion

from videollm.data.datasets import Dataset
from videollm.media.write import write_video
from videollm.models import hub
from videollm.models.video_llama import VideoLlamaConfig
from videollm.training.freeze import freeze, rest
from videollm.training.recipe import VideoLlamaRecipe
from videollm.training.run import train

GOAL = 0.8
FILES, SIDE_PX, FPS, SECONDS = 16, 256, 8, 4
WARM_STEPS = 2
PEAKS_TFLOPS = {"A100": 312.0, "H100": 989.0, "H200": 989.0, "L40S": 362.0, "A10G": 70.0, "4090": 165.0}
"""Of bfloat16 without sparsity, as their makers state them."""
MIB = 2**20


def write_films(folder: Path, count: int) -> Path:
    """Films of drifting gradients, and captions of them in a JSONL file."""
    folder.mkdir()
    rows, columns = np.mgrid[:SIDE_PX, :SIDE_PX]
    samples = []
    for number in range(count):
        shades = [(rows * (number + 1) + columns + 8 * frame) % 256 for frame in range(FPS * SECONDS)]
        frames = np.stack([np.stack([shade, shade[::-1], 255 - shade], -1) for shade in shades]).astype(np.uint8)
        write_video(folder / f"{number}.mp4", frames, fps=FPS)
        words = (
            f"What happens in the video after the {number} scene, and how does the colour of the shape in it change?"
        )
        messages = [
            {"role": "user", "parts": [{"type": "video", "clip": "film"}]},
            {"role": "assistant", "parts": [{"type": "text", "text": words}]},
        ]
        samples.append({"id": str(number), "messages": messages, "media": {"film": {"path": f"{number}.mp4"}}})
    path = folder / "captions.jsonl"
    path.write_text("".join(json.dumps(sample) + "\n" for sample in samples))
    return path


def run(recipe: VideoLlamaRecipe) -> list[dict[str, Any]]:
    """Train, and return what was logged of each step."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        folder = train(recipe, resume=False)
    state = json.loads((folder / f"checkpoint-{recipe.steps}" / "trainer_state.json").read_text())
    shutil.rmtree(folder)
    return [log for log in state["log_history"] if "loss" in log]


def rate(recipe: VideoLlamaRecipe) -> float:
    """Samples a second behind the first steps."""
    logs = run(recipe)
    steps, seconds = len(logs) - WARM_STEPS, logs[-1]["seconds"] - logs[WARM_STEPS - 1]["seconds"]
    return recipe.batch_size * recipe.gradient_accumulation * steps / seconds


def speed(folder: Path, rounds: int, steps: int) -> bool:
    """The first part; returns whether the goal is met."""
    model, processor = midsize()
    print(proportion(model))
    model.save_pretrained(folder / "model")
    processor.save_pretrained(folder / "model")
    data = Dataset("jsonl", str(write_films(folder / "films", FILES)), shown="frames", form="caption")
    files = VideoLlamaRecipe(
        stage="stage1", model=str(folder / "model"), output=str(folder / "run"), datasets=(data,), branches=("video",),
        steps=steps + WARM_STEPS, batch_size=4, learning_rate=1e-4, bf16=False, threads=1, workers=1,
        log_steps=1, save_steps=steps + WARM_STEPS,
    )  # fmt: skip
    kept = dataclasses.replace(files, features=str(folder / "features"))
    run(dataclasses.replace(kept, steps=1, save_steps=1, workers=0))  # makes the states
    counted = {}
    for name, way in (("files", files), ("kept", kept)):
        with FlopCounterMode(display=False) as counter:
            run(dataclasses.replace(way, steps=1, save_steps=1, workers=0))
        counted[name] = counter.get_total_flops() / files.batch_size
    ways = {
        f"{name}, {workers} worker{'s' if workers > 1 else ''}": dataclasses.replace(way, workers=workers)
        for name, way in (("video files", files), ("kept states", kept))
        for workers in (1, 2)
    }
    rates: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            rates[name].append(rate(way))
    for name, found in rates.items():
        median = statistics.median(found)
        print(f"  {name:<22}: {median:6.2f} samples/s [{min(found):.2f}-{max(found):.2f}]")
    films, states = rates["video files, 1 worker"], rates["kept states, 1 worker"]
    ratios = [after / before for before, after in zip(films, states, strict=True)]
    ratio, predicted = statistics.median(ratios), counted["files"] / counted["kept"]
    met = ratio >= GOAL * predicted
    print(
        f"  kept states: {ratio:.2f} times [{min(ratios):.2f}-{max(ratios):.2f}] as fast; operations of a sample "
        f"{counted['files'] / 1e9:.1f} and {counted['kept'] / 1e9:.1f} GFLOP predict {predicted:.2f}; "
        f"{ratio / predicted:.2f} of it, goal {GOAL}: {'met' if met else 'MISSED'}"
    )
    print(
        f"  ({rounds} rounds of {steps} steps of {files.batch_size} samples behind {WARM_STEPS}; one thread of torch,"
    )
    print(f"  {os.cpu_count()} cores; {SIDE_PX} px files of {SECONDS} s at {FPS} frames a second, 8 frames shown)")
    return met


def alive(model: Any, recipe: VideoLlamaRecipe, tokens: int) -> int:
    """Bytes of tensors that are alive at most in a step, beside the weights, states of the optimiser among them."""
    learning = [value for value in model.parameters() if value.requires_grad]
    optimizer = torch.optim.AdamW(learning, lr=1e-4, foreach=False)
    counter = AliveBytes([*model.parameters(), *model.buffers()])
    with counter:
        for value in learning:
            value.grad = torch.zeros_like(value)
        optimizer.step()
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=recipe.bf16):
            loss = step(model, recipe, tokens, tokens)
        loss.backward()
        optimizer.step()
    return counter.peak


def memory(folder: Path) -> None:
    """The second part."""
    base = VideoLlamaRecipe(
        stage="stage2", model=str(folder / "model"), output=str(folder / "run"), steps=1, batch_size=2,
        learning_rate=1e-4, branches=("video",), max_tokens=512, datasets=(Dataset("jsonl", "films.jsonl"),),
    )  # fmt: skip
    low_rank = {"lora_rank": 16, "gradient_checkpointing": True}
    ways: dict[str, tuple[dict[str, Any], bool]] = {
        "Q-Former learns": ({}, False),
        "  and activations are computed again": ({"gradient_checkpointing": True}, False),
        "4-bit decoder, low-rank updates (QLoRA)": ({"bits": 4, **low_rank}, False),
        "bf16 decoder, low-rank updates": (low_rank, False),
        "bf16 decoder learns as a whole": ({"gradient_checkpointing": True}, True),
    }
    print(f"\nmemory of a step: {base.batch_size} samples of {base.max_tokens} tokens, 8 frames each, bfloat16:")
    for name, (changes, whole) in ways.items():
        recipe = dataclasses.replace(base, **changes)
        model, _ = hub.load(folder / "model", device="cpu", dtype=torch.bfloat16, bits=recipe.bits)
        freeze(model, recipe.stage, recipe.branches)
        if recipe.lora_rank:
            from peft import LoraConfig, inject_adapter_in_model

            targets = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
            inject_adapter_in_model(LoraConfig(r=recipe.lora_rank, target_modules=targets), model.language_model)
        for value in model.parameters():
            if value.requires_grad:
                value.data = value.data.float()
        if whole:
            model.language_model.requires_grad_(True)
        if recipe.gradient_checkpointing:
            model.language_model.activation_checkpointing_enable({"use_reentrant": False})
        model.train()
        rest(model)
        weights = kept_bytes(model) if recipe.bits else 0
        packed = {id(m.weight) for m in model.modules() if type(m).__name__ == "Linear4bit"}
        weights += sum(value.nbytes for value in model.parameters() if id(value) not in packed)
        beside = alive(model, recipe, recipe.max_tokens or 0)
        line = f"  {name:<40}{weights / MIB:7.1f} MiB of weights and {beside / MIB:7.1f} beside them"
        if not whole:
            computed = plan(recipe, model.config)
            line += f"; computed {computed.weights_bytes / MIB:.1f} and {computed.step_bytes / MIB:.1f}"
        print(line, flush=True)
        del model


def full_size(folder: Path, steps: int) -> None:
    """The third part."""
    root = Path(__file__).resolve().parents[2]
    print("\nstage-1 step at full size: ViT-g, 7B, bfloat16, ZeRO-2")
    recipe = VideoLlamaRecipe(
        stage="stage1", model=str(folder / "7b"), output=str(folder / "run"), branches=("video",), fresh=True,
        datasets=(Dataset("jsonl", str(folder / "films" / "captions.jsonl"), shown="frames", form="caption"),),
        steps=steps + WARM_STEPS, batch_size=32, learning_rate=1e-4, max_caption_tokens=32, workers=8,
        deepspeed=str(root / "train_configs/deepspeed/zero2.json"), log_steps=1, save_steps=steps + WARM_STEPS,
    )  # fmt: skip
    computed = plan(recipe, VideoLlamaConfig.preset("7b"))
    chip = torch.cuda.get_device_name() if torch.cuda.is_available() else "A100"
    peak = next((value for name, value in PEAKS_TFLOPS.items() if name in chip), None)
    if not torch.cuda.is_available():
        print("  not run: there is no CUDA device here. Computed, for an A100:")
        print("\n".join(f"  {line}" for line in lines(recipe, computed, 1, PEAKS_TFLOPS["A100"], 0.4)[:-1]))
        return
    random_folder("7b", folder / "7b")
    torch.cuda.reset_peak_memory_stats()
    found = rate(recipe)
    reached = computed.operations * found / recipe.batch_size
    print(
        f"  {chip}: {found:.1f} samples/s; {torch.cuda.max_memory_allocated() / 2**30:.1f} GiB at most, computed "
        f"{computed.bytes / 2**30:.1f}; {reached / 1e12:.0f} TFLOP/s"
        + (f", {reached / 1e12 / peak:.0%} of its {peak:g}" if peak else "; its peak is not known here")
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=12, help="of each run, that are timed")
    parser.add_argument("--folder", help="for weights and films; default: a temporary one")
    parser.add_argument("--quick", action="store_true", help="one round of few steps; the goal is not judged")
    args = parser.parse_args()
    logging.disable(logging.WARNING)
    with tempfile.TemporaryDirectory(dir=args.folder) as name:
        folder = Path(name)
        met = speed(folder, 1 if args.quick else args.rounds, 3 if args.quick else args.steps)
        memory(folder)
        full_size(folder, 3 if args.quick else 20)
    sys.exit(not (met or args.quick))


if __name__ == "__main__":
    main()

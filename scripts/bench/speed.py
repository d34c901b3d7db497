"""Encoding, prefill and words a second, beside eager attention without a cache; on a GPU also 7B and 13B.

Both ways of the first part are measured in turn within each round, on the model of midsize.json with random weights,
and must give the same. The package's way: fused attention, keys and values kept. The other way: attention that holds
all scores, and the whole text computed anew for each word.

The second part needs CUDA. Random weights of the published sizes are written to a folder, and loaded in bfloat16, 8 and
4 bits by the package: load time (files in the page cache), memory beside its plan, time to the first word about an
8-frame clip, and words a second against what the memory's bandwidth allows, where each word reads the decoder once.

Random weights say tokens, not words: one is counted for the other.

    python scripts/bench/speed.py [--dtype float32|bfloat16] [--rounds N] [--threads N] [--quick]
                                  [--gpu 7b,13b] [--folder DIR]
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import json
import logging
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
sys.path.insert(0, str(Path(__file__).resolve().parent))

import torch
from safetensors.torch import save_file
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import DynamicCache
from turns import midsize, noise_clip

from videollm.chat.session import ChatSession
from videollm.models import hub, memory
from videollm.models.video_llama import VideoLlamaConfig, VideoLlamaForConditionalGeneration, VideoLlamaProcessor
from videollm.models.video_llama.tiny_tokenizer import SPECIAL_TOKENS

PROMPT_TOKENS = 512
SHARD_BYTES = 4 * 2**30


@torch.inference_mode()
def fused_words(model: Any, embeds: torch.Tensor, count: int) -> tuple[list[int], float]:
    """Greedy ids after a prompt, keys and values kept; and seconds after the prefill."""
    cache = DynamicCache(config=model.language_model.config)
    logits = model(inputs_embeds=embeds, past_key_values=cache, use_cache=True, logits_to_keep=1).logits
    ids: list[int] = []
    started = now(embeds.device)
    while True:
        ids.append(int(logits[0, -1].argmax()))
        if len(ids) > count:
            return ids, now(embeds.device) - started
        step = model.get_input_embeddings()(torch.tensor([ids[-1:]], device=embeds.device))
        logits = model(inputs_embeds=step, past_key_values=cache, use_cache=True, logits_to_keep=1).logits


@torch.inference_mode()
def eager_words(model: Any, embeds: torch.Tensor, count: int) -> tuple[list[int], float]:
    """The same, the whole text computed anew for each id."""
    ids: list[int] = []
    started = 0.0
    while True:
        logits = model(inputs_embeds=embeds, use_cache=False, logits_to_keep=1).logits
        ids.append(int(logits[0, -1].argmax()))
        if len(ids) == 1:
            started = now(embeds.device)
        if len(ids) > count:
            return ids, now(embeds.device) - started
        step = model.get_input_embeddings()(torch.tensor([ids[-1:]], device=embeds.device))
        embeds = torch.cat([embeds, step], dim=1)


def now(device: torch.device) -> float:
    """Seconds, when all work given to the device is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def compare(dtype: torch.dtype, rounds: int, quick: bool) -> None:
    """The first part."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    ours = midsize()[0].to(device, dtype)
    eager = VideoLlamaForConditionalGeneration._from_config(ours.config, attn_implementation="eager")
    eager = eager.to(device, dtype).eval()
    eager.load_state_dict(ours.state_dict())
    words = 4 if quick else 16
    draw = torch.Generator().manual_seed(0)

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=draw).to(device, dtype)

    pixels, audio = random(32, 3, 224, 224), ours.config.audio_config
    mel = random(8, 1, audio.num_mel_bins, audio.target_length)
    embeds = random(1, PROMPT_TOKENS, ours.config.text_config.hidden_size) * 0.02

    def frames(model: Any, count: int) -> torch.Tensor:
        return model.get_video_features(pixels[None, :count])

    def sounds(model: Any) -> torch.Tensor:
        return model.get_audio_features(mel[None])

    def prefill(model: Any, cache: bool) -> torch.Tensor:
        return model(inputs_embeds=embeds, use_cache=cache, logits_to_keep=1).logits

    tasks: dict[str, tuple[Callable[[], Any], Callable[[], Any]]] = {
        "encoding 8 frames": (lambda: frames(ours, 8), lambda: frames(eager, 8)),
        "encoding 32 frames": (lambda: frames(ours, 32), lambda: frames(eager, 32)),
        "encoding 8 sound clips": (lambda: sounds(ours), lambda: sounds(eager)),
        f"prefill of {PROMPT_TOKENS}": (lambda: prefill(ours, True), lambda: prefill(eager, False)),
    }
    if quick:
        del tasks["encoding 32 frames"]
    kind = str(dtype).removeprefix("torch.")
    print(f"midsize.json, random weights, {kind}, {device}, {torch.get_num_threads()} threads")
    print(f"{'':<24}{'fused':>14}{'eager':>14}{'ratio':>8}   median of {rounds} rounds, in turn")
    for name, (fused_way, eager_way) in tasks.items():
        seconds: list[list[float]] = [[], []]
        results: list[Any] = [None, None]
        for turn in range(rounds + 1):  # the first warms up
            for way, (run, kernels) in enumerate(
                ((fused_way, contextlib.nullcontext()), (eager_way, sdpa_kernel(SDPBackend.MATH)))
            ):
                with torch.inference_mode(), kernels:
                    started = now(device)
                    results[way] = run()
                    taken = now(device) - started
                if turn:
                    seconds[way].append(taken)
        check_same(name, results[0], results[1], dtype)
        show(name, seconds[0], seconds[1], "s")
    rates: list[list[float]] = [[], []]
    for turn in range(rounds + 1):
        ids, taken = fused_words(ours, embeds, words)
        with sdpa_kernel(SDPBackend.MATH):
            other, longer = eager_words(eager, embeds, words)
        if dtype == torch.float32 and ids != other:
            sys.exit("the two ways said different words: nothing was measured")
        if turn:
            rates[0].append(words / taken)
            rates[1].append(words / longer)
    show(f"words behind {PROMPT_TOKENS}", rates[0], rates[1], "/s")


def check_same(name: str, a: torch.Tensor, b: torch.Tensor, dtype: torch.dtype) -> None:
    """Ends the run where the two ways compute different things."""
    allowed = 1e-3 if dtype == torch.float32 else 0.1
    if float((a - b).float().norm() / b.float().norm()) > allowed:
        sys.exit(f"{name}: the two ways gave different results: nothing was measured")


def show(name: str, ours: list[float], eager: list[float], unit: str) -> None:
    """One line: both ways, and how many times the first is better."""
    a, b = statistics.median(ours), statistics.median(eager)
    pairs = [x / y if unit == "/s" else y / x for x, y in zip(ours, eager, strict=True)]
    print(
        f"{name:<24}{a:>11.4g} {unit:<2}{b:>11.4g} {unit:<2}{statistics.median(pairs):>8.2f}   "
        f"[{min(pairs):.2f}-{max(pairs):.2f}]",
        flush=True,
    )


# ---- published sizes, on a GPU


def random_folder(size: str, folder: Path) -> VideoLlamaProcessor:
    """A folder of the published shape with random weights in bfloat16, and a small tokenizer of its own."""
    _, processor = midsize()
    config = VideoLlamaConfig.preset(size)
    tokenizer = processor.tokenizer
    ids = {name.strip("<>"): tokenizer.convert_tokens_to_ids(name) for name in SPECIAL_TOKENS}
    config.video_token_id, config.audio_token_id = ids["video"], ids["audio"]
    config.bos_token_id, config.pad_token_id, config.eos_token_id = ids["bos"], ids["pad"], None
    config.text_config.bos_token_id, config.text_config.pad_token_id = ids["bos"], ids["pad"]
    config.text_config.eos_token_id = None
    config.dtype = torch.bfloat16
    config.architectures = ["VideoLlamaForConditionalGeneration"]
    folder.mkdir(parents=True, exist_ok=True)
    config.save_pretrained(folder)
    model = memory.empty_model(config)
    draw = torch.Generator("cuda").manual_seed(0)
    shard: dict[str, torch.Tensor] = {}
    places: dict[str, str] = {}
    total = held = number = 0

    def write() -> None:
        nonlocal shard, held, number
        number += 1
        name = f"model-{number:05}.safetensors"
        save_file(shard, folder / name, metadata={"format": "pt"})
        places.update(dict.fromkeys(shard, name))
        shard, held = {}, 0

    for name, value in model.state_dict().items():
        norm = value.ndim == 1 and name.endswith("weight")
        made = torch.randn(value.shape, generator=draw, device="cuda", dtype=torch.float32) * 0.02 + (
            1.0 if norm else 0.0
        )
        shard[name] = made.to(torch.bfloat16).cpu()
        held += shard[name].nbytes
        total += shard[name].nbytes
        if held >= SHARD_BYTES:
            write()
    write()
    index = {"metadata": {"total_size": total}, "weight_map": places}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    processor = VideoLlamaProcessor.for_model(
        config, tokenizer, template="tiny", separate_text=True, time_sentence=False
    )
    processor.save_pretrained(folder)
    return processor


def bandwidth() -> float:
    """Bytes a second that the GPU reads and writes when it copies."""
    source = torch.empty(2**30, dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    best = 0.0
    for _ in range(10):
        started = now(source.device)
        target.copy_(source)
        best = max(best, 2 * source.nbytes / (now(source.device) - started))
    return best


def published(size: str, folder: Path, rounds: int, quick: bool) -> None:
    """The second part, for one size."""
    random_folder(size, folder)
    limit = bandwidth()
    print(f"\n{size}, random weights, {torch.cuda.get_device_name()}, copies at {limit / 1e9:.0f} GB/s")
    words, rates = 16 if quick else 128, {}
    for bits in (None, 8, 4):
        gc.collect()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        device = torch.device("cuda:0")
        started = now(device)
        model, processor = hub.load(folder, device=device, dtype="bfloat16", bits=bits)
        load_seconds = now(device) - started
        weights = memory.weights_of(memory.empty_model(model.config))
        name = "bf16" if bits is None else f"{bits}-bit"
        plan = memory.plan(model.config, name, model=size, weights=weights)
        firsts, seconds = [], []
        for turn in range(rounds + 1):
            session = ChatSession(model, processor, max_new_tokens=1)  # nothing of the clip is at hand
            session.add(noise_clip())
            started = now(device)
            session.ask("What happens?")
            if turn:
                firsts.append(now(device) - started)
            embeds = torch.zeros(1, PROMPT_TOKENS, model.config.text_config.hidden_size, device=device)
            _, taken = fused_words(model, embeds.to(torch.bfloat16), words)
            if turn:
                seconds.append(taken / words)
        read = sum(
            w.bytes(plan.precision) for w in weights if w.name.startswith(memory.DECODER) and "embed" not in w.name
        )
        rate = rates[name] = 1 / statistics.median(seconds)
        print(
            f"  {name:<6}: loaded in {load_seconds:.1f} s; weights {torch.cuda.memory_allocated() / 2**30:.2f} GiB, "
            f"peak {torch.cuda.max_memory_allocated() / 2**30:.2f} (plan {plan.weights_bytes / 2**30:.2f} and "
            f"{plan.total_bytes / 2**30:.2f}); first word {statistics.median(firsts):.3f} s; {rate:.1f} words/s, "
            f"{rate * read / limit:.2f} of the limit by bandwidth, {rate / rates['bf16']:.2f} of bf16",
            flush=True,
        )
        del model, session, embeds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, help="default: as many as torch takes")
    parser.add_argument("--quick", action="store_true", help="one round of less: does it run at all?")
    parser.add_argument("--gpu", default="7b,13b", help="published sizes to measure where there is CUDA; '' for none")
    parser.add_argument(
        "--folder", type=Path, help="where their random weights are put (30 GB); default: a temporary one"
    )
    args = parser.parse_args()
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    if args.threads:
        torch.set_num_threads(args.threads)
    rounds = 1 if args.quick else args.rounds
    compare(getattr(torch, args.dtype), rounds, args.quick)
    if not torch.cuda.is_available():
        print("7B and 13B: skipped, there is no CUDA device here")
        return
    for size in filter(None, args.gpu.split(",")):
        folder = Path(tempfile.mkdtemp(dir=args.folder))
        try:
            published(size, folder, rounds, args.quick)
        finally:
            shutil.rmtree(folder)


if __name__ == "__main__":
    main()

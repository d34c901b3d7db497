"""What 4 and 8 bits keep: bytes of real quantised layers, and the accuracy of `tiny` on questions about its world.

1. A decoder of over 100 M random parameters is saved, loaded in 4 and in 8 bits, and all that its linear layers keep
   in memory is counted, before and after they were used (on a CPU bitsandbytes may repack them). Beside it, the memory
   plan of the same, and of the whole 7B and 13B decoders.
2. The same questions about the same held-out films go to `tiny` in float32, 8 bits and 4 bits, film by film in turn;
   answers are greedy.

    python scripts/bench/quantisation.py [--films N] [--questions N] [--quick]

Exits with 1 where a goal is missed. Takes a few minutes.
"""

from __future__ import annotations

import argparse
import logging
import math
import os
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
sys.path.insert(0, str(Path(__file__).resolve().parent))

import torch
from turns import midsize

from videollm.evaluation.benchmark import WorldBenchmark
from videollm.evaluation.qa import Item
from videollm.evaluation.world import Examiner, share_out
from videollm.models import hub, memory
from videollm.models.video_llama import VideoLlamaConfig, VideoLlamaForConditionalGeneration

LINEAR_GOAL, DECODER_GOAL, ACCURACY_GOAL = 0.28, 0.31, 0.97
DECODER = {"hidden_size": 1024, "intermediate_size": 2816, "num_hidden_layers": 10, "num_attention_heads": 16}


def kept_bytes(model: torch.nn.Module) -> int:
    """All that the quantised weights of a model keep in memory, scales and tables included."""
    total = 0
    for module in model.modules():
        weight = getattr(module, "weight", None)
        tensors: list[torch.Tensor | None] = []
        if type(module).__name__ == "Linear4bit":
            state = weight.quant_state
            tensors = [weight.data, state.absmax, state.code, state.offset]
            if state.nested:
                tensors += [state.state2.absmax, state.state2.code]
        elif type(module).__name__ == "Linear8bitLt":
            tensors = [weight.data, weight.SCB if weight.SCB is not None else module.state.SCB]
        total += sum(tensor.untyped_storage().nbytes() for tensor in tensors if tensor is not None)
    return total


def sizes(quick: bool) -> bool:
    """Prints sizes; returns whether the goals are met."""
    _, processor = midsize()
    shape = {**DECODER, "num_hidden_layers": 1} if quick else DECODER
    small = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    base = midsize_config()
    config = VideoLlamaConfig(
        **{
            **base,
            "vision_config": {**small, "image_size": 28, "patch_size": 14},
            "qformer_config": small,
            "video_qformer_config": small,
            "audio_config": None,
            "audio_qformer_config": None,
            "text_config": {**base["text_config"], **shape},
        }
    )
    weights = memory.weights_of(memory.empty_model(config))
    linear = [weight for weight in weights if weight.quantised]
    numbers = sum(math.prod(weight.shape) for weight in linear)
    print(
        f"linear layers of a random decoder, {numbers / 1e6:.1f} M parameters, bfloat16: {2 * numbers / 2**20:.1f} MiB"
    )
    met = True
    with tempfile.TemporaryDirectory() as name:
        torch.manual_seed(0)
        VideoLlamaForConditionalGeneration(config).to(torch.bfloat16).save_pretrained(name)
        processor.save_pretrained(name)
        for bits in (4, 8):
            model, _ = hub.load(name, device="cpu", bits=bits)
            loaded = kept_bytes(model)
            with torch.inference_mode():
                model(input_ids=torch.full((1, 8), 9))
            used = kept_bytes(model)
            planned = sum(weight.bytes(memory.PRECISIONS[f"{bits}-bit"]) for weight in linear)
            share = max(loaded, used) / (2 * numbers)
            line = f"  {bits} bits: {loaded / 2**20:.1f} MiB, after use {used / 2**20:.1f}, "
            line += f"planned {planned / 2**20:.1f}; {share:.4f} of bfloat16"
            if bits == 4:
                met &= share <= LINEAR_GOAL
                line += f"; goal {LINEAR_GOAL}: {verdict(share <= LINEAR_GOAL)}"
            print(line, flush=True)
    for name in ("7b", "13b"):
        published = memory.weights_of(memory.empty_model(VideoLlamaConfig.preset(name)))
        decoder = [weight for weight in published if weight.name.startswith(memory.DECODER)]
        four, whole = (sum(w.bytes(memory.PRECISIONS[kind]) for w in decoder) for kind in ("4-bit", "bf16"))
        ok = four / whole <= DECODER_GOAL
        met &= ok
        print(
            f"whole {name} decoder by the plan: {four / 2**30:.2f} GiB of {whole / 2**30:.2f} in bfloat16, "
            f"{four / whole:.4f}; goal {DECODER_GOAL}: {verdict(ok)}"
        )
    return met


def midsize_config() -> dict[str, object]:
    """The config of the model of midsize.json, as plain data."""
    model, _ = midsize()
    return {key: value for key, value in model.config.to_dict().items() if key not in ("dtype", "architectures")}


def accuracy(films: int, questions: int, quick: bool) -> bool:
    """Prints accuracy in each precision; returns whether the goal is met."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        models = {"float32": "tiny"}
        for bits in (8, 4):
            model, processor = hub.load("tiny", device="cpu", bits=bits)
            model.save_pretrained(folder / str(bits))
            processor.save_pretrained(folder / str(bits))
            models[f"{bits} bits"] = str(folder / str(bits))
        wanted = WorldBenchmark(
            name="quantisation",
            films=films,
            questions=questions,
            conditions=("seen",),
            workers=1,
            films_folder=str(folder / "films"),
            **({"kinds": ("one",)} if quick else {}),
        )
        examiners = {way: Examiner(WorldBenchmark(**{**vars(wanted), "model": model})) for way, model in models.items()}
        items: dict[str, list[Item]] = {way: [] for way in models}
        seconds = dict.fromkeys(models, 0.0)
        for portion in share_out(wanted):
            for way, examiner in examiners.items():
                started = time.perf_counter()
                items[way] += examiner.examine(portion)
                seconds[way] += time.perf_counter() - started
    right = {way: sum(item.right for item in answered) for way, answered in items.items()}
    count = len(items["float32"])
    print(f"\ntiny, {count} questions about {len({item.film for item in items['float32']})} held-out films, greedy:")
    met = True
    for way, answered in items.items():
        same = sum(a.answer == b.answer for a, b in zip(answered, items["float32"], strict=True))
        share = right[way] / max(right["float32"], 1)
        line = f"  {way:<8}: {right[way]} right, {right[way] / count:.4f}; {share:.4f} of float32; "
        line += f"{same / count:.4f} of the answers word for word; {seconds[way]:.0f} s"
        if way == "4 bits":
            met = share >= ACCURACY_GOAL
            line += f"; goal {ACCURACY_GOAL}: {verdict(met)}"
        print(line)
    lost = sum(a.right and not b.right for a, b in zip(items["float32"], items["4 bits"], strict=True))
    won = sum(b.right and not a.right for a, b in zip(items["float32"], items["4 bits"], strict=True))
    print(
        f"  float32 to 4 bits: {lost} questions lost, {won} won; one standard error {math.sqrt(lost + won) / count:.4f}"
    )
    return met


def verdict(met: bool) -> str:
    return "met" if met else "MISSED"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--films", type=int, default=12, help="of each kind of scene")
    parser.add_argument("--questions", type=int, default=24, help="of each type for each kind of scene")
    parser.add_argument("--quick", action="store_true", help="a smaller decoder and a handful of questions")
    args = parser.parse_args()
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    print("rest of every quantised model: bfloat16")
    met = sizes(args.quick)
    met &= accuracy(2, 4, True) if args.quick else accuracy(args.films, args.questions, False)
    sys.exit(not met)


if __name__ == "__main__":
    main()

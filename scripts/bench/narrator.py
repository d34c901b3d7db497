"""The narrator's decoding with keys and values kept, against without; the space-time encoder's attention fused, against
written out. Models of the published base size with random weights. The ways take turns, and what is measured is
processor time, so that other work on the machine counts little; a figure is the median of the rounds, with their range.

"as published" is the released loop: the whole sentence anew at every step, and the clip's keys and values anew for
every sequence (but scores of the last word only, which it computes of all). "no cache" keeps the clip's keys and
values, but not the sentence's. All must say the same words.

    python scripts/bench/narrator.py [--rounds N] [--threads N] [--only decoding|end-to-end|encoding] [--quick]

Beside the decoding alone stands the whole of it: clips encoded, pooled and narrated. Attention along time and within
frames is measured apart, too: its groups are 5 and 197 tokens long.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial

import torch

from videollm.models.lavila import (
    LavilaDualEncoder,
    LavilaDualEncoderConfig,
    LavilaNarrator,
    LavilaNarratorConfig,
)
from videollm.models.lavila.timesformer import SpaceTimeAttention

GOAL = 8.0
STEPS = 76


def narrator(quick: bool, whole: bool = False) -> LavilaNarrator:
    """A narrator whose decoder is of the base size; with all of its encoder, or with one layer of it."""
    small = {"n_embd": 128, "n_layer": 2, "n_head": 2} if quick else {}
    layers = {"num_hidden_layers": 12 if whole and not quick else 1}
    # No sentence may end early: all are to be equally long in every run.
    config = LavilaNarratorConfig(text_config={"model_type": "gpt2", **small}, vision_config=layers)
    torch.manual_seed(0)
    model = LavilaNarrator(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "alpha" in name:
                parameter.fill_(0.5)
    return model


@torch.no_grad()
def as_published(model: LavilaNarrator, tokens: torch.Tensor, sequences: int, steps: int) -> torch.Tensor:
    """Greedy, the released loop."""
    seen = tokens.repeat_interleave(sequences, dim=0)
    ids = torch.full((len(seen), 1), model.config.bos_token_id)
    for _ in range(steps):
        logits = model(ids, visual_tokens=seen, logits_to_keep=1).logits[:, -1]
        ids = torch.cat([ids, logits.argmax(dim=-1, keepdim=True)], dim=1)
    return ids


def generated(model: LavilaNarrator, tokens: torch.Tensor, sequences: int, steps: int, use_cache: bool) -> torch.Tensor:
    ids = torch.full((len(tokens) * sequences, 1), model.config.bos_token_id)
    return model.generate(
        ids, visual_states=model.get_visual_states(tokens), do_sample=False, max_length=1 + steps, eos_token_id=None,
        pad_token_id=0, use_cache=use_cache,
    )  # fmt: skip


Seconds = dict[str, list[float]]
"""Processor seconds of each way, round by round."""


def in_turn(ways: dict[str, Callable[[], torch.Tensor]], rounds: int, exact: bool = True) -> Seconds:
    """Measures each way once a round; in the first, all must give the same."""
    taken: Seconds = {name: [] for name in ways}
    for number in range(rounds):
        made = []
        for name, way in ways.items():
            start = time.process_time()
            made.append(way())
            taken[name].append(time.process_time() - start)
        if not number:
            for other in made[1:]:
                torch.testing.assert_close(
                    made[0], other, **({"atol": 0, "rtol": 0} if exact else {"atol": 1e-4, "rtol": 1e-4})
                )
    return taken


def ratio(seconds: Seconds, slow: str, fast: str) -> tuple[float, str]:
    """How many times as long one way takes, and in words with the range of the rounds."""
    each = [a / b for a, b in zip(seconds[slow], seconds[fast], strict=True)]
    middle = statistics.median(each)
    return middle, f"{middle:.2f} times [{min(each):.2f}-{max(each):.2f}] {slow}"


def told(seconds: Seconds) -> str:
    return ", ".join(f"{name} {statistics.median(some):.2f} s" for name, some in seconds.items())


@torch.no_grad()
def decoding(model: LavilaNarrator, clips: int, sequences: int, rounds: int, steps: int = STEPS) -> float:
    """Prints, and returns how many times faster the cache is than the published loop."""
    torch.manual_seed(1)
    tokens = torch.randn(clips, model.config.num_query_tokens, model.config.text_config.n_embd)
    seconds = in_turn(
        {
            "kept": lambda: generated(model, tokens, sequences, steps, True),
            "no cache": lambda: generated(model, tokens, sequences, steps, False),
            "as published": lambda: as_published(model, tokens, sequences, steps),
        },
        rounds,
    )
    faster, words = ratio(seconds, "as published", "kept")
    print(
        f"{clips} clips x {sequences} sequences, {steps} steps: {told(seconds)}; {words}, "
        f"{ratio(seconds, 'no cache', 'kept')[1]}",
        flush=True,
    )
    return faster


@torch.no_grad()
def end_to_end(model: LavilaNarrator, clips: int, sequences: int, rounds: int, steps: int) -> None:
    """Pixels to ids: encoder, pool and decoding with the cache, and what share of it is decoding."""
    torch.manual_seed(2)
    shape = model.config.vision_config
    pixels = torch.randn(clips, shape.num_frames, 3, shape.image_size, shape.image_size)
    seconds: Seconds = {"encoding": [], "decoding": []}
    for _ in range(rounds):
        start = time.process_time()
        tokens = model.get_visual_tokens(pixels)
        middle = time.process_time()
        generated(model, tokens, sequences, steps, True)
        seconds["encoding"].append(middle - start)
        seconds["decoding"].append(time.process_time() - middle)
    whole = sum(statistics.median(some) for some in seconds.values())
    print(
        f"end to end, {clips} clips x {sequences} sequences: {told(seconds)}; {clips / whole:.2f} clips and "
        f"{clips * sequences / whole:.2f} sentences a second",
        flush=True,
    )


@torch.no_grad()
def encoding(rounds: int, quick: bool) -> None:
    small = {"hidden_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2} if quick else {}
    torch.manual_seed(0)
    model = LavilaDualEncoder(LavilaDualEncoderConfig(vision_config=small)).eval()
    pixels = torch.randn(1 if quick else 2, 4, 3, 224, 224)

    def encode(implementation: str) -> torch.Tensor:
        model.set_attn_implementation(implementation)
        return model(pixels).video_embeds

    seconds = in_turn({name: partial(encode, name) for name in ("sdpa", "eager")}, rounds, exact=False)
    rates = {name: len(pixels) / statistics.median(some) for name, some in seconds.items()}
    print(
        f"dual encoder, clips of 4 frames: fused {rates['sdpa']:.2f}, written out {rates['eager']:.2f} clips a second, "
        f"{ratio(seconds, 'eager', 'sdpa')[1]}"
    )
    block = model.vision_model.blocks[0]
    states = torch.randn(1, 1 + 4 * 196, model.config.vision_config.hidden_size)
    for attention in (module for module in block.modules() if isinstance(module, SpaceTimeAttention)):

        def attend(implementation: str, attention: SpaceTimeAttention = attention) -> torch.Tensor:
            attention.config._attn_implementation = implementation
            return attention(states, 4)

        seconds = in_turn({name: partial(attend, name) for name in ("sdpa", "eager")}, max(rounds, 4), exact=False)
        print(f"  one layer along {attention.along}: {ratio(seconds, 'eager', 'sdpa')[1]}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--only", choices=("decoding", "end-to-end", "encoding"))
    parser.add_argument("--quick", action="store_true", help="small models: that it runs, not how fast")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    steps = 6 if args.quick else STEPS
    faster = GOAL
    if args.only in (None, "encoding"):
        encoding(args.rounds, args.quick)
    if args.only in (None, "end-to-end"):
        model = narrator(args.quick, whole=True)
        end_to_end(model, 1, 10, args.rounds, steps)
        end_to_end(model, 8, 1, args.rounds, steps)
    if args.only in (None, "decoding"):
        model = narrator(args.quick)
        faster = decoding(model, clips=1, sequences=10, rounds=args.rounds, steps=steps)
        decoding(model, clips=8, sequences=1, rounds=args.rounds, steps=steps)
    if args.quick or args.only not in (None, "decoding"):
        return 0
    print(f"goal for 1 clip x 10 sequences: {GOAL:.0f} times; {'reached' if faster >= GOAL else 'MISSED'}")
    return 0 if faster >= GOAL else 1


if __name__ == "__main__":
    sys.exit(main())

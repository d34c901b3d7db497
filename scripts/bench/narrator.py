"""The narrator's decoding with keys and values kept, against without; the space-time encoder's attention fused, against
written out. Models of the published base size with random weights; the ways take turns, so that a busy machine is busy
for all.

"as published" is the released loop: the whole sentence anew at every step, and the clip's keys and values anew for
every sequence (but scores of the last word only, which it computes of all). "no cache" keeps the clip's keys and
values, but not the sentence's. All must say the same words.

    python scripts/bench/narrator.py [--rounds N] [--threads N] [--quick]
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable

import torch

from videollm.models.lavila import (
    LavilaDualEncoder,
    LavilaDualEncoderConfig,
    LavilaNarrator,
    LavilaNarratorConfig,
)

GOAL = 8.0
STEPS = 76


def narrator(quick: bool) -> LavilaNarrator:
    small = {"n_embd": 128, "n_layer": 2, "n_head": 2} if quick else {}
    # No sentence may end early: all are to be equally long in every run.
    config = LavilaNarratorConfig(text_config={"model_type": "gpt2", **small}, vision_config={"num_hidden_layers": 1})
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


def in_turn(ways: dict[str, Callable[[], torch.Tensor]], rounds: int) -> dict[str, float]:
    """Median seconds of each way."""
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            start = time.perf_counter()
            way()
            taken[name].append(time.perf_counter() - start)
    return {name: statistics.median(seconds) for name, seconds in taken.items()}


def decoding(model: LavilaNarrator, clips: int, sequences: int, rounds: int, steps: int = STEPS) -> float:
    """Prints, and returns how many times faster the cache is than the published loop."""
    torch.manual_seed(1)
    tokens = torch.randn(clips, model.config.num_query_tokens, model.config.text_config.n_embd)
    with torch.no_grad():
        ways = {
            "kept": lambda: generated(model, tokens, sequences, steps, True),
            "no cache": lambda: generated(model, tokens, sequences, steps, False),
            "as published": lambda: as_published(model, tokens, sequences, steps),
        }
        said = [way() for way in ways.values()]
        if not all(torch.equal(said[0], other) for other in said):
            sys.exit("the ways say different words")
        seconds = in_turn(ways, rounds)
    shown = ", ".join(f"{name} {value:.2f} s" for name, value in seconds.items())
    ratio = seconds["as published"] / seconds["kept"]
    print(
        f"{clips} clips x {sequences} sequences, {steps} steps: {shown}; {ratio:.1f} times as published, "
        f"{seconds['no cache'] / seconds['kept']:.1f} times no cache"
    )
    return ratio


def encoding(rounds: int, quick: bool) -> None:
    small = {"hidden_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2} if quick else {}
    torch.manual_seed(0)
    model = LavilaDualEncoder(LavilaDualEncoderConfig(vision_config=small)).eval()
    pixels = torch.randn(4, 4, 3, 224, 224)

    def encode(implementation: str) -> torch.Tensor:
        model.set_attn_implementation(implementation)
        with torch.no_grad():
            return model(pixels).video_embeds

    torch.testing.assert_close(encode("sdpa"), encode("eager"), atol=1e-4, rtol=1e-4)
    seconds = in_turn({name: lambda name=name: encode(name) for name in ("sdpa", "eager")}, rounds)
    rates = {name: len(pixels) / value for name, value in seconds.items()}
    print(
        f"dual encoder, clips of 4 frames: fused {rates['sdpa']:.2f}, written out {rates['eager']:.2f} clips a second, "
        f"{seconds['eager'] / seconds['sdpa']:.2f} times"
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--quick", action="store_true", help="small models: that it runs, not how fast")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    model = narrator(args.quick)
    steps = 6 if args.quick else STEPS
    ratio = decoding(model, clips=1, sequences=10, rounds=args.rounds, steps=steps)
    decoding(model, clips=8, sequences=1, rounds=args.rounds, steps=steps)
    encoding(args.rounds, args.quick)
    if args.quick:
        return 0
    print(f"goal for 1 clip x 10 sequences: {GOAL:.0f} times; {'reached' if ratio >= GOAL else 'MISSED'}")
    return 0 if ratio >= GOAL else 1


if __name__ == "__main__":
    sys.exit(main())

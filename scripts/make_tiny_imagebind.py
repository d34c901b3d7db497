"""Train `tiny_imagebind` from the ear of `tiny` into videollm/assets: ``python scripts/make_tiny_imagebind.py``.

Prints, before and behind the training, how well words find the sounds of held-out tracks; ``--score`` prints it alone,
of the model in assets. About 10 minutes of one core.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch

from videollm.models import families
from videollm.training.tiny_imagebind import SoundStretches, SoundTextObjective, build_tiny_imagebind, scores
from videollm.training.tiny_lf_vila import learn

ASSET = Path(__file__).resolve().parents[1] / "videollm/assets/tiny_imagebind"
STEPS, BATCH, RATE, TRACKS = 800, 48, 1.5e-3, 1_200
HELD_OUT_SEED, HELD_OUT = 7, 400


def main() -> None:
    """Train and export, or score alone."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--score", action="store_true", help="only score the model in assets")
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--out", type=Path, default=ASSET)
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.score:
        model, processor = families.load("tiny_imagebind", device="cpu")
        print_scores(model, processor)
        return
    model, processor = build_tiny_imagebind()
    print_scores(model, processor)
    objective = SoundTextObjective(model.train(), processor)
    stretches = SoundStretches(processor, TRACKS, seed=0)
    seen = 0.0

    def loss(step: int) -> torch.Tensor:
        nonlocal seen
        value = objective(stretches.batch(step * BATCH, BATCH))
        seen += value.item()
        if step % 50 == 49:
            print(f"step {step + 1}: loss {seen / 50:.3f}", flush=True)
            seen = 0.0
        return value

    learn(list(model.parameters()), loss, args.steps, RATE)
    model.eval()
    print_scores(model, processor)
    model.to(torch.float16).save_pretrained(args.out)
    processor.save_pretrained(args.out)
    print(args.out)


def print_scores(model, processor) -> None:
    """Scores on held-out tracks, with wordings of training and with others."""
    for new in (False, True):
        held = SoundStretches(processor, HELD_OUT, HELD_OUT_SEED, held_out=new)
        found = scores(model.eval(), processor, held, HELD_OUT)
        print(json.dumps({"wordings": "new" if new else "known", **{k: round(v, 3) for k, v in found.items()}}))


if __name__ == "__main__":
    main()

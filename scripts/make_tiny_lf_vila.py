"""Train `tiny_lf_vila` from nothing and put it into videollm/assets: ``python scripts/make_tiny_lf_vila.py``.

First the eye, on single scenes (kept in runs/tiny_lf_vila/eye.safetensors, which scripts/compare_mtc.py begins with,
too); then train_configs/tiny_lf_vila.yaml on films of four scenes. It may be stopped and started again: a finished eye
is kept, and the run goes on from its newest checkpoint.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch.nn.attention import SDPBackend, sdpa_kernel

from videollm.data.stories import StorySamples
from videollm.models.lf_vila import LfVilaForPreTraining, LfVilaProcessor
from videollm.training.recipe import LfVilaRecipe, read_recipe
from videollm.training.run import MODEL_FOLDER, train
from videollm.training.tiny_lf_vila import build_tiny_lf_vila, make_eye

ROOT = Path(__file__).resolve().parents[1]
RECIPE = ROOT / "train_configs/tiny_lf_vila.yaml"
EYE = ROOT / "runs/tiny_lf_vila/eye.safetensors"
ASSET = ROOT / "videollm/assets/tiny_lf_vila"
STORIES, SPREAD_SHARE = 3_000, 0.4


def main() -> None:
    """Run every step that is not done, then export."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    os.chdir(ROOT)  # recipes name folders from here
    torch.set_num_threads(1)
    if not EYE.is_file():
        make_eye(EYE)
    recipe = read_recipe(RECIPE)
    assert isinstance(recipe, LfVilaRecipe)
    model, processor = build_tiny_lf_vila(recipe.seed)
    model.video_encoder.load_state_dict(load_file(EYE))
    model.save_pretrained(recipe.model)
    processor.save_pretrained(recipe.model)
    films = StorySamples(processor, STORIES, recipe.seed, recipe.batch_size // 2, spread_share=SPREAD_SHARE)
    with sdpa_kernel(SDPBackend.MATH):  # attention of so few tokens is faster in plain arithmetic than fused
        output = train(recipe, data=films)
    trained = LfVilaForPreTraining.from_pretrained(output / MODEL_FOLDER, dtype=torch.float16)
    trained.save_pretrained(ASSET)
    LfVilaProcessor.from_pretrained(output / MODEL_FOLDER).save_pretrained(ASSET)
    print(ASSET)


if __name__ == "__main__":
    main()

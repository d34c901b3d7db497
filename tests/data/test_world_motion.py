"""Clips that teach motion: what is labelled is what is drawn."""

import numpy as np
import torch

from videollm.data.drawing import _RGB
from videollm.data.world import COLOURS, MOTIONS, SHAPES, is_held_out_pair, is_held_out_triple
from videollm.data.world_motion import MotionClips, collate_motion, moving_pile
from videollm.models.lavila import LavilaImageProcessor

IMAGES = LavilaImageProcessor(64, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0), 4)


def test_labels_are_of_the_picture() -> None:
    clips = MotionClips(IMAGES, 8, 24)
    items = [clips[index] for index in range(24)]
    assert all(torch.equal(clips[7][name], items[7][name]) for name in items[7])
    near, told, covered = 0, 0, 0
    for item in items:
        patches = item["pixel_values"].unfold(2, 8, 8).unfold(3, 8, 8).flatten(4).mean(-1)  # (T, 3, 8, 8)
        colours = patches.permute(0, 2, 3, 1).reshape(-1, 3).numpy()
        covered += int((item["patch_colour"] > 0).sum())
        for patch in np.flatnonzero(item["patch_colour"].numpy()):
            away = [np.abs(colours[patch] - np.array(_RGB[name])).sum() for name in COLOURS]
            near += int(np.argmin(away)) == int(item["patch_colour"][patch]) - 1
            told += 1
        assert torch.equal(item["patch_colour"] > 0, item["patch_motion"] > 0)
        assert torch.equal(item["shape"] > 0, item["motion"] > 0)
    assert covered > 500 and near > 0.6 * told, (near, told)  # stars and crosses leave patches half free
    batch = collate_motion(items[:3])
    assert batch["pixel_values"].shape == (3, 4, 3, 64, 64) and batch["patch_shape"].shape == (3, 256)
    assert batch["background"].shape == (3,) and int(batch["shape"].max()) <= len(SHAPES)
    assert int(batch["motion"].max()) <= len(MOTIONS)


def test_nothing_held_out_is_in_a_pile() -> None:
    things = [thing for seed in range(60) for thing in moving_pile(seed).things]
    assert len(things) > 120
    assert not any(is_held_out_pair(one.shape, one.colour) for one in things)
    assert not any(is_held_out_triple(one.shape, one.colour, one.motion or "still") for one in things)

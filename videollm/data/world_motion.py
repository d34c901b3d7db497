"""Clips of the drawn world with what is where and how it moves: for teaching an encoder of clips to look along time.

Notation: T frames, N patches of a frame, C colours.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from videollm.data import world
from videollm.data.drawing import render
from videollm.data.world import BACKGROUNDS, COLOURS, MOTIONS, SHAPES, Scene, draw_scene, thing_at
from videollm.models.lavila import LavilaImageProcessor

WINDOW_SECONDS = 4.0
_KINDS = {"one": 0.6, "two": 0.3, "plain": 0.1}
_PILES, _STRADDLING, _COMPRESSED = 0.6, 0.4, 0.3


class MotionClips(Dataset[dict[str, torch.Tensor]]):
    """Clips of four seconds, most of them with up to five moving things, some with another scene at their edge.

    Each item: ``pixel_values`` float ``(T, 3, H, W)``; ``patch_colour``, ``patch_shape``, ``patch_motion`` int
    ``(T N,)``, 0 where nothing is; ``shape``, ``motion`` int ``(C,)``, of the thing of each colour, 0: none;
    ``background`` int ``()``, 0 without one.

    Args:
        images: how frames are shown to the encoder.
        patches: in a row of a frame.
        count: how many clips there are.
        seed: of them.
    """

    def __init__(self, images: LavilaImageProcessor, patches: int, count: int, seed: int = 0) -> None:
        self.images, self.patches, self.count, self.seed = images, patches, count, seed

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        number = 10_000_000 * (1 + self.seed) + index
        rng = np.random.default_rng([number, 77])
        scene = moving_pile(number) if rng.random() < _PILES else _short_scene(number)
        length, frames = scene.duration_seconds, self.images.num_frames
        long_px = int(rng.integers(64, 144))
        if rng.random() < _STRADDLING:
            start, window = float(rng.uniform(0.15, length - 0.15)) - WINDOW_SECONDS / 2, WINDOW_SECONDS
        else:
            start, window = float(rng.uniform(0, max(0.0, length - WINDOW_SECONDS))), min(WINDOW_SECONDS, length)
        times = start + (np.arange(frames) + 0.5) * window / frames
        inside = (times >= 0) & (times < length)
        pixels = np.zeros((frames, self.images.size, self.images.size, 3), np.uint8)
        labels = np.zeros((3, frames, self.patches, self.patches), np.int64)
        self._show(scene, times, inside, long_px, pixels, labels)
        if not inside.all():
            other = _short_scene(number + 500_000_000)
            beside = np.where(times < 0, other.duration_seconds + times, times - length) % other.duration_seconds
            self._show(other, beside, ~inside, long_px, pixels, labels)
        if rng.random() < _COMPRESSED:
            pixels = (pixels // 6 * 6 + 3).astype(np.uint8)
        shape, motion = np.zeros((2, len(COLOURS)), np.int64)
        for thing in scene.things:
            colour = COLOURS.index(thing.colour)
            shape[colour], motion[colour] = 1 + SHAPES.index(thing.shape), 1 + MOTIONS.index(thing.motion or "still")
        ground = scene.shots[0].ground.colour
        told = dict(zip(("patch_colour", "patch_shape", "patch_motion"), labels.reshape(3, -1), strict=True))
        told |= {"shape": shape, "motion": motion}
        told["background"] = np.int64(0 if ground is None else 1 + BACKGROUNDS.index(ground))
        values = self.images.normalise(torch.as_tensor(pixels).permute(0, 3, 1, 2))
        return {"pixel_values": values, **{name: torch.as_tensor(value) for name, value in told.items()}}

    def _show(self, scene: Scene, times: np.ndarray, which: np.ndarray, long_px: int, pixels: np.ndarray,
              labels: np.ndarray) -> None:  # fmt: skip
        """Draw the chosen frames of a scene, the middle square of each, and what is on their patches."""
        moments = np.floor(times[which] * scene.frame_rate) / scene.frame_rate
        drawn = self.images.resize(render(scene, moments, long_px))
        size = self.images.size
        top, left = (round((side - size) / 2) for side in drawn.shape[-2:])
        square = drawn[..., top : top + size, left : left + size].round().clamp(0, 255)
        pixels[which] = square.byte().permute(0, 2, 3, 1).numpy()
        labels[:, which] = np.stack([_patch_labels(scene, moment, self.patches) for moment in moments], 1)


def _patch_labels(scene: Scene, moment: float, patches: int) -> np.ndarray:
    """Colour, shape and motion on each patch of the middle square at a moment: int ``(3, patches, patches)``."""
    found = np.zeros((3, patches, patches), np.int64)
    width, height = (side / max(scene.width_px, scene.height_px) for side in (scene.width_px, scene.height_px))
    short = min(width, height)
    centres = (np.arange(patches) + 0.5) / patches * short
    for shot in [scene.shot_at(moment)]:
        for thing in shot.things:
            x, y, size = thing_at(thing, moment - shot.start_seconds)
            away = np.hypot(centres[None] + (width - short) / 2 - x, centres[:, None] + (height - short) / 2 - y)
            names = (COLOURS.index(thing.colour), SHAPES.index(thing.shape), MOTIONS.index(thing.motion or "still"))
            found[:, away < 0.8 * size] = 1 + np.array(names)[:, None]
    return found


def _short_scene(seed: int) -> Scene:
    """A scene of at most eight seconds without a cut, whose middle square shows its things."""
    rng = np.random.default_rng([seed, 5])
    kind = str(rng.choice(list(_KINDS), p=list(_KINDS.values())))
    for attempt in range(1000):
        scene = draw_scene(seed + attempt * 1_000_003, kind)
        square = 0.74 < scene.width_px / scene.height_px < 1.34
        if scene.timed and square and (kind != "plain" or len(scene.shots) == 1):
            return scene
    raise AssertionError("no short scene among a thousand")


def moving_pile(seed: int) -> Scene:
    """A square scene of two to five moving things: much to see at once, as `videollm.data.world.draw_pile` of still
    ones."""
    rng = np.random.default_rng([seed, 91])
    base = _short_scene_of_one(seed)
    ground = world._ground(rng)
    seconds, count = float(rng.uniform(3.0, 7.0)), int(rng.integers(2, 6))
    taken: set[str] = set()
    things: list[world.Thing] = []
    for _ in range(count):
        for _ in range(12):
            attempt = set(taken)
            crowd = 3 if count > 2 else 2
            new = world._thing(rng, "seen", attempt, ground.colour, 1.0, 1.0, seconds, True, crowd)
            if world._far_enough(things, new, seconds):
                taken = attempt
                things.append(new)
                break
    side_px = int(rng.integers(96, 200))
    shot = replace(base.shots[0], start_seconds=0.0, end_seconds=seconds, ground=ground, things=tuple(things))
    return replace(
        base, seed=seed, kind="three", duration_seconds=seconds, shots=(replace(shot, camera="still"),),
        width_px=side_px, height_px=side_px,
    )  # fmt: skip


def _short_scene_of_one(seed: int) -> Scene:
    return draw_scene(seed, "one")


def collate_motion(items: list[dict[str, torch.Tensor]]) -> dict[str, Any]:
    """Items of `MotionClips` to a batch."""
    return {name: torch.stack([item[name] for item in items]) for name in items[0]}

"""Scenes of the world as real media files, and the scenes that are kept for testing."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from videollm.clips import Waveform
from videollm.data.drawing import render
from videollm.data.sounds import synthesise
from videollm.data.world import SCENE_KINDS, SPLITS, TEST_SEEDS, Scene, Split, draw_scene
from videollm.media.write import write_video


def test_scene(kind: str, split: Split, index: int) -> Scene:
    """Scene number ``index`` of a kind and split that no training ever draws.

    Raises:
        DataError: a kind or split that does not exist.
    """
    place = SCENE_KINDS.index(kind) * len(SPLITS) + SPLITS.index(split) if kind in SCENE_KINDS else 0
    return draw_scene(TEST_SEEDS + place * 10_000_000 + index, kind, split)


test_scene.__test__ = False  # type: ignore[attr-defined]  # not a test, whatever pytest thinks


def write_scene(scene: Scene, path: str | Path, preset: str = "ultrafast") -> None:
    """Write a scene as a video file (H.264 and AAC in an mp4) at its own size, rate and length."""
    count = max(1, round(scene.duration_seconds * scene.frame_rate))
    frames = render(scene, np.arange(count) / scene.frame_rate)
    samples = synthesise(scene)
    wave = None if samples is None else Waveform(samples, scene.rate_hz)
    write_video(path, frames, fps=scene.frame_rate, waveform=wave, preset=preset)

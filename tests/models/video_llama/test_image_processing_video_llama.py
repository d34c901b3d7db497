"""Frames to pixels: shapes kept upright, centred, and independent of how many there are."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from videollm.models.video_llama import VideoLlamaImageProcessor, image_processing_video_llama

RNG = np.random.default_rng(0)


def as_levels(processor: VideoLlamaImageProcessor, pixels: torch.Tensor) -> torch.Tensor:
    mean = torch.tensor(processor.image_mean).view(3, 1, 1)
    std = torch.tensor(processor.image_std).view(3, 1, 1)
    return (pixels * std + mean) * 255


@pytest.mark.parametrize(
    ("height", "width", "rows", "columns"),
    [(48, 96, (16, 48), (0, 64)), (96, 48, (0, 64), (16, 48)), (64, 64, (0, 64), (0, 64)), (3, 6, (16, 48), (0, 64))],
)
def test_the_shape_is_kept_and_the_rest_is_the_mean(height, width, rows, columns) -> None:
    processor = VideoLlamaImageProcessor(size=64)
    frame = np.full((2, height, width, 3), (250, 10, 130), np.uint8)
    out = processor(frame)
    assert out.shape == (2, 3, 64, 64) and out.dtype == torch.float32
    inside = as_levels(processor, out)[:, :, rows[0] : rows[1], columns[0] : columns[1]]
    wanted = torch.tensor([250.0, 10.0, 130.0]).view(3, 1, 1).expand_as(inside)
    torch.testing.assert_close(inside, wanted, atol=1e-3, rtol=0)
    border = torch.ones(64, 64, dtype=torch.bool)
    border[rows[0] : rows[1], columns[0] : columns[1]] = False
    assert not out[:, :, border].any()


def test_a_frame_of_the_right_size_is_only_normalised() -> None:
    processor = VideoLlamaImageProcessor(size=32)
    frame = RNG.integers(0, 256, (1, 32, 32, 3), dtype=np.uint8)
    levels = as_levels(processor, processor(frame))
    torch.testing.assert_close(levels, torch.from_numpy(frame).permute(0, 3, 1, 2).float(), atol=1e-3, rtol=0)


def test_fine_stripes_do_not_alias() -> None:
    """Stripes of one pixel, halved: grey everywhere, not the colour of whichever stripe a sample hits."""
    frame = np.zeros((1, 128, 128, 3), np.uint8)
    frame[:, :, ::2] = 255
    processor = VideoLlamaImageProcessor(size=32)
    levels = as_levels(processor, processor(frame))[..., 4:-4]
    torch.testing.assert_close(levels, torch.full_like(levels, 127.5), atol=4.0, rtol=0)


def test_extreme_shapes() -> None:
    processor = VideoLlamaImageProcessor(size=32)
    for height, width in [(1, 1), (1, 2000), (2000, 1), (31, 33)]:
        out = processor(np.full((1, height, width, 3), 255, np.uint8))
        assert out.shape == (1, 3, 32, 32) and torch.isfinite(out).all()
        assert as_levels(processor, out).max() > 250


def test_many_frames_are_as_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    frames = RNG.integers(0, 256, (7, 50, 70, 3), dtype=np.uint8)
    for published in (False, True):
        processor = VideoLlamaImageProcessor(size=32, as_published=published)
        together = processor(frames)
        monkeypatch.setattr(image_processing_video_llama, "_GROUP_VALUES", 2 * 50 * 70 * 3)
        assert torch.equal(processor(frames), together)
        assert torch.equal(torch.cat([processor(frame[None]) for frame in frames]), together)
        monkeypatch.undo()


def test_as_published_squashes() -> None:
    frame = np.full((1, 20, 60, 3), 200, np.uint8)
    for still in (True, False):
        processor = VideoLlamaImageProcessor(size=32, as_published=True)
        levels = as_levels(processor, processor(frame, still=still))
        torch.testing.assert_close(levels, torch.full_like(levels, 200.0), atol=1e-3, rtol=0)


def test_negative_strides_and_views() -> None:
    """Frames may be views, e.g. rotated ones."""
    frames = RNG.integers(0, 256, (2, 40, 60, 3), dtype=np.uint8)
    processor = VideoLlamaImageProcessor(size=32)
    assert torch.equal(processor(frames[:, ::-1, ::-1]), processor(np.ascontiguousarray(frames[:, ::-1, ::-1])))

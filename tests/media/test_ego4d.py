"""Frames as the published LaViLa takes them; its cases are compared in tests/parity."""

from __future__ import annotations

import random

import pytest

from videollm.errors import MediaError
from videollm.media.ego4d import published_frames, segment_frames, segments


def test_middles_and_random_frames_lie_in_their_segments() -> None:
    bounds = segments(10, 40, 4)
    assert segment_frames(10, 40, 4) == [(low + high) // 2 for low, high in bounds]
    for seed in range(20):
        drawn = segment_frames(10, 40, 4, random.Random(seed))
        assert all(low <= frame <= high for frame, (low, high) in zip(drawn, bounds, strict=True))
    assert all(0 <= frame < 3 for frame in segment_frames(0, 3, 16))
    with pytest.raises(ValueError, match="at least one frame"):
        segments(5, 5, 4)


def test_a_stretch_goes_on_in_the_next_file() -> None:
    files = {0: 9000, 300: 9000}
    found = published_frames(299.5, 301.2, 4, files.get)
    assert {chunk for chunk, _ in found} == {0, 300}
    assert all(chunk == 300 for chunk, _ in published_frames(300.0, 301.0, 4, files.get))
    assert max(frame for _, frame in published_frames(599.9, 601.0, 4, files.get)) < 9000


def test_what_is_not_there() -> None:
    with pytest.raises(MediaError, match="no frames of the file that begins at 300 s"):
        published_frames(301.0, 302.0, 4, lambda chunk: None)
    with pytest.raises(MediaError, match="has no frames"):
        published_frames(3.0, 3.0, 4, lambda chunk: 100)

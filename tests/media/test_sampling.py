"""Sampling: which seconds are looked at and listened to."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from videollm.media import sampling
from videollm.media.sampling import FrameSampling, SoundSampling

COUNTS = st.integers(1, 400)


@given(COUNTS, COUNTS)
def test_uniform_is_always_as_many_as_asked_and_in_range(frame_count: int, n: int) -> None:
    chosen = sampling.uniform_indices(frame_count, n)
    assert len(chosen) == min(n, frame_count) == len(set(chosen))
    assert chosen[0] == 0 and chosen == sorted(chosen) and chosen[-1] < frame_count
    published = np.arange(0, frame_count, frame_count / min(n, frame_count)).astype(int).tolist()
    assert published[: len(chosen)] == chosen


def test_uniform_where_the_published_arithmetic_runs_over() -> None:
    assert sampling.uniform_indices(17, 7) == [0, 2, 4, 7, 9, 12, 14]
    assert sampling.uniform_indices(417, 8) == [0, 52, 104, 156, 208, 260, 312, 364]
    with pytest.raises(ValueError, match="at least 1"):
        sampling.uniform_indices(0, 8)


@given(st.integers(2, 400), st.integers(2, 64), st.integers(0, 99))
def test_headtail_takes_half_from_either_half(frame_count: int, n: int, seed: int) -> None:
    chosen = sampling.headtail_indices(frame_count, n, random.Random(seed))
    half, middle = min(n, frame_count) // 2, frame_count // 2
    assert len(chosen) == len(set(chosen)) == 2 * half and chosen == sorted(chosen)
    assert all(i < middle for i in chosen[:half]) and all(middle <= i < frame_count for i in chosen[half:])


def test_headtail_of_one_frame() -> None:
    assert sampling.headtail_indices(1, 8, random.Random(0)) == [0]


def test_spread_frames_are_the_first_to_the_last() -> None:
    times = np.arange(100) / 25.0
    chosen = FrameSampling("spread", frames=32).indices(times, 4.0)
    assert chosen.tolist()[:7] == [0, 3, 6, 9, 12, 15, 19] and chosen[-1] == 99 and len(chosen) == 32
    assert FrameSampling("spread", frames=8).indices(times[:3], 0.12).tolist() == [0, 1, 2]
    assert FrameSampling("spread", frames=3).choose(None, 4.0).tolist() == [0.0, 2.0, 4.0]


def test_on_screen_is_the_last_frame_that_has_started() -> None:
    times = np.array([0.1, 0.5, 0.5, 2.0])
    assert sampling.on_screen(times, np.array([0.0, 0.1, 0.49, 0.5, 1.9999999, 9.0])).tolist() == [0, 0, 0, 2, 3, 3]


def test_rate_takes_the_frame_on_screen_at_each_step() -> None:
    times = np.arange(50) / 25
    assert FrameSampling("rate", rate_hz=4).indices(times, 2.0).tolist() == [0, 6, 12, 18, 25, 31, 37, 43]
    low = FrameSampling("rate", rate_hz=4).indices(np.array([0.0, 1.0]), 2.0)
    assert low.tolist() == [0, 1], "a frame that stays on screen is taken once"


def test_rate_spreads_where_the_clip_is_long() -> None:
    wanted = FrameSampling("rate", rate_hz=4, max_frames=32).choose(None, 100.0)
    assert len(wanted) == 32 and wanted[0] == 0 and np.allclose(np.diff(wanted), 100 / 32)
    assert len(FrameSampling("rate", rate_hz=4, max_frames=32).choose(None, 8.0)) == 32
    assert len(FrameSampling("rate", rate_hz=4, max_frames=32).choose(None, 7.9)) == 32
    assert len(FrameSampling("rate", rate_hz=4, max_frames=32).choose(None, 7.7)) == 31


def test_uniform_of_unknown_times_is_by_seconds() -> None:
    assert FrameSampling("uniform", frames=4).choose(None, 8.0).tolist() == [0, 2, 4, 6]


@given(
    st.floats(0, 5000), st.sampled_from(["published", "contiguous", "spread"]), st.integers(1, 40), st.floats(0.1, 5)
)
def test_sound_windows_lie_in_the_sound(duration: float, strategy: str, segments: int, length: float) -> None:
    chosen = SoundSampling(strategy, segments, length).choose(duration)  # type: ignore[arg-type]
    assert 1 <= len(chosen) <= segments
    for start, end in chosen:
        assert 0 <= start <= end <= start + length * (1 + 1e-9)
        assert start <= duration and (duration < length or end <= duration + 1e-6)


def test_published_sound_windows() -> None:
    assert sampling.published_sound_windows(18.0) == [(2.0 * i, 2.0 * i + 2) for i in range(8)]
    assert sampling.published_sound_windows(1.5) == [(0.0, 2.0)] * 8


def test_contiguous_sound_windows() -> None:
    sound = SoundSampling("contiguous", segments=4, length_seconds=0.5)
    assert sound.choose(1.5) == ((0.0, 0.5), (0.5, 1.0), (1.0, 1.5))
    assert sound.choose(1.04) == ((0.0, 0.5), (0.5, 1.0)), "a rest under a tenth of a window is left out"
    assert sound.choose(1.06)[-1] == (1.0, 1.06)
    assert sound.choose(0.01) == ((0.0, 0.01),), "a very short sound is heard all the same"
    long = sound.choose(60.0)
    assert len(long) == 4 and long[0] == (0.0, 0.5) and long[-1] == (59.5, 60.0)


def test_spread_reaches_the_end() -> None:
    chosen = SoundSampling("spread", 3, 2.0).choose(10.0)
    assert chosen == ((0.0, 2.0), (4.0, 6.0), (8.0, 10.0))
    assert SoundSampling("spread", 1, 2.0).choose(10.0) == ((0.0, 2.0),)


def test_windows_cover_everything() -> None:
    assert sampling.windows(5.0, 2.0, 1.5) == [(0.0, 2.0), (1.5, 3.5), (3.0, 5.0)]
    assert sampling.windows(0.7, 2.0, 1.5) == [(0.0, 0.7)]
    with pytest.raises(ValueError, match="positive"):
        sampling.windows(5.0, 0.0, 1.0)


@pytest.mark.parametrize("wrong", [{"strategy": "middle"}, {"frames": 0}, {"rate_hz": math.nan}, {"max_frames": 0}])
def test_wrong_frame_sampling_is_refused(wrong: dict) -> None:
    with pytest.raises(ValueError):
        FrameSampling(**wrong)


@pytest.mark.parametrize("wrong", [{"strategy": "all"}, {"segments": 0}, {"length_seconds": 0.0}])
def test_wrong_sound_sampling_is_refused(wrong: dict) -> None:
    with pytest.raises(ValueError):
        SoundSampling(**wrong)


def test_headtail_is_drawn_by_its_seed_alone() -> None:
    times = np.arange(40) / 10
    chosen = [FrameSampling("headtail", 8, seed=seed).indices(times, 4.0).tolist() for seed in (1, 1, 2)]
    assert chosen[0] == chosen[1] != chosen[2]
    assert chosen[0] == sampling.headtail_indices(40, 8, random.Random(1))
    unknown = FrameSampling("headtail", 8, seed=1).choose(None, 4.0)
    assert len(unknown) == 8 and (unknown[:4] < 2).all() and (unknown[4:] >= 2).all() and unknown.max() < 4

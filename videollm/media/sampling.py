"""Which seconds of a clip to look at and to listen to: pure functions of times, no file and no pixel.

Source: Video-LLaMA, section 3 (uniform frames, 8 x 2 s of sound) and its published data loaders ("headtail").
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from typing import Literal

import numpy as np

ON_SCREEN_EPSILON_SECONDS = 1e-6
"""How much later than the wanted second a frame may start and still be the one on screen: rounding of k / rate."""


def uniform_indices(frame_count: int, n: int) -> list[int]:
    """Evenly spaced frame indices as published: floor(0, L/n, 2L/n, ...); the last frame is never reached.

    The published float arithmetic yields n + 1 indices, the last one out of range, for some n and L. Here it is always
    exactly min(n, frame_count) indices, all in range, equal to the published ones otherwise.

    Raises:
        ValueError: frame_count or n below 1.
    """
    if frame_count < 1 or n < 1:
        raise ValueError(f"uniform_indices needs frames and a count of at least 1, found {frame_count} and {n}")
    n = min(n, frame_count)
    return np.arange(0, frame_count, frame_count / n).astype(int)[:n].tolist()


def headtail_indices(frame_count: int, n: int, rng: random.Random) -> list[int]:
    """Half of the frames at random from the first half and half from the second, each half sorted, as published.

    An odd n loses one frame, as published; where that would leave none (one frame, or n = 1), frame 0 is returned.

    Raises:
        ValueError: frame_count or n below 1.
    """
    if frame_count < 1 or n < 1:
        raise ValueError(f"headtail_indices needs frames and a count of at least 1, found {frame_count} and {n}")
    half = min(n, frame_count) // 2
    middle = frame_count // 2
    head = sorted(rng.sample(range(middle), half))
    tail = sorted(rng.sample(range(middle, frame_count), half))
    return head + tail or [0]


def on_screen(times_seconds: np.ndarray, wanted_seconds: np.ndarray) -> np.ndarray:
    """The index of the frame on screen at each wanted second: the last that has started, or the first frame if none.

    Args:
        times_seconds: float64 (T,), never decreasing, at least one.
        wanted_seconds: float64 (n,).

    Returns:
        int64 (n,), an index into times_seconds for each wanted second.
    """
    started = np.searchsorted(times_seconds, np.asarray(wanted_seconds) + ON_SCREEN_EPSILON_SECONDS, side="right") - 1
    return np.maximum(started, 0)


def segment_centre_indices(frame_count: int, n: int) -> list[int]:
    """The middle frame of each of n equal segments, as published; always n, of short clips some more than once.

    Raises:
        ValueError: frame_count or n below 1.

    Source: the released code of LaViLa (frames of a clip, without jitter); halves are rounded to even.
    """
    if frame_count < 1 or n < 1:
        raise ValueError(f"segment_centre_indices needs frames and a count of at least 1, found {frame_count} and {n}")
    step = (frame_count - 1) / n
    return [(round(step * i) + min(round(step * (i + 1)), frame_count)) // 2 for i in range(n)]


def segment_random_indices(frame_count: int, n: int, rng: random.Random) -> list[int]:
    """A random frame of each of n equal segments, as published for training; neighbours share their border.

    Raises:
        ValueError: frame_count or n below 1.

    Source: the released code of LaViLa (frames of a clip, with jitter); halves are rounded to even.
    """
    if frame_count < 1 or n < 1:
        raise ValueError(f"segment_random_indices needs frames and a count of at least 1, found {frame_count} and {n}")
    step = (frame_count - 1) / n
    return [rng.randint(round(step * i), min(round(step * (i + 1)), frame_count - 1)) for i in range(n)]


def windows(
    duration_seconds: float, length_seconds: float, stride_seconds: float, start_seconds: float = 0.0
) -> list[tuple[float, float]]:
    """Sliding windows (start, end) from a start to the end of a duration, all but the last of the same length.

    The last one ends at the end and may be shorter; a rest under a tenth of a window is left out.

    Raises:
        ValueError: a length or stride that is not positive, or infinite.
    """
    if not (0 < length_seconds < math.inf and 0 < stride_seconds < math.inf):
        raise ValueError(f"windows need a positive length and stride, found {length_seconds} and {stride_seconds}")
    end_seconds = max(duration_seconds, start_seconds)
    found = [(start_seconds, min(start_seconds + length_seconds, end_seconds))]
    while found[-1][1] < end_seconds - 0.1 * length_seconds:
        start = start_seconds + len(found) * stride_seconds
        if start >= end_seconds - 0.1 * length_seconds:
            break
        found.append((start, min(start + length_seconds, end_seconds)))
    return found


def published_sound_windows(
    duration_seconds: float, count: int = 8, length_seconds: float = 2.0
) -> list[tuple[float, float]]:
    """`count` windows that start at i * (duration - length) / count; the end of the sound is never reached.

    Sounds no longer than a window give the same window every time. Windows overlap when the sound is short.
    """
    room = max(duration_seconds - length_seconds, 0.0)
    starts = [i * room / count for i in range(count)]
    return [(start, start + length_seconds) for start in starts]


def contiguous_sound_windows(duration_seconds: float, length_seconds: float) -> list[tuple[float, float]]:
    """Back to back windows from 0. The last one may be shorter; a rest under a tenth of a window is left out."""
    whole = int(duration_seconds / length_seconds + 1e-9)
    found = [(k * length_seconds, (k + 1) * length_seconds) for k in range(whole)]
    rest = duration_seconds - whole * length_seconds
    if not found or rest >= 0.1 * length_seconds:
        found.append((whole * length_seconds, duration_seconds))
    return found


def spread_sound_windows(duration_seconds: float, count: int, length_seconds: float) -> list[tuple[float, float]]:
    """`count` windows at equal distances, the first at 0 and the last ending with the sound."""
    room = max(duration_seconds - length_seconds, 0.0)
    starts = [i * room / (count - 1) for i in range(count)] if count > 1 else [0.0]
    return [(start, min(start + length_seconds, duration_seconds)) for start in starts]


@dataclass(frozen=True)
class FrameSampling:
    """Which frames of a video are looked at.

    Attributes:
        strategy: "uniform" takes `frames` of the file's frames by index, as published; "rate" takes the frame on screen
            at every 1 / rate_hz seconds, or, where that would be more than max_frames, at max_frames seconds spread
            evenly from 0; "headtail" takes, by index, half of the `frames` at random from each half of the file's
            frames, as published for training; "centre" takes, by index, the middle frame of each of `frames` equal
            segments, as LaViLa does, "segment" a random one of each, as it does in training; "spread" takes `frames`
            by index from the first to the last, as LF-VILA does, "shifted" from and to one at random, each within half
            of the distance between two, as it does in training.
        frames: how many, for all but "rate".
        seed: of "headtail", "segment" and "shifted".
        rate_hz: how many a second, for "rate".
        max_frames: the most, for "rate".
        squash_px: None leaves frames at their own size; a number squashes them, while they are decoded, to a square of
            so many pixels with the decoder's bilinear scaler, whatever their shape: as published.
    """

    strategy: Literal["uniform", "rate", "headtail", "centre", "segment", "spread", "shifted"] = "uniform"
    frames: int = 8
    rate_hz: float = 4.0
    max_frames: int = 32
    squash_px: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.strategy not in ("uniform", "rate", "headtail", "centre", "segment", "spread", "shifted"):
            raise ValueError(
                f"frame sampling strategy is uniform, rate, headtail, centre, segment, spread or shifted, found "
                f"{self.strategy!r}"
            )
        if self.frames < 1 or self.max_frames < 1 or not (math.isfinite(self.rate_hz) and self.rate_hz > 0):
            raise ValueError(f"frame sampling needs positive numbers, found {self}")
        if self.squash_px is not None and self.squash_px < 1:
            raise ValueError(f"frames can be squashed to at least 1 pixel, found {self.squash_px}")

    def choose(self, times_seconds: np.ndarray | None, duration_seconds: float) -> np.ndarray:
        """The seconds wanted, float64 (n,), increasing; the frame on screen at each is the answer.

        Args:
            times_seconds: float64 (T,), when each frame of the file starts; None where that is not known.
            duration_seconds: when the last frame leaves the screen.
        """
        if self.strategy in ("headtail", "segment", "shifted"):
            if times_seconds is None:
                times_seconds = np.arange(10 * self.frames) * (max(duration_seconds, 0.0) / (10 * self.frames))
            rng, count = random.Random(self.seed), len(times_seconds)
            if self.strategy == "headtail":
                chosen = headtail_indices(count, self.frames, rng)
            elif self.strategy == "segment":
                chosen = segment_random_indices(count, self.frames, rng)
            else:
                apart = (count - 1) / max(self.frames - 1, 1)
                ends = rng.uniform(0, apart / 2), count - 1 - rng.uniform(0, apart / 2)
                chosen = np.linspace(*ends, self.frames).astype(int).tolist()
            return np.asarray(times_seconds, np.float64)[chosen]
        if self.strategy == "centre":
            if times_seconds is not None:
                return np.asarray(times_seconds, np.float64)[segment_centre_indices(len(times_seconds), self.frames)]
            return (np.arange(self.frames) + 0.5) * (max(duration_seconds, 0.0) / self.frames)
        if self.strategy == "spread":
            if times_seconds is not None:
                places = np.linspace(0, len(times_seconds) - 1, self.frames).astype(int)
                return np.asarray(times_seconds, np.float64)[places]
            return np.linspace(0.0, max(duration_seconds, 0.0), self.frames)
        if self.strategy == "uniform":
            if times_seconds is not None:
                return np.asarray(times_seconds, np.float64)[uniform_indices(len(times_seconds), self.frames)]
            return np.arange(self.frames) * (max(duration_seconds, 0.0) / self.frames)
        count = max(1, math.ceil(duration_seconds * self.rate_hz - 1e-9))
        if count <= self.max_frames:
            return np.arange(count) / self.rate_hz
        return np.arange(self.max_frames) * (duration_seconds / self.max_frames)

    def indices(self, times_seconds: np.ndarray, duration_seconds: float) -> np.ndarray:
        """The chosen frames as increasing indices into times_seconds, each once."""
        return np.unique(on_screen(times_seconds, self.choose(times_seconds, duration_seconds)))


@dataclass(frozen=True)
class SoundSampling:
    """Which stretches of a sound are listened to.

    Attributes:
        strategy: "published" (see `published_sound_windows`); "spread": as many, from the very start to the very end;
            "contiguous": back to back from 0, all of the sound, or `segments` windows spread evenly where that would
            be more than `segments`.
        segments: how many, or how many at most.
        length_seconds: how long each is.
    """

    strategy: Literal["published", "contiguous", "spread"] = "published"
    segments: int = 8
    length_seconds: float = 2.0

    def __post_init__(self) -> None:
        if self.strategy not in ("published", "contiguous", "spread"):
            raise ValueError(
                f"sound sampling strategy must be published, contiguous or spread, found {self.strategy!r}"
            )
        if self.segments < 1 or not (math.isfinite(self.length_seconds) and self.length_seconds > 0):
            raise ValueError(f"sound sampling needs positive numbers, found {self}")

    def choose(self, duration_seconds: float) -> tuple[tuple[float, float], ...]:
        """The windows (start, end) in seconds from the start of the sound."""
        if self.strategy == "published":
            return tuple(published_sound_windows(duration_seconds, self.segments, self.length_seconds))
        if self.strategy == "contiguous" and duration_seconds <= (self.segments + 1) * self.length_seconds:
            found = contiguous_sound_windows(duration_seconds, self.length_seconds)
            if len(found) <= self.segments:
                return tuple(found)
        return tuple(spread_sound_windows(duration_seconds, self.segments, self.length_seconds))

"""Which frames the published LaViLa looks at: of a stretch of frames, and of Ego4D's videos, cut into 5-minute files.

Kept for comparing with published numbers: it assumes 30 frames a second whatever the file says, and that a stretch
touches at most two files. Reading by seconds (`videollm.media.sampling`) does neither.

Source: the released code of LaViLa.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from ..errors import MediaError

CHUNK_SECONDS = 300
RATE_HZ = 30.0

Frame = tuple[int | None, int]
"""The first second of a file (None: the video is one file), and a frame's place in it."""


def segments(start: int, end: int, count: int) -> list[tuple[int, int]]:
    """First and last frame of each of so many equal segments of [start, end), halves rounded to even.

    Neighbours share a frame, as published: where frames are drawn at random, one can be drawn twice.

    Raises:
        ValueError: for no frames or no segments.
    """
    if end <= start or count < 1:
        raise ValueError(f"segments need at least one frame and one segment, found [{start}, {end}) and {count}")
    step = (end - start - 1) / count
    return [(round(step * i) + start, min(round(step * (i + 1)) + start, end)) for i in range(count)]


def segment_frames(start: int, end: int, count: int, rng: random.Random | None = None) -> list[int]:
    """A frame of each segment: the middle one; with a source of random numbers, any of them."""
    bounds = segments(start, end, count)
    return [(low + high) // 2 if rng is None else rng.randint(low, high) for low, high in bounds]


def published_frames(
    start_seconds: float,
    end_seconds: float,
    count: int,
    frames_in: Callable[[int | None], int | None],
    *,
    chunk_seconds: int | None = CHUNK_SECONDS,
    rate_hz: float = RATE_HZ,
) -> list[Frame]:
    """The frames of a stretch of a video.

    Args:
        start_seconds, end_seconds: of the stretch, in the whole video.
        count: of frames wanted.
        frames_in: how many frames the file has that begins at a second (None: the whole video's); None: no such file.
        chunk_seconds: length of a file; None: the video is one file.
        rate_hz: frames a second that are assumed; of a video that is one file, its own.

    Returns:
        (file, frame), ``count`` of them. A stretch that goes on behind its file goes on in the next; where there is
        none, it is taken from what is left of its file.

    Raises:
        MediaError: for a file that is not there or has no frames, or a stretch that does not end after its start.
    """
    chunk = None if chunk_seconds is None else int(start_seconds) // chunk_seconds * chunk_seconds
    here = frames_in(chunk)
    if not here:
        raise MediaError(f"there are no frames of the file that begins at {chunk or 0} s; cut the video anew")
    offset_seconds = start_seconds - (chunk or 0)
    if chunk is None:
        end_seconds = min(end_seconds, here / rate_hz)
    if end_seconds <= start_seconds:
        raise MediaError(f"a stretch from {start_seconds} s to {end_seconds} s has no frames; give a later end")
    first = round(offset_seconds * rate_hz)
    end = first + max(int((end_seconds - start_seconds) * rate_hz), count)
    if chunk is None:
        return [(None, frame) for frame in segment_frames(first, min(end, here), count)]
    wanted, after = segment_frames(first, end, count), chunk + (chunk_seconds or 0)
    if max(wanted) < here:
        return [(chunk, frame) for frame in wanted]
    following = frames_in(after)
    if not following:
        return [(chunk, frame) for frame in segment_frames(min(first, here - 1), here, count)]
    return [(chunk, f) if f < here else (after, min(f % here, following - 1)) for f in wanted]

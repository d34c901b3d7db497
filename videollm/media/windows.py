"""Windows of a file of any length, one after the other: decoded once, from front to back, a window at a time in memory.

A window is the clip that `read_clip` gives of the same stretch. As there, all packets are looked at first, without
decoding anything, so that it is known which frames will be wanted; then pictures and sound are each decoded once, as
windows are asked for. What lies between wanted frames is skipped where a key frame saves work, and windows that overlap
share their frames.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np

from videollm.clips import Clip, Frames, Waveform
from videollm.errors import MediaStretchError, MediaUnreadableError
from videollm.media import image
from videollm.media.audio import RunningSound, span_between
from videollm.media.read import Contents, content_hash_of, look_at
from videollm.media.sampling import FrameSampling, SoundSampling, on_screen, windows
from videollm.media.shots import LOOKED_AT_HZ, LOOKED_AT_PX, PAIRS_AROUND, cuts
from videollm.media.source import STILL, SourceFile, Stretch, in_seconds, sniff, unknown_container
from videollm.media.video import Painter, frames_in_order, left_out, table_between


@dataclass(frozen=True)
class WindowSampling:
    """Which windows of a file, and what of each.

    Attributes:
        length_seconds: of a window; the last one may be shorter.
        stride_seconds: from the start of one to the start of the next.
        frames: which frames of each; None looks at none.
        sound: which stretches of each one's sound; None listens to none.
        start_seconds, end_seconds: the stretch of the file that has windows; by default all of it.
        first: the number of the first window that is read.
        cuts: a window ends where a shot does: shots are windows, and only longer ones are cut into several. All
            pictures of the stretch are decoded once more for that.
    """

    length_seconds: float
    stride_seconds: float
    frames: FrameSampling | None
    sound: SoundSampling | None
    start_seconds: float = 0.0
    end_seconds: float = math.inf
    first: int = 0
    cuts: bool = False

    def __post_init__(self) -> None:
        windows(0.0, self.length_seconds, self.stride_seconds)  # raises for what makes no windows
        if not 0 <= self.start_seconds < self.end_seconds or self.first < 0:
            raise ValueError(f"windows start at 0 or later and end after that, found {self}")

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, told: dict[str, Any]) -> WindowSampling:
        frames = None if told["frames"] is None else FrameSampling(**told["frames"])
        sound = None if told["sound"] is None else SoundSampling(**told["sound"])
        return cls(**told | {"frames": frames, "sound": sound})


@dataclass(frozen=True)
class WindowedFile:
    """A file and the times of its windows.

    Attributes:
        kind: "video" or "audio".
        content_hash: of the file's bytes.
        duration_seconds: of its longest stream.
        spans: (start, end) of each window, in seconds of the file.
        notes: sentences for the user about what could not be read.
        cuts_seconds: where shots begin, apart from the first; none where nobody looked.
    """

    name: str
    kind: str
    content_hash: str
    duration_seconds: float
    spans: tuple[Stretch, ...]
    notes: tuple[str, ...] = ()
    cuts_seconds: tuple[float, ...] = ()


@dataclass(frozen=True, eq=False)
class Window:
    """One window: its number, its place in seconds of the file, and what is in it, in seconds from its own start."""

    index: int
    start_seconds: float
    end_seconds: float
    clip: Clip


def spans_of(
    sampling: WindowSampling, duration_seconds: float, cuts_seconds: Sequence[float] = ()
) -> tuple[Stretch, ...]:
    """(start, end) of each window of a file, in seconds of the file."""
    end = min(duration_seconds, sampling.end_seconds)
    inside = [at for at in cuts_seconds if sampling.start_seconds < at < end]
    return tuple(
        window
        for first, last in pairwise([sampling.start_seconds, *inside, end])
        for window in windows(last, sampling.length_seconds, sampling.stride_seconds, first)
    )


def windows_of(source: SourceFile, sampling: WindowSampling) -> Iterator[WindowedFile | Window]:
    """The windows of an open file, after what is known of the whole. A window in which nothing is stored is left out.

    Raises:
        MediaError: as `read_clip`; a picture has no windows; a start behind the end of the file.
    """
    head = source.head()
    container_format = sniff(head)
    if container_format is None:
        raise unknown_container(source, head)
    if container_format in STILL and (
        container_format not in ("gif", "png") or not image.is_animated(image.open_picture(source, container_format))
    ):
        raise MediaUnreadableError(f"{source.name}: a picture has no windows of time; give a video or a sound")
    container_format = "apng" if container_format == "png" else container_format
    found = look_at(source, container_format)
    if sampling.start_seconds >= found.end_seconds:
        raise MediaStretchError(
            f"{source.name}: the file lasts {in_seconds(found.end_seconds)}, but what is asked of it starts at "
            f"{in_seconds(sampling.start_seconds)}; correct the start, or leave it out"
        )
    at_cuts = _cuts(source, container_format, found, sampling) if sampling.cuts else ()
    spans = spans_of(sampling, found.end_seconds, at_cuts)
    yield WindowedFile(source.name, found.kind, source.content_hash(), found.end_seconds, spans, found.notes, at_cuts)
    rest = spans[sampling.first :]
    pictures = _pictures(source, container_format, found, sampling.frames, rest)
    sounds = _sounds(source, container_format, found, sampling.sound, rest)
    for index, (span, seen, heard) in enumerate(zip(rest, pictures, sounds, strict=True), sampling.first):
        clip = _clip(source, found, span, seen, heard)
        if clip is not None:
            yield Window(index, *span, clip)
    source.check_unchanged()


def _cuts(source: SourceFile, container_format: str, found: Contents, sampling: WindowSampling) -> tuple[float, ...]:
    """Where shots begin in the stretch that has windows: where they begin for whoever looks at the whole file."""
    table = found.table
    if table is None:
        return ()
    # What is compared with a pair of frames at an edge lies outside of the stretch.
    first = max(math.floor(sampling.start_seconds * LOOKED_AT_HZ) - PAIRS_AROUND - 1, 0)
    last = min(table.end_seconds * LOOKED_AT_HZ, sampling.end_seconds * LOOKED_AT_HZ + PAIRS_AROUND + 1)
    places = np.unique(on_screen(table.seconds, np.arange(first, last) / LOOKED_AT_HZ))
    seconds = dict(zip(table.pts[places].tolist(), table.seconds[places].tolist(), strict=True))
    painter = Painter(source, 1, found.aspect, LOOKED_AT_PX)
    coming = frames_in_order(source, container_format, table, places)
    begin = cuts((seconds[int(pts)], painter.paint(frame)) for pts, frame in coming)
    return tuple(at for at in begin if sampling.start_seconds < at < sampling.end_seconds)


@dataclass(frozen=True, eq=False)
class _Heard:
    waveform: Waveform
    windows_seconds: tuple[tuple[float, float], ...]


def _clip(
    source: SourceFile, found: Contents, span: Stretch, seen: tuple[Frames | None, list[str]], heard: _Heard | None
) -> Clip | None:
    frames, notes = seen
    if frames is None and heard is None:
        return None
    sound_end = 0.0 if heard is None else heard.waveform.start_seconds + heard.waveform.duration_seconds
    clip = Clip(
        name=source.name,
        kind=found.kind,
        content_hash="",
        duration_seconds=max(0.0 if frames is None else frames.duration_seconds, sound_end),
        frames=frames,
        waveforms=None if heard is None else (heard.waveform,),
        windows_seconds=() if heard is None else heard.windows_seconds,
        notes=tuple(notes),
    )
    return replace(clip, content_hash=content_hash_of(source, clip, span))


def _pictures(
    source: SourceFile,
    container_format: str,
    found: Contents,
    sampling: FrameSampling | None,
    spans: tuple[Stretch, ...],
) -> Iterator[tuple[Frames | None, list[str]]]:
    """The frames of each window, None where none are stored, and notes."""
    table = found.table
    if table is None or sampling is None:
        yield from ((None, []) for _ in spans)
        return
    wanted: list[np.ndarray | None] = []  # of each window, the frames' places in the table
    lasts: list[float] = []
    counts: list[int] = []
    for span in spans:
        part = table_between(table, *span)
        if part is None:
            wanted.append(None)
            lasts.append(0.0)
            counts.append(0)
            continue
        first = int(np.searchsorted(table.pts, part.pts[0]))
        wanted.append(first + sampling.indices(part.seconds, part.end_seconds))
        lasts.append(part.end_seconds)
        counts.append(len(part.seconds))
    some = [places for places in wanted if places is not None]
    if not some:
        yield from ((None, []) for _ in spans)
        return
    painter = Painter(source, max(map(len, some)), found.aspect, sampling.squash_px)
    coming = frames_in_order(source, container_format, table, np.unique(np.concatenate(some)))
    held: dict[int, np.ndarray] = {}
    latest: float = -math.inf
    for span, places, lasting, count in zip(spans, wanted, lasts, counts, strict=True):
        if places is None:
            yield None, []
            continue
        ticks = table.pts[places].tolist()
        for early in [pts for pts in held if pts < ticks[0]]:
            del held[early]
        while latest < ticks[-1]:
            pts, frame = next(coming, (math.inf, None))
            latest = pts
            if frame is not None and pts >= ticks[0]:
                held[int(pts)] = painter.paint(frame)
        there = [place for place, pts in zip(places.tolist(), ticks, strict=True) if pts in held]
        notes = [] if len(there) == len(ticks) else [left_out(len(ticks) - len(there), "picture", f"of {len(ticks)}")]
        if not there:
            yield None, notes
            continue
        pixels = np.stack([held[int(table.pts[place])] for place in there])
        if painter.shrunk:
            width, height = painter.full_size
            longer = max(pixels.shape[1:3])
            notes.append(f"the pictures of {width}x{height} were read at {longer} pixels on the longer side")
        seconds = np.maximum(table.seconds[there] - span[0], 0.0)
        yield Frames(pixels, seconds, lasting, count), notes


def _sounds(
    source: SourceFile,
    container_format: str,
    found: Contents,
    sampling: SoundSampling | None,
    spans: tuple[Stretch, ...],
) -> Iterator[_Heard | None]:
    """The sound of each window, None where none is stored."""
    if found.span is None or sampling is None:
        yield from (None for _ in spans)
        return
    running = RunningSound(source, container_format, found.span, found.origin_seconds)
    for start, end in spans:
        part = span_between(found.span, start, end)
        wave = None if part is None else running.between(part.start_seconds, part.end_seconds)
        if wave is None:
            yield None
            continue
        begin = wave.start_seconds - start
        chosen = sampling.choose(wave.duration_seconds)
        inside = tuple((begin + a, begin + min(b, wave.duration_seconds)) for a, b in chosen)
        yield _Heard(Waveform(wave.samples, wave.rate_hz, begin), inside)

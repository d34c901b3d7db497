"""Sound at its own rate and channels, with real times: all of a short sound, or pieces around the wanted windows.

A sound of at most `WHOLE_SOUND_SECONDS` is decoded whole. Of a longer one only the windows are, each with a margin for
the resampler's filter, reached by seeking, so that an hour costs no more memory than its windows.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import av
import numpy as np
from av.audio.frame import AudioFrame
from av.audio.resampler import AudioResampler
from av.audio.stream import AudioStream

from videollm.clips import Waveform
from videollm.errors import MediaLimitError, MediaUnreadableError
from videollm.media.sampling import SoundSampling
from videollm.media.source import (
    SourceFile,
    check_duration,
    choose_streams,
    in_bytes,
    memory_error,
    opened_container,
    reason_of,
)
from videollm.media.video import PacketScan, left_out

WHOLE_SOUND_SECONDS = 60.0
MARGIN_SECONDS = 0.25
"""Sound kept on either side of a window, for the tails of a resampling filter."""
JOIN_SECONDS = 2.0
"""Pieces closer than this are read as one."""
PREROLL_SECONDS = 1.0
"""Decoding starts this much before a piece: lossy codecs need the frames before to be exact (mp3 the most)."""
HARD_GAP_SECONDS = 0.1
"""A hole or an overlap in the times beyond this is real and is filled or cut, as FFmpeg's `aresample=async=1`; less is
the rounding of the container's clock, and the samples are simply continuous."""

SCALE = {"u8": (128.0, 1 / 128), "s16": (0.0, 1 / 2**15), "s32": (0.0, 1 / 2**31), "s64": (0.0, 1 / 2**63)}


@dataclass(frozen=True)
class SoundSpan:
    """Where a file's sound lies, in seconds of the file, by its packets."""

    start_seconds: float
    end_seconds: float


def sound_span(source: SourceFile, stream: AudioStream, scan: PacketScan, origin_seconds: float) -> SoundSpan | None:
    """From the packets; None where the stream holds none."""
    base = float(stream.time_base or 0)
    rate = stream.codec_context.sample_rate or 0
    stamps = [
        (pts if pts is not None else dts, length)
        for pts, dts, length in zip(scan.pts, scan.dts, scan.duration, strict=True)
        if pts is not None or dts is not None
    ]
    if not scan.pts or not rate:
        return None
    if not stamps:
        total = sum(scan.duration) * base
        return SoundSpan(0.0, total) if total > 0 else None
    start = min(stamp for stamp, _ in stamps) * base - origin_seconds  # type: ignore[type-var, operator]
    end = max(stamp + length for stamp, length in stamps) * base - origin_seconds  # type: ignore[operator]
    check_duration(source, end)
    return SoundSpan(max(start, 0.0), end) if end > max(start, 0.0) else None


def span_between(span: SoundSpan, start_seconds: float, end_seconds: float) -> SoundSpan | None:
    """The part of a sound in [start, end), in seconds of the file; None where there is none."""
    start, end = max(span.start_seconds, start_seconds), min(span.end_seconds, end_seconds)
    return SoundSpan(start, end) if end > start else None


def read_sound(
    source: SourceFile,
    container_format: str,
    span: SoundSpan,
    sampling: SoundSampling,
    origin_seconds: float,
    is_part: bool = False,
) -> tuple[tuple[Waveform, ...], tuple[tuple[float, float], ...], list[str]]:
    """Decoded pieces, the windows to be heard in seconds of the file (each inside one piece), notes for the user.

    Args:
        span: where the sound lies.
        is_part: the span is only a part of the sound, and none beyond it is read.

    Raises:
        MediaUnreadableError: nothing of the sound can be decoded.
        MediaLimitError: more decoded sound than limits.sound_bytes, or no memory.
    """
    length = span.end_seconds - span.start_seconds
    if length <= WHOLE_SOUND_SECONDS:
        all_of_it = (span.start_seconds, span.end_seconds) if is_part else (0.0, span.end_seconds + 1.0)
        whole, notes = _decode(source, container_format, [all_of_it], origin_seconds)
        # The packets' lengths include what a codec pads at either end; the decoded sound is the truth.
        span = SoundSpan(whole[0].start_seconds, whole[0].start_seconds + whole[0].duration_seconds)
        return whole, _windows(sampling, span), notes
    wanted = _windows(sampling, span)
    stretches: list[tuple[float, float]] = []
    for start, end in sorted(wanted):
        start, end = max(start - MARGIN_SECONDS, 0.0), end + MARGIN_SECONDS
        if stretches and start - stretches[-1][1] < JOIN_SECONDS:
            stretches[-1] = (stretches[-1][0], max(end, stretches[-1][1]))
        else:
            stretches.append((start, end))
    pieces, notes = _decode(source, container_format, stretches, origin_seconds)
    heard: list[tuple[float, float]] = []
    for start, end in wanted:
        for piece in pieces:
            inside = max(start, piece.start_seconds), min(end, piece.start_seconds + piece.duration_seconds)
            if inside[1] > inside[0]:
                heard.append(inside)
                break
    if len(heard) < len(wanted):
        notes.append(f"{len(wanted) - len(heard)} of {len(wanted)} stretches of the sound could not be read")
    if not heard:
        raise MediaUnreadableError(f"{source.name}: the sound cannot be decoded where it was to be heard")
    return pieces, tuple(heard), notes


def sound_between(
    source: SourceFile, container_format: str, start_seconds: float, end_seconds: float, origin_seconds: float
) -> Waveform | None:
    """The sound in [start, end); None where there is none in it."""
    try:
        pieces, _ = _decode(source, container_format, [(start_seconds, end_seconds)], origin_seconds)
    except MediaUnreadableError:
        return None
    return pieces[0]


def _windows(sampling: SoundSampling, span: SoundSpan) -> tuple[tuple[float, float], ...]:
    """The sampling's windows in seconds of the file, none beyond the end of the sound."""
    length = span.end_seconds - span.start_seconds
    return tuple(
        (span.start_seconds + start, span.start_seconds + min(end, length)) for start, end in sampling.choose(length)
    )


def _decode(
    source: SourceFile, container_format: str, stretches: Sequence[tuple[float, float]], origin_seconds: float
) -> tuple[tuple[Waveform, ...], list[str]]:
    pieces: list[Waveform] = []
    damaged, last_error = 0, "no samples"
    budget = source.limits.sound_bytes
    seeks = all(start > PREROLL_SECONDS for start, _ in stretches)
    with opened_container(source, container_format, used=seeks) as container:
        stream = choose_streams(source, container).audio
        assert stream is not None
        for start, end in stretches:
            piece = _Piece(source, start, end, budget)
            if start > PREROLL_SECONDS and not _seek(container, stream, start - PREROLL_SECONDS + origin_seconds):
                piece.mistrust = True
            deque(_filling(container, stream, piece, origin_seconds), maxlen=0)
            if piece.late and start > PREROLL_SECONDS:
                # The container's seeking is not exact: come from the beginning.
                piece = _Piece(source, start, end, budget)
                with opened_container(source, container_format) as again:
                    other = choose_streams(source, again).audio
                    assert other is not None
                    deque(_filling(again, other, piece, origin_seconds), maxlen=0)
            damaged, last_error = damaged + piece.damaged, piece.last_error or last_error
            wave = piece.waveform()
            if wave is not None:
                pieces.append(wave)
                budget -= wave.samples.nbytes
    if not pieces:
        raise MediaUnreadableError(
            f"{source.name}: the file has sound but none of it can be decoded ({last_error}); copy or download it again"
        )
    return tuple(pieces), [left_out(damaged, "piece", "of the sound")] if damaged else []


def _seek(container: Any, stream: AudioStream, seconds: float) -> bool:
    try:
        container.seek(int(seconds / float(stream.time_base or 1)), stream=stream, backward=True)
        return True
    except av.FFmpegError:
        return False


def _filling(container: Any, stream: AudioStream, piece: _Piece, origin_seconds: float) -> Iterator[None]:
    """Decode packet by packet into a piece, until it is full or the sound ends."""
    base = float(stream.time_base or 0)
    with suppress(av.FFmpegError):
        for packet in container.demux(stream):
            if packet.size == 0:
                continue
            if packet.is_corrupt:  # half of one, where a file is cut off
                piece.missed()
                continue
            try:
                frames = stream.codec_context.decode(packet)
            except av.EOFError:
                continue
            except av.MemoryError:
                raise memory_error(piece.source) from None
            except av.FFmpegError as error:
                piece.lost(reason_of(error))
                continue
            for frame in frames:
                at = None if frame.pts is None else frame.pts * float(frame.time_base or base) - origin_seconds
                if not piece.add(frame, at):
                    return
            yield
    with suppress(av.FFmpegError):
        for frame in stream.codec_context.decode(None):
            at = None if frame.pts is None else frame.pts * float(frame.time_base or base) - origin_seconds
            if not piece.add(frame, at):
                break
    yield


class _Piece:
    """Collects samples of one stretch, placed by their times.

    Attributes:
        late: the first decoded sample lies after the start of the stretch, though there may be sound before it.
    """

    def __init__(self, source: SourceFile, start_seconds: float, end_seconds: float, budget_bytes: int) -> None:
        self.source = source
        self.start, self.end = start_seconds, end_seconds
        self.budget = budget_bytes
        self.mistrust = False
        self.late = False
        self.damaged = 0
        self.last_error = ""
        self._rate = 0
        self._channels = 0
        self._layout: Any = None
        self._resampler: AudioResampler | None = None
        self._first: float | None = None  # time of the first sample that came, kept or not
        self._came = 0  # samples since then
        self._skipped = 0  # of those, how many before the stretch
        self._kept: list[np.ndarray] = []
        self._after_loss = False
        self._bytes = 0

    def lost(self, reason: str) -> None:
        self.damaged += 1
        self.last_error = reason
        self._after_loss = True

    def missed(self) -> None:
        self._after_loss = True

    def add(self, frame: AudioFrame, at: float | None) -> bool:
        """False when the stretch is full."""
        if not self._rate:
            limits = self.source.limits
            self._rate, self._channels, self._layout = frame.sample_rate, frame.layout.nb_channels, frame.layout
            if not 0 < self._rate <= limits.rate_hz or not 0 < self._channels <= limits.channels:
                raise MediaLimitError(
                    f"{self.source.name}: the sound has {self._channels} channels at {self._rate} Hz, the limits are "
                    f"{limits.channels} and {limits.rate_hz}; convert it first"
                )
        if (frame.sample_rate, frame.layout.nb_channels) != (self._rate, self._channels):
            # The sound changes its form half-way: keep the first one's.
            self._resampler = self._resampler or AudioResampler("fltp", self._layout, self._rate)
            frame.pts = None
            try:
                parts = [as_float(part) for part in self._resampler.resample(frame)]
            except (av.FFmpegError, ValueError) as error:
                self.lost(reason_of(error))
                return True
            samples = np.concatenate(parts, 1) if parts else np.zeros((self._channels, 0), np.float32)
        else:
            samples = as_float(frame)
        if self._first is None:
            self._first = at if at is not None else 0.0
            self.late = self.mistrust or self._first > self.start + 1e-3
        elif at is not None:
            drift = at - (self._first + self._came / self._rate)
            if drift > HARD_GAP_SECONDS or (self._after_loss and drift > 0):
                missing = min(drift, max(self.end - self._first - self._came / self._rate, 0.0))
                # A hole may be hours long: its silence takes no memory before it is asked for.
                silence = np.zeros((self._channels, 1), np.float32)
                self._push(np.broadcast_to(silence, (self._channels, round(missing * self._rate))))
            elif drift < -HARD_GAP_SECONDS:
                samples = samples[:, round(-drift * self._rate) :]
        self._after_loss = False
        self._push(samples)
        return self._first + self._came / self._rate < self.end

    def _push(self, samples: np.ndarray) -> None:
        assert self._first is not None
        # To the nearest sample: containers round their clocks.
        before = max(round((self.start - self._first) * self._rate) - self._came, 0)
        after = round((self.end - self._first) * self._rate) - self._came
        self._came += samples.shape[1]
        kept = samples[:, before : max(after, 0)]
        if not self._kept:
            self._skipped = self._came - samples.shape[1] + min(before, samples.shape[1])
        if kept.shape[1]:
            self._kept.append(kept)
            self._spend(kept.nbytes)

    def _spend(self, count: int) -> None:
        self._bytes += count
        if self._bytes > self.budget:
            raise self._too_much()

    def _too_much(self) -> MediaLimitError:
        return MediaLimitError(
            f"{self.source.name}: the sound to be heard needs more than the limit of "
            f"{in_bytes(self.source.limits.sound_bytes)}; ask for fewer or shorter stretches"
        )

    def waveform(self) -> Waveform | None:
        if not self._kept or self._first is None:
            return None
        return self._wave(self._kept, self._skipped)

    def _wave(self, blocks: Sequence[np.ndarray], skipped: int) -> Waveform:
        assert self._first is not None
        samples = np.ascontiguousarray(np.concatenate(blocks, axis=1))
        # Damaged floating point sound can hold anything.
        np.nan_to_num(samples, copy=False, nan=0.0, posinf=0.0, neginf=0.0)
        return Waveform(samples, self._rate, self._first + skipped / self._rate)


class RunningSound(_Piece):
    """The sound of a file, decoded once, from which stretches are taken in the order of their starts.

    It is decoded from its very start whatever is asked for first, so that a stretch is always the same samples.

    Args:
        span: where the sound lies.
    """

    def __init__(self, source: SourceFile, container_format: str, span: SoundSpan, origin_seconds: float) -> None:
        super().__init__(source, 0.0, span.end_seconds + 1.0, source.limits.sound_bytes)
        self._from = 0.0
        self._blocks: deque[tuple[int, np.ndarray]] = deque()  # each with the place of its first sample
        self._container_format, self._origin = container_format, origin_seconds
        self._steps = self._decoding()

    def between(self, start_seconds: float, end_seconds: float) -> Waveform | None:
        """The sound in [start, end), in seconds of the file; None where there is none. Nothing earlier is kept.

        Raises:
            MediaLimitError: more than limits.sound_bytes.
        """
        self._from = start_seconds
        self._forget()
        while self._first is None or self._first + self._came / self._rate < end_seconds:
            if next(self._steps, None) is None:
                break
        if self._first is None:
            return None
        most = round((end_seconds - start_seconds) * self._rate) * self._channels * 4
        if most > self.budget:
            raise self._too_much()
        begin = max(round((start_seconds - self._first) * self._rate), round(-self._first * self._rate), 0)
        end = min(round((end_seconds - self._first) * self._rate), self._came)
        blocks = [block[:, max(begin - at, 0) : max(end - at, 0)] for at, block in self._blocks]
        blocks = [block for block in blocks if block.shape[1]]
        return self._wave(blocks, begin) if blocks else None

    def _decoding(self) -> Iterator[bool]:
        with opened_container(self.source, self._container_format) as container:
            stream = choose_streams(self.source, container).audio
            assert stream is not None
            for _ in _filling(container, stream, self, self._origin):
                yield True

    def _push(self, samples: np.ndarray) -> None:
        if samples.shape[1]:
            self._blocks.append((self._came, samples))
            self._came += samples.shape[1]
            self._spend(_kept_bytes(samples))
            self._forget()

    def _forget(self) -> None:
        while self._blocks and self._first is not None:
            at, block = self._blocks[0]
            if self._first + (at + block.shape[1]) / self._rate >= self._from:
                break
            self._blocks.popleft()
            self._bytes -= _kept_bytes(block)


def _kept_bytes(block: np.ndarray) -> int:
    """Of the silence of a hole, none: it is one sample, repeated."""
    return block.nbytes if block.strides[-1] else 0


def as_float(frame: AudioFrame) -> np.ndarray:
    """float32 (C, N) of a decoded frame: integers over their full scale, so that -1 is the lowest."""
    values = frame.to_ndarray()
    if not frame.format.is_planar:
        values = values.reshape(-1, frame.layout.nb_channels).T
    offset, scale = SCALE.get(frame.format.name.removesuffix("p"), (0.0, 1.0))
    if scale == 1.0:
        return values.astype(np.float32)
    if offset:
        values = values.astype(np.float32) - np.float32(offset)
    # A product of two float32 is exact for 16 bits and loses the last of 32.
    return (values.astype(np.float32 if values.itemsize <= 2 else np.float64) * scale).astype(np.float32)

"""Pictures of a video at chosen seconds: upright, square pixels, RGB, each with its real presentation time.

How the frames are reached. First every packet of the file is looked at without decoding anything (the timetable: when
each frame is shown, which are key frames); this costs a hundredth of decoding. Then the sampling chooses frames, and
only then is it decided, gap by gap, how to get from one chosen frame to the next: decode on, or start again at the key
frame before it. `scripts/bench/decoding.py` measures both ways over key frame distances and file lengths, and gives
the two constants:

* `JUMP_PACKETS`: starting again at a key frame is worth it when at least this many packets need not be decoded.
  Measured: 8 to 10 packets of its file, most of which is that a key frame takes longer to decode than the others.
* `SEEK_PACKETS`: to get to that key frame, packets are read and dropped if fewer than this many lie between, and
  otherwise the container is asked to seek (mov/mp4 and Matroska, whose seeking is exact; in the others packets are
  always read and dropped). Measured: a seek costs as much as reading and dropping 30 to 100 packets.

So 8 frames of an hour cost 8 short decodes, 32 frames of a short clip with one key frame are one pass, and everything
between is the cheaper of the two. The pictures are the same either way: if a frame reached by a jump is missing or
marked as damaged, all is read again in one pass.
"""

from __future__ import annotations

import importlib
import math
import os
import re
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import pairwise
from typing import Any, Literal

import av
import numpy as np
from av.container import InputContainer
from av.filter import Graph
from av.sidedata.sidedata import Type as SideDataType
from av.video.frame import VideoFrame
from av.video.reformatter import Interpolation, VideoReformatter
from av.video.stream import VideoStream

from videollm.clips import Frames
from videollm.errors import MediaError, MediaLimitError, MediaUnreadableError, MissingDependencyError
from videollm.media.sampling import FrameSampling, on_screen
from videollm.media.source import (
    SourceFile,
    Stretch,
    check_duration,
    check_pixels,
    choose_streams,
    discard_others,
    display_size,
    frame_rate_error,
    memory_error,
    opened_container,
)

JUMP_PACKETS = 8
SEEK_PACKETS = 64
PLAN = Literal["auto", "one pass", "jump"]

PACKET_TIMES_ARE_FRAME_TIMES = {
    "h264", "hevc", "av1", "vp9", "mjpeg", "gif", "apng", "png", "ffv1", "prores", "dnxhd", "rawvideo", "huffyuv",
    "ffvhuff", "utvideo", "qtrle", "theora",
}  # fmt: skip
"""Codecs of which each packet with a time is one shown picture. Of the others (hidden or packed frames) the times are
found by decoding."""

FRAME_LENGTH_UNKNOWN_SECONDS = 0.04


@dataclass(frozen=True)
class Timetable:
    """When each picture of a video is shown, and what must be decoded to get it.

    Attributes:
        seconds: float64 (T,), never decreasing: every shown frame.
        pts: int64 (T,), the same in the stream's own ticks; where times come from decoding, the number of the frame
            in the order in which they come out of the decoder.
        end_seconds: when the last frame leaves the screen.
        packet: int64 (T,), the packet that holds each frame, in file order; None where times come from decoding.
        packet_pts, packet_dts, packet_is_key: of all packets of the stream, in file order.
        damaged: how many packets could not be decoded, where that is known.
    """

    seconds: np.ndarray
    pts: np.ndarray
    end_seconds: float
    packet: np.ndarray | None
    packet_pts: np.ndarray
    packet_dts: np.ndarray
    packet_is_key: np.ndarray
    damaged: int = 0


@dataclass
class PacketScan:
    """What one look at all packets of a stream, without decoding, finds; lists in file order, ticks of the stream."""

    pts: list[int | None]
    dts: list[int | None]
    duration: list[int]
    is_key: list[bool]
    is_hidden: list[bool]


def scan_packets(source: SourceFile, container: InputContainer, streams: Sequence[Any]) -> dict[int, PacketScan]:
    """Read every packet once; a container that breaks off ends the scan, as the end of the file would.

    Returns:
        By stream index.
    """
    found = {stream.index: PacketScan([], [], [], [], []) for stream in streams}
    limit = source.limits.frames
    hours = source.limits.duration_seconds / 3600
    sound_limit = int(max(limit, hours * 3600 * 1000))
    kinds = {stream.index: stream.type for stream in streams}
    discard_others(container, set(found))
    with suppress(av.FFmpegError):
        for packet in container.demux(list(streams)):
            if packet.size == 0:
                continue
            scan = found[packet.stream_index]
            scan.pts.append(packet.pts)
            scan.dts.append(packet.dts)
            scan.duration.append(packet.duration or 0)
            scan.is_key.append(packet.is_keyframe)
            scan.is_hidden.append(packet.is_discard or packet.is_corrupt)
            if len(scan.pts) > (limit if kinds[packet.stream_index] == "video" else sound_limit):
                raise MediaLimitError(f"{source.name}: more than {limit:,} pictures or pieces of sound; cut the file")
    return found


def timetable(
    source: SourceFile, container_format: str, stream: VideoStream, scan: PacketScan, origin_seconds: float
) -> Timetable:
    """When the frames are shown, from the packets, or by decoding where packets do not tell.

    Raises:
        MediaUnreadableError: no frame.
        MediaLimitError: too long, or too many pictures a second.
    """
    base = float(stream.time_base or 0)
    pairs = enumerate(zip(scan.pts, scan.is_hidden, strict=True))
    shown = [i for i, (pts, hidden) in pairs if pts is not None and not hidden]
    known = all(pts is not None for pts in scan.pts) and len({scan.pts[i] for i in shown}) == len(shown)
    # Without presentation times in the container (avi), those of reordered frames are made up.
    known = known and not (container_format == "avi" and stream.codec_context.has_b_frames)
    if known and shown and stream.codec_context.name.removeprefix("lib") in PACKET_TIMES_ARE_FRAME_TIMES | {"dav1d"}:
        shown.sort(key=lambda i: scan.pts[i] or 0)
        pts = np.array([scan.pts[i] for i in shown], np.int64)
        lasts = scan.duration[shown[-1]] * base
        packet: np.ndarray | None = np.array(shown, np.int64)
        damaged = 0
        seconds = pts * base - origin_seconds
    else:
        pts, seconds, lasts, damaged = _times_by_decoding(source, container_format, origin_seconds)
        packet = None
    visible = seconds > -1e-6
    if visible.any():
        # Frames before second 0 are there to be decoded, not to be shown.
        seconds, pts = np.maximum(seconds[visible], 0.0), pts[visible]
        packet = None if packet is None else packet[visible]
    if len(pts) == 0:
        raise MediaUnreadableError(
            f"{source.name}: no picture could be decoded (the file has 0 readable frames); copy or download it again"
        )
    if lasts <= 0:
        gaps = np.diff(seconds)
        gaps = gaps[gaps > 0]
        rate = stream.average_rate
        lasts = float(np.median(gaps)) if len(gaps) else (1 / float(rate) if rate else FRAME_LENGTH_UNKNOWN_SECONDS)
    if len(seconds) > 10:
        # A median, so that a file may hold a few frames close together.
        usual = float(np.median(np.diff(seconds)))
        if usual * source.limits.frame_rate_hz < 1:
            raise frame_rate_error(source, 1 / max(usual, base, 1e-9))
    end = float(seconds[-1] + min(lasts, max(10.0, float(seconds[-1] - seconds[0]))))
    if container_format == "mov" and stream.duration and len(scan.pts) == stream.frames:
        # mp4 stores how long packets last in the order of decoding; how long the last picture stays, only in the whole.
        whole = ((stream.start_time or 0) + stream.duration) * base - origin_seconds
        end = whole if whole > seconds[-1] else end
    check_duration(source, end)
    as_array = lambda values: np.array([-(2**62) if v is None else v for v in values], np.int64)  # noqa: E731
    return Timetable(
        seconds=seconds,
        pts=pts,
        end_seconds=end,
        packet=packet,
        packet_pts=as_array(scan.pts),
        packet_dts=as_array(scan.dts),
        packet_is_key=np.array(scan.is_key, bool),
        damaged=damaged,
    )


def table_between(table: Timetable, start_seconds: float, end_seconds: float) -> Timetable | None:
    """The frames on screen in [start, end), their seconds counted from the start; None where there are none."""
    if start_seconds >= table.end_seconds or end_seconds <= table.seconds[0]:
        return None
    first = int(on_screen(table.seconds, np.array([start_seconds]))[0])
    last = max(int(np.searchsorted(table.seconds, end_seconds - 1e-9)), first + 1)
    return replace(
        table,
        seconds=np.maximum(table.seconds[first:last] - start_seconds, 0.0),
        pts=table.pts[first:last],
        packet=None if table.packet is None else table.packet[first:last],
        end_seconds=min(table.end_seconds, end_seconds) - start_seconds,
    )


def _frame_pts(frame: VideoFrame) -> int | None:
    """Presentation time in ticks; a container without presentation times (avi) leaves the packet's own."""
    return frame.pts if frame.pts is not None else frame.dts


def _prepare(stream: VideoStream, max_pixels: int) -> None:
    """Decode on one thread, so that the result does not depend on timing, and within the limit on pixels."""
    stream.codec_context.thread_count = 1
    stream.codec_context.options = {"max_pixels": str(max_pixels)}


class _Decoding:
    """A decoder fed packet by packet; a damaged packet is counted and left out, as FFmpeg's tools do."""

    def __init__(self, source: SourceFile, stream: VideoStream) -> None:
        self.source = source
        self.stream = stream
        self.damaged = 0
        _prepare(stream, source.limits.frame_pixels)

    def feed(self, packet: Any) -> list[VideoFrame]:
        """The frames that come out; ``None`` drains the decoder, which must then be flushed."""
        try:
            return list(self.stream.codec_context.decode(packet))
        except av.EOFError:
            return []
        except av.MemoryError:
            raise memory_error(self.source) from None
        except av.FFmpegError:
            self.damaged += 1
            if self.damaged == 1 and packet is not None:
                self._check_too_large(packet)
            return []

    def _check_too_large(self, packet: Any) -> None:
        """Whether the packet was refused for its size, which only FFmpeg's log says.

        Raises: MediaLimitError
        """
        before = av.logging.get_level()
        av.logging.set_level(av.logging.ERROR)
        try:
            with av.logging.Capture() as lines, suppress(av.FFmpegError):
                self.stream.codec_context.decode(packet)
        finally:
            av.logging.set_level(before)
        found = re.search(r"size (\d+)x(\d+) exceeds", " ".join(text for _, _, text in lines))
        if found:
            check_pixels(self.source, int(found[1]), int(found[2]))


def _times_by_decoding(
    source: SourceFile, container_format: str, origin_seconds: float
) -> tuple[np.ndarray, np.ndarray, float, int]:
    """Number and second of every frame, how long the last is shown (0: unknown), and how many packets were damaged.

    Frames come out of a decoder in the order in which they are shown, so times that are out of order are put in order.
    """
    ticks: list[int] = []
    last_duration = 0
    with opened_container(source, container_format) as container:
        stream = choose_streams(source, container).video
        assert stream is not None
        decoding = _Decoding(source, stream)
        for frame in _all_frames(container, stream, decoding):
            pts = _frame_pts(frame)
            ticks.append(pts if pts is not None else (ticks[-1] + max(last_duration, 1) if ticks else 0))
            last_duration = frame.duration or last_duration
        base = float(stream.time_base or 0)
    seconds = np.sort(np.array(ticks, np.float64)) * base - origin_seconds
    if container_format == "avi" and len(seconds):
        seconds -= seconds[0]  # in an avi the first picture is at 0; what FFmpeg adds is the decoder's delay
    return np.arange(len(ticks)), seconds, last_duration * base, decoding.damaged


def _all_frames(container: InputContainer, stream: VideoStream, decoding: _Decoding) -> Iterator[VideoFrame]:
    discard_others(container, {stream.index})
    with suppress(av.FFmpegError):
        for packet in container.demux(stream):
            if packet.size == 0 or packet.is_corrupt:
                continue
            yield from decoding.feed(packet)
    yield from decoding.feed(None)


_TICK = Fraction(1, 1000)
"""A scale filter wants to know how long a tick is; nothing depends on it."""


class Painter:
    """Turns decoded frames into upright RGB with square pixels, all of one size.

    Args:
        count: how many frames there will be; together they stay within limits.pixel_bytes, smaller if need be.
        aspect: width / height of a stored pixel.
        squash_px: see `FrameSampling`.
    """

    def __init__(self, source: SourceFile, count: int, aspect: float, squash_px: int | None = None) -> None:
        self._source = source
        self._count = count
        self._aspect = aspect
        self._squash_px = squash_px
        self._squasher: tuple[tuple[int, int, str], Graph] | None = None
        self._reformatter = VideoReformatter()
        self._size: tuple[int, int] | None = None
        self._matrix: tuple[bool, bool, bool] | None = None
        self.full_size: tuple[int, int] = (0, 0)
        self.shrunk = False

    def paint(self, frame: VideoFrame) -> np.ndarray:
        """uint8 (H, W, 3).

        Raises:
            MediaLimitError: too many pixels, as decoded.
        """
        if self._size is None:
            check_pixels(self._source, frame.width, frame.height)
            shown = display_size(frame.width, frame.height, self._aspect)
            check_pixels(self._source, *shown)
            self.full_size = shown
            asked = (self._squash_px, self._squash_px) if self._squash_px else shown
            self._size = fit_size(asked, self._count, self._source.limits.pixel_bytes)
            self.shrunk = self._size != asked
            self._matrix = orientation(frame)
        width, height = self._size
        if (width, height) == (frame.width, frame.height):
            scaler = Interpolation.BILINEAR  # of colour planes only: what FFmpeg and decord do
        else:
            scaler = Interpolation.AREA if width * height < frame.width * frame.height else Interpolation.BICUBIC
        transparent = frame.format.name.startswith(("rgba", "bgra", "argb", "abgr", "yuva", "ya", "gbrap", "pal8"))
        colours = "rgba" if transparent else "rgb24"
        try:
            if self._squash_px:
                pixels = self._squash(frame, colours)
            else:
                pixels = self._reformatter.reformat(
                    frame, width, height, colours, interpolation=scaler, threads=1
                ).to_ndarray()
        except av.MemoryError:
            raise memory_error(self._source) from None
        except (av.FFmpegError, ValueError) as error:
            raise MediaUnreadableError(
                f"{self._source.name}: pictures in the pixel format {frame.format.name} cannot be turned into RGB "
                f"({error}); re-encode the file"
            ) from None
        if transparent:
            pixels = on_white(pixels)
        assert self._matrix is not None
        return turn_upright(pixels, self._matrix)

    def _squash(self, frame: VideoFrame, colours: str) -> np.ndarray:
        """Scaled and turned into RGB in one step by FFmpeg's scale filter, which is what decord does, bit for bit."""
        kind = (frame.width, frame.height, frame.format.name)
        if self._squasher is None or self._squasher[0] != kind:
            assert self._size is not None
            graph = Graph()
            steps = [
                graph.add_buffer(width=kind[0], height=kind[1], format=frame.format, time_base=_TICK),
                graph.add("scale", f"{self._size[0]}:{self._size[1]}:flags=bilinear"),
                graph.add("format", colours),
                graph.add("buffersink"),
            ]
            for step, following in pairwise(steps):
                step.link_to(following)
            graph.configure()
            self._squasher = kind, graph
        self._squasher[1].push(frame)
        return self._squasher[1].vpull().to_ndarray()


def fit_size(size: tuple[int, int], count: int, budget_bytes: int) -> tuple[int, int]:
    """The largest (width, height) of the same shape at which `count` RGB pictures stay within the budget."""
    width, height = size
    scale = (budget_bytes / (count * width * height * 3)) ** 0.5
    if scale >= 1:
        return size
    return max(1, int(width * scale)), max(1, int(height * scale))


def on_white(rgba: np.ndarray) -> np.ndarray:
    """uint8 (H, W, 4) with straight alpha laid on white: uint8 (H, W, 3)."""
    alpha = rgba[..., 3:].astype(np.uint16)
    return ((rgba[..., :3] * alpha + 255 * (255 - alpha) + 127) // 255).astype(np.uint8)


def orientation(frame: VideoFrame) -> tuple[bool, bool, bool]:
    """(transpose, flip left-right, flip up-down), in that order, that make a stored picture upright.

    From the display matrix that the container or the picture carries: stored (x, y) is shown at (ax + cy, bx + dy).
    """
    try:
        data: Any = frame.side_data[SideDataType.DISPLAYMATRIX]  # type: ignore[index]
    except KeyError:
        return False, False, False
    except ValueError:
        # PyAV 18 does not know FFmpeg's newer kinds of side data and then lists none; the angle alone can be had.
        return {90: (True, False, True), -90: (True, True, False), 180: (False, True, True)}.get(
            frame.rotation if frame.rotation != -180 else 180, (False, False, False)
        )
    a, b, _, c, d = np.frombuffer(bytes(data), "<i4")[:5].tolist()
    if abs(a) + abs(d) >= abs(b) + abs(c):
        return False, a < 0, d < 0
    return True, c < 0, b < 0


def turn_upright(pixels: np.ndarray, turn: tuple[bool, bool, bool]) -> np.ndarray:
    """Apply `orientation` to (H, W, 3)."""
    transpose, left_right, up_down = turn
    if transpose:
        pixels = pixels.transpose(1, 0, 2)
    if left_right:
        pixels = pixels[:, ::-1]
    if up_down:
        pixels = pixels[::-1]
    return pixels


@dataclass(frozen=True)
class Run:
    """Packets first..last are decoded without a break and give the wanted frames."""

    first: int
    last: int
    wanted_pts: frozenset[int]


def plan_runs(table: Timetable, chosen: np.ndarray, jump_packets: int = JUMP_PACKETS) -> list[Run]:
    """Which packets to decode for the chosen frames.

    A frame needs the packets from the key frame before it: the last one that is both stored and shown before it, so
    that the leading pictures of an open group, which use the group before, start at that group's key frame.
    """
    assert table.packet is not None
    keys = np.flatnonzero(table.packet_is_key)
    runs: list[Run] = []
    for index in sorted(chosen.tolist(), key=lambda i: table.packet[i]):  # type: ignore[index]
        packet, pts = int(table.packet[index]), int(table.pts[index])
        at = int(np.searchsorted(keys, packet, side="right")) - 1
        while at >= 0 and table.packet_pts[keys[at]] > pts:
            at -= 1
        start = int(keys[at]) if at >= 0 else 0
        last, wanted = packet, frozenset({pts})
        while runs and start - runs[-1].last - 1 < jump_packets:
            # A leading picture may start in the middle of the run before: then the two are one.
            before_it = runs.pop()
            start, last = min(start, before_it.first), max(last, before_it.last)
            wanted |= before_it.wanted_pts
        runs.append(Run(start, last, wanted))
    return runs


def left_out(count: int, what: str, of: str) -> str:
    """A note about damage."""
    return f"{count} {what}{'' if count == 1 else 's'} {of} {'is' if count == 1 else 'are'} damaged and left out"


class _MissingFrame(Exception):
    """A jump did not give the frame that the timetable promises."""


def _frames_by_runs(
    source: SourceFile, container_format: str, table: Timetable, runs: Sequence[Run], seek_packets: int
) -> Iterator[tuple[int, VideoFrame]]:
    """The wanted frames with their ticks, in the order in which they are shown.

    Raises:
        _MissingFrame: one did not come, or is marked as damaged.
    """
    can_seek = container_format in ("mov", "matroska")
    with opened_container(source, container_format, leave=True) as container:
        stream = choose_streams(source, container).video
        assert stream is not None
        discard_others(container, {stream.index})
        decoding = _Decoding(source, stream)
        packets = _numbered(container, stream, 0)
        at = 0  # the packet that comes next
        for run in runs:
            if can_seek and run.first - at >= seek_packets:
                packets, at = _seek(container, stream, table, run.first)
            left = set(run.wanted_pts)
            for number, packet in packets:
                at = number + 1
                if number < run.first:
                    continue
                yield from _wanted(decoding.feed(packet), left)
                if number >= run.last:
                    break
            yield from _wanted(decoding.feed(None), left)
            stream.codec_context.flush_buffers()
            if left:
                raise _MissingFrame


def _wanted(frames: Sequence[VideoFrame], left: set[int]) -> Iterator[tuple[int, VideoFrame]]:
    for frame in frames:
        pts = _frame_pts(frame)
        if pts in left:
            if frame.is_corrupt:
                raise _MissingFrame
            left.remove(pts)
            yield pts, frame


def _numbered(container: InputContainer, stream: VideoStream, first: int) -> Iterator[tuple[int, Any]]:
    number = first
    for packet in container.demux(stream):
        if packet.size:
            yield number, packet
            number += 1


def _seek(
    container: InputContainer, stream: VideoStream, table: Timetable, first: int
) -> tuple[Iterator[tuple[int, Any]], int]:
    """Seek to a key packet or before it, and number what follows by the timetable."""
    unknown = -(2**61)
    stamp = min(int(t[first]) for t in (table.packet_pts, table.packet_dts) if t[first] > unknown)
    container.seek(stamp, stream=stream, backward=True)
    demux = container.demux(stream)
    packet = next((p for p in demux if p.size), None)
    if packet is None:
        raise _MissingFrame
    same = np.flatnonzero(table.packet_pts == (packet.pts if packet.pts is not None else unknown))
    if len(same) != 1 or same[0] > first:
        raise _MissingFrame
    number = int(same[0])

    def rest() -> Iterator[tuple[int, Any]]:
        at = number
        yield at, packet
        for later in demux:
            if later.size:
                at += 1
                yield at, later

    return rest(), number


def _frames_in_one_pass(
    source: SourceFile, container_format: str, wanted: set[int], by_number: bool
) -> Iterator[tuple[int, VideoFrame]]:
    """Decode from the start until all wanted frames (by ticks, or by their number) have come."""
    left = set(wanted)
    if not left:
        return
    with opened_container(source, container_format) as container:
        stream = choose_streams(source, container).video
        assert stream is not None
        for number, frame in enumerate(_all_frames(container, stream, _Decoding(source, stream))):
            pts = number if by_number else _frame_pts(frame)
            if pts in left:
                left.remove(pts)
                yield pts, frame
                if not left:
                    break


def frames_in_order(
    source: SourceFile, container_format: str, table: Timetable, chosen: np.ndarray
) -> Iterator[tuple[int, VideoFrame]]:
    """Chosen frames of any number with their ticks, decoded once, front to back, as they are asked for.

    Where a jump does not give its frame, what is left is decoded from the start; what does not come then is damaged.
    """
    left = {int(table.pts[index]) for index in chosen}
    if table.packet is not None:
        with suppress(_MissingFrame, av.FFmpegError):
            for pts, frame in _frames_by_runs(source, container_format, table, plan_runs(table, chosen), SEEK_PACKETS):
                left.discard(pts)
                yield pts, frame
            return
    yield from _frames_in_one_pass(source, container_format, left, table.packet is None)


def read_frames(
    source: SourceFile,
    container_format: str,
    table: Timetable,
    sampling: FrameSampling,
    *,
    aspect: float,
    origin_seconds: float,
    plan: PLAN = "auto",
    jump_packets: int = JUMP_PACKETS,
    seek_packets: int = SEEK_PACKETS,
    stretch: Stretch | None = None,
) -> tuple[Frames, list[str]]:
    """The frames that the sampling chooses, and notes for the user.

    Args:
        table: of the file, or of the stretch that is read of it.

    Raises:
        MediaUnreadableError: no chosen frame can be decoded.
        MediaLimitError: too many pixels, or no memory.
    """
    chosen = sampling.indices(table.seconds, table.end_seconds)
    squash_px = sampling.squash_px
    got, notes = _read_chosen(
        source, container_format, table, chosen, aspect, plan, jump_packets, seek_packets, squash_px
    )
    if len(got) < len(chosen) and table.packet is not None:
        # The packets promise frames that the decoder does not give (damage): choose again among those it gives.
        promised = len(table.seconds)
        numbers, seconds, _, _ = _times_by_decoding(source, container_format, origin_seconds)
        visible = seconds > -1e-6
        if not visible.any():
            raise MediaUnreadableError(
                f"{source.name}: none of the {promised} pictures can be decoded; copy or download the file again"
            )
        end = table.end_seconds + (0.0 if stretch is None else stretch[0])
        decoded = replace(table, seconds=seconds[visible], pts=numbers[visible], packet=None, end_seconds=end)
        there = decoded if stretch is None else table_between(decoded, *stretch)
        if there is None:
            raise MediaUnreadableError(f"{source.name}: no picture of the stretch can be decoded; leave it out")
        table = there
        chosen = sampling.indices(table.seconds, table.end_seconds)
        got, notes = _read_chosen(source, container_format, table, chosen, aspect, "one pass", squash_px=squash_px)
        if len(table.seconds) < promised:
            notes.append(left_out(promised - len(table.seconds), "picture", f"of {promised}"))
    elif table.damaged:
        notes.append(left_out(table.damaged, "piece", "of the pictures"))
    shown = [int(index) for index in chosen if int(table.pts[index]) in got]
    if not shown:
        raise MediaUnreadableError(f"{source.name}: no picture could be decoded; copy or download the file again")
    pixels = np.stack([got[int(table.pts[index])] for index in shown])
    return Frames(pixels, table.seconds[shown].astype(np.float64), table.end_seconds, len(table.seconds)), notes


def _read_chosen(
    source: SourceFile,
    container_format: str,
    table: Timetable,
    chosen: np.ndarray,
    aspect: float,
    plan: PLAN = "auto",
    jump_packets: int = JUMP_PACKETS,
    seek_packets: int = SEEK_PACKETS,
    squash_px: int | None = None,
) -> tuple[dict[int, np.ndarray], list[str]]:
    """RGB pictures by ticks, and notes."""
    painter = Painter(source, len(chosen), aspect, squash_px)
    got: dict[int, np.ndarray] = {}
    done = False
    if table.packet is not None and plan != "one pass":
        runs = plan_runs(table, chosen, 0 if plan == "jump" else jump_packets)
        seek_packets = 0 if plan == "jump" else seek_packets
        with suppress(_MissingFrame, av.FFmpegError):
            for pts, frame in _frames_by_runs(source, container_format, table, runs, seek_packets):
                got[pts] = painter.paint(frame)
            done = True
    if not done:
        got.clear()
        wanted = {int(table.pts[i]) for i in chosen}
        for pts, frame in _frames_in_one_pass(source, container_format, wanted, table.packet is None):
            got[pts] = painter.paint(frame)
    notes = []
    if painter.shrunk:
        width, height = painter.full_size
        small = next(iter(got.values())).shape
        notes.append(f"the pictures of {width}x{height} were read at {max(small[:2])} pixels on the longer side")
    return got, notes


def frames_between(
    source: SourceFile, container_format: str, table: Timetable, start_seconds: float, end_seconds: float, aspect: float
) -> Iterator[tuple[float, np.ndarray]]:
    """Every frame on screen in [start, end): when it starts, and its pixels. A few at a time are in memory.

    The frame that is on screen at the start has started before it, unless it is the file's first.
    """
    first = int(on_screen(table.seconds, np.array([start_seconds]))[0])
    chosen = np.arange(first, max(int(np.searchsorted(table.seconds, end_seconds - 1e-9)), first + 1))
    for piece in np.array_split(chosen, math.ceil(len(chosen) / 64)):
        got, _ = _read_chosen(source, container_format, table, piece, aspect)
        for index in piece.tolist():
            if int(table.pts[index]) in got:
                yield float(table.seconds[index]), got[int(table.pts[index])]


def read_frames_with_decord(
    source: SourceFile,
    container_format: str,
    table: Timetable,
    sampling: FrameSampling,
    *,
    aspect: float,
    turn: tuple[bool, bool, bool],
    odd_with_half_colour: bool,
    origin_seconds: float,
) -> tuple[Frames, list[str]]:
    """As `read_frames`, with decord, for files of which decord shows the same frames at the same seconds.

    decord's own list of frame times must be the file's (it does not know edit lists, for one), its pictures must have
    the file's display size (it does not know non-square pixels or mirrored pictures).

    Raises:
        MediaUnreadableError: decord cannot read the file, or would read it wrongly.
        MissingDependencyError: decord is not installed.
    """
    os.environ.setdefault("DECORD_DUPLICATE_WARNING_THRESHOLD", "0")  # so that it tells of the first repeated frame
    try:
        decord = importlib.import_module("decord")
    except ImportError:
        raise MissingDependencyError(
            'the decoder "decord" was asked for and is not installed; run: pip install decord, or use "pyav"'
        ) from None

    def refuse(why: str) -> MediaError:
        return MediaUnreadableError(f'{source.name}: decord cannot read this file ({why}); use the decoder "pyav"')

    if table.packet is None or container_format not in ("mov", "matroska", "avi"):
        # From a transport stream, for one, decord returns neighbours of the frames it cannot reach.
        raise refuse(f"it does not find frames reliably in {container_format} files of this kind")
    if _has_open_groups(table):
        raise refuse("frames before a key frame need those after it, of which decord loses some")
    if abs(aspect - 1) > 1e-9:
        raise refuse("its pixels are not square")
    if odd_with_half_colour:
        raise refuse("its size is odd, where decord mixes colours wrongly")
    if turn[0]:
        raise refuse("its pictures are to be turned by 90 degrees, where decord mixes up rows")
    if turn[1] != turn[2]:
        raise refuse("its pictures are mirrored")
    decord.logging.set_level(decord.logging.ERROR)
    size = {} if sampling.squash_px is None else {"width": sampling.squash_px, "height": sampling.squash_px}
    try:
        with _stderr_held_back():
            reader = decord.VideoReader(f"/proc/self/fd/{source.handle.fileno()}", num_threads=1, **size)
            stamps = np.asarray(reader.get_frame_timestamp(np.arange(len(reader))), np.float64)[:, 0] - origin_seconds
    except Exception as error:  # decord raises its own class and RuntimeError for everything
        raise refuse(_first_line(error)) from None
    order = np.argsort(stamps, kind="stable")
    if len(stamps) != len(table.seconds):
        raise refuse(f"it finds {len(stamps)} frames where the file shows {len(table.seconds)}")
    # decord counts from its own first frame, whenever the file shows that.
    late = np.abs((stamps[order] - stamps[order[0]]) - (table.seconds - table.seconds[0])).max()
    if late > 2e-3:
        raise refuse(f"its frame times are off by up to {late:.3f} s")
    if (np.diff(order) < 0).any():
        raise refuse("it lists the frames out of order")
    chosen = sampling.indices(table.seconds, table.end_seconds)
    try:
        with _stderr_held_back() as said:
            height, width = reader[0].shape[:2]
            check_pixels(source, width, height)
            if len(chosen) * width * height * 3 > source.limits.pixel_bytes:
                raise MediaLimitError(
                    f"{source.name}: {len(chosen)} pictures of {width}x{height} are over the limit of "
                    f'{source.limits.pixel_bytes / 1e6:.0f} MB for the decoder "decord"; use the decoder "pyav"'
                )
            pixels = reader.get_batch(order[chosen].tolist()).asnumpy()
    except MediaError:
        raise
    except Exception as error:
        raise refuse(_first_line(error)) from None
    complaints = [line for line in "".join(said).splitlines() if "@ 0x" in line and "swscaler" not in line]
    if complaints or "recovered from nearest" in "".join(said):
        # It then repeats other frames in the place of those that it cannot decode.
        raise refuse(f"its decoder reports damage: {complaints[0].split('] ')[-1] if complaints else 'lost frames'}")
    pixels = np.ascontiguousarray(pixels, np.uint8)
    return Frames(pixels, table.seconds[chosen], table.end_seconds, len(table.seconds)), []


def _has_open_groups(table: Timetable) -> bool:
    """Whether some frame is stored after a key frame and shown before it."""
    latest = np.where(table.packet_is_key, table.packet_pts, np.iinfo(np.int64).min)
    return bool((table.packet_pts < np.maximum.accumulate(latest)).any())


_stderr_lock = threading.Lock()


@contextmanager
def _stderr_held_back() -> Iterator[list[str]]:
    """Catch what C code prints to standard error, which is how decord tells of frames that it made up."""
    said: list[str] = []
    with _stderr_lock:
        reading, writing = os.pipe()
        os.set_blocking(reading, False)
        os.set_blocking(writing, False)  # a full pipe loses lines instead of waiting for ever
        before = os.dup(2)
        os.dup2(writing, 2)
        try:
            yield said
        finally:
            os.dup2(before, 2)
            with suppress(BlockingIOError):
                said.append(os.read(reading, 65536).decode(errors="replace"))
            for fd in (before, reading, writing):
                os.close(fd)


def _first_line(error: Exception) -> str:
    """decord's messages are stack traces; the cause is in the first line, after the source position."""
    lines = [line for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    return lines[0].split("] ")[-1].strip()[:120]


def first_look(source: SourceFile, container_format: str) -> tuple[tuple[bool, bool, bool], bool]:
    """Of the first frame that decodes: its `orientation`, and whether its size is odd and its colour planes halved."""
    with opened_container(source, container_format) as container:
        stream = choose_streams(source, container).video
        if stream is not None:
            decoding = _Decoding(source, stream)
            for frame in _all_frames(container, stream, decoding):
                odd = (frame.width % 2 or frame.height % 2) and "420" in frame.format.name
                return orientation(frame), bool(odd)
    return (False, False, False), False

"""Media files as clips, read in this process: for trusted files, and inside the process of `decode_worker`."""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import av
import numpy as np

from videollm.clips import Clip, Frames, Waveform
from videollm.errors import MediaError, MediaStretchError, MediaUnreadableError, MissingDependencyError
from videollm.media import image
from videollm.media.audio import WHOLE_SOUND_SECONDS, SoundSpan, read_sound, sound_span, span_between
from videollm.media.sampling import FrameSampling, SoundSampling
from videollm.media.source import (
    DEFAULT_LIMITS,
    STILL,
    Limits,
    MediaInfo,
    SourceFile,
    Stretch,
    check_declared,
    check_headers,
    choose_streams,
    display_size,
    in_seconds,
    is_cut_off,
    memory_error,
    open_source,
    opened_container,
    reason_of,
    sniff,
    stream_aspect,
    timeline_origin_seconds,
    unknown_container,
)
from videollm.media.video import (
    Timetable,
    first_look,
    read_frames,
    read_frames_with_decord,
    scan_packets,
    table_between,
    timetable,
)

DECODERS = ("pyav", "decord")


def read_clip(
    path: str | os.PathLike[str],
    *,
    frames: FrameSampling | None = None,
    sound: SoundSampling | None = None,
    decoder: str = "pyav",
    limits: Limits = DEFAULT_LIMITS,
    name: str | None = None,
    start_seconds: float | None = None,
    end_seconds: float | None = None,
) -> Clip:
    """Read a media file in this process: the chosen frames and stretches of sound, with their seconds.

    With a start or an end, the clip is what a file cut there would give: its seconds count from the start, and the
    frame on screen at the start is its first. A still image has no seconds, and is shown whatever they are.

    Args:
        frames: which frames of a video; None looks at none (a still image is always read).
        sound: which stretches of the sound; None listens to none.
        decoder: "pyav", or "decord" for the pictures of video files.
        name: what to call the clip; the file name if None.
        start_seconds, end_seconds: the stretch of the file that is read; None is its very start, or its very end.

    Raises:
        MediaError: one of its children, with one line that names the file.
        MissingDependencyError: decord was asked for and is not installed.
    """
    with open_source(path, limits, name) as source:
        stretch = stretch_of(start_seconds, end_seconds)
        return clip_of(source, frames=frames, sound=sound, decoder=decoder, stretch=stretch)


def stretch_of(start_seconds: float | None, end_seconds: float | None) -> Stretch | None:
    """(start, end) in seconds, None where all of a file is meant.

    Raises:
        ValueError: an end that is not after the start, or no numbers from 0.
    """
    if start_seconds is None and end_seconds is None:
        return None
    start, end = start_seconds or 0.0, math.inf if end_seconds is None else end_seconds
    if not 0 <= start < end:
        raise ValueError(f"a stretch starts at 0 or later and ends after that, found {start_seconds} to {end_seconds}")
    return start, end


def clip_of(
    source: SourceFile,
    *,
    frames: FrameSampling | None,
    sound: SoundSampling | None,
    decoder: str,
    stretch: Stretch | None = None,
    survey: Survey | None = None,
) -> Clip:
    """`read_clip` of an open file; a survey of it saves looking through all of it."""
    if decoder not in DECODERS:
        raise ValueError(f"decoder must be one of {', '.join(DECODERS)}, found {decoder!r}")
    head = source.head()
    kind = sniff(head)
    try:
        if kind is None:
            raise unknown_container(source, head)
        clip = _still(source, kind, frames, decoder, stretch) if kind in STILL else None
        if clip is None:
            container_format = "apng" if kind == "png" else kind
            if survey is not None:
                source.remember(survey.content_hash)
            found = look_at(source, container_format) if survey is None else survey.contents
            clip = _streams(source, container_format, found, frames, sound, decoder, stretch)
        clip = replace(clip, content_hash=content_hash_of(source, clip, stretch))
    except MissingDependencyError:
        raise
    except (MediaError, MemoryError, av.FFmpegError) as error:
        source.check_unchanged()  # a file that is still being written explains any failure better
        if isinstance(error, MediaError):
            raise
        if isinstance(error, (MemoryError, av.MemoryError)):
            raise memory_error(source) from None
        raise MediaUnreadableError(
            f"{source.name}: the file cannot be decoded ({reason_of(error)}); copy or download it again"
        ) from None
    source.check_unchanged()
    return clip


def content_hash_of(source: SourceFile, clip: Clip, stretch: Stretch | None) -> str:
    """The file's bytes together with what was read of it: shape and seconds of frames, pieces and windows of sound."""
    digest = hashlib.sha256(source.content_hash().encode())
    if stretch is not None and clip.kind != "image":
        digest.update(repr(stretch).encode())
    if clip.frames is not None:
        digest.update(repr(clip.frames.pixels.shape).encode() + clip.frames.seconds.tobytes())
    for wave in clip.waveforms or ():
        digest.update(repr((wave.samples.shape, wave.rate_hz, wave.start_seconds)).encode())
    digest.update(repr(clip.windows_seconds).encode())
    return digest.hexdigest()


def _still(
    source: SourceFile, kind: str, frames: FrameSampling | None, decoder: str, stretch: Stretch | None
) -> Clip | None:
    """The clip of a picture that Pillow reads; None for an animated gif or png, which FFmpeg reads."""
    picture = image.open_picture(source, kind)
    if not image.is_animated(picture):
        pixels, notes = image.read_picture(source, kind)
        return Clip(source.name, "image", "", 0.0, pixels, notes=tuple(notes))
    if kind in ("gif", "png"):
        return None
    if decoder == "decord":
        raise MediaUnreadableError(
            f'{source.name}: decord cannot read this file (an animated {kind}); use the decoder "pyav"'
        )
    if stretch is not None:
        raise MediaUnreadableError(
            f"{source.name}: a stretch of an animated {kind} cannot be read; make it an mp4 first"
        )
    moving, notes = image.read_animation(source, kind, frames or FrameSampling(frames=1))
    return Clip(source.name, "video", "", moving.duration_seconds, moving, notes=tuple(notes))


@dataclass(frozen=True)
class Contents:
    """What one look at all packets of a file finds, before anything of it is decoded.

    Attributes:
        kind: "video" or "audio".
        declared_seconds: what the container says it lasts, 0 where it does not.
        origin_seconds: the container's time that is second 0.
        aspect: width / height of a stored pixel.
        table: when the pictures are shown; None without any.
        span: where the sound lies; None without any.
        notes: for the user.
    """

    kind: str
    declared_seconds: float
    origin_seconds: float
    aspect: float
    table: Timetable | None
    span: SoundSpan | None
    notes: tuple[str, ...]

    @property
    def end_seconds(self) -> float:
        """When the last picture leaves the screen and all sound is over."""
        return max(part.end_seconds if part is not None else 0.0 for part in (self.table, self.span))


@dataclass(frozen=True, eq=False)
class Survey:
    """A file that was looked through once, so that stretches of it are read without looking through all of it again.

    Attributes:
        size_bytes, changed_ns: of the file then; of another state it says nothing.
        content_hash: of the file's bytes.
        contents: what was found.
    """

    size_bytes: int
    changed_ns: int
    content_hash: str
    contents: Contents

    def is_of(self, source: SourceFile) -> bool:
        """Whether the file is still as it was."""
        return (self.size_bytes, self.changed_ns) == (source.state.st_size, source.state.st_mtime_ns)

    @property
    def frames(self) -> int:
        """How many pictures the file shows."""
        return 0 if self.contents.table is None else len(self.contents.table.seconds)

    def to_plain(self) -> tuple[dict[str, Any], list[np.ndarray]]:
        """Values for JSON, and arrays."""
        told = {name: getattr(self, name) for name in ("size_bytes", "changed_ns", "content_hash")}
        contents, table, arrays = self.contents, self.contents.table, []
        told |= {
            name: getattr(contents, name) for name in ("kind", "declared_seconds", "origin_seconds", "aspect", "notes")
        }
        told["span"] = None if contents.span is None else (contents.span.start_seconds, contents.span.end_seconds)
        told["table"] = None
        if table is not None:
            told["table"] = {"end_seconds": table.end_seconds, "damaged": table.damaged}
            arrays = [getattr(table, name) for name in _TABLE_ARRAYS]
            if table.packet is not None:
                arrays.append(table.packet)
        return told, arrays

    @classmethod
    def from_plain(cls, told: dict[str, Any], arrays: Sequence[np.ndarray]) -> Survey:
        """Of `to_plain`. Raises KeyError, TypeError or ValueError for anything else."""
        table = None
        if told["table"] is not None:
            seconds, pts, *packets = arrays
            if not 0 < len(seconds) == len(pts) or len(packets) < 3 or len(set(map(len, packets[:3]))) != 1:
                raise ValueError("no such table")
            packet_pts, packet_dts, is_key, *rest = packets
            packet = rest[0] if rest else None
            if packet is not None and (len(packet) != len(pts) or packet.min() < 0 or packet.max() >= len(is_key)):
                raise ValueError("no such packets")
            lasts, damaged = float(told["table"]["end_seconds"]), int(told["table"]["damaged"])
            table = Timetable(seconds, pts, lasts, packet, packet_pts, packet_dts, is_key, damaged)
        span = None if told["span"] is None else SoundSpan(float(told["span"][0]), float(told["span"][1]))
        declared, origin, aspect = (float(told[name]) for name in ("declared_seconds", "origin_seconds", "aspect"))
        contents = Contents(str(told["kind"]), declared, origin, aspect, table, span, tuple(map(str, told["notes"])))
        return cls(int(told["size_bytes"]), int(told["changed_ns"]), str(told["content_hash"]), contents)


_TABLE_ARRAYS = ("seconds", "pts", "packet_pts", "packet_dts", "packet_is_key")


def survey_of(source: SourceFile) -> Survey:
    """Looks through an open file.

    Raises:
        MediaError: as `read_clip`; a picture has nothing to look through.
    """
    head = source.head()
    kind = sniff(head)
    if kind is None:
        raise unknown_container(source, head)
    if kind in STILL and (kind not in ("gif", "png") or not image.is_animated(image.open_picture(source, kind))):
        raise MediaUnreadableError(f"{source.name}: a picture has no stretches of time; give a video or a sound")
    contents = look_at(source, "apng" if kind == "png" else kind)
    return Survey(source.state.st_size, source.state.st_mtime_ns, source.content_hash(), contents)


def look_at(source: SourceFile, container_format: str) -> Contents:
    """`Contents` of anything that FFmpeg reads.

    Raises:
        MediaError: as `read_clip`.
    """
    notes: list[str] = []
    claimed = check_headers(source, container_format)
    aspect = 1.0
    with opened_container(source, container_format) as container:
        streams = choose_streams(source, container)
        check_declared(source, container, streams)
        origin = timeline_origin_seconds(container)
        # Of an avi, FFmpeg reports what the bytes that are there would last.
        declared = claimed if container_format == "avi" else float(container.duration or 0) / 1e6
        unheard = [s for s in container.streams if s.type == "audio"] if streams.audio is None else []
        scans = scan_packets(source, container, [s for s in (streams.video, streams.audio) if s is not None])
        table = span = None
        if streams.video is not None:
            table = timetable(source, container_format, streams.video, scans[streams.video.index], origin)
            aspect = stream_aspect(streams.video)
        if streams.audio is not None:
            span = sound_span(source, streams.audio, scans[streams.audio.index], origin)
            if span is None:
                notes.append("the file declares a sound, but none of it is stored")
        if unheard:
            notes.append("the sound is in a codec that no decoder knows, and was not heard")
        kind = "audio" if streams.video is None else "video"
    return Contents(kind, declared, origin, aspect, table, span, tuple(notes))


def _streams(
    source: SourceFile,
    container_format: str,
    found: Contents,
    frames: FrameSampling | None,
    sound: SoundSampling | None,
    decoder: str,
    stretch: Stretch | None,
) -> Clip:
    """The clip of anything that FFmpeg reads."""
    kind, table, span, aspect, origin = found.kind, found.table, found.span, found.aspect, found.origin_seconds
    notes = list(found.notes)
    if stretch is not None:
        ends = [part.end_seconds for part in (table, span) if part is not None]
        table = None if table is None else table_between(table, *stretch)
        span = None if span is None else span_between(span, *stretch)
        if table is None and span is None and ends:
            raise MediaStretchError(
                f"{source.name}: the file lasts {in_seconds(max(ends))}, but what is asked of it starts at "
                f"{in_seconds(stretch[0])}; correct the start, or leave it out"
            )

    pictures: Frames | None = None
    if table is not None and frames is not None:
        if decoder == "decord" and stretch is not None:
            raise MediaUnreadableError(f'{source.name}: decord reads whole files only; use the decoder "pyav"')
        if decoder == "decord":
            turn, odd = first_look(source, container_format)
            pictures, more = read_frames_with_decord(
                source, container_format, table, frames, aspect=aspect, turn=turn, odd_with_half_colour=odd,
                origin_seconds=origin,
            )  # fmt: skip
        else:
            pictures, more = read_frames(
                source, container_format, table, frames, aspect=aspect, origin_seconds=origin, stretch=stretch
            )
        notes += more
    elif decoder == "decord" and table is None:
        raise MediaUnreadableError(
            f'{source.name}: decord cannot read this file (it has no pictures); use the decoder "pyav"'
        )
    waveforms: tuple[Waveform, ...] | None = None
    windows: tuple[tuple[float, float], ...] = ()
    if span is not None and sound is not None:
        waveforms, windows, more = read_sound(
            source, container_format, span, sound, origin, is_part=stretch is not None
        )
        notes += more
    ends = [table.end_seconds if table is not None else 0.0, span.end_seconds if span is not None else 0.0]
    if waveforms is not None and span is not None and span.end_seconds - span.start_seconds <= WHOLE_SOUND_SECONDS:
        # All of it was decoded: its samples are the truth, packets include what a codec pads.
        ends[1] = min(span.end_seconds, waveforms[0].start_seconds + waveforms[0].duration_seconds)
    readable = max(ends)
    if stretch is None and is_cut_off(source, container_format):
        of = f" of {in_seconds(found.declared_seconds)}" if found.declared_seconds > readable + 0.05 else ""
        less = ""
        if table is not None and span is not None and abs(ends[0] - ends[1]) > 0.3:
            less = f" ({'pictures' if ends[0] < ends[1] else 'sound'} only up to {in_seconds(min(ends))})"
        notes.insert(0, f"the file is cut off: readable up to {in_seconds(readable)}{of}{less}")
    if stretch is not None:
        start = stretch[0]
        if waveforms is not None:
            waveforms = tuple(replace(wave, start_seconds=wave.start_seconds - start) for wave in waveforms)
            windows = tuple((begin - start, end - start) for begin, end in windows)
        # The pictures' table counts from the start already.
        readable = max(table.end_seconds if table is not None else 0.0, ends[1] - start if span is not None else 0.0)
    if pictures is None and waveforms is None:
        what = "sound" if kind == "audio" else "pictures"
        raise MediaUnreadableError(f"{source.name}: the file has only {what}, which were not asked for; ask for {what}")
    return Clip(source.name, kind, "", readable, pictures, waveforms, tuple(windows), tuple(notes))


def probe(path: str | os.PathLike[str], limits: Limits = DEFAULT_LIMITS, name: str | None = None) -> MediaInfo:
    """What a file declares about itself, read in this process.

    Raises:
        MediaError: as `read_clip`, as far as it shows without decoding.
    """
    with open_source(path, limits, name) as source:
        return info_of(source)


def info_of(source: SourceFile) -> MediaInfo:
    """`probe` of an open file."""
    head = source.head()
    kind = sniff(head)
    if kind is None:
        raise unknown_container(source, head)
    if kind in STILL:
        picture = image.open_picture(source, kind)
        moving = image.is_animated(picture)
        if not moving or kind not in ("gif", "png"):
            width, height = picture.size
            exif_turn = {3: 180, 4: 180, 5: 90, 6: 90, 7: 270, 8: 270}.get(picture.getexif().get(0x0112, 1), 0)
            if exif_turn in (90, 270):
                width, height = height, width
            return MediaInfo(
                source.name, "video" if moving else "image", kind, source.size_bytes, None if moving else 0.0, width,
                height, exif_turn, video_codec=kind,
            )  # fmt: skip
        kind = "apng" if kind == "png" else kind
    check_headers(source, kind)
    with opened_container(source, kind) as container:
        streams = choose_streams(source, container)
        check_declared(source, container, streams)
        video, audio = streams.video, streams.audio
        turn = first_look(source, kind)[0] if video is not None else (False, False, False)
        size: tuple[int | None, int | None] = (None, None)
        if video is not None:
            size = display_size(video.codec_context.width, video.codec_context.height, stream_aspect(video))
            size = (size[1], size[0]) if turn[0] else size
        degrees, mirrored = {
            (False, False, False): (0, False), (False, True, True): (180, False),
            (True, True, False): (90, False), (True, False, True): (270, False),
            (False, True, False): (0, True), (False, False, True): (180, True),
            (True, False, False): (270, True), (True, True, True): (90, True),
        }[turn]  # fmt: skip
        return MediaInfo(
            name=source.name,
            kind="audio" if video is None else "video",
            container=container.format.name.split(",")[0],
            size_bytes=source.size_bytes,
            duration_seconds=None if container.duration is None else container.duration / 1e6,
            width=size[0],
            height=size[1],
            rotation_degrees=degrees,
            mirrored=mirrored,
            sample_aspect=1.0 if video is None else stream_aspect(video),
            frame_rate=float(video.average_rate) if video is not None and video.average_rate else None,
            video_codec=None if video is None else video.codec_context.name,
            audio_codec=None if audio is None else audio.codec_context.name,
            rate_hz=None if audio is None else audio.codec_context.sample_rate,
            channels=None if audio is None else audio.codec_context.channels,
        )

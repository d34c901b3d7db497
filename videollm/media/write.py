"""Making media files: clips from pixels and samples, sounds, and cuts of existing files.

Every file appears whole or not at all: it is written under another name beside its place and then renamed.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.audio.frame import AudioFrame
from av.container import OutputContainer
from av.video.frame import VideoFrame

from videollm.clips import Waveform
from videollm.errors import MediaUnreadableError
from videollm.media.audio import sound_between, sound_span
from videollm.media.source import (
    DEFAULT_LIMITS,
    STILL,
    Limits,
    check_declared,
    check_headers,
    choose_streams,
    open_source,
    opened_container,
    sniff,
    stream_aspect,
    timeline_origin_seconds,
    unknown_container,
)
from videollm.media.video import frames_between, scan_packets, timetable

ENCODERS = {
    "h264": "libx264", "hevc": "libx265", "vp9": "libvpx-vp9", "av1": "libsvtav1", "mjpeg": "mjpeg", "gif": "gif",
    "ffv1": "ffv1",
}  # fmt: skip
CODEC_OF_SUFFIX = {".webm": "vp9", ".avi": "mjpeg", ".gif": "gif"}
SOUND_OF_SUFFIX = {
    ".webm": "libopus", ".avi": "pcm_s16le", ".ogg": "libopus", ".wav": "pcm_s16le", ".mp3": "libmp3lame",
    ".flac": "flac",
}  # fmt: skip
MUXER_OF_SUFFIX = {".mkv": "matroska", ".m4a": "ipod", ".m4v": "mp4", ".ts": "mpegts"}
OPUS_RATES_HZ = (8000, 12000, 16000, 24000, 48000)
FINE_TICKS = {".mkv": 1000, ".webm": 1000, ".gif": 100}
"""Ticks a second of the containers that have a coarse clock; the others get 90,000."""


@contextmanager
def atomic(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A temporary path in the same folder that becomes `path` if all goes well, and is removed otherwise."""
    target = Path(path)
    fd, made = tempfile.mkstemp(prefix=f".{target.name[:80]}.", suffix=target.suffix, dir=target.parent)
    os.close(fd)
    temporary = Path(made)
    try:
        yield temporary
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        os.replace(temporary, target)
    except BaseException:
        with suppress(FileNotFoundError):
            temporary.unlink()
        raise


def _muxer(suffix: str) -> str:
    return MUXER_OF_SUFFIX.get(suffix, suffix.removeprefix(".") or "mp4")


def _encoder_options(codec: str, quality: int | None, preset: str, key_every: int | None) -> dict[str, str]:
    """Options of the encoder: one thread, quiet, constant quality."""
    options: dict[str, str] = {}
    if codec == "h264":
        options = {"preset": preset, "crf": str(20 if quality is None else quality)}
    elif codec == "hevc":
        options = {"preset": preset, "crf": str(22 if quality is None else quality)}
        options["x265-params"] = "log-level=none:pools=none:frame-threads=1"
    elif codec == "vp9":
        options = {"crf": str(30 if quality is None else quality), "b": "0", "deadline": "realtime", "cpu-used": "8"}
    elif codec == "av1":
        options = {"crf": str(35 if quality is None else quality), "preset": "12", "svtav1-params": "lp=1"}
    elif codec == "mjpeg":
        options = {"qmin": "2", "qmax": str(3 if quality is None else max(2, quality))}
    if key_every is not None:
        options["g"] = str(key_every)
        if codec == "h264":
            options |= {"keyint_min": str(key_every), "sc_threshold": "0"}
        elif codec == "hevc":
            options["x265-params"] += f":keyint={key_every}:min-keyint={key_every}:scenecut=0"
    return options


def _pixel_format(codec: str, width: int, height: int) -> str:
    """h264 and hevc cannot hold odd sizes with halved colour planes: those keep full ones, so that sizes are exact."""
    if codec == "gif":
        return "rgb8"
    if codec == "mjpeg":
        return "yuvj420p"
    if codec == "ffv1":
        return "bgr0"
    return "yuv444p" if codec in ("h264", "hevc") and (width % 2 or height % 2) else "yuv420p"


def write_video(
    path: str | os.PathLike[str],
    frames: np.ndarray | Iterable[np.ndarray],
    *,
    fps: float | Fraction | None = None,
    seconds: Iterable[float] | None = None,
    end_seconds: float | None = None,
    waveform: Waveform | None = None,
    codec: str | None = None,
    quality: int | None = None,
    preset: str = "veryfast",
    key_every: int | None = None,
    rotation_degrees: int = 0,
    mirrored: bool = False,
    sample_aspect: Fraction | float | None = None,
    encoder_options: Mapping[str, str] | None = None,
    container_options: Mapping[str, str] | None = None,
) -> Path:
    """Write a video file; its suffix chooses the container, and the codec where none is named.

    Args:
        frames: uint8 (T, H, W, 3), or an iterable of uint8 (H, W, 3) of one size. Odd sizes stay odd.
        fps: frames a second of a constant rate; or
        seconds: the presentation time of each frame, increasing (variable rate, or a late first frame).
        end_seconds: when the last frame leaves the screen; without it, as long after as the one before.
        waveform: the sound, placed at its own start_seconds.
        codec: h264, hevc, vp9, av1, mjpeg, gif or ffv1.
        quality: the encoder's constant quality number; lower is better.
        preset: speed of libx264 / libx265.
        key_every: frames between key frames.
        rotation_degrees, mirrored: how a player is to turn the stored picture: first flipped left to right if mirrored,
            then turned clockwise.
        sample_aspect: width / height of a pixel.

    Returns:
        The path written.

    Raises:
        ValueError: no frames, of other shapes, or neither or both of fps and seconds.
    """
    target = Path(path)
    suffix = target.suffix.lower()
    codec = codec or CODEC_OF_SUFFIX.get(suffix, "h264")
    if codec not in ENCODERS:
        raise ValueError(f"codec must be one of {', '.join(ENCODERS)}, found {codec!r}")
    if (fps is None) == (seconds is None):
        raise ValueError("give either fps or seconds")
    if codec == "av1":
        os.environ.setdefault("SVT_LOG", "0")  # the encoder prints a banner otherwise
    rate = Fraction(fps).limit_denominator(100_000) if fps is not None else Fraction(30)
    tick = 1 / rate if fps is not None else Fraction(1, FINE_TICKS.get(suffix, 90_000))
    if suffix == ".gif" and fps is not None:
        tick = Fraction(1, 100)
    muxing = dict(container_options or {})
    with (
        atomic(target) as temporary,
        av.open(str(temporary), "w", format=_muxer(suffix), container_options=muxing) as out,
    ):
        _write_streams(
            out, frames, seconds, end_seconds, waveform, codec, rate, tick,
            _encoder_options(codec, quality, preset, key_every) | dict(encoder_options or {}),
            (rotation_degrees, mirrored), sample_aspect, SOUND_OF_SUFFIX.get(suffix, "aac"),
        )  # fmt: skip
    return target


def _write_streams(
    out: OutputContainer,
    frames: Iterable[np.ndarray],
    seconds: Iterable[float] | None,
    end_seconds: float | None,
    waveform: Waveform | None,
    codec: str,
    rate: Fraction,
    tick: Fraction,
    options: dict[str, str],
    turn: tuple[int, bool],
    sample_aspect: Fraction | float | None,
    sound_codec: str,
) -> None:
    shape: tuple[int, ...] | None = None
    stream: Any = None
    sound: _SoundWriter | None = None
    ticks: list[int] = []
    times = None if seconds is None else iter(seconds)
    pending: list[Any] = []
    stored: list[int] = []
    by_decoding = out.format.name in ("mp4", "mov", "ipod")

    def mux(packets: Iterable[Any]) -> None:
        """Packets wait until it is known how long their frame is shown."""
        pending.extend(packets)
        while pending and pending[0].pts is not None:
            index = np.searchsorted(ticks, pending[0].pts, side="right")
            if index >= len(ticks):
                break
            packet = pending.pop(0)
            packet.duration = int(ticks[index]) - packet.pts
            stored.append(packet.dts)
            if by_decoding and len(stored) == len(ticks) - 1:
                # mp4 stores lengths in the order of decoding: the last one there closes the whole track.
                packet.duration = max(ticks[-1] - ticks[0] + stored[0] - packet.dts, 1)
            out.mux(packet)

    for index, pixels in enumerate(frames):
        if shape is None:
            shape = pixels.shape
            if len(shape) != 3 or shape[2] != 3:
                raise ValueError(f"frames must be uint8 (H, W, 3), found {pixels.dtype} {shape}")
            stream = out.add_stream(ENCODERS[codec], rate=rate, options=options)
            stream.height, stream.width = shape[:2]
            stream.pix_fmt = _pixel_format(codec, shape[1], shape[0])
            context = stream.codec_context
            context.time_base = tick
            context.thread_count = 1
            if sample_aspect is not None:
                context.sample_aspect_ratio = Fraction(sample_aspect).limit_denominator(1000)
            if turn != (0, False):
                # PyAV counts counter-clockwise, and mirrors after turning.
                degrees, mirrored = turn
                stream.set_display_rotation(degrees if mirrored else -degrees, hflip=mirrored)
            if waveform is not None:
                sound = _SoundWriter(out, waveform, sound_codec)
        if pixels.shape != shape or pixels.dtype != np.uint8:
            raise ValueError(f"all frames must be uint8 {shape}, found {pixels.dtype} {pixels.shape} at frame {index}")
        at = Fraction(next(times)) if times is not None else index / rate  # type: ignore[arg-type]
        ticks.append(round(at / tick))
        if len(ticks) > 1 and ticks[-1] <= ticks[-2]:
            raise ValueError(
                f"frame times must increase by at least {float(tick):.5f} s, found {float(at)} at frame {index}"
            )
        frame = VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
        frame = frame.reformat(format=stream.pix_fmt, threads=1)
        frame.pts, frame.time_base = ticks[-1], tick
        mux(stream.encode(frame))
        if sound is not None:
            sound.write_until(float(at))
    if shape is None:
        raise ValueError("write_video needs at least one frame")
    if end_seconds is not None:
        ticks.append(max(round(Fraction(end_seconds) / tick), ticks[-1] + 1))
    else:
        ticks.append(ticks[-1] + (ticks[-1] - ticks[-2] if len(ticks) > 1 else max(1, round(1 / rate / tick))))
    mux(stream.encode(None))
    for packet in pending:
        out.mux(packet)
    if sound is not None:
        sound.write_until(float("inf"))


class _SoundWriter:
    """Encodes a waveform piece by piece beside the pictures."""

    def __init__(self, out: OutputContainer, waveform: Waveform, codec: str, bit_rate: int | None = None) -> None:
        rate = waveform.rate_hz
        if codec == "libopus" and rate not in OPUS_RATES_HZ:
            rate = 48000
        channels = waveform.samples.shape[0]
        self._layout = {1: "mono", 2: "stereo"}.get(channels) or f"{channels}c"
        if channels > 2:
            self._layout = {3: "3.0", 4: "quad", 5: "5.0", 6: "5.1", 7: "6.1", 8: "7.1"}.get(channels, self._layout)
        self._out = out
        self._wave = waveform
        self._stream: Any = out.add_stream(codec, rate=rate, layout=self._layout)
        if bit_rate is not None:
            self._stream.bit_rate = bit_rate
        self._stream.codec_context.thread_count = 1
        self._at = 0
        self._offset = round(waveform.start_seconds * waveform.rate_hz)

    def write_until(self, seconds: float) -> None:
        """Encode what is heard up to a second; all of it, and the encoder's rest, at infinity."""
        total, rate = self._wave.samples.shape[1], self._wave.rate_hz
        end = total if seconds == float("inf") else min(total, round(seconds * rate) - self._offset)
        while self._at < end:
            stop = min(end, self._at + 8192)
            block = np.ascontiguousarray(self._wave.samples[:, self._at : stop])
            frame = AudioFrame.from_ndarray(block, format="fltp", layout=self._layout)
            frame.sample_rate, frame.pts, frame.time_base = rate, self._offset + self._at, Fraction(1, rate)
            self._out.mux(self._stream.encode(frame))
            self._at = stop
        if seconds == float("inf"):
            self._out.mux(self._stream.encode(None))


def write_sound(
    path: str | os.PathLike[str], waveform: Waveform, *, codec: str | None = None, bit_rate: int | None = None
) -> Path:
    """Write a sound file: wav, mp3, m4a, flac or ogg (Opus) by its suffix.

    Samples beyond [-1, 1] are clipped by the formats that hold integers.
    """
    target = Path(path)
    suffix = target.suffix.lower()
    clipped = replace(waveform, samples=np.clip(waveform.samples, -1.0, 1.0))
    with atomic(target) as temporary, av.open(str(temporary), "w", format=_muxer(suffix)) as out:
        _SoundWriter(out, clipped, codec or SOUND_OF_SUFFIX.get(suffix, "aac"), bit_rate).write_until(float("inf"))
    return target


def cut_clip(
    src: str | os.PathLike[str],
    dst: str | os.PathLike[str],
    start_seconds: float,
    end_seconds: float,
    *,
    limits: Limits = DEFAULT_LIMITS,
    codec: str | None = None,
    quality: int | None = None,
) -> Path:
    """Cut [start, end) of a video or sound file, exactly, by encoding it anew; upright, with square pixels.

    The frame on screen at the start becomes the first frame, at second 0; the others keep their distances. A cut of a
    file without pictures is a sound file.

    Raises:
        MediaError: the source cannot be read, or nothing of it lies between the two seconds.
        ValueError: end not after start.
    """
    if not 0 <= start_seconds < end_seconds:
        raise ValueError(f"a cut needs 0 <= start < end, found {start_seconds} and {end_seconds}")
    whole = replace(limits, pixel_bytes=limits.frame_pixels * 3 * 64)
    with open_source(src, whole) as source:
        head = source.head()
        container_format = sniff(head)
        if container_format is None:
            raise unknown_container(source, head)
        if container_format in STILL and container_format not in ("gif", "png"):
            raise MediaUnreadableError(f"{source.name}: a picture has no seconds to cut; give a video or a sound")
        container_format = "apng" if container_format == "png" else container_format
        check_headers(source, container_format)
        with opened_container(source, container_format) as container:
            streams = choose_streams(source, container)
            check_declared(source, container, streams)
            origin = timeline_origin_seconds(container)
            scans = scan_packets(source, container, [s for s in (streams.video, streams.audio) if s is not None])
            table = aspect = span = None
            if streams.video is not None:
                table = timetable(source, container_format, streams.video, scans[streams.video.index], origin)
                aspect = stream_aspect(streams.video)
            if streams.audio is not None:
                span = sound_span(source, streams.audio, scans[streams.audio.index], origin)
        readable = max(table.end_seconds if table else 0.0, span.end_seconds if span else 0.0)
        if start_seconds >= readable:
            raise MediaUnreadableError(
                f"{source.name}: nothing to cut at {start_seconds:.1f} s, the file ends at {readable:.1f} s"
            )
        wave = sound_between(source, container_format, start_seconds, end_seconds, origin) if span else None
        if wave is not None:
            wave = Waveform(wave.samples, wave.rate_hz, max(wave.start_seconds - start_seconds, 0.0))
        if table is None or aspect is None or start_seconds >= table.end_seconds:
            if wave is None:
                raise MediaUnreadableError(f"{source.name}: nothing can be decoded in that stretch; choose another")
            return write_sound(dst, wave)
        inside = table.seconds[(table.seconds > start_seconds + 1e-6) & (table.seconds < end_seconds - 1e-9)]
        times = [max(float(table.seconds[0]) - start_seconds, 0.0), *(inside - start_seconds).tolist()]
        if table.seconds[0] > start_seconds + 1e-6:
            times = (inside - start_seconds).tolist()
        found = frames_between(source, container_format, table, start_seconds, end_seconds, aspect)
        pictures = (pixels for _, pixels in found)
        return write_video(
            dst, pictures, seconds=times, end_seconds=min(end_seconds, readable) - start_seconds, waveform=wave,
            codec=codec, quality=quality,
        )  # fmt: skip

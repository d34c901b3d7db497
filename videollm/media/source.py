"""A media file before any decoder sees it: may it be opened, what container is it, is it whole, what does it declare.

A file is opened once, by descriptor; everything later reads that descriptor, so what was checked is what is decoded.
The container is told from the file's first bytes and from nothing else: a wrong extension works, and a playlist, a
script or any other format that could name a second file is never handed to FFmpeg at all.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any, BinaryIO

import av
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.stream import Discard, Disposition
from av.video.stream import VideoStream

from videollm.errors import MediaError, MediaLimitError, MediaNotFoundError, MediaUnreadableError
from videollm.media.headers import claims_of

Stretch = tuple[float, float]
"""Start and end, seconds of the file; the end may be infinite."""
READ_BUFFER_BYTES = 256 * 1024
HEAD_BYTES = 64 * 1024


@dataclass(frozen=True)
class Limits:
    """What a file may cost. Over any of these is a `MediaLimitError`.

    Attributes:
        file_bytes: size of the file.
        frame_pixels: width x height of one picture, as stored and as shown.
        pixel_bytes: all pictures of a clip together, as RGB; larger ones are read at a smaller size, which the clip's
            notes say.
        duration_seconds: declared or found length.
        frames: how many pictures the file holds.
        frame_rate_hz: declared or found pictures a second.
        sound_bytes: all decoded sound that is kept, as float32.
        channels: of the sound.
        rate_hz: of the sound.
        streams: in the container.
        memory_bytes: address space of the decoding process.
        wall_seconds: how long decoding may take.
        cpu_seconds: processor time of the decoding process.
    """

    file_bytes: int = 4 * 1024**3
    frame_pixels: int = 64_000_000
    pixel_bytes: int = 256 * 1024**2
    duration_seconds: float = 12 * 3600.0
    frames: int = 3_000_000
    frame_rate_hz: float = 1000.0
    sound_bytes: int = 256 * 1024**2
    channels: int = 64
    rate_hz: int = 768_000
    streams: int = 64
    memory_bytes: int = 2 * 1024**3
    wall_seconds: float = 60.0
    cpu_seconds: float = 60.0

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


DEFAULT_LIMITS = Limits()


@dataclass(frozen=True)
class MediaInfo:
    """What a file declares about itself; nothing of it has been checked by decoding.

    Attributes:
        name: of the file.
        kind: "video", "image" or "audio".
        container: FFmpeg's short name of the format.
        size_bytes: of the file.
        duration_seconds: declared, None where the container does not say.
        width, height: of an upright picture with square pixels; None without pictures.
        rotation_degrees: clockwise turn that makes the stored picture upright: 0, 90, 180 or 270.
        mirrored: whether the stored picture is also to be flipped, left to right, before that turn.
        sample_aspect: width / height of a stored pixel.
        frame_rate: average pictures a second, None where unknown.
        video_codec, audio_codec: FFmpeg's names, None where there is no such stream.
        rate_hz, channels: of the sound.
    """

    name: str
    kind: str
    container: str
    size_bytes: int
    duration_seconds: float | None = None
    width: int | None = None
    height: int | None = None
    rotation_degrees: int = 0
    mirrored: bool = False
    sample_aspect: float = 1.0
    frame_rate: float | None = None
    video_codec: str | None = None
    audio_codec: str | None = None
    rate_hz: int | None = None
    channels: int | None = None


def in_bytes(count: float) -> str:
    """A number of bytes for a person."""
    for unit in ("bytes", "KB", "MB", "GB"):
        if count < 1000 or unit == "GB":
            return f"{count:.0f} {unit}" if unit == "bytes" or count >= 100 else f"{count:.1f} {unit}"
        count /= 1000
    raise AssertionError("unreachable")


def in_seconds(seconds: float) -> str:
    """A length of time for a person."""
    if seconds >= 86400 * 365:
        return f"{seconds / (86400 * 365):,.0f} years"
    if seconds >= 48 * 3600:
        return f"{seconds / 86400:,.0f} days"
    if seconds >= 2 * 3600:
        return f"{seconds / 3600:.1f} hours"
    return f"{seconds:.1f} s"


@dataclass
class SourceFile:
    """An open file that may be decoded, for use as a context manager; `check_unchanged` belongs at the end."""

    name: str
    handle: BinaryIO
    limits: Limits
    state: os.stat_result = field(repr=False)

    def __post_init__(self) -> None:
        self._hash: str | None = None
        self._left: InputContainer | None = None

    def __enter__(self) -> SourceFile:
        return self

    def __exit__(self, *exc: object) -> None:
        self.leave(None)
        self.handle.close()

    def leave(self, container: InputContainer | None) -> None:
        """Keep a container that was read, in place of the one before, for whoever takes it."""
        if self._left is not None:
            self._left.close()
        self._left = container

    def take(self) -> InputContainer | None:
        """The container that was left; whoever takes it closes it."""
        left, self._left = self._left, None
        return left

    @property
    def size_bytes(self) -> int:
        return self.state.st_size

    def head(self, count: int = HEAD_BYTES) -> bytes:
        return self.read_at(0, count)

    def read_at(self, offset: int, count: int) -> bytes:
        return os.pread(self.handle.fileno(), count, offset)

    def content_hash(self) -> str:
        """SHA-256 of the file's bytes, read in pieces."""
        if self._hash is None:
            digest = hashlib.sha256()
            offset = 0
            while block := self.read_at(offset, 4 * 1024**2):
                digest.update(block)
                offset += len(block)
                if offset > self.limits.file_bytes:
                    break
            self._hash = digest.hexdigest()
        return self._hash

    def remember(self, content_hash: str) -> None:
        """Takes over the hash that was computed of the same file before."""
        self._hash = content_hash

    def check_unchanged(self) -> None:
        """Raises: MediaUnreadableError where somebody wrote to the file since it was opened."""
        now = os.fstat(self.handle.fileno())
        was = self.state
        if (now.st_size, now.st_mtime_ns) != (was.st_size, was.st_mtime_ns):
            raise MediaUnreadableError(
                f"{self.name}: the file changed while it was read ({was.st_size} bytes, then {now.st_size}); "
                "open it again when it has been written completely"
            )

    def stream(self) -> Any:
        """A fresh reading position on the same descriptor: an object with read, seek and tell."""
        return _Positioned(self)


class _Positioned:
    """A reader with its own position; the descriptor is shared, so positioned reads only.

    Reads stop at the size the file had when it was opened.
    """

    def __init__(self, source: SourceFile) -> None:
        self._fd = source.handle.fileno()
        self._size = source.size_bytes
        self._at = 0

    def read(self, count: int = -1) -> bytes:
        room = max(self._size - self._at, 0)
        block = os.pread(self._fd, room if count < 0 else min(count, room), self._at)
        self._at += len(block)
        return block

    def seek(self, offset: int, whence: int = 0) -> int:
        at = offset + (0 if whence == 0 else self._at if whence == 1 else self._size)
        if at < 0:
            raise OSError(errno.EINVAL, "negative position")
        self._at = at
        return at

    def tell(self) -> int:
        return self._at

    def seekable(self) -> bool:
        return True

    def readable(self) -> bool:
        return True


def open_source(path: str | os.PathLike[str], limits: Limits = DEFAULT_LIMITS, name: str | None = None) -> SourceFile:
    """Open a file for decoding.

    Raises:
        MediaNotFoundError: no such file, a folder, a device or pipe, or not readable by this user.
        MediaUnreadableError: an empty file.
        MediaLimitError: more bytes than limits.file_bytes.
    """
    shown = name if name is not None else str(Path(path).name) or str(path)
    try:
        # Without O_NONBLOCK, opening a pipe that nobody writes to would wait for ever.
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | getattr(os, "O_NONBLOCK", 0))
    except FileNotFoundError:
        raise MediaNotFoundError(f"{_quoted(path)}: there is no such file; check the path") from None
    except PermissionError:
        raise MediaNotFoundError(
            f"{_quoted(path)}: this user has no permission to read the file; ask its owner, or use chmod"
        ) from None
    except ValueError as error:
        raise MediaNotFoundError(f"{_quoted(path)}: not a usable path ({error}); check the path") from None
    except OSError as error:
        reason = (error.strerror or "error").lower()
        raise MediaNotFoundError(f"{_quoted(path)}: the file cannot be opened ({reason}); check the path") from None
    return source_from_descriptor(fd, limits, shown)


def source_from_descriptor(fd: int, limits: Limits, name: str) -> SourceFile:
    """As `open_source`, for a descriptor that is open already; it is closed with the source, and on an error."""
    try:
        state = os.fstat(fd)
        if not stat.S_ISREG(state.st_mode):
            what = "folder" if stat.S_ISDIR(state.st_mode) else "pipe, socket or device"
            advice = "give the files in it" if what == "folder" else "save it to a file first"
            raise MediaNotFoundError(f"{name}: this is a {what}, not a media file; {advice}")
        if state.st_size == 0:
            raise MediaUnreadableError(f"{name}: the file is empty (0 bytes); copy or download it again")
        if state.st_size > limits.file_bytes:
            raise MediaLimitError(
                f"{name}: the file has {in_bytes(state.st_size)}, the limit is {in_bytes(limits.file_bytes)}; "
                "cut it, or raise the limit"
            )
        return SourceFile(name, os.fdopen(fd, "rb", buffering=0), limits, state)  # type: ignore[arg-type]
    except BaseException:
        os.close(fd)
        raise


def _quoted(path: str | os.PathLike[str]) -> str:
    """A path as part of one line."""
    text = os.fsdecode(path)
    text = text if len(text) <= 200 else text[:197] + "..."
    return text if text.isprintable() else repr(text)


MOV_BOXES = {b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"pnot", b"moof", b"styp", b"sidx", b"uuid", b"junk"}
STILL = {"jpeg", "png", "webp", "bmp", "tiff", "avif", "gif"}
"""What `sniff` may answer that Pillow reads; of these gif, png and webp may also be animated."""


def sniff(head: bytes) -> str | None:
    """The container by its first bytes: a name of an FFmpeg demuxer or of a still picture's format, or None."""
    if len(head) >= 12 and head[4:8] in MOV_BOXES:
        if head[4:8] == b"ftyp":
            brands = {head[8:12], *(head[i : i + 4] for i in range(16, min(struct.unpack(">I", head[:4])[0], 256), 4))}
            if head[8:12] in (b"avif", b"avis") or (head[8:12] in (b"mif1", b"msf1") and b"avif" in brands):
                return "avif"
        return "mov"
    for magic, name in (
        (b"\x1a\x45\xdf\xa3", "matroska"),
        (b"GIF87a", "gif"),
        (b"GIF89a", "gif"),
        (b"\x89PNG\r\n\x1a\n", "png"),
        (b"\xff\xd8\xff", "jpeg"),
        (b"II*\x00", "tiff"),
        (b"MM\x00*", "tiff"),
        (b"OggS", "ogg"),
        (b"fLaC", "flac"),
        (b"FLV\x01", "flv"),
        (b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", "asf"),
        (b"\x00\x00\x01\xba", "mpeg"),
        (b"DKIF", "ivf"),
        (b".snd", "au"),
        (b"caff", "caf"),
        (b"wvpk", "wv"),
        (b"MAC ", "ape"),
        (b"TTA1", "tta"),
        (b"#!AMR", "amr"),
    ):
        if head.startswith(magic):
            return name
    if head[:2] == b"BM" and len(head) >= 26 and head[6:10] == b"\0\0\0\0":
        return "bmp"
    if head[:4] in (b"RIFF", b"RF64", b"RIFX"):
        return {b"AVI ": "avi", b"WAVE": "wav", b"WEBP": "webp"}.get(head[8:12])
    if head[:4] == b"FORM" and head[8:12] in (b"AIFF", b"AIFC"):
        return "aiff"
    for packet, first in ((188, 0), (192, 4)):
        spots = range(first, min(len(head), packet * 5 + first), packet)
        if len(spots) >= 3 and all(head[at] == 0x47 for at in spots):
            return "mpegts"
    return _sniff_sound(head)


def _sniff_sound(head: bytes) -> str | None:
    """mp3 and aac have no signature: two frames in a row must agree, after an ID3 tag if there is one."""
    at = 0
    while head[at : at + 3] == b"ID3" and len(head) >= at + 10:
        size = head[at + 6 : at + 10]
        at += 10 + (size[0] << 21 | size[1] << 14 | size[2] << 7 | size[3])
        if at >= len(head) - 8:
            return "mp3"  # a tag larger than what was read, e.g. one with a cover picture
    if head[at : at + 4] == b"fLaC":
        return "flac"
    limit = min(at + 4096, len(head) - 8)
    while at < limit:
        at = head.find(b"\xff", at, limit)
        if at < 0:
            return None
        for name, length_of in (("mp3", _mp3_frame_bytes), ("aac", _adts_frame_bytes)):
            here, frames = at, 0
            while frames < 3 and (length := length_of(head[here : here + 8])):
                here, frames = here + length, frames + 1
            if frames == 3 or (frames and here >= len(head) - 8):
                return name
        at += 1
    return None


def _mp3_frame_bytes(header: bytes) -> int:
    """Length of an MPEG audio frame by its header, 0 where this is none."""
    if len(header) < 4 or header[0] != 0xFF or header[1] & 0xE0 != 0xE0:
        return 0
    version, layer = (header[1] >> 3) & 3, 4 - ((header[1] >> 1) & 3)
    rate_index, hz_index = header[2] >> 4, (header[2] >> 2) & 3
    if version == 1 or layer == 4 or rate_index in (0, 15) or hz_index == 3:
        return 0
    hz = (44100, 48000, 32000)[hz_index] >> {3: 0, 2: 1, 0: 2}[version]
    if version == 3:
        table = {
            1: (32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
            2: (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
            3: (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
        }[layer]
    else:
        table = (
            (32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256)
            if layer == 1
            else (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)
        )
    bits, padding = table[rate_index - 1] * 1000, (header[2] >> 1) & 1
    if layer == 1:
        return (12 * bits // hz + padding) * 4
    return (72 if layer == 3 and version != 3 else 144) * bits // hz + padding


def _adts_frame_bytes(header: bytes) -> int:
    """Length of an ADTS frame by its header, 0 where this is none."""
    if len(header) < 7 or header[0] != 0xFF or header[1] & 0xF6 != 0xF0 or (header[2] >> 2) & 15 > 12:
        return 0
    length = (header[3] & 3) << 11 | header[4] << 3 | header[5] >> 5
    return length if length > 7 else 0


def unknown_container(source: SourceFile, head: bytes) -> MediaUnreadableError:
    """The error for bytes that `sniff` does not know, naming what they look like."""
    start = head[:512].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    points_elsewhere = (
        (b"#extm3u", "an m3u playlist"),
        (b"ffconcat", "a concat list"),
        (b"v=0", "a session description (sdp)"),
        (b"[playlist]", "a pls playlist"),
        (b"[reference]", "an asx playlist"),
        (b"<asx", "an asx playlist"),
        (b"<smil", "a smil playlist"),
        (b"<mpd", "a DASH manifest"),
        (b"<?xml", "an xml document"),
        (b"file ", "a concat list"),
    )
    for magic, what in points_elsewhere:
        if start.startswith(magic):
            what += "" if what.startswith("an xml") else " that points to other files"
            return MediaUnreadableError(f"{source.name}: this is {what}, not media itself; give the media file")
    sample = head[:4096]
    textual = sum(byte in b"\t\n\r" or 32 <= byte < 127 or byte >= 128 for byte in sample)
    try:
        sample[: len(sample) - 4].decode("utf-8")
        is_text = textual == len(sample)
    except UnicodeDecodeError:
        is_text = False
    what = "this is text" if is_text else "the bytes are of no known video, image or sound format"
    return MediaUnreadableError(
        f"{source.name}: {what}, so nothing can be seen or heard in it; give an mp4, mov, mkv, webm, avi, gif, jpg, "
        "png, wav, mp3, m4a, flac or ogg file"
    )


@contextmanager
def opened_container(
    source: SourceFile, container_format: str, *, leave: bool = False, used: bool = False
) -> Iterator[InputContainer]:
    """FFmpeg's view of a file, with every way to a second file closed.

    Args:
        leave: leave an mp4's open for the next who takes a used one: to read the index of a long one takes longer than
            to read a stretch of it.
        used: take the one that was left, if any, wherever in the file it stands; seek before reading.

    Raises:
        MediaUnreadableError: FFmpeg cannot read the container.
        MediaLimitError: more streams than limits.streams, or no memory.
    """

    def refuse(url: str, flags: int, options: dict[str, str]) -> Any:
        raise OSError(errno.EACCES, "a media file may not open another file")

    if used and (taken := source.take()) is not None:
        try:
            discard_others(taken, {stream.index for stream in taken.streams})
            yield taken
        finally:
            taken.close()
        return
    limits = source.limits
    options = {
        "format_whitelist": "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,gif,apng,ogg,wav,mp3,flac,aac,aiff,au,caf,wv,"
        "ape,tta,amr,mpegts,mpeg,flv,asf,ivf",
        "protocol_whitelist": "none",
        "max_streams": str(limits.streams),
        "max_pixels": str(limits.frame_pixels),
    }
    try:
        container = av.open(
            source.stream(),
            "r",
            format=container_format,
            options=options,
            buffer_size=READ_BUFFER_BYTES,
            io_open=refuse,
            metadata_errors="replace",
        )
    except (av.FFmpegError, ValueError) as error:
        raise container_error(source, container_format, error) from None
    assert isinstance(container, InputContainer)
    try:
        if len(container.streams) > limits.streams:
            raise MediaLimitError(
                f"{source.name}: the file holds {len(container.streams)} streams, the limit is {limits.streams}"
            )
        yield container
    except BaseException:
        container.close()
        raise
    if leave and container_format == "mov":
        source.leave(container)
    else:
        container.close()


def discard_others(container: InputContainer, wanted: set[int]) -> None:
    """Let the demuxer skip what nobody asked for."""
    for stream in container.streams:
        with suppress(AttributeError, ValueError):
            stream.discard = Discard.default if stream.index in wanted else Discard.all


def container_error(source: SourceFile, container_format: str, error: Exception) -> MediaError:
    """FFmpeg's refusal of a container as one line."""
    if isinstance(error, av.MemoryError):
        return memory_error(source)
    if container_format == "mov":
        layout = mov_boxes(source)
        if layout.cut_at is not None and b"moov" not in layout.complete:
            return MediaUnreadableError(
                f'{source.name}: the file is cut off and its index (the "moov" box, which this file has at its end) is '
                "missing, so no frame can be found; copy or download it again"
            )
        if b"moov" not in layout.complete:
            return MediaUnreadableError(
                f'{source.name}: the file has no index (no "moov" box), so no frame can be found; copy or download it '
                "again"
            )
    return MediaUnreadableError(
        f"{source.name}: the file starts like {container_format} but cannot be read as such ({reason_of(error)}); "
        "copy or download it again"
    )


def memory_error(source: SourceFile) -> MediaLimitError:
    return MediaLimitError(
        f"{source.name}: decoding needs more memory than the limit of {in_bytes(source.limits.memory_bytes)}; "
        "use a smaller copy of the file, or raise the limit"
    )


def reason_of(error: Exception) -> str:
    """What FFmpeg says went wrong, without codes and function names."""
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return " ".join(str(text).split()).lower()[:120]


@dataclass(frozen=True)
class ChosenStreams:
    """The picture and the sound of a container; cover art is neither."""

    video: VideoStream | None
    audio: AudioStream | None


def choose_streams(source: SourceFile, container: InputContainer) -> ChosenStreams:
    """The streams that FFmpeg would play, without cover art and without streams that have no decoder.

    Raises:
        MediaUnreadableError: nothing to see or hear, or only in a codec that FFmpeg does not know.
    """

    def pick(kind: str) -> Any:
        known = [s for s in container.streams if s.type == kind and s.codec_context is not None]
        known = [s for s in known if not s.disposition & (Disposition.attached_pic | Disposition.timed_thumbnails)]
        best = container.streams.best(kind)  # type: ignore[arg-type]
        return best if best in known else (known[0] if known else None)

    found = ChosenStreams(pick("video"), pick("audio"))
    if found.video is None and found.audio is None:
        kinds = sorted({s.type or "unknown" for s in container.streams})
        there = f"only {', '.join(kinds)} that no decoder knows" if kinds else "no streams"
        raise MediaUnreadableError(f"{source.name}: nothing to see or hear: the file holds {there}; give another file")
    return found


def timeline_origin_seconds(container: InputContainer) -> float:
    """The container's time that counts as second 0 of the file.

    In mov/mp4 and Matroska the time line begins at 0 and an edit list or a late first frame means what it says. In the
    others (transport streams, mp3, ogg ...) the clock starts anywhere, and second 0 is the first thing in the file, as
    in FFmpeg's own tools. A mov or Matroska piece that was cut from a longer recording and kept that recording's clock
    (it starts later than 10 s and than its own length) is treated like those.
    """
    start = (container.start_time or 0) / av.time_base
    if container.format.name.startswith(("mov", "matroska")):
        length = (container.duration or 0) / av.time_base
        return start if start > 10 and start > length else 0.0
    return start


@dataclass(frozen=True)
class BoxLayout:
    """The top level of an mp4 or mov file: the names of its complete boxes, and where it is cut off, if it is."""

    complete: frozenset[bytes]
    cut_at: int | None


def mov_boxes(source: SourceFile) -> BoxLayout:
    """Walk the top level boxes; a box that reaches beyond the end of the file is where it is cut off."""
    at, complete = 0, set()
    for _ in range(100_000):
        header = source.read_at(at, 16)
        if not header:
            return BoxLayout(frozenset(complete), None)
        if len(header) < 8:
            return BoxLayout(frozenset(complete), at)
        size, name = struct.unpack(">I4s", header[:8])
        if size == 1 and len(header) == 16:
            size = struct.unpack(">Q", header[8:])[0]
        elif size == 0:
            size = source.size_bytes - at
        if size < 8 or not all(32 <= byte < 127 or byte == 0xA9 for byte in name):
            return BoxLayout(frozenset(complete), None)  # not boxes any more: junk at the end, which players accept
        if at + size > source.size_bytes:
            return BoxLayout(frozenset(complete), at)
        complete.add(name)
        at += size
    return BoxLayout(frozenset(complete), None)


def is_cut_off(source: SourceFile, container_format: str) -> bool:
    """Whether the container's own sizes say that bytes are missing at the end. False where it has no such sizes."""
    size = source.size_bytes
    if container_format == "mov":
        return mov_boxes(source).cut_at is not None
    head = source.head(4096)
    if container_format == "matroska":
        at = head.find(b"\x18\x53\x80\x67")  # the Segment, whose length (a variable-size integer) follows
        if at < 0 or at + 12 > len(head):
            return False
        length_bytes = 9 - head[at + 4].bit_length() if head[at + 4] else 9
        if length_bytes > 8:
            return False
        value = int.from_bytes(head[at + 4 : at + 4 + length_bytes], "big") & ((1 << 7 * length_bytes) - 1)
        unknown = value == (1 << 7 * length_bytes) - 1
        return not unknown and at + 4 + length_bytes + value > size
    if container_format in ("avi", "wav") and head[:4] == b"RIFF":
        declared = int.from_bytes(head[4:8], "little")
        # 0 and -1 are what a recorder leaves that could not go back to fill in the size.
        return 8 < declared < 0xFFFFFFFE and declared + 8 > size + 1
    if container_format == "aiff":
        return int.from_bytes(head[4:8], "big") + 8 > size + 1
    if container_format == "gif":
        return b"\x3b" not in source.read_at(max(size - 64, 0), 64)
    if container_format == "png":
        return b"IEND" not in source.read_at(max(size - 4096, 0), 4096)
    if container_format == "webp":
        return int.from_bytes(head[4:8], "little") + 8 > size + 1
    return False


def display_size(width: int, height: int, sample_aspect: float) -> tuple[int, int]:
    """Width and height with square pixels: the width is stretched or squeezed, as FFmpeg's `scale=iw*sar:ih`."""
    if not 0 < sample_aspect < 1e4 or abs(sample_aspect - 1) < 1e-9:
        return width, height
    return max(1, round(width * sample_aspect)), height


def stream_aspect(stream: VideoStream) -> float:
    """Width / height of a stored pixel; 1 where the file does not say."""
    aspect: Fraction | None = stream.sample_aspect_ratio
    return float(aspect) if aspect else 1.0


def check_headers(source: SourceFile, container_format: str) -> float:
    """Check what the headers claim, before FFmpeg reads them; the seconds they claim, 0 where they claim none.

    Raises:
        MediaLimitError: a claim over the limits.
    """
    claims = claims_of(container_format, source.read_at, source.size_bytes)
    check_duration(source, claims.seconds)
    check_pixels(source, claims.width, claims.height)
    if claims.frame_rate > source.limits.frame_rate_hz:
        raise frame_rate_error(source, claims.frame_rate)
    return claims.seconds


def check_declared(source: SourceFile, container: InputContainer, streams: ChosenStreams) -> None:
    """Raises: MediaLimitError where the file, as FFmpeg sees it, declares something over the limits."""
    limits = source.limits
    lengths = [(container.duration or 0) / av.time_base]
    for stream in (streams.video, streams.audio):
        if stream is not None and stream.duration and stream.time_base:
            lengths.append(float(stream.duration * stream.time_base))
    check_duration(source, max(lengths))
    if streams.video is not None:
        context = streams.video.codec_context
        check_pixels(source, context.width, context.height)
        check_pixels(source, *display_size(context.width, context.height, stream_aspect(streams.video)))
        rate = streams.video.average_rate
        if rate and float(rate) > limits.frame_rate_hz and (streams.video.frames or 3) > 2:
            raise frame_rate_error(source, float(rate))
    if streams.audio is not None:
        sound = streams.audio.codec_context
        if sound.channels > limits.channels or sound.sample_rate > limits.rate_hz:
            raise MediaLimitError(
                f"{source.name}: the sound has {sound.channels} channels at {sound.sample_rate} Hz, the limits are "
                f"{limits.channels} and {limits.rate_hz}; convert it first"
            )


def check_duration(source: SourceFile, seconds: float) -> None:
    if seconds > source.limits.duration_seconds:
        raise MediaLimitError(
            f"{source.name}: the file says it lasts {in_seconds(seconds)}, the limit is "
            f"{in_seconds(source.limits.duration_seconds)}; cut it, or raise the limit"
        )


def check_pixels(source: SourceFile, width: int, height: int) -> None:
    if width * height > source.limits.frame_pixels:
        raise MediaLimitError(
            f"{source.name}: a picture of {width}x{height} has {width * height / 1e6:.0f} megapixels, the limit is "
            f"{source.limits.frame_pixels / 1e6:.0f}; use a smaller copy"
        )


def frame_rate_error(source: SourceFile, rate: float) -> MediaLimitError:
    return MediaLimitError(
        f"{source.name}: the file says it shows {rate:,.0f} pictures a second, the limit is "
        f"{source.limits.frame_rate_hz:,.0f}; re-encode it"
    )

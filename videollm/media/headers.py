"""What the headers of mp4/mov, Matroska and avi files claim, read byte by byte.

FFmpeg corrects a header by what it finds behind it, or ignores it. A claim that is out of all bounds means a damaged or
hostile file all the same, and is to be refused before a decoder sees it; so these few fields are read here.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass

Read = Callable[[int, int], bytes]
"""(offset, count) -> bytes, fewer at the end of the file."""

MOST_ELEMENTS = 20_000
"""A header with more boxes or elements than this is looked at no further."""


@dataclass
class Claims:
    """The largest claims found; 0 where there is none."""

    seconds: float = 0.0
    width: int = 0
    height: int = 0
    frame_rate: float = 0.0

    def of_length(self, seconds: float) -> None:
        if math.isfinite(seconds):
            self.seconds = max(self.seconds, seconds)

    def of_size(self, width: int, height: int) -> None:
        if width * height > self.width * self.height:
            self.width, self.height = width, height


def claims_of(container_format: str, read: Read, size_bytes: int) -> Claims:
    """What the headers of a file claim; nothing for containers that are not known here."""
    claims = Claims()
    if container_format == "mov":
        _mov(read, size_bytes, claims)
    elif container_format == "matroska":
        _matroska(read, size_bytes, claims)
    elif container_format == "avi":
        _avi(read(0, 4096), claims)
    return claims


def _boxes(read: Read, at: int, end: int, budget: list[int]) -> Iterator[tuple[bytes, int, int]]:
    """(name, start of the content, its end) of the boxes between two offsets."""
    while at + 8 <= end and budget[0] > 0:
        budget[0] -= 1
        header = read(at, 16)
        if len(header) < 8:
            return
        size, name = struct.unpack(">I4s", header[:8])
        skip = 8
        if size == 1 and len(header) == 16:
            size, skip = struct.unpack(">Q", header[8:])[0], 16
        elif size == 0:
            size = end - at
        if size < skip:
            return
        yield name, at + skip, min(at + size, end)
        at += size


def _mov(read: Read, size_bytes: int, claims: Claims) -> None:
    budget = [MOST_ELEMENTS]
    movie_ticks = 0
    handler = b""

    def walk(start: int, end: int, depth: int) -> None:
        nonlocal movie_ticks, handler
        for name, at, stop in _boxes(read, start, end, budget):
            if name in (b"moov", b"trak", b"mdia", b"minf", b"stbl") and depth < 6:
                walk(at, stop, depth + 1)
            elif name in (b"mvhd", b"mdhd"):
                ticks, length = _ticks_and_length(read(at, 32))
                if name == b"mvhd":
                    movie_ticks = ticks
                if ticks and length:
                    claims.of_length(length / ticks)
            elif name == b"tkhd":
                body = read(at, 36)
                wide = body[:1] == b"\1"
                if len(body) == 36 and movie_ticks:
                    length = struct.unpack(">Q", body[28:36])[0] if wide else struct.unpack(">I", body[20:24])[0]
                    if length not in (0xFFFFFFFF, 2**64 - 1):
                        claims.of_length(length / movie_ticks)
            elif name == b"hdlr" and depth == 3:
                handler = read(at + 8, 4)
            elif name == b"stsd" and handler == b"vide":
                entry = read(at + 8, 36)
                if len(entry) == 36:
                    claims.of_size(*struct.unpack(">HH", entry[32:36]))

    walk(0, size_bytes, 0)


def _ticks_and_length(body: bytes) -> tuple[int, int]:
    """Ticks a second and length in ticks of an mvhd or mdhd box; a length of all ones means unknown."""
    if len(body) < 32:
        return 0, 0
    ticks, length = struct.unpack(">IQ", body[20:32]) if body[0] == 1 else struct.unpack(">II", body[12:20])
    return ticks, 0 if length in (0xFFFFFFFF, 2**64 - 1) else length


EBML_SEGMENT, EBML_INFO, EBML_TRACKS, EBML_TRACK, EBML_VIDEO = 0x18538067, 0x1549A966, 0x1654AE6B, 0xAE, 0xE0
EBML_SCALE, EBML_LENGTH, EBML_WIDTH, EBML_HEIGHT, EBML_CLUSTER = 0x2AD7B1, 0x4489, 0xB0, 0xBA, 0x1F43B675


def _matroska(read: Read, size_bytes: int, claims: Claims) -> None:
    budget = [MOST_ELEMENTS]
    scale, length = 1_000_000, 0.0

    def walk(at: int, end: int) -> None:
        nonlocal scale, length
        width = height = 0
        while at < end and budget[0] > 0:
            budget[0] -= 1
            head = read(at, 12)
            name, name_bytes = _ebml_number(head, keep_marker=True)
            size, size_bytes_ = _ebml_number(head[name_bytes:])
            if not name_bytes or not size_bytes_ or name == EBML_CLUSTER:
                break
            start = at + name_bytes + size_bytes_
            unknown = size == (1 << 7 * size_bytes_) - 1
            stop = end if unknown else min(start + size, end)
            if name in (EBML_SEGMENT, EBML_INFO, EBML_TRACKS, EBML_TRACK, EBML_VIDEO):
                walk(start, stop)
            elif name in (EBML_SCALE, EBML_WIDTH, EBML_HEIGHT) and 0 < stop - start <= 8:
                value = int.from_bytes(read(start, stop - start), "big")
                if name == EBML_SCALE:
                    scale = value
                elif name == EBML_WIDTH:
                    width = value
                else:
                    height = value
            elif name == EBML_LENGTH and stop - start in (4, 8):
                body = read(start, stop - start)
                if len(body) == stop - start:
                    length = struct.unpack(">f" if len(body) == 4 else ">d", body)[0]
            at = stop if not unknown else end
        claims.of_size(width, height)

    walk(0, size_bytes)
    claims.of_length(length * scale / 1e9)


def _ebml_number(head: bytes, keep_marker: bool = False) -> tuple[int, int]:
    """A variable-size integer and how many bytes it takes; 0 bytes where there is none."""
    if not head or not head[0]:
        return 0, 0
    count = 9 - head[0].bit_length()
    if len(head) < count:
        return 0, 0
    value = int.from_bytes(head[:count], "big")
    return value if keep_marker else value & ((1 << 7 * count) - 1), count


def _avi(head: bytes, claims: Claims) -> None:
    at = head.find(b"avih")
    body = head[at + 8 : at + 8 + 40] if at > 0 else b""
    if len(body) == 40:
        microseconds, _, _, _, frames, _, _, _, width, height = struct.unpack("<10I", body)
        claims.of_length(microseconds * frames / 1e6)
        claims.of_size(width, height)
        if microseconds and frames > 2:
            claims.frame_rate = 1e6 / microseconds

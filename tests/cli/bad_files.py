"""Files that no answer can be given about: how each is made, and what the one line about it must say."""

import os
import struct
import zlib

import numpy as np

from videollm.clips import Waveform
from videollm.media.write import write_video

FRAMES = np.random.default_rng(0).integers(0, 256, (20, 48, 64, 3), dtype=np.uint8)
SOUND = Waveform(np.random.default_rng(0).normal(0, 0.1, (1, 16000)).astype(np.float32), 8000)


def good(folder, name="good.mp4", **options):
    """Two seconds of noise, seen and heard."""
    return write_video(folder / name, FRAMES, fps=10, waveform=SOUND, **options)


def written(folder, name, body):
    path = folder / name
    path.write_bytes(body)
    return path


def patched(folder, name, box, offset, value):
    """The good file with bytes replaced behind the name of a box, everywhere."""
    body = bytearray(good(folder).read_bytes())
    at = body.find(box)
    assert at > 0
    while at > 0:
        body[at + offset : at + offset + len(value)] = value
        at = body.find(box, at + 4)
    return written(folder, name, bytes(body))


def flat_png(side_px):
    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    rows = zlib.compressobj()
    data = b"".join(rows.compress(bytes(1 + side_px * 3)) for _ in range(side_px)) + rows.flush()
    header = struct.pack(">IIBBBBB", side_px, side_px, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def box(name, *content):
    body = b"".join(content)
    return struct.pack(">I4s", len(body) + 8, name) + body


def without_streams(folder):
    mvhd = box(b"mvhd", bytes(12) + struct.pack(">II", 1000, 1000) + bytes(80))
    body = box(b"ftyp", b"isom\0\0\2\0isom") + box(b"moov", mvhd) + box(b"mdat", bytes(100))
    return written(folder, "bare.mp4", body)


def without_frames(folder):
    """Tables that say: no samples."""
    for name, offset in ((b"stts", 8), (b"stsz", 12), (b"stsc", 8), (b"stco", 8)):
        body = bytearray((folder / "zero.mp4" if (folder / "zero.mp4").exists() else good(folder)).read_bytes())
        at = body.find(name)
        while at > 0:
            body[at + offset : at + offset + 4] = bytes(4)
            at = body.find(name, at + 4)
        path = written(folder, "zero.mp4", bytes(body))
    return path


def folder_named_like_a_clip(folder):
    path = folder / "folder.mp4"
    path.mkdir()
    return path


def pipe(folder):
    path = folder / "pipe.mp4"
    os.mkfifo(path)
    return path


def playlist(folder):
    target = good(folder)
    return written(folder, "list.mp4", f"#EXTM3U\n#EXTINF:9,\n{target}\n#EXT-X-ENDLIST\n".encode())


def cut_before_its_index(folder):
    body = good(folder).read_bytes()
    return written(folder, "half.mp4", body[: len(body) // 2])


BAD_FILES = {
    "missing": (lambda folder: folder / "missing.mp4", "missing.mp4"),
    "folder": (folder_named_like_a_clip, "folder"),
    "pipe": (pipe, "pipe.mp4"),
    "empty": (lambda folder: written(folder, "empty.mp4", b""), "empty"),
    "text": (lambda folder: written(folder, "text.mp4", b"once upon a time\n" * 99), "text"),
    "random bytes": (lambda f: written(f, "noise.mp4", np.random.default_rng(0).bytes(200_000)), "no known video"),
    "header only": (lambda folder: written(folder, "head.mp4", good(folder).read_bytes()[:32]), "moov|cut off"),
    "no streams": (without_streams, "no streams|cannot be read"),
    "0 frames": (without_frames, "0 readable frames|nothing to see|cannot be read"),
    "absurd duration": (
        lambda folder: patched(folder, "age.mp4", b"mvhd", 4 + 12, struct.pack(">II", 1, 0x7FFFFFF0)),
        "lasts .* (years|days)",
    ),
    "absurd size": (
        lambda folder: patched(folder, "wide.mp4", b"avc1", 4 + 24, struct.pack(">HH", 60000, 60000)),
        "60000x60000",
    ),
    "absurd frame rate": (
        lambda folder: patched(folder, "fast.mp4", b"mdhd", 4 + 12, struct.pack(">I", 0x7FFFFFF0)),
        "pictures a second",
    ),
    "100 megapixels": (lambda folder: written(folder, "large.png", flat_png(10_000)), "100 megapixels"),
    "playlist": (playlist, "points to other files"),
    "cut before its index": (cut_before_its_index, "cut off.*(moov|index)"),
}

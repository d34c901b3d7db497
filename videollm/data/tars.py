"""Samples in tar files, byte by byte: what a shard's writer puts there and what its reader accepts.

The layout is webdataset's: the files of one sample stand together and share the part of their names before the first
point. A shard comes from anywhere, so a reader takes plain files with the names of its sample and refuses all else a
tar can hold: paths, links, devices, extended headers. Nothing is ever unpacked under a name from a tar.
"""

from __future__ import annotations

import re
import tarfile

from videollm.errors import DataError

BLOCK = tarfile.BLOCKSIZE
END = bytes(2 * BLOCK)
"""Two empty blocks end a tar."""
MOST_FILE_BYTES = 4 * 1024**3
"""Of one file in a shard."""
_MEMBER = re.compile(r"(\d{12})\.(json|\d{1,3}\.[a-z0-9]{1,8})")
KINDS = {
    b"1": "a hard link",
    b"2": "a symbolic link",
    b"3": "a device",
    b"4": "a device",
    b"5": "a folder",
    b"6": "a pipe",
    b"x": "an extended header",
    b"g": "an extended header",
    b"L": "an extended header",
    b"K": "an extended header",
    b"S": "a sparse file",
}


def header(name: str, size: int) -> bytes:
    """The block before a file: nothing in it but its name and size, so that equal files give equal tars."""
    info = tarfile.TarInfo(name)
    info.size, info.mode = size, 0o644
    return info.tobuf(tarfile.USTAR_FORMAT)


def padded(size: int) -> int:
    """A file's bytes in a tar: whole blocks."""
    return -(-size // BLOCK) * BLOCK


def size_of(stored: bytes, where: str) -> int:
    """The size of the file whose header the bytes begin with.

    Raises:
        DataError: there is no header.
    """
    try:
        return tarfile.TarInfo.frombuf(stored[:BLOCK], "utf-8", "strict").size
    except (tarfile.HeaderError, UnicodeDecodeError, ValueError):
        raise DataError(f"{where}: damaged (no tar there at byte 0); fetch the shard again") from None


def files_of(stored: bytes, where: str) -> dict[str, memoryview]:
    """The files of one sample by the part of their names behind the number: ``json``, ``0.mp4`` ...

    Args:
        stored: the bytes of a shard from the first header of a sample to that of the next.
        where: the shard and the sample, for messages.

    Raises:
        DataError: the bytes are not those of one sample.
    """
    again = "fetch the shard again, or write it anew with `videollm data shard`"
    found: dict[str, memoryview] = {}
    view, at, number = memoryview(stored), 0, ""
    while at < len(view):
        try:
            info = tarfile.TarInfo.frombuf(bytes(view[at : at + BLOCK]), "utf-8", "strict")
        except (tarfile.HeaderError, UnicodeDecodeError, ValueError):
            reason = "truncated" if len(view) - at < BLOCK else "no tar there"
            raise DataError(f"{where}: damaged ({reason} at byte {at}); {again}") from None
        if info.type not in (tarfile.REGTYPE, tarfile.AREGTYPE):
            what = KINDS.get(info.type, "an entry of an unknown kind")
            raise DataError(f"{where}: holds {what} ({info.name[:60]!r}), where only plain files belong; {again}")
        match = _MEMBER.fullmatch(info.name)
        if match is None or match[1] != (number or match[1]) or match[2] in found:
            raise DataError(f"{where}: holds a file named {info.name[:60]!r}, which is none of its sample's; {again}")
        at += BLOCK
        if not 0 <= info.size <= MOST_FILE_BYTES:
            raise DataError(f"{where}: says that {info.name} has {info.size:,} bytes, over the limit; {again}")
        if at + padded(info.size) > len(view):
            raise DataError(f"{where}: truncated in {info.name} ({len(view) - at:,} of {info.size:,} bytes); {again}")
        number, found[match[2]] = match[1], view[at : at + info.size]
        at += padded(info.size)
    if "json" not in found:
        raise DataError(f"{where}: has no sample's description (.json); {again}")
    return found

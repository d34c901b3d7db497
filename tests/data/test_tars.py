"""What a reader of shards accepts of a tar, and what it refuses: everything else that a tar can hold."""

from __future__ import annotations

import io
import tarfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from videollm.data import tars
from videollm.errors import DataError

NUMBER = "000000000007"
FILES = {"json": b'{"id": 1}', "0.mp4": b"pixels" * 300, "1.jpg": b""}


def stored(files: dict[str, bytes] = FILES) -> bytes:
    parts = []
    for key, content in files.items():
        parts += [tars.header(f"{NUMBER}.{key}", len(content)), content]
        parts.append(bytes(tars.padded(len(content)) - len(content)))
    return b"".join(parts)


def entry(name: str, kind: bytes = tarfile.REGTYPE, size: int = 0, **more: object) -> bytes:
    info = tarfile.TarInfo(name)
    info.type, info.size = kind, size
    for key, value in more.items():
        setattr(info, key, value)
    return info.tobuf(tarfile.GNU_FORMAT)


def test_what_is_written_is_read_by_us_and_by_everybody():
    assert {key: bytes(value) for key, value in tars.files_of(stored(), "s").items()} == FILES
    with tarfile.open(fileobj=io.BytesIO(stored() + tars.END)) as tar:
        assert {m.name: tar.extractfile(m).read() for m in tar} == {f"{NUMBER}.{k}": v for k, v in FILES.items()}  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (entry("../../etc/passwd"), "named '../../etc/passwd'"),
        (entry("/etc/passwd"), "named '/etc/passwd'"),
        (entry(f"folder/{NUMBER}.2.mp4"), "named 'folder/"),
        (entry(f"{NUMBER}.2.mp4", tarfile.SYMTYPE, linkname="/etc/passwd"), "a symbolic link"),
        (entry(f"{NUMBER}.2.mp4", tarfile.LNKTYPE, linkname="/etc/passwd"), "a hard link"),
        (entry(f"{NUMBER}.2.mp4", tarfile.CHRTYPE), "a device"),
        (entry(f"{NUMBER}.2.mp4", tarfile.BLKTYPE), "a device"),
        (entry(f"{NUMBER}.2.mp4", tarfile.FIFOTYPE), "a pipe"),
        (entry(f"{NUMBER}.2.mp4", tarfile.DIRTYPE), "a folder"),
        (entry(f"{NUMBER}.2.mp4", tarfile.GNUTYPE_SPARSE), "a sparse file"),
        (entry(f"{NUMBER}.2.mp4", b"q"), "an entry of an unknown kind"),
        (entry("x" * 300), "an extended header"),
        (entry(f"{NUMBER}.2.mp4", size=10**15), "1,000,000,000,000,000 bytes, over the limit"),
        (entry(f"{NUMBER}.2.mp4", size=10**9), "truncated in 000000000007.2.mp4"),
        (entry("000000000008.2.mp4"), "none of its sample's"),
        (entry(f"{NUMBER}.0.mp4"), "none of its sample's"),
        (entry(f"{NUMBER}.2.sh\n"), "none of its sample's"),
        (entry(f"{NUMBER}.mp4"), "none of its sample's"),
        (b"\0" * 512, "no tar there"),
        (b"x" * 512, "no tar there"),
        (b"x" * 100, "truncated at byte "),
    ],
)
def test_a_hostile_tar_is_refused_in_one_line(more, says):
    with pytest.raises(DataError) as caught:
        tars.files_of(stored() + more, "shard-000000.tar sample 3")
    assert says in str(caught.value) and "shard-000000.tar sample 3" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_sample_without_its_description():
    with pytest.raises(DataError, match="no sample's description"):
        tars.files_of(stored({"0.mp4": b"x"}), "s")
    with pytest.raises(DataError, match="no sample's description"):
        tars.files_of(b"", "s")


def test_a_wrong_checksum_of_a_header():
    damaged = bytearray(stored())
    damaged[3] ^= 1
    with pytest.raises(DataError, match="no tar there at byte 0"):
        tars.files_of(bytes(damaged), "s")


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_damaged_bytes_are_read_or_refused_and_nothing_else(data):
    damaged = bytearray(stored())
    for _ in range(data.draw(st.integers(1, 6))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    end = data.draw(st.integers(0, len(damaged)))
    try:
        found = tars.files_of(bytes(damaged[:end]), "s")
    except DataError:
        return
    assert "json" in found and sum(map(len, found.values())) <= len(damaged)

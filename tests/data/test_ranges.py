"""Bytes behind an address: ranges, servers without them, dropped connections, and one line where it cannot be."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.data.file_server import Server, serving
from videollm.data import ranges
from videollm.errors import DataError

CONTENT = bytes(range(256)) * 40


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr(ranges, "FIRST_WAIT_SECONDS", 0.01)
    (tmp_path / "served").mkdir()
    (tmp_path / "served" / "a.bin").write_bytes(CONTENT)
    with serving(tmp_path / "served") as server:
        yield server


@pytest.mark.parametrize("with_ranges", [True, False])
@pytest.mark.parametrize(("start", "count"), [(0, 10), (5000, 300), (10_000, 1000), (10_240, 5), (99_999, 5)])
def test_a_range_is_the_same_bytes_from_a_disk_and_from_a_server(server, with_ranges, start, count):
    server.with_ranges = with_ranges
    wanted = CONTENT[start : start + count]
    assert ranges.read_range(f"{server.address}/a.bin?key=1", start, count) == wanted
    assert ranges.read_range(server.folder / "a.bin", start, count) == wanted


def test_a_dropped_connection_goes_on_where_it_stopped(server):
    server.drops = 3
    assert ranges.read_range(f"{server.address}/a.bin", 1000, 8000) == CONTENT[1000:9000]
    assert server.asked == ["bytes=1000-8999", "bytes=5000-8999", "bytes=7000-8999", "bytes=8000-8999"]


def test_a_busy_server_is_asked_again_and_at_last_named_in_one_line(server):
    server.busy = ranges.TRIES - 1
    assert ranges.read_range(f"{server.address}/a.bin", 0, 9) == CONTENT[:9]
    server.busy = 99
    with pytest.raises(DataError, match=r"cannot read http://.*/a\.bin: status 503 .*\(5 tries\)"):
        ranges.read_range(f"{server.address}/a.bin?token=secret", 0, 9)


@pytest.mark.parametrize(
    ("path", "says", "requests"),
    [("/none.bin", "status 404", 1), ("/away", "status 302|not allowed", 1)],
)
def test_what_will_not_get_better_is_not_tried_again(server, path, says, requests):
    with pytest.raises(DataError, match=says) as caught:
        ranges.read_range(server.address + path, 0, 9)
    assert "\n" not in str(caught.value) and len(server.asked) == requests


def test_nobody_there(server):
    server.shutdown()
    server.server_close()
    with pytest.raises(DataError, match=r"cannot read http://.*refused.*\(5 tries\)"):
        ranges.read_range(f"{server.address}/a.bin", 0, 9)


def test_limits_and_paths(tmp_path):
    (tmp_path / "a").write_bytes(b"12345")
    assert ranges.read_whole(tmp_path / "a", 5) == b"12345"
    with pytest.raises(DataError, match="over the limit of 4 bytes"):
        ranges.read_whole(tmp_path / "a", 4)
    for bad in (tmp_path / "none", tmp_path, "a\0b"):
        with pytest.raises(DataError, match="cannot read"):
            ranges.read_range(bad, 0, 1)


def test_messages_show_no_secrets_and_names_stand_beside():
    address = "https://me:password@host.org/folder/index.json?token=secret"
    assert ranges.shown(address) == "https://host.org/folder/index.json"
    assert ranges.beside(address, "a.tar") == "https://me:password@host.org/folder/a.tar?token=secret"
    assert ranges.beside("folder/index.json", "a.tar") == "folder/a.tar"

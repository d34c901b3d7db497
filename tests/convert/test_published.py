"""The table of published files, and their checksums."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from videollm.convert.lavila import WHAT as LAVILA
from videollm.convert.lf_vila import WHAT as LF_VILA
from videollm.convert.published import DOWNLOADS, FILES, Checksums, fetch, table
from videollm.convert.video_llama import PROMPTS, WHAT
from videollm.errors import ConversionError

KINDS = {"video-llama": WHAT, "lavila": LAVILA, "lf-vila": LF_VILA}


def test_the_table_is_complete_and_consistent() -> None:
    for name, file in FILES.items():
        assert name == file.name and file.kind in KINDS[file.family] and file.licence and file.size_bytes > 10**8
        assert file.address.startswith("https://")
        assert all(need in FILES or "/" not in need for need in file.needs)
        assert file.prompt is None or file.prompt in PROMPTS
    for download in DOWNLOADS.values():
        assert all(FILES[name].source == download.repo for name in download.files)
        assert download.files or any(file.source == download.repo for file in FILES.values())


def test_listed_with_checksums_as_they_become_known(cache: Path) -> None:
    assert sum("filled at first use" in line for line in table()) == len(FILES)
    Checksums().remember([("eva_vit_g.pth", "ab" * 32)])
    assert sum("filled at first use" in line for line in table()) == len(FILES) - 1
    assert json.loads((cache / "checksums.json").read_text()) == {"eva_vit_g.pth": "ab" * 32}
    assert [path.name for path in cache.iterdir()] == ["checksums.json"]


def test_a_file_of_another_name_has_no_checksum(tmp_path: Path) -> None:
    (tmp_path / "mine.pth").write_bytes(b"x")
    assert Checksums().check(tmp_path / "mine.pth") is None


@pytest.mark.parametrize("text", ["{", "[]"])
def test_checksums_that_cannot_be_read(cache: Path, text: str) -> None:
    cache.mkdir()
    (cache / "checksums.json").write_text(text)
    with pytest.raises(ConversionError, match="remove that file"):
        Checksums()


def test_a_file_whose_md5_is_not_the_published_one(tmp_path: Path) -> None:
    name = next(name for name, file in FILES.items() if file.md5_begins == "dbcc4d")
    (tmp_path / name).write_bytes(b"x")
    with pytest.raises(ConversionError, match=r"MD5 begins with 9dd4e4, not dbcc4d\); download it again"):
        Checksums().check(tmp_path / name)


def test_without_a_network_it_says_what_to_fetch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests set HF_HUB_OFFLINE: the library then refuses without asking anybody."""
    said: list[str] = []
    with pytest.raises(ConversionError, match=r"vicuna-7b could not be fetched .* by hand") as caught:
        fetch("vicuna-7b", said.append)
    assert "\n" not in str(caught.value)
    for word in ("finetune-vicuna7b-v2.pth", "eva_vit_g.pth", "imagebind_huge.pth", "Vicuna-7B v0"):
        assert any(word in line for line in said)
    with pytest.raises(ConversionError, match="no download 'x'; there are vicuna-7b"):
        fetch("x", said.append)

"""A folder appears whole or not at all, and is one process's alone while it is written."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

import pytest

from videollm.convert.folder import staged
from videollm.errors import ConversionError


def test_a_folder_appears_when_it_is_whole(tmp_path: Path) -> None:
    out = tmp_path / "deep" / "model"
    with staged(out) as folder:
        (folder / "config.json").write_text("{}")
        assert not out.exists()
    assert [path.name for path in out.iterdir()] == ["config.json"]
    assert [path.name for path in out.parent.iterdir()] == ["model"]


def test_a_failure_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), staged(tmp_path / "deep" / "model") as folder:
        (folder / "config.json").write_text("{}")
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_run_left_is_removed(tmp_path: Path) -> None:
    left = tmp_path / ".model.part"
    (left / "sub").mkdir(parents=True)
    (left / "sub" / "half.safetensors").write_bytes(b"half")
    with staged(tmp_path / "model") as folder:
        assert list(folder.iterdir()) == []
        (folder / "config.json").write_text("{}")
    assert [path.name for path in (tmp_path / "model").iterdir()] == ["config.json"]


def test_two_at_once_are_told_and_the_first_goes_on(tmp_path: Path) -> None:
    staging = tmp_path / ".model.part"
    staging.mkdir()
    (staging / "shard").write_bytes(b"the other's")
    handle = os.open(staging, os.O_RDONLY)  # a lock belongs to an open folder: it binds this process like any other
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        with pytest.raises(ConversionError, match="is being written by another conversion"), staged(tmp_path / "model"):
            pytest.fail("not alone")
        assert (staging / "shard").read_bytes() == b"the other's"
    finally:
        os.close(handle)


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    words = r"could not be written \(Not a directory; .*; nothing was left behind"
    with pytest.raises(ConversionError, match=words), staged(tmp_path / "file" / "model"):
        pytest.fail("cannot be")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]

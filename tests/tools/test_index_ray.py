"""Ray makes the index that one process makes."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

pytest.importorskip("lancedb", reason="lancedb (the index extra) is not installed")

from tests.tools.test_index_processes import SETTINGS, alone, check_same, films, names, one_thread
from videollm.errors import ConfigError, MissingDependencyError
from videollm.tools.index import CrewNames
from videollm.tools.index_ray import index_on_ray

__all__ = ["alone", "films", "names", "one_thread"]  # fixtures


def test_two_workers_of_ray_make_the_same_index(
    films: list[Path], names: CrewNames, alone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ray = pytest.importorskip("ray", reason="Ray (the ray extra) is not installed")
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("RAY_worker_niceness", "0")
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"\x00\x00\x00\x18ftypmp42" + bytes(500))
    seen: set[Path] = set()
    done = index_on_ray(
        [*films, broken], tmp_path / "index", names, SETTINGS, workers=2,
        progress=lambda video: lambda *at: seen.add(video),
    )  # fmt: skip
    assert sorted(map(Path, done.stored)) == [film.resolve() for film in films] and seen == set(films)
    assert done.failed[0][0] == str(broken) and "broken.mp4" in done.failed[0][1]
    check_same(tmp_path / "index", alone)
    assert not ray.is_initialized()


def test_what_cannot_begin(films: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="at least 1 worker, found 0"):
        index_on_ray(films, tmp_path / "index", CrewNames(), workers=0)
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'videollm\[ray\]'"):
        index_on_ray(films, tmp_path / "index", CrewNames())

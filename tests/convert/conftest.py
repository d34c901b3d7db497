"""Every test has its own cache of checksums: no test may write into that of the user."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("VIDEOLLM_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"

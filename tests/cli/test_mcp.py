"""What `videollm mcp` refuses to start with."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("mcp", reason="mcp (the mcp extra) is not installed")

from videollm.cli import main as cli


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([], "name a folder of videos, or an index with --index INDEX"),
        (["nowhere"], "nowhere is no folder"),
        (["--index", "nowhere"], "no index at nowhere"),
        ([".", "--call-seconds", "0"], "for more than 0 seconds"),
    ],
)
def test_a_wrong_command_is_one_line(words, says, capsys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("lancedb", reason="lancedb (the index extra) is not installed")
    monkeypatch.chdir(tmp_path)
    assert cli.main(["mcp", *words]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and says in err

"""The README runs: every file that it names exists, and its quick commands do what it says."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS: dict[str, list[str]] = {"bash": [], "python": [], "": []}
for language, body in re.findall(r"```(\w*)\n(.*?)```", README, flags=re.DOTALL):
    BLOCKS.setdefault(language, []).append(body)
COMMANDS = [line.split("  #")[0].strip() for block in BLOCKS["bash"] for line in block.splitlines() if line.strip()]
OWN = [command for command in COMMANDS if "mine" in command]
QUICK = [
    command
    for command in COMMANDS
    if command.startswith(".venv/bin/videollm") and " evaluate " not in command and command not in OWN
]
ENVIRONMENT = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}


def test_links_lead_somewhere() -> None:
    links = [link for link in re.findall(r"\]\(([^)]+)\)", README) if "://" not in link]
    assert links
    for link in links:
        assert (ROOT / link).exists(), link


def test_named_files_exist() -> None:
    named = re.findall(r"(?:videollm|eval_configs|train_configs|scripts|demo)/[\w./-]+\.(?:py|yaml|mp4|md)", README)
    assert named
    for name in named:
        assert (ROOT / name).exists(), name


def test_the_tree_is_the_tree() -> None:
    tree = next(block for block in BLOCKS[""] if block.startswith("videollm/"))
    inner = re.findall(r"^  (\w+)/ ", tree, flags=re.MULTILINE)
    rooms = {p.name for p in (ROOT / "videollm").iterdir() if p.is_dir() and any(p.rglob("*.py"))}
    assert set(inner) == rooms | {"assets"}
    for folder in re.findall(r"^(\w+)/ ", tree, flags=re.MULTILINE):
        assert (ROOT / folder).is_dir(), folder


def test_set_up_is_two_commands_of_the_makefile() -> None:
    section = README.split("## Set-up")[1].split("## ")[0]
    commands = re.findall(r"^make (\w+)", section, flags=re.MULTILINE)
    assert commands == ["chat", "test"]
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for verb in re.findall(r"^make (\w+)", README, flags=re.MULTILINE):
        assert re.search(rf"^{verb}:", makefile, flags=re.MULTILINE), verb


def test_makefile_verbs_have_something_to_run() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for name in re.findall(r"scripts/[\w/]+\.py", makefile):
        assert (ROOT / name).exists(), name
    verbs = set(re.search(r"^\.PHONY: (.*)$", makefile, flags=re.MULTILINE).group(1).split())  # type: ignore[union-attr]
    assert verbs == set(re.findall(r"^([a-z]+):", makefile, flags=re.MULTILINE))


@pytest.mark.parametrize("command", QUICK)
def test_quick_commands_run(command: str) -> None:
    words = shlex.split(command)
    words[:1] = [sys.executable, "-m", "videollm"]
    done = subprocess.run(words, cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()
    assert "Traceback" not in done.stderr


def test_three_clips_of_your_own(tmp_path: Path) -> None:
    """The page for newcomers, with our clips for theirs, and three steps of training for eighty."""
    (line,) = BLOCKS["json"]
    (recipe,) = (block for block in BLOCKS["yaml"] if "mine.jsonl" in block)
    (tmp_path / "mine").mkdir()
    lines = []
    for number, clip in enumerate(sorted((ROOT / "videollm/assets/clips").glob("*.mp4"))[:3]):
        (tmp_path / "mine" / f"{'abc'[number]}.mp4").write_bytes(clip.read_bytes())
        lines.append(line.strip().replace('"1"', f'"{number + 1}"').replace("a.mp4", f"{'abc'[number]}.mp4"))
    assert len(lines) == 3
    (tmp_path / "mine" / "mine.jsonl").write_text("\n".join(lines) + "\n")
    (tmp_path / "mine.yaml").write_text(recipe)
    assert [command.split()[1] for command in OWN] == ["data", "train", "chat"]
    for command in OWN:
        words = [sys.executable, "-m", "videollm", *shlex.split(command)[1:]]
        if "train" in words:
            words += ["--set", "steps=3", "--set", "log_steps=1"]
        environment = {**ENVIRONMENT, "PYTHONPATH": str(ROOT)}
        done = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=240)
        assert done.returncode == 0, f"{command}: {done.stderr}"
        assert done.stdout.strip() and "Traceback" not in done.stderr


def test_the_python_block_runs() -> None:
    (block,) = BLOCKS["python"]
    done = subprocess.run(
        [sys.executable, "-c", block], cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()

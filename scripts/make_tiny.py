"""Train `tiny` from nothing and put it into videollm/assets: ``python scripts/make_tiny.py``.

Runs the recipes train_configs/tiny_*.yaml: eye, ear and alignment one after the other on one core, the decoder's text
beside them on another; then the decoder's harder questions, both stages, and calls of tools, on both cores. It may be
stopped and started again at any time: finished steps are kept, an interrupted one goes on from its newest checkpoint.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PARTS = ("vision", "audio", "dialogues", "stage1", "stage2", "tools_on")
STEPS = ("lookups", "questions", "cuts", "follows", "dialogues", "stage1", "stage2", "tools", "tools_on")
"""After the decoder's text, one after the other."""


def _start(name: str) -> subprocess.Popen[bytes] | None:
    if (ROOT / "runs/tiny" / name / "trained.safetensors").exists():
        print(f"{name}: done before", flush=True)
        return None
    log = (ROOT / f"runs/tiny/{name}.log").open("ab")
    print(f"{name}: running, log in runs/tiny/{name}.log", flush=True)
    command = [sys.executable, "-m", "videollm", "train", f"train_configs/tiny_{name}.yaml"]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    return subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log, env=environment)


def _finish(name: str, process: subprocess.Popen[bytes] | None, started: float) -> None:
    if process is None:
        return
    if process.wait():
        sys.exit(f"{name} failed; see runs/tiny/{name}.log")
    print(f"{name}: {(time.monotonic() - started) / 60:.1f} minutes", flush=True)


def main() -> None:
    """Run every step that is not done, then export."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    (ROOT / "runs/tiny").mkdir(parents=True, exist_ok=True)
    from videollm.training.export import export
    from videollm.training.tiny import build_tiny

    build_tiny(0, ROOT / "runs/tiny/tokenizer")  # once, before two recipes want it at the same time
    began = time.monotonic()
    decoder = _start("decoder")
    for name in ("vision", "audio", "alignment", "alignment_wide"):
        started = time.monotonic()
        _finish(name, _start(name), started)
    _finish("decoder", decoder, began)
    for name in STEPS:
        started = time.monotonic()
        _finish(name, _start(name), started)
    tokenizer, assets = str(ROOT / "runs/tiny/tokenizer"), ROOT / "videollm/assets"
    folders = tuple(str(ROOT / "runs/tiny" / part) for part in PARTS)
    print(export(folders, tokenizer, assets / "tiny", tools=True))
    print(f"all in {(time.monotonic() - began) / 60:.1f} minutes")


if __name__ == "__main__":
    main()

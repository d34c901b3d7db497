"""Copies a small part of the LF-VILA goldens into ``tests/parity/data``: all weights, words, losses, one small crop.

python tests/parity/keep_lf_vila.py DIR      DIR holds lf_vila/golden/
"""

from __future__ import annotations

import json
import re
import shutil
import sys
from pathlib import Path

from safetensors.torch import load_file, save_file

WHOLE_FILES = ("weights.safetensors", "metrics.json", "metrics.safetensors", "data_helpers.json")
COMPARED = (
    r"text_encoder\.safetensors/.*",
    r"contrastive\.safetensors/.*",
    r"video_encoder\.safetensors/(relative_position_index|shift_mask|temporal_receptive_field|variant\.crop\d+\.).*",
)
"""File and key of what the tests are given and compare."""


def main(goldens: Path) -> None:
    source = goldens / "lf_vila" / "golden"
    target = Path(__file__).parent / "data" / "lf_vila" / "golden"
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    index = json.loads((source / "goldens.json").read_text())
    kept = {
        file: {key: entry for key, entry in keys.items() if any(re.fullmatch(p, f"{file}/{key}") for p in COMPARED)}
        for file, keys in index["files"].items()
    }
    index["files"] = {file: keys for file, keys in kept.items() if keys}
    for file, keys in index["files"].items():
        stored = load_file(source / file)
        save_file({key: stored[key] for key in sorted(keys)}, target / file)
    for name in WHOLE_FILES:
        (target / name).write_bytes((source / name).read_bytes())
    (target / "goldens.json").write_text(json.dumps(index, indent=1) + "\n")
    for file in target.iterdir():
        file.chmod(0o644)
    print(sum(file.stat().st_size for file in target.iterdir()), "bytes")


if __name__ == "__main__":
    main(Path(sys.argv[1]))

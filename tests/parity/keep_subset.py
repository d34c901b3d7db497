"""Copies a small part of the Video-LLaMA goldens into ``tests/parity/data``: decoder, video Q-Former, all words.

python tests/parity/keep_subset.py DIR      DIR holds video_llama/golden/
"""

from __future__ import annotations

import json
import re
import shutil
import sys
from pathlib import Path

from safetensors.torch import load_file, save_file

PUBLISHED_PARTS = (
    "llama_model.",
    "video_Qformer.",
    "video_query_tokens",
    "video_frame_position_embedding.",
    "llama_proj.",
)
OUR_PARTS = (
    "language_model.",
    "video_qformer.",
    "video_query_tokens",
    "frame_position_embedding.",
    "video_projection.",
)
WHOLE_FILES = ("tokenizer.model", "preprocess.json")
COMPARED = (
    r"vl\.safetensors/(frame_hidden|video_qformer_.*|llama_proj_out)",
    r"train_.*/(input_ids|attention_mask|labels)",
    r"train_al_stage1\.safetensors/(logits|loss)",
    r"chat\.safetensors/.*\.(inputs_embeds|first_logits|generated_ids)",
)
"""File and key of what the tests compare."""
GIVEN = (
    r"vl\.safetensors/qformer_out",
    r"train_al_stage1\.safetensors/inputs_embeds",
    r"chat\.safetensors/.*\.prefix_\d+",
)
"""File and key of what they begin with."""


def main(goldens: Path) -> None:
    source = goldens / "video_llama" / "golden"
    target = Path(__file__).parent / "data" / "video_llama" / "golden"
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    index = json.loads((source / "goldens.json").read_text())
    entries = index["tensors"]

    def chosen(patterns: tuple[str, ...]) -> list[dict]:
        return [e for e in entries if any(re.fullmatch(p, f"{e['file']}/{e['key']}") for p in patterns)]

    for file in sorted({entry["file"] for entry in chosen(COMPARED)}):
        keys = {entry["key"] for entry in chosen((*COMPARED, *GIVEN)) if entry["file"] == file}
        stored = load_file(source / file)
        save_file({key: stored[key] for key in sorted(keys)}, target / file)
    weights = load_file(source / "weights.safetensors")
    kept = {key: value for key, value in weights.items() if key.startswith(PUBLISHED_PARTS)}
    save_file(kept, target / "weights.safetensors")
    for name in WHOLE_FILES:
        (target / name).write_bytes((source / name).read_bytes())
    index |= {"tensors": chosen(COMPARED), "kept_parts": OUR_PARTS}
    (target / "goldens.json").write_text(json.dumps(index, indent=1) + "\n")
    for file in target.iterdir():
        file.chmod(0o644)
    print(sum(file.stat().st_size for file in target.iterdir()), "bytes")


if __name__ == "__main__":
    main(Path(sys.argv[1]))

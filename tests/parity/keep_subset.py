"""Copies a small part of the goldens into ``tests/parity/data``: of Video-LLaMA decoder, video Q-Former and all words;
of LaViLa narrator, EgoVLP's dual encoder, losses, metrics and all words.

python tests/parity/keep_subset.py DIR      DIR holds video_llama/golden/ and lavila/golden/
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


LAVILA_LEFT_OUT = r"block_.*|dual_encoder_(io|weights|checkpoint)\..*|narrator_checkpoint\..*|preprocess_.*"
"""Files whose every part is in another, but for CLIP's text transformer and pictures."""


def keep_lavila(source: Path, target: Path) -> None:
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    index = json.loads((source / "goldens.json").read_text())
    index["tensors"] = [entry for entry in index["tensors"] if not re.fullmatch(LAVILA_LEFT_OUT, entry["file"])]
    for path in source.iterdir():
        if not re.fullmatch(LAVILA_LEFT_OUT, path.name):
            (target / path.name).write_bytes(path.read_bytes())
    (target / "goldens.json").write_text(json.dumps(index, indent=1) + "\n")


def keep_video_llama(goldens: Path) -> None:
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


def main(goldens: Path) -> None:
    data = Path(__file__).parent / "data"
    keep_video_llama(goldens)
    keep_lavila(goldens / "lavila" / "golden", data / "lavila" / "golden")
    for family in sorted(data.iterdir()):
        files = list((family / "golden").iterdir())
        for file in files:
            file.chmod(0o644)
        print(f"{family.name}: {sum(file.stat().st_size for file in files)} bytes")


if __name__ == "__main__":
    main(Path(sys.argv[1]))

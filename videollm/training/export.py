"""The finished model as an ordinary folder that `chat` loads."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import torch

from videollm.training.video_llama import assemble


def export(
    folders: tuple[str, ...],
    tokenizer: str,
    target: str | Path,
    dtype: torch.dtype = torch.float16,
    tools: bool = False,
) -> Path:
    """Put the trained parts of finished runs together and save model and processor.

    The folder appears whole; one that is there is replaced only when the new one is complete.

    Args:
        folders: runs whose parts are taken, later ones over earlier ones.
        tokenizer: the folder of the tokenizer that they were trained with.
        target: the folder to write; other files in it (a model card) are kept.
        dtype: of the saved weights.
        tools: of the model that calls tools.
    """
    model, processor = assemble(folders, 0, tokenizer, tools)
    target = Path(target)
    staging = target.with_name(f".{target.name}.part")
    shutil.rmtree(staging, ignore_errors=True)
    model.to(dtype).save_pretrained(staging)
    processor.save_pretrained(staging)
    target.mkdir(parents=True, exist_ok=True)
    for path in sorted(staging.iterdir()):
        os.replace(path, target / path.name)
    staging.rmdir()
    return target

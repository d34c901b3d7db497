"""GPT-2's tokenizer from its published merges alone.

Source: Radford et al., "Language Models are Unsupervised Multitask Learners" (2019), section 2.2, and its released
files.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers.models.gpt2.tokenization_gpt2 import GPT2Tokenizer

from ...errors import ModelNotFoundError
from ..imagebind.text_tokenizer import byte_letters

_END = "<|endoftext|>"


def load_gpt2_tokenizer(place: str | Path) -> GPT2Tokenizer:
    """The tokenizer of a narrator.

    Args:
        place: a folder with GPT-2's files (tokenizer.json, or vocab.json and merges.txt), or its merges alone: tokens
            are numbered in the order of bytes and merges.

    Raises:
        ModelNotFoundError: if the files are not there, or are something else.
    """
    asked = Path(place).expanduser()
    where = "give a folder with GPT-2's tokenizer.json, or its vocab.json and merges.txt, or the latter alone"
    try:
        if asked.is_dir():
            return GPT2Tokenizer.from_pretrained(asked, local_files_only=True)
        lines = asked.read_text(encoding="utf-8").splitlines()
        merges: list[Any] = [tuple(line.split(" ")) for line in lines if line and not line.startswith("#version")]
        if not merges or any(len(merge) != 2 for merge in merges):
            raise ValueError("a line that is no pair of tokens")
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ModelNotFoundError(f"no GPT-2 tokenizer at {asked} ({reason}); {where}") from error
    names = [*byte_letters(), *("".join(merge) for merge in merges), _END]
    return GPT2Tokenizer(vocab={name: index for index, name in enumerate(names)}, merges=merges)

"""A small LF-VILA with seeded random weights, and a processor with a vocabulary of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers.models.bert.tokenization_bert import BertTokenizer

from videollm.models.lf_vila import LfVilaConfig, LfVilaImageProcessor, LfVilaProcessor

WORDS = (
    *("a", "red", "blue", "green", "circle", "square", "bounces", "rolls", "stops", "man", "woman", "opens"),
    *("the", "door", "runs", "then", "falls", "asleep", "and", "of"),
)

VIDEO: dict[str, Any] = {
    "image_size": [48, 80],
    "patch_size": [2, 2],
    "embed_dim": 8,
    "depths": [1, 2, 2, 2],
    "num_heads": [1, 2, 4, 4],
    "window_sizes": [[2, 3, 5], [4, 3, 5], [8, 3, 5], [16, 3, 5]],
    "merge_after": [0, 1, 2],
    "local_window": 4,
    "drop_path_rate": 0.0,
    # Large enough that what is learned shows: with 0.02 attention is nearly even.
    "initializer_range": 0.2,
}
TEXT: dict[str, Any] = {
    "hidden_size": 64,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "intermediate_size": 96,
    "max_position_embeddings": 64,
    "vocab_size": 60,
    "initializer_range": 0.2,
}


def small_config(**changed: Any) -> LfVilaConfig:
    fields: dict[str, Any] = {
        "video_config": VIDEO,
        "text_config": TEXT,
        "sentence_layers": 1,
        "paragraph_layers": 1,
        "num_frames": 16,
        "num_clips": 4,
        "max_sentence_tokens": 12,
        "initializer_range": 0.2,
    }
    return LfVilaConfig(**(fields | changed))


def small_model(kind: Any, **changed: Any) -> Any:
    torch.manual_seed(0)
    return kind(small_config(**changed)).eval()


def write_vocabulary(folder: Path) -> Path:
    letters = "abcdefghijklmnopqrstuvwxyz"
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", ".", *WORDS, *(f"##{letter}" for letter in letters)]
    path = folder / "vocab.txt"
    path.write_text("\n".join(tokens) + "\n")
    return path


def small_processor(folder: Path) -> LfVilaProcessor:
    config = small_config()
    tokenizer = BertTokenizer(vocab=str(write_vocabulary(folder)), do_lower_case=True)
    images = LfVilaImageProcessor(size=config.video_config.image_size)
    return LfVilaProcessor(images, tokenizer, config.num_clips, config.max_sentence_tokens, config.num_frames)


def video(frames: int, batch: int = 1, height: int = 48, width: int = 80) -> torch.Tensor:
    return torch.randn(batch, frames, 3, height, width, generator=torch.Generator().manual_seed(1))

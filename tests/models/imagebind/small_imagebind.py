"""ImageBind's ear and text trunk at a size for tests, random, with what feeds them."""

from __future__ import annotations

from pathlib import Path

import torch

from videollm.models.imagebind import ImageBindConfig, ImageBindModel
from videollm.models.imagebind.processing_imagebind import ImageBindProcessor
from videollm.models.video_llama import VideoLlamaFeatureExtractor
from videollm.training.tiny_lavila import clip_tokenizer

TRUNK = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
MEL = {"num_mel_bins": 32, "target_length": 48, "patch_size": [16, 16], "patch_stride": [16, 16]}


def small_processor() -> ImageBindProcessor:
    """Segments of half a second; letters for words."""
    sound = VideoLlamaFeatureExtractor(16000, 0.5, MEL["num_mel_bins"], MEL["target_length"])
    return ImageBindProcessor(sound, clip_tokenizer(()), max_text_tokens=24)


def small_model(seed: int = 0, **trunks: None) -> ImageBindModel:
    """Random weights; ``text_config=None`` and the like leave a trunk out."""
    torch.manual_seed(seed)
    words = clip_tokenizer(())
    config = {
        "audio_config": {**TRUNK, **MEL, "projection_dim": 12, "initializer_range": 0.3},
        "text_config": {
            **TRUNK, "vocab_size": len(words), "max_position_embeddings": 24, "projection_dim": 12,
            "bos_token_id": words.bos_token_id, "eos_token_id": words.eos_token_id, "initializer_range": 0.3,
        },
    }  # fmt: skip
    return ImageBindModel(ImageBindConfig(**{**config, **trunks})).eval()


def imagebind_folder(folder: Path, seed: int = 0, **trunks: None) -> Path:
    """Such a model, saved."""
    small_model(seed, **trunks).save_pretrained(folder)
    small_processor().save_pretrained(folder)
    return folder

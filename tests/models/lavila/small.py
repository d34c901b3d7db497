"""LaViLa's models at a size for tests: seeded random numbers, gates open, so that every part changes what comes out."""

from __future__ import annotations

from typing import Any

import torch

from videollm.models.lavila import (
    LavilaClassifierConfig,
    LavilaDualEncoder,
    LavilaDualEncoderConfig,
    LavilaForVideoClassification,
    LavilaNarrator,
    LavilaNarratorConfig,
)

VISION: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 16,
    "patch_size": 8,
    "num_frames": 3,
}
CLIP_TEXT: dict[str, Any] = {
    "model_type": "clip_text_model",
    "vocab_size": 50,
    "hidden_size": 24,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_position_embeddings": 12,
    "bos_token_id": 48,
    "eos_token_id": 49,
    "pad_token_id": 0,
}
BERT_TEXT: dict[str, Any] = {
    "model_type": "distilbert",
    "vocab_size": 50,
    "dim": 24,
    "hidden_dim": 48,
    "n_layers": 2,
    "n_heads": 2,
    "max_position_embeddings": 12,
}
GPT2_TEXT: dict[str, Any] = {
    "model_type": "gpt2",
    "vocab_size": 40,
    "n_positions": 20,
    "n_embd": 24,
    "n_layer": 3,
    "n_head": 2,
    "bos_token_id": 39,
    "eos_token_id": 39,
}


def shaken(cls: Any, config: Any, seed: int = 0) -> Any:
    """A model with every parameter away from where it begins, wide enough that clips and words matter."""
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = cls(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.15)
    return model.eval()


def dual_encoder(text: dict[str, Any] = CLIP_TEXT, **options: Any) -> LavilaDualEncoder:
    config = LavilaDualEncoderConfig(vision_config=VISION, text_config=text, projection_dim=20, **options)
    return shaken(LavilaDualEncoder, config)


def narrator(**options: Any) -> LavilaNarrator:
    fields = {"num_query_tokens": 5, "pool_head_dim": 8, "cross_attention_frequency": 2, "max_text_tokens": 12}
    config = LavilaNarratorConfig(vision_config=VISION, text_config=GPT2_TEXT, **fields | options)
    return shaken(LavilaNarrator, config)


def classifier(*classes: int) -> LavilaForVideoClassification:
    config = LavilaClassifierConfig(vision_config=VISION, num_classes=list(classes))
    return shaken(LavilaForVideoClassification, config)


def clips(count: int, frames: int = 3, seed: int = 1) -> torch.Tensor:
    return torch.randn(count, frames, 3, 16, 16, generator=torch.Generator().manual_seed(seed))


def words(count: int, vocabulary: int, length: int = 8, seed: int = 2) -> torch.Tensor:
    """Texts of differing lengths: begin token, words, end token (the largest id), zeros."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(1, vocabulary - 2, (count, length), generator=generator)
    ids[:, 0] = vocabulary - 2
    for row in range(count):
        end = length - 1 - row % 3
        ids[row, end] = vocabulary - 1
        ids[row, end + 1 :] = 0
    return ids

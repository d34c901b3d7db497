"""Published parameter names of Video-LLaMA and ours, for the tests of shapes and of parity."""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch

_QFORMER = (
    (r"^(video_|audio_)?Qformer\.bert\.embeddings\.LayerNorm\.", r"\1qformer.layernorm."),
    (r"^(video_|audio_)?Qformer\.bert\.encoder\.", r"\1qformer.encoder."),
    (r"\.attention\.self\.", ".attention.attention."),
    (r"\.crossattention\.self\.", ".crossattention.attention."),
)
_VISION = (
    (r"^ln_vision\.", "vision_model.post_layernorm."),
    (r"^visual_encoder\.cls_token", "vision_model.embeddings.class_embedding"),
    (r"^visual_encoder\.pos_embed", "vision_model.embeddings.position_embedding"),
    (r"^visual_encoder\.patch_embed\.proj", "vision_model.embeddings.patch_embedding"),
    (r"^visual_encoder\.blocks\.(\d+)\.attn\.proj\.", r"vision_model.encoder.layers.\1.self_attn.projection."),
    (r"^visual_encoder\.blocks\.(\d+)\.attn\.", r"vision_model.encoder.layers.\1.self_attn."),
    (r"^visual_encoder\.blocks\.(\d+)\.norm([12])\.", r"vision_model.encoder.layers.\1.layer_norm\2."),
    (r"^visual_encoder\.blocks\.", "vision_model.encoder.layers."),
)
_IMAGEBIND = (
    (r"^modality_preprocessors\.(\w+)\.cls_token", r"\1_model.cls_token"),
    (r"^modality_preprocessors\.(\w+)\.rgbt_stem\.proj(\.1)?\.", r"\1_model.patch_embedding."),
    (r"^modality_preprocessors\.(\w+)\.rgbt_stem\.norm_layer\.", r"\1_model.stem_layernorm."),
    (r"^modality_preprocessors\.(\w+)\.pos_embedding_helper\.pos_embed", r"\1_model.position_embedding"),
    (r"^modality_trunks\.(\w+)\.pre_transformer_layer\.0\.", r"\1_model.pre_layernorm."),
    (r"^modality_trunks\.(\w+)\.blocks\.", r"\1_model.blocks."),
    (r"\.attn\.in_proj_(weight|bias)", r".attn.in_proj.\1"),
    (r"^modality_heads\.(\w+)\.0\.", r"\1_model.head_layernorm."),
    (r"^modality_heads\.(\w+)\.2\.", r"\1_model.head_projection."),
)
_REST = (
    (r"^video_frame_position_embedding\.", "frame_position_embedding."),
    (r"^llama_proj\.", "video_projection."),
    (r"^audio_llama_proj\.", "audio_projection."),
    (r"^llama_model\.", "language_model."),
)
_NOT_PARAMETERS = re.compile(r"position_ids$|rotary_emb\.inv_freq$|log_logit_scale$")


def our_name(published: str) -> str | None:
    """Our name of a published parameter; None for a buffer that we compute."""
    if _NOT_PARAMETERS.search(published):
        return None
    name = published.removeprefix("audio_encoder.")
    for pattern, replacement in (*_QFORMER, *_VISION, *_IMAGEBIND, *_REST):
        name = re.sub(pattern, replacement, name)
    return name


def our_weights(published: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Our state dict, from the published one: the query and value biases of the ViT become one row of three parts."""
    ours: dict[str, torch.Tensor] = {}
    for key, value in published.items():
        name = our_name(key)
        if name is None:
            continue
        if name.endswith("self_attn.q_bias"):
            other = published[key.replace("q_bias", "v_bias")]
            ours[name.replace("q_bias", "qkv.bias")] = torch.cat([value, torch.zeros_like(value), other])
        elif not name.endswith("self_attn.v_bias"):
            ours[name] = value
    return ours

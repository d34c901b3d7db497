"""Published Video-LLaMA weights to `VideoLlamaForConditionalGeneration`.

Source: Zhang et al., "Video-LLaMA" (2023) and its released checkpoints; BLIP-2 and EVA-CLIP for the frozen parts.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch

from ..errors import ConversionError
from ..models.imagebind import ImageBindConfig, ImageBindModel
from ..models.video_llama import VideoLlamaConfig, VideoLlamaForConditionalGeneration
from .audit import Piece, Plan, Shape, audit
from .checkpoint import unwrap
from .keymap import AUDIO_BRANCH, BLIP2, EVA_VIT, LLAMA, VIDEO_BRANCH, Drop, Rule, find, imagebind, under

WHAT: dict[str, str] = {
    "eva_vit": "the EVA ViT (eva_vit_g.pth)",
    "blip2": "the BLIP-2 Q-Former (blip2_pretrained_flant5xxl.pth)",
    "imagebind": "ImageBind (imagebind_huge.pth)",
    "video_branch": "a checkpoint of the video branch (VL)",
    "audio_branch": "a checkpoint of the audio branch (AL)",
    "llama": "the folder of the decoder (LLaMA, Vicuna or Llama-2-chat)",
    "whole": "a state dict of the whole published model",
}
"""The kinds of published files."""


def recognise(keys: Iterable[str]) -> str | None:
    """The kind of a published file, by the names in it: a key of `WHAT`, or None."""
    keys = set(keys)
    if "query_tokens" in keys:
        return "whole" if any(key.startswith("llama_model.model.embed_tokens") for key in keys) else "blip2"
    if "video_query_tokens" in keys:
        return "video_branch"
    if "audio_query_tokens" in keys:
        return "audio_branch"
    if "cls_token" in keys and any(key.startswith("blocks.0.attn.") for key in keys):
        return "eva_vit"
    if any(key.startswith(("modality_preprocessors.", "modality_trunks.")) for key in keys):
        return "imagebind"
    if any(key.startswith(("model.layers.", "model.embed_tokens.", "lm_head.")) for key in keys):
        return "llama"
    return None


def rules_of(kind: str, config: VideoLlamaConfig) -> tuple[Rule, ...]:
    """The key map of a kind of published file, for a model of this shape."""
    # The file has one block more than the model runs: its features are those of the last block but one.
    last = config.vision_config.num_hidden_layers
    eva_vit = (Drop(f"blocks.{last}.{{rest}}", "the block after the last that the published model runs"), *EVA_VIT)
    ears = imagebind("audio") if config.has_audio else imagebind()
    tied = Drop("lm_head.weight", "the same as the embeddings of tokens")
    llama = (tied, *LLAMA) if config.text_config.tie_word_embeddings else LLAMA
    tables: dict[str, tuple[Rule, ...]] = {
        "eva_vit": eva_vit,
        "blip2": BLIP2,
        "imagebind": ears,
        "video_branch": VIDEO_BRANCH,
        "audio_branch": AUDIO_BRANCH,
        "llama": llama,
    }
    tables["whole"] = (
        *under("visual_encoder.", eva_vit),
        *under("audio_encoder.", ears),
        *under("llama_model.", llama),
        *BLIP2,
        *VIDEO_BRANCH,
        *AUDIO_BRANCH,
    )
    return tables[kind]


def wanted(config: VideoLlamaConfig) -> dict[str, Shape]:
    """Names and shapes of the parameters of a model, without making its numbers."""
    with torch.device("meta"):
        model = VideoLlamaForConditionalGeneration(config)
    shapes = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    if config.text_config.tie_word_embeddings:
        shapes.pop("language_model.lm_head.weight", None)
    return shapes


def plan(files: Mapping[str, tuple[str, Mapping[str, Shape]]], config: VideoLlamaConfig) -> Plan:
    """The audited plan of a conversion (see `videollm.convert.audit`).

    Args:
        files: by label: the kind (of `WHAT`) and the shapes of a file.
        config: of the model that they make.

    Raises:
        ConversionError: if they do not make it, all of it and nothing else.
    """
    pieces = [Piece(label, rules_of(kind, config), shapes) for label, (kind, shapes) in files.items()]
    return audit(pieces, wanted(config))


def state_dict(*pieces: Mapping[str, Any], config: VideoLlamaConfig) -> dict[str, torch.Tensor]:
    """Tensors under their published names to the state dict of a `VideoLlamaForConditionalGeneration`.

    Each piece is what one published file holds: an EVA ViT, a BLIP-2 Q-Former, an ImageBind, a checkpoint of the video
    or of the audio branch, a LLaMA; or one piece is the whole state dict of the published model. What a piece is, is
    seen from its keys; a checkpoint (``{"model": {...}, "optimizer": ...}``) may be given as it was loaded.

    Nothing is left to chance: every key is used once or dropped by a rule that says why, every parameter is filled;
    ``load_state_dict(..., strict=True)`` takes the result.

    Args:
        pieces: tensors by published name, of any float dtype; values are not copied where they need no change.
        config: of the model; without an ``audio_config`` ImageBind and audio branch are not needed.

    Returns:
        tensors by our names, in the dtypes of the pieces.

    Raises:
        ConversionError: for pieces that are unknown, missing, of another size, or with keys too many or too few.
    """
    tensors: list[Mapping[str, torch.Tensor]] = [unwrap(piece) for piece in pieces]
    files: dict[str, tuple[str, Mapping[str, Shape]]] = {}
    for index, piece in enumerate(tensors):
        kind = recognise(piece)
        if kind is None:
            known = ", ".join(WHAT.values())
            raise ConversionError(f"piece {index + 1} with keys like {next(iter(piece), None)!r} is none of {known}")
        label = kind if kind not in files else f"{kind} (piece {index + 1})"
        files[label] = (kind, {key: tuple(value.shape) for key, value in piece.items()})
    return {fill.target: fill.make(tensors[fill.piece].__getitem__) for fill in plan(files, config).fills}


def our_name(published: str, config: VideoLlamaConfig) -> str | None:
    """Our name of a parameter of the published model (whole state dict); None for a key that is dropped.

    Raises:
        ConversionError: for a key that no rule knows.
    """
    place = find(rules_of("whole", config), published)
    if place is None:
        raise ConversionError(f"no rule for the published key {published!r}")
    return None if isinstance(place, Drop) else place.target


def imagebind_state_dict(published: Mapping[str, Any], config: ImageBindConfig) -> dict[str, torch.Tensor]:
    """ImageBind's tensors to the state dict of an `ImageBindModel`; the config says which trunks are wanted.

    Args:
        published: what ``imagebind_huge.pth`` holds; or a state dict of the whole published Video-LLaMA, of which only
            the keys under ``audio_encoder.`` are looked at.
        config: of the model.

    Raises:
        ConversionError: as `state_dict`.
    """
    prefix = "audio_encoder."
    tensors = unwrap(published)
    if any(key.startswith(prefix) for key in tensors):
        tensors = {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
    trunks = [name for name in ("audio", "vision", "text") if getattr(config, f"{name}_config", None) is not None]
    with torch.device("meta"):
        model = ImageBindModel(config)
    shapes = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    piece = Piece("imagebind", imagebind(*trunks), {key: tuple(value.shape) for key, value in tensors.items()})
    return {fill.target: fill.make(tensors.__getitem__) for fill in audit([piece], shapes).fills}

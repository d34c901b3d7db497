"""What learns in each stage, and the table that says so."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from videollm.models.video_llama import VideoLlamaForConditionalGeneration

BRANCHES: dict[str, tuple[str, ...]] = {
    "video": ("frame_position_embedding", "video_qformer", "video_query_tokens", "video_projection"),
    "audio": ("audio_position_embedding", "audio_qformer", "audio_query_tokens", "audio_projection"),
}
"""Behind its frozen encoder, what makes the soft tokens of a branch."""
ENCODERS = ("vision_model", "qformer", "audio_model")

LEARNS: dict[str, tuple[str, ...]] = {
    "vision": ("vision_model", "qformer", "query_tokens"),
    "audio": ("audio_model",),
    "decoder": ("language_model",),
    "alignment": (*BRANCHES["video"], *BRANCHES["audio"]),
    "stage1": (*BRANCHES["video"], *BRANCHES["audio"]),
    "stage2": (*BRANCHES["video"], *BRANCHES["audio"]),
    "tools": ("language_model",),
}
"""Parts of the model by stage. With ``lora_rank`` stage 2 also learns low-rank updates of the decoder."""


def freeze(model: VideoLlamaForConditionalGeneration, stage: str, branches: Sequence[str] = ("video", "audio")) -> None:
    """Let only the stage's parts learn, of the branches named."""
    others = {part for name, parts in BRANCHES.items() if name not in branches for part in parts}
    learns = set(LEARNS[stage]) - others
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name.split(".")[0] in learns)


@torch.no_grad()
def forget(model: VideoLlamaForConditionalGeneration, branches: Sequence[str]) -> None:
    """Random weights in branches, from which a first stage begins, as published but for the video projection."""
    spread = model.config.initializer_range
    for part in (part for branch in branches for part in BRANCHES[branch]):
        held = getattr(model, part)
        if isinstance(held, nn.Parameter):
            held.normal_(std=spread)
        elif isinstance(held, nn.Embedding):
            held.weight.normal_(std=model.config.position_initializer_range)
        elif isinstance(held, nn.Linear):
            held.weight.normal_(std=spread)
            held.bias.zero_()
        else:
            held.load_state_dict(type(held)(held.config).state_dict())


def rest(model: VideoLlamaForConditionalGeneration) -> None:
    """Put encoders of which nothing learns into evaluation mode: as published, they train without dropout."""
    for name in ENCODERS:
        part = getattr(model, name)
        if part is not None and not any(parameter.requires_grad for parameter in part.parameters()):
            part.eval()


def table_of_parts(model: nn.Module) -> str:
    """A line a part: how many of its parameters learn."""
    parts: dict[str, list[int]] = {}
    for name, parameter in model.named_parameters():
        counts = parts.setdefault(name.split(".")[0], [0, 0])
        size = size_of(parameter)
        counts[0] += size
        counts[1] += size if parameter.requires_grad else 0
    lines = [f"{'part':<28}{'parameters':>14}{'learning':>14}"]
    lines += [f"{name:<28}{total:>14,}{learning:>14,}" for name, (total, learning) in parts.items()]
    total, learning = (sum(counts[i] for counts in parts.values()) for i in (0, 1))
    return "\n".join([*lines, f"{'all':<28}{total:>14,}{learning:>14,}"])


def size_of(parameter: nn.Parameter) -> int:
    """Numbers in a parameter, however it is held: spread over processes by ZeRO-3, or packed in four bits."""
    packed = getattr(parameter, "quant_state", None)
    if packed is not None:
        return packed.shape.numel()
    return getattr(parameter, "ds_numel", parameter.numel())

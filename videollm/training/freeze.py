"""What learns in each stage, and the table that says so."""

from __future__ import annotations

from torch import nn

from videollm.models.video_llama import VideoLlamaForConditionalGeneration

_VIDEO = ("frame_position_embedding", "video_qformer", "video_query_tokens", "video_projection")
_AUDIO = ("audio_position_embedding", "audio_qformer", "audio_query_tokens", "audio_projection")

LEARNS: dict[str, tuple[str, ...]] = {
    "vision": ("vision_model", "qformer", "query_tokens"),
    "audio": ("audio_model",),
    "decoder": ("language_model",),
    "alignment": _VIDEO + _AUDIO,
    "stage1": _VIDEO + _AUDIO,
    "stage2": _VIDEO + _AUDIO,
}
"""Parts of the model by stage. With ``lora_rank`` stage 2 also learns low-rank updates of the decoder."""


def freeze(model: VideoLlamaForConditionalGeneration, stage: str) -> None:
    """Let only the stage's parts learn."""
    learns = LEARNS[stage]
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name.split(".")[0] in learns)


def table_of_parts(model: nn.Module) -> str:
    """A line a part: how many of its parameters learn."""
    parts: dict[str, list[int]] = {}
    for name, parameter in model.named_parameters():
        counts = parts.setdefault(name.split(".")[0], [0, 0])
        counts[0] += parameter.numel()
        counts[1] += parameter.numel() if parameter.requires_grad else 0
    lines = [f"{'part':<28}{'parameters':>14}{'learning':>14}"]
    lines += [f"{name:<28}{total:>14,}{learning:>14,}" for name, (total, learning) in parts.items()]
    total, learning = (sum(counts[i] for counts in parts.values()) for i in (0, 1))
    return "\n".join([*lines, f"{'all':<28}{total:>14,}{learning:>14,}"])

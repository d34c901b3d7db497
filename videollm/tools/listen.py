"""The sound of a stretch of a video, heard again without its pictures."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from videollm.clips import Clip
from videollm.errors import ChatError, MediaStretchError
from videollm.media.decode_worker import open_clip
from videollm.media.source import Limits
from videollm.tools.narrate import LONG_FILE
from videollm.tools.narrators import Narrator


def listen(video: Path, ears: Narrator, start_seconds: float, end_seconds: float, limits: Limits = LONG_FILE) -> Clip:
    """The sound of a stretch; seconds count from the start of the stretch.

    Raises:
        MediaError: the stretch cannot be read, or has no sound.
        ChatError: the model has no ear.
    """
    if ears.sound is None:
        raise ChatError("this model has no ear; look, or narrate, instead")
    clip = open_clip(
        video,
        frames=None,
        sound=ears.sound,
        limits=limits,
        start_seconds=start_seconds,
        end_seconds=end_seconds,
    )
    if not clip.waveforms:
        raise MediaStretchError(f"{clip.name} has no sound there; look, or narrate, instead")
    return replace(clip, kind="audio", frames=None)

"""A stretch of a video watched again: as many frames as a model looks at in a whole clip, in this stretch alone."""

from __future__ import annotations

from pathlib import Path

from videollm.clips import Clip
from videollm.media.decode_worker import open_clip
from videollm.media.source import Limits
from videollm.tools.narrate import LONG_FILE
from videollm.tools.narrators import Narrator


def look(video: Path, eyes: Narrator, start_seconds: float, end_seconds: float, limits: Limits = LONG_FILE) -> Clip:
    """The pictures of a stretch, as a model is shown a clip; seconds count from the start of the stretch.

    Raises:
        MediaError: the stretch cannot be read.
    """
    return open_clip(video, frames=eyes.frames, limits=limits, start_seconds=start_seconds, end_seconds=end_seconds)


def in_words(clip: Clip, model: Narrator) -> str:
    """What a model says of a clip, in one line; empty where it gets nothing to see or to hear."""
    said = model.describe([clip], 1, 0)[0]
    return " ".join(said[0].text.split()) if said else ""

"""Vectors of what is heard, and of words about it: ImageBind, whose audio and text trunks share one space."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.nn import functional

from videollm.clips import Clip
from videollm.errors import ModelNotFoundError
from videollm.media.sampling import SoundSampling, contiguous_sound_windows
from videollm.models import families

if TYPE_CHECKING:
    from videollm.models.imagebind import ImageBindModel
    from videollm.models.imagebind.processing_imagebind import ImageBindProcessor

_MOST_SEGMENTS = 64
"""Of a window: longer ones are heard at so many places."""


class SoundEncoder:
    """Sounds of windows, and words, as unit vectors.

    A window is heard in segments of the length that the model was trained with, back to back; its vector is the mean of
    theirs, as published.

    Args:
        model, processor: of one folder.
        name: tells these weights from others; an index remembers it.

    Raises:
        ModelNotFoundError: the model lacks one of the two trunks.
    """

    def __init__(self, model: ImageBindModel, processor: ImageBindProcessor, name: str) -> None:
        if model.audio_model is None or model.text_model is None:
            raise ModelNotFoundError("sounds are found by words with ImageBind's audio and text trunks; one is missing")
        self.ear, self.reader = model.audio_model, model.text_model
        self.processor, self.name = processor, name
        self.width = int(model.config.audio_config.projection_dim)
        self._seconds = float(processor.feature_extractor.segment_seconds)  # pyright: ignore[reportAttributeAccessIssue]
        self.sound = SoundSampling("contiguous", _MOST_SEGMENTS, self._seconds)

    @torch.inference_mode()
    def clips(self, clips: Sequence[Clip]) -> list[np.ndarray | None]:
        """What is heard in windows, as float32 ``(D,)``; None where there is no sound track."""
        parts = []
        for clip in clips:
            if clip.waveforms:
                stretches = [
                    (wave.start_seconds + start, wave.start_seconds + end)
                    for wave in clip.waveforms
                    for start, end in contiguous_sound_windows(wave.duration_seconds, self._seconds)
                ]
                parts.append(self.processor.sounds(clip.waveforms, stretches)["audio_values"])
        if not parts:
            return [None for _ in clips]
        each = self.ear(torch.cat(parts).to(self.ear.device, self.ear.dtype)).float()
        means = torch.stack([part.mean(dim=0) for part in each.split([len(part) for part in parts])])
        rows = iter(functional.normalize(means, dim=-1).cpu().numpy())
        return [next(rows) if clip.waveforms else None for clip in clips]

    @torch.inference_mode()
    def words(self, text: str) -> np.ndarray:
        """Words as float32 ``(D,)``."""
        ids = self.processor.texts([text])["input_ids"].to(self.reader.device)
        return functional.normalize(self.reader(ids)[0].float(), dim=-1).cpu().numpy()


def load_sound_encoder(name_or_folder: str | Path, device: str | None = None) -> SoundEncoder:
    """ImageBind from its folder.

    Raises:
        ModelNotFoundError: no such model, one of another kind, or without the trunks for sound and words.
        ConfigError: a device that cannot be used.
    """
    from videollm.models.imagebind import ImageBindModel

    model, processor = families.load(name_or_folder, ImageBindModel, device=device, dtype=torch.float32)
    digest = hashlib.sha256()
    for file in sorted(families.look_up(name_or_folder).folder.glob("*.safetensors")):
        with file.open("rb") as opened:
            while block := opened.read(2**20):
                digest.update(block)
    return SoundEncoder(model, processor, f"imagebind-{digest.hexdigest()[:16]}")

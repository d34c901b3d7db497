"""Vectors of windows that are seen within the stretch of video around them, and of sentences about them: LF-VILA."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from videollm.clips import Clip, Frames
from videollm.models import families

if TYPE_CHECKING:
    from videollm.models.lf_vila import LfVilaProcessor


class LongFormEncoder:
    """Windows and words as unit vectors.

    Windows that follow each other are seen as one video, a vector of each frame in it; a window's is their mean, a
    text's that of its sentences. Of a text of any length no word is cut off.

    Args:
        model, processor: of one folder; of pretraining, with a space of its own for moments, or of retrieval.
        name: tells these weights from others; an index remembers it.
    """

    def __init__(self, model: Any, processor: LfVilaProcessor, name: str) -> None:
        self.model, self.processor, self.name = model, processor, name
        self.width = int(model.config.text_config.hidden_size)

    @torch.inference_mode()
    def windows(self, clips: Sequence[Clip]) -> list[np.ndarray | None]:
        """Windows of one video, in order, overlapping or not, as float32 ``(D,)``; None where nothing is to be seen."""
        from videollm.models.lf_vila import embed_video

        frames = [clip.frames for clip in clips if clip.frames is not None]
        found: dict[int, np.ndarray] = {}
        for group in _of_one_size(frames):
            stretch = _joined(group)
            rows = embed_video(self.model, self.processor, stretch, frames_per_clip=1).clip_vectors.numpy()
            for one in group:
                mean = rows[np.isin(stretch.seconds, one.seconds)].mean(axis=0)
                found[id(one)] = mean / np.linalg.norm(mean)
        return [None if clip.frames is None else found[id(clip.frames)] for clip in clips]

    @torch.inference_mode()
    def words(self, text: str) -> np.ndarray:
        """A sentence, or several, as float32 ``(D,)``.

        Raises:
            DataError: without words.
        """
        from videollm.models.lf_vila import embed_paragraph

        mean = embed_paragraph(self.model, self.processor, text).sentence_vectors.mean(dim=0).numpy()
        return mean / np.linalg.norm(mean)


def _of_one_size(frames: Sequence[Frames]) -> list[list[Frames]]:
    """Neighbours whose pictures are equally large; a file may change its size on the way."""
    groups: list[list[Frames]] = []
    for one in frames:
        if groups and groups[-1][-1].pixels.shape[1:] == one.pixels.shape[1:]:
            groups[-1].append(one)
        else:
            groups.append([one])
    return groups


def _joined(group: Sequence[Frames]) -> Frames:
    """Each frame once, in order."""
    seconds, first = np.unique(np.concatenate([one.seconds for one in group]), return_index=True)
    pixels = np.concatenate([one.pixels for one in group])[first]
    return Frames(pixels, seconds, max(one.duration_seconds for one in group))


def load_long_form_encoder(name_or_folder: str | Path, device: str | None = None) -> LongFormEncoder:
    """LF-VILA from its folder.

    Raises:
        ModelNotFoundError: no such model, or one that cannot compare videos with words.
        ConfigError: a device that cannot be used.
    """
    from videollm.models.lf_vila import LfVilaForPreTraining, LfVilaForRetrieval

    model, processor = families.load(name_or_folder, LfVilaForPreTraining, LfVilaForRetrieval, device=device)
    digest = hashlib.sha256()
    for file in sorted(families.look_up(name_or_folder).folder.glob("*.safetensors")):
        with file.open("rb") as opened:
            while block := opened.read(2**20):
                digest.update(block)
    return LongFormEncoder(model, processor, f"lf-vila-{digest.hexdigest()[:16]}")

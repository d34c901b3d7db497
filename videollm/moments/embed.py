"""Vectors of what is seen, and of words about it: LaViLa's dual encoder, which puts both in one space."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from videollm.clips import Clip
from videollm.errors import ModelNotFoundError
from videollm.media.sampling import FrameSampling, segment_centre_indices
from videollm.models import families, hub

if TYPE_CHECKING:
    from videollm.models.lavila import LavilaDualEncoder, LavilaProcessor


class SightEncoder:
    """Windows and words as unit vectors.

    Args:
        model, processor: of one folder.
        name: tells these weights from others; an index remembers it.
    """

    def __init__(self, model: LavilaDualEncoder, processor: LavilaProcessor, name: str) -> None:
        self.model, self.processor, self.name = model, processor, name
        self.width = int(model.config.projection_dim)
        self.frames = FrameSampling("centre", frames=processor.image_processor.num_frames)

    @torch.inference_mode()
    def clips(self, clips: Sequence[Clip]) -> list[np.ndarray | None]:
        """Windows as float32 ``(D,)``; None where nothing is to be seen."""
        seen = [clip for clip in clips if clip.frames is not None]
        if not seen:
            return [None for _ in clips]
        values = pixel_values_of(seen, self.processor, self.model)
        rows = iter(self.model(pixel_values=values).video_embeds.float().cpu().numpy())
        return [None if clip.frames is None else next(rows) for clip in clips]

    @torch.inference_mode()
    def words(self, text: str) -> np.ndarray:
        """Words as float32 ``(D,)``."""
        batch = {name: value.to(self.model.device) for name, value in self.processor.texts([text]).items()}
        return self.model(**batch).text_embeds[0].float().cpu().numpy()


def pixel_values_of(clips: Sequence[Clip], processor: LavilaProcessor, model: Any) -> torch.Tensor:
    """As many frames of each clip as the model was trained with; those of very short clips come more than once.

    Returns:
        float ``(B, T, 3, H, W)``, where the model is and as it computes.
    """
    count = processor.image_processor.num_frames
    pixels = []
    for clip in clips:
        assert clip.frames is not None
        frames = clip.frames.pixels
        pixels.append(frames if len(frames) == count else frames[segment_centre_indices(len(frames), count)])
    return processor.clips(pixels)["pixel_values"].to(model.device, model.dtype)


def load_sight_encoder(folder: str | Path, device: str | None = None) -> SightEncoder:
    """LaViLa's dual encoder from its folder.

    Raises:
        ModelNotFoundError: no such model, or one of another kind.
        ConfigError: a device that cannot be used.
    """
    from videollm.models.lavila import LavilaDualEncoder

    with _named(folder):
        model, processor = families.load(folder, LavilaDualEncoder, device=device, dtype=torch.float32)
    return SightEncoder(model, processor, name_of(folder))


@contextlib.contextmanager
def _named(folder: str | Path) -> Iterator[None]:
    try:
        yield
    except ModelNotFoundError as error:
        raise ModelNotFoundError(
            f"no dual encoder in {folder} ({error}); give the folder that videollm convert lavila made of one"
        ) from error


def name_of(folder: str | Path) -> str:
    """The name of the weights of a dual encoder, which is not loaded.

    Raises:
        ModelNotFoundError: no such model, or one of another kind.
    """
    from videollm.models.lavila import LavilaDualEncoder

    with _named(folder):
        found = families.look_up(folder)
        if found.model_class is not LavilaDualEncoder:
            raise ModelNotFoundError(f"it is of {found.what}")
    digest = hashlib.sha256()
    for file in sorted(hub.folder_of(folder).glob("*.safetensors")):
        with file.open("rb") as opened:
            while block := opened.read(2**20):
                digest.update(block)
    return f"lavila-{digest.hexdigest()[:16]}"

"""Frames to the tensors that the vision encoder takes: resizing and normalisation.

Notation: T frames, H W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from torch.nn import functional
from transformers.image_processing_base import ImageProcessingMixin
from transformers.image_processing_utils import BaseImageProcessor

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)

# Frames are resized in groups of at most so many float values, so that 32 frames of 4K do not become 3 GB of floats.
_GROUP_VALUES = 2**24


class VideoLlamaImageProcessor(BaseImageProcessor):
    """Resizes and normalises frames.

    Attributes:
        size: height and width of the encoder's input, pixels.
        image_mean, image_std: of the three channels, for values in [0, 1].
        as_published: squash frames to a square, as the published model was trained. Otherwise the aspect ratio is
            kept: the longer side becomes ``size``, the picture is centred and the rest is the mean colour (0 after
            normalisation).
    """

    model_input_names: ClassVar[list[str]] = ["pixel_values"]

    def __init__(
        self,
        size: int = 224,
        image_mean: Sequence[float] = CLIP_MEAN,
        image_std: Sequence[float] = CLIP_STD,
        as_published: bool = False,
        **kwargs: Any,
    ) -> None:
        # Not BaseImageProcessor.__init__: its validation is for the library's own set of options, none of which apply.
        ImageProcessingMixin.__init__(self, **kwargs)
        self.size = size
        self.image_mean = list(image_mean)
        self.image_std = list(image_std)
        self.as_published = as_published

    def to_dict(self) -> dict[str, Any]:
        """The fields, for saving."""
        return {
            "size": self.size,
            "image_mean": self.image_mean,
            "image_std": self.image_std,
            "as_published": self.as_published,
            "image_processor_type": type(self).__name__,
        }

    def __call__(  # pyright: ignore[reportIncompatibleMethodOverride]: frames, not files and options
        self, pixels: np.ndarray, still: bool = False
    ) -> torch.Tensor:
        """Resize and normalise.

        Args:
            pixels: uint8 ``(T, H, W, 3)`` RGB.
            still: a picture, not a frame of a video; the published model resizes the two differently.

        Returns:
            float32 ``(T, 3, size, size)``.
        """
        if self.as_published:
            return self.normalise(self.squash(pixels, still))
        return self._fit(pixels)

    def normalise(self, values: torch.Tensor) -> torch.Tensor:
        """``(T, 3, H, W)`` in [0, 255] to normalised float32."""
        mean = torch.tensor(self.image_mean).view(3, 1, 1)
        std = torch.tensor(self.image_std).view(3, 1, 1)
        return values.float().div(255.0).sub(mean).div(std)

    def _fit(self, pixels: np.ndarray) -> torch.Tensor:
        frames, height, width, _ = pixels.shape
        scale = self.size / max(height, width)
        new_height = min(self.size, max(1, round(height * scale)))
        new_width = min(self.size, max(1, round(width * scale)))
        top, left = (self.size - new_height) // 2, (self.size - new_width) // 2
        out = torch.zeros(frames, 3, self.size, self.size)
        for start, group in _groups(pixels):
            if (height, width) != (new_height, new_width):
                group = functional.interpolate(
                    group, size=(new_height, new_width), mode="bicubic", antialias=True, align_corners=False
                ).clamp_(0, 255)
            out[start : start + len(group), :, top : top + new_height, left : left + new_width] = self.normalise(group)
        return out

    def squash(self, pixels: np.ndarray, still: bool = False) -> torch.Tensor:
        """uint8 ``(T, 3, size, size)``: Pillow's bicubic for a still image; for video the decoder's bilinear scaler."""
        if still:
            from PIL import Image

            squashed = [
                np.asarray(Image.fromarray(frame).resize((self.size, self.size), Image.Resampling.BICUBIC))
                for frame in pixels
            ]
            return torch.from_numpy(np.stack(squashed)).permute(0, 3, 1, 2)
        size = (self.size, self.size)
        return torch.cat(
            [
                functional.interpolate(group, size=size, mode="bilinear", antialias=True, align_corners=False)
                .round_()
                .clamp_(0, 255)
                .byte()
                for _, group in _groups(pixels)
            ]
        )

    def crop_for_training(self, pixels: torch.Tensor, box: tuple[int, int, int, int]) -> torch.Tensor:
        """One box cut out of every frame of a squashed clip and resized to ``size`` again.

        Args:
            pixels: uint8 ``(T, 3, size, size)``.
            box: top, left, height, width in pixels.

        Returns:
            float32 ``(T, 3, size, size)`` in [0, 255], bicubic without antialias. Where ``as_published``, the overshoot
            of the bicubic wraps around in uint8, as it did in training; otherwise it is clamped.
        """
        top, left, height, width = box
        cut = pixels[:, :, top : top + height, left : left + width].float()
        cut = functional.interpolate(cut, size=(self.size, self.size), mode="bicubic", align_corners=False)
        if self.as_published:
            # Through int32: a direct cast of a negative float to uint8 is undefined.
            return cut.to(torch.int32).remainder(256).float()
        return cut.clamp_(0, 255)


def _groups(pixels: np.ndarray) -> Any:
    """Frames as float ``(n, 3, H, W)``, a few at a time, with the index of the first."""
    per_group = max(1, _GROUP_VALUES // int(np.prod(pixels.shape[1:])))
    for start in range(0, len(pixels), per_group):
        group = np.ascontiguousarray(pixels[start : start + per_group])
        yield start, torch.from_numpy(group).permute(0, 3, 1, 2).float()

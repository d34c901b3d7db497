"""Frames and words as LaViLa's models take them.

Notation: T frames, H W pixels, L text tokens.
Source: the released code's preprocessing; CLIP's and GPT-2's tokenizers.
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from torch.nn import functional
from transformers.image_processing_base import ImageProcessingMixin
from transformers.image_processing_utils import BaseImageProcessor

from ..imagebind.text_tokenizer import tokenise
from ..own_parts import OwnPartsProcessor

CLIP_MEAN = (108.3272985, 116.7460125, 104.09373615000001)
"""Of values in [0, 255]. The first is not CLIP's (122.771): a slip that every published model was trained with."""

CLIP_STD = (68.5005327, 66.6321579, 70.32316305)
IMAGENET_MEAN = (123.675, 116.28, 103.53)
"""Of the models that did not begin with CLIP."""

IMAGENET_STD = (58.395, 57.12, 57.375)

# Frames are resized in groups of at most so many float values, so that frames of 4K do not become gigabytes.
_GROUP_VALUES = 2**24


class LavilaImageProcessor(BaseImageProcessor):
    """Resizes, crops and normalises the frames of a clip.

    Attributes:
        size: height and width of the encoder's input, pixels.
        image_mean, image_std: of the three channels, for values in [0, 255].
        num_frames: T that the model was trained with.
    """

    model_input_names: ClassVar[list[str]] = ["pixel_values"]

    def __init__(
        self,
        size: int = 224,
        image_mean: Sequence[float] = CLIP_MEAN,
        image_std: Sequence[float] = CLIP_STD,
        num_frames: int = 4,
        **kwargs: Any,
    ) -> None:
        # Not BaseImageProcessor.__init__: its validation is for the library's own set of options, none of which apply.
        ImageProcessingMixin.__init__(self, **kwargs)
        self.size = size
        self.image_mean = list(image_mean)
        self.image_std = list(image_std)
        self.num_frames = num_frames

    def to_dict(self) -> dict[str, Any]:
        """The fields, for saving."""
        return {
            "size": self.size,
            "image_mean": self.image_mean,
            "image_std": self.image_std,
            "num_frames": self.num_frames,
            "image_processor_type": type(self).__name__,
        }

    def __call__(  # pyright: ignore[reportIncompatibleMethodOverride]: frames, not files and options
        self, pixels: np.ndarray | torch.Tensor
    ) -> torch.Tensor:
        """The middle of each frame, its shorter side resized to ``size``.

        Args:
            pixels: uint8 ``(T, H, W, 3)`` RGB.

        Returns:
            float32 ``(T, 3, size, size)``, normalised.
        """
        resized = self.resize(pixels)
        height, width = resized.shape[-2:]
        top, left = round((height - self.size) / 2), round((width - self.size) / 2)
        return self.normalise(resized[..., top : top + self.size, left : left + self.size])

    def views(self, pixels: np.ndarray | torch.Tensor, clips: int = 1, crops: int = 3) -> torch.Tensor:
        """Several views of a video, as classifiers are scored: clips one after the other, squares side by side.

        Args:
            pixels: uint8 ``(clips T, H, W, 3)`` RGB.
            clips: stretches of as many frames each.
            crops: 1: the middle; 3: left, middle and right, or top, middle and bottom.

        Returns:
            float32 ``(clips crops, T, 3, size, size)``, the crops of a clip one after the other.

        Raises:
            ValueError: for other numbers of crops, or frames that do not divide into clips.
        """
        if crops not in (1, 3) or clips < 1 or len(pixels) % clips:
            raise ValueError(f"{len(pixels)} frames make no {clips} clips with {crops} crops; crops are 1 or 3")
        resized = self.normalise(self.resize(pixels))
        room = [length - self.size for length in resized.shape[-2:]]
        middle = [math.ceil(r / 2) for r in room]
        along = 0 if room[0] > room[1] else 1
        boxes = []
        for offset in (0, middle[along], room[along]) if crops == 3 else (middle[along],):
            top, left = (offset, middle[1]) if along == 0 else (middle[0], offset)
            boxes.append(resized[..., top : top + self.size, left : left + self.size])
        return torch.stack(boxes).unflatten(1, (clips, -1)).transpose(0, 1).flatten(0, 1)

    def crop_for_training(
        self, pixels: np.ndarray | torch.Tensor, box: tuple[int, int, int, int], flip: bool = False
    ) -> torch.Tensor:
        """One box cut out of every frame and resized to ``size``.

        Args:
            pixels: uint8 ``(T, H, W, 3)`` RGB.
            box: top, left, height, width in pixels; see `random_box`.
            flip: mirror it.

        Returns:
            float32 ``(T, 3, size, size)``, normalised.
        """
        top, left, height, width = box
        frames = torch.as_tensor(pixels)[:, top : top + height, left : left + width].permute(0, 3, 1, 2)
        cut = functional.interpolate(frames.float(), size=(self.size, self.size), mode="bilinear", align_corners=False)
        return self.normalise(cut.flip(-1) if flip else cut)

    def resize(self, pixels: np.ndarray | torch.Tensor) -> torch.Tensor:
        """Frames whose shorter side is ``size``, bilinear without antialias, as published.

        Args:
            pixels: uint8 ``(T, H, W, 3)`` RGB.

        Returns:
            float32 ``(T, 3, h, w)`` in [0, 255].

        Raises:
            ValueError: for another shape.
        """
        frames = torch.as_tensor(pixels)
        if frames.ndim != 4 or frames.shape[-1] != 3 or not len(frames):
            raise ValueError(f"frames must be (T, H, W, 3) and at least one, found {tuple(frames.shape)}")
        height, width = frames.shape[1:3]
        long = int(self.size * max(height, width) / min(height, width))
        wanted = (self.size, long) if height <= width else (long, self.size)
        per_group = max(1, _GROUP_VALUES // frames[0].numel())
        resized = []
        for group in frames.split(per_group):
            group = group.permute(0, 3, 1, 2).float()
            if wanted != (height, width):
                group = functional.interpolate(group, size=wanted, mode="bilinear", align_corners=False)
            resized.append(group)
        return torch.cat(resized)

    def normalise(self, values: torch.Tensor) -> torch.Tensor:
        """``(..., 3, H, W)`` in [0, 255] to normalised float32."""
        mean, std = (torch.tensor(numbers).view(3, 1, 1) for numbers in (self.image_mean, self.image_std))
        return (values.float() - mean) / std


def random_box(
    height: int, width: int, generator: torch.Generator | None = None, scale: tuple[float, float] = (0.5, 1.0)
) -> tuple[int, int, int, int]:
    """A box for `LavilaImageProcessor.crop_for_training`: a share of the area, a ratio of 3/4 to 4/3.

    Args:
        height, width: of the frames, pixels.
        generator: of random numbers; None: the global one.
        scale: smallest and largest share.

    Returns:
        top, left, height, width.
    """

    def uniform(low: float, high: float) -> float:
        return low + (high - low) * float(torch.rand((), generator=generator))

    def whole(most: int) -> int:
        return int(torch.randint(0, most + 1, (), generator=generator))

    for _ in range(10):
        area = height * width * uniform(*scale)
        ratio = math.exp(uniform(math.log(3 / 4), math.log(4 / 3)))
        h, w = round(math.sqrt(area / ratio)), round(math.sqrt(area * ratio))
        if 0 < h <= height and 0 < w <= width:
            return whole(height - h), whole(width - w), h, w
    # Frames much longer than wide: the largest box of an allowed ratio, from the middle.
    ratio = min(max(width / height, 3 / 4), 4 / 3)
    h, w = min(height, round(width / ratio)), min(width, round(height * ratio))
    return (height - h) // 2, (width - w) // 2, h, w


_QUOTES = str.maketrans(
    dict.fromkeys("\u2018\u2019\u201a\u201b\u02bc", "'") | dict.fromkeys("\u201c\u201d\u201e\u201f", '"')
)
_LIGATURES = str.maketrans({"\ufb00": "ff", "\ufb01": "fi", "\ufb02": "fl", "\ufb03": "ffi", "\ufb04": "ffl"})


def repair(text: str) -> str:
    """A text with straight quotes, single letters instead of ligatures, normal width, and composed accents.

    What the published models' texts went through, apart from repairing wrongly decoded characters.
    """
    text = "".join(unicodedata.normalize("NFKC", c) if "\uff01" <= c <= "\uffee" else c for c in text)
    text = text.translate(_QUOTES).translate(_LIGATURES)
    text = "".join(c for c in text if unicodedata.category(c) != "Cc" or c in "\t\n\r\f")
    return unicodedata.normalize("NFC", text)


class LavilaProcessor(OwnPartsProcessor):
    """Clips and texts to what a dual encoder or a narrator takes, and a narrator's ids to sentences.

    Attributes:
        text_kind: of the tokenizer: ``"clip"``, ``"bert"`` or ``"gpt2"``.
        max_text_tokens: longest text, begin and end included.
    """

    own_parts: ClassVar[dict[str, type]] = {"image_processor": LavilaImageProcessor}

    def __init__(
        self,
        image_processor: LavilaImageProcessor,
        tokenizer: Any,
        text_kind: str = "clip",
        max_text_tokens: int = 77,
        **kwargs: Any,
    ) -> None:
        if text_kind not in ("clip", "bert", "gpt2"):
            raise ValueError(f"text_kind must be clip, bert or gpt2, found {text_kind!r}")
        super().__init__(image_processor, tokenizer)
        self.text_kind = text_kind
        self.max_text_tokens = max_text_tokens

    def clips(self, clips: Sequence[np.ndarray]) -> dict[str, torch.Tensor]:
        """Clips of as many frames each, for the space-time encoder.

        Args:
            clips: each uint8 ``(T, H, W, 3)`` RGB; sizes may differ from clip to clip.

        Returns:
            ``pixel_values``: float32 ``(B, T, 3, size, size)``.
        """
        return {"pixel_values": torch.stack([self.image_processor(pixels) for pixels in clips])}

    def texts(self, texts: Sequence[str], as_published: bool = False) -> dict[str, torch.Tensor]:
        """Texts for the model: of a dual encoder to be embedded, of a narrator to be learned or scored.

        Args:
            texts: B of them. Too long ones lose words before their end token.
            as_published: reproduce the published slips: CLIP's texts lose the end token instead, and a narrator's are
                padded with 0, an exclamation mark; all are padded to ``max_text_tokens``.

        Returns:
            ``input_ids``: int64 ``(B, L)``, padded on the right; for BERT also ``attention_mask``; for a narrator also
            ``labels``, -100 at padding (as published: 0, wherever an id is 0).
        """
        if self.text_kind == "clip":
            words = [repair(text).strip() for text in texts]
            most = self.max_text_tokens + as_published
            ids = tokenise(self.tokenizer, words, most)[:, : self.max_text_tokens]
            return {"input_ids": self._filled(ids) if as_published else ids}
        if self.text_kind == "bert":
            batch = self.tokenizer(
                list(texts),
                padding="max_length" if as_published else True,
                truncation=True,
                max_length=self.max_text_tokens,
                return_tensors="pt",
            )
            return {"input_ids": batch["input_ids"], "attention_mask": batch["attention_mask"]}
        begin, end = self.tokenizer.bos_token_id, self.tokenizer.eos_token_id
        rows = [
            [begin, *self.tokenizer(text, add_special_tokens=False)["input_ids"][: self.max_text_tokens - 2], end]
            for text in texts
        ]
        longest = max(map(len, rows), default=0)
        pad = 0 if as_published else end
        ids = torch.tensor([row + [pad] * (longest - len(row)) for row in rows], dtype=torch.long)
        if as_published:
            ids = self._filled(ids)
            return {"input_ids": ids, "labels": ids.clone()}
        real = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows], dtype=torch.bool)
        return {"input_ids": ids, "labels": ids.masked_fill(~real, -100)}

    def _filled(self, ids: torch.Tensor) -> torch.Tensor:
        return functional.pad(ids, (0, self.max_text_tokens - ids.shape[1]))

    def sentences(self, ids: torch.Tensor, as_published: bool = False) -> list[str]:
        """What a narrator said.

        Args:
            ids: int ``(B, L)``, the begin token first.
            as_published: a sentence without an end token loses its last token.
        """
        end = self.tokenizer.eos_token_id
        texts = []
        for row in ids.tolist():
            words = row[1:]
            if end in words:
                words = words[: words.index(end)]
            elif as_published:
                words = words[:-1]
            texts.append(self.tokenizer.decode(words, clean_up_tokenization_spaces=False))
        return texts if as_published else [text.strip() for text in texts]

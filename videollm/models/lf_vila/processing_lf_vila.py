"""Frames and paragraphs to the tensors of the LF-VILA models.

Notation: B samples, T frames, M sentences, L tokens of a sentence, H W pixels.
Source: the transforms and loaders that were released with Sun et al. 2022.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from torch.nn import functional
from transformers.feature_extraction_utils import BatchFeature
from transformers.image_processing_base import ImageProcessingMixin
from transformers.image_processing_utils import BaseImageProcessor
from transformers.processing_utils import ProcessorMixin

from ...clips import Frames
from ...errors import DataError

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

_SENTENCE_END = re.compile(r"(?<=[.!?…])[\"')\]]*\s+|\n+")
_GROUP_VALUES = 2**24
# Of the published transform: resized to 240 x 428, the middle 216 x 385 of it, resized to 192 x 320.
_RESIZED, _MIDDLE = (240 / 192, 428 / 320), (216 / 192, 385 / 320)


class LfVilaImageProcessor(BaseImageProcessor):
    """Resizes and normalises frames.

    Attributes:
        size: height and width of the encoder's input, pixels.
        image_mean, image_std: of the three channels, for values in [0, 1].
        as_published: squash frames to nearly 16:9, take the middle and squash it again. Otherwise the aspect ratio is
            kept: the frame fills as much of ``size`` as it can, centred, and the rest is the mean colour.
    """

    model_input_names: ClassVar[list[str]] = ["pixel_values"]

    def __init__(
        self,
        size: Sequence[int] = (192, 320),
        image_mean: Sequence[float] = IMAGENET_MEAN,
        image_std: Sequence[float] = IMAGENET_STD,
        as_published: bool = False,
        **kwargs: Any,
    ) -> None:
        # Not BaseImageProcessor.__init__: its validation is for the library's own set of options, none of which apply.
        ImageProcessingMixin.__init__(self, **kwargs)
        self.size = list(size)
        self.image_mean = list(image_mean)
        self.image_std = list(image_std)
        self.as_published = as_published

    def to_dict(self) -> dict[str, Any]:
        """The fields, for saving."""
        fields = {name: getattr(self, name) for name in ("size", "image_mean", "image_std", "as_published")}
        return {**fields, "image_processor_type": type(self).__name__}

    def __call__(self, pixels: np.ndarray) -> torch.Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        """uint8 ``(T, H, W, 3)`` RGB to float32 ``(T, 3, height, width)``, normalised."""
        frames, high, wide, _ = pixels.shape
        height, width = self.size
        mean, std = (torch.tensor(values).view(3, 1, 1) for values in (self.image_mean, self.image_std))
        fit = min(height / high, width / wide)
        inner = (min(height, max(1, round(high * fit))), min(width, max(1, round(wide * fit))))
        top, left = (height - inner[0]) // 2, (width - inner[1]) // 2
        out = torch.zeros(frames, 3, height, width)
        per_group = max(1, _GROUP_VALUES // max(high * wide * 3, 1))
        for start in range(0, frames, per_group):
            group = torch.from_numpy(np.ascontiguousarray(pixels[start : start + per_group]))
            group = group.permute(0, 3, 1, 2).float() / 255.0
            if self.as_published:
                out[start : start + len(group)] = (self._published(group) - mean) / std
                continue
            if (high, wide) != inner:
                group = functional.interpolate(group, inner, mode="bicubic", antialias=True).clamp_(0, 1)
            out[start : start + len(group), :, top : top + inner[0], left : left + inner[1]] = (group - mean) / std
        return out

    def squash(self, pixels: np.ndarray) -> torch.Tensor:
        """The same shape, whatever that of the frames is: bilinear, as published for boxes of them in training."""
        frames = torch.from_numpy(np.ascontiguousarray(pixels)).permute(0, 3, 1, 2).float() / 255.0
        mean, std = (torch.tensor(values).view(3, 1, 1) for values in (self.image_mean, self.image_std))
        return (functional.interpolate(frames, tuple(self.size), mode="bilinear") - mean) / std

    def _published(self, group: torch.Tensor) -> torch.Tensor:
        height, width = self.size
        resized = (round(_RESIZED[0] * height), round(_RESIZED[1] * width))
        middle = (round(_MIDDLE[0] * height), round(_MIDDLE[1] * width))
        top, left = (round((whole - part) / 2) for whole, part in zip(resized, middle, strict=True))
        group = functional.interpolate(group, resized, mode="bilinear")
        group = group[..., top : top + middle[0], left : left + middle[1]]
        return functional.interpolate(group, (height, width), mode="bilinear")


class LfVilaProcessor(ProcessorMixin):
    """Everything between frames, sentences and tensors.

    Attributes:
        max_sentences: of a paragraph that is read at once: as many as in training.
        max_sentence_tokens: every sentence is padded to it, because positions in a paragraph count in its multiples.
        num_frames: of a video in training.
    """

    def __init__(
        self,
        image_processor: LfVilaImageProcessor,
        tokenizer: Any,
        max_sentences: int = 4,
        max_sentence_tokens: int = 50,
        num_frames: int = 32,
    ) -> None:
        super().__init__(image_processor, tokenizer)
        self.max_sentences = max_sentences
        self.max_sentence_tokens = max_sentence_tokens
        self.num_frames = num_frames

    def __call__(  # pyright: ignore[reportIncompatibleMethodOverride]: frames and sentences, not files and options
        self,
        videos: Sequence[Frames | np.ndarray] = (),
        paragraphs: Sequence[Sequence[str]] = (),
    ) -> BatchFeature:
        """A batch as the models were trained on it: long sentences are cut, many are joined.

        `embed_video` and `embed_paragraph` take media and text of any length and cut nothing.

        Args:
            videos: frames, or uint8 ``(T, H, W, 3)``, as many in each video.
            paragraphs: the sentences of each.

        Returns:
            ``pixel_values`` float32 ``(B, T, 3, H, W)``; ``input_ids`` and ``attention_mask`` int64 ``(B, M, L)``, M of
            the longest paragraph; sentences that are missing or have no words are zeros in both.

        Raises:
            DataError: for videos with different numbers of frames, or a paragraph without words.
        """
        batch: dict[str, Any] = {}
        if videos:
            arrays = [video.pixels if isinstance(video, Frames) else video for video in videos]
            counts = sorted({len(array) for array in arrays})
            if len(counts) > 1 or not counts[0]:
                told = ", ".join(map(str, counts))
                raise DataError(
                    f"the videos of a batch need equally many frames, at least one, found {told}; sample "
                    f"{self.num_frames} of each"
                )
            batch["pixel_values"] = torch.stack([self.image_processor(array) for array in arrays])
        if paragraphs:
            batch |= self.encode_sentences([merge_sentences(sentences, self.max_sentences) for sentences in paragraphs])
        return BatchFeature(batch)

    def encode_sentences(self, paragraphs: Sequence[Sequence[str]]) -> dict[str, torch.Tensor]:
        """``input_ids`` and ``attention_mask``, int64 ``(B, M, L)``, of paragraphs as they are; sentences are cut at L.

        Raises:
            DataError: for a paragraph without words.
        """
        most = max(map(len, paragraphs), default=0)
        shape = (len(paragraphs), most, self.max_sentence_tokens)
        ids, mask = torch.zeros(shape, dtype=torch.int64), torch.zeros(shape, dtype=torch.int64)
        for row, sentences in enumerate(paragraphs):
            words = [place for place, sentence in enumerate(sentences) if sentence.strip()]
            if not words:
                raise DataError(f"paragraph {row + 1} has no words; leave it out")
            encoded = self.tokenizer(
                [sentences[place] for place in words], truncation=True, max_length=self.max_sentence_tokens
            )
            for place, tokens in zip(words, encoded["input_ids"], strict=True):
                ids[row, place, : len(tokens)] = torch.tensor(tokens)
                mask[row, place, : len(tokens)] = 1
        return {"input_ids": ids, "attention_mask": mask}

    def pieces(self, sentence: str) -> list[str]:
        """A sentence, cut between words where it has more than ``max_sentence_tokens`` tokens."""
        room = self.max_sentence_tokens - 2
        found = self.tokenizer(sentence, add_special_tokens=False, return_offsets_mapping=True)
        spans = found["offset_mapping"]
        if len(spans) <= room:
            return [sentence]
        cut, start = [], 0
        while len(spans) - start > room:
            end = start + room
            # Back to the beginning of a word, unless one word fills all of the piece.
            while end > start + 1 and spans[end][0] == spans[end - 1][1]:
                end -= 1
            end = end if end > start + 1 else start + room
            cut.append(sentence[spans[start][0] : spans[end - 1][1]])
            start = end
        return [*cut, sentence[spans[start][0] :]]

    def sections(self, pieces: Sequence[str]) -> list[list[str]]:
        """Consecutive sentences that can be read at once, joined as in training, with nothing cut.

        Args:
            pieces: sentences of at most ``max_sentence_tokens`` tokens each (see `pieces`).

        Returns:
            the fewest sections, each of at most ``max_sentences`` sentences.
        """
        lengths = [len(ids) for ids in self.tokenizer(list(pieces), add_special_tokens=False)["input_ids"]]
        room = self.max_sentence_tokens - 2
        done: list[list[str]] = []
        start, fits = 0, [pieces[0]]
        for end in range(2, len(pieces) + 1):
            joined = _merge(pieces[start:end], self.max_sentences)
            if all(sum(lengths[start + i] for i in group) <= room for group in joined):
                fits = [" ".join(pieces[start + i] for i in group) for group in joined]
                continue
            done.append(fits)
            start, fits = end - 1, [pieces[end - 1]]
        return [*done, fits]


def split_sentences(text: str) -> list[str]:
    """The sentences of a text: up to a full stop, question or exclamation mark before a space, or a line's end."""
    return [sentence.strip() for sentence in _SENTENCE_END.split(text) if sentence.strip()]


def merge_sentences(sentences: Sequence[str], most: int) -> list[str]:
    """Join neighbours until few enough are left: always the pair with the fewest characters, the first of several.

    Args:
        sentences: in order.
        most: how many may be left, at least 1.
    """
    return [" ".join(sentences[i] for i in group) for group in _merge(sentences, most)]


def _merge(sentences: Sequence[str], most: int) -> list[list[int]]:
    groups = [[i] for i in range(len(sentences))]
    sizes = [len(sentence) for sentence in sentences]
    while len(groups) > max(most, 1):
        pairs = [sizes[i] + sizes[i + 1] for i in range(len(sizes) - 1)]
        first = pairs.index(min(pairs))
        groups[first : first + 2] = [groups[first] + groups[first + 1]]
        sizes[first : first + 2] = [pairs[first] + 1]
    return groups


def spread_indices(frame_count: int, n: int) -> list[int]:
    """Frames spread over a whole video, the first and the last among them, as published for fine-tuning.

    Fewer frames than asked for are repeated.

    Raises:
        ValueError: frame_count or n below 1.
    """
    if frame_count < 1 or n < 1:
        raise ValueError(f"spread_indices needs frames and a count of at least 1, found {frame_count} and {n}")
    return np.linspace(0, frame_count - 1, n).astype(int).tolist()


def spread_over_clips(clip_frames: Sequence[int], n: int) -> list[list[int]]:
    """`spread_indices` over clips behind each other: for each clip, its own frames (the loader's other mode)."""
    ends = np.cumsum(clip_frames)
    chosen = np.array(spread_indices(int(ends[-1]), n))
    owner = np.searchsorted(ends, chosen, side="right")
    starts = ends - np.array(clip_frames)
    return [(chosen[owner == clip] - starts[clip]).tolist() for clip in range(len(clip_frames))]


def clip_positions(clip_frames: Sequence[int], n: int) -> list[list[float]]:
    """Places in each of several clips, as published for pretraining: its share of n, from its start, the end excluded.

    Args:
        clip_frames: length of each clip, frames.
        n: frames of all clips together.

    Returns:
        for each clip ``n / clips`` places, in frames; the frame at a place is its whole part, so that a clip with too
        few frames repeats some.
    """
    each = n // len(clip_frames)
    return [[length * k / each for k in range(each)] for length in clip_frames]


def span_labels(
    span_seconds: tuple[float, float] | None, duration_seconds: float, n: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Which of n frames, spread over a video, show a span; and the weight of each, so that both kinds count alike.

    Args:
        span_seconds: its start and end; None where it is not known: all frames.
        duration_seconds: of the video. The published loader took a third of its number of frames.
        n: frames.

    Returns:
        int64 ``(n,)``, at least one of them 1; float32 ``(n,)``: n / 2 / how many frames are of the same kind.
    """
    labels = torch.zeros(n, dtype=torch.int64)
    if span_seconds is None or any(math.isnan(second) for second in span_seconds):
        labels[:] = 1
    else:
        start, end = (round(second / duration_seconds * n) for second in span_seconds)
        start = min(max(start, 0), n - 1)
        labels[start : max(min(end, n), start + 1)] = 1
    count = torch.stack([n - labels.sum(), labels.sum()]).clamp(min=1)
    return labels, (n / 2 / count)[labels].float()

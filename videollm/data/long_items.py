"""Long videos and their text to what LF-VILA learns from: `LongItems` makes what one sample is, `CollateLong` batches.

An *item* is a dictionary of what the stage learns from: ``pixel_values`` float ``(T, 3, H, W)``; ``sentences``, a
paragraph, or for each choice of an answer one (``choices``); ``labels``, the number of an answer; ``span_labels`` and
``span_weights`` ``(T,)``; and ``position``, its number in the run, from which is drawn what is random in the batch.

Notation: B items, T frames, M sentences, L tokens of a sentence.
Source: Sun et al. 2022, sections 3 and 4; the released loaders.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from random import Random
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset as TorchDataset

from videollm.clips import Frames
from videollm.data.collate import TRAINING_LIMITS, open_media
from videollm.data.long_form import SUBTITLES, LongForm, LongFormAnnotations, consecutive, question_sentences
from videollm.data.mixture import Mixture
from videollm.data.sample import Media
from videollm.errors import DataError, UnusableSampleError
from videollm.media.sampling import FrameSampling
from videollm.models.lf_vila import LfVilaImageProcessor, LfVilaProcessor
from videollm.models.lf_vila.losses import mask_words
from videollm.models.lf_vila.processing_lf_vila import merge_sentences, span_labels, spread_indices

Item = dict[str, Any]


class LongItems(TorchDataset[Item]):
    """Samples as a stage learns them: item k is the k-th of the run, whoever asks for it, in whatever order.

    What is random in an item is drawn from (seed, k): the first clip, the frames, the box, the mirror.

    Args:
        stage: of `videollm.training.recipe.LfVilaRecipe`.
        images: of the model.
        frames: T.
        clips: stage1 and stage2: consecutive clips of a video, each with a sentence.
        seed: of what is random.
        count: how many items there are.
        augment: a random box of the frames, half of them mirrored; frames shifted at random where they are spread.
        answers: how many answers or classes there are; None: the sample says it.
    """

    def __init__(self, stage: str, images: LfVilaImageProcessor, frames: int, clips: int, seed: int, count: int, *,
                 augment: bool = False, answers: int | None = None) -> None:  # fmt: skip
        self.stage, self.images, self.frames, self.clips = stage, images, frames, clips
        self.seed, self.count, self.augment, self.answers = seed, count, augment, answers

    def __len__(self) -> int:
        return self.count

    def draw(self, position: int) -> np.random.Generator:
        """Of what is random in an item."""
        return np.random.default_rng([self.seed, 606, position])

    def made(self, given: Mapping[str, Any], position: int, draw: np.random.Generator) -> Item:
        """An item of what is given of a sample.

        Args:
            given: ``pixels`` uint8 ``(T, H, W, 3)``, of all clips one after the other, or finished ``pixel_values``;
                and what else the stage's item has.
            position: of the item.
            draw: of what is random.
        """
        item = {key: value for key, value in given.items() if key != "pixels"}
        if "pixels" in given:
            if self.augment:
                item["pixel_values"] = self.images.squash(_boxed(given["pixels"], draw))
            else:
                item["pixel_values"] = self.images(given["pixels"])
        return {**item, "position": position}


class MixtureLongItems(LongItems):
    """The items of datasets; a sample that cannot be used is entered in the mixture's ledger and replaced.

    Args:
        mixture: of `videollm.data.datasets.open_mixture`.
        arguments: of `LongItems`.
    """

    def __init__(self, mixture: Mixture, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.mixture = mixture

    def __getitem__(self, position: int) -> Item:
        """Raises: DataError, where the ledger's limit is passed, or a dataset has nothing usable."""
        source: Any = self.mixture.sources[self.mixture.place(position).source]

        def make(sample: Any) -> Item:
            draw = self.draw(position)
            return self.made(self._given(sample, source, draw), position, draw)

        return self.mixture.take(position, make)

    def _given(self, sample: LongForm, source: LongFormAnnotations, draw: np.random.Generator) -> Item:
        if self.stage in ("stage1", "stage2"):
            part = consecutive(sample, self.clips, Random(int(draw.integers(2**62))))
            each = self.frames // self.clips
            pixels = [self._frames(clip, FrameSampling("uniform", frames=each), draw)[0] for clip in part.clips]
            return {"pixels": _of_one_size(pixels, sample), "sentences": part.sentences}
        pixels, seconds = self._frames(sample.clips[0], FrameSampling("spread", frames=self.frames), draw)
        if self.stage == "retrieval":
            if not sample.sentences:
                raise _lacks(sample, "a paragraph")
            return {"pixels": pixels, "sentences": sample.sentences}
        if sample.answer is None:
            raise _lacks(sample, "the number of its answer")
        if self.answers is not None and sample.answer >= self.answers:
            raise UnusableSampleError(
                "bad annotation", f"{sample.id}: its answer is {sample.answer}, the model has {self.answers}"
            )
        given: Item = {"pixels": pixels, "labels": sample.answer}
        subtitles = SUBTITLES.get(source.format, 0)
        if self.stage == "question_answering":
            if not sample.question:
                raise _lacks(sample, "a question")
            return {**given, "sentences": question_sentences(sample, None, subtitles)}
        if self.stage == "multiple_choice":
            if not sample.choices:
                raise _lacks(sample, "choices")
            paragraphs = [question_sentences(sample, choice, subtitles) for choice in range(len(sample.choices))]
            told, weights = span_labels(sample.span_seconds, seconds, self.frames)
            return {**given, "choices": paragraphs, "span_labels": told, "span_weights": weights}
        return given

    def _frames(self, media: Media, sampling: FrameSampling, draw: np.random.Generator) -> tuple[np.ndarray, float]:
        """uint8 ``(T, H, W, 3)``, of a clip with too few frames some more than once; and how long it is, in seconds."""
        if self.augment and sampling.strategy == "spread":
            sampling = replace(sampling, strategy="shifted", seed=int(draw.integers(2**31)))
        clip = open_media(media, sampling, None, TRAINING_LIMITS)
        if clip.frames is None:
            raise UnusableSampleError("nothing to show", f"{media.path} has no pictures; leave it out")
        frames: Frames = clip.frames
        seconds = max(frames.duration_seconds, 1e-3)
        have, want = len(frames.pixels), sampling.frames
        if have == want:
            return frames.pixels, seconds
        uniform = sampling.strategy == "uniform"
        chosen = [have * k // want for k in range(want)] if uniform else spread_indices(have, want)
        return frames.pixels[chosen], seconds


class GivenLongItems(LongItems):
    """The items of a dataset that a program hands over.

    Args:
        given: by position what `LongItems.made` takes.
        arguments: of `LongItems`.
    """

    def __init__(self, given: Any, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.given = given

    def __getitem__(self, position: int) -> Item:
        return self.made(self.given[position], position, self.draw(position))


def _lacks(sample: LongForm, what: str) -> UnusableSampleError:
    return UnusableSampleError("bad annotation", f"{sample.id} has not {what}, which this stage learns from")


def _of_one_size(clips: Sequence[np.ndarray], sample: LongForm) -> np.ndarray:
    sizes = {clip.shape[1:] for clip in clips}
    if len(sizes) > 1:
        raise UnusableSampleError("bad annotation", f"{sample.id}: its clips are of {len(sizes)} sizes; leave it out")
    return np.concatenate(clips)


def _boxed(pixels: np.ndarray, draw: np.random.Generator) -> np.ndarray:
    """A random box of all frames, of 0.8 of the area or more and 3:4 to 4:3; half of them mirrored.

    Source: torchvision's ``RandomResizedCrop(scale=(0.8, 1))`` and its mirror, which the published loaders use.
    """
    height, width = pixels.shape[1:3]
    box = (0, 0, height, width)
    for _ in range(10):
        area = height * width * draw.uniform(0.8, 1.0)
        ratio = np.exp(draw.uniform(np.log(3 / 4), np.log(4 / 3)))
        wide, high = round(float(np.sqrt(area * ratio))), round(float(np.sqrt(area / ratio)))
        if 0 < wide <= width and 0 < high <= height:
            box = (int(draw.integers(height - high + 1)), int(draw.integers(width - wide + 1)), high, wide)
            break
    else:  # no such box fits: the largest in the middle
        wide, high = min(width, round(height * 4 / 3)), min(height, round(width * 4 / 3))
        box = ((height - high) // 2, (width - wide) // 2, high, wide)
    top, left, high, wide = box
    cut = pixels[:, top : top + high, left : left + wide]
    return np.ascontiguousarray(cut[:, :, ::-1] if draw.random() < 0.5 else cut)


class CollateLong:
    """Items to a batch, as the forward pass of the stage's model takes it.

    ``input_ids`` and ``attention_mask`` int64 ``(B, M, L)``, of choices ``(B, choices, M, L)``; the rest stacked.

    Args:
        processor: of the model; only of images: there are no words.
        sentences: a paragraph has at most so many: more are joined.
        whole: give all paragraphs of all batches so many, missing ones without words, as published.
        masked_share: hide so many of the words, and give their ids as ``labels``; 0: none.
        seed: of the words that are hidden.
    """

    def __init__(self, processor: LfVilaProcessor | LfVilaImageProcessor, sentences: int, *, whole: bool = False,
                 masked_share: float = 0.0, seed: int = 0) -> None:  # fmt: skip
        self.processor: Any = processor
        self.sentences, self.whole = sentences, whole
        self.masked_share, self.seed = masked_share, seed

    def __call__(self, items: Sequence[Item]) -> dict[str, torch.Tensor]:
        batch = {
            key: torch.stack([torch.as_tensor(item[key]) for item in items])
            for key in items[0]
            if key not in ("sentences", "choices")
        }
        if "choices" in items[0]:
            counts = {len(item["choices"]) for item in items}
            if len(counts) > 1:
                raise DataError(f"questions need as many choices each, found {sorted(counts)}; leave some out")
            words = self._words([paragraph for item in items for paragraph in item["choices"]])
            batch |= {key: value.unflatten(0, (len(items), -1)) for key, value in words.items()}
        elif "sentences" in items[0]:
            batch |= self._words([item["sentences"] for item in items])
        if self.masked_share:
            # Each sample by its own position, so that it does not depend on who else is in the batch.
            rows = [self._masked(*row) for row in zip(batch["input_ids"], batch["position"].tolist(), strict=True)]
            batch["input_ids"], batch["labels"] = (torch.stack(part) for part in zip(*rows, strict=True))
        return batch

    def _masked(self, input_ids: torch.Tensor, position: int) -> tuple[torch.Tensor, torch.Tensor]:
        words = self.processor.tokenizer
        draw = torch.Generator().manual_seed(self.seed * 1_000_003 + position)
        special = torch.tensor(words.all_special_ids)
        return mask_words(input_ids, special, words.mask_token_id, len(words), self.masked_share, draw)

    def _words(self, paragraphs: Sequence[Sequence[str]]) -> dict[str, torch.Tensor]:
        joined = [merge_sentences(sentences, self.sentences) for sentences in paragraphs]
        if self.whole:
            joined = [[*sentences, *([""] * (self.sentences - len(sentences)))] for sentences in joined]
        return self.processor.encode_sentences(joined)

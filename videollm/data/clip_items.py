"""Clips and texts to what LaViLa's models learn from: `ClipItems` makes what one sample is, `CollateClips` batches.

An *item* is a dictionary of what the sample has: ``pixel_values`` float ``(T, 3, H, W)``, ``text``, ``sentence`` (what
a rephraser is asked), ``labels`` int64 ``(heads,)``, ``is_human`` and ``source``, the number of the dataset.

Notation: B items, T frames, L text tokens.
Source: Zhao et al., "LaViLa" (2022), section 4 and appendix; its released loaders.
"""

from __future__ import annotations

import hashlib
import operator
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset as TorchDataset

from videollm.data.collate import TRAINING_LIMITS, open_media
from videollm.data.datasets import ClipTexts
from videollm.data.mixture import Mixture
from videollm.data.sample import Media, Sample
from videollm.errors import ConfigError, UnusableSampleError
from videollm.media.sampling import FrameSampling, segment_centre_indices
from videollm.media.write import atomic
from videollm.messages import MediaPart
from videollm.models.lavila import LavilaImageProcessor
from videollm.models.lavila.processing_lavila import random_box

Item = dict[str, Any]


class ClipFrames:
    """The frames of a clip, decoded in a process with limits: the middle one of each of equal segments.

    Args:
        frames: T.
        random: a random frame of each segment instead, as published for training.
        kept: folder in which decoded frames are kept, so that each stretch is decoded once; they are then the same at
            every visit.
        shorter_px: the shorter side of kept frames, about; smaller ones are kept as they are.
    """

    def __init__(self, frames: int, random: bool = False, kept: str | None = None, shorter_px: int = 256) -> None:
        self.frames, self.random, self.shorter_px = frames, random, shorter_px
        self.kept = None if kept is None else Path(kept)
        if self.kept is not None:
            try:
                self.kept.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise ConfigError(f"kept_frames: cannot make {kept}: {error.strerror}; name another folder") from None

    def __call__(self, media: Media, draw: np.random.Generator) -> np.ndarray:
        """uint8 ``(T, H, W, 3)`` RGB; of a clip with fewer frames some come more than once.

        Raises:
            UnusableSampleError: why it cannot be had.
        """
        if self.kept is None:
            return self._decoded(media, int(draw.integers(2**31)) if self.random else None)
        path = self.kept / f"{self._name_of(media)}.npy"
        try:
            return np.load(path, allow_pickle=False)
        except FileNotFoundError:
            frames = np.ascontiguousarray(self._smaller(self._decoded(media, None)))
            with atomic(path) as temporary, temporary.open("wb") as file:
                np.save(file, frames, allow_pickle=False)
            return frames
        except ValueError as error:
            raise ConfigError(f"{path} holds no frames ({error}); delete it, and it is made again") from None

    def _decoded(self, media: Media, seed: int | None) -> np.ndarray:
        sampling = FrameSampling("centre", frames=self.frames)
        if seed is not None:
            sampling = replace(sampling, strategy="segment", seed=seed)
        clip = open_media(media, sampling, None, TRAINING_LIMITS)
        if clip.frames is None:
            raise UnusableSampleError("nothing to show", f"{media.path} has no pictures; leave it out")
        pixels = clip.frames.pixels
        return pixels if len(pixels) == self.frames else pixels[segment_centre_indices(len(pixels), self.frames)]

    def _smaller(self, frames: np.ndarray) -> np.ndarray:
        """Every n-th pixel's mean, so that little is kept of large frames."""
        step = max(1, min(frames.shape[1:3]) // self.shorter_px)
        if step == 1:
            return frames
        high, wide = (side // step * step for side in frames.shape[1:3])
        blocks = frames[:, :high, :wide].reshape(len(frames), high // step, step, wide // step, step, 3)
        return blocks.mean((2, 4)).round().astype(np.uint8)

    def _name_of(self, media: Media) -> str:
        try:
            status = os.stat(media.path)
            file = [os.path.abspath(media.path), status.st_size, status.st_mtime_ns]
        except OSError:
            file = [media.path]
        told = repr([*file, media.start_seconds, media.end_seconds, self.frames, self.shorter_px])
        return hashlib.sha256(told.encode()).hexdigest()[:32]


class ClipItems(TorchDataset[Item]):
    """Samples as LaViLa's models learn them: item k is the k-th of the run, whoever asks for it, in whatever order.

    What is random in an item is drawn from (seed, k): which of several texts, the frames, the box, the mirror.

    Args:
        learns: "texts" of clips; "sentences": of sentences, without clips; "classes" of clips.
        seed: of what is random.
        count: how many items there are.
        augment: a random box of the frames.
        flip: mirror half of the clips.
        classes: how many there are for each head.
    """

    def __init__(self, learns: str, images: LavilaImageProcessor | None, seed: int, count: int, *,
                 augment: bool = False, flip: bool = False, classes: Sequence[int] = ()) -> None:  # fmt: skip
        self.learns, self.images, self.seed, self.count = learns, images, seed, count
        self.augment, self.flip, self.classes = augment, flip, tuple(classes)

    def __len__(self) -> int:
        return self.count

    def draw(self, position: int) -> np.random.Generator:
        """Of what is random in an item."""
        return np.random.default_rng([self.seed, 505, position])

    def made(self, given: Mapping[str, Any], draw: np.random.Generator) -> Item:
        """An item of what is given of a sample.

        Args:
            given: ``texts``, of which one is drawn; ``pixels`` uint8 ``(T, H, W, 3)``, or finished ``pixel_values``;
                ``sentence``; ``labels``; ``is_human``, true if it is not there. `ClipTexts` tells what they are.
            draw: of what is random.
        """
        item: Item = {"is_human": bool(given.get("is_human", True))}
        if self.learns == "classes":
            item["labels"] = torch.as_tensor(given["labels"], dtype=torch.int64).reshape(len(self.classes))
        else:
            texts: Sequence[str] = given["texts"]
            item["text"] = texts[int(draw.integers(len(texts)))] if len(texts) > 1 else texts[0]
        if self.learns == "sentences":
            return {**item, "sentence": given["sentence"]}
        if "pixel_values" in given:
            return {**item, "pixel_values": given["pixel_values"]}
        assert self.images is not None
        pixels = given["pixels"]
        flip = self.flip and bool(draw.random() < 0.5)
        if self.augment:
            height, width = pixels.shape[1:3]
            box = random_box(height, width, torch.Generator().manual_seed(int(draw.integers(2**62))))
            return {**item, "pixel_values": self.images.crop_for_training(pixels, box, flip)}
        values = self.images(pixels)
        return {**item, "pixel_values": values.flip(-1) if flip else values}


class MixtureItems(ClipItems):
    """The items of datasets; a sample that cannot be used is entered in the mixture's ledger and replaced.

    Args:
        mixture: of `videollm.data.datasets.open_mixture`.
        datasets: those that it was made of.
        frames: how frames are had; None: there are no clips.
        arguments: of `ClipItems`.
    """

    def __init__(self, mixture: Mixture, datasets: Sequence[ClipTexts], frames: ClipFrames | None, *args: Any,
                 **arguments: Any) -> None:  # fmt: skip
        super().__init__(*args, **arguments)
        self.mixture, self.datasets, self.frames = mixture, tuple(datasets), frames

    def __getitem__(self, position: int) -> Item:
        """Raises: DataError, where the ledger's limit is passed, or a dataset has nothing usable."""
        source = self.mixture.place(position).source
        pseudo = self.datasets[source].pseudo
        item = self.mixture.take(position, lambda sample: self._item(sample, pseudo, self.draw(position)))
        return {**item, "source": source}

    def _item(self, sample: Sample, pseudo: bool, draw: np.random.Generator) -> Item:
        given: Item = {"texts": texts_of(sample), "is_human": not pseudo}
        if self.learns == "sentences":
            given["sentence"] = sentence_of(sample)
        else:
            if self.learns == "classes":
                given["labels"] = labels_of(sample, self.classes)
            assert self.frames is not None
            given["pixels"] = self.frames(clip_of(sample), draw)
        return self.made(given, draw)


class GivenItems(ClipItems):
    """The items of a dataset that a program hands over, finite, and gone through again and again.

    Args:
        given: by position what `ClipItems.made` takes.
        arguments: of `ClipItems`.
    """

    def __init__(self, given: Any, *args: Any, **arguments: Any) -> None:
        super().__init__(*args, **arguments)
        self.given = given

    def __getitem__(self, position: int) -> Item:
        return {**self.made(self.given[position], self.draw(position)), "source": 0}


def clip_of(sample: Sample) -> Media:
    """The only clip of a sample.

    Raises:
        UnusableSampleError: there is another number of them.
    """
    shown = {part.clip for message in sample.messages for part in message.parts if isinstance(part, MediaPart)}
    if len(shown) != 1:
        raise UnusableSampleError("nothing to show", f"sample {sample.id!r} shows {len(shown)} clips; show one")
    return sample.media[shown.pop()]


def texts_of(sample: Sample) -> tuple[str, ...]:
    """What the assistant says, each message a text of its own.

    Raises:
        UnusableSampleError: there are no words.
    """
    said = (message.text.strip() for message in sample.messages if message.role == "assistant")
    texts = tuple(text for text in said if text)
    if not texts:
        raise UnusableSampleError("empty caption", f"sample {sample.id!r}: the assistant says nothing; add its words")
    return texts


def sentence_of(sample: Sample) -> str:
    """What the user says.

    Raises:
        UnusableSampleError: there are no words.
    """
    sentence = " ".join(message.text.strip() for message in sample.messages if message.role == "user").strip()
    if not sentence:
        raise UnusableSampleError("no target", f"sample {sample.id!r}: the user says nothing; add the sentence")
    return sentence


def labels_of(sample: Sample, classes: Sequence[int]) -> list[int]:
    """The numbers of classes that the assistant says.

    Raises:
        UnusableSampleError: it says something else.
    """
    words = texts_of(sample)[0].split()
    labels = [int(word) for word in words if word.isdecimal() and len(word) < 10]
    if len(labels) != len(words) or len(labels) != len(classes) or any(map(operator.ge, labels, classes)):
        below = ", ".join(map(str, classes))
        raise UnusableSampleError(
            "bad annotation", f"sample {sample.id!r}: the assistant must say numbers below {below}, found {words[:5]}"
        )
    return labels


class CollateClips:
    """Items to a batch: ``pixel_values``, ``is_human``, ``source``, ``labels`` stacked; texts by ``words``.

    Args:
        words: a batch's texts, and its sentences where it has any, to tensors of the model.
    """

    def __init__(self, words: Callable[[Sequence[str], Sequence[str]], Mapping[str, torch.Tensor]] | None) -> None:
        self.words = words

    def __call__(self, items: Sequence[Item]) -> dict[str, torch.Tensor]:
        batch = {
            key: torch.stack([torch.as_tensor(item[key]) for item in items])
            for key in items[0]
            if key not in ("text", "sentence")
        }
        if self.words is not None:
            texts = [item["text"] for item in items]
            batch |= self.words(texts, [item["sentence"] for item in items if "sentence" in item])
        return batch

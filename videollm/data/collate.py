"""Samples to tensors: `TrainingItems` makes what one sample is to the model, `Collate` makes batches of them.

An *item* is a dictionary: ``input_ids`` and ``labels`` int64 ``(L,)``; ``videos`` and ``sounds``, the clips and sounds
that it shows, in order, each as (values, seconds); and whatever else is to be stacked, such as ``source``. The values
of a video are pixels float ``(T, 3, H, W)``, or kept encoder states ``(T, Q, D)``; those of a sound are mel images
``(S, 1, F, W)``, or kept states ``(S, D)``.

Notation: B items, N clips in the whole batch, T frames, S segments of sound, Q queries, L tokens.
"""

from __future__ import annotations

import operator
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import Dataset as TorchDataset

from videollm.clips import Clip, Frames, Waveform
from videollm.data.datasets import Dataset
from videollm.data.mixture import Mixture
from videollm.data.ranges import shown as shown_address
from videollm.data.sample import Media, Sample, Source
from videollm.data.shards import ShardSamples, fetched
from videollm.errors import (
    ConfigError,
    DataError,
    MediaError,
    MediaLimitError,
    MediaNotFoundError,
    MediaStretchError,
    UnusableReason,
    UnusableSampleError,
)
from videollm.media.decode_worker import open_clip
from videollm.media.sampling import FrameSampling, SoundSampling
from videollm.media.source import Limits
from videollm.messages import MediaPart, Message
from videollm.models.video_llama.processing_video_llama import IGNORED, VideoLlamaProcessor

Tensors = tuple[torch.Tensor, torch.Tensor]
"""Values and their seconds."""
Item = dict[str, Any]

LENGTH_STEP_TOKENS = 16
"""Batches are padded to a multiple: the CPU's matrix library keeps a kernel, and its memory, for every new length."""

TRAINING_LIMITS = Limits(wall_seconds=300.0)
"""Of one media file. The clock is generous, so that what is skipped does not depend on how busy the machine is; the
processor time is not."""


# --- media ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Look:
    """How a sample shows a media file.

    Attributes:
        seen, heard: whether its pictures, and whether its sound are shown.
        for_caption: a caption of it is learned, for which the published loaders chose frames at random.
    """

    seen: bool
    heard: bool
    for_caption: bool = False


@dataclass(frozen=True)
class Shown:
    """A media file as a sample shows it.

    Attributes:
        clip: what the processor needs to word it: its pixels and samples may be stand-ins, its seconds are not.
        video, sound: as in an item; None where there is nothing to see, or to hear.
    """

    clip: Clip
    video: Tensors | None
    sound: Tensors | None


class MediaTensors(Protocol):
    """Where the tensors of media come from: `FileMedia`, or kept encoder states."""

    def __call__(self, media: Media, look: Look, draw: np.random.Generator) -> Shown:
        """The tensors of a media file; ``draw`` is for what is random in them.

        Raises:
            UnusableSampleError: why it cannot be used.
        """
        ...

    def preview(self, media: Media, look: Look) -> Clip:
        """A clip with stand-ins for pixels and samples, without decoding; its seconds may be a guess."""
        ...


class FileMedia:
    """Media files decoded in a process with limits, then turned into tensors.

    Not in the loader's own process, though that would save some 35 ms of processor time a clip
    (`scripts/bench/training_media.py`): a file that crashes or hangs a decoder would end the run, at every attempt.

    Args:
        processor: of the model.
        random: as published for training: frames of captioned videos are chosen at random, half of them from each
            half (where the model is shown a number of frames, not so many a second), and of all pictures a random box
            of half or more is shown. Otherwise as in a chat, the same each time.
        limits: what a file may cost.
    """

    def __init__(self, processor: VideoLlamaProcessor, random: bool = False, limits: Limits = TRAINING_LIMITS) -> None:
        self.processor, self.random, self.limits = processor, random, limits
        self._frames = FrameSampling(**processor.frame_sampling)
        self._sound = SoundSampling(**processor.sound_sampling)

    def __call__(self, media: Media, look: Look, draw: np.random.Generator) -> Shown:
        frames = self._frames
        if self.random and look.for_caption and frames.strategy == "uniform":
            frames = replace(frames, strategy="headtail", seed=int(draw.integers(2**31)))
        clip = open_media(media, frames if look.seen else None, self._sound if look.heard else None, self.limits)
        video = sound = None
        if look.seen and clip.frames is not None:
            video = self._cropped(clip.frames, draw) if self.random else self.processor.process_frames(clip.frames)
        if look.heard and clip.waveforms is not None:
            sound = self.processor.process_sound(clip.waveforms, clip.windows_seconds)
        return Shown(clip, video, sound)

    def _cropped(self, frames: Frames, draw: np.random.Generator) -> Tensors:
        """A random box of all frames; squashed first where the model was trained so, except for pictures."""
        eye = self.processor.image_processor
        seconds = torch.from_numpy(frames.seconds).float()
        still = len(frames) == 1 and frames.duration_seconds == 0
        height, width = frames.pixels.shape[1:3]
        if eye.as_published and not still:
            squashed = eye.squash(frames.pixels)
            box = random_box(eye.size, eye.size, draw)
            return eye.normalise(eye.crop_for_training(squashed, box)), seconds
        top, left, box_height, box_width = random_box(height, width, draw)
        cut = frames.pixels[:, top : top + box_height, left : left + box_width]
        return eye(cut, still=still), seconds

    def preview(self, media: Media, look: Look) -> Clip:
        frames = None
        if look.seen:
            count = self._frames.max_frames if self._frames.strategy == "rate" else self._frames.frames
            frames = stand_in_frames(np.arange(count, dtype=np.float64), float(count))
        return stand_in_clip(frames, look.heard)


def open_media(media: Media, frames: FrameSampling | None, sound: SoundSampling | None, limits: Limits) -> Clip:
    """A media file of a sample, decoded in a process with limits.

    Raises:
        UnusableSampleError: why it cannot be.
    """
    try:
        if not media.is_url:
            return _open(media, media.path, frames, sound, limits)
        with tempfile.TemporaryDirectory() as folder:
            name = Path(shown_address(media.path)).name[-100:]
            return _open(media, fetched(media, Path(folder) / "fetched"), frames, sound, limits, name)
    except MediaError as error:
        raise UnusableSampleError(_reason(error), str(error)) from None
    except UnusableSampleError:
        raise
    except DataError as error:
        raise UnusableSampleError("missing media", str(error)) from None


def _open(media: Media, path: str | Path, frames: Any, sound: Any, limits: Limits, name: str | None = None) -> Clip:
    return open_clip(
        path, frames=frames, sound=sound, limits=limits, name=name,
        start_seconds=media.start_seconds, end_seconds=media.end_seconds,
    )  # fmt: skip


def _reason(error: MediaError) -> UnusableReason:
    if isinstance(error, MediaNotFoundError):
        return "missing media"
    if isinstance(error, MediaLimitError):
        return "media over a limit"
    return "wrong stretch" if isinstance(error, MediaStretchError) else "broken media"


def stand_in_frames(seconds: np.ndarray, duration_seconds: float) -> Frames:
    """Frames of one pixel."""
    return Frames(np.zeros((len(seconds), 1, 1, 3), np.uint8), seconds.astype(np.float64), duration_seconds)


def stand_in_clip(frames: Frames | None, heard: bool, kind: str = "video") -> Clip:
    """A clip that the processor words as the real one."""
    waves = (Waveform(np.zeros((1, 1), np.float32), 16000),) if heard else None
    return Clip("", kind, "", 0.0, frames, waves, ((0.0, 1.0),) if heard else ())


def random_box(height: int, width: int, draw: np.random.Generator) -> tuple[int, int, int, int]:
    """(top, left, height, width) of a box of half of the area or more, 3:4 to 4:3, as published for training.

    Source: torchvision's ``RandomResizedCrop(scale=(0.5, 1))``, which the published loaders use.
    """
    for _ in range(10):
        area = height * width * draw.uniform(0.5, 1.0)
        ratio = np.exp(draw.uniform(np.log(3 / 4), np.log(4 / 3)))
        box_width, box_height = round(float(np.sqrt(area * ratio))), round(float(np.sqrt(area / ratio)))
        if 0 < box_width <= width and 0 < box_height <= height:
            top, left = draw.integers(height - box_height + 1), draw.integers(width - box_width + 1)
            return int(top), int(left), box_height, box_width
    # No such box fits: the largest in the middle.
    box_width = min(width, round(height * 4 / 3))
    box_height = min(height, round(width * 4 / 3))
    return (height - box_height) // 2, (width - box_width) // 2, box_height, box_width


# --- items ------------------------------------------------------------------------------------------------------------


class TrainingItems(TorchDataset[Item]):
    """Samples of a mixture as tensors: item k is the k-th sample, whoever asks for it, in whatever order.

    What is random in an item is drawn from (seed of the mixture, k). A sample that cannot be used, for whatever reason,
    is entered in the mixture's ledger and replaced by the next of its dataset.

    An item has ``input_ids``, ``labels``, ``videos``, ``sounds`` and ``source``, the number of its dataset.

    Args:
        mixture: of `open_mixture`.
        datasets: those that it was made of.
        processor: of the model.
        count: how many items there are: the steps of the run times its samples a step.
        max_tokens: longer samples are not used (counted as too long), or cut.
        cut: cut what is longer, as published, instead.
        max_caption_tokens: learn so many tokens of a caption at most, as published.
        media: where tensors of media come from; None: from files, as in a chat.

    Raises:
        ConfigError: sound is to be shown to a model without an ear.
    """

    def __init__(
        self,
        mixture: Mixture,
        datasets: Sequence[Dataset],
        processor: VideoLlamaProcessor,
        count: int,
        *,
        max_tokens: int | None = None,
        cut: bool = False,
        max_caption_tokens: int | None = None,
        media: MediaTensors | None = None,
    ) -> None:
        self.mixture, self.datasets, self.processor, self.count = mixture, tuple(datasets), processor, count
        self.max_tokens, self.cut, self.max_caption_tokens = max_tokens, cut, max_caption_tokens
        self.media: MediaTensors = FileMedia(processor) if media is None else media
        for dataset in datasets:
            if dataset.shown == "sound" and not processor.num_audio_query_tokens:
                raise ConfigError(f"only the sound of {dataset.path} is to be shown, but the model has no ear")

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, position: int) -> Item:
        """The item at a position.

        Raises:
            DataError: the ledger's limit is passed, or a dataset has nothing usable.
        """
        source = self.mixture.place(position).source
        dataset = self.datasets[source]
        key = [self.mixture.seed, 404, position]
        item = self.mixture.take(position, lambda sample: self._item(sample, dataset, np.random.default_rng(key)))
        return {**item, "source": source}

    def length(self, position: int) -> int:
        """Tokens of the item at a position, without decoding its media, for batches of like lengths.

        Exact with kept encoder states. Otherwise it is assumed that videos have sound, and as many frames as the model
        is shown at most, which the number of tokens depends on only where their seconds are written into the prompt.
        """
        dataset = self.datasets[self.mixture.place(position).source]

        guessed = isinstance(self.media, FileMedia)

        def measure(sample: Sample) -> int:
            messages, looks = as_shown(sample, dataset, self.processor)
            clips = {name: self.media.preview(sample.media[name], look) for name, look in looks.items()}
            return len(self._render(sample, messages, clips, dataset).input_ids)

        return self.mixture.take(position, measure, count=False, read=_words if guessed else operator.getitem)

    def _item(self, sample: Sample, dataset: Dataset, draw: np.random.Generator) -> Item:
        messages, looks = as_shown(sample, dataset, self.processor)
        shown = {name: self.media(sample.media[name], look, draw) for name, look in looks.items()}
        clips = {name: one.clip for name, one in shown.items()}
        prompt = self._render(sample, messages, clips, dataset)
        videos, sounds = [], []
        for span in prompt.media:
            one = shown[span.clip]
            tensors = one.video if span.kind == "video" else one.sound
            assert tensors is not None
            (videos if span.kind == "video" else sounds).append(tensors)
        return {
            "input_ids": torch.tensor(prompt.input_ids), "labels": torch.tensor(prompt.labels),
            "videos": videos, "sounds": sounds,
        }  # fmt: skip

    def _render(self, sample: Sample, messages: Sequence[Message], clips: dict[str, Clip], dataset: Dataset) -> Any:
        """Raises: UnusableSampleError"""
        form = dataset.learned_as
        try:
            prompt = self.processor.render_for_training(
                messages, clips, form,
                branch="video" if dataset.shown == "frames" else None,
                max_tokens=self.max_tokens if self.cut else None,
                max_learned_tokens=self.max_caption_tokens if form == "caption" else None,
            )  # fmt: skip
        except ValueError as error:
            what = " ".join(str(error).split())
            reason: UnusableReason = "too long" if what.startswith("a cut after") else "nothing to show"
            raise UnusableSampleError(reason, f"sample {sample.id!r}: {what}") from None
        if self.max_tokens is not None and len(prompt.input_ids) > self.max_tokens:
            raise UnusableSampleError(
                "too long",
                f"sample {sample.id!r}: {len(prompt.input_ids):,} tokens, the most is {self.max_tokens:,}; shorten it",
            )
        if all(label == IGNORED for label in prompt.labels):
            raise UnusableSampleError("no target", f"sample {sample.id!r}: there is nothing to learn; add an answer")
        return prompt


def _words(source: Source, index: int) -> Sample:
    """A sample whose media files need not be there: of shards, they are not fetched."""
    return source.words(index) if isinstance(source, ShardSamples) else source[index]


def as_shown(
    sample: Sample, dataset: Dataset, processor: VideoLlamaProcessor
) -> tuple[Sequence[Message], dict[str, Look]]:
    """Messages as the dataset is to be shown, and how each of the media is looked at.

    Raises:
        UnusableSampleError: one of the media would be neither seen nor heard.
    """
    ear = processor.num_audio_query_tokens > 0
    looks: dict[str, Look] = {}
    messages: list[Message] = []
    for message in sample.messages:
        parts = []
        for part in message.parts:
            if isinstance(part, MediaPart):
                part = replace(part, type="audio") if dataset.shown == "sound" else part
                before = looks.get(part.clip, Look(False, False))
                looks[part.clip] = Look(
                    before.seen or part.type != "audio",
                    before.heard or (ear and part.type != "image" and dataset.shown != "frames"),
                    dataset.learned_as == "caption",
                )
            parts.append(part)
        messages.append(replace(message, parts=tuple(parts)))
    for name, look in looks.items():
        if not look.seen and not look.heard:
            raise UnusableSampleError(
                "nothing to show", f"sample {sample.id!r}: {name!r} is a sound, but the model is shown frames only"
            )
    return messages, looks


# --- batches ----------------------------------------------------------------------------------------------------------


class Collate:
    """Items to a batch: everything that `VideoLlamaForConditionalGeneration.forward` takes, and what else items have.

    * ``input_ids``, ``attention_mask``, ``labels`` int64 ``(B, L)``, padded on the right to a multiple of 16;
    * the clips of all items, row after row: ``pixel_values (N, T, 3, H, W)`` or ``frame_states (N, T, Q, D)``, with
      ``frame_mask`` and ``frame_seconds (N, T)``; absent where no item shows any;
    * likewise ``audio_values (N, S, 1, F, W)`` or ``segment_states (N, S, D)``, ``segment_mask``, ``segment_seconds``;
    * anything else stacked, such as ``source (B,)``, which is not for the model.

    Any items go together: text alone, pictures, silent and sounding videos, several in one item. Only pixels and kept
    states do not.
    """

    def __init__(self, pad_token_id: int) -> None:
        self.pad_token_id = pad_token_id

    def __call__(self, items: Sequence[Item]) -> dict[str, torch.Tensor]:
        """Raises: ValueError, where kept states and pixels, or mel images, would share a batch."""
        batch: dict[str, torch.Tensor] = {}
        if "input_ids" in items[0]:
            lengths = torch.tensor([len(item["input_ids"]) for item in items])
            length = -(-int(lengths.max()) // LENGTH_STEP_TOKENS) * LENGTH_STEP_TOKENS
            for key, fill in (("input_ids", self.pad_token_id), ("labels", IGNORED)):
                batch[key] = torch.full((len(items), length), fill)
                for row, item in zip(batch[key], items, strict=True):
                    row[: len(item[key])] = torch.as_tensor(item[key])
            batch["attention_mask"] = (torch.arange(length) < lengths[:, None]).long()
        for key, values, states, unit in (
            ("videos", "pixel_values", "frame_states", "frame"),
            ("sounds", "audio_values", "segment_states", "segment"),
        ):
            clips: list[Tensors] = [clip for item in items for clip in item.get(key, ())]
            if not clips:
                continue
            if len({clip[0].ndim for clip in clips}) > 1:
                raise ValueError(f"a batch of {key} has kept states and {values}; give all of them the same way")
            counts = torch.tensor([len(seconds) for _, seconds in clips])
            kept = clips[0][0].ndim == (3 if key == "videos" else 2)
            batch[states if kept else values] = pad_sequence([rows.float() for rows, _ in clips], batch_first=True)
            batch[f"{unit}_seconds"] = pad_sequence([seconds.float() for _, seconds in clips], batch_first=True)
            batch[f"{unit}_mask"] = torch.arange(int(counts.max())) < counts[:, None]
        for key in items[0]:
            if key not in batch and key not in ("videos", "sounds"):
                batch[key] = torch.stack([torch.as_tensor(item[key]) for item in items])
        return batch

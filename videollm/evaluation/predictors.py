"""What the models of LaViLa and LF-VILA say of files: vectors, classes, answers.

A predictor says which frames it looks at; whoever reads the files gives it clips with these.

Notation: B clips, T frames, C classes, D width.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch.nn import functional

from videollm.clips import Clip, Frames
from videollm.data.long_form import SUBTITLES, LongForm, question_sentences
from videollm.errors import ConfigError, MediaUnreadableError
from videollm.media.sampling import FrameSampling, segment_centre_indices
from videollm.models import families
from videollm.models.lavila import LavilaDualEncoder, LavilaForVideoClassification
from videollm.models.lf_vila import (
    LfVilaForMultipleChoice,
    LfVilaForPreTraining,
    LfVilaForQuestionAnswering,
    LfVilaForRetrieval,
    LfVilaForVideoClassification,
    align_seconds,
    embed_paragraph,
    embed_video,
)
from videollm.models.lf_vila.processing_lf_vila import spread_indices

TEXTS_AT_ONCE = 64
ALL_FRAMES = FrameSampling("uniform", frames=1_000_000)


def frames_of(clip: Clip) -> Frames:
    """What is to be seen of a clip.

    Raises:
        MediaUnreadableError: nothing.
    """
    if clip.frames is None:
        raise MediaUnreadableError(f"{clip.name}: there are no pictures in it; give a video")
    return clip.frames


class ClipModel:
    """A LaViLa dual encoder or classifier, and which frames of a clip it sees.

    Args:
        folder: of the model.
        frames: T; None: as many as it was trained with. Other numbers resize its table of times, as published.
        wanted: classes, one of which it must be of.
    """

    def __init__(self, folder: str, frames: int | None, *wanted: type) -> None:
        self.model, processor = families.load(folder, *wanted)
        vision = self.model.vision_model
        if frames is not None and frames != vision.config.num_frames:
            vision.resize_frames(frames)
        self.count = int(vision.config.num_frames)
        self.processor = processor
        self.images = getattr(processor, "image_processor", processor)

    @property
    def is_classifier(self) -> bool:
        return isinstance(self.model, LavilaForVideoClassification)

    def centres(self, clip: Clip) -> np.ndarray:
        """The middle frames of T equal segments, uint8 ``(T, H, W, 3)``; short clips repeat some."""
        pixels = frames_of(clip).pixels
        return pixels if len(pixels) == self.count else pixels[segment_centre_indices(len(pixels), self.count)]

    @torch.inference_mode()
    def embed_clips(self, views: torch.Tensor, unit: bool = True) -> np.ndarray:
        """float ``(B, T, 3, H, W)`` to vectors, float32 ``(B, D)``, of length 1 unless told otherwise."""
        values = self.model.get_video_features(views.to(self.model.device, self.model.dtype)).float()
        return (functional.normalize(values, dim=-1) if unit else values).cpu().numpy()

    @torch.inference_mode()
    def embed_texts(self, texts: Sequence[str]) -> np.ndarray:
        """Texts to unit vectors, float32 ``(N, D)``."""
        rows = []
        for start in range(0, len(texts), TEXTS_AT_ONCE):
            batch = self.processor.texts(list(texts[start : start + TEXTS_AT_ONCE]))
            batch = {name: value.to(self.model.device) for name, value in batch.items()}
            rows.append(self.model(**batch).text_embeds.float().cpu().numpy())
        return np.concatenate(rows)

    @torch.inference_mode()
    def classify(self, views: torch.Tensor) -> list[np.ndarray]:
        """float ``(B, T, 3, H, W)`` to the logits of each head, float32 ``(B, C)``."""
        values = views.to(self.model.device, self.model.dtype)
        return [logits.float().cpu().numpy() for logits in self.model(pixel_values=values).logits]


def dual_encoder(folder: str, frames: int | None) -> ClipModel:
    """Raises ModelNotFoundError for any other model."""
    return ClipModel(folder, frames, LavilaDualEncoder)


def classifier_or_dual_encoder(folder: str, frames: int | None) -> ClipModel:
    """Raises ModelNotFoundError for any other model."""
    return ClipModel(folder, frames, LavilaForVideoClassification, LavilaDualEncoder)


def dense_views(pixels: np.ndarray, count: int, stride: int, clips: int) -> np.ndarray:
    """Stretches of a video, evenly spread, each of ``count`` frames in steps of ``stride``.

    Args:
        pixels: uint8 ``(frames, H, W, 3)``, all of them.

    Returns:
        uint8 ``(clips x count, H, W, 3)``; behind the end of a short video it is black, as published.
    """
    room = max(len(pixels) - count * stride, 0)
    starts = np.linspace(0, room, clips, dtype=int)
    places = (starts[:, None] + stride * np.arange(count)).reshape(-1)
    shown = pixels[np.minimum(places, len(pixels) - 1)].copy()
    shown[places >= len(pixels)] = 0
    return shown


class LongModel:
    """An LF-VILA model, and which frames of a video it sees.

    Args:
        folder: of the model.
        frames: T; None: as many as it was trained with.
        wanted: classes, one of which it must be of.
    """

    def __init__(self, folder: str, frames: int | None, *wanted: type) -> None:
        self.model, self.processor = families.load(folder, *wanted)
        self.count = int(frames or self.model.config.num_frames)
        self.frames = FrameSampling("spread", frames=self.count)
        self.images = getattr(self.processor, "image_processor", self.processor)

    def pixel_values(self, clips: Sequence[Clip]) -> torch.Tensor:
        """float ``(B, T, 3, H, W)``; short videos repeat frames."""
        shown = []
        for clip in clips:
            pixels = frames_of(clip).pixels
            shown.append(self.images(pixels[spread_indices(len(pixels), self.count)]))
        return torch.stack(shown).to(self.model.device, self.model.dtype)

    def words(self, texts: Sequence[Sequence[str]]) -> dict[str, torch.Tensor]:
        """Ids and mask of the sentences of each text."""
        most, longest = self.model.config.most_sentences, max(map(len, texts))
        if longest > most:
            raise ConfigError(
                f"the model reads {most} sentences at once, a question and its subtitles are {longest}; give a model "
                f"that was trained on such questions"
            )
        batch = self.processor.encode_sentences(texts)
        return {name: value.to(self.model.device) for name, value in batch.items()}


class ParagraphVideoEmbedder(LongModel):
    """Videos and paragraphs as unit vectors of one space, as they are evaluated."""

    def __init__(self, folder: str, frames: int | None) -> None:
        super().__init__(folder, frames, LfVilaForRetrieval, LfVilaForPreTraining)

    @torch.inference_mode()
    def videos(self, clips: Sequence[Clip]) -> np.ndarray:
        """float32 ``(B, D)``."""
        tokens = self.model.encode_video(self.pixel_values(clips)).tokens
        return self.model.video_vectors(tokens).float().cpu().numpy()

    @torch.inference_mode()
    def paragraphs(self, paragraphs: Sequence[Sequence[str]]) -> np.ndarray:
        """float32 ``(B, D)``; sentences are joined until as many are left as in training, as published."""
        batch = self.processor(paragraphs=paragraphs).to(self.model.device)
        states = self.model.text_encoder.read_sentences(**batch)
        tokens, _ = self.model.text_encoder.read_paragraph(states, batch["attention_mask"])
        return self.model.paragraph_vectors(tokens).float().cpu().numpy()


class LongAnswerer(LongModel):
    """Answers questions about long videos.

    Args:
        format: of the questions; it says which class answers them, and how many sentences of subtitles are read.
    """

    def __init__(self, folder: str, format: str) -> None:
        wanted = LfVilaForMultipleChoice if format == "how2qa" else LfVilaForQuestionAnswering
        super().__init__(folder, None, wanted)
        self.subtitles = SUBTITLES.get(format, 0)

    @torch.inference_mode()
    def answer(self, samples: Sequence[LongForm], clips: Sequence[Clip]) -> tuple[np.ndarray, np.ndarray | None]:
        """Logits, float32 ``(B, answers or choices)``; and of frames ``(B, T, 2)``, where the model has them."""
        pixels = self.pixel_values(clips)
        if not isinstance(self.model, LfVilaForMultipleChoice):
            texts = [question_sentences(sample, subtitles=self.subtitles) for sample in samples]
            return self.model(pixels, **self.words(texts)).logits.float().cpu().numpy(), None
        choices = len(samples[0].choices)
        texts = [question_sentences(one, n, self.subtitles) for one in samples for n in range(choices)]
        words = {name: value.unflatten(0, (-1, choices)) for name, value in self.words(texts).items()}
        found = self.model(pixels, **words)
        return found.logits.float().cpu().numpy(), found.span_logits.float().cpu().numpy()


class LongClassifier(LongModel):
    """Classifies long videos."""

    def __init__(self, folder: str, frames: int | None) -> None:
        super().__init__(folder, frames, LfVilaForVideoClassification)

    @torch.inference_mode()
    def classify(self, clips: Sequence[Clip]) -> np.ndarray:
        """Logits, float32 ``(B, C)``."""
        return self.model(self.pixel_values(clips)).logits.float().cpu().numpy()


class ParagraphAligner(LongModel):
    """Finds the times of a paragraph's sentences in a video.

    Args:
        rate_hz, most_frames: which frames are looked at.
        frames_per_clip: see `videollm.models.lf_vila.embed_video`.
    """

    def __init__(self, folder: str, rate_hz: float, most_frames: int, frames_per_clip: int | None) -> None:
        super().__init__(folder, None, LfVilaForPreTraining, LfVilaForRetrieval)
        self.frames = FrameSampling("rate", rate_hz=rate_hz, max_frames=most_frames)
        self.frames_per_clip = frames_per_clip

    def align(self, clip: Clip, sentences: Sequence[str]) -> list[tuple[float, float]]:
        """Start and end of each sentence, seconds."""
        video = embed_video(self.model, self.processor, frames_of(clip), self.frames_per_clip)
        said = embed_paragraph(self.model, self.processor, sentences)
        similarity = functional.normalize(said.sentence_vectors, dim=-1) @ video.clip_vectors.T
        return align_seconds(similarity.numpy(), video.clip_seconds)

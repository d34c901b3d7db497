"""Whole videos and paragraphs, of any length, as vectors: one of each, and one of every clip and sentence.

Notation: K clips, S sentences, D width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional

from ...clips import Frames
from ...errors import DataError
from .modeling_lf_vila import LfVilaForPreTraining, LfVilaForRetrieval, clip_means
from .processing_lf_vila import LfVilaProcessor, split_sentences

_SENTENCES_AT_ONCE = 32

Embedder = LfVilaForPreTraining | LfVilaForRetrieval


@dataclass(frozen=True)
class VideoEmbedding:
    """A video in the space of paragraphs, and its clips in that of sentences.

    Attributes:
        vector: float32 ``(D,)``, of length 1.
        clip_vectors: float32 ``(K, D)``, of length 1.
        clip_seconds: start and end of each clip: from its first frame to the next clip's, the last to the video's end.
    """

    vector: torch.Tensor
    clip_vectors: torch.Tensor
    clip_seconds: tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class ParagraphEmbedding:
    """A paragraph in the space of videos, and its sentences in that of clips.

    Attributes:
        vector: float32 ``(D,)``, of length 1.
        sentences: S of them.
        sentence_vectors: float32 ``(S, D)``, of length 1.
    """

    vector: torch.Tensor
    sentences: tuple[str, ...]
    sentence_vectors: torch.Tensor


@torch.no_grad()
def embed_video(
    model: Embedder, processor: LfVilaProcessor, frames: Frames, frames_per_clip: int | None = None
) -> VideoEmbedding:
    """Embed a video of any number of frames.

    Pixels are made and seen a stretch at a time, so that memory holds the tokens of the whole video but not its pixels.

    Args:
        model: of pretraining, with a space of its own for clips and sentences; or of retrieval, where a clip is
            embedded as a video of its own.
        processor: saved with the model.
        frames: in order, with their seconds. The models were trained on 32 of a video.
        frames_per_clip: None: as in training. Frames that make no whole clip are spread over the first ones.
    """
    encoder, config = model.video_encoder, model.config
    each = frames_per_clip or config.frames_per_clip
    if each < 1:
        raise ValueError(f"a clip has at least one frame, found {each}")
    count = len(frames)
    tap = config.local_features == "tap" and isinstance(model, LfVilaForPreTraining)
    step = encoder.frames_at_once(count)
    stems: list[torch.Tensor] = []
    taps: list[torch.Tensor] = []
    for start in range(0, count, step):
        pixels = processor.image_processor(frames.pixels[start : start + step])
        stem, tapped = encoder.stem(pixels[None].to(model.device), local=tap)
        stems.append(stem)
        taps += [] if tapped is None else [model.pool(tapped)]
    tokens = model.pool(encoder.finish(torch.cat(stems, dim=1)))
    clips = max(count // each, 1)
    if isinstance(model, LfVilaForPreTraining):
        clip_vectors = model.clip_vectors(torch.cat(taps, dim=1) if taps else tokens, clips)[0]
    else:
        means = clip_means(tokens, clips)[0]
        clip_vectors = functional.normalize(model.video_global_projection(means), dim=-1)
    starts = [part[0].item() for part in torch.arange(tokens.shape[1]).tensor_split(clips)]
    seconds = [float(frames.seconds[min(start, count - 1)]) for start in starts]
    end = max(frames.duration_seconds, float(frames.seconds[-1]))
    spans = tuple(zip(seconds, [*seconds[1:], end], strict=True))
    return VideoEmbedding(model.video_vectors(tokens)[0].float().cpu(), clip_vectors.float().cpu(), spans)


@torch.no_grad()
def embed_paragraph(model: Embedder, processor: LfVilaProcessor, paragraph: str | Sequence[str]) -> ParagraphEmbedding:
    """Embed a paragraph of any length; no word is cut off.

    A paragraph that is too long to be read at once is read in sections, whose vectors are averaged; a sentence that is
    too long in pieces, whose vectors are averaged.

    Args:
        model: see `embed_video`; one of retrieval reads a sentence as a paragraph of its own.
        processor: saved with the model.
        paragraph: a text, or its sentences.

    Raises:
        DataError: without words, or with a sentence without words.
    """
    sentences = split_sentences(paragraph) if isinstance(paragraph, str) else [str(one) for one in paragraph]
    if not sentences:
        raise DataError("the paragraph has no words; say what is to be found")
    for number, sentence in enumerate(sentences, 1):
        if not processor.tokenizer(sentence, add_special_tokens=False)["input_ids"]:
            raise DataError(f"sentence {number} of the paragraph has no words; leave it out")
    pieces = [processor.pieces(sentence) for sentence in sentences]
    flat = [piece for group in pieces for piece in group]
    sections = processor.sections(flat)

    vectors = torch.cat([_read(model, processor, [section])[0] for section in sections])
    weights = torch.tensor([float(sum(map(len, section))) for section in sections])
    vector = functional.normalize((vectors * weights[:, None]).sum(dim=0), dim=0)

    rows: list[torch.Tensor] = []
    for start in range(0, len(flat), _SENTENCES_AT_ONCE):
        batch = [[piece] for piece in flat[start : start + _SENTENCES_AT_ONCE]]
        rows.append(_read(model, processor, batch)[1])
    of_pieces = torch.cat(rows).split([len(group) for group in pieces])
    said = torch.stack([functional.normalize(group.mean(dim=0), dim=0) for group in of_pieces])
    return ParagraphEmbedding(vector, tuple(sentences), said)


def _read(model: Embedder, processor: LfVilaProcessor, paragraphs: list[list[str]]) -> tuple[Any, Any]:
    """Vectors of paragraphs, and of their first sentences."""
    batch = {name: value.to(model.device) for name, value in processor.encode_sentences(paragraphs).items()}
    states = model.text_encoder.read_sentences(**batch)
    vectors = model.paragraph_vectors(model.text_encoder.read_paragraph(states, batch["attention_mask"])[0])
    first = model.sentence_vectors(states[:, 0]) if isinstance(model, LfVilaForPreTraining) else vectors
    return vectors.float().cpu(), first.float().cpu()

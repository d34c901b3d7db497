"""Whole videos and paragraphs of any length as vectors."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from tests.models.lf_vila.small_lf_vila import small_model, small_processor
from videollm.clips import Frames
from videollm.errors import DataError
from videollm.models.lf_vila import (
    LfVilaForPreTraining,
    LfVilaForRetrieval,
    LfVilaProcessor,
    embed_paragraph,
    embed_video,
)


@pytest.fixture(scope="module")
def processor(tmp_path_factory: pytest.TempPathFactory) -> LfVilaProcessor:
    return small_processor(tmp_path_factory.mktemp("words"))


@pytest.fixture(scope="module", params=[LfVilaForPreTraining, LfVilaForRetrieval])
def model(request: pytest.FixtureRequest) -> Any:
    return small_model(request.param)


def frames(count: int, height: int = 24, width: int = 40) -> Frames:
    pixels = np.random.default_rng(0).integers(0, 256, (count, height, width, 3), dtype=np.uint8)
    return Frames(pixels, np.arange(count) / 2, count / 2)


@pytest.mark.parametrize("count", [1, 3, 16, 43])
@torch.no_grad()
def test_videos_of_any_length(model: Any, processor: LfVilaProcessor, count: int) -> None:
    found = embed_video(model, processor, frames(count))
    clips = max(count // 4, 1)
    assert found.vector.shape == (64,) and found.clip_vectors.shape == (clips, 64)
    torch.testing.assert_close(found.clip_vectors.norm(dim=1), torch.ones(clips))
    assert len(found.clip_seconds) == clips and found.clip_seconds[0][0] == 0.0
    assert found.clip_seconds[-1][1] == count / 2
    assert all(end == start for (_, end), (start, _) in zip(found.clip_seconds, found.clip_seconds[1:], strict=False))
    pixels = processor.image_processor(frames(count).pixels)[None]
    seen = model.encode_video(pixels, local=True)
    torch.testing.assert_close(found.vector, model.video_vectors(seen.tokens)[0], atol=1e-5, rtol=1e-5)
    if isinstance(model, LfVilaForPreTraining):
        wanted = model.clip_vectors(seen.local_tokens, clips)[0]
        torch.testing.assert_close(found.clip_vectors, wanted, atol=1e-5, rtol=1e-5)


def test_a_thousand_frames(processor: LfVilaProcessor) -> None:
    """In stretches: pixels and patches of at most 32 frames are held at a time."""
    model, held = small_model(LfVilaForPreTraining), []
    model.video_encoder.patch_embed.register_forward_hook(lambda module, given, out: held.append(out.shape[1]))
    found = embed_video(model, processor, frames(1000, 12, 20), frames_per_clip=10)
    assert found.clip_vectors.shape == (100, 64) and found.clip_vectors.isfinite().all()
    assert found.clip_seconds[37] == (185.0, 190.0)
    assert max(held) == 32 and sum(held) == 1000


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 900), (333, 7)])
def test_pictures_off_the_grid(model: Any, processor: LfVilaProcessor, height: int, width: int) -> None:
    found = embed_video(model, processor, frames(5, height, width), frames_per_clip=2)
    assert found.clip_vectors.shape == (2, 64) and found.vector.isfinite().all()
    assert found.clip_seconds == ((0.0, 1.5), (1.5, 2.5))


def test_a_clip_has_frames(model: Any, processor: LfVilaProcessor) -> None:
    with pytest.raises(ValueError, match="at least one frame, found -1"):
        embed_video(model, processor, frames(4), frames_per_clip=-1)


@pytest.mark.parametrize("count", [1, 2000])
def test_paragraphs_of_any_length(model: Any, processor: LfVilaProcessor, count: int) -> None:
    words = np.random.default_rng(0).choice(["red", "circle", "man", "opens", "the", "door."], count)
    found = embed_paragraph(model, processor, " ".join(words))
    torch.testing.assert_close(found.vector.norm(), torch.tensor(1.0))
    assert found.sentence_vectors.shape == (len(found.sentences), 64)
    assert " ".join(found.sentences).split() == list(words)
    torch.testing.assert_close(found.sentence_vectors.norm(dim=1), torch.ones(len(found.sentences)))
    again = embed_paragraph(model, processor, list(found.sentences))
    torch.testing.assert_close(again.vector, found.vector)


@pytest.mark.parametrize("count", [1, 5, 8, 9, 33])
def test_any_number_of_sentences(model: Any, processor: LfVilaProcessor, count: int) -> None:
    """More than are read at once, and than the model can tell apart."""
    found = embed_paragraph(model, processor, ["the man opens a red door then runs"] * count)
    assert found.sentence_vectors.shape == (count, 64) and found.vector.isfinite().all()
    torch.testing.assert_close(found.sentence_vectors, found.sentence_vectors[:1].expand(count, -1))


@pytest.mark.parametrize("text", ["?!", "...", "🎉", "a" * 5000])
def test_signs_and_words_that_nobody_knows_are_words(model: Any, processor: LfVilaProcessor, text: str) -> None:
    found = embed_paragraph(model, processor, text)
    assert found.sentences == (text,) and found.vector.isfinite().all()


@torch.no_grad()
def test_a_short_paragraph_is_read_as_in_training(processor: LfVilaProcessor) -> None:
    model = small_model(LfVilaForPreTraining)
    sentences = ["a red circle bounces", "the man runs"]
    found = embed_paragraph(model, processor, sentences)
    batch = processor(paragraphs=[sentences])
    states = model.text_encoder.read_sentences(batch["input_ids"], batch["attention_mask"])
    paragraph, _ = model.text_encoder.read_paragraph(states, batch["attention_mask"])
    torch.testing.assert_close(found.vector, model.paragraph_vectors(paragraph)[0])
    torch.testing.assert_close(found.sentence_vectors, model.sentence_vectors(states)[0])


def test_the_end_of_a_long_sentence_counts(model: Any, processor: LfVilaProcessor) -> None:
    long = " ".join(["red circle"] * 30)
    one, two = (embed_paragraph(model, processor, [f"{long} {end}"]) for end in ("man", "woman"))
    assert (one.vector - two.vector).abs().max() > 1e-4
    assert (one.sentence_vectors - two.sentence_vectors).abs().max() > 1e-4


def test_nothing_to_find(model: Any, processor: LfVilaProcessor) -> None:
    for nothing in ("", " \n", []):
        with pytest.raises(DataError, match="the paragraph has no words; say what is to be found"):
            embed_paragraph(model, processor, nothing)
    with pytest.raises(DataError, match="sentence 1 of the paragraph has no words; leave it out"):
        embed_paragraph(model, processor, "\u200b")  # no more than a space of no width
    with pytest.raises(DataError, match="sentence 2 of the paragraph has no words; leave it out"):
        embed_paragraph(model, processor, ["a man", " ", "runs"])

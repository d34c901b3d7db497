"""Frames and sentences to tensors: sizes, lengths and counts off the grid."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.models.lf_vila.small_lf_vila import small_processor
from videollm.clips import Frames
from videollm.errors import DataError
from videollm.models.lf_vila import LfVilaImageProcessor, LfVilaProcessor
from videollm.models.lf_vila.processing_lf_vila import (
    clip_positions,
    merge_sentences,
    span_labels,
    split_sentences,
    spread_indices,
)


@pytest.fixture(scope="module")
def processor(tmp_path_factory: pytest.TempPathFactory) -> LfVilaProcessor:
    return small_processor(tmp_path_factory.mktemp("words"))


def picture(height: int, width: int, frames: int = 1) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (frames, height, width, 3), dtype=np.uint8)


def test_the_aspect_is_kept_and_the_rest_is_grey() -> None:
    images = LfVilaImageProcessor(size=(48, 80))
    tall = images(picture(96, 48, 2))
    assert tall.shape == (2, 3, 48, 80)
    assert not tall[..., :28].any() and not tall[..., 52:].any() and tall[..., 28:52].abs().min() > 0
    same = picture(48, 80)
    wanted = torch.from_numpy(same).permute(0, 3, 1, 2).float() / 255 - torch.tensor(images.image_mean).view(3, 1, 1)
    torch.testing.assert_close(images(same), wanted / torch.tensor(images.image_std).view(3, 1, 1))


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 500), (333, 7), (1080, 1920)])
@pytest.mark.parametrize("as_published", [False, True])
def test_pictures_of_any_size(height: int, width: int, as_published: bool) -> None:
    out = LfVilaImageProcessor(as_published=as_published)(picture(height, width))
    assert out.shape == (1, 3, 192, 320) and out.isfinite().all() and out.abs().max() < 3


def test_as_published_takes_the_middle() -> None:
    marked = np.zeros((1, 240, 428, 3), dtype=np.uint8)
    marked[:, 12:228, 22:407] = 255  # what the published crop of a frame of this very size keeps
    out = LfVilaImageProcessor(as_published=True)(marked)
    assert out.min() > 2


def test_videos_of_a_batch_are_equally_long(processor: LfVilaProcessor) -> None:
    frames = Frames(picture(30, 50, 3), np.arange(3.0), 3.0)
    batch = processor([frames, picture(20, 20, 3)], [["a red circle"], ["a man runs", "falls asleep"]])
    assert batch["pixel_values"].shape == (2, 3, 3, 48, 80)
    assert batch["input_ids"].shape == batch["attention_mask"].shape == (2, 2, 12)
    assert not batch["input_ids"][0, 1].any() and not batch["attention_mask"][0, 1].any()
    with pytest.raises(DataError, match="equally many frames, at least one, found 3, 4; sample 16 of each"):
        processor([frames, picture(20, 20, 4)])


def test_sentences_without_words_are_padding(processor: LfVilaProcessor) -> None:
    batch = processor.encode_sentences([["a man runs", "", "  "]])
    assert batch["attention_mask"].sum(dim=2).tolist() == [[5, 0, 0]]
    for nothing in ([], ["", " "]):
        with pytest.raises(DataError, match="paragraph 2 has no words; leave it out"):
            processor.encode_sentences([["a man"], nothing])


def test_many_sentences_are_joined_and_long_ones_cut_in_a_batch(processor: LfVilaProcessor) -> None:
    batch = processor(paragraphs=[["a", "man", "runs", "and", "stops", "a man"], ["a man " * 40]])
    assert batch["input_ids"].shape == (2, 4, 12)
    assert batch["attention_mask"][1].sum(dim=1).tolist() == [12, 0, 0, 0]


def test_pieces_and_sections_lose_no_word(processor: LfVilaProcessor) -> None:
    rng = np.random.default_rng(0)
    words = ["red", "circle", "man", "opens", "the", "zzzzzzzzzzzzzzzzzzzzzz"]
    for count in (1, 5, 40, 400):
        text = " ".join(rng.choice(words, count))
        pieces = processor.pieces(text)
        assert "".join(pieces).replace(" ", "") == text.replace(" ", "")
        lengths = [len(processor.tokenizer(piece)["input_ids"]) for piece in pieces]
        assert max(lengths) <= processor.max_sentence_tokens
        sections = processor.sections(pieces)
        assert " ".join(sentence for section in sections for sentence in section) == " ".join(pieces)
        for section in sections:
            assert len(section) <= processor.max_sentences
            assert all(len(processor.tokenizer(one)["input_ids"]) <= processor.max_sentence_tokens for one in section)


def test_a_short_paragraph_is_one_section_joined_as_in_training(processor: LfVilaProcessor) -> None:
    sentences = ["a man runs", "a", "red", "circle stops", "the woman opens the door"]
    assert processor.sections(sentences) == [merge_sentences(sentences, 4)]


def test_merging() -> None:
    assert merge_sentences(["aa", "b", "cc", "d"], 3) == ["aa b", "cc", "d"]
    assert merge_sentences(["aa"], 4) == ["aa"] and merge_sentences(["a", "b"], 0) == ["a b"]


def test_splitting() -> None:
    text = 'He runs. "Stop!" she says?  Then\nnothing… The end at 3.5 seconds'
    assert split_sentences(text) == ["He runs.", '"Stop!', "she says?", "Then", "nothing…", "The end at 3.5 seconds"]
    assert split_sentences(" \n ") == []


def test_frames_of_short_videos_are_repeated() -> None:
    assert spread_indices(1, 4) == [0, 0, 0, 0] and spread_indices(3, 5) == [0, 0, 1, 1, 2]
    assert clip_positions([3], 4) == [[0.0, 0.75, 1.5, 2.25]]
    with pytest.raises(ValueError, match="at least 1, found 0 and 4"):
        spread_indices(0, 4)


def test_spans() -> None:
    labels, weights = span_labels((99.0, 120.0), 100.0, 4)
    assert labels.tolist() == [0, 0, 0, 1] and weights.tolist() == pytest.approx([2 / 3, 2 / 3, 2 / 3, 2.0])
    labels, weights = span_labels(None, 10.0, 4)
    assert labels.tolist() == [1, 1, 1, 1] and weights.tolist() == [0.5] * 4


def test_saved_and_loaded(processor: LfVilaProcessor, tmp_path: Path) -> None:
    processor.save_pretrained(tmp_path)
    loaded = LfVilaProcessor.from_pretrained(tmp_path)
    assert (loaded.max_sentences, loaded.max_sentence_tokens, loaded.num_frames) == (4, 12, 16)
    assert loaded.image_processor.to_dict() == processor.image_processor.to_dict()
    one, two = (each(paragraphs=[["a red circle rolls"]])["input_ids"] for each in (processor, loaded))
    assert torch.equal(one, two)

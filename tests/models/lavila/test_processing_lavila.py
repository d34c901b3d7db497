"""Frames and words; what is published is compared in tests/parity."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoImageProcessor, AutoProcessor

import videollm
from tests.models.lavila.small import GPT2_TEXT, VISION
from videollm.errors import ModelNotFoundError
from videollm.models.imagebind.text_tokenizer import load_text_tokenizer
from videollm.models.lavila import LavilaImageProcessor, LavilaNarratorConfig, LavilaProcessor
from videollm.models.lavila.gpt2_tokenizer import load_gpt2_tokenizer
from videollm.models.lavila.processing_lavila import random_box, repair

TOKENIZERS = Path(videollm.__file__).parent / "assets" / "tokenizers"


def pixels(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


@pytest.fixture(scope="module")
def gpt2() -> LavilaProcessor:
    tokenizer = load_gpt2_tokenizer(TOKENIZERS / "gpt2_merges.txt")
    return LavilaProcessor(LavilaImageProcessor(16), tokenizer, "gpt2", max_text_tokens=12)


@pytest.fixture(scope="module")
def clip() -> LavilaProcessor:
    return LavilaProcessor(LavilaImageProcessor(16), load_text_tokenizer(TOKENIZERS / "clip_merges.txt.gz"), "clip", 12)


@pytest.mark.parametrize("shape", [(16, 16), (20, 35), (35, 20), (7, 9), (16, 90)])
def test_any_size_becomes_a_square_from_the_middle(shape: tuple[int, int]) -> None:
    processor = LavilaImageProcessor(16)
    flat = np.full((2, *shape, 3), 128, np.uint8)
    out = processor(flat)
    assert out.shape == (2, 3, 16, 16)
    wanted = (128 - torch.tensor(processor.image_mean)) / torch.tensor(processor.image_std)
    torch.testing.assert_close(out, wanted.view(1, 3, 1, 1).expand_as(out), atol=1e-5, rtol=1e-5)


def test_large_frames_in_groups_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    processor, frames = LavilaImageProcessor(16), pixels(5, 20, 30, 3)
    whole = processor(frames)
    monkeypatch.setattr("videollm.models.lavila.processing_lavila._GROUP_VALUES", 2000)
    assert torch.equal(processor(frames), whole)


def test_views() -> None:
    processor, frames = LavilaImageProcessor(16), pixels(6, 16, 40, 3)
    views = processor.views(frames, clips=2, crops=3)
    assert views.shape == (6, 3, 3, 16, 16)
    left, right = processor.normalise(torch.from_numpy(frames[:3, :, :16].transpose(0, 3, 1, 2))), views[2]
    torch.testing.assert_close(views[0], left)
    torch.testing.assert_close(right, processor.normalise(torch.from_numpy(frames[:3, :, 24:].transpose(0, 3, 1, 2))))
    assert torch.equal(processor.views(frames, clips=2, crops=1)[0], views[1])
    tall = processor.views(frames.transpose(0, 2, 1, 3), clips=1, crops=3)
    torch.testing.assert_close(tall[0], processor.views(frames)[0].mT)
    with pytest.raises(ValueError, match="6 frames make no 4 clips"):
        processor.views(frames, clips=4)


@pytest.mark.parametrize("bad", [np.zeros((0, 4, 4, 3), np.uint8), np.zeros((4, 4, 3), np.uint8)])
def test_what_is_no_clip(bad: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"frames must be \(T, H, W, 3\) and at least one"):
        LavilaImageProcessor(16)(bad)


def test_boxes_for_training() -> None:
    generator = torch.Generator().manual_seed(0)
    shares = []
    for height, width in [(40, 60), (60, 40), (10, 200)] * 30:
        top, left, h, w = random_box(height, width, generator)
        assert top >= 0 and top + h <= height and left >= 0 and left + w <= width and h > 0 and w > 0
        assert 3 / 4 - 0.1 < w / h < 4 / 3 + 0.1
        shares.append(h * w / (height * width))
    assert max(shares) > 0.85  # the most that a ratio of 4 / 3 leaves of 3 / 2 is 8 / 9
    processor, frames = LavilaImageProcessor(16), pixels(2, 40, 60, 3)
    box = (4, 8, 16, 16)
    cut = processor.crop_for_training(frames, box)
    torch.testing.assert_close(cut, processor(frames[:, 4:20, 8:24]))
    assert torch.equal(processor.crop_for_training(frames, box, flip=True), cut.flip(-1))


def test_repaired_texts() -> None:
    assert (
        repair("\u201cquoted\u201d \u2018it\u2019s\u2019 \ufb01ne \uff21\uff22 e\u0301")
        == "\"quoted\" 'it's' fine AB é"
    )
    assert repair("tab\tand\x07bell …") == "tab\tandbell …"


def test_long_texts_keep_their_end(clip: LavilaProcessor, gpt2: LavilaProcessor) -> None:
    long = "c stirs the pot with the wooden spoon and the pot with the other spoon"
    ids = clip.texts([long, "short"])["input_ids"]
    assert ids.shape == (2, 12) and (ids.max(dim=1).values == 49407).all()
    published = clip.texts([long], as_published=True)["input_ids"]
    assert 49407 not in published and torch.equal(published[:, :-1], ids[:1, :-1])
    batch = gpt2.texts([long, "c"])
    assert batch["input_ids"].shape == (2, 12) and batch["input_ids"][0, -1] == 50256
    assert batch["labels"][1].tolist() == [50256, 66, 50256] + 9 * [-100]
    assert clip.texts([])["input_ids"].shape == (0, 0)


def test_what_is_said_is_what_was_written(gpt2: LavilaProcessor) -> None:
    texts = ["#C C picks a knife!", "naïve 🙂", ""]
    assert gpt2.sentences(gpt2.texts(texts)["input_ids"]) == texts
    endless = torch.tensor([[50256, 34, 6630, 262, 21670]])
    assert gpt2.sentences(endless) == ["C cuts the onion"]
    assert gpt2.sentences(endless, as_published=True) == ["C cuts the"]


def test_clips_of_differing_sizes(gpt2: LavilaProcessor) -> None:
    batch = gpt2.clips([pixels(3, 20, 30, 3), pixels(3, 50, 16, 3)])
    assert batch["pixel_values"].shape == (2, 3, 3, 16, 16)


def test_saved_and_loaded(gpt2: LavilaProcessor, tmp_path: Path) -> None:
    LavilaNarratorConfig(vision_config=VISION, text_config=GPT2_TEXT, max_text_tokens=12).save_pretrained(tmp_path)
    gpt2.save_pretrained(tmp_path)
    again: Any = AutoProcessor.from_pretrained(tmp_path)
    assert isinstance(again, LavilaProcessor) and (again.text_kind, again.max_text_tokens) == ("gpt2", 12)
    frames = pixels(2, 20, 30, 3)
    assert torch.equal(again.image_processor(frames), gpt2.image_processor(frames))
    texts = ["#C C picks a knife", "é!"]
    assert torch.equal(again.texts(texts)["input_ids"], gpt2.texts(texts)["input_ids"])
    assert AutoImageProcessor.from_pretrained(tmp_path).size == 16


def test_tokenizers_that_are_none(tmp_path: Path) -> None:
    (tmp_path / "merges.txt").write_text("one two three\n")
    for place in (tmp_path / "merges.txt", tmp_path / "missing.txt"):
        with pytest.raises(ModelNotFoundError, match="no GPT-2 tokenizer at"):
            load_gpt2_tokenizer(place)
    with pytest.raises(ValueError, match="text_kind must be clip, bert or gpt2"):
        LavilaProcessor(LavilaImageProcessor(16), None, "t5")
